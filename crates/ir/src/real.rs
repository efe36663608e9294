//! The arithmetic that rows of the op table are written in: one trait for floats, one for integers.

use crate::math;

/// A floating-point element. For `f32` the functions are the branch-free ones of [`math`]; for `f64` the standard
/// library's and `libm`'s.
pub trait Real:
    Copy
    + PartialOrd
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Neg<Output = Self>
{
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

macro_rules! real {
    ($t:ident { $($name:ident => $path:path),* $(,)? }) => {
        impl Real for $t {
            #[inline(always)]
            fn of(x: f64) -> Self {
                x as $t
            }
            #[inline(always)]
            fn nan(self) -> bool {
                self.is_nan()
            }
            #[inline(always)]
            fn copysign(self, sign: Self) -> Self {
                $t::copysign(self, sign)
            }
            #[inline(always)]
            fn fmod(self, y: Self) -> Self {
                self % y
            }
            #[inline(always)]
            fn pow(self, y: Self) -> Self {
                powf::$t(self, y)
            }
            $(#[inline(always)]
            fn $name(self) -> Self {
                $path(self)
            })*
        }
    };
}

mod powf {
    #[inline(always)]
    pub(super) fn f32(x: f32, y: f32) -> f32 {
        crate::math::powf(x, y)
    }
    #[inline(always)]
    pub(super) fn f64(x: f64, y: f64) -> f64 {
        x.powf(y)
    }
}

real!(f32 {
    abs => f32::abs, sqrt => f32::sqrt, floor => f32::floor, ceil => f32::ceil, round => f32::round_ties_even,
    trunc => f32::trunc, exp => math::exp, exp_m1 => math::exp_m1, ln => math::ln, ln_1p => math::ln_1p,
    sin => math::sin, cos => math::cos, tan => math::tan, atan => math::atan, tanh => math::tanh,
    sigmoid => math::sigmoid, softplus => math::softplus, erf => math::erf,
});

real!(f64 {
    abs => f64::abs, sqrt => f64::sqrt, floor => f64::floor, ceil => f64::ceil, round => f64::round_ties_even,
    trunc => f64::trunc, exp => f64::exp, exp_m1 => f64::exp_m1, ln => f64::ln, ln_1p => f64::ln_1p,
    sin => f64::sin, cos => f64::cos, tan => f64::tan, atan => f64::atan, tanh => f64::tanh,
    sigmoid => sigmoid_f64, softplus => softplus_f64, erf => libm::erf,
});

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
