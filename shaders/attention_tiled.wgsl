// Attention and its cotangents on GPUs: a workgroup takes 32 rows (queries, or keys and their values) and walks along what
// lies across, 32 or 64 at a time: scalar products of all with all, weights, and sums by these weights, each a product of
// tiles in workgroup memory. An invocation has four rows, of which it computes four neighbouring weights and a share of the
// vectors of sums. Logits are never stored.
//
// Hooks: `slices()`, `rows()`; `walks()`, how many heads share a slice; `fetch(slice)`, which chooses its matrices, and
// `turn(slice, walk)`, which chooses the head; `hold(row, lane)`, which puts rows from this one on into workgroup memory;
// `first_of_tile(row)` and `last_of_tile(row)`, the range of what these rows meet; `weigh(row, across)`, which puts the
// weights of all with all into `weights`; `add_sums(across)`, of the rows across, by their weights; `store(slice, row)`.
// Types: Real is a vector. Constants: COLUMNS, how many invocations share a row, each of which has four of what lies across.

alias Four = array<Real, 4>;

// By rows, a vector of four columns each; see `slot`.
var<workgroup> weights: array<Real, 32u * COLUMNS>;
var<private> my_lane: u32;
var<private> my_row: u32;
var<private> my_column: u32;

// Where a vector of a row is in a tile whose rows have `stride` vectors, a multiple of eight. Invocations side by side read
// the same vector of every fourth row: these are spread over the banks of the memory.
fn slot(row: u32, stride: u32, chunk: u32) -> u32 {
    return row * stride + (chunk ^ (row / 4u % 8u));
}

fn plus_dot(sum: f32, a: Real, b: Real) -> f32 {
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}

// The sum of a row's four products with the four rows.
fn plus_dots(sums: Real, a: Real, b: Four) -> Real {
    return Real(plus_dot(sums.x, a, b[0]), plus_dot(sums.y, a, b[1]), plus_dot(sums.z, a, b[2]), plus_dot(sums.w, a, b[3]));
}

fn plus_weighted(sum: Real, by: Real, rows: Four) -> Real {
    return fma(Real(by.w), rows[3], fma(Real(by.z), rows[2], fma(Real(by.y), rows[1], fma(Real(by.x), rows[0], sum))));
}

@compute @workgroup_size(8u * COLUMNS)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tiles = (rows() + 31u) / 32u;
    let tile = workgroup_index(id);
    if tile >= slices() * tiles {
        return;
    }
    my_lane = lane;
    my_row = lane / COLUMNS;
    my_column = lane % COLUMNS;
    let slice = tile / tiles;
    let row = 32u * (tile % tiles);
    fetch(slice);
    hold(row);
    let last = last_of_tile(row);
    for (var walk = 0u; walk < walks(); walk++) {
        turn(slice, walk);
        for (var across = first_of_tile(row); across < last; across += 4u * COLUMNS) {
            weigh(row, across);
            add_sums(across);
        }
    }
    store(slice, row);
}
