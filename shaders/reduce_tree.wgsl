// What the invocations of a row have folded in a pass, whose number stands in place of N, combined in a tree.
//
// Hooks: `Total_N`, `combine_totals_N(a, b)`.

var<workgroup> totals_N: array<Total_N, WORKGROUP>;

fn meet_N(total: Total_N, lane: u32) -> Total_N {
    let slice = slice_of(lane);
    totals_N[lane] = total;
    workgroupBarrier();
    for (var half = SLICES / 2u; half > 0u; half /= 2u) {
        if slice < half {
            totals_N[lane] = combine_totals_N(totals_N[lane], totals_N[lane + half * NEXT]);
        }
        workgroupBarrier();
    }
    return totals_N[lane - slice * NEXT];
}
