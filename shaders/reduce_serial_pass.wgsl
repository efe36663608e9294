// A pass along a row, or a part of it, that one invocation walks along; its number stands in place of N.
//
// Hooks: `Partial_N`, `identity_N()`, `fold_N(partial, row, element)`, which may store elements, and `combine_N(a, b)`.
// Constants: BLOCK; STEP, how many elements are folded at once.

fn pass_N(row: u32, first: u32, last: u32) -> Partial_N {
    var total = identity_N();
    for (var block = first; block < last; block += BLOCK) {
        let end = min(block + BLOCK, last);
        var partial = identity_N();
        for (var element = block; element < end; element += STEP) {
            partial = fold_N(partial, row, element);
        }
        total = combine_N(total, partial);
    }
    return total;
}
