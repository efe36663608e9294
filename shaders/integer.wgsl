// Integer arithmetic. Needs no other file.
//
// Quotients round down and remainders take the divisor's sign, as in Python; x / 0 = x % 0 = 0. WGSL's operators would
// truncate; what they give for a divisor of 0 or for −2³¹ / −1 differs, so neither is ever executed.

/// A divisor that is safe: where it replaces −1 by 1, the quotient −2³¹ is what wrapping gives.
fn safe_divisor(a: Int, b: Int) -> Int {
    let overflow = (a == Int(-0x7fffffff - 1)) & (b == Int(-1));
    return select(b, Int(1), (b == Int(0)) | overflow);
}

fn floor_div_i32(a: Int, b: Int) -> Int {
    let divisor = safe_divisor(a, b);
    let quotient = a / divisor;
    let remainder = a - quotient * divisor;
    let above = (remainder != Int(0)) & ((remainder ^ divisor) < Int(0));
    return select(select(quotient, quotient - Int(1), above), Int(0), b == Int(0));
}

fn floor_mod_i32(a: Int, b: Int) -> Int {
    let divisor = safe_divisor(a, b);
    let remainder = a - (a / divisor) * divisor;
    let other_sign = (remainder != Int(0)) & ((remainder ^ divisor) < Int(0));
    return select(select(remainder, remainder + divisor, other_sign), Int(0), b == Int(0));
}

fn floor_div_u32(a: Word, b: Word) -> Word {
    let zero = b == Word(0u);
    return select(a / select(b, Word(1u), zero), Word(0u), zero);
}

fn floor_mod_u32(a: Word, b: Word) -> Word {
    // Any x is 0 modulo 1.
    return a % select(b, Word(1u), b == Word(0u));
}

/// Square and multiply: at most 32 rounds.
fn power_u32(base: Word, exponent: Word) -> Word {
    var result = Word(1u);
    var square = base;
    var rest = exponent;
    while any(rest != Word(0u)) {
        result = select(result, result * square, (rest & Word(1u)) == Word(1u));
        square = square * square;
        rest = rest >> Word(1u);
    }
    return result;
}

/// A negative exponent gives the integer part of the real result: 0, but ±1 for a base of ±1.
fn power_i32(base: Int, exponent: Int) -> Int {
    let is_unit = (base == Int(1)) | (base == Int(-1));
    // For ±1 the sign of the exponent does not matter, and its parity is that of its bits.
    let result = bitcast<Int>(power_u32(bitcast<Word>(base), bitcast<Word>(exponent)));
    return select(result, Int(0), (exponent < Int(0)) & !is_unit);
}

fn sign_i32(x: Int) -> Int {
    return clamp(x, Int(-1), Int(1));
}

fn sign_u32(x: Word) -> Word {
    return min(x, Word(1u));
}

struct WidePair {
    high: Word,
    low: Word,
}

/// The 64-bit product, from products of 16-bit halves.
fn multiply_wide(a: Word, b: Word) -> WidePair {
    let half = Word(16u);
    let low_half = Word(0xffffu);
    let first = (a >> half) * (b & low_half) + (((a & low_half) * (b & low_half)) >> half);
    let second = (a & low_half) * (b >> half) + (first & low_half);
    return WidePair((a >> half) * (b >> half) + (first >> half) + (second >> half), a * b);
}
