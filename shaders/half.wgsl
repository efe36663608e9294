// Numbers of f16, held as f32. Needs bits.wgsl.
//
// By bits: a driver may round towards zero where it converts to f16, and make what it likes of what is too large.

const SMALLEST_F16_AS_BITS = 0x33800000u; // 2⁻²⁴, and its half below
const HALF_OF_SMALLEST_F16_AS_BITS = 0x33000000u;
const BEYOND_F16_AS_BITS = 0x47800000u; // 2¹⁶

/// The nearest number that f16 has, ties to even; from 65520 on infinity.
fn rounded_to_f16(x: Real) -> Real {
    let size = magnitude(x);
    // 13 bits too many, and one more for each step below the smallest normal number, whose exponent is 113.
    let lost = Word(126u) - clamp(size >> Word(23u), Word(103u), Word(113u));
    let half = Word(1u) << (lost - Word(1u));
    let sum = size + (half - Word(1u)) + ((size >> lost) & Word(1u));
    let rounded = (sum >> lost) << lost;
    let tiny = select(Word(0u), Word(SMALLEST_F16_AS_BITS), size > Word(HALF_OF_SMALLEST_F16_AS_BITS));
    let small = select(rounded, tiny, size < Word(SMALLEST_F16_AS_BITS));
    let finite = select(small, Word(INFINITY_AS_BITS), rounded >= Word(BEYOND_F16_AS_BITS));
    let word = select(finite, size, size > Word(INFINITY_AS_BITS));
    return bitcast<Real>(word | (bitcast<Word>(x) & Word(SIGN_BIT)));
}
