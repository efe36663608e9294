// Matrix products through workgroup memory: a workgroup of 256 computes 64 rows by 64 columns, each invocation four by
// four of them, in steps of 16 along the summed axis.
//
// The summed axis is cut into segments, whose results a second kernel adds up.
//
// Hooks and types: as in matmul_direct.wgsl. Constants: A_ALONG_K and B_ALONG_K, whether
// neighbours along the summed axis are neighbours in memory, so that neighbouring invocations load them.

const TILE = 64u;
const DEPTH = 16u;

// Scalars, although rows of b are read as vectors: writing one component of a shared vector may touch the others.
var<workgroup> a_tile: array<Element, 1024>;
var<workgroup> b_tile: array<Element, 1024>;

// The place in a tile, (line, depth), of the element that an invocation loads in round 0 … 3.
fn place(lane: u32, round: u32, along_k: bool) -> vec2<u32> {
    let i = round * 256u + lane;
    return select(vec2(i % TILE, i / TILE), vec2(i / DEPTH, i % DEPTH), along_k);
}

fn load_a_or_zero(batch: u32, row: u32, k: u32, end: u32) -> Element {
    if row < rows() && k < end {
        return load_a(batch, row, k);
    }
    return Element();
}

fn load_b_or_zero(batch: u32, column: u32, k: u32, end: u32) -> Element {
    if column < columns() && k < end {
        return load_b(batch, column, k);
    }
    return Element();
}

fn store4(part: u32, batch: u32, row: u32, column: u32, sums: Vector) {
    if row >= rows() {
        return;
    }
    for (var i = 0u; i < 4u; i++) {
        if column + i < columns() {
            store(part, batch, row, column + i, sums[i]);
        }
    }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let across = (columns() + TILE - 1u) / TILE;
    let down = (rows() + TILE - 1u) / TILE;
    let tile = workgroup_index(id);
    if tile >= across * down * batches() * parts() {
        return;
    }
    let column = TILE * (tile % across);
    let row = TILE * ((tile / across) % down);
    let slice = tile / (across * down);
    let batch = slice % batches();
    let part = slice / batches();

    // The invocation's own four rows and columns inside the tile.
    let my_row = 4u * (lane / 16u);
    let my_column = 4u * (lane % 16u);
    var sums0 = Vector();
    var sums1 = Vector();
    var sums2 = Vector();
    var sums3 = Vector();
    let end = min((part + 1u) * segment(), inner_size());
    for (var first = part * segment(); first < end; first += DEPTH) {
        for (var round = 0u; round < 4u; round++) {
            let a = place(lane, round, A_ALONG_K);
            a_tile[a.y * TILE + a.x] = load_a_or_zero(batch, row + a.x, first + a.y, end);
            let b = place(lane, round, B_ALONG_K);
            b_tile[b.y * TILE + b.x] = load_b_or_zero(batch, column + b.x, first + b.y, end);
        }
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k++) {
            let a = k * TILE + my_row;
            let c = k * TILE + my_column;
            let b = Vector(b_tile[c], b_tile[c + 1u], b_tile[c + 2u], b_tile[c + 3u]);
            sums0 += a_tile[a] * b;
            sums1 += a_tile[a + 1u] * b;
            sums2 += a_tile[a + 2u] * b;
            sums3 += a_tile[a + 3u] * b;
        }
        workgroupBarrier();
    }
    store4(part, batch, row + my_row, column + my_column, sums0);
    store4(part, batch, row + my_row + 1u, column + my_column, sums1);
    store4(part, batch, row + my_row + 2u, column + my_column, sums2);
    store4(part, batch, row + my_row + 3u, column + my_column, sums3);
}
