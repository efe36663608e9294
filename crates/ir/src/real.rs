//! The arithmetic that rows of the op table are written in: one trait for floats, one for integers.

use crate::math::{self, Once, Twice};

/// A floating-point element. For `f32` the functions are the branch-free ones of [`math`], for [`Fused`] with fused
/// multiply-adds; for `f64` they are the standard library's and `libm`'s.
pub trait Real:
    Copy
    + PartialOrd
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Neg<Output = Self>
{
    /// The same number with functions for machines that have fused multiply-adds.
    type Fused: Real + From<Self> + Into<Self>;
    /// Converts, rounding to nearest.
    fn of(x: f64) -> Self;
    /// Whether the number is NaN.
    fn nan(self) -> bool;
    /// |x|.
    fn abs(self) -> Self;
    /// √x.
    fn sqrt(self) -> Self;
    /// The largest integer not above x.
    fn floor(self) -> Self;
    /// The smallest integer not below x.
    fn ceil(self) -> Self;
    /// The nearest integer, ties to even.
    fn round(self) -> Self;
    /// x without its fraction.
    fn trunc(self) -> Self;
    /// |x| with the sign of `sign`.
    fn copysign(self, sign: Self) -> Self;
    /// eˣ.
    fn exp(self) -> Self;
    /// eˣ − 1.
    fn exp_m1(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// ln(1 + x).
    fn ln_1p(self) -> Self;
    /// Sine.
    fn sin(self) -> Self;
    /// Cosine.
    fn cos(self) -> Self;
    /// Tangent.
    fn tan(self) -> Self;
    /// Inverse tangent.
    fn atan(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// 1 / (1 + e⁻ˣ).
    fn sigmoid(self) -> Self;
    /// ln(1 + eˣ).
    fn softplus(self) -> Self;
    /// The error function.
    fn erf(self) -> Self;
    /// xʸ.
    fn pow(self, y: Self) -> Self;
    /// C's `fmod`: the remainder with the sign of the dividend.
    fn fmod(self, y: Self) -> Self;
}

/// An `f32` whose functions use fused multiply-adds: for code that is compiled for processors that have them.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Fused(f32);

impl From<f32> for Fused {
    #[inline(always)]
    fn from(x: f32) -> Fused {
        Fused(x)
    }
}

impl From<Fused> for f32 {
    #[inline(always)]
    fn from(x: Fused) -> f32 {
        x.0
    }
}

macro_rules! operators {
    ($($trait:ident $operator:ident),*) => {
        $(impl std::ops::$trait for Fused {
            type Output = Fused;
            #[inline(always)]
            fn $operator(self, other: Fused) -> Fused {
                Fused(std::ops::$trait::$operator(self.0, other.0))
            }
        })*
    };
}
operators!(Add add, Sub sub, Mul mul, Div div);

impl std::ops::Neg for Fused {
    type Output = Fused;
    #[inline(always)]
    fn neg(self) -> Fused {
        Fused(-self.0)
    }
}

/// Functions of `$t`, which is a `$number`: `$name` is `$function` of that.
macro_rules! real {
    ($t:ident($number:ident), fused as $fused:ident { $($name:ident => $function:path),* $(,)? }, pow => $pow:path) => {
        impl Real for $t {
            type Fused = $fused;
            #[inline(always)]
            fn of(x: f64) -> Self {
                Self::from(x as $number)
            }
            #[inline(always)]
            fn nan(self) -> bool {
                $number::from(self).is_nan()
            }
            #[inline(always)]
            fn copysign(self, sign: Self) -> Self {
                Self::from($number::from(self).copysign($number::from(sign)))
            }
            #[inline(always)]
            fn fmod(self, y: Self) -> Self {
                Self::from($number::from(self) % $number::from(y))
            }
            #[inline(always)]
            fn pow(self, y: Self) -> Self {
                Self::from($pow($number::from(self), $number::from(y)))
            }
            $(#[inline(always)]
            fn $name(self) -> Self {
                Self::from($function($number::from(self)))
            })*
        }
    };
}

/// The same, with the functions of [`math`].
macro_rules! real_f32 {
    ($t:ident, $rounding:ident) => {
        real!($t(f32), fused as Fused {
            abs => f32::abs, sqrt => f32::sqrt, floor => f32::floor, ceil => f32::ceil, round => f32::round_ties_even,
            trunc => f32::trunc, exp => math::exp::<$rounding>, exp_m1 => math::exp_m1::<$rounding>,
            ln => math::ln::<$rounding>, ln_1p => math::ln_1p::<$rounding>, sin => math::sin::<$rounding>,
            cos => math::cos::<$rounding>, tan => math::tan::<$rounding>, atan => math::atan::<$rounding>,
            tanh => math::tanh::<$rounding>, sigmoid => math::sigmoid::<$rounding>,
            softplus => math::softplus::<$rounding>, erf => math::erf::<$rounding>,
        }, pow => math::powf::<$rounding>);
    };
}
real_f32!(f32, Twice);
real_f32!(Fused, Once);

real!(f64(f64), fused as f64 {
    abs => f64::abs, sqrt => f64::sqrt, floor => f64::floor, ceil => f64::ceil, round => f64::round_ties_even,
    trunc => f64::trunc, exp => f64::exp, exp_m1 => f64::exp_m1, ln => f64::ln, ln_1p => f64::ln_1p,
    sin => f64::sin, cos => f64::cos, tan => f64::tan, atan => f64::atan, tanh => f64::tanh,
    sigmoid => sigmoid_f64, softplus => softplus_f64, erf => libm::erf,
}, pow => f64::powf);

fn sigmoid_f64(x: f64) -> f64 {
    // e⁻|x| never overflows; the branch keeps the relative accuracy of small results.
    let e = (-x.abs()).exp();
    if x >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
}

fn softplus_f64(x: f64) -> f64 {
    if x.is_nan() { x } else { x.max(0.0) + (-x.abs()).exp().ln_1p() }
}

/// A 32-bit integer element: arithmetic wraps, `x / 0 = 0` and `x % 0 = 0`, `/` rounds down and `%` takes the sign of
/// the divisor, so that `a == (a / b) * b + a % b` as in Python.
pub trait Int: Copy + Ord {
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// The smallest value.
    const LOWEST: Self;
    /// The largest value.
    const HIGHEST: Self;
    /// Wrapping sum.
    fn add(self, other: Self) -> Self;
    /// Wrapping difference.
    fn sub(self, other: Self) -> Self;
    /// Wrapping product.
    fn mul(self, other: Self) -> Self;
    /// Quotient, rounded down; 0 where the divisor is 0.
    fn div(self, other: Self) -> Self;
    /// Remainder with the sign of the divisor; 0 where the divisor is 0.
    fn rem(self, other: Self) -> Self;
    /// Wrapping power; a negative exponent gives the integer part of the real result (0, or ±1 for a base of ±1).
    fn pow(self, exponent: Self) -> Self;
}

fn wrapping_power<T: Int>(base: T, mut exponent: u32) -> T {
    let (mut result, mut square) = (T::ONE, base);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = result.mul(square);
        }
        square = square.mul(square);
        exponent >>= 1;
    }
    result
}

impl Int for i32 {
    const ZERO: i32 = 0;
    const ONE: i32 = 1;
    const LOWEST: i32 = i32::MIN;
    const HIGHEST: i32 = i32::MAX;
    #[inline(always)]
    fn add(self, other: i32) -> i32 {
        self.wrapping_add(other)
    }
    #[inline(always)]
    fn sub(self, other: i32) -> i32 {
        self.wrapping_sub(other)
    }
    #[inline(always)]
    fn mul(self, other: i32) -> i32 {
        self.wrapping_mul(other)
    }
    fn div(self, other: i32) -> i32 {
        if other == 0 {
            return 0;
        }
        let quotient = self.wrapping_div(other);
        let inexact = self.wrapping_rem(other) != 0;
        quotient - (inexact && (self < 0) != (other < 0)) as i32
    }
    fn rem(self, other: i32) -> i32 {
        if other == 0 {
            return 0;
        }
        let remainder = self.wrapping_rem(other);
        if remainder != 0 && (remainder < 0) != (other < 0) { remainder + other } else { remainder }
    }
    fn pow(self, exponent: i32) -> i32 {
        match (exponent, self) {
            (0.., _) => wrapping_power(self, exponent as u32),
            (_, 1) => 1,
            (_, -1) => 1 - 2 * (exponent & 1),
            _ => 0,
        }
    }
}

impl Int for u32 {
    const ZERO: u32 = 0;
    const ONE: u32 = 1;
    const LOWEST: u32 = u32::MIN;
    const HIGHEST: u32 = u32::MAX;
    #[inline(always)]
    fn add(self, other: u32) -> u32 {
        self.wrapping_add(other)
    }
    #[inline(always)]
    fn sub(self, other: u32) -> u32 {
        self.wrapping_sub(other)
    }
    #[inline(always)]
    fn mul(self, other: u32) -> u32 {
        self.wrapping_mul(other)
    }
    fn div(self, other: u32) -> u32 {
        self.checked_div(other).unwrap_or(0)
    }
    fn rem(self, other: u32) -> u32 {
        self.checked_rem(other).unwrap_or(0)
    }
    fn pow(self, exponent: u32) -> u32 {
        wrapping_power(self, exponent)
    }
}
