//! Elementary functions on `f32`, written so that a plain loop over a slice vectorises.
//!
//! The standard library's functions are calls into the platform's libm: one element at a time,
//! and with results that differ between platforms. These are straight-line arithmetic instead:
//! every special case is a *select* between values already computed, never a jump, a call or a
//! table look-up, so LLVM turns a loop over any of them into SIMD code of whatever width the
//! enclosing function enables.
//!
//! Products are added in one of two ways, [`Rounding`]: fused multiply-adds spare a third of the
//! operations where a processor has them, and take a hundred times as long where it has not. Nothing
//! else depends on the machine: the bits of a result are the same under AVX2, AVX-512 and NEON.
//!
//! Errors are in units in the last place (ulp) of the exact result, as measured on every f32 with
//! 2·10⁻⁴ < |x| < 120 and on a sample of the others. Polynomial coefficients are our own minimax
//! fits (reweighted least squares, each f32 coefficient rounded before the next is fitted).

use half::f16;
use std::f32::consts::{FRAC_PI_2, LOG2_E};
use std::f64::consts::FRAC_2_PI;
use std::ops::{Add, Mul};

/// How `a·b + c` is rounded.
pub trait Rounding {
    /// `a·b + c`.
    fn mul_add<T: Float>(a: T, b: T, c: T) -> T;
}

/// The product is rounded, and then the sum.
pub struct Twice;
/// Once, as fused multiply-adds do.
pub struct Once;

impl Rounding for Twice {
    #[inline(always)]
    fn mul_add<T: Float>(a: T, b: T, c: T) -> T {
        a * b + c
    }
}

impl Rounding for Once {
    #[inline(always)]
    fn mul_add<T: Float>(a: T, b: T, c: T) -> T {
        a.fused(b, c)
    }
}

/// What polynomials are evaluated in.
pub trait Float: Copy + Add<Output = Self> + Mul<Output = Self> {
    /// `self·b + c`, rounded once.
    fn fused(self, b: Self, c: Self) -> Self;
}

impl Float for f32 {
    #[inline(always)]
    fn fused(self, b: f32, c: f32) -> f32 {
        self.mul_add(b, c)
    }
}

impl Float for f64 {
    #[inline(always)]
    fn fused(self, b: f64, c: f64) -> f64 {
        self.mul_add(b, c)
    }
}

/// ln 2 in two parts (Cephes): the first has 9 bits, so its product with an exponent is exact.
const LN_2: (f32, f32) = (355.0 / 512.0, -2.121_944_4e-4);

/// Adding 1.5 × 2²³ to a small `f32` rounds it to an integer, left in the low mantissa bits.
const ROUND: f32 = 12_582_912.0;

/// The same for `f64`: 1.5 × 2⁵².
const ROUND_F64: f64 = 6_755_399_441_055_744.0;

/// `c[0] + c[1]·x + c[2]·x² + …` by Horner's rule in x² over pairs of terms: as many operations
/// as plain Horner, in a dependency chain half as long.
#[inline(always)]
fn polynomial<R: Rounding, T: Float, const N: usize>(x: T, c: [T; N]) -> T {
    let z = x * x;
    let mut sum = c[N - 1];
    if N.is_multiple_of(2) {
        sum = R::mul_add(sum, x, c[N - 2]);
    }
    for i in (0..(N - 1) / 2).rev() {
        sum = R::mul_add(sum, z, R::mul_add(c[2 * i + 1], x, c[2 * i]));
    }
    sum
}

/// `x` limited to `lo..=hi`, as two selects that let NaN through.
#[inline(always)]
fn clamp<T: PartialOrd>(x: T, lo: T, hi: T) -> T {
    let x = if x < lo { lo } else { x };
    if x > hi { hi } else { x }
}

/// 2ⁿ for −126 ≤ n ≤ 127.
#[inline(always)]
fn pow2(n: i32) -> f32 {
    f32::from_bits(((n << 23) as u32).wrapping_add(1.0f32.to_bits()))
}

/// `x = n·ln 2 + r` with `|r| ≤ ln 2 / 2`; returns `n` and `eʳ − 1`. Wants `|x| < 2¹⁵`.
#[inline(always)]
fn exp_parts<R: Rounding>(x: f32) -> (i32, f32) {
    let shifted = R::mul_add(x, LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = R::mul_add(n, -LN_2.1, R::mul_add(n, -LN_2.0, x));
    let q = polynomial::<R, _, _>(r, [0.499_999_97, 0.166_665_46, 0.041_667_435, 0.008_366_272, 0.001_387_069_6]);
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    (n, R::mul_add(r * r, q, r))
}

/// eˣ where the result is known to be a normal number, as 2ⁿ·eʳ: `n` is added to the exponent of eʳ.
#[inline(always)]
fn exp_normal<R: Rounding>(x: f32) -> f32 {
    let (n, p) = exp_parts::<R>(x);
    f32::from_bits((1.0 + p).to_bits().wrapping_add((n as u32) << 23))
}

/// eˣ, with a polynomial for eʳ. Below the smallest normal number it is 0. Error ≤ 1.05 ulp.
#[inline(always)]
pub fn exp<R: Rounding>(x: f32) -> f32 {
    let y = exp_normal::<R>(x);
    // Where the sum is no number, x is infinite or NaN.
    let y = if x <= 88.722_83 { y } else { x + f32::INFINITY };
    if x < -87.336_54 { 0.0 } else { y }
}

/// eˣ − 1 as 2ⁿ·((eʳ − 1) + (1 − 2⁻ⁿ)), which loses nothing near 0. Error ≤ 1.75 ulp.
#[inline(always)]
pub fn exp_m1<R: Rounding>(x: f32) -> f32 {
    let (n, p) = exp_parts::<R>(clamp(x, -18.0, 89.0));
    let half = n >> 1;
    let rest = n - half;
    let y = (p + (1.0 - pow2(-half) * pow2(-rest))) * pow2(half) * pow2(rest);
    y.copysign(x)
}

/// Splits a positive normal `x` into `(m, e)`: `x = m·2ᵉ` with 2/3 ≤ m < 4/3.
#[inline(always)]
fn split_normal(x: f32) -> (f32, i32) {
    const TWO_THIRDS: u32 = 0x3f2a_aaab;
    let bits = x.to_bits().wrapping_sub(TWO_THIRDS);
    let m = f32::from_bits((bits & 0x007f_ffff) + TWO_THIRDS);
    (m, bits as i32 >> 23)
}

/// [`split_normal`] for any positive finite `x`: subnormals are scaled by 2²³ first.
#[inline(always)]
fn split(x: f32) -> (f32, i32) {
    let subnormal = x < f32::MIN_POSITIVE;
    let (m, e) = split_normal(if subnormal { x * 8_388_608.0 } else { x });
    (m, if subnormal { e - 23 } else { e })
}

/// ln(1 + f) + k·ln 2 for |f| ≤ 1/3.
#[inline(always)]
fn ln_parts<R: Rounding>(f: f32, k: f32) -> f32 {
    let z = f * f;
    let q = polynomial::<R, _, _>(
        f,
        [
            0.333_332_15,
            -0.249_998_05,
            0.200_104_36,
            -0.166_802_21,
            0.140_055_43,
            -0.121_874_53,
            0.139_855_94,
            -0.128_792_91,
        ],
    );
    let y = R::mul_add(z, -0.5, R::mul_add(f * z, q, k * LN_2.1));
    R::mul_add(k, LN_2.0, f + y)
}

/// What a logarithm of `x` is, given `y`, its value for positive finite `x`.
#[inline(always)]
fn ln_special(x: f32, y: f32) -> f32 {
    let y = if x < f32::INFINITY { y } else { x };
    let y = if x < 0.0 { f32::NAN } else { y };
    if x == 0.0 { f32::NEG_INFINITY } else { y }
}

/// Natural logarithm: exponent and mantissa taken apart, a polynomial for the mantissa in
/// [2/3, 4/3). Error ≤ 0.85 ulp.
#[inline(always)]
pub fn ln<R: Rounding>(x: f32) -> f32 {
    let (m, e) = split(x);
    ln_special(x, ln_parts::<R>(m - 1.0, e as f32))
}

/// ln(1 + x): the exponent e of 1 + x is taken out of x itself, as x·2⁻ᵉ + (2⁻ᵉ − 1), so that
/// the rounding of 1 + x never enters. Error ≤ 1.6 ulp.
#[inline(always)]
pub fn ln_1p<R: Rounding>(x: f32) -> f32 {
    let u = 1.0 + x;
    let (m, e) = split_normal(u);
    let scale = pow2(-e);
    // Beyond 2²⁶ the 1 no longer matters (and 2⁻ᵉ may underflow).
    let f = if x < 67_108_864.0 { R::mul_add(x, scale, scale - 1.0) } else { m - 1.0 };
    ln_special(u, ln_parts::<R>(f, e as f32)).copysign(x)
}

/// `x = n·π/2 + r` with `|r| ≤ π/4`; returns sin r, cos r and the low bits of `n`.
///
/// The first two parts of π/2 have 20 bits each, so their products with `n` are exact while
/// `|n| < 2³³`. Far above that `r` means nothing; the clamp keeps the results within ±1.
#[inline(always)]
fn sin_cos_parts<R: Rounding>(x: f32) -> (f64, f64, u64) {
    const PI_2: (f64, f64, f64) = (1.570_795_059_204_101_6, 1.267_590_050_701_983_3e-6, 7.443_547_480_486_623e-13);
    let x = f64::from(x);
    let shifted = R::mul_add(x, FRAC_2_PI, ROUND_F64);
    let n = shifted - ROUND_F64;
    let r = R::mul_add(n, -PI_2.2, R::mul_add(n, -PI_2.1, R::mul_add(n, -PI_2.0, x)));
    let r = clamp(r, -0.79, 0.79);
    let z = r * r;
    let s =
        polynomial::<R, _, _>(z, [-0.166_666_546_022_784_22, 0.008_332_160_291_958_497, -0.000_195_152_181_219_832_7]);
    let c =
        polynomial::<R, _, _>(z, [0.041_666_645_670_145_885, -0.001_388_731_561_611_867_5, 2.443_308_265_106_866_5e-5]);
    (r * R::mul_add(z, s, 1.0), R::mul_add(z * z, c, R::mul_add(z, -0.5, 1.0)), shifted.to_bits())
}

/// `x` with its sign flipped when bit 1 of `n` is set: the sign of quadrants 2 and 3.
#[inline(always)]
fn flip_sign(x: f64, n: u64) -> f64 {
    f64::from_bits(x.to_bits() ^ ((n & 2) << 62))
}

/// Sine, reduced to |r| ≤ π/4 and evaluated in f64. Error ≤ 0.6 ulp for |x| ≤ 10¹⁰; further out,
/// where neighbouring f32 are 1000 and more apart, the phase decays until the result is an
/// arbitrary value within ±1.
#[inline(always)]
pub fn sin<R: Rounding>(x: f32) -> f32 {
    let (s, c, n) = sin_cos_parts::<R>(x);
    flip_sign(if n & 1 == 0 { s } else { c }, n) as f32
}

/// Cosine: [`sin`] a quarter turn on. Error ≤ 0.6 ulp for |x| ≤ 10¹⁰; the phase decays beyond as
/// there.
#[inline(always)]
pub fn cos<R: Rounding>(x: f32) -> f32 {
    let (s, c, n) = sin_cos_parts::<R>(x);
    flip_sign(if n & 1 == 0 { c } else { s }, n.wrapping_add(n & 1)) as f32
}

/// Tangent: sine over cosine, in f64. Error ≤ 0.6 ulp for |x| ≤ 10¹⁰; the phase decays beyond as
/// in [`sin`].
#[inline(always)]
pub fn tan<R: Rounding>(x: f32) -> f32 {
    let (s, c, n) = sin_cos_parts::<R>(x);
    let even = n & 1 == 0;
    ((if even { s } else { -c }) / (if even { c } else { s })) as f32
}

/// Arc tangent: an odd polynomial on [0, 1], and π/2 − atan(1/x) above. Error ≤ 1.65 ulp.
#[inline(always)]
pub fn atan<R: Rounding>(x: f32) -> f32 {
    /// π/2 as f32, less π/2.
    const FRAC_PI_2_EXCESS: f32 = 4.371_139e-8;
    let a = x.abs();
    let inverted = a > 1.0;
    let t = (if inverted { 1.0 } else { a }) / (if inverted { a } else { 1.0 });
    let z = t * t;
    let q = polynomial::<R, _, _>(
        z,
        [
            -0.333_333,
            0.199_985_3,
            -0.142_640_16,
            0.109_508_78,
            -0.083_992_854,
            0.057_880_66,
            -0.031_095_773,
            0.010_867_721,
            -0.001_782_525_2,
        ],
    );
    let y = R::mul_add(t, z * q, t);
    let y = if inverted { FRAC_PI_2 - (y + FRAC_PI_2_EXCESS) } else { y };
    y.copysign(x)
}

/// Hyperbolic tangent: an odd polynomial below 0.6, 1 − 2/(e²ˣ + 1) above. Error ≤ 1.35 ulp.
#[inline(always)]
pub fn tanh<R: Rounding>(x: f32) -> f32 {
    let a = x.abs();
    let z = a * a;
    let q = polynomial::<R, _, _>(z, [-0.333_333, 0.133_319_36, -0.053_784_717, 0.020_798_625, -0.005_897_966_7]);
    let small = R::mul_add(a, z * q, a);
    let large = 1.0 - 2.0 / (exp_normal::<R>(if a > 10.0 { 20.0 } else { 2.0 * a }) + 1.0);
    // The exponential of NaN is none.
    let y = if a >= 0.6 { large } else { small };
    y.copysign(x)
}

/// The logistic function 1/(1 + e⁻ˣ), relatively accurate down to underflow: with t = e⁻|ˣ| and
/// q = t/(1 + t) it is 1 − q for positive x and q for negative, the latter as t − t·q where t is
/// small, since that passes on fewer roundings. Error ≤ 1.9 ulp.
#[inline(always)]
pub fn sigmoid<R: Rounding>(x: f32) -> f32 {
    let t = exp::<R>(-x.abs());
    let q = t / (1.0 + t);
    let negative = if t > 0.5 { q } else { R::mul_add(-t, q, t) };
    if x < 0.0 { negative } else { 1.0 - q }
}

/// ln(1 + eˣ) as max(x, 0) + ln(1 + e⁻|ˣ|), which neither overflows nor cancels. Error ≤ 1.9
/// ulp.
#[inline(always)]
pub fn softplus<R: Rounding>(x: f32) -> f32 {
    let t = exp::<R>(-x.abs());
    // 1 + t lies in [1, 2]: above 4/3 its half is nearer to 1.
    let halved = t > 1.0 / 3.0;
    let f = if halved { 0.5 * t - 0.5 } else { t };
    let y = ln_parts::<R>(f, if halved { 1.0 } else { 0.0 });
    y + if x > 0.0 { x } else { 0.0 }
}

/// The error function: an odd polynomial below 1, and 1 − p(|x|)⁴ above, where p is a polynomial
/// for the fourth root of erfc (after the power form of Abramowitz & Stegun 7.1.28, which spares
/// an exponential). Error ≤ 1.85 ulp.
#[inline(always)]
pub fn erf<R: Rounding>(x: f32) -> f32 {
    let a = x.abs();
    let q = polynomial::<R, _, _>(
        a * a,
        [0.128_379_12, -0.376_123_22, 0.112_801_544, -0.026_710_717, 0.004_916_959, -0.000_562_928_2],
    );
    let small = R::mul_add(a, q, a);
    // Beyond 3.92 erf rounds to 1; the fit is weighted towards its end so as to do so by 4.
    let t = if a > 4.0 { 4.0 } else { a } - 1.25;
    let q = polynomial::<R, _, _>(
        t,
        [
            -0.404_129_36,
            0.040_250_4,
            0.044_081_915,
            -0.009_314_702,
            -0.003_680_739_3,
            0.001_579_225_3,
            -0.000_164_828_67,
        ],
    );
    let p = R::mul_add(t, q, 0.526_942_73);
    let p = p * p;
    let large = R::mul_add(-p, p, 1.0);
    let y = if a < 1.0 { small } else { large };
    y.copysign(x)
}

/// x^y as 2^(y·log₂ x) in f64, with the special cases of [`f32::powf`]. Error ≤ 0.55 ulp.
#[inline(always)]
pub fn powf<R: Rounding>(x: f32, y: f32) -> f32 {
    let a = x.abs();
    let (m, e) = split(a);
    // log₂ m = s·P(s²) with s = (m − 1)/(m + 1), the series of the area tangent.
    let m = f64::from(m);
    let s = (m - 1.0) / (m + 1.0);
    let log2 = s * polynomial::<R, _, _>(
        s * s,
        [
            2.885_390_081_777_427_6,
            0.961_796_694_820_618_6,
            0.577_077_756_713_656_1,
            0.412_226_084_213_829_8,
            0.319_287_894_308_584_23,
            0.290_799_642_898_324_9,
        ],
    ) + f64::from(e);
    let log2 = if a < f32::INFINITY { log2 } else { f64::from(a) };
    let log2 = if a == 0.0 { f64::NEG_INFINITY } else { log2 };

    // 1^y and x^0 are 1 whatever the other is, so 0·∞ and 0·NaN are 0 here.
    let one = (a == 1.0) | (y == 0.0);
    let t = clamp(if one { 0.0 } else { f64::from(y) * log2 }, -200.0, 200.0);
    let shifted = t + ROUND_F64;
    let r = t - (shifted - ROUND_F64);
    let p = polynomial::<R, _, _>(
        r,
        [
            0.999_999_999_919_069_8,
            0.693_147_206_709_649_4,
            0.240_226_515_050_448_98,
            0.055_503_272_157_652_85,
            0.009_617_994_515_263_514,
            0.001_340_043_166_749_055_3,
            0.000_154_780_219_922_041_51,
        ],
    );
    let scale = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1.0f64.to_bits()));
    let magnitude = (p * scale) as f32;

    // Adding 2²³ leaves the units in the last mantissa bit; from 2²⁴ on all f32 are even.
    let b = y.abs();
    let fractional = b < 8_388_608.0;
    let units = if fractional { b + 8_388_608.0 } else { b };
    let integer = b == if fractional { units - 8_388_608.0 } else { b };
    let odd = integer & (b < 16_777_216.0) & (units.to_bits() & 1 == 1);
    let sign = if odd { x.to_bits() & 0x8000_0000 } else { 0 };
    let undefined = (x < 0.0) & (x > f32::NEG_INFINITY) & !integer;
    let result = f32::from_bits(magnitude.to_bits() ^ sign);
    if undefined { f32::NAN } else { result }
}

/// The bits of 0.5, whose unit in the last place is 2⁻²⁴: that of subnormal f16.
const HALF: u32 = 0x3f00_0000;
/// The bits of 2⁻¹⁴, the smallest normal f16.
const SMALLEST_NORMAL_F16: u32 = 0x3880_0000;
/// What the exponents of f32 and f16 differ by.
const REBIAS: u32 = 112 << 23;

/// The f32 that is equal to an f16.
#[inline(always)]
pub fn from_f16(x: f16) -> f32 {
    let bits = u32::from(x.to_bits());
    let (sign, magnitude) = ((bits & 0x8000) << 16, bits & 0x7fff);
    let normal = (magnitude << 13) + REBIAS;
    let special = normal + REBIAS;
    let subnormal = (magnitude as i32 as f32 * (1.0 / 16_777_216.0)).to_bits();
    let magnitude = if magnitude < 0x400 { subnormal } else { normal };
    f32::from_bits(sign | if bits & 0x7c00 == 0x7c00 { special } else { magnitude })
}

/// The nearest number that f16 has, ties to even; from 65520 on infinity.
#[inline(always)]
pub fn round_to_f16(x: f32) -> f32 {
    let bits = x.to_bits();
    let (sign, magnitude) = (bits & 0x8000_0000, bits & 0x7fff_ffff);
    let rounded = (magnitude + 0xfff + ((magnitude >> 13) & 1)) & !0x1fff;
    let normal = if rounded < 0x4780_0000 { rounded } else { f32::INFINITY.to_bits() };
    let subnormal = (f32::from_bits(magnitude) + 0.5 - 0.5).to_bits();
    let finite = if magnitude < SMALLEST_NORMAL_F16 { subnormal } else { normal };
    f32::from_bits(sign | if magnitude > f32::INFINITY.to_bits() { magnitude } else { finite })
}

/// The f16 that is nearest to an f32, as in [`round_to_f16`].
#[inline(always)]
pub fn to_f16(x: f32) -> f16 {
    let bits = x.to_bits();
    let (sign, magnitude) = ((bits >> 16) & 0x8000, bits & 0x7fff_ffff);
    let rounded = (magnitude + 0xfff + ((magnitude >> 13) & 1)).wrapping_sub(REBIAS) >> 13;
    let normal = if rounded < 0x7c00 { rounded } else { 0x7c00 };
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits() - HALF;
    let finite = if magnitude < SMALLEST_NORMAL_F16 { subnormal } else { normal };
    let nan = 0x7e00 | (magnitude >> 13 & 0x1ff);
    f16::from_bits((sign | if magnitude > f32::INFINITY.to_bits() { nan } else { finite }) as u16)
}

/// A number as f32, rounded to the neighbour whose last bit is odd where it has to be rounded: what is rounded once more,
/// to f16, is then as near as if it had been rounded once.
#[inline(always)]
pub fn to_odd(x: f64) -> f32 {
    let near = x as f32;
    let bits = near.to_bits();
    let back = f64::from(near);
    let odd = if back.abs() > x.abs() { bits.wrapping_sub(1) } else { bits.wrapping_add(1) };
    f32::from_bits(if (back != x) & (bits & 1 == 0) { odd } else { bits })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INF: f32 = f32::INFINITY;
    const NAN: f32 = f32::NAN;

    /// Distance from `got` to the exact `want` in ulp of `want`. An infinity counts as 2¹²⁸, the
    /// number it rounds from; a zero is right for any subnormal.
    fn error_in_ulp(got: f32, want: f64) -> f64 {
        if got.is_nan() || want.is_nan() {
            return if got.is_nan() && want.is_nan() { 0.0 } else { f64::INFINITY };
        }
        if got == 0.0 && want.abs() < f64::from(f32::MIN_POSITIVE) {
            return 0.0;
        }
        let limit = 2f64.powi(128);
        let want = want.clamp(-limit, limit);
        let exponent = (want.to_bits() >> 52 & 0x7ff) as i32 - 1023;
        let ulp = 2f64.powi(exponent.clamp(-126, 127) - 23);
        (f64::from(got).clamp(-limit, limit) - want).abs() / ulp
    }

    fn sigmoid_f64(x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }

    fn softplus_f64(x: f64) -> f64 {
        x.max(0.0) + (-x.abs()).exp().ln_1p()
    }

    type F32 = fn(f32) -> f32;
    type F64 = fn(f64) -> f64;

    /// Name, function, reference, largest argument the bound holds for, and the bound in ulp.
    type Row = (&'static str, F32, F64, f32, f64);
    const fn functions<R: Rounding>() -> [Row; 12] {
        [
            ("exp", exp::<R>, f64::exp, f32::MAX, 1.05),
            ("exp_m1", exp_m1::<R>, f64::exp_m1, f32::MAX, 1.75),
            ("ln", ln::<R>, f64::ln, f32::MAX, 0.85),
            ("ln_1p", ln_1p::<R>, f64::ln_1p, f32::MAX, 1.6),
            ("sin", sin::<R>, f64::sin, 1e10, 0.6),
            ("cos", cos::<R>, f64::cos, 1e10, 0.6),
            ("tan", tan::<R>, f64::tan, 1e10, 0.6),
            ("atan", atan::<R>, f64::atan, f32::MAX, 1.65),
            ("tanh", tanh::<R>, f64::tanh, f32::MAX, 1.35),
            ("sigmoid", sigmoid::<R>, sigmoid_f64, f32::MAX, 1.9),
            ("softplus", softplus::<R>, softplus_f64, f32::MAX, 1.9),
            ("erf", erf::<R>, libm::erf, f32::MAX, 1.85),
        ]
    }

    #[test]
    fn errors_stay_within_the_documented_bounds() {
        for (name, f, reference, max, bound) in [functions::<Twice>(), functions::<Once>()].concat() {
            // Equally many points in every binade, subnormals included, and then more where the
            // formulas change over.
            let binades = (0..=max.to_bits()).step_by(20_011).map(f32::from_bits);
            let seams = (0..100_000).map(|i| i as f32 * 4e-5);
            for x in binades.chain(seams).flat_map(|x| [x, -x]) {
                let (got, want) = (f(x), reference(f64::from(x)));
                let error = error_in_ulp(got, want);
                assert!(error <= bound, "{name}({x:e}) = {got:e}, not {want:e}: {error} ulp");
            }
        }
    }

    #[test]
    fn sine_and_cosine_stay_bounded_for_huge_arguments() {
        for bits in (1e10f32.to_bits()..=f32::MAX.to_bits()).step_by(2003) {
            let x = f32::from_bits(bits);
            for y in [sin::<Twice>(x), cos::<Twice>(x), sin::<Once>(x), cos::<Once>(x)] {
                assert!(y.abs() <= 1.0, "{x:e}");
            }
        }
    }

    #[test]
    fn special_values() {
        special_values_of::<Twice>();
        special_values_of::<Once>();
    }

    #[rustfmt::skip]
    fn special_values_of<R: Rounding>() {
        /// A function's name, the function, and pairs of argument and exact result.
        type Case = (&'static str, F32, &'static [(f32, f32)]);
        let table: [Case; 12] = [
            ("exp", exp::<R>, &[(0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, 0.0), (88.73, INF), (f32::MAX, INF), (-104.0, 0.0), (-f32::MAX, 0.0)]),
            ("exp_m1", exp_m1::<R>, &[(0.0, 0.0), (-0.0, -0.0), (1e-30, 1e-30), (INF, INF), (-INF, -1.0), (88.73, INF), (-20.0, -1.0)]),
            ("ln", ln::<R>, &[(1.0, 0.0), (0.0, -INF), (-0.0, -INF), (INF, INF), (-INF, NAN), (-1.0, NAN), (-1e-45, NAN)]),
            ("ln_1p", ln_1p::<R>, &[(0.0, 0.0), (-0.0, -0.0), (1e-30, 1e-30), (-1.0, -INF), (-1.000_000_1, NAN), (INF, INF), (-INF, NAN)]),
            ("sin", sin::<R>, &[(0.0, 0.0), (-0.0, -0.0), (1e-30, 1e-30), (INF, NAN), (-INF, NAN)]),
            ("cos", cos::<R>, &[(0.0, 1.0), (-0.0, 1.0), (INF, NAN), (-INF, NAN)]),
            ("tan", tan::<R>, &[(0.0, 0.0), (-0.0, -0.0), (1e-30, 1e-30), (INF, NAN), (-INF, NAN)]),
            ("atan", atan::<R>, &[(0.0, 0.0), (-0.0, -0.0), (1e-30, 1e-30), (INF, FRAC_PI_2), (-INF, -FRAC_PI_2)]),
            ("tanh", tanh::<R>, &[(0.0, 0.0), (-0.0, -0.0), (1e-6, 1e-6), (9.5, 1.0), (INF, 1.0), (-INF, -1.0)]),
            ("sigmoid", sigmoid::<R>, &[(0.0, 0.5), (-0.0, 0.5), (INF, 1.0), (-INF, 0.0), (20.0, 1.0), (-104.0, 0.0)]),
            ("softplus", softplus::<R>, &[(INF, INF), (-INF, 0.0), (100.0, 100.0), (-104.0, 0.0)]),
            ("erf", erf::<R>, &[(0.0, 0.0), (-0.0, -0.0), (3.95, 1.0), (4.0, 1.0), (INF, 1.0), (-INF, -1.0)]),
        ];
        for (name, f, cases) in table {
            assert!(f(NAN).is_nan() && f(-NAN).is_nan(), "{name}(NaN)");
            for &(x, want) in cases {
                let got = f(x);
                let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
                assert!(same, "{name}({x:e}) = {got:e}, not {want:e}");
            }
        }
    }

    #[test]
    fn powf_is_accurate() {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) as u32
        };
        for round in 0..300_000 {
            let x = f32::from_bits(random());
            // Bring a third of the bases near 1, and most exponents to where x^y is finite.
            let x = if round % 3 == 0 { 1.0 + x % 0.5 } else { x };
            let unit = f64::from(random() as i32) / 2f64.powi(31);
            let y = match round % 5 {
                0 => f32::from_bits(random()),
                1 => (unit * 40.0) as i32 as f32,
                _ => (unit * 150.0 / f64::from(x).abs().log2()) as f32,
            };
            let want = f64::from(x).powf(f64::from(y));
            for got in [powf::<Twice>(x, y), powf::<Once>(x, y)] {
                let error = error_in_ulp(got, want);
                assert!(error <= 0.55, "{x:e}^{y:e} = {got:e}, not {want:e}: {error} ulp");
            }
        }
    }

    #[test]
    fn powf_special_cases() {
        #[rustfmt::skip]
        let values = [
            0.0, 1e-45, 1e-30, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 127.0, 1e10, 8_388_607.0,
            8_388_607.5, 8_388_609.0, 16_777_215.0, 16_777_216.0, f32::MAX, INF, NAN,
        ];
        let values = || values.into_iter().flat_map(|v| [v, -v]);
        for (x, y) in values().flat_map(|x| values().map(move |y| (x, y))) {
            let want = f64::from(x).powf(f64::from(y));
            for got in [powf::<Twice>(x, y), powf::<Once>(x, y)] {
                let is_signed = got.is_nan() || got.is_sign_negative() == want.is_sign_negative();
                assert!(error_in_ulp(got, want) <= 0.55 && is_signed, "{x:e}^{y:e} = {got:e}, not {want:e}");
            }
        }
    }

    /// The same bits, or both NaN.
    fn is_same(a: f32, b: f32) -> bool {
        a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
    }

    #[test]
    fn every_f16_becomes_f32_and_is_found_again() {
        for bits in 0..=u16::MAX {
            let (x, wide) = (f16::from_bits(bits), from_f16(f16::from_bits(bits)));
            assert!(is_same(wide, x.to_f32()), "{bits:#x}");
            assert!(is_same(round_to_f16(wide), wide), "{bits:#x}");
            assert!(to_f16(wide) == x || x.is_nan() && to_f16(wide).is_nan(), "{bits:#x}");
            assert_eq!(to_f16(wide).is_sign_negative(), x.is_sign_negative(), "{bits:#x}");
        }
    }

    #[test]
    fn f32_is_rounded_to_f16() {
        // Between any two neighbours: the middle, and what is next to it and to them. And a sample of all numbers.
        let between = (0..0x7c00u16).flat_map(|bits| {
            let (low, high) = (from_f16(f16::from_bits(bits)), from_f16(f16::from_bits(bits + 1)));
            let high = if high == INF { 65536.0 } else { high };
            let middle = low + (high - low) / 2.0;
            [low, middle].into_iter().flat_map(|x| [x.next_down(), x, x.next_up()])
        });
        let special = [INF, NAN, f32::MAX, 65504.0, 65519.996, 65520.0, f32::MIN_POSITIVE, 1e-45];
        let sample = (0..=u32::MAX).step_by(1009).map(f32::from_bits);
        for x in between.chain(special).chain(sample).flat_map(|x| [x, -x]) {
            let want = f16::from_f32(x);
            assert!(is_same(from_f16(to_f16(x)), want.to_f32()), "{x:e}: {:?}, not {want:?}", to_f16(x));
            assert!(is_same(round_to_f16(x), want.to_f32()), "{x:e}: {:e}, not {want:?}", round_to_f16(x));
        }
    }

    #[test]
    fn f64_is_rounded_to_f16_once() {
        let once = |x: f64| to_f16(to_odd(x)).to_f64();
        // The middle of 1 and its neighbour, and a little more, which f32 cannot tell from it.
        let middle = 1.0 + 2f64.powi(-11);
        assert_eq!(
            [middle, middle.next_up(), -middle.next_up()].map(once),
            [1.0, 1.0 + 2f64.powi(-10), -1.0 - 2f64.powi(-10)]
        );
        let middle = 65520f64;
        assert_eq!([middle.next_down(), middle, -1e300].map(once), [65504.0, f64::INFINITY, f64::NEG_INFINITY]);
        let middle = 2f64.powi(-25);
        assert_eq!([middle.next_down(), middle, middle.next_up(), 5e-324].map(once), [0.0, 0.0, 2.0 * middle, 0.0]);
        assert!(once(f64::NAN).is_nan() && once(-0.0).is_sign_negative());
        assert_eq!([0.1f32, -3e38, 1e-45].map(|x| to_odd(x.into())), [0.1, -3e38, 1e-45]);
    }
}
