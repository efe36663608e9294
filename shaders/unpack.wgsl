// Bytes, four to a word, widened to one element each.
//
// Hooks: `size()`, how many words there are; `word(i)`; `store(i, bytes)`, with the values of four bytes.

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = invocation(id, lane);
    if i < size() {
        let bytes = word(i);
        store(i, vec4(bytes, bytes >> 8u, bytes >> 16u, bytes >> 24u) & vec4(0xffu));
    }
}
