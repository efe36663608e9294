// Radix sort of rows that are a tile at most, a workgroup for each (sort_tile.wgsl). What a tile has more than its row comes
// last: no key is greater, and it stood behind all others.
//
// Hooks: `rows()`, `row_size()`; `key(row, k)`; `bits()`, how many of a key's lowest bits tell it from others;
// `store(row, place, k)`.

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = workgroup_index(id);
    if row >= rows() {
        return;
    }
    for (var turn = 0u; turn < 8u; turn++) {
        let i = turn * SORTERS + lane;
        tile_keys[spread(i)] = select(0xffffffffu, key(row, min(i, row_size() - 1u)), i < row_size());
        tile_places[spread(i)] = i;
    }
    workgroupBarrier();
    for (var shift = 0u; shift < bits(); shift += 4u) {
        sort_tile(shift, lane);
    }
    for (var i = lane; i < row_size(); i += SORTERS) {
        store(row, i, tile_places[spread(i)]);
    }
}
