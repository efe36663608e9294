//! Element types, single numbers and host arrays.

use crate::math;
use half::f16;
use std::fmt;
use std::hash::{Hash, Hasher};

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// `true` or `false`.
    Bool,
    /// 32-bit signed integer; arithmetic wraps.
    I32,
    /// 32-bit unsigned integer; arithmetic wraps.
    U32,
    /// IEEE 754 half precision: stored so, computed in f32 and rounded after every op. Sums and products of many numbers
    /// (reductions, scans, matrix products, `scatter_add`) are f32 until they are known. GPUs need a feature for it.
    F16,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 double precision (CPU only).
    F64,
}

impl DType {
    /// Every dtype, in order of promotion.
    pub const ALL: [DType; 6] = [DType::Bool, DType::I32, DType::U32, DType::F16, DType::F32, DType::F64];

    /// The lower-case name, as in `f32`.
    pub fn name(self) -> &'static str {
        match self {
            DType::Bool => "bool",
            DType::I32 => "i32",
            DType::U32 => "u32",
            DType::F16 => "f16",
            DType::F32 => "f32",
            DType::F64 => "f64",
        }
    }

    /// Bytes per element on the host.
    pub fn size(self) -> usize {
        match self {
            DType::Bool => 1,
            DType::F16 => 2,
            DType::I32 | DType::U32 | DType::F32 => 4,
            DType::F64 => 8,
        }
    }

    /// Whether the dtype is a floating-point type.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F16 | DType::F32 | DType::F64)
    }

    /// Whether the dtype is an integer type.
    pub fn is_int(self) -> bool {
        matches!(self, DType::I32 | DType::U32)
    }

    /// The dtype that numbers of this one are computed in: f32 for f16, every other one for itself.
    pub fn computed(self) -> DType {
        if self == DType::F16 { DType::F32 } else { self }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One number on its way from Rust to a tensor. It has no dtype of its own: it takes the tensor's.
///
/// Equality and hashing compare floats by bits, so that numbers can be part of a cache key.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    /// From a `bool`.
    Bool(bool),
    /// From any Rust integer.
    Int(i64),
    /// From `f16`, `f32` or `f64`.
    Float(f64),
}

impl Number {
    /// The number as `f64` (`true` is 1).
    pub fn to_f64(self) -> f64 {
        match self {
            Number::Bool(b) => b as u8 as f64,
            Number::Int(i) => i as f64,
            Number::Float(x) => x,
        }
    }

    /// The number as an integer: floats truncate and saturate, NaN becomes 0.
    pub fn to_i64(self) -> i64 {
        match self {
            Number::Bool(b) => b as i64,
            Number::Int(i) => i,
            Number::Float(x) => x as i64,
        }
    }

    /// Whether `dtype` holds this number without changing its meaning: floats take any number, integers only
    /// whole numbers in their range, bool only a `bool`.
    pub fn fits(self, dtype: DType) -> bool {
        let whole_between = |low: f64, high: f64| {
            let x = self.to_f64();
            !matches!(self, Number::Bool(_)) && x.fract() == 0.0 && (low..=high).contains(&x)
        };
        match dtype {
            DType::Bool => matches!(self, Number::Bool(_)),
            DType::I32 => whole_between(i32::MIN as f64, i32::MAX as f64),
            DType::U32 => whole_between(0.0, u32::MAX as f64),
            DType::F16 | DType::F32 | DType::F64 => !matches!(self, Number::Bool(_)),
        }
    }

    fn bits(self) -> (u8, u64) {
        match self {
            Number::Bool(b) => (0, b as u64),
            Number::Int(i) => (1, i as u64),
            Number::Float(x) => (2, x.to_bits()),
        }
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.bits() == other.bits()
    }
}

impl Eq for Number {}

impl Hash for Number {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bits().hash(state);
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Bool(b) => b.fmt(f),
            Number::Int(i) => i.fmt(f),
            Number::Float(x) => x.fmt(f),
        }
    }
}

macro_rules! number_from {
    ($($from:ty => $variant:ident as $to:ty),*) => {
        $(impl From<$from> for Number {
            fn from(value: $from) -> Number {
                Number::$variant(value as $to)
            }
        })*
    };
}
number_from!(bool => Bool as bool, f32 => Float as f64, f64 => Float as f64, i32 => Int as i64,
             u32 => Int as i64, i64 => Int as i64, u8 => Int as i64, usize => Int as i64);

impl From<f16> for Number {
    fn from(value: f16) -> Number {
        Number::Float(value.to_f64())
    }
}

/// A Rust type that is the element type of a [`DType`].
pub trait Element: Copy + Send + Sync + PartialEq + fmt::Debug + Default + 'static {
    /// The dtype whose elements this type holds.
    const DTYPE: DType;
    /// Wraps a vector of this type.
    fn wrap(values: Vec<Self>) -> Data;
    /// The vector inside `data`, if it has this type.
    fn slice(data: &Data) -> Option<&[Self]>;
    /// The vector inside `data`, for writing, if it has this type.
    fn slice_mut(data: &mut Data) -> Option<&mut [Self]>;
    /// Takes the vector out of `data`, if it has this type.
    fn take(data: Data) -> Option<Vec<Self>>;
    /// Converts a number by the cast rules of [`Number`]: truncating and saturating, NaN to 0.
    fn from_number(number: Number) -> Self;
    /// The element as a number.
    fn to_number(self) -> Number;
}

/// A typed array on the host, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Elements of dtype bool.
    Bool(Vec<bool>),
    /// Elements of dtype i32.
    I32(Vec<i32>),
    /// Elements of dtype u32.
    U32(Vec<u32>),
    /// Elements of dtype f16.
    F16(Vec<f16>),
    /// Elements of dtype f32.
    F32(Vec<f32>),
    /// Elements of dtype f64.
    F64(Vec<f64>),
}

/// Runs an expression with `$values` bound to the typed vector inside a [`Data`].
#[macro_export]
macro_rules! with_data {
    ($data:expr, $values:ident => $body:expr) => {
        match $data {
            $crate::Data::Bool($values) => $body,
            $crate::Data::I32($values) => $body,
            $crate::Data::U32($values) => $body,
            $crate::Data::F16($values) => $body,
            $crate::Data::F32($values) => $body,
            $crate::Data::F64($values) => $body,
        }
    };
}

/// Runs an expression with `$T` standing for the element type of a [`DType`].
#[macro_export]
macro_rules! with_dtype {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::DType::Bool => {
                type $T = bool;
                $body
            }
            $crate::DType::I32 => {
                type $T = i32;
                $body
            }
            $crate::DType::U32 => {
                type $T = u32;
                $body
            }
            $crate::DType::F16 => {
                type $T = $crate::f16;
                $body
            }
            $crate::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::DType::F64 => {
                type $T = f64;
                $body
            }
        }
    };
}

impl Data {
    /// The dtype of the elements.
    pub fn dtype(&self) -> DType {
        match self {
            Data::Bool(_) => DType::Bool,
            Data::I32(_) => DType::I32,
            Data::U32(_) => DType::U32,
            Data::F16(_) => DType::F16,
            Data::F32(_) => DType::F32,
            Data::F64(_) => DType::F64,
        }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        with_data!(self, v => v.len())
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element `index` as a number; `None` past the end.
    pub fn get(&self, index: usize) -> Option<Number> {
        with_data!(self, v => v.get(index).map(|x| x.to_number()))
    }
}

macro_rules! element {
    ($($t:ident $variant:ident $from:expr;)*) => {
        $(impl Element for $t {
            const DTYPE: DType = DType::$variant;
            fn wrap(values: Vec<Self>) -> Data {
                Data::$variant(values)
            }
            fn slice(data: &Data) -> Option<&[Self]> {
                if let Data::$variant(v) = data { Some(v) } else { None }
            }
            fn slice_mut(data: &mut Data) -> Option<&mut [Self]> {
                if let Data::$variant(v) = data { Some(v) } else { None }
            }
            fn take(data: Data) -> Option<Vec<Self>> {
                if let Data::$variant(v) = data { Some(v) } else { None }
            }
            #[inline]
            fn from_number(number: Number) -> Self {
                let convert: fn(Number) -> $t = $from;
                convert(number)
            }
            fn to_number(self) -> Number {
                Number::from(self)
            }
        })*
    };
}
element! {
    bool Bool |n| n.to_f64() != 0.0;
    i32 I32 |n| n.to_i64().clamp(i32::MIN as i64, i32::MAX as i64) as i32;
    u32 U32 |n| n.to_i64().clamp(0, u32::MAX as i64) as u32;
    f16 F16 |n| math::to_f16(math::to_odd(n.to_f64()));
    f32 F32 |n| n.to_f64() as f32;
    f64 F64 |n| n.to_f64();
}
