// Element-wise kernels: each invocation computes one element, or a vector of four, of every output.
//
// Hooks: `size()`, how many invocations have work; `element(i)`, which loads, computes and stores.

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = invocation(id, lane);
    if i < size() {
        element(i);
    }
}
