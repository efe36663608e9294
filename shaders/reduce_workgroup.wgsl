// Row programs, a workgroup for each row, or for a few of them: in a pass the invocations of a row fold every SLICES-th
// element, or as many neighbours at once as a STEP has, then their results meet in a tree.
//
// Long rows of a single pass are cut into segments, whose results a second kernel combines.
//
// Hooks: as in reduce_serial.wgsl; `program` also takes the invocation's `lane` and whether it `leads` its row. WORKGROUP is
// a power of two. Constants: ACROSS, how many rows a workgroup has, a power of two; IS_DOWN, whether neighbouring
// invocations stand at neighbouring rows rather than at neighbouring elements of one.

const SLICES = WORKGROUP / ACROSS;
// From an invocation to the one with the next slice of its row.
const NEXT = select(1u, ACROSS, IS_DOWN);

fn row_of(lane: u32) -> u32 {
    return select(lane / SLICES, lane % ACROSS, IS_DOWN);
}

fn slice_of(lane: u32) -> u32 {
    return select(lane % SLICES, lane / ACROSS, IS_DOWN);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let groups = (rows() + ACROSS - 1u) / ACROSS;
    let group = workgroup_index(id);
    if group >= groups * parts() {
        return;
    }
    let part = group / groups;
    let place = group % groups * ACROSS + row_of(lane);
    let row = min(place, rows() - 1u);
    // Of a row that is not there, nothing is folded.
    let exists = place == row;
    let first = part * segment();
    let last = select(first, min(first + segment(), row_size()), exists);
    program(part * rows() + row, row, first, last, lane, exists && slice_of(lane) == 0u);
}

// Once for each pass, whose number stands in place of N.
//
// Hooks: as in reduce_serial.wgsl.

var<workgroup> partials_N: array<Partial_N, WORKGROUP>;

fn pass_N(row: u32, first: u32, last: u32, lane: u32) -> Partial_N {
    let slice = slice_of(lane);
    var partial = identity_N();
    for (var element = first + STEP * slice; element < last; element += STEP * SLICES) {
        partial = fold_N(partial, row, element);
    }
    partials_N[lane] = partial;
    workgroupBarrier();
    for (var half = SLICES / 2u; half > 0u; half /= 2u) {
        if slice < half {
            partials_N[lane] = combine_N(partials_N[lane], partials_N[lane + half * NEXT]);
        }
        workgroupBarrier();
    }
    return partials_N[lane - slice * NEXT];
}
