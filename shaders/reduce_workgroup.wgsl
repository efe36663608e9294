// Reductions, a workgroup for each result: its invocations fold every WORKGROUP-th element, then their results meet in
// a tree.
//
// Long rows are cut into segments, whose results a second kernel combines.
//
// Hooks: as in reduce_serial.wgsl. WORKGROUP is a power of two.

var<workgroup> partials: array<Accumulator, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = workgroup_index(id);
    if i >= outer_size() * parts() {
        return;
    }
    let outer = i % outer_size();
    let first = (i / outer_size()) * segment();
    let last = min(first + segment(), inner_size());
    var partial = identity();
    for (var inner = first + lane; inner < last; inner += WORKGROUP) {
        partial = fold(partial, outer, inner);
    }
    partials[lane] = partial;
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        if lane < half {
            partials[lane] = combine(partials[lane], partials[lane + half]);
        }
        workgroupBarrier();
    }
    if lane == 0u {
        store(i, partials[0]);
    }
}
