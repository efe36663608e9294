// Scans, an invocation for each part of a line: it walks along its part and stores what it has carried so far. Parts begin
// with what the parts before them carry on, which scan_totals.wgsl found.
//
// A sum starts anew in each block, so that rounding errors grow with the length of a block and the number of blocks.
//
// Hooks: `lines()`, `line_size()`, `parts()`, `segment()`; `State`, `begin(carried)`, the state at the start of a block, and
// `advance(state, line, k)`, the state after element k; `result(carried, state)`, what is stored and carried on;
// `carried_by(part, line)`, what the parts before this one carry on; `store(line, k, value)`. Constants: BLOCK.

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = invocation(id, lane);
    if i >= lines() * parts() {
        return;
    }
    let line = i % lines();
    let part = i / lines();
    let first = part * segment();
    let last = min(first + segment(), line_size());
    var carried = carried_by(part, line);
    for (var block = first; block < last; block += BLOCK) {
        let end = min(block + BLOCK, last);
        var state = begin(carried);
        for (var k = block; k < end; k++) {
            state = advance(state, line, k);
            store(line, k, result(carried, state));
        }
        carried = result(carried, state);
    }
}
