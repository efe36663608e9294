// Radix sort, second half of a pass: each element goes to its place in the order of a digit, an invocation for each part of a
// row. Elements with equal digits keep their order.
//
// Hooks: as in sort_count.wgsl; `place_of(row, digit, part)`, where the part's first element with this digit goes;
// `put(row, k, place)`.

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = invocation(id, lane);
    if i >= rows() * parts() {
        return;
    }
    let row = i / parts();
    let part = i % parts();
    let first = part * segment();
    let last = min(first + segment(), row_size());
    var places: array<u32, DIGITS>;
    for (var value = 0u; value < DIGITS; value++) {
        places[value] = place_of(row, value, part);
    }
    for (var k = first; k < last; k++) {
        let value = digit(row, k);
        put(row, k, places[value]);
        places[value] += 1u;
    }
}
