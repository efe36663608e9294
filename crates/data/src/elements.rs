//! Elements of arrays in files: kinds of numbers, and their bytes.

use gradus_tensor::f16;
use std::fmt;

/// The elements of an [`Array`](crate::Array), row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Elements {
    /// Bytes, such as pixels; there is no such dtype, so they become what the tensor's placement says.
    U8(Vec<u8>),
    /// Booleans.
    Bool(Vec<bool>),
    /// Signed integers.
    I32(Vec<i32>),
    /// Unsigned integers.
    U32(Vec<u32>),
    /// Floats of 16 bits.
    F16(Vec<f16>),
    /// Floats of 32 bits.
    F32(Vec<f32>),
    /// Floats of 64 bits.
    F64(Vec<f64>),
}

/// An expression of the elements' vector, whatever its type.
macro_rules! with_elements {
    ($elements:expr, $vector:ident => $body:expr) => {
        match $elements {
            $crate::Elements::U8($vector) => $body,
            $crate::Elements::Bool($vector) => $body,
            $crate::Elements::I32($vector) => $body,
            $crate::Elements::U32($vector) => $body,
            $crate::Elements::F16($vector) => $body,
            $crate::Elements::F32($vector) => $body,
            $crate::Elements::F64($vector) => $body,
        }
    };
}
pub(crate) use with_elements;

/// The elements of an expression of the elements' vector that is a vector of the same type.
macro_rules! map_elements {
    ($elements:expr, $vector:ident => $body:expr) => {
        match $elements {
            $crate::Elements::U8($vector) => $crate::Elements::U8($body),
            $crate::Elements::Bool($vector) => $crate::Elements::Bool($body),
            $crate::Elements::I32($vector) => $crate::Elements::I32($body),
            $crate::Elements::U32($vector) => $crate::Elements::U32($body),
            $crate::Elements::F16($vector) => $crate::Elements::F16($body),
            $crate::Elements::F32($vector) => $crate::Elements::F32($body),
            $crate::Elements::F64($vector) => $crate::Elements::F64($body),
        }
    };
}
pub(crate) use map_elements;

macro_rules! elements_from_vectors {
    ($($variant:ident $t:ty)*) => {
        $(impl From<Vec<$t>> for Elements {
            fn from(elements: Vec<$t>) -> Elements {
                Elements::$variant(elements)
            }
        })*
    };
}
elements_from_vectors!(U8 u8 Bool bool I32 i32 U32 u32 F16 f16 F32 f32 F64 f64);

impl Elements {
    /// How many there are.
    pub fn len(&self) -> usize {
        with_elements!(self, v => v.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name of their type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Elements::U8(_) => "u8",
            Elements::Bool(_) => "bool",
            Elements::I32(_) => "i32",
            Elements::U32(_) => "u32",
            Elements::F16(_) => "f16",
            Elements::F32(_) => "f32",
            Elements::F64(_) => "f64",
        }
    }
}

/// How a file stores an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) kind: Kind,
    pub(crate) order: ByteOrder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
    F16,
    F32,
    F64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByteOrder {
    Little,
    Big,
}

/// An element that has no place in the type that holds its kind.
#[derive(Debug)]
pub(crate) struct DoesNotFit {
    found: String,
    expected: &'static str,
}

impl fmt::Display for DoesNotFit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the element {}, expected {}", self.found, self.expected)
    }
}

impl Stored {
    /// Bytes of an element.
    pub(crate) fn size(self) -> usize {
        match self.kind {
            Kind::Bool | Kind::U8 | Kind::I8 => 1,
            Kind::U16 | Kind::I16 | Kind::F16 => 2,
            Kind::U32 | Kind::I32 | Kind::F32 => 4,
            Kind::U64 | Kind::I64 | Kind::F64 => 8,
        }
    }

    /// The elements of whole bytes. Integers of other widths than 32 bits become i32 or u32, if they fit; booleans are 0 or 1.
    pub(crate) fn decode(self, bytes: Vec<u8>) -> Result<Elements, DoesNotFit> {
        let order = self.order;
        Ok(match self.kind {
            Kind::U8 => Elements::U8(bytes),
            Kind::Bool => {
                let strange = bytes.iter().find(|&&byte| byte > 1);
                if let Some(byte) = strange {
                    return Err(DoesNotFit { found: byte.to_string(), expected: "booleans of 0 and 1" });
                }
                Elements::Bool(bytes.into_iter().map(|byte| byte == 1).collect())
            }
            Kind::I8 => Elements::I32(bytes.iter().map(|&byte| byte as i8 as i32).collect()),
            Kind::I16 => Elements::I32(words(&bytes, order, |w| i16::from_le_bytes(w) as i32)),
            Kind::I32 => Elements::I32(words(&bytes, order, i32::from_le_bytes)),
            Kind::U16 => Elements::U32(words(&bytes, order, |w| u16::from_le_bytes(w) as u32)),
            Kind::U32 => Elements::U32(words(&bytes, order, u32::from_le_bytes)),
            Kind::F16 => Elements::F16(words(&bytes, order, f16::from_le_bytes)),
            Kind::F32 => Elements::F32(words(&bytes, order, f32::from_le_bytes)),
            Kind::F64 => Elements::F64(words(&bytes, order, f64::from_le_bytes)),
            Kind::I64 => Elements::I32(fitting(words(&bytes, order, i64::from_le_bytes), "integers that fit i32")?),
            Kind::U64 => Elements::U32(fitting(words(&bytes, order, u64::from_le_bytes), "integers that fit u32")?),
        })
    }
}

/// Words of N bytes; `word` is given the least byte first.
fn words<T, const N: usize>(bytes: &[u8], order: ByteOrder, word: impl Fn([u8; N]) -> T) -> Vec<T> {
    match order {
        ByteOrder::Little => words_of(bytes, word),
        ByteOrder::Big => words_of(bytes, |mut bytes| {
            bytes.reverse();
            word(bytes)
        }),
    }
}

/// Words of N bytes, converted.
pub(crate) fn words_of<T, const N: usize>(bytes: &[u8], word: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|&chunk| word(chunk)).collect()
}

fn fitting<W: Copy + fmt::Display, T: TryFrom<W>>(wide: Vec<W>, expected: &'static str) -> Result<Vec<T>, DoesNotFit> {
    let narrow = |word: W| T::try_from(word).map_err(|_| DoesNotFit { found: word.to_string(), expected });
    wide.into_iter().map(narrow).collect()
}
