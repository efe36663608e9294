// x to the power of y. Needs bits.wgsl and integer.wgsl.
//
// xʸ = 2^(y log₂ x), and y log₂ x may reach 150: 24 bits of log₂ x would leave 16 of the result. Pairs of floats depend
// on sums that compilers like to simplify; so the logarithm is an integer of 32 bits and an exponent.

struct Fixed {
    mantissa: Word,
    exponent: Int,
    negative: Mask,
}

/// log₂ x = ± mantissa · 2^exponent, where the mantissa's first bit is 1 (unless x = 1), from the bits of |x|.
///
/// With x = m 2ᵉ and s = (m − 1) / (m + 1) it is e + s P(s²), the series of the area tangent.
fn binary_logarithm(bits: Word) -> Fixed {
    let shifted = normal_bits(bits) - Word(TWO_THIRDS_AS_BITS); // 2/3 ≤ m < 4/3
    let e = (bitcast<Int>(shifted) >> Word(23u)) - select(Int(0), Int(149), bits < Word(IMPLICIT_BIT));
    let m_bits = (shifted & Word(MANTISSA_BITS)) + Word(TWO_THIRDS_AS_BITS);
    let significant = (m_bits & Word(MANTISSA_BITS)) | Word(IMPLICIT_BIT);
    let m = select(significant, significant << Word(1u), m_bits >= Word(ONE_AS_BITS)); // · 2⁻²⁴
    let below_one = m < Word(0x1000000u);
    let difference = select(m - Word(0x1000000u), Word(0x1000000u) - m, below_one);
    let sum = m + Word(0x1000000u);

    // s = ratio 2^(−31 − k), by long division with two digits; the remainder between them is exact.
    let k = countLeadingZeros(difference) - Word(7u);
    let dividend = difference << k;
    let reciprocal = 1.0 / Real(sum);
    let digit = Word(round(Real(dividend) * reciprocal * 65536.0));
    let remainder = bitcast<Int>((dividend << Word(16u)) - digit * sum);
    let next = Int(round(Real(remainder) * reciprocal * 32768.0));
    let ratio = (digit << Word(15u)) + bitcast<Word>(next);

    // P = c₀ + s² (c₁ + s² (c₂ + …)), c₂ and later terms in floats; log₂ m = series 2^(−30 − k)
    let square = multiply_wide(ratio, ratio).high >> min(k + k - Word(2u), Word(31u)); // · 2⁻³²
    let z = Real(square) * (1.0 / 4294967296.0);
    var q = Real(0.29079965);
    q = q * z + 0.3192879;
    q = q * z + 0.41222608;
    q = q * z + 0.57707775;
    let inner = Word(0xf6384ee6u) + Word(q * z * 4294967296.0); // · 2⁻³²
    let p = Word(0xb8aa3b29u) + (multiply_wide(square, inner).high >> Word(2u)); // · 2⁻³⁰
    let product = multiply_wide(ratio, p);
    let series = (product.high << Word(1u)) + (product.low >> Word(31u));

    // |e ± log₂ m| with 32 bits of fraction; where e = 0 the series alone, with all of its bits.
    let alone = e == Int(0);
    let part = series >> min(k - Word(2u), Word(31u));
    let negative = select(e < Int(0), below_one, alone);
    let opposed = (e < Int(0)) != below_one;
    let borrow = select(Word(0u), Word(1u), opposed & (part != Word(0u)));
    let whole = select(bitcast<Word>(abs(e)) - borrow, Word(0u), alone);
    let fraction = select(select(part, Word(0u) - part, opposed), series, alone);
    let offset = select(Int(-32), Int(-30) - bitcast<Int>(k), alone);

    let has_whole = whole != Word(0u);
    let left = min(countLeadingZeros(select(fraction, whole, has_whole)), Word(31u));
    let joined = (whole << left) | ((fraction >> Word(1u)) >> (Word(31u) - left));
    let mantissa = select(fraction << left, joined, has_whole);
    return Fixed(mantissa, offset - bitcast<Int>(left) + select(Int(0), Int(32), has_whole), negative);
}

/// The special cases are those of IEEE 754: x⁰ and 1ʸ are 1 even where the other operand is NaN.
fn power_f32(x: Real, y: Real) -> Real {
    let x_size = magnitude(x);
    let y_size = magnitude(y);
    let logarithm = binary_logarithm(x_size);

    // |y log₂ x| = (high + low 2⁻³²) 2^(places − 32), as integer part and fraction
    let product = multiply_wide(logarithm.mantissa, (y_size << Word(8u)) | Word(0x80000000u));
    let places = bitcast<Int>(y_size >> Word(23u)) + logarithm.exponent - Int(94);
    let up = bitcast<Word>(clamp(places, Int(0), Int(8)));
    let down = bitcast<Word>(clamp(-places, Int(0), Int(31)));
    let fraction = ((product.high << up) | ((product.low >> Word(1u)) >> (Word(31u) - up))) >> down;
    // Now as the nearest integer and the rest: a fraction from 1/2 on is negative as an Int.
    let n = bitcast<Int>(((product.high >> Word(1u)) >> (Word(31u) - up)) + (fraction >> Word(31u)));
    let r = Real(bitcast<Int>(fraction)) * (1.0 / 4294967296.0);

    let grows = (x_size > Word(ONE_AS_BITS)) != is_negative(y);
    let exponent = select(-n, n, grows);
    let t = select(-r, r, grows);
    var q = Real(0.00015478022);
    q = q * t + 0.0013400432;
    q = q * t + 0.009617995;
    q = q * t + 0.05550327;
    q = q * t + 0.24022652;
    q = q * t + 0.6931472;
    var result = scale(1.0 + q * t, exponent);

    // Beyond all exponents, at 0 and ∞ too, the result is 0 or ∞.
    let extreme = (places > Int(8)) | (x_size == Word(0u)) | (max(x_size, y_size) >= Word(INFINITY_AS_BITS));
    result = select(result, select(Real(0.0), infinity(), grows), extreme);
    result = select(result, Real(1.0), x_size == Word(ONE_AS_BITS));

    // The sign, by the bits of y below and at its units; from 2²⁴ on every f32 is even.
    let y_exponent = bitcast<Int>(y_size >> Word(23u)) - Int(127);
    let fraction_bits = bitcast<Word>(clamp(Int(23) - y_exponent, Int(0), Int(24)));
    let digits = (y_size & Word(MANTISSA_BITS)) | Word(IMPLICIT_BIT);
    let is_integer = (digits & ((Word(1u) << fraction_bits) - Word(1u))) == Word(0u);
    let is_odd = is_integer & (((digits >> fraction_bits) & Word(1u)) == Word(1u)) & (y_exponent < Int(24));
    let x_negative = is_negative(x);
    result = select(result, -result, is_odd & x_negative);

    let finite = (x_size != Word(0u)) & (x_size < Word(INFINITY_AS_BITS));
    let undefined = (x_negative & finite & !is_integer) | is_nan(x) | is_nan(y);
    result = select(result, not_a_number(), undefined);
    let one = (y_size == Word(0u)) | (bitcast<Word>(x) == Word(ONE_AS_BITS));
    return select(result, Real(1.0), one);
}
