// The best element and where it stands, for argmax and argmin: the first one among equals; NaN beats numbers.
//
// Hooks: `Element`, `beats(x, y)`, true if x is strictly better than y.

struct Best {
    value: Element,
    // NOWHERE before the first element.
    index: u32,
}

const NOWHERE = 0xffffffffu;

fn better(a: Best, b: Best) -> Best {
    let first = select(b.index < a.index, a.index == NOWHERE, a.index == NOWHERE || b.index == NOWHERE);
    let wins = beats(b.value, a.value) || (first && !beats(a.value, b.value));
    let b_is_taken = b.index != NOWHERE && (a.index == NOWHERE || wins);
    if b_is_taken {
        return b;
    }
    return a;
}
