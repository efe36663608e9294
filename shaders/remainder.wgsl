// The remainder of floats with the divisor's sign, as in Python. Needs bits.wgsl.
//
// a − b ⌊a / b⌋ means nothing once the quotient has more than 24 bits. This is long division on integers, 20 bits of
// the quotient a round, and exact for all operands. Most take one or two rounds, the worst 14.

fn floor_mod_f32(a: Real, b: Real) -> Real {
    let a_size = magnitude(a);
    let b_size = magnitude(b);
    // a = rest · 2^(a_exponent), b = divisor · 2^(b_exponent); the divisor has 24 bits, also where b is subnormal.
    let a_normal = a_size >= Word(IMPLICIT_BIT);
    let b_normal = b_size >= Word(IMPLICIT_BIT);
    var rest = select(a_size, (a_size & Word(MANTISSA_BITS)) | Word(IMPLICIT_BIT), a_normal);
    var divisor = select(b_size, (b_size & Word(MANTISSA_BITS)) | Word(IMPLICIT_BIT), b_normal);
    let zeros = min(countLeadingZeros(divisor) - Word(8u), Word(23u));
    divisor = divisor << zeros;
    let a_exponent = bitcast<Int>(max(a_size >> Word(23u), Word(1u)));
    let b_exponent = bitcast<Int>(max(b_size >> Word(23u), Word(1u))) - bitcast<Int>(zeros);

    let finite = max(a_size, b_size) < Word(INFINITY_AS_BITS);
    let smaller = a_size < b_size;
    let reciprocal = 1.0 / Real(divisor);
    var places = select(Int(0), a_exponent - b_exponent, finite & !smaller & (b_size != Word(0u)));
    loop {
        let step = min(places, Int(20));
        places -= step;
        // The quotient may be off by one; the remainder, modulo 2³², shows it.
        let grown = Real(rest) * power_of_two(step);
        let quotient = Word(grown * reciprocal);
        let found = bitcast<Int>((rest << bitcast<Word>(step)) - quotient * divisor);
        let lifted = select(found, found + bitcast<Int>(divisor), found < Int(0));
        rest = bitcast<Word>(select(lifted, lifted - bitcast<Int>(divisor), lifted >= bitcast<Int>(divisor)));
        if !any(places > Int(0)) {
            break;
        }
    }

    let nonzero = select(rest != Word(0u), a_size != Word(0u), smaller);
    var remainder = select(scale(Real(rest), b_exponent - Int(150)), abs(a), smaller);
    remainder = select(Real(0.0), remainder, nonzero);
    let other_sign = is_negative(a) != is_negative(b);
    let result = select(with_sign_of(a, remainder), with_sign_of(b, abs(b) - remainder), nonzero & other_sign);
    let undefined = (a_size >= Word(INFINITY_AS_BITS)) | (b_size == Word(0u)) | is_nan(b);
    return select(result, not_a_number(), undefined);
}
