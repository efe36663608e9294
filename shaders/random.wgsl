// Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2,
// 3", SC 2011), bit for bit as on the CPU. Needs no other file.

const PHILOX_MULTIPLIERS = vec2<u32>(0xd2511f53u, 0xcd9e8d57u);
const PHILOX_WEYL = vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
const PHILOX_ROUNDS = 10u;

/// The upper halves of two 64-bit products, from products of 16-bit halves.
fn philox_high(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let half = vec2<u32>(16u);
    let low_half = vec2<u32>(0xffffu);
    let first = (a >> half) * (b & low_half) + (((a & low_half) * (b & low_half)) >> half);
    let second = (a & low_half) * (b >> half) + (first & low_half);
    return (a >> half) * (b >> half) + (first >> half) + (second >> half);
}

/// Four random words for a counter and a key.
fn philox(counter: vec4<u32>, key: vec2<u32>) -> vec4<u32> {
    var even = counter.xz;
    var odd = counter.yw;
    var round_key = key;
    for (var i = 0u; i < PHILOX_ROUNDS; i++) {
        let high = philox_high(PHILOX_MULTIPLIERS, even);
        let low = PHILOX_MULTIPLIERS * even;
        even = high.yx ^ odd ^ round_key;
        odd = low.yx;
        round_key += PHILOX_WEYL;
    }
    return vec4<u32>(even.x, odd.x, even.y, odd.y);
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
