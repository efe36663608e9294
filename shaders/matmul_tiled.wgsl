// Matrix products for GPUs, through workgroup memory: a workgroup of 256 invocations computes a square tile. Each invocation
// has four by four results, or four times as many, in registers. Where a tile has fewer results than that takes invocations,
// they are teams, each of which sums up a share of the places that a step brings in; in the end their sums are added. While
// a step is computed, each invocation loads for the next one: four lines of one operand at four places of the summed axis.
//
// The summed axis is cut into segments, whose results a second kernel adds up.
//
// Hooks and types: as in matmul_subgroup.wgsl. Constants: SIDE, how many invocations of a team stand along each side of a
// tile: 8 or 16; QUADS, how many times four results each has along a side: 1 or 2; A_ALONG_K and B_ALONG_K, whether
// neighbours along the summed axis are neighbours in memory, so that neighbouring invocations load them; EVEN_SEGMENTS, whether
// all segments are known to be equally long, so that drivers know how many steps there are where `segment()` is a number;
// WHOLE_STEPS, whether each of them is known to end with a step.

const TILE = 4u * SIDE * QUADS;
// Vectors of four lines, and places of the summed axis, that a tile of an operand has.
const CHUNKS = TILE / 4u;
const DEPTH = 2048u / TILE;
const TEAM = SIDE * SIDE;
const TEAMS = 256u / TEAM;

var<workgroup> a_tile: array<Vector, 512>;
var<workgroup> b_tile: array<Vector, 512>;

// Where a vector of a tile is. Invocations side by side write neighbouring lines or every fourth place: both are spread over
// the banks of the memory.
fn slot(place: u32, chunk: u32) -> u32 {
    return place * CHUNKS + (chunk ^ ((place / 4u * max(32u / DEPTH, 1u)) % 8u));
}

// Four lines of an operand at four places from k on, by places; zeros from `end` on.
fn fetch(is_b: bool, lines: Parts, k: u32, end: u32) -> Quad {
    let places = select(four_from(k, inner_size()), vec4(k) + vec4(0u, 1u, 2u, 3u), WHOLE_STEPS);
    var quad: Quad;
    if is_b {
        quad = transposed(quad_b(lines, Parts(b_place(places.x), b_place(places.y), b_place(places.z), b_place(places.w))));
    } else {
        quad = transposed(quad_a(lines, Parts(a_place(places.x), a_place(places.y), a_place(places.z), a_place(places.w))));
    }
    if WHOLE_STEPS {
        return quad;
    }
    let zero = Vector();
    return Quad(
        select(zero, quad[0], k < end), select(zero, quad[1], k + 1u < end),
        select(zero, quad[2], k + 2u < end), select(zero, quad[3], k + 3u < end),
    );
}

fn lines_of(is_b: bool, batch: u32, first: u32) -> Parts {
    let lines = four_from(first, select(rows(), columns(), is_b));
    if is_b {
        return Parts(b_line(batch, lines.x), b_line(batch, lines.y), b_line(batch, lines.z), b_line(batch, lines.w));
    }
    return Parts(a_line(batch, lines.x), a_line(batch, lines.y), a_line(batch, lines.z), a_line(batch, lines.w));
}

// Adds the products of four rows and four columns at one place.
fn add(sums: ptr<function, Quad>, a: Vector, b: Vector) {
    (*sums)[0] = mad(a.x, b, (*sums)[0]);
    (*sums)[1] = mad(a.y, b, (*sums)[1]);
    (*sums)[2] = mad(a.z, b, (*sums)[2]);
    (*sums)[3] = mad(a.w, b, (*sums)[3]);
}

// The sums of all teams, in the first one.
fn of_teams(sums: Quad, lane: u32) -> Quad {
    var total = sums;
    let at = lane % TEAM;
    for (var half = TEAMS / 2u; half > 0u; half /= 2u) {
        let team = lane / TEAM;
        workgroupBarrier();
        if team >= half && team < 2u * half {
            let to = (team - half) * TEAM + at;
            a_tile[to] = total[0];
            a_tile[to + 128u] = total[1];
            a_tile[to + 256u] = total[2];
            a_tile[to + 384u] = total[3];
        }
        workgroupBarrier();
        if team < half {
            total[0] += a_tile[lane];
            total[1] += a_tile[lane + 128u];
            total[2] += a_tile[lane + 256u];
            total[3] += a_tile[lane + 384u];
        }
    }
    return total;
}

fn store_quad(part: u32, batch: u32, row: u32, column: u32, sums: Quad) {
    // A loop, so that what is done with a sum stands in the kernel once.
    for (var i = 0u; i < 4u; i++) {
        let bit0 = (i & 1u) != 0u;
        let four = select(select(sums[0], sums[1], bit0), select(sums[2], sums[3], bit0), (i & 2u) != 0u);
        if row + i < rows() && column < columns() {
            store(part, batch, row + i, column, four);
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

    // What the invocation loads: one half of them has a, the other b.
    let is_b = lane >= 128u;
    let quad = lane % 128u;
    let along_k = select(A_ALONG_K, B_ALONG_K, is_b);
    let chunk = select(quad % CHUNKS, quad / (DEPTH / 4u), along_k);
    let place = 4u * select(quad / CHUNKS, quad % (DEPTH / 4u), along_k);
    let lines = lines_of(is_b, batch, select(row, column, is_b) + 4u * chunk);

    // What it computes.
    let my_place = lane / TEAM * (DEPTH / TEAMS);
    let my_row = lane % TEAM / SIDE;
    let my_column = lane % SIDE;
    var sums0 = Quad();
    var sums1 = Quad();
    var sums2 = Quad();
    var sums3 = Quad();
    let begin = part * segment();
    let end = min(begin + segment(), inner_size());
    var next = Quad();
    if begin < end {
        next = fetch(is_b, lines, begin + place, end);
    }
    for (var step = 0u; step < segment(); step += DEPTH) {
        let first = begin + step;
        if !EVEN_SEGMENTS && first >= end {
            break;
        }
        workgroupBarrier();
        if is_b {
            b_tile[slot(place, chunk)] = next[0];
            b_tile[slot(place + 1u, chunk)] = next[1];
            b_tile[slot(place + 2u, chunk)] = next[2];
            b_tile[slot(place + 3u, chunk)] = next[3];
        } else {
            a_tile[slot(place, chunk)] = next[0];
            a_tile[slot(place + 1u, chunk)] = next[1];
            a_tile[slot(place + 2u, chunk)] = next[2];
            a_tile[slot(place + 3u, chunk)] = next[3];
        }
        workgroupBarrier();
        if select(first + DEPTH < end, step + DEPTH < segment(), EVEN_SEGMENTS) {
            next = fetch(is_b, lines, first + DEPTH + place, end);
        }
        for (var k = 0u; k < DEPTH / TEAMS; k++) {
            let a0 = a_tile[slot(my_place + k, my_row)];
            let b0 = b_tile[slot(my_place + k, my_column)];
            add(&sums0, a0, b0);
            if QUADS > 1u {
                let a1 = a_tile[slot(my_place + k, my_row + SIDE)];
                let b1 = b_tile[slot(my_place + k, my_column + SIDE)];
                add(&sums1, a0, b1);
                add(&sums2, a1, b0);
                add(&sums3, a1, b1);
            }
        }
    }
    for (var i = 0u; i < QUADS * QUADS; i++) {
        var sums = sums0;
        if i == 1u {
            sums = sums1;
        } else if i == 2u {
            sums = sums2;
        } else if i == 3u {
            sums = sums3;
        }
        sums = of_teams(sums, lane);
        if lane < TEAM {
            let to = vec2(my_row + i / 2u * SIDE, my_column + i % 2u * SIDE);
            store_quad(part, batch, row + 4u * to.x, column + 4u * to.y, sums);
        }
    }
}
