// Cotangents of attention, an invocation for each row (a query, or a key and its value): it walks along what lies across
// (keys, or the queries of each head that shares the keys), four at a time, and computes the weights again.
//
// Hooks: an entry point that calls `attend`; `slices()`, `rows()`, and `rows_with_padding()`, as many invocations as a slice
// has; `walks()`, how many heads share a slice; `fetch(slice, row)`, which puts the row where the others find it, and
// `turn(slice, walk)`, which chooses the head; `first_of_team(row)` and `last_of_team(row)`, the range of what this row or
// one whose invocation goes along meets; `weights(row, across)`, of four from this one on; `add(weights, across)`;
// `store(slice, row)`.

fn attend(i: u32) {
    let slice = i / rows_with_padding();
    if slice >= slices() {
        return;
    }
    let place = i % rows_with_padding();
    let row = min(place, rows() - 1u);
    fetch(slice, row);
    let last = last_of_team(row);
    for (var walk = 0u; walk < walks(); walk++) {
        turn(slice, walk);
        for (var across = first_of_team(row); across < last; across += 4u) {
            add(weights(row, across), across);
        }
    }
    if place == row {
        store(slice, row);
    }
}
