// Where an invocation stands. A dimension of the grid has at most 65,535 workgroups, so long grids are folded.
//
// Constants of the generator: WORKGROUP.

const GRID_WIDTH = 32768u;

fn workgroup_index(id: vec3<u32>) -> u32 {
    return id.y * GRID_WIDTH + id.x;
}

fn invocation(id: vec3<u32>, lane: u32) -> u32 {
    return workgroup_index(id) * WORKGROUP + lane;
}
