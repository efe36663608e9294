// Reductions, an invocation for each result: for short rows, for columns, and where barriers are dear.
//
// Long rows are cut into segments, whose results a second kernel combines. A segment is folded in blocks, so that
// rounding errors of a sum grow with the length of a block and their number instead of their product.
//
// Hooks: `outer_size()`, `inner_size()`, `parts()`, `segment()`; `identity()`, `fold(a, outer, inner)`, `combine(a, b)`,
// `store(i, a)`. Constants: BLOCK.

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = invocation(id, lane);
    if i >= outer_size() * parts() {
        return;
    }
    let outer = i % outer_size();
    let first = (i / outer_size()) * segment();
    let last = min(first + segment(), inner_size());
    var total = identity();
    for (var block = first; block < last; block += BLOCK) {
        let end = min(block + BLOCK, last);
        var partial = identity();
        for (var inner = block; inner < end; inner++) {
            partial = fold(partial, outer, inner);
        }
        total = combine(total, partial);
    }
    store(i, total);
}
