//! Borrowed typed arrays.

use gradus_ir::{DType, Data, Element, f16};

macro_rules! slices {
    ($($variant:ident $t:ty),*) => {
        /// A typed slice.
        #[derive(Clone, Copy)]
        pub(crate) enum Slice<'a> {
            $($variant(&'a [$t])),*
        }

        /// A typed slice for writing.
        pub(crate) enum SliceMut<'a> {
            $($variant(&'a mut [$t])),*
        }

        impl<'a> Slice<'a> {
            /// The whole of an array.
            #[inline(always)]
            pub(crate) fn of(data: &'a Data) -> Slice<'a> {
                match data {
                    $(Data::$variant(v) => Slice::$variant(v)),*
                }
            }

            /// Elements `start..start + len`.
            #[inline(always)]
            pub(crate) fn range(self, start: usize, len: usize) -> Slice<'a> {
                match self {
                    $(Slice::$variant(v) => Slice::$variant(&v[start..start + len])),*
                }
            }

            /// The elements, if they have type `T`.
            pub(crate) fn typed<T: Typed>(self) -> &'a [T] {
                T::from_slice(self)
            }
        }

        impl<'a> SliceMut<'a> {
            /// The whole of an array.
            #[inline(always)]
            pub(crate) fn of(data: &'a mut Data) -> SliceMut<'a> {
                match data {
                    $(Data::$variant(v) => SliceMut::$variant(v)),*
                }
            }

            /// No elements.
            pub(crate) fn empty() -> SliceMut<'a> {
                SliceMut::Bool(&mut [])
            }

            /// The array in pieces of `size` elements; the last may be shorter.
            pub(crate) fn chunks(self, size: usize) -> Vec<SliceMut<'a>> {
                match self {
                    $(SliceMut::$variant(v) => v.chunks_mut(size).map(SliceMut::$variant).collect()),*
                }
            }

            /// Elements `start..start + len`.
            #[inline(always)]
            pub(crate) fn range(&mut self, start: usize, len: usize) -> SliceMut<'_> {
                match self {
                    $(SliceMut::$variant(v) => SliceMut::$variant(&mut v[start..start + len])),*
                }
            }

            /// The same, for as long as the whole is borrowed.
            #[inline(always)]
            pub(crate) fn into_range(self, start: usize, len: usize) -> SliceMut<'a> {
                match self {
                    $(SliceMut::$variant(v) => SliceMut::$variant(&mut v[start..start + len])),*
                }
            }

            /// The same elements, for reading.
            pub(crate) fn as_slice(&self) -> Slice<'_> {
                match self {
                    $(SliceMut::$variant(v) => Slice::$variant(v)),*
                }
            }

            /// The number of elements.
            pub(crate) fn len(&self) -> usize {
                match self {
                    $(SliceMut::$variant(v) => v.len()),*
                }
            }

            /// The elements, if they have type `T`.
            pub(crate) fn typed<T: Typed>(self) -> &'a mut [T] {
                T::from_slice_mut(self)
            }
        }

        /// An element type that a slice can be taken as. A plan's dtypes are checked when its graph is made, so the
        /// wrong type here is a bug of the planner.
        pub(crate) trait Typed: Element {
            fn from_slice(slice: Slice<'_>) -> &[Self];
            fn from_slice_mut(slice: SliceMut<'_>) -> &mut [Self];
        }

        $(impl Typed for $t {
            fn from_slice(slice: Slice<'_>) -> &[Self] {
                match slice {
                    Slice::$variant(v) => v,
                    _ => unreachable!("expected {}", DType::$variant),
                }
            }
            fn from_slice_mut(slice: SliceMut<'_>) -> &mut [Self] {
                match slice {
                    SliceMut::$variant(v) => v,
                    _ => unreachable!("expected {}", DType::$variant),
                }
            }
        })*
    };
}
slices!(Bool bool, I32 i32, U32 u32, F16 f16, F32 f32, F64 f64);

/// Runs an expression with `$v` bound to the typed slice.
macro_rules! with_slice {
    ($enum:ident, $slice:expr, $v:ident => $body:expr) => {
        match $slice {
            $enum::Bool($v) => $body,
            $enum::I32($v) => $body,
            $enum::U32($v) => $body,
            $enum::F16($v) => $body,
            $enum::F32($v) => $body,
            $enum::F64($v) => $body,
        }
    };
}
pub(crate) use with_slice;

/// The same with a block of a register, where f16 is held as f32.
macro_rules! with_register {
    ($enum:ident, $slice:expr, $v:ident => $body:expr) => {
        match $slice {
            $enum::Bool($v) => $body,
            $enum::I32($v) => $body,
            $enum::U32($v) => $body,
            $enum::F32($v) => $body,
            $enum::F64($v) => $body,
            $enum::F16(_) => unreachable!("a register of f16 is held as f32"),
        }
    };
}
pub(crate) use with_register;
