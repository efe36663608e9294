// What each part of a line carries on, whatever comes before it: an invocation for each part.
//
// Hooks: as in scan.wgsl; `identity()`, the state of no elements; `combine(a, b)`, the state of a's elements and then b's;
// `store_total(i, state)`, for part `i / lines()` of line `i % lines()`. Constants: BLOCK.

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = invocation(id, lane);
    if i >= lines() * parts() {
        return;
    }
    let line = i % lines();
    let first = (i / lines()) * segment();
    let last = min(first + segment(), line_size());
    var total = identity();
    for (var block = first; block < last; block += BLOCK) {
        let end = min(block + BLOCK, last);
        var state = identity();
        for (var k = block; k < end; k++) {
            state = advance(state, line, k);
        }
        total = combine(total, state);
    }
    store_total(i, total);
}
