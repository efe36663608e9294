// Matrix products of f16, summed up in f32, by units of GPUs that multiply small matrices: a workgroup of eight subgroups of
// 32 invocations computes 128 rows by 128 columns, 32 places of the summed axis at a time; each subgroup 32 by 64 of these
// as cooperative matrices of 16 by 16. While a step is computed, each invocation loads for the next one: of either operand
// four lines at four places.
//
// The summed axis is cut into segments, whose results a second kernel adds up.
//
// Hooks and types: as in matmul_subgroup.wgsl, but for `mad`; what those of the operands give are numbers of f16. Constants:
// A_ALONG_K and B_ALONG_K, as in matmul_tiled.wgsl.

alias Halves = array<vec4<f16>, 4>;

const TILE = 128u;
const DEPTH = 32u;
// Vectors of a line in workgroup memory: two more than there are, so that neighbouring lines lie in different banks.
const STRIDE = 10u;

var<workgroup> a_tile: array<vec4<f16>, 1280>;
var<workgroup> b_tile: array<vec4<f16>, 1280>;
// A matrix of sums for each subgroup.
var<workgroup> sums_tile: array<vec4<f32>, 512>;

// Four lines at four places, zeros where the segment has ended.
fn halves(q: Quad, inside: vec4<bool>) -> Halves {
    let zero = vec4<f16>();
    return Halves(
        select(zero, vec4<f16>(q[0]), inside), select(zero, vec4<f16>(q[1]), inside),
        select(zero, vec4<f16>(q[2]), inside), select(zero, vec4<f16>(q[3]), inside),
    );
}

fn inside(k: u32, end: u32) -> vec4<bool> {
    return vec4(k) + vec4(0u, 1u, 2u, 3u) < vec4(end);
}

fn fetch_a(lines: Parts, k: u32, end: u32) -> Halves {
    let p = four_from(k, inner_size());
    return halves(quad_a(lines, Parts(a_place(p.x), a_place(p.y), a_place(p.z), a_place(p.w))), inside(k, end));
}

fn fetch_b(lines: Parts, k: u32, end: u32) -> Halves {
    let p = four_from(k, inner_size());
    return halves(quad_b(lines, Parts(b_place(p.x), b_place(p.y), b_place(p.z), b_place(p.w))), inside(k, end));
}

// Stores what there is of a matrix of sums.
fn store_matrix(part: u32, batch: u32, row: u32, column: u32, subgroup: u32, lane: u32) {
    for (var i = lane; i < 64u; i += 32u) {
        let at = vec2(row + i / 4u, column + 4u * (i % 4u));
        if at.x < rows() && at.y < columns() {
            store(part, batch, at.x, at.y, sums_tile[64u * subgroup + i]);
        }
    }
}

@compute @workgroup_size(256)
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

    // What the invocation loads: chunks of four lines, and of four places.
    let a_chunk = select(invocation % 32u, invocation / 8u, A_ALONG_K);
    let a_four = select(invocation / 32u, invocation % 8u, A_ALONG_K);
    let b_chunk = select(invocation % 32u, invocation / 8u, B_ALONG_K);
    let b_four = select(invocation / 32u, invocation % 8u, B_ALONG_K);
    let r = four_from(row + 4u * a_chunk, rows());
    let c = four_from(column + 4u * b_chunk, columns());
    let a_lines = Parts(a_line(batch, r.x), a_line(batch, r.y), a_line(batch, r.z), a_line(batch, r.w));
    let b_lines = Parts(b_line(batch, c.x), b_line(batch, c.y), b_line(batch, c.z), b_line(batch, c.w));
    let a_slot = 4u * a_chunk * STRIDE + a_four;
    let b_slot = 4u * b_chunk * STRIDE + b_four;

    // What its subgroup computes.
    let my_row = 32u * (subgroup / 2u);
    let my_column = 64u * (subgroup % 2u);
    var sums00 = coop_mat16x16<f32, C>();
    var sums01 = coop_mat16x16<f32, C>();
    var sums02 = coop_mat16x16<f32, C>();
    var sums03 = coop_mat16x16<f32, C>();
    var sums10 = coop_mat16x16<f32, C>();
    var sums11 = coop_mat16x16<f32, C>();
    var sums12 = coop_mat16x16<f32, C>();
    var sums13 = coop_mat16x16<f32, C>();
    let end = min((part + 1u) * segment(), inner_size());
    var next_a = Halves();
    var next_b = Halves();
    if part * segment() < end {
        next_a = fetch_a(a_lines, part * segment() + 4u * a_four, end);
        next_b = fetch_b(b_lines, part * segment() + 4u * b_four, end);
    }
    for (var first = part * segment(); first < end; first += DEPTH) {
        workgroupBarrier();
        a_tile[a_slot] = next_a[0];
        a_tile[a_slot + STRIDE] = next_a[1];
        a_tile[a_slot + 2u * STRIDE] = next_a[2];
        a_tile[a_slot + 3u * STRIDE] = next_a[3];
        b_tile[b_slot] = next_b[0];
        b_tile[b_slot + STRIDE] = next_b[1];
        b_tile[b_slot + 2u * STRIDE] = next_b[2];
        b_tile[b_slot + 3u * STRIDE] = next_b[3];
        workgroupBarrier();
        if first + DEPTH < end {
            next_a = fetch_a(a_lines, first + DEPTH + 4u * a_four, end);
            next_b = fetch_b(b_lines, first + DEPTH + 4u * b_four, end);
        }
        for (var k = 0u; k < DEPTH / 4u; k += 4u) {
            let at_a0 = my_row * STRIDE + k;
            let at_a1 = (my_row + 16u) * STRIDE + k;
            let at_b0 = my_column * STRIDE + k;
            let at_b1 = (my_column + 16u) * STRIDE + k;
            let at_b2 = (my_column + 32u) * STRIDE + k;
            let at_b3 = (my_column + 48u) * STRIDE + k;
            let a0 = coopLoadT<coop_mat16x16<f16, A>>(&a_tile[at_a0], STRIDE);
            let a1 = coopLoadT<coop_mat16x16<f16, A>>(&a_tile[at_a1], STRIDE);
            let b0 = coopLoad<coop_mat16x16<f16, B>>(&b_tile[at_b0], STRIDE);
            let b1 = coopLoad<coop_mat16x16<f16, B>>(&b_tile[at_b1], STRIDE);
            let b2 = coopLoad<coop_mat16x16<f16, B>>(&b_tile[at_b2], STRIDE);
            let b3 = coopLoad<coop_mat16x16<f16, B>>(&b_tile[at_b3], STRIDE);
            sums00 = coopMultiplyAdd(a0, b0, sums00);
            sums01 = coopMultiplyAdd(a0, b1, sums01);
            sums02 = coopMultiplyAdd(a0, b2, sums02);
            sums03 = coopMultiplyAdd(a0, b3, sums03);
            sums10 = coopMultiplyAdd(a1, b0, sums10);
            sums11 = coopMultiplyAdd(a1, b1, sums11);
            sums12 = coopMultiplyAdd(a1, b2, sums12);
            sums13 = coopMultiplyAdd(a1, b3, sums13);
        }
    }
    // One after the other through the subgroup's own memory.
    let to = 64u * subgroup;
    for (var i = 0u; i < 8u; i++) {
        workgroupBarrier();
        switch i {
            case 0u: { coopStoreT(sums00, &sums_tile[to], 4u); }
            case 1u: { coopStoreT(sums01, &sums_tile[to], 4u); }
            case 2u: { coopStoreT(sums02, &sums_tile[to], 4u); }
            case 3u: { coopStoreT(sums03, &sums_tile[to], 4u); }
            case 4u: { coopStoreT(sums10, &sums_tile[to], 4u); }
            case 5u: { coopStoreT(sums11, &sums_tile[to], 4u); }
            case 6u: { coopStoreT(sums12, &sums_tile[to], 4u); }
            default: { coopStoreT(sums13, &sums_tile[to], 4u); }
        }
        workgroupBarrier();
        store_matrix(part, batch, row + my_row + 16u * (i / 4u), column + my_column + 16u * (i % 4u), subgroup, lane);
    }
}
