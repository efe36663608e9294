// Attention, an invocation for each query: it walks along the keys, four at a time, and whenever it meets a larger logit
// it scales down what it has so far (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018). Logits
// are never stored.
//
// Hooks: an entry point that calls `attend`; `heads()`, `queries()`, and `rows_with_padding()`, as many invocations as a
// head has; `fetch(head, query)`, which puts the query where `logits` finds it; `last_of_team(query)`, behind the keys that
// it or a query whose invocation goes along may look at; `visible(query, key)` and `logits(key)`, of four keys from this one
// on; `rescale(factor)` and `add(weights, key)`, of the sums of values; `store(head, query, largest, total)`.
// Types: Real is a vector.

const LOWEST = -3.4028234e38;

fn attend(i: u32) {
    let head = i / rows_with_padding();
    if head >= heads() {
        return;
    }
    let place = i % rows_with_padding();
    let query = min(place, queries() - 1u);
    fetch(head, query);
    var largest = LOWEST;
    var totals = Real();
    let last = last_of_team(query);
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
    if place == query {
        store(head, query, largest, (totals.x + totals.y) + (totals.z + totals.w));
    }
}
