// Matrix products of f16, summed up in f32, by units of GPUs that multiply small matrices: a workgroup of four subgroups of
// 32 invocations computes 128 rows by 128 columns, 32 places of the summed axis at a time; each subgroup 64 by 64 of these,
// as cooperative matrices of 16 by 16. For each step an invocation loads, of either operand, twice four lines at four places,
// while the others of its workgroup may still be computing the step before, and other workgroups are: what it would load
// earlier, it had to hold in registers, which the sums need.
//
// What is multiplied passes through workgroup memory as it lies in the buffers: line after line of 32 places, or place after
// place of 128 lines. Matrices are variables of their own, and what is done with them stands there one by one: loops that
// drivers do not unroll take a third longer, and so do structs of matrices.
//
// The summed axis is cut into segments, whose results a second kernel adds up. A driver that knows how many steps a segment
// has takes a fifth less.
//
// Hooks and types: as in matmul_subgroup.wgsl, but for `mad`; those of the operands give `Halves`. Constants:
// A_ALONG_K, B_ALONG_K, EVEN_SEGMENTS and WHOLE_STEPS, as in matmul_tiled.wgsl.

alias Halves = array<vec4<f16>, 4>;
alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sums = coop_mat16x16<f32, C>;

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

fn transposed_halves(h: Halves) -> Halves {
    return Halves(
        vec4(h[0].x, h[1].x, h[2].x, h[3].x), vec4(h[0].y, h[1].y, h[2].y, h[3].y),
        vec4(h[0].z, h[1].z, h[2].z, h[3].z), vec4(h[0].w, h[1].w, h[2].w, h[3].w),
    );
}

// Four lines at four places, or the other way round, as they lie in workgroup memory, with zeros where the segment has
// ended; `k` is the first place.
fn halves(loaded: Halves, k: u32, end: u32, step_end: u32, along_k: bool) -> Halves {
    var h = loaded;
    if !WHOLE_STEPS && step_end > end {
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

// Four places from this one on, as far as there are so many.
fn four_places(k: u32) -> vec4<u32> {
    return select(four_from(k, inner_size()), vec4(k) + vec4(0u, 1u, 2u, 3u), WHOLE_STEPS);
}

fn fetch_a(lines: Parts, first: u32, four: u32, end: u32) -> Halves {
    let k = first + 4u * four;
    let p = four_places(k);
    var h = quad_a(lines, Parts(a_place(p.x), a_place(p.y), a_place(p.z), a_place(p.w)));
    if !A_ALONG_K {
        h = transposed_halves(h);
    }
    return halves(h, k, end, first + DEPTH, A_ALONG_K);
}

fn fetch_b(lines: Parts, first: u32, four: u32, end: u32) -> Halves {
    let k = first + 4u * four;
    let p = four_places(k);
    var h = quad_b(lines, Parts(b_place(p.x), b_place(p.y), b_place(p.z), b_place(p.w)));
    if !B_ALONG_K {
        h = transposed_halves(h);
    }
    return halves(h, k, end, first + DEPTH, B_ALONG_K);
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
    let a_first = chunk(invocation, 0u, A_ALONG_K);
    let a_second = chunk(invocation, 1u, A_ALONG_K);
    let b_first = chunk(invocation, 0u, B_ALONG_K);
    let b_second = chunk(invocation, 1u, B_ALONG_K);
    let a_first_lines = lines_a(batch, row + 4u * a_first.x);
    let a_second_lines = lines_a(batch, row + 4u * a_second.x);
    let b_first_lines = lines_b(batch, column + 4u * b_first.x);
    let b_second_lines = lines_b(batch, column + 4u * b_second.x);

    // What its subgroup computes.
    let my_row = 64u * (subgroup / 2u);
    let my_column = 64u * (subgroup % 2u);
    var sums00 = Sums();
    var sums01 = Sums();
    var sums02 = Sums();
    var sums03 = Sums();
    var sums10 = Sums();
    var sums11 = Sums();
    var sums12 = Sums();
    var sums13 = Sums();
    var sums20 = Sums();
    var sums21 = Sums();
    var sums22 = Sums();
    var sums23 = Sums();
    var sums30 = Sums();
    var sums31 = Sums();
    var sums32 = Sums();
    var sums33 = Sums();
    let begin = part * segment();
    let end = min(begin + segment(), inner_size());
    for (var step = 0u; step < segment(); step += DEPTH) {
        let first = begin + step;
        if !EVEN_SEGMENTS && first >= end {
            break;
        }
        let a_halves = fetch_a(a_first_lines, first, a_first.y, end);
        let more_a_halves = fetch_a(a_second_lines, first, a_second.y, end);
        let b_halves = fetch_b(b_first_lines, first, b_first.y, end);
        let more_b_halves = fetch_b(b_second_lines, first, b_second.y, end);
        workgroupBarrier();
        put_a(a_first, a_halves);
        put_a(a_second, more_a_halves);
        put_b(b_first, b_halves);
        put_b(b_second, more_b_halves);
        workgroupBarrier();
        {
            let a0 = left(my_row, 0u);
            let a1 = left(my_row + 16u, 0u);
            let a2 = left(my_row + 32u, 0u);
            let a3 = left(my_row + 48u, 0u);
            let b0 = right(my_column, 0u);
            let b1 = right(my_column + 16u, 0u);
            let b2 = right(my_column + 32u, 0u);
            let b3 = right(my_column + 48u, 0u);
            sums00 = coopMultiplyAdd(a0, b0, sums00);
            sums01 = coopMultiplyAdd(a0, b1, sums01);
            sums02 = coopMultiplyAdd(a0, b2, sums02);
            sums03 = coopMultiplyAdd(a0, b3, sums03);
            sums10 = coopMultiplyAdd(a1, b0, sums10);
            sums11 = coopMultiplyAdd(a1, b1, sums11);
            sums12 = coopMultiplyAdd(a1, b2, sums12);
            sums13 = coopMultiplyAdd(a1, b3, sums13);
            sums20 = coopMultiplyAdd(a2, b0, sums20);
            sums21 = coopMultiplyAdd(a2, b1, sums21);
            sums22 = coopMultiplyAdd(a2, b2, sums22);
            sums23 = coopMultiplyAdd(a2, b3, sums23);
            sums30 = coopMultiplyAdd(a3, b0, sums30);
            sums31 = coopMultiplyAdd(a3, b1, sums31);
            sums32 = coopMultiplyAdd(a3, b2, sums32);
            sums33 = coopMultiplyAdd(a3, b3, sums33);
        }
        {
            let a0 = left(my_row, 16u);
            let a1 = left(my_row + 16u, 16u);
            let a2 = left(my_row + 32u, 16u);
            let a3 = left(my_row + 48u, 16u);
            let b0 = right(my_column, 16u);
            let b1 = right(my_column + 16u, 16u);
            let b2 = right(my_column + 32u, 16u);
            let b3 = right(my_column + 48u, 16u);
            sums00 = coopMultiplyAdd(a0, b0, sums00);
            sums01 = coopMultiplyAdd(a0, b1, sums01);
            sums02 = coopMultiplyAdd(a0, b2, sums02);
            sums03 = coopMultiplyAdd(a0, b3, sums03);
            sums10 = coopMultiplyAdd(a1, b0, sums10);
            sums11 = coopMultiplyAdd(a1, b1, sums11);
            sums12 = coopMultiplyAdd(a1, b2, sums12);
            sums13 = coopMultiplyAdd(a1, b3, sums13);
            sums20 = coopMultiplyAdd(a2, b0, sums20);
            sums21 = coopMultiplyAdd(a2, b1, sums21);
            sums22 = coopMultiplyAdd(a2, b2, sums22);
            sums23 = coopMultiplyAdd(a2, b3, sums23);
            sums30 = coopMultiplyAdd(a3, b0, sums30);
            sums31 = coopMultiplyAdd(a3, b1, sums31);
            sums32 = coopMultiplyAdd(a3, b2, sums32);
            sums33 = coopMultiplyAdd(a3, b3, sums33);
        }
    }
    let to_row = row + my_row;
    let to_column = column + my_column;
    store_matrix(sums00, part, batch, to_row, to_column, subgroup, lane);
    store_matrix(sums01, part, batch, to_row, to_column + 16u, subgroup, lane);
    store_matrix(sums02, part, batch, to_row, to_column + 32u, subgroup, lane);
    store_matrix(sums03, part, batch, to_row, to_column + 48u, subgroup, lane);
    store_matrix(sums10, part, batch, to_row + 16u, to_column, subgroup, lane);
    store_matrix(sums11, part, batch, to_row + 16u, to_column + 16u, subgroup, lane);
    store_matrix(sums12, part, batch, to_row + 16u, to_column + 32u, subgroup, lane);
    store_matrix(sums13, part, batch, to_row + 16u, to_column + 48u, subgroup, lane);
    store_matrix(sums20, part, batch, to_row + 32u, to_column, subgroup, lane);
    store_matrix(sums21, part, batch, to_row + 32u, to_column + 16u, subgroup, lane);
    store_matrix(sums22, part, batch, to_row + 32u, to_column + 32u, subgroup, lane);
    store_matrix(sums23, part, batch, to_row + 32u, to_column + 48u, subgroup, lane);
    store_matrix(sums30, part, batch, to_row + 48u, to_column, subgroup, lane);
    store_matrix(sums31, part, batch, to_row + 48u, to_column + 16u, subgroup, lane);
    store_matrix(sums32, part, batch, to_row + 48u, to_column + 32u, subgroup, lane);
    store_matrix(sums33, part, batch, to_row + 48u, to_column + 48u, subgroup, lane);
}
