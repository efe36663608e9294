// Elements as words that compare as they do. NaN is the largest; zeros of either sign are one.

fn ordered_f32(x: Real) -> Word {
    let bits = select(bitcast<Word>(x), Word(0u), magnitude(x) == Word(0u));
    let word = select(bits | Word(SIGN_BIT), ~bits, bits >= Word(SIGN_BIT));
    return select(word, Word(0xffffffffu), is_nan(x));
}

fn ordered_i32(x: Int) -> Word {
    return bitcast<Word>(x) ^ Word(SIGN_BIT);
}

fn ordered_u32(x: Word) -> Word {
    return x;
}
