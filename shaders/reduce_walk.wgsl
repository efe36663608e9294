// A pass of an invocation along its part of a row that a workgroup walks along; the pass's number stands in place of N.
//
// Hooks: `Partial_N`, `identity_N()`, `fold_N(partial, row, element)`, which may store elements.

fn walk_N(row: u32, start: u32, last: u32) -> Partial_N {
    var partial = identity_N();
    var element = start;
    // Four at a time, so that their loads are under way together.
    for (; element + 3u * STRIDE < last; element += 4u * STRIDE) {
        partial = fold_N(partial, row, element);
        partial = fold_N(partial, row, element + STRIDE);
        partial = fold_N(partial, row, element + 2u * STRIDE);
        partial = fold_N(partial, row, element + 3u * STRIDE);
    }
    for (; element < last; element += STRIDE) {
        partial = fold_N(partial, row, element);
    }
    return partial;
}
