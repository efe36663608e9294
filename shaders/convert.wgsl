// Conversions between f32, i32, u32 and bool, all named `from_to_to`. Needs bits.wgsl.
//
// Floats are truncated and saturate, and NaN gives 0; integers wrap; what is not 0 is true (also NaN).

fn f32_to_i32(x: Real) -> Int {
    // 2³¹ − 128 is the largest f32 that fits.
    let inside = Int(clamp(select(x, Real(0.0), is_nan(x)), Real(-2147483648.0), Real(2147483520.0)));
    return select(inside, Int(0x7fffffff), (x >= Real(2147483648.0)) & !is_nan(x));
}

fn f32_to_u32(x: Real) -> Word {
    // 2³² − 256 is the largest f32 that fits.
    let inside = Word(clamp(select(x, Real(0.0), is_nan(x)), Real(0.0), Real(4294967040.0)));
    return select(inside, Word(0xffffffffu), (x >= Real(4294967296.0)) & !is_nan(x));
}

fn f32_to_bool(x: Real) -> Mask {
    return magnitude(x) != Word(0u);
}

fn i32_to_f32(x: Int) -> Real {
    return Real(x);
}

fn i32_to_u32(x: Int) -> Word {
    return bitcast<Word>(x);
}

fn i32_to_bool(x: Int) -> Mask {
    return x != Int(0);
}

fn u32_to_f32(x: Word) -> Real {
    return Real(x);
}

fn u32_to_i32(x: Word) -> Int {
    return bitcast<Int>(x);
}

fn u32_to_bool(x: Word) -> Mask {
    return x != Word(0u);
}

fn bool_to_f32(x: Mask) -> Real {
    return select(Real(0.0), Real(1.0), x);
}

fn bool_to_i32(x: Mask) -> Int {
    return select(Int(0), Int(1), x);
}

fn bool_to_u32(x: Mask) -> Word {
    return select(Word(0u), Word(1u), x);
}
