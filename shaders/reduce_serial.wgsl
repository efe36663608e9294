// Row programs, an invocation for each row: for short rows, for columns, and where barriers are dear.
//
// A pass walks along the row once; what it has reduced is known to the next one. Long rows of a single pass are cut into
// segments, whose results a second kernel combines. A segment is folded in blocks, so that rounding errors of a sum grow
// with the length of a block and their number instead of their product.
//
// Hooks: `rows()`, `row_size()`, `parts()`, `segment()`; `program(i, row, first, last)`, which calls the passes on the
// elements from `first` up to `last` of a row (reduce_serial_pass.wgsl), and stores what there is one of for each row at `i`.

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = invocation(id, lane);
    if i >= rows() * parts() {
        return;
    }
    let first = (i / rows()) * segment();
    program(i, i % rows(), first, min(first + segment(), row_size()));
}
