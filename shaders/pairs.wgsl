// Words that were loaded two by two; only for adapters that have u64.

fn words_of(pairs: vec2<u64>) -> vec4<u32> {
    return vec4(u32(pairs.x), u32(pairs.x >> 32u), u32(pairs.y), u32(pairs.y >> 32u));
}
