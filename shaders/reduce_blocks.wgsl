// A pass of an invocation along its part of a row in blocks (reduce_walk.wgsl), so that rounding errors of a sum grow with the
// length of a block and their number instead of their product; the pass's number stands in place of N.
//
// Hooks: `Partial_N`, `identity_N()`, `combine_N(a, b)`. Constants: BLOCK, how many steps a block has.

fn blocks_N(row: u32, start: u32, last: u32) -> Partial_N {
    var total = identity_N();
    for (var first = start; first < last; first += BLOCK * STRIDE) {
        total = combine_N(total, walk_N(row, first, min(first + BLOCK * STRIDE, last)));
    }
    return total;
}
