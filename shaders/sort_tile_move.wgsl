// Radix sort by tiles, third launch of a pass: each tile is put into the order of the digit (sort_tile.wgsl), and its keys go
// where those with their digit belong: neighbours to neighbours, mostly. A workgroup for each tile.
//
// Hooks: `rows()`, `row_size()`, `parts()`, the tiles of a row; `groups()`, of how many tiles each has `group_size()`;
// `key(row, k)`, `index(row, k)`; `shift()`, the bits below the digit; `count(row, tile, digit)`, of the tiles before in the
// group, and `total(row, group, digit)`; `put(row, place, key, index)`.

fn digit_of(i: u32) -> u32 {
    return (tile_keys[spread(i)] >> shift()) & 255u;
}

fn sum_of(four: vec4<u32>) -> u32 {
    return four.x + four.y + four.z + four.w;
}

// Where the row's first key with the digit `lane` goes, of those in this tile.
fn first_place(row: u32, tile: u32, lane: u32) -> u32 {
    let own = tile / group_size();
    var before = count(row, tile, lane);
    var all = 0u;
    for (var group = 0u; group < groups(); group += 4u) {
        let four = vec4(group) + vec4(0u, 1u, 2u, 3u);
        let last = min(four, vec4(groups() - 1u));
        let others = vec4(
            total(row, last.x, lane), total(row, last.y, lane), total(row, last.z, lane), total(row, last.w, lane),
        );
        all += sum_of(select(vec4(0u), others, four < vec4(groups())));
        before += sum_of(select(vec4(0u), others, four < vec4(own)));
    }
    return before + sum_before(all, lane);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if workgroup_index(id) >= rows() * parts() {
        return;
    }
    let row = workgroup_index(id) / parts();
    let tile = workgroup_index(id) % parts();
    let first = SORTED * tile;
    let size = min(SORTED, row_size() - first);
    for (var turn = 0u; turn < 8u; turn++) {
        // What a tile has more than its row comes last: no key is greater, and it stood behind all others.
        let i = turn * SORTERS + lane;
        let k = first + min(i, size - 1u);
        tile_keys[spread(i)] = select(0xffffffffu, key(row, k), i < size);
        tile_places[spread(i)] = index(row, k);
    }
    workgroupBarrier();
    sort_tile(shift(), lane);
    sort_tile(shift() + 4u, lane);
    let place = first_place(row, tile, lane);
    workgroupBarrier();
    // By digits: where its keys go, and where in the tile they begin.
    counters[lane] = place;
    for (var i = lane; i < size; i += SORTERS) {
        if i == 0u || digit_of(i) != digit_of(i - 1u) {
            counters[SORTERS + digit_of(i)] = i;
        }
    }
    workgroupBarrier();
    for (var i = lane; i < size; i += SORTERS) {
        let digit = digit_of(i);
        put(row, counters[digit] + i - counters[SORTERS + digit], tile_keys[spread(i)], tile_places[spread(i)]);
    }
}
