// Sine, cosine and tangent of radians. Needs bits.wgsl and integer.wgsl.
//
// |x| is taken apart into n quarter turns and a rest r with |r| ≤ π/4: in floats while n is small (Cody and Waite),
// with 224 bits of 1/(2π) beyond (Payne and Hanek), so that the result is right for every f32.

struct QuarterTurns {
    n: Word,
    rest: Real,
}

const TWO_OVER_PI = 0.63661977;
// π/2 = (p₁ + p₂ 2⁻¹² + p₃ 2⁻²⁴) 2⁻¹¹ + p₄. The products of n ≤ 2¹² with the first three fit into 24 bits. They are
// integers because of n a + n b a driver may make n (a + b).
const HALF_PI_1 = 3216u;
const HALF_PI_2 = 4058u;
const HALF_PI_3 = 2594u;
const HALF_PI_4 = 2.5633440682570896e-12;
const HALF_PI_FIXED = 0xc90fdaa2u; // π/2 · 2³¹
const FEW_TURNS = 6433.0; // 2¹² π/2

fn quarter_turns(x: Real) -> QuarterTurns {
    let a = abs(x);
    let n = Word(round(min(a, Real(FEW_TURNS)) * TWO_OVER_PI));
    var r = fma(Real(n * Word(HALF_PI_1)), Real(-1.0 / 2048.0), a);
    r = fma(Real(n * Word(HALF_PI_2)), Real(-1.0 / 8388608.0), r);
    r = fma(Real(n * Word(HALF_PI_3)), Real(-1.0 / 34359738368.0), r);
    r = fma(Real(n), Real(-HALF_PI_4), r);
    var turns = QuarterTurns(n, r);
    let many = magnitude(x) > Word(bitcast<u32>(f32(FEW_TURNS)));
    if any(many) {
        let exact = many_quarter_turns(magnitude(x));
        turns.n = select(turns.n, exact.n, many);
        turns.rest = select(turns.rest, exact.rest, many);
    }
    return turns;
}

/// The same from the bits of a number that is not small. Of the product of its 24 bits with 1/(2π) only the fraction
/// counts, which 96 bits of 1/(2π) give: those from the number's exponent on.
fn many_quarter_turns(bits: Word) -> QuarterTurns {
    let mantissa = (bits << Word(8u)) | Word(0x80000000u);
    let exponent = (bits >> Word(23u)) - Word(126u);

    // A shift by whole words, 4, 2 and 1 of them, and then by bits.
    let by_4 = (exponent & Word(128u)) != Word(0u);
    var w0 = select(Word(0u), Word(0x7d4d3770u), by_4);
    var w1 = select(Word(0x28be60dbu), Word(0x36d8a566u), by_4);
    var w2 = select(Word(0x9391054au), Word(0x4f10e410u), by_4);
    var w3 = select(Word(0x7f09d5f4u), Word(0x7f9458eau), by_4);
    var w4 = Word(0x7d4d3770u);
    var w5 = Word(0x36d8a566u);
    let by_2 = (exponent & Word(64u)) != Word(0u);
    w0 = select(w0, w2, by_2);
    w1 = select(w1, w3, by_2);
    w2 = select(w2, w4, by_2);
    w3 = select(w3, w5, by_2);
    w4 = select(w4, Word(0x4f10e410u), by_2);
    let by_1 = (exponent & Word(32u)) != Word(0u);
    w0 = select(w0, w1, by_1);
    w1 = select(w1, w2, by_1);
    w2 = select(w2, w3, by_1);
    w3 = select(w3, w4, by_1);
    let left = exponent & Word(31u);
    let right = Word(31u) - left; // and 1 more: a shift by 32 has no meaning
    w0 = (w0 << left) | ((w1 >> Word(1u)) >> right);
    w1 = (w1 << left) | ((w2 >> Word(1u)) >> right);
    w2 = (w2 << left) | ((w3 >> Word(1u)) >> right);

    // The fraction of a turn, 64 bits of it.
    let middle = multiply_wide(mantissa, w1);
    let low = middle.low + multiply_wide(mantissa, w2).high;
    let carry = select(Word(0u), Word(1u), low < middle.low);
    let high = mantissa * w0 + middle.high + carry;

    // Its first two bits are quarter turns; the rest is rounded to the nearest of them.
    let fraction = (high << Word(2u)) | (low >> Word(30u));
    let below = (fraction & Word(SIGN_BIT)) != Word(0u);
    let n = (high >> Word(30u)) + select(Word(0u), Word(1u), below);
    let size = select(fraction, ~fraction, below);
    let size_low = select(low << Word(2u), ~(low << Word(2u)), below);

    // size · π/2 as a float
    let zeros = min(countLeadingZeros(size), Word(31u));
    let significant = (size << zeros) | ((size_low >> Word(1u)) >> (Word(31u) - zeros));
    let fixed = multiply_wide(significant, Word(HALF_PI_FIXED)).high;
    let angle = Real(fixed) * power_of_two(Int(-31) - bitcast<Int>(zeros));
    return QuarterTurns(n, select(angle, -angle, below));
}

// sin r and cos r for |r| ≤ π/4: polynomials of math.rs.

fn sine_of_rest(r: Real) -> Real {
    let z = r * r;
    var q = Real(-0.00019515218);
    q = q * z + 0.00833216;
    q = q * z - 0.16666655;
    return r + r * (z * q);
}

fn cosine_of_rest(r: Real) -> Real {
    let z = r * r;
    var q = Real(2.4433083e-5);
    q = q * z - 0.0013887316;
    q = q * z + 0.041666646;
    return 1.0 - (0.5 * z - z * z * q);
}

/// y, negated where bit 1 of n is set; NaN where x is not finite.
fn in_quadrant(x: Real, y: Real, n: Word) -> Real {
    let bits = bitcast<Word>(y) ^ ((n << Word(30u)) & Word(SIGN_BIT));
    return bitcast<Real>(select(bits, Word(NAN_AS_BITS), magnitude(x) >= Word(INFINITY_AS_BITS)));
}

/// sin x.
fn sine(x: Real) -> Real {
    let turns = quarter_turns(x);
    let even = (turns.n & Word(1u)) == Word(0u);
    let y = select(cosine_of_rest(turns.rest), sine_of_rest(turns.rest), even);
    let negated = (bitcast<Word>(x) & Word(SIGN_BIT)) >> Word(30u);
    return in_quadrant(x, y, turns.n ^ negated);
}

/// cos x.
fn cosine(x: Real) -> Real {
    let turns = quarter_turns(x);
    let even = (turns.n & Word(1u)) == Word(0u);
    let y = select(sine_of_rest(turns.rest), cosine_of_rest(turns.rest), even);
    return in_quadrant(x, y, turns.n + Word(1u) - select(Word(0u), Word(1u), even));
}

/// tan x.
fn tangent(x: Real) -> Real {
    let turns = quarter_turns(x);
    let even = (turns.n & Word(1u)) == Word(0u);
    let s = sine_of_rest(turns.rest);
    let c = cosine_of_rest(turns.rest);
    let y = select(-c, s, even) / select(s, c, even);
    return in_quadrant(x, y, (bitcast<Word>(x) & Word(SIGN_BIT)) >> Word(30u));
}
