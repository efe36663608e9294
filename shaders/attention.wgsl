// Attention, an invocation for each query: it walks along the keys, four at a time, and whenever it meets a larger logit it
// scales down what it has so far (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018). Logits are
// never stored.
//
// Hooks: `heads()`, `queries()`; `fetch(head, query)`, which puts the query where `logits` finds it; `last_key(query)`, behind
// the keys that the query may look at; `visible(query, key)` and `logits(key)`, of four keys from this one on; `rescale(factor)`
// and `add(weights, key)`, of the sums of values; `store(head, query, largest, total)`. Types: Real is a vector.

const LOWEST = -3.4028234e38;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = invocation(id, lane);
    if i >= heads() * queries() {
        return;
    }
    let head = i / queries();
    let query = i % queries();
    fetch(head, query);
    var largest = LOWEST;
    var totals = Real();
    let last = last_key(query);
    for (var key = 0u; key < last; key += 4u) {
        let seen = visible(query, key);
        let four = select(Real(LOWEST), logits(key), seen);
        let larger = max(max(four.x, four.y), max(four.z, four.w));
        if larger > largest {
            let factor = exponential(Real(largest - larger)).x;
            rescale(factor);
            totals *= factor;
            largest = larger;
        }
        let weights = select(Real(), exponential(four - largest), seen);
        totals += weights;
        add(weights, key);
    }
    store(head, query, largest, (totals.x + totals.y) + (totals.z + totals.w));
}
