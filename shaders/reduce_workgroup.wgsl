// Row programs, a workgroup for each row, or for a few of them: in a pass the invocations of a row fold every SLICES-th
// element, or as many neighbours at once as a STEP has (reduce_walk.wgsl), then their results meet (reduce_tree.wgsl,
// reduce_subgroup.wgsl).
//
// Long rows of a single pass are cut into segments, whose results a second kernel combines.
//
// Hooks: `rows()`, `row_size()`, `parts()`, `segment()`; `program(i, row, start, last, lane, leads)`, which makes the passes of
// an invocation, from the element at `start` on and before `last`, and stores what there is one of for each row at `i` if it
// `leads` its row. Constants: STEP; ACROSS, how many rows a workgroup has; IS_DOWN, whether neighbouring invocations stand at
// neighbouring rows rather than at neighbouring elements of one. WORKGROUP and ACROSS are powers of two.

const SLICES = WORKGROUP / ACROSS;
// From an element that an invocation folds to its next.
const STRIDE = STEP * SLICES;
// From an invocation to the one with the next slice of its row.
const NEXT = select(1u, ACROSS, IS_DOWN);

fn row_of(lane: u32) -> u32 {
    return select(lane / SLICES, lane % ACROSS, IS_DOWN);
}

fn slice_of(lane: u32) -> u32 {
    return select(lane % SLICES, lane / ACROSS, IS_DOWN);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let groups = (rows() + ACROSS - 1u) / ACROSS;
    let group = workgroup_index(id);
    if group >= groups * parts() {
        return;
    }
    let part = group / groups;
    let place = group % groups * ACROSS + row_of(lane);
    let row = min(place, rows() - 1u);
    // Of a row that is not there, nothing is folded.
    let exists = place == row;
    let first = part * segment();
    let last = select(first, min(first + segment(), row_size()), exists);
    let slice = slice_of(lane);
    program(part * rows() + row, row, first + STEP * slice, last, lane, exists && slice == 0u);
}
