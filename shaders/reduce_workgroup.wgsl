// Row programs, a workgroup for each row: in a pass its invocations fold every WORKGROUP-th element, then their results
// meet in a tree.
//
// Long rows of a single pass are cut into segments, whose results a second kernel combines.
//
// Hooks: as in reduce_serial.wgsl; `program` also takes the invocation's `lane`. WORKGROUP is a power of two.

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(id);
    if i >= rows() * parts() {
        return;
    }
    let first = (i / rows()) * segment();
    program(i, i % rows(), first, min(first + segment(), row_size()), lane);
}

// Once for each pass, whose number stands in place of N.
//
// Hooks: as in reduce_serial.wgsl.

var<workgroup> partials_N: array<Partial_N, WORKGROUP>;

fn pass_N(row: u32, first: u32, last: u32, lane: u32) -> Partial_N {
    var partial = identity_N();
    for (var element = first + lane; element < last; element += WORKGROUP) {
        partial = fold_N(partial, row, element);
    }
    partials_N[lane] = partial;
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        if lane < half {
            partials_N[lane] = combine_N(partials_N[lane], partials_N[lane + half]);
        }
        workgroupBarrier();
    }
    return partials_N[0];
}
