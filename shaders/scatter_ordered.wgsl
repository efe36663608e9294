// Scatter of updates that were put into the order of their indices, those of one index still in their own: an invocation
// owns one element of the result and walks over its updates alone. The bits are those that come out without the order.
//
// Hooks: as in scatter.wgsl, but for `index`; `begin(i)` and `end(i)`, which places in the order element i has;
// `ordered(i, place)`, which update stands there.

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = invocation(id, lane);
    if i >= size() {
        return;
    }
    var element = current(i);
    let end = min(end(i), last());
    for (var place = max(begin(i), first()); place < end; place++) {
        element = combine(element, update(i, ordered(i, place)));
    }
    store(i, element);
}
