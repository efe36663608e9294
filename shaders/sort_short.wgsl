// The order of short rows: each invocation counts the elements that come before its own, and so knows its place. Among equal
// ones the earlier comes first.
//
// Hooks: `size()`, elements of all rows; `row_size()`; `key(row, k)`, a word that compares as element k does;
// `store(row, place, k)`.

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = invocation(id, lane);
    if i >= size() {
        return;
    }
    let row = i / row_size();
    let own = i % row_size();
    let own_key = key(row, own);
    var place = 0u;
    for (var k = 0u; k < own; k++) {
        place += u32(key(row, k) <= own_key);
    }
    for (var k = own + 1u; k < row_size(); k++) {
        place += u32(key(row, k) < own_key);
    }
    store(row, place, own);
}
