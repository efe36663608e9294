//! The unary rows. To add an op, add a row here and its name to the list in [`super`].

use super::formula::Derivative::{NotDifferentiable, Rule, Zero};
use super::formula::{Formula, UnaryDerivative};
use super::row::{Accepts, Unary};
use super::{CompareOp, UnaryOp};
use crate::real::{Int, Real};

/// Samples for rows that are smooth everywhere.
const WIDE: &[f64] = &[-30.0, -4.5, -1.0, -0.3, -1e-3, 1e-6, 0.02, 0.5, 1.0, 2.5, 7.0, 40.0];
/// Samples for rows of positive operands.
const POSITIVE: &[f64] = &[1e-6, 0.02, 0.5, 0.999, 1.0, 1.5, 2.5, 7.0, 40.0, 1e6];

/// −x; integers wrap.
pub struct Neg;
impl Unary for Neg {
    const NAME: &'static str = "neg";
    const ACCEPTS: Accepts = Accepts::Numbers;
    fn exact(x: f64) -> f64 {
        -x
    }
    fn exact_int(x: i64) -> i64 {
        -x
    }
    #[inline(always)]
    fn fast<T: Real>(x: T) -> T {
        -x
    }
    #[inline(always)]
    fn fast_int<T: Int>(x: T) -> T {
        T::ZERO.sub(x)
    }
    const WGSL: &'static str = "(-{x})";
    const WGSL_INT: &'static str = "({T}(0) - {x})";
    const DERIVATIVE: UnaryDerivative = Rule(|_, _, g| -g);
    const ULPS: f64 = 0.0;
    const SAMPLES: &'static [f64] = WIDE;
}

/// |x|; the derivative at 0 is 0.
pub struct Abs;
impl Unary for Abs {
    const NAME: &'static str = "abs";
    const ACCEPTS: Accepts = Accepts::Numbers;
    fn exact(x: f64) -> f64 {
        x.abs()
    }
    fn exact_int(x: i64) -> i64 {
        x.abs()
    }
    #[inline(always)]
    fn fast<T: Real>(x: T) -> T {
        x.abs()
    }
    #[inline(always)]
    fn fast_int<T: Int>(x: T) -> T {
        if x < T::ZERO { T::ZERO.sub(x) } else { x }
    }
    const WGSL: &'static str = "abs({x})";
    const WGSL_INT: &'static str = "select({x}, {T}(0) - {x}, {x} < {T}(0))";
    const DERIVATIVE: UnaryDerivative = Rule(|x, _, g| g * x.unary(UnaryOp::Sign));
    const ULPS: f64 = 0.0;
    const SAMPLES: &'static [f64] = WIDE;
}

/// −1, 0 or 1; NaN stays NaN.
pub struct Sign;
impl Unary for Sign {
    const NAME: &'static str = "sign";
    const ACCEPTS: Accepts = Accepts::Numbers;
    fn exact(x: f64) -> f64 {
        if x == 0.0 || x.is_nan() { x } else { x.signum() }
    }
    fn exact_int(x: i64) -> i64 {
        x.signum()
    }
    #[inline(always)]
    fn fast<T: Real>(x: T) -> T {
        let one = T::of(1.0).copysign(x);
        if x.abs() > T::of(0.0) { one } else { x }
    }
    #[inline(always)]
    fn fast_int<T: Int>(x: T) -> T {
        if x > T::ZERO {
            T::ONE
        } else if x < T::ZERO {
            T::ZERO.sub(T::ONE)
        } else {
            T::ZERO
        }
    }
    const WGSL: &'static str = "sign_{t}({x})";
    const DERIVATIVE: UnaryDerivative = Zero;
    const ULPS: f64 = 0.0;
    const SAMPLES: &'static [f64] = WIDE;
}

/// x².
pub struct Square;
impl Unary for Square {
    const NAME: &'static str = "square";
    const ACCEPTS: Accepts = Accepts::Numbers;
    fn exact(x: f64) -> f64 {
        x * x
    }
    fn exact_int(x: i64) -> i64 {
        x.wrapping_mul(x)
    }
    #[inline(always)]
    fn fast<T: Real>(x: T) -> T {
        x * x
    }
    #[inline(always)]
    fn fast_int<T: Int>(x: T) -> T {
        x.mul(x)
    }
    const WGSL: &'static str = "({x} * {x})";
    const DERIVATIVE: UnaryDerivative = Rule(|x, _, g| g * 2.0 * x);
    const ULPS: f64 = 0.5;
    const SAMPLES: &'static [f64] = WIDE;
}

/// 1 / x.
pub struct Recip;
impl Unary for Recip {
    const NAME: &'static str = "recip";
    const ACCEPTS: Accepts = Accepts::Floats;
    fn exact(x: f64) -> f64 {
        x.recip()
    }
    #[inline(always)]
    fn fast<T: Real>(x: T) -> T {
        T::of(1.0) / x
    }
    const WGSL: &'static str = "(1.0 / {x})";
    const DERIVATIVE: UnaryDerivative = Rule(|_, y, g| -g * y.clone() * y);
    const ULPS: f64 = 0.5;
    const SAMPLES: &'static [f64] = WIDE;
}

/// √x; NaN below 0.
pub struct Sqrt;
impl Unary for Sqrt {
    const NAME: &'static str = "sqrt";
    const ACCEPTS: Accepts = Accepts::Floats;
    fn exact(x: f64) -> f64 {
        x.sqrt()
    }
    #[inline(always)]
    fn fast<T: Real>(x: T) -> T {
        x.sqrt()
    }
    const WGSL: &'static str = "square_root({x})";
    const DERIVATIVE: UnaryDerivative = Rule(|_, y, g| g * 0.5 / y);
    const ULPS: f64 = 0.5;
    const SAMPLES: &'static [f64] = POSITIVE;
}

/// 1 / √x.
pub struct Rsqrt;
impl Unary for Rsqrt {
    const NAME: &'static str = "rsqrt";
    const ACCEPTS: Accepts = Accepts::Floats;
    fn exact(x: f64) -> f64 {
        x.sqrt().recip()
    }
    #[inline(always)]
    fn fast<T: Real>(x: T) -> T {
        T::of(1.0) / x.sqrt()
    }
    const WGSL: &'static str = "reciprocal_root({x})";
    const DERIVATIVE: UnaryDerivative = Rule(|x, y, g| g * -0.5 * y / x);
    const ULPS: f64 = 1.0;
    const SAMPLES: &'static [f64] = POSITIVE;
}

/// eˣ.
pub struct Exp;
impl Unary for Exp {
    const NAME: &'static str = "exp";
    const ACCEPTS: Accepts = Accepts::Floats;
    fn exact(x: f64) -> f64 {
        x.exp()
    }
    #[inline(always)]
    fn fast<T: Real>(x: T) -> T {
        x.exp()
    }
    const WGSL: &'static str = "exponential({x})";
    const DERIVATIVE: UnaryDerivative = Rule(|_, y, g| g * y);
    const ULPS: f64 = 2.0;
    const SAMPLES: &'static [f64] = WIDE;
}

/// eˣ − 1, exact near 0.
pub struct Expm1;
impl Unary for Expm1 {
    const NAME: &'static str = "expm1";
    const ACCEPTS: Accepts = Accepts::Floats;
    fn exact(x: f64) -> f64 {
        x.exp_m1()
    }
    #[inline(always)]
    fn fast<T: Real>(x: T) -> T {
        x.exp_m1()
    }
    const WGSL: &'static str = "expm1({x})";
    const DERIVATIVE: UnaryDerivative = Rule(|_, y, g| g * (y + 1.0));
    const ULPS: f64 = 2.0;
    const SAMPLES: &'static [f64] = WIDE;
}

/// Natural logarithm; −∞ at 0, NaN below.
pub struct Log;
impl Unary for Log {
    const NAME: &'static str = "log";
    const ACCEPTS: Accepts = Accepts::Floats;
    fn exact(x: f64) -> f64 {
        x.ln()
    }
    #[inline(always)]
    fn fast<T: Real>(x: T) -> T {
        x.ln()
    }
    const WGSL: &'static str = "logarithm({x})";
    const DERIVATIVE: UnaryDerivative = Rule(|x, _, g| g / x);
    const ULPS: f64 = 2.0;
    const SAMPLES: &'static [f64] = POSITIVE;
}

/// ln(1 + x), exact near 0.
pub struct Log1p;
impl Unary for Log1p {
    const NAME: &'static str = "log1p";
    const ACCEPTS: Accepts = Accepts::Floats;
    fn exact(x: f64) -> f64 {
        x.ln_1p()
    }
    #[inline(always)]
    fn fast<T: Real>(x: T) -> T {
        x.ln_1p()
    }
    const WGSL: &'static str = "log1p({x})";
    const DERIVATIVE: UnaryDerivative = Rule(|x, _, g| g / (x + 1.0));
    const ULPS: f64 = 2.0;
    const SAMPLES: &'static [f64] = &[-0.9, -0.3, -1e-3, 1e-6, 0.02, 0.5, 1.0, 2.5, 7.0, 1e6];
}

/// Sine of radians. (f32: full accuracy up to |x| = 10⁸.)
pub struct Sin;
impl Unary for Sin {
    const NAME: &'static str = "sin";
    const ACCEPTS: Accepts = Accepts::Floats;
    fn exact(x: f64) -> f64 {
        x.sin()
    }
    #[inline(always)]
    fn fast<T: Real>(x: T) -> T {
        x.sin()
    }
    const WGSL: &'static str = "sine({x})";
    const DERIVATIVE: UnaryDerivative = Rule(|x, _, g| g * x.unary(UnaryOp::Cos));
    const ULPS: f64 = 2.0;
    const SAMPLES: &'static [f64] = WIDE;
}

/// Cosine of radians. (f32: full accuracy up to |x| = 10⁸.)
pub struct Cos;
impl Unary for Cos {
    const NAME: &'static str = "cos";
    const ACCEPTS: Accepts = Accepts::Floats;
    fn exact(x: f64) -> f64 {
        x.cos()
    }
    #[inline(always)]
    fn fast<T: Real>(x: T) -> T {
        x.cos()
    }
    const WGSL: &'static str = "cosine({x})";
    const DERIVATIVE: UnaryDerivative = Rule(|x, _, g| -g * x.unary(UnaryOp::Sin));
    const ULPS: f64 = 2.0;
    const SAMPLES: &'static [f64] = WIDE;
}

/// Tangent of radians.
pub struct Tan;
impl Unary for Tan {
    const NAME: &'static str = "tan";
    const ACCEPTS: Accepts = Accepts::Floats;
    fn exact(x: f64) -> f64 {
        x.tan()
    }
    #[inline(always)]
    fn fast<T: Real>(x: T) -> T {
        x.tan()
    }
    const WGSL: &'static str = "tangent({x})";
    const DERIVATIVE: UnaryDerivative = Rule(|_, y, g| g * (y.clone() * y + 1.0));
    const ULPS: f64 = 2.0;
    const SAMPLES: &'static [f64] = &[-30.0, -4.5, -1.0, -0.3, -1e-3, 1e-6, 0.02, 0.5, 1.0, 2.5, 7.0];
}

/// Inverse tangent, in (−π/2, π/2).
pub struct Atan;
impl Unary for Atan {
    const NAME: &'static str = "atan";
    const ACCEPTS: Accepts = Accepts::Floats;
    fn exact(x: f64) -> f64 {
        x.atan()
    }
    #[inline(always)]
    fn fast<T: Real>(x: T) -> T {
        x.atan()
    }
    const WGSL: &'static str = "arctangent({x})";
    const DERIVATIVE: UnaryDerivative = Rule(|x, _, g| g / (x.clone() * x + 1.0));
    const ULPS: f64 = 2.0;
    const SAMPLES: &'static [f64] = WIDE;
}

/// Hyperbolic tangent.
pub struct Tanh;
impl Unary for Tanh {
    const NAME: &'static str = "tanh";
    const ACCEPTS: Accepts = Accepts::Floats;
    fn exact(x: f64) -> f64 {
        x.tanh()
    }
    #[inline(always)]
    fn fast<T: Real>(x: T) -> T {
        x.tanh()
    }
    const WGSL: &'static str = "hyperbolic_tangent({x})";
    const DERIVATIVE: UnaryDerivative = Rule(|_, y, g| g * (1.0 - y.clone() * y));
    const ULPS: f64 = 2.0;
    const SAMPLES: &'static [f64] = WIDE;
}

/// 1 / (1 + e⁻ˣ).
pub struct Sigmoid;
impl Unary for Sigmoid {
    const NAME: &'static str = "sigmoid";
    const ACCEPTS: Accepts = Accepts::Floats;
    fn exact(x: f64) -> f64 {
        // Split by sign so that neither side overflows.
        if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
    }
    #[inline(always)]
    fn fast<T: Real>(x: T) -> T {
        x.sigmoid()
    }
    const WGSL: &'static str = "sigmoid({x})";
    // y (1 − y) cancels for large x; 1 − y is sigmoid(−x).
    const DERIVATIVE: UnaryDerivative = Rule(|x, y, g| g * y * (-x).unary(UnaryOp::Sigmoid));
    const ULPS: f64 = 3.0;
    const SAMPLES: &'static [f64] = WIDE;
}

/// ln(1 + eˣ) without overflow.
pub struct Softplus;
impl Unary for Softplus {
    const NAME: &'static str = "softplus";
    const ACCEPTS: Accepts = Accepts::Floats;
    fn exact(x: f64) -> f64 {
        // ln(1 + eˣ) = x + ln(1 + e⁻ˣ)
        if x > 0.0 { x + (-x).exp().ln_1p() } else { x.exp().ln_1p() }
    }
    #[inline(always)]
    fn fast<T: Real>(x: T) -> T {
        x.softplus()
    }
    const WGSL: &'static str = "softplus({x})";
    const DERIVATIVE: UnaryDerivative = Rule(|x, _, g| g * x.unary(UnaryOp::Sigmoid));
    const ULPS: f64 = 3.0;
    const SAMPLES: &'static [f64] = WIDE;
}

/// The error function 2/√π ∫₀ˣ e^(−t²) dt.
pub struct Erf;
impl Unary for Erf {
    const NAME: &'static str = "erf";
    const ACCEPTS: Accepts = Accepts::Floats;
    fn exact(x: f64) -> f64 {
        libm::erf(x)
    }
    #[inline(always)]
    fn fast<T: Real>(x: T) -> T {
        x.erf()
    }
    const WGSL: &'static str = "erf({x})";
    const DERIVATIVE: UnaryDerivative =
        Rule(|x, _, g| g * std::f64::consts::FRAC_2_SQRT_PI * (-(x.clone() * x)).unary(UnaryOp::Exp));
    const ULPS: f64 = 2.0;
    const SAMPLES: &'static [f64] = &[-4.5, -1.0, -0.3, -1e-3, 1e-6, 0.02, 0.5, 1.0, 2.5];
}

/// max(x, 0); NaN stays NaN, the derivative at 0 is 0.
pub struct Relu;
impl Unary for Relu {
    const NAME: &'static str = "relu";
    const ACCEPTS: Accepts = Accepts::Numbers;
    fn exact(x: f64) -> f64 {
        if x < 0.0 { 0.0 } else { x }
    }
    fn exact_int(x: i64) -> i64 {
        x.max(0)
    }
    #[inline(always)]
    fn fast<T: Real>(x: T) -> T {
        if x < T::of(0.0) { T::of(0.0) } else { x }
    }
    #[inline(always)]
    fn fast_int<T: Int>(x: T) -> T {
        x.max(T::ZERO)
    }
    const WGSL: &'static str = "relu({x})";
    const WGSL_INT: &'static str = "max({x}, {T}(0))";
    const DERIVATIVE: UnaryDerivative =
        Rule(|x, _, g| x.choose(CompareOp::Gt, Formula::constant(0.0), g, Formula::constant(0.0)));
    const ULPS: f64 = 0.0;
    const SAMPLES: &'static [f64] = WIDE;
}

/// The largest integer not above x.
pub struct Floor;
impl Unary for Floor {
    const NAME: &'static str = "floor";
    const ACCEPTS: Accepts = Accepts::Floats;
    fn exact(x: f64) -> f64 {
        x.floor()
    }
    #[inline(always)]
    fn fast<T: Real>(x: T) -> T {
        x.floor()
    }
    const WGSL: &'static str = "floor({x})";
    const DERIVATIVE: UnaryDerivative = Zero;
    const ULPS: f64 = 0.0;
    const SAMPLES: &'static [f64] = &[-30.5, -4.5, -0.3, 1e-6, 0.02, 0.5, 1.5, 7.25];
}

/// The smallest integer not below x.
pub struct Ceil;
impl Unary for Ceil {
    const NAME: &'static str = "ceil";
    const ACCEPTS: Accepts = Accepts::Floats;
    fn exact(x: f64) -> f64 {
        x.ceil()
    }
    #[inline(always)]
    fn fast<T: Real>(x: T) -> T {
        x.ceil()
    }
    const WGSL: &'static str = "ceil({x})";
    const DERIVATIVE: UnaryDerivative = Zero;
    const ULPS: f64 = 0.0;
    const SAMPLES: &'static [f64] = Floor::SAMPLES;
}

/// The nearest integer, ties to even.
pub struct Round;
impl Unary for Round {
    const NAME: &'static str = "round";
    const ACCEPTS: Accepts = Accepts::Floats;
    fn exact(x: f64) -> f64 {
        x.round_ties_even()
    }
    #[inline(always)]
    fn fast<T: Real>(x: T) -> T {
        x.round()
    }
    const WGSL: &'static str = "round({x})";
    const DERIVATIVE: UnaryDerivative = Zero;
    const ULPS: f64 = 0.0;
    const SAMPLES: &'static [f64] = &[-30.25, -4.75, -0.3, 1e-6, 0.02, 0.75, 1.25, 7.25];
}

/// x without its fraction.
pub struct Trunc;
impl Unary for Trunc {
    const NAME: &'static str = "trunc";
    const ACCEPTS: Accepts = Accepts::Floats;
    fn exact(x: f64) -> f64 {
        x.trunc()
    }
    #[inline(always)]
    fn fast<T: Real>(x: T) -> T {
        x.trunc()
    }
    const WGSL: &'static str = "trunc({x})";
    const DERIVATIVE: UnaryDerivative = Zero;
    const ULPS: f64 = 0.0;
    const SAMPLES: &'static [f64] = Floor::SAMPLES;
}

/// Logical negation.
pub struct Not;
impl Unary for Not {
    const NAME: &'static str = "not";
    const ACCEPTS: Accepts = Accepts::Bools;
    fn exact(x: f64) -> f64 {
        1.0 - x
    }
    #[inline(always)]
    fn fast<T: Real>(x: T) -> T {
        x
    }
    #[inline(always)]
    fn on_bool(x: bool) -> bool {
        !x
    }
    const WGSL: &'static str = "(!{x})";
    const DERIVATIVE: UnaryDerivative = NotDifferentiable;
    const ULPS: f64 = 0.0;
    const SAMPLES: &'static [f64] = &[0.0, 1.0];
}
