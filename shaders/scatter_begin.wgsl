// Where the updates of each index begin among those of a line that were put into order: a search by halves for each index,
// and for the one after the last.
//
// Hooks: `lines()`, `line_size()`, `extent()`; `ordered_index(line, place)`; `store_begin(i, place)`.

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = invocation(id, lane);
    let indices = extent() + 1u;
    if i >= lines() * indices {
        return;
    }
    var low = 0u;
    var high = line_size();
    while low < high {
        let middle = (low + high) / 2u;
        if ordered_index(i / indices, middle) < i % indices {
            low = middle + 1u;
        } else {
            high = middle;
        }
    }
    store_begin(i, low);
}
