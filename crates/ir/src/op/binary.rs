//! The binary and comparison rows. To add an op, add a row here and its name to the list in [`super`].

use super::formula::Derivative::{NotDifferentiable, Rule};
use super::formula::{BinaryDerivative, Formula};
use super::row::{Accepts, Binary, Compare};
use super::{BinaryOp, CompareOp, UnaryOp};
use crate::real::{Int, Real};

const PAIRS: &[(f64, f64)] =
    &[(-4.5, 2.5), (-1.0, -3.0), (-0.3, 0.7), (1e-3, -2.0), (0.5, 3.0), (2.5, 1e-2), (7.0, -0.6), (40.0, 11.0)];
const BOOLS: &[(f64, f64)] = &[(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)];
/// Both derivatives missing.
const NONE: [BinaryDerivative; 2] = [NotDifferentiable, NotDifferentiable];

/// a + b.
pub struct Add;
impl Binary for Add {
    const NAME: &'static str = "add";
    const SYMBOL: Option<&'static str> = Some("+");
    const ACCEPTS: Accepts = Accepts::Numbers;
    fn exact(a: f64, b: f64) -> f64 {
        a + b
    }
    fn exact_int(a: i64, b: i64) -> i64 {
        a + b
    }
    #[inline(always)]
    fn fast<T: Real>(a: T, b: T) -> T {
        a + b
    }
    #[inline(always)]
    fn fast_int<T: Int>(a: T, b: T) -> T {
        a.add(b)
    }
    const WGSL: &'static str = "({a} + {b})";
    const DERIVATIVES: [BinaryDerivative; 2] = [Rule(|_, _, _, g| g), Rule(|_, _, _, g| g)];
    const ULPS: f64 = 0.5;
    const SAMPLES: &'static [(f64, f64)] = PAIRS;
}

/// a − b.
pub struct Sub;
impl Binary for Sub {
    const NAME: &'static str = "sub";
    const SYMBOL: Option<&'static str> = Some("-");
    const ACCEPTS: Accepts = Accepts::Numbers;
    fn exact(a: f64, b: f64) -> f64 {
        a - b
    }
    fn exact_int(a: i64, b: i64) -> i64 {
        a - b
    }
    #[inline(always)]
    fn fast<T: Real>(a: T, b: T) -> T {
        a - b
    }
    #[inline(always)]
    fn fast_int<T: Int>(a: T, b: T) -> T {
        a.sub(b)
    }
    const WGSL: &'static str = "({a} - {b})";
    const DERIVATIVES: [BinaryDerivative; 2] = [Rule(|_, _, _, g| g), Rule(|_, _, _, g| -g)];
    const ULPS: f64 = 0.5;
    const SAMPLES: &'static [(f64, f64)] = PAIRS;
}

/// a · b.
pub struct Mul;
impl Binary for Mul {
    const NAME: &'static str = "mul";
    const SYMBOL: Option<&'static str> = Some("*");
    const ACCEPTS: Accepts = Accepts::Numbers;
    fn exact(a: f64, b: f64) -> f64 {
        a * b
    }
    fn exact_int(a: i64, b: i64) -> i64 {
        a.wrapping_mul(b)
    }
    #[inline(always)]
    fn fast<T: Real>(a: T, b: T) -> T {
        a * b
    }
    #[inline(always)]
    fn fast_int<T: Int>(a: T, b: T) -> T {
        a.mul(b)
    }
    const WGSL: &'static str = "({a} * {b})";
    const DERIVATIVES: [BinaryDerivative; 2] = [Rule(|_, b, _, g| g * b), Rule(|a, _, _, g| g * a)];
    const ULPS: f64 = 0.5;
    const SAMPLES: &'static [(f64, f64)] = PAIRS;
}

/// a / b; integers round down and x / 0 = 0.
pub struct Div;
impl Binary for Div {
    const NAME: &'static str = "div";
    const SYMBOL: Option<&'static str> = Some("/");
    const ACCEPTS: Accepts = Accepts::Numbers;
    fn exact(a: f64, b: f64) -> f64 {
        a / b
    }
    fn exact_int(a: i64, b: i64) -> i64 {
        // Euclidean and floored quotients differ where the divisor is negative and the division inexact.
        if b == 0 { 0 } else { a.div_euclid(b) - (b < 0 && a.rem_euclid(b) != 0) as i64 }
    }
    #[inline(always)]
    fn fast<T: Real>(a: T, b: T) -> T {
        a / b
    }
    #[inline(always)]
    fn fast_int<T: Int>(a: T, b: T) -> T {
        a.div(b)
    }
    const WGSL: &'static str = "({a} / {b})";
    const WGSL_INT: &'static str = "floor_div_{t}({a}, {b})";
    const DERIVATIVES: [BinaryDerivative; 2] = [Rule(|_, b, _, g| g / b), Rule(|_, b, y, g| -g * y / b)];
    const ULPS: f64 = 0.5;
    const SAMPLES: &'static [(f64, f64)] = PAIRS;
}

/// a mod b with the sign of b, as in Python; integers: x % 0 = 0.
pub struct Rem;
impl Binary for Rem {
    const NAME: &'static str = "rem";
    const SYMBOL: Option<&'static str> = Some("%");
    const ACCEPTS: Accepts = Accepts::Numbers;
    fn exact(a: f64, b: f64) -> f64 {
        let remainder = a % b;
        if remainder != 0.0 && (remainder < 0.0) != (b < 0.0) { remainder + b } else { remainder }
    }
    fn exact_int(a: i64, b: i64) -> i64 {
        if b == 0 { 0 } else { a - b * Div::exact_int(a, b) }
    }
    #[inline(always)]
    fn fast<T: Real>(a: T, b: T) -> T {
        let remainder = a.fmod(b);
        let zero = T::of(0.0);
        if remainder != zero && (remainder < zero) != (b < zero) { remainder + b } else { remainder }
    }
    #[inline(always)]
    fn fast_int<T: Int>(a: T, b: T) -> T {
        a.rem(b)
    }
    const WGSL: &'static str = "floor_mod_{t}({a}, {b})";
    // d/db (a − b ⌊a/b⌋) = −⌊a/b⌋
    const DERIVATIVES: [BinaryDerivative; 2] =
        [Rule(|_, _, _, g| g), Rule(|a, b, _, g| -g * (a / b).unary(UnaryOp::Floor))];
    const ULPS: f64 = 0.5;
    const SAMPLES: &'static [(f64, f64)] = &[(-4.5, 2.0), (5.25, 3.0), (-0.5, 0.75), (7.0, -3.0), (40.0, 11.0)];
}

/// aᵇ; integer exponents of negative bases are right, others give NaN.
pub struct Pow;
impl Binary for Pow {
    const NAME: &'static str = "pow";
    const ACCEPTS: Accepts = Accepts::Numbers;
    fn exact(a: f64, b: f64) -> f64 {
        a.powf(b)
    }
    fn exact_int(a: i64, b: i64) -> i64 {
        match (a, b) {
            (_, 0..) => a.wrapping_pow(b as u32),
            (1, _) => 1,
            (-1, _) => 1 - 2 * (b & 1),
            _ => 0,
        }
    }
    #[inline(always)]
    fn fast<T: Real>(a: T, b: T) -> T {
        a.pow(b)
    }
    #[inline(always)]
    fn fast_int<T: Int>(a: T, b: T) -> T {
        a.pow(b)
    }
    const WGSL: &'static str = "power_{t}({a}, {b})";
    const DERIVATIVES: [BinaryDerivative; 2] = [
        // b aᵇ⁻¹, but 0 where b = 0, also at a = 0
        Rule(|a, b, _, g| {
            let zero = Formula::constant(0.0);
            let slope = g * b.clone() * a.binary(BinaryOp::Pow, b.clone() - 1.0);
            b.choose(CompareOp::Eq, zero.clone(), zero, slope)
        }),
        // y ln a, but 0 where a = 0 (the limit for b > 0)
        Rule(|a, _, y, g| {
            let zero = Formula::constant(0.0);
            a.clone().choose(CompareOp::Eq, zero.clone(), zero, g * y * a.unary(UnaryOp::Log))
        }),
    ];
    const ULPS: f64 = 2.0;
    const SAMPLES: &'static [(f64, f64)] = &[(0.3, 2.0), (1.5, -1.5), (2.5, 3.0), (7.0, 0.5), (1e-3, 1.0), (4.0, 1e-2)];
}

/// The larger operand; NaN wins; equal operands share the gradient evenly.
pub struct Max;
impl Binary for Max {
    const NAME: &'static str = "max";
    const ACCEPTS: Accepts = Accepts::Numbers;
    fn exact(a: f64, b: f64) -> f64 {
        if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
    }
    fn exact_int(a: i64, b: i64) -> i64 {
        a.max(b)
    }
    #[inline(always)]
    fn fast<T: Real>(a: T, b: T) -> T {
        if a > b || a.nan() { a } else { b }
    }
    #[inline(always)]
    fn fast_int<T: Int>(a: T, b: T) -> T {
        a.max(b)
    }
    const WGSL: &'static str = "max_nan({a}, {b})";
    const WGSL_INT: &'static str = "max({a}, {b})";
    const DERIVATIVES: [BinaryDerivative; 2] =
        [Rule(|a, b, _, g| share(a, CompareOp::Gt, b, g)), Rule(|a, b, _, g| share(b, CompareOp::Gt, a, g))];
    const ULPS: f64 = 0.0;
    const SAMPLES: &'static [(f64, f64)] = PAIRS;
}

/// The smaller operand; NaN wins; equal operands share the gradient evenly.
pub struct Min;
impl Binary for Min {
    const NAME: &'static str = "min";
    const ACCEPTS: Accepts = Accepts::Numbers;
    fn exact(a: f64, b: f64) -> f64 {
        if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }
    }
    fn exact_int(a: i64, b: i64) -> i64 {
        a.min(b)
    }
    #[inline(always)]
    fn fast<T: Real>(a: T, b: T) -> T {
        if a < b || a.nan() { a } else { b }
    }
    #[inline(always)]
    fn fast_int<T: Int>(a: T, b: T) -> T {
        a.min(b)
    }
    const WGSL: &'static str = "min_nan({a}, {b})";
    const WGSL_INT: &'static str = "min({a}, {b})";
    const DERIVATIVES: [BinaryDerivative; 2] =
        [Rule(|a, b, _, g| share(a, CompareOp::Lt, b, g)), Rule(|a, b, _, g| share(b, CompareOp::Lt, a, g))];
    const ULPS: f64 = 0.0;
    const SAMPLES: &'static [(f64, f64)] = PAIRS;
}

/// The whole gradient where `this` wins, half of it in a tie, none where it loses.
fn share(this: Formula, wins: CompareOp, other: Formula, g: Formula) -> Formula {
    let half = this.clone().choose(CompareOp::Eq, other.clone(), g.clone() * 0.5, Formula::constant(0.0));
    this.choose(wins, other, g, half)
}

/// Logical and.
pub struct And;
impl Binary for And {
    const NAME: &'static str = "and";
    const SYMBOL: Option<&'static str> = Some("&");
    const ACCEPTS: Accepts = Accepts::Bools;
    fn exact(a: f64, b: f64) -> f64 {
        a * b
    }
    #[inline(always)]
    fn fast<T: Real>(a: T, _: T) -> T {
        a
    }
    #[inline(always)]
    fn on_bool(a: bool, b: bool) -> bool {
        a & b
    }
    const WGSL: &'static str = "({a} & {b})";
    const DERIVATIVES: [BinaryDerivative; 2] = NONE;
    const ULPS: f64 = 0.0;
    const SAMPLES: &'static [(f64, f64)] = BOOLS;
}

/// Logical or.
pub struct Or;
impl Binary for Or {
    const NAME: &'static str = "or";
    const SYMBOL: Option<&'static str> = Some("|");
    const ACCEPTS: Accepts = Accepts::Bools;
    fn exact(a: f64, b: f64) -> f64 {
        a.max(b)
    }
    #[inline(always)]
    fn fast<T: Real>(a: T, _: T) -> T {
        a
    }
    #[inline(always)]
    fn on_bool(a: bool, b: bool) -> bool {
        a | b
    }
    const WGSL: &'static str = "({a} | {b})";
    const DERIVATIVES: [BinaryDerivative; 2] = NONE;
    const ULPS: f64 = 0.0;
    const SAMPLES: &'static [(f64, f64)] = BOOLS;
}

/// Exclusive or.
pub struct Xor;
impl Binary for Xor {
    const NAME: &'static str = "xor";
    const SYMBOL: Option<&'static str> = Some("^");
    const ACCEPTS: Accepts = Accepts::Bools;
    fn exact(a: f64, b: f64) -> f64 {
        (a - b).abs()
    }
    #[inline(always)]
    fn fast<T: Real>(a: T, _: T) -> T {
        a
    }
    #[inline(always)]
    fn on_bool(a: bool, b: bool) -> bool {
        a ^ b
    }
    const WGSL: &'static str = "({a} != {b})";
    const DERIVATIVES: [BinaryDerivative; 2] = NONE;
    const ULPS: f64 = 0.0;
    const SAMPLES: &'static [(f64, f64)] = BOOLS;
}

/// The comparison rows: each is one operator.
macro_rules! comparison {
    ($(#[doc = $doc:literal] $row:ident $name:literal $symbol:literal $function:literal $accepts:ident $operator:tt;)*) => {
        $(#[doc = $doc]
        pub struct $row;
        impl Compare for $row {
            const NAME: &'static str = $name;
            const SYMBOL: &'static str = $symbol;
            const ACCEPTS: Accepts = Accepts::$accepts;
            fn exact(a: f64, b: f64) -> bool {
                a $operator b
            }
            #[inline(always)]
            fn fast<T: PartialOrd>(a: T, b: T) -> bool {
                a $operator b
            }
            const WGSL: &'static str = concat!($function, "({a}, {b})");
            const WGSL_INT: &'static str = concat!("({a} ", $symbol, " {b})");
            const SAMPLES: &'static [(f64, f64)] = &[(1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (-4.5, 2.5), (7.0, -2.0)];
        })*
    };
}
comparison! {
    /// Equal.
    Eq "eq" "==" "equal" All ==;
    /// Not equal; NaN differs from everything.
    Ne "ne" "!=" "not_equal" All !=;
    /// Less.
    Lt "lt" "<" "less" Numbers <;
    /// Less or equal.
    Le "le" "<=" "less_equal" Numbers <=;
    /// Greater.
    Gt "gt" ">" "greater" Numbers >;
    /// Greater or equal.
    Ge "ge" ">=" "greater_equal" Numbers >=;
}
