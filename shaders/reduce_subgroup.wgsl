// What the invocations of a row have folded in a pass, whose number stands in place of N, combined within subgroups first: a
// single barrier, or none where a subgroup has whole rows. All of them get the same bits, since sums do not depend on the order
// of two operands.
//
// Hooks: `Total_N`, `combine_totals_N(a, b)`; `exchanged_N(total, apart)`, that of the invocation whose number differs by the
// bit `apart`. Constants: SUBGROUP, how many invocations each subgroup has. Invocations of a row are neighbours.

var<workgroup> totals_N: array<Total_N, WORKGROUP / SUBGROUP>;

fn meet_N(total: Total_N, lane: u32) -> Total_N {
    var ours = total;
    for (var apart = 1u; apart < min(SLICES, SUBGROUP); apart *= 2u) {
        ours = combine_totals_N(ours, exchanged_N(ours, apart));
    }
    if SLICES <= SUBGROUP {
        return ours;
    }
    if lane % SUBGROUP == 0u {
        totals_N[lane / SUBGROUP] = ours;
    }
    workgroupBarrier();
    let first = lane / SLICES * (SLICES / SUBGROUP);
    var all = totals_N[first];
    for (var other = 1u; other < SLICES / SUBGROUP; other += 1u) {
        all = combine_totals_N(all, totals_N[first + other]);
    }
    return all;
}
