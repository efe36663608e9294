//! What a row of the op table holds: all there is to know about one element-wise op.

use super::formula::{BinaryDerivative, UnaryDerivative};
use crate::DType;
use crate::real::{Int, Real};

/// The dtypes that a row takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepts {
    /// f16, f32 and f64.
    Floats,
    /// Floats and integers.
    Numbers,
    /// bool alone.
    Bools,
    /// Every dtype.
    All,
}

impl Accepts {
    /// Whether `dtype` is among them.
    pub fn contains(self, dtype: DType) -> bool {
        match self {
            Accepts::Floats => dtype.is_float(),
            Accepts::Numbers => dtype != DType::Bool,
            Accepts::Bools => dtype == DType::Bool,
            Accepts::All => true,
        }
    }

    /// The dtypes in words, for error messages.
    pub fn words(self) -> &'static str {
        match self {
            Accepts::Floats => "a float dtype",
            Accepts::Numbers => "a number dtype",
            Accepts::Bools => "bool",
            Accepts::All => "any dtype",
        }
    }
}

/// A row with one operand, whose result has the operand's dtype.
pub trait Unary {
    /// Name in messages, docs and WGSL.
    const NAME: &'static str;
    /// Dtypes that it takes.
    const ACCEPTS: Accepts;
    /// The value in f64; only the reference interpreter calls it.
    fn exact(x: f64) -> f64;
    /// The value on integers, as i64 before wrapping; only the reference calls it. (Rows of floats have none.)
    fn exact_int(x: i64) -> i64 {
        x
    }
    /// The value as the CPU's block loops compute it: branch-free, inlined.
    fn fast<T: Real>(x: T) -> T;
    /// The same on integers.
    fn fast_int<T: Int>(x: T) -> T {
        x
    }
    /// The value on booleans.
    fn on_bool(x: bool) -> bool {
        x
    }
    /// The WGSL expression, of scalars or of vectors of four: `{x}` stands for the operand, `{T}` for its type (`Real`,
    /// `Int`, `Word` or `Mask`) and `{t}` for the dtype's name.
    const WGSL: &'static str;
    /// The WGSL expression on i32 and u32, where it is another one.
    const WGSL_INT: &'static str = Self::WGSL;
    /// The derivative.
    const DERIVATIVE: UnaryDerivative;
    /// How far `fast` may be from `exact`, in units of the last place (error of rounding the operand excluded).
    const ULPS: f64;
    /// Operands for tests: the row's whole range, kinks excluded.
    const SAMPLES: &'static [f64];
}

/// A row with two operands of one dtype, whose result has it too.
pub trait Binary {
    /// Name in messages, docs and WGSL.
    const NAME: &'static str;
    /// The operator it prints as, if it has one.
    const SYMBOL: Option<&'static str> = None;
    /// Dtypes that it takes.
    const ACCEPTS: Accepts;
    /// The value in f64; only the reference interpreter calls it.
    fn exact(a: f64, b: f64) -> f64;
    /// The value on integers, as i64 before wrapping; only the reference calls it.
    fn exact_int(a: i64, _b: i64) -> i64 {
        a
    }
    /// The value as the CPU's block loops compute it: branch-free, inlined.
    fn fast<T: Real>(a: T, b: T) -> T;
    /// The same on integers.
    fn fast_int<T: Int>(a: T, _b: T) -> T {
        a
    }
    /// The value on booleans.
    fn on_bool(a: bool, _b: bool) -> bool {
        a
    }
    /// The WGSL expression, of scalars or of vectors of four: `{a}` and `{b}` stand for the operands, `{T}` for their type
    /// (`Real`, `Int`, `Word` or `Mask`) and `{t}` for the dtype's name.
    const WGSL: &'static str;
    /// The WGSL expression on i32 and u32, where it is another one.
    const WGSL_INT: &'static str = Self::WGSL;
    /// The derivative with respect to each operand.
    const DERIVATIVES: [BinaryDerivative; 2];
    /// How far `fast` may be from `exact`, in units of the last place.
    const ULPS: f64;
    /// Operand pairs for tests, kinks excluded.
    const SAMPLES: &'static [(f64, f64)];
}

/// A row that compares two operands of one dtype; the result is bool and has no derivative.
pub trait Compare {
    /// Name in messages, docs and WGSL.
    const NAME: &'static str;
    /// The operator it prints as.
    const SYMBOL: &'static str;
    /// Dtypes that it takes.
    const ACCEPTS: Accepts;
    /// The comparison in f64; only the reference interpreter calls it.
    fn exact(a: f64, b: f64) -> bool;
    /// The comparison as the CPU's loops do it. NaN compares false.
    fn fast<T: PartialOrd>(a: T, b: T) -> bool;
    /// The WGSL expression on f32, of scalars or of vectors of four; `{a}` and `{b}` stand for the operands.
    const WGSL: &'static str;
    /// The WGSL expression on i32, u32 and bool.
    const WGSL_INT: &'static str;
    /// Operand pairs for tests.
    const SAMPLES: &'static [(f64, f64)];
}

/// Does something with the type of a unary row, chosen at run time.
pub trait UnaryVisitor {
    /// What it gives back.
    type Output;
    /// Called with the row's type.
    fn visit<R: Unary>(self) -> Self::Output;
}

/// Does something with the type of a binary row, chosen at run time.
pub trait BinaryVisitor {
    /// What it gives back.
    type Output;
    /// Called with the row's type.
    fn visit<R: Binary>(self) -> Self::Output;
}

/// Does something with the type of a comparison row, chosen at run time.
pub trait CompareVisitor {
    /// What it gives back.
    type Output;
    /// Called with the row's type.
    fn visit<R: Compare>(self) -> Self::Output;
}

/// Makes the enum of a family's rows from their names, and the way from a value to the row's type.
macro_rules! rows {
    ($(#[$doc:meta])* $op:ident, $trait:ident, $visitor:ident, $module:ident: $($row:ident),* $(,)?) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $op {
            $(#[doc = concat!("See the row [`", stringify!($row), "`](", stringify!($module), "::", stringify!($row), ").")] $row),*
        }

        impl $op {
            /// Every row of the family.
            pub const ALL: &'static [$op] = &[$($op::$row),*];

            /// Calls the visitor with the row's type.
            #[inline]
            pub fn dispatch<V: $crate::op::row::$visitor>(self, visitor: V) -> V::Output {
                match self {
                    $($op::$row => visitor.visit::<$module::$row>()),*
                }
            }

            /// The row's name.
            pub fn name(self) -> &'static str {
                match self {
                    $($op::$row => <$module::$row as $crate::op::row::$trait>::NAME),*
                }
            }

            /// The dtypes that the row takes.
            pub fn accepts(self) -> $crate::op::row::Accepts {
                match self {
                    $($op::$row => <$module::$row as $crate::op::row::$trait>::ACCEPTS),*
                }
            }

            /// The row's WGSL expression; see the trait for its placeholders.
            pub fn wgsl(self) -> &'static str {
                match self {
                    $($op::$row => <$module::$row as $crate::op::row::$trait>::WGSL),*
                }
            }

            /// The row's WGSL expression on integers.
            pub fn wgsl_int(self) -> &'static str {
                match self {
                    $($op::$row => <$module::$row as $crate::op::row::$trait>::WGSL_INT),*
                }
            }
        }
    };
}
pub(crate) use rows;
