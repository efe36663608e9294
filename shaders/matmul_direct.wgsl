// Matrix products without workgroup memory, for adapters on which barriers are dear: each invocation computes four rows
// by four columns in registers, straight from the operands.
//
// The summed axis is cut into segments, whose results a second kernel adds up.
//
// Hooks: `batches()`, `rows()`, `columns()`, `inner_size()`, `parts()`, `segment()`; `load_a(batch, row, k)`,
// `load_b(batch, column, k)`; `store(part, batch, row, column, sum)`. Types: Element, Vector.

fn load_b4(batch: u32, column: u32, k: u32) -> Vector {
    let last = columns() - 1u;
    return Vector(
        load_b(batch, column, k),
        load_b(batch, min(column + 1u, last), k),
        load_b(batch, min(column + 2u, last), k),
        load_b(batch, min(column + 3u, last), k),
    );
}

fn store4(part: u32, batch: u32, row: u32, column: u32, sums: Vector) {
    if row >= rows() {
        return;
    }
    store(part, batch, row, column, sums.x);
    if column + 1u < columns() {
        store(part, batch, row, column + 1u, sums.y);
    }
    if column + 2u < columns() {
        store(part, batch, row, column + 2u, sums.z);
    }
    if column + 3u < columns() {
        store(part, batch, row, column + 3u, sums.w);
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let across = (columns() + 3u) / 4u;
    let down = (rows() + 3u) / 4u;
    let tile = invocation(id, lane);
    if tile >= across * down * batches() * parts() {
        return;
    }
    let column = 4u * (tile % across);
    let row = 4u * ((tile / across) % down);
    let slice = tile / (across * down);
    let batch = slice % batches();
    let part = slice / batches();

    let last = rows() - 1u;
    let row1 = min(row + 1u, last);
    let row2 = min(row + 2u, last);
    let row3 = min(row + 3u, last);
    var sums0 = Vector();
    var sums1 = Vector();
    var sums2 = Vector();
    var sums3 = Vector();
    let end = min((part + 1u) * segment(), inner_size());
    for (var k = part * segment(); k < end; k++) {
        let b = load_b4(batch, column, k);
        sums0 += load_a(batch, row, k) * b;
        sums1 += load_a(batch, row1, k) * b;
        sums2 += load_a(batch, row2, k) * b;
        sums3 += load_a(batch, row3, k) * b;
    }
    store4(part, batch, row, column, sums0);
    store4(part, batch, row + 1u, column, sums1);
    store4(part, batch, row + 2u, column, sums2);
    store4(part, batch, row + 3u, column, sums3);
}
