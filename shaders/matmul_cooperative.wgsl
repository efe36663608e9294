// Matrix products of f16, summed up in f32, by units of GPUs that multiply small matrices: a workgroup of four subgroups of
// 32 invocations computes 128 rows by 128 columns, 32 places of the summed axis at a time; each subgroup 64 by 64 of these,
// as cooperative matrices of 16 by 16. While a step is computed, each invocation loads for the next one: of either operand
// twice four lines at four places.
//
// What is multiplied passes through workgroup memory as it lies in the buffers: line after line of 32 places, or place after
// place of 128 lines. The innermost products are not written as a loop, which drivers do not unroll.
//
// The summed axis is cut into segments, whose results a second kernel adds up.
//
// Hooks and types: as in matmul_subgroup.wgsl, but for `mad`; what those of the operands give are numbers of f16. Constants:
// A_ALONG_K and B_ALONG_K, as in matmul_tiled.wgsl.

alias Halves = array<vec4<f16>, 4>;
alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sums = coop_mat16x16<f32, C>;

// 64 columns.
struct Columns { c0: Right, c1: Right, c2: Right, c3: Right }
// Sums of 16 rows and 64 columns.
struct RowSums { c0: Sums, c1: Sums, c2: Sums, c3: Sums }

const TILE = 128u;
const DEPTH = 32u;
// Vectors from one line to the next, or one place to the next: two more than there are, so that neighbours lie in different
// banks.
const A_STRIDE = select(34u, 10u, A_ALONG_K);
const B_STRIDE = select(34u, 10u, B_ALONG_K);

var<workgroup> a_tile: array<vec4<f16>, 1280>;
var<workgroup> b_tile: array<vec4<f16>, 1280>;
// A matrix of sums for each subgroup.
var<workgroup> sums_tile: array<vec4<f32>, 256>;

// What an invocation loads of an operand the `turn`-th time: four lines from four times x on, at four places from four
// times y on.
fn chunk(invocation: u32, turn: u32, along_k: bool) -> vec2<u32> {
    return select(
        vec2(invocation % 32u, invocation / 32u + 4u * turn),
        vec2(invocation / 8u + 16u * turn, invocation % 8u),
        along_k,
    );
}

// Four lines at four places, or the other way round, as they lie in workgroup memory; `k` is the first place.
fn halves(q: Quad, k: u32, end: u32, step_end: u32, along_k: bool) -> Halves {
    var h = Halves(vec4<f16>(q[0]), vec4<f16>(q[1]), vec4<f16>(q[2]), vec4<f16>(q[3]));
    // Zeros where the segment has ended.
    if step_end > end {
        let zero = vec4<f16>();
        let exists = vec4(k) + vec4(0u, 1u, 2u, 3u) < vec4(end);
        if along_k {
            h = Halves(
                select(zero, h[0], exists), select(zero, h[1], exists),
                select(zero, h[2], exists), select(zero, h[3], exists),
            );
        } else {
            h = Halves(
                select(zero, h[0], exists.x), select(zero, h[1], exists.y),
                select(zero, h[2], exists.z), select(zero, h[3], exists.w),
            );
        }
    }
    return h;
}

fn fetch_a(lines: Parts, first: u32, four: u32, end: u32) -> Halves {
    let k = first + 4u * four;
    let p = four_from(k, inner_size());
    var quad = quad_a(lines, Parts(a_place(p.x), a_place(p.y), a_place(p.z), a_place(p.w)));
    if !A_ALONG_K {
        quad = transposed(quad);
    }
    return halves(quad, k, end, first + DEPTH, A_ALONG_K);
}

fn fetch_b(lines: Parts, first: u32, four: u32, end: u32) -> Halves {
    let k = first + 4u * four;
    let p = four_from(k, inner_size());
    var quad = quad_b(lines, Parts(b_place(p.x), b_place(p.y), b_place(p.z), b_place(p.w)));
    if !B_ALONG_K {
        quad = transposed(quad);
    }
    return halves(quad, k, end, first + DEPTH, B_ALONG_K);
}

fn put_a(at: vec2<u32>, h: Halves) {
    let slot = select(4u * at.y * A_STRIDE + at.x, 4u * at.x * A_STRIDE + at.y, A_ALONG_K);
    a_tile[slot] = h[0];
    a_tile[slot + A_STRIDE] = h[1];
    a_tile[slot + 2u * A_STRIDE] = h[2];
    a_tile[slot + 3u * A_STRIDE] = h[3];
}

fn put_b(at: vec2<u32>, h: Halves) {
    let slot = select(4u * at.y * B_STRIDE + at.x, 4u * at.x * B_STRIDE + at.y, B_ALONG_K);
    b_tile[slot] = h[0];
    b_tile[slot + B_STRIDE] = h[1];
    b_tile[slot + 2u * B_STRIDE] = h[2];
    b_tile[slot + 3u * B_STRIDE] = h[3];
}

fn left(row: u32, place: u32) -> Left {
    if A_ALONG_K {
        return coopLoadT<Left>(&a_tile[row * A_STRIDE + place / 4u], A_STRIDE);
    }
    return coopLoad<Left>(&a_tile[place * A_STRIDE + row / 4u], A_STRIDE);
}

fn right(column: u32, place: u32) -> Right {
    if B_ALONG_K {
        return coopLoad<Right>(&b_tile[column * B_STRIDE + place / 4u], B_STRIDE);
    }
    return coopLoadT<Right>(&b_tile[place * B_STRIDE + column / 4u], B_STRIDE);
}

fn columns_from(column: u32, place: u32) -> Columns {
    return Columns(
        right(column, place), right(column + 16u, place), right(column + 32u, place), right(column + 48u, place),
    );
}

fn multiplied(a: Left, b: Columns, sums: RowSums) -> RowSums {
    return RowSums(
        coopMultiplyAdd(a, b.c0, sums.c0), coopMultiplyAdd(a, b.c1, sums.c1),
        coopMultiplyAdd(a, b.c2, sums.c2), coopMultiplyAdd(a, b.c3, sums.c3),
    );
}

// Stores what there is of a matrix of sums, by way of the subgroup's own memory.
fn store_matrix(sums: Sums, part: u32, batch: u32, row: u32, column: u32, subgroup: u32, lane: u32) {
    workgroupBarrier();
    coopStoreT(sums, &sums_tile[64u * subgroup], 4u);
    workgroupBarrier();
    for (var i = lane; i < 64u; i += 32u) {
        let at = vec2(row + i / 4u, column + 4u * (i % 4u));
        if at.x < rows() && at.y < columns() {
            store(part, batch, at.x, at.y, sums_tile[64u * subgroup + i]);
        }
    }
}

fn store_row(sums: RowSums, part: u32, batch: u32, row: u32, column: u32, subgroup: u32, lane: u32) {
    store_matrix(sums.c0, part, batch, row, column, subgroup, lane);
    store_matrix(sums.c1, part, batch, row, column + 16u, subgroup, lane);
    store_matrix(sums.c2, part, batch, row, column + 32u, subgroup, lane);
    store_matrix(sums.c3, part, batch, row, column + 48u, subgroup, lane);
}

fn lines_a(batch: u32, first: u32) -> Parts {
    let r = four_from(first, rows());
    return Parts(a_line(batch, r.x), a_line(batch, r.y), a_line(batch, r.z), a_line(batch, r.w));
}

fn lines_b(batch: u32, first: u32) -> Parts {
    let c = four_from(first, columns());
    return Parts(b_line(batch, c.x), b_line(batch, c.y), b_line(batch, c.z), b_line(batch, c.w));
}

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let across = (columns() + TILE - 1u) / TILE;
    let down = (rows() + TILE - 1u) / TILE;
    // As `workgroup_index(id)`, of which naga does not know that it is the same for the whole workgroup.
    let tile = id.y * GRID_WIDTH + id.x;
    if tile >= across * down * batches() * parts() {
        return;
    }
    let column = TILE * (tile % across);
    let row = TILE * ((tile / across) % down);
    let slice = tile / (across * down);
    let batch = slice % batches();
    let part = slice / batches();

    // What the invocation loads.
    let a0 = chunk(invocation, 0u, A_ALONG_K);
    let a1 = chunk(invocation, 1u, A_ALONG_K);
    let b0 = chunk(invocation, 0u, B_ALONG_K);
    let b1 = chunk(invocation, 1u, B_ALONG_K);
    let a0_lines = lines_a(batch, row + 4u * a0.x);
    let a1_lines = lines_a(batch, row + 4u * a1.x);
    let b0_lines = lines_b(batch, column + 4u * b0.x);
    let b1_lines = lines_b(batch, column + 4u * b1.x);

    // What its subgroup computes.
    let my_row = 64u * (subgroup / 2u);
    let my_column = 64u * (subgroup % 2u);
    var sums0 = RowSums();
    var sums1 = RowSums();
    var sums2 = RowSums();
    var sums3 = RowSums();
    let begin = part * segment();
    let end = min(begin + segment(), inner_size());
    var next_a0 = Halves();
    var next_a1 = Halves();
    var next_b0 = Halves();
    var next_b1 = Halves();
    if begin < end {
        next_a0 = fetch_a(a0_lines, begin, a0.y, end);
        next_a1 = fetch_a(a1_lines, begin, a1.y, end);
        next_b0 = fetch_b(b0_lines, begin, b0.y, end);
        next_b1 = fetch_b(b1_lines, begin, b1.y, end);
    }
    for (var first = begin; first < end; first += DEPTH) {
        workgroupBarrier();
        put_a(a0, next_a0);
        put_a(a1, next_a1);
        put_b(b0, next_b0);
        put_b(b1, next_b1);
        workgroupBarrier();
        if first + DEPTH < end {
            next_a0 = fetch_a(a0_lines, first + DEPTH, a0.y, end);
            next_a1 = fetch_a(a1_lines, first + DEPTH, a1.y, end);
            next_b0 = fetch_b(b0_lines, first + DEPTH, b0.y, end);
            next_b1 = fetch_b(b1_lines, first + DEPTH, b1.y, end);
        }
        let b_first = columns_from(my_column, 0u);
        sums0 = multiplied(left(my_row, 0u), b_first, sums0);
        sums1 = multiplied(left(my_row + 16u, 0u), b_first, sums1);
        sums2 = multiplied(left(my_row + 32u, 0u), b_first, sums2);
        sums3 = multiplied(left(my_row + 48u, 0u), b_first, sums3);
        let b_second = columns_from(my_column, 16u);
        sums0 = multiplied(left(my_row, 16u), b_second, sums0);
        sums1 = multiplied(left(my_row + 16u, 16u), b_second, sums1);
        sums2 = multiplied(left(my_row + 32u, 16u), b_second, sums2);
        sums3 = multiplied(left(my_row + 48u, 16u), b_second, sums3);
    }
    store_row(sums0, part, batch, row + my_row, column + my_column, subgroup, lane);
    store_row(sums1, part, batch, row + my_row + 16u, column + my_column, subgroup, lane);
    store_row(sums2, part, batch, row + my_row + 32u, column + my_column, subgroup, lane);
    store_row(sums3, part, batch, row + my_row + 48u, column + my_column, subgroup, lane);
}
