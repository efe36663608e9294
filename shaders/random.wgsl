// Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2,
// 3", SC 2011), bit for bit as on the CPU. Needs no other file.

const PHILOX_MULTIPLIERS = vec2<u32>(0xd2511f53u, 0xcd9e8d57u);
const PHILOX_WEYL = vec2<u32>(0x9e3779b9u, 0xbb67ae85u);

/// The upper halves of two 64-bit products, from products of 16-bit halves.
fn philox_high(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let half = vec2<u32>(16u);
    let low_half = vec2<u32>(0xffffu);
    let first = (a >> half) * (b & low_half) + (((a & low_half) * (b & low_half)) >> half);
    let second = (a & low_half) * (b >> half) + (first & low_half);
    return (a >> half) * (b >> half) + (first >> half) + (second >> half);
}

struct Philox {
    even: vec2<u32>,
    odd: vec2<u32>,
    key: vec2<u32>,
}

fn philox_round(state: Philox) -> Philox {
    let high = philox_high(PHILOX_MULTIPLIERS, state.even);
    let low = PHILOX_MULTIPLIERS * state.even;
    return Philox(high.yx ^ state.odd ^ state.key, low.yx, state.key + PHILOX_WEYL);
}

/// Two of the ten rounds. They are no loop: in a loop over elements, some adapters count its turns too.
fn philox_rounds(state: Philox) -> Philox {
    return philox_round(philox_round(state));
}

/// Four random words for a counter and a key.
fn philox(counter: vec4<u32>, key: vec2<u32>) -> vec4<u32> {
    let start = philox_rounds(philox_rounds(Philox(counter.xz, counter.yw, key)));
    let end = philox_rounds(philox_rounds(philox_rounds(start)));
    return vec4<u32>(end.even.x, end.odd.x, end.even.y, end.odd.y);
}

/// The four words of elements 4 · block … 4 · block + 3.
fn philox_block(key: vec2<u32>, block: u32) -> vec4<u32> {
    return philox(vec4<u32>(block, 0u, 0u, 0u), key);
}

/// The word of one element.
fn philox_word(key: vec2<u32>, index: u32) -> u32 {
    let words = philox_block(key, index / 4u);
    let pair = select(words.xy, words.zw, (index & 2u) != 0u);
    return select(pair.x, pair.y, (index & 1u) != 0u);
}

/// A word as a number in [0, 1): its upper 24 bits.
fn uniform_f32(word: Word) -> Real {
    return Real(word >> Word(8u)) * (1.0 / 16777216.0);
}
