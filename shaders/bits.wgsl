// Floats as bits. Needs no other file.
//
// A driver may compile float arithmetic as if NaN and infinity did not exist (Metal does so by default), and then
// `x != x` is false and `max` drops NaN. Bits it has to take as they are: so every special case is found by its bits.

const SIGN_BIT = 0x80000000u;
const MAGNITUDE_BITS = 0x7fffffffu;
const MANTISSA_BITS = 0x007fffffu;
const IMPLICIT_BIT = 0x00800000u; // also the smallest normal number
const TWO_THIRDS_AS_BITS = 0x3f2aaaabu;
const ONE_AS_BITS = 0x3f800000u;
const INFINITY_AS_BITS = 0x7f800000u;
const NAN_AS_BITS = 0x7fc00000u;

fn infinity() -> Real {
    return bitcast<Real>(Word(INFINITY_AS_BITS));
}

fn not_a_number() -> Real {
    return bitcast<Real>(Word(NAN_AS_BITS));
}

fn magnitude(x: Real) -> Word {
    return bitcast<Word>(x) & Word(MAGNITUDE_BITS);
}

fn is_nan(x: Real) -> Mask {
    return magnitude(x) > Word(INFINITY_AS_BITS);
}

fn is_negative(x: Real) -> Mask {
    return bitcast<Word>(x) >= Word(SIGN_BIT);
}

fn is_negative_zero(x: Real) -> Mask {
    return bitcast<Word>(x) == Word(SIGN_BIT);
}

/// |x| with the sign of `sign`.
fn with_sign_of(sign: Real, x: Real) -> Real {
    // By bits, the choice around it goes wrong on AVX-512 in LLVM 15, which joins it with the masks.
    return select(abs(x), -abs(x), bitcast<Int>(sign) < Int(0));
}

/// `y`, but NaN where x is NaN.
fn keep_nan(x: Real, y: Real) -> Real {
    return select(y, x, is_nan(x));
}

/// 2ⁿ for −126 ≤ n ≤ 127.
fn power_of_two(n: Int) -> Real {
    return bitcast<Real>((bitcast<Word>(n) << Word(23u)) + Word(ONE_AS_BITS));
}

/// x · 2ⁿ for normal x: infinity above the normal numbers, zero below them. (Two factors 2ᵐ · 2ⁿ⁻ᵐ would do in C;
/// here a compiler may multiply them with each other first, and overflow.)
fn scale(x: Real, n: Int) -> Real {
    let bits = bitcast<Word>(x);
    let exponent = bitcast<Int>((bits >> Word(23u)) & Word(0xffu)) + n;
    let sign = bits & Word(SIGN_BIT);
    let outside = select(sign, sign | Word(INFINITY_AS_BITS), exponent > Int(0));
    let inside = bits + bitcast<Word>(n << Word(23u));
    let fits = (exponent > Int(0)) & (exponent < Int(255));
    return bitcast<Real>(select(outside, inside, fits));
}

/// From the bits of |x|: those of a subnormal number times 2¹⁴⁹, and others as they are. (Drivers may take a subnormal
/// operand for zero; as an integer it survives.)
fn normal_bits(bits: Word) -> Word {
    return select(bits, bitcast<Word>(Real(bits)), bits < Word(IMPLICIT_BIT));
}

/// The larger; NaN wins.
fn max_nan(a: Real, b: Real) -> Real {
    return keep_nan(a, keep_nan(b, max(a, b)));
}

/// The smaller; NaN wins.
fn min_nan(a: Real, b: Real) -> Real {
    return keep_nan(a, keep_nan(b, min(a, b)));
}

/// −1, 0 or 1; zero and NaN stay what they are.
fn sign_f32(x: Real) -> Real {
    let other = (magnitude(x) == Word(0u)) | is_nan(x);
    return select(with_sign_of(x, Real(1.0)), x, other);
}
