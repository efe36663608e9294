// Radix sort by tiles, second launch of a pass: the counts of a group of tiles become sums of those before each, a workgroup
// for each group, an invocation for each value of the digit.
//
// Hooks: `rows()`, `parts()`, the tiles of a row; `groups()`, of how many tiles each has `group_size()`;
// `count(row, tile, digit)`, `store_count(row, tile, digit, count)`; `store_total(row, group, digit, count)`.

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = workgroup_index(id);
    if group >= rows() * groups() {
        return;
    }
    let row = group / groups();
    let first = group_size() * (group % groups());
    let last = min(first + group_size(), parts());
    var sum = 0u;
    for (var tile = first; tile < last; tile += 4u) {
        // Four are loaded before one is stored, to wait once for all.
        let four = min(vec4(tile) + vec4(0u, 1u, 2u, 3u), vec4(last - 1u));
        let counts = vec4(
            count(row, four.x, lane), count(row, four.y, lane), count(row, four.z, lane), count(row, four.w, lane),
        );
        for (var i = 0u; i < 4u && tile + i < last; i++) {
            store_count(row, tile + i, lane, sum);
            sum += counts[i];
        }
    }
    store_total(row, group % groups(), lane, sum);
}
