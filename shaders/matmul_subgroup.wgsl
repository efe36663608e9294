// Matrix products for adapters in software, on which a load costs as much as fifty multiplications, be it of one number or
// of four neighbours: a workgroup is one subgroup of eight invocations, which computes up to 64 rows by 32 columns, four
// places of the summed axis at a time. Each invocation loads four columns, and of every 32 rows four, which it shares by
// broadcast: no element is loaded twice for a tile.
//
// The summed axis is cut into segments, whose results a second kernel adds up.
//
// Hooks: `batches()`, `rows()`, `columns()`, `inner_size()`, `parts()`, `segment()`; `a_line(batch, row)`, `a_place(k)`,
// `b_line(batch, column)` and `b_place(k)`, the parts of addresses; `quad_a(lines, places)` and `quad_b(lines, places)`, for
// each of four lines its elements at four places; `mad(a, b, c)`, a · b + c; `store(part, batch, row, column, sums)` of four
// columns, of which some may not exist. Types: Element, Vector. Constants: ROW_GROUPS, how many times eight rows a tile has:
// 1, 2, 4 or 8; COLUMN_GROUPS, how many times 32 columns: 1 or 2; A_NEIGHBOURS, whether the four rows of an invocation are
// neighbours.

// Of eight rows and four columns. All arrays are indexed by constants: one that is indexed by a variable would not stay in
// registers, and takes long to compile.
alias Sums = array<Vector, 8>;
// Of all rows of a tile and four columns.
alias Strip = array<Sums, 8>;

fn masked(q: Quad, mask: vec4<bool>) -> Quad {
    let zero = Vector();
    return Quad(
        select(zero, q[0], mask), select(zero, q[1], mask), select(zero, q[2], mask), select(zero, q[3], mask),
    );
}

// A sum of four columns, with one row's products at four places.
fn plus_products(sum: Vector, a: Vector, b: Quad) -> Vector {
    return mad(a.w, b[3], mad(a.z, b[2], mad(a.y, b[1], mad(a.x, b[0], sum))));
}

// Sums with the products of eight rows, of which each invocation holds one.
fn plus_eight(sums: Sums, a: Vector, b: Quad) -> Sums {
    return Sums(
        plus_products(sums[0], subgroupBroadcast(a, 0u), b),
        plus_products(sums[1], subgroupBroadcast(a, 1u), b),
        plus_products(sums[2], subgroupBroadcast(a, 2u), b),
        plus_products(sums[3], subgroupBroadcast(a, 3u), b),
        plus_products(sums[4], subgroupBroadcast(a, 4u), b),
        plus_products(sums[5], subgroupBroadcast(a, 5u), b),
        plus_products(sums[6], subgroupBroadcast(a, 6u), b),
        plus_products(sums[7], subgroupBroadcast(a, 7u), b),
    );
}

// Adds the products of all rows: of those that an invocation holds, the first four and the others.
fn add(strip: ptr<function, Strip>, low: Quad, high: Quad, b: Quad) {
    (*strip)[0] = plus_eight((*strip)[0], low[0], b);
    if ROW_GROUPS > 1u {
        (*strip)[1] = plus_eight((*strip)[1], low[1], b);
    }
    if ROW_GROUPS > 2u {
        (*strip)[2] = plus_eight((*strip)[2], low[2], b);
        (*strip)[3] = plus_eight((*strip)[3], low[3], b);
    }
    if ROW_GROUPS > 4u {
        (*strip)[4] = plus_eight((*strip)[4], high[0], b);
        (*strip)[5] = plus_eight((*strip)[5], high[1], b);
        (*strip)[6] = plus_eight((*strip)[6], high[2], b);
        (*strip)[7] = plus_eight((*strip)[7], high[3], b);
    }
}

// One of eight rows.
fn row_of(sums: Sums, i: u32) -> Vector {
    let bit0 = (i & 1u) != 0u;
    let bit1 = (i & 2u) != 0u;
    let low = select(select(sums[0], sums[1], bit0), select(sums[2], sums[3], bit0), bit1);
    let high = select(select(sums[4], sums[5], bit0), select(sums[6], sums[7], bit0), bit1);
    return select(low, high, (i & 4u) != 0u);
}

fn either(a: Sums, b: Sums, second: bool) -> Sums {
    return Sums(
        select(a[0], b[0], second), select(a[1], b[1], second), select(a[2], b[2], second), select(a[3], b[3], second),
        select(a[4], b[4], second), select(a[5], b[5], second), select(a[6], b[6], second), select(a[7], b[7], second),
    );
}

// One of the groups of eight rows.
fn group_of(strip: Strip, i: u32) -> Sums {
    let bit0 = (i & 1u) != 0u;
    let bit1 = (i & 2u) != 0u;
    let low = either(either(strip[0], strip[1], bit0), either(strip[2], strip[3], bit0), bit1);
    let high = either(either(strip[4], strip[5], bit0), either(strip[6], strip[7], bit0), bit1);
    return either(low, high, (i & 4u) != 0u);
}

// The row of an invocation, counted in its tile: the first, second, … of those that it loads.
fn row_in_tile(lane: u32, i: u32) -> u32 {
    if A_NEIGHBOURS {
        return 4u * lane + i % 4u + 32u * (i / 4u);
    }
    return lane + 8u * i;
}

fn rows_a(batch: u32, row: u32, lane: u32, first: u32) -> Parts {
    let last = rows() - 1u;
    return Parts(
        a_line(batch, min(row + row_in_tile(lane, first), last)),
        a_line(batch, min(row + row_in_tile(lane, first + 1u), last)),
        a_line(batch, min(row + row_in_tile(lane, first + 2u), last)),
        a_line(batch, min(row + row_in_tile(lane, first + 3u), last)),
    );
}

fn columns_b(batch: u32, column: u32) -> Parts {
    let last = columns() - 1u;
    return Parts(
        b_line(batch, min(column, last)),
        b_line(batch, min(column + 1u, last)),
        b_line(batch, min(column + 2u, last)),
        b_line(batch, min(column + 3u, last)),
    );
}

fn shared_by_four(mine: Part) -> Parts {
    return Parts(
        subgroupBroadcast(mine, 0u), subgroupBroadcast(mine, 1u), subgroupBroadcast(mine, 2u), subgroupBroadcast(mine, 3u),
    );
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let height = 8u * ROW_GROUPS;
    let width = 32u * COLUMN_GROUPS;
    let across = (columns() + width - 1u) / width;
    let down = (rows() + height - 1u) / height;
    let tile = workgroup_index(id);
    if tile >= across * down * batches() * parts() {
        return;
    }
    let column = width * (tile % across) + 4u * lane;
    let row = height * ((tile / across) % down);
    let slice = tile / (across * down);
    let batch = slice % batches();
    let part = slice / batches();

    let rows_low = rows_a(batch, row, lane, 0u);
    let rows_high = rows_a(batch, row, lane, 4u);
    let columns_left = columns_b(batch, column);
    let columns_right = columns_b(batch, column + 32u);
    var left = Strip();
    var right = Strip();
    let end = min((part + 1u) * segment(), inner_size());
    for (var k = part * segment(); k < end; k += 4u) {
        let inside = vec4(k) + vec4(0u, 1u, 2u, 3u) < vec4(end);
        // Divisions are dear: each invocation finds one of the four places.
        let mine = min(k + lane % 4u, inner_size() - 1u);
        let places_a = shared_by_four(a_place(mine));
        let places_b = shared_by_four(b_place(mine));
        let low = masked(quad_a(rows_low, places_a), inside);
        var high = Quad();
        if ROW_GROUPS > 4u {
            high = masked(quad_a(rows_high, places_a), inside);
        }
        add(&left, low, high, transposed(masked(quad_b(columns_left, places_b), inside)));
        if COLUMN_GROUPS > 1u {
            add(&right, low, high, transposed(masked(quad_b(columns_right, places_b), inside)));
        }
    }

    // Loops, so that what is done with a sum stands in the kernel once.
    for (var i = 0u; i < ROW_GROUPS * COLUMN_GROUPS; i++) {
        let is_right = i >= ROW_GROUPS;
        let sums = either(group_of(left, i % ROW_GROUPS), group_of(right, i % ROW_GROUPS), is_right);
        let first = column + select(0u, 32u, is_right);
        for (var j = 0u; j < 8u; j++) {
            let at = row + row_in_tile(j, i % ROW_GROUPS);
            if at < rows() && first < columns() {
                store(part, batch, at, first, row_of(sums, j));
            }
        }
    }
}
