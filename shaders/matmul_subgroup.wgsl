// Matrix products for adapters in software, on which a load costs as much as fifty multiplications: a workgroup is one
// subgroup of eight invocations, which computes up to 64 rows by 32 columns. Each of them loads four columns, and of
// every eight rows one, which it shares by broadcast: no element is loaded twice for a tile.
//
// The summed axis is cut into segments, whose results a second kernel adds up.
//
// Hooks and types: as in matmul_direct.wgsl. Constant: ROW_GROUPS, how many times eight rows a tile has: 1, 2, 4 or 8.

alias Sums = array<Vector, 8>;

fn load_b4(batch: u32, column: u32, k: u32) -> Vector {
    let last = columns() - 1u;
    return Vector(
        load_b(batch, min(column, last), k),
        load_b(batch, min(column + 1u, last), k),
        load_b(batch, min(column + 2u, last), k),
        load_b(batch, min(column + 3u, last), k),
    );
}

// Adds the products of eight rows, of which each invocation holds one element, and four columns.
fn add(sums: ptr<function, Sums>, a: Element, b: Vector) {
    (*sums)[0] += subgroupBroadcast(a, 0u) * b;
    (*sums)[1] += subgroupBroadcast(a, 1u) * b;
    (*sums)[2] += subgroupBroadcast(a, 2u) * b;
    (*sums)[3] += subgroupBroadcast(a, 3u) * b;
    (*sums)[4] += subgroupBroadcast(a, 4u) * b;
    (*sums)[5] += subgroupBroadcast(a, 5u) * b;
    (*sums)[6] += subgroupBroadcast(a, 6u) * b;
    (*sums)[7] += subgroupBroadcast(a, 7u) * b;
}

// One of eight rows. (An array that is indexed by a variable would not stay in registers, and takes long to compile.)
fn row_of(sums: Sums, i: u32) -> Vector {
    let bit0 = (i & 1u) != 0u;
    let bit1 = (i & 2u) != 0u;
    let low = select(select(sums[0], sums[1], bit0), select(sums[2], sums[3], bit0), bit1);
    let high = select(select(sums[4], sums[5], bit0), select(sums[6], sums[7], bit0), bit1);
    return select(low, high, (i & 4u) != 0u);
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let height = 8u * ROW_GROUPS;
    let across = (columns() + 31u) / 32u;
    let down = (rows() + height - 1u) / height;
    let tile = workgroup_index(id);
    if tile >= across * down * batches() * parts() {
        return;
    }
    let column = 32u * (tile % across) + 4u * lane;
    let row = height * ((tile / across) % down);
    let slice = tile / (across * down);
    let batch = slice % batches();
    let part = slice / batches();

    let mine = row + lane;
    let last = rows() - 1u;
    var sums0 = Sums();
    var sums1 = Sums();
    var sums2 = Sums();
    var sums3 = Sums();
    var sums4 = Sums();
    var sums5 = Sums();
    var sums6 = Sums();
    var sums7 = Sums();
    let end = min((part + 1u) * segment(), inner_size());
    for (var k = part * segment(); k < end; k++) {
        let b = load_b4(batch, column, k);
        add(&sums0, load_a(batch, min(mine, last), k), b);
        if ROW_GROUPS > 1u {
            add(&sums1, load_a(batch, min(mine + 8u, last), k), b);
        }
        if ROW_GROUPS > 2u {
            add(&sums2, load_a(batch, min(mine + 16u, last), k), b);
            add(&sums3, load_a(batch, min(mine + 24u, last), k), b);
        }
        if ROW_GROUPS > 4u {
            add(&sums4, load_a(batch, min(mine + 32u, last), k), b);
            add(&sums5, load_a(batch, min(mine + 40u, last), k), b);
            add(&sums6, load_a(batch, min(mine + 48u, last), k), b);
            add(&sums7, load_a(batch, min(mine + 56u, last), k), b);
        }
    }

    // A loop, so that what is done with a sum stands in the kernel once.
    let count = min(height, rows() - row);
    for (var i = 0u; i < count; i++) {
        let bit3 = (i & 8u) != 0u;
        let bit4 = (i & 16u) != 0u;
        let sums01 = select(row_of(sums0, i), row_of(sums1, i), bit3);
        let sums23 = select(row_of(sums2, i), row_of(sums3, i), bit3);
        let sums45 = select(row_of(sums4, i), row_of(sums5, i), bit3);
        let sums67 = select(row_of(sums6, i), row_of(sums7, i), bit3);
        let sums = select(select(sums01, sums23, bit4), select(sums45, sums67, bit4), (i & 32u) != 0u);
        for (var j = 0u; j < 4u; j++) {
            if column + j < columns() {
                store(part, batch, row + i, column + j, sums[j]);
            }
        }
    }
}
