// Radix sort by tiles, first launch of a pass: how often each value of a digit occurs in each tile of a row, a workgroup for
// each tile.
//
// Hooks: `rows()`, `row_size()`, `parts()`, the tiles of a row; `digit(row, k)` of element k, below 256;
// `store_count(row, tile, digit, count)`.

const SORTED = 2048u;

var<workgroup> digit_counts: array<atomic<u32>, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tile = workgroup_index(id);
    if tile >= rows() * parts() {
        return;
    }
    let row = tile / parts();
    let first = SORTED * (tile % parts());
    let last = min(first + SORTED, row_size());
    atomicStore(&digit_counts[lane], 0u);
    workgroupBarrier();
    for (var turn = 0u; turn < 8u; turn++) {
        let k = first + turn * 256u + lane;
        let value = digit(row, min(k, last - 1u));
        if k < last {
            atomicAdd(&digit_counts[value], 1u);
        }
    }
    workgroupBarrier();
    store_count(row, tile % parts(), lane, atomicLoad(&digit_counts[lane]));
}
