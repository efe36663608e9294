// Roots, exponentials, logarithms and the arc tangent. Needs bits.wgsl.
//
// WGSL's own may be off by thousands of units in the last place. These are the CPU's (crates/ir/src/math.rs, where the
// polynomials come from), written so that a driver which rearranges sums and products does no harm: of n a + n b Mesa
// makes n (a + b). `fma` is not for speed but keeps a sum in order; it is right also where it rounds twice.

const LOG2_E = 1.4426950408889634;
// ln 2 in two parts (Cephes): 355/512, whose product with an exponent is exact, and the rest.
const LN_2_HIGH = 0.693359375;
const LN_2_LOW = -2.1219444e-4;

/// √x. Mesa takes it for positive, and leaves out an `abs` that comes later; but √−0 is −0, and 1 / √−0 is −∞.
fn square_root(x: Real) -> Real {
    return select(sqrt(x), x, is_negative_zero(x));
}

/// 1 / √x.
fn reciprocal_root(x: Real) -> Real {
    return select(inverseSqrt(x), -infinity(), is_negative_zero(x));
}

// 1.5 · 2²³: what is added to it is rounded to a whole number, which is then in the lowest bits of the sum.
const ROUNDING = 12582912.0;
const ROUNDING_AS_BITS = 0x4b400000i;

/// A whole number as a float, for |n| < 2²². GPUs convert at a small part of the rate at which they add.
fn whole(n: Int) -> Real {
    return bitcast<Real>(n + Int(ROUNDING_AS_BITS)) - ROUNDING;
}

struct ExponentialParts {
    n: Int,
    rest: Real,
}

/// x = n ln 2 + r with |r| ≤ ln 2 / 2; gives n and eʳ − 1.
fn exponential_parts(x: Real) -> ExponentialParts {
    let n = bitcast<Int>(x * LOG2_E + ROUNDING) - Int(ROUNDING_AS_BITS);
    // n LN_2_HIGH, in a form that is not joined with n LN_2_LOW; and 2 n, since for n itself a compiler may undo the rounding.
    let without_high = fma(whole(n * Int(355)), Real(-1.0 / 512.0), x);
    let r = fma(whole(n * Int(2)), Real(-0.5 * LN_2_LOW), without_high);
    var q = Real(0.0013870696);
    q = q * r + 0.008366272;
    q = q * r + 0.041667435;
    q = q * r + 0.16666546;
    q = q * r + 0.49999997;
    return ExponentialParts(n, r + r * r * q);
}

/// eˣ. Its bits, as a whole number, lie between those of the smallest normal number and of infinity, or beyond.
fn exponential(x: Real) -> Real {
    let parts = exponential_parts(clamp(x, Real(-105.0), Real(88.8)));
    let bits = bitcast<Int>(1.0 + parts.rest) + (parts.n << Word(23u));
    let bounded = select(min(bits, bitcast<Int>(Word(INFINITY_AS_BITS))), Int(0), bits < bitcast<Int>(Word(IMPLICIT_BIT)));
    return keep_nan(x, bitcast<Real>(bounded));
}

/// eˣ − 1 as 2ⁿ ((eʳ − 1) + (1 − 2⁻ⁿ)), which loses nothing near 0.
fn expm1(x: Real) -> Real {
    let parts = exponential_parts(clamp(x, Real(-18.0), Real(89.0)));
    let one = select(1.0 - power_of_two(max(-parts.n, Int(-126))), Real(0.0), parts.n == Int(0));
    let y = parts.rest + one;
    return keep_nan(x, with_sign_of(x, scale(y, parts.n)));
}

struct Split {
    mantissa: Real,
    exponent: Int,
}

/// x = m 2ᵉ with 2/3 ≤ m < 4/3, from the bits of a positive normal x.
fn split(bits: Word) -> Split {
    let shifted = bits - Word(TWO_THIRDS_AS_BITS);
    let mantissa = (shifted & Word(MANTISSA_BITS)) + Word(TWO_THIRDS_AS_BITS);
    return Split(bitcast<Real>(mantissa), bitcast<Int>(shifted) >> Word(23u));
}

/// ln(1 + f) + k ln 2 for |f| ≤ 1/3.
fn logarithm_parts(f: Real, k: Real) -> Real {
    var q = Real(-0.12879291);
    q = q * f + 0.13985594;
    q = q * f - 0.12187453;
    q = q * f + 0.14005543;
    q = q * f - 0.16680221;
    q = q * f + 0.20010436;
    q = q * f - 0.24999805;
    q = q * f + 0.33333215;
    let square = f * f;
    let small = fma(k, Real(LN_2_LOW), f * square * q - 0.5 * square);
    return fma(k, Real(LN_2_HIGH), f + small);
}

/// What a logarithm of x is, given its value for positive finite x.
fn logarithm_of(x: Real, value: Real) -> Real {
    let bits = bitcast<Word>(x);
    let special = select(not_a_number(), x, bits == Word(INFINITY_AS_BITS));
    let y = select(value, special, bits >= Word(INFINITY_AS_BITS));
    return select(y, -infinity(), magnitude(x) == Word(0u));
}

/// ln x.
fn logarithm(x: Real) -> Real {
    let bits = bitcast<Word>(x);
    let parts = split(normal_bits(bits));
    let exponent = select(parts.exponent, parts.exponent - Int(149), bits < Word(IMPLICIT_BIT));
    return logarithm_of(x, logarithm_parts(parts.mantissa - 1.0, Real(exponent)));
}

/// ln(1 + x). The exponent e of 1 + x is taken out of x itself, as x 2⁻ᵉ + (2⁻ᵉ − 1), so that the rounding of 1 + x
/// does not enter.
fn log1p(x: Real) -> Real {
    let u = 1.0 + x;
    let parts = split(bitcast<Word>(u));
    let shrink = power_of_two(-parts.exponent);
    // Beyond 2²⁶ the 1 no longer matters (and 2⁻ᵉ may underflow).
    var f = select(parts.mantissa - 1.0, fma(x, shrink, shrink - 1.0), x < Real(67108864.0));
    f = select(f, x, parts.exponent == Int(0));
    return keep_nan(x, with_sign_of(x, logarithm_of(u, logarithm_parts(f, Real(parts.exponent)))));
}

const HALF_PI = 1.5707964;
const HALF_PI_EXCESS = 4.371139e-8; // of the f32 over π/2

/// arctan x: an odd polynomial on [0, 1], and π/2 − arctan(1/x) above.
fn arctangent(x: Real) -> Real {
    let a = abs(x);
    let inverted = a > Real(1.0);
    // The limit keeps 1/a a normal number; arctan is π/2 long before.
    let t = select(a, 1.0 / clamp(a, Real(1.0), Real(1e30)), inverted);
    let z = t * t;
    var q = Real(-0.0017825252);
    q = q * z + 0.010867721;
    q = q * z - 0.031095773;
    q = q * z + 0.05788066;
    q = q * z - 0.083992854;
    q = q * z + 0.10950878;
    q = q * z - 0.14264016;
    q = q * z + 0.1999853;
    q = q * z - 0.333333;
    let y = t + t * (z * q);
    return keep_nan(x, with_sign_of(x, select(y, HALF_PI - (y + HALF_PI_EXCESS), inverted)));
}
