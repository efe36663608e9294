// Radix sort, first half of a pass: how often each value of a digit occurs in each part of a row, an invocation for each
// part.
//
// Hooks: `rows()`, `row_size()`, `parts()`, `segment()`; `digit(row, k)` of element k; `store_count(row, digit, part, count)`.
// Constants: DIGITS.

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
    var counts: array<u32, DIGITS>;
    for (var k = first; k < last; k++) {
        counts[digit(row, k)] += 1u;
    }
    for (var value = 0u; value < DIGITS; value++) {
        store_count(row, value, part, counts[value]);
    }
}
