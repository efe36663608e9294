// Cotangents of attention, an invocation for each row (a query, or a key and its value): it walks along what lies across (keys, or
// the queries of each head that shares the keys), four at a time, and computes the weights again.
//
// Hooks: `slices()`, `rows()`; `walks()`, how many heads share a slice; `fetch(slice, row)`, which puts the row where the others
// find it, and `turn(slice, walk)`, which chooses the head; `first_across(row)`, `last_across(row)`;
// `weights(row, across)`, of four from this one on; `add(weights, across)`; `store(slice, row)`.

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = invocation(id, lane);
    if i >= slices() * rows() {
        return;
    }
    let slice = i / rows();
    let row = i % rows();
    fetch(slice, row);
    let last = last_across(row);
    for (var walk = 0u; walk < walks(); walk++) {
        turn(slice, walk);
        for (var across = first_across(row); across < last; across += 4u) {
            add(weights(row, across), across);
        }
    }
    store(slice, row);
}
