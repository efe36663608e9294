// Scatter, output-stationary: an invocation owns one element of the result and walks, in order, over the updates of its
// line. No atomics: the order of additions is fixed, and so are the bits.
//
// Hooks: `size()`, elements of the result; `first()` and `last()`, the updates of a line that this launch looks at;
// `current(i)`, the element so far; `position(i)`, where it stands along the axis; `index(i, k)` and `update(i, k)` of
// update k; `combine(a, update)`; `store(i, a)`.

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = invocation(id, lane);
    if i >= size() {
        return;
    }
    let here = position(i);
    var element = current(i);
    for (var k = first(); k < last(); k++) {
        if index(i, k) == here {
            element = combine(element, update(i, k));
        }
    }
    store(i, element);
}
