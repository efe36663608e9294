//! What ops take beside tensors: numbers, axes, placements and nested arrays.

use crate::notes::{Live, note_live};
use crate::{Cell, Device, Tensor};
use gradus_ir::op::{Op, Type};
use gradus_ir::{DType, Data, Element, Error as ErrorKind, Number, Shape, f16};
use smallvec::{SmallVec, smallvec};
use std::borrow::Cow;
use std::ops::RangeFull;

/// The other side of an op: a tensor, or a Rust number that takes the tensor's dtype.
#[derive(Clone)]
pub enum Operand {
    /// A tensor.
    Tensor(Tensor),
    /// A number.
    Number(Number),
    /// A number that changes from run to run of what is recorded.
    Live(Live),
}

impl From<Tensor> for Operand {
    fn from(tensor: Tensor) -> Operand {
        Operand::Tensor(tensor)
    }
}

impl From<&Tensor> for Operand {
    fn from(tensor: &Tensor) -> Operand {
        Operand::Tensor(tensor.clone())
    }
}

impl From<Live> for Operand {
    fn from(live: Live) -> Operand {
        Operand::Live(live)
    }
}

impl From<&Cell> for Operand {
    fn from(cell: &Cell) -> Operand {
        Operand::Tensor(cell.tensor())
    }
}

macro_rules! operand_from_number {
    ($($t:ty)*) => {
        $(impl From<$t> for Operand {
            fn from(number: $t) -> Operand {
                Operand::Number(Number::from(number))
            }
        })*
    };
}
operand_from_number!(bool f32 f64 i32 u32 i64 u8 usize);

impl Tensor {
    /// A number of the user as a tensor like this one.
    #[track_caller]
    pub(crate) fn scalar(&self, number: Number) -> Tensor {
        if self.error().is_some() {
            return self.clone();
        }
        if !number.fits(self.dtype()) {
            return self.fail("number", ErrorKind::Number { number, dtype: self.dtype() });
        }
        Tensor::source(Op::Scalar(0), Some(number), self.shape().clone(), self.dtype(), self.device())
    }

    /// A number that changes from run to run, as a tensor like this one.
    #[track_caller]
    pub(crate) fn live(&self, live: Live) -> Tensor {
        let tensor = self.scalar(Number::Float(live.value));
        note_live(&tensor, live);
        tensor
    }

    /// A number of the library as a tensor like this one.
    #[track_caller]
    pub(crate) fn constant(&self, value: f64) -> Tensor {
        if self.error().is_some() {
            return self.clone();
        }
        let number = if self.dtype().is_float() { Number::Float(value) } else { Number::Int(value as i64) };
        Tensor::source(Op::Const(number), None, self.shape().clone(), self.dtype(), self.device())
    }

    /// Both sides of an op, broadcast to one shape.
    #[track_caller]
    pub(crate) fn broadcast_with(&self, op: &'static str, other: Operand) -> (Cow<'_, Tensor>, Tensor) {
        let other = match other {
            Operand::Number(number) => return (Cow::Borrowed(self), self.scalar(number)),
            Operand::Live(live) => return (Cow::Borrowed(self), self.live(live)),
            Operand::Tensor(other) => other,
        };
        if self.error().is_some() || other.error().is_some() || self.shape() == other.shape() {
            return (Cow::Borrowed(self), other);
        }
        match self.shape().broadcast(other.shape()) {
            Some(shape) => (Cow::Owned(self.expand_to(&shape)), other.expand_to(&shape)),
            None => {
                let kind = ErrorKind::Broadcast { left: self.shape().clone(), right: other.shape().clone() };
                let failed = self.fail(op, kind);
                (Cow::Owned(failed.clone()), failed)
            }
        }
    }

    /// Repeated to a shape that this one broadcasts to.
    #[track_caller]
    pub(crate) fn expand_to(&self, shape: &Shape) -> Tensor {
        if self.shape() == shape || self.error().is_some() {
            return self.clone();
        }
        let missing = shape.len().saturating_sub(self.rank());
        let aligned = match missing {
            0 => Cow::Borrowed(self),
            _ => Cow::Owned(
                self.reshape(std::iter::repeat_n(1, missing).chain(self.shape().iter().copied()).collect::<Shape>()),
            ),
        };
        Tensor::record(Op::Expand, &[&*aligned], Some(Type { shape: shape.clone(), dtype: self.dtype() }))
    }

    /// A possibly negative axis as a position.
    pub(crate) fn axis(&self, axis: isize) -> Result<usize, ErrorKind> {
        let rank = self.rank() as isize;
        let position = if axis < 0 { axis + rank } else { axis };
        usize::try_from(position)
            .ok()
            .filter(|&a| (a as isize) < rank)
            .ok_or_else(|| ErrorKind::Axis { axis, shape: self.shape().clone() })
    }

    /// The positions of axes, which must be distinct.
    pub(crate) fn axes(&self, axes: &Axes) -> Result<Positions, ErrorKind> {
        let listed = match axes {
            Axes::All => return Ok((0..self.rank()).collect()),
            Axes::Listed(listed) => listed,
        };
        let mut positions = listed.iter().map(|&a| self.axis(a)).collect::<Result<Positions, _>>()?;
        positions.sort_unstable();
        if positions.windows(2).any(|w| w[0] == w[1]) {
            let shape = self.shape().clone();
            return Err(ErrorKind::Axes { axes: listed.to_vec(), expected: "distinct axes", shape });
        }
        Ok(positions)
    }
}

/// Positions of axes. Few are enough to lie where the list does.
pub(crate) type Positions = SmallVec<[usize; 4]>;

/// Axes, or extents, of which negative ones have a meaning of their own.
pub(crate) type Signed = SmallVec<[isize; 4]>;

/// Axes to reduce over: one (`1`, or `-1` for the last), several (`[0, 2]`), or all (`..`).
#[derive(Clone, Debug, PartialEq)]
pub enum Axes {
    /// Every axis.
    All,
    /// These; negative ones count from the last.
    Listed(Signed),
}

impl From<RangeFull> for Axes {
    fn from(_: RangeFull) -> Axes {
        Axes::All
    }
}

impl From<i32> for Axes {
    fn from(axis: i32) -> Axes {
        Axes::Listed(smallvec![axis as isize])
    }
}

impl From<isize> for Axes {
    fn from(axis: isize) -> Axes {
        Axes::Listed(smallvec![axis])
    }
}

impl From<usize> for Axes {
    fn from(axis: usize) -> Axes {
        Axes::from(&[axis][..])
    }
}

impl<const N: usize> From<[i32; N]> for Axes {
    fn from(axes: [i32; N]) -> Axes {
        Axes::Listed(axes.iter().map(|&a| a as isize).collect())
    }
}

impl From<&[usize]> for Axes {
    fn from(axes: &[usize]) -> Axes {
        Axes::Listed(axes.iter().map(|&a| isize::try_from(a).unwrap_or(isize::MAX)).collect())
    }
}

impl From<Vec<usize>> for Axes {
    fn from(axes: Vec<usize>) -> Axes {
        Axes::from(&axes[..])
    }
}

/// A shape to reshape to; at most one extent may be `-1`, which is then worked out.
#[derive(Clone, Debug, PartialEq)]
pub struct Dims(pub(crate) Signed);

impl<const N: usize> From<[i32; N]> for Dims {
    fn from(dims: [i32; N]) -> Dims {
        Dims(dims.iter().map(|&d| d as isize).collect())
    }
}

impl<const N: usize> From<[usize; N]> for Dims {
    fn from(dims: [usize; N]) -> Dims {
        Dims::from(&dims[..])
    }
}

impl From<&[usize]> for Dims {
    fn from(dims: &[usize]) -> Dims {
        Dims(dims.iter().map(|&d| isize::try_from(d).unwrap_or(isize::MAX)).collect())
    }
}

impl From<Vec<usize>> for Dims {
    fn from(dims: Vec<usize>) -> Dims {
        Dims::from(&dims[..])
    }
}

impl From<Shape> for Dims {
    fn from(shape: Shape) -> Dims {
        Dims::from(&shape[..])
    }
}

impl From<&Shape> for Dims {
    fn from(shape: &Shape) -> Dims {
        Dims::from(&shape[..])
    }
}

/// Where a new tensor is to live and which dtype it is to have: `&device`, or `(&device, dtype)`.
#[derive(Clone, Debug)]
pub struct Placement {
    /// The device.
    pub device: Device,
    /// The dtype; what the op has by default, if not given.
    pub dtype: Option<DType>,
}

impl From<&Device> for Placement {
    fn from(device: &Device) -> Placement {
        Placement { device: device.clone(), dtype: None }
    }
}

impl From<(&Device, DType)> for Placement {
    fn from((device, dtype): (&Device, DType)) -> Placement {
        Placement { device: device.clone(), dtype: Some(dtype) }
    }
}

impl From<&Tensor> for Placement {
    /// The device and dtype of another tensor.
    fn from(tensor: &Tensor) -> Placement {
        Placement { device: tensor.device().clone(), dtype: Some(tensor.dtype()) }
    }
}

/// Rust values that make a tensor: numbers, and (nested) arrays, slices and vectors of them.
pub trait Values {
    /// The shape; `None` if rows differ in length.
    fn shape(&self) -> Option<Shape>;
    /// Appends the elements, row-major.
    fn append_to(&self, elements: &mut Vec<Number>);
}

macro_rules! number_values {
    ($($t:ty)*) => {
        $(impl Values for $t {
            fn shape(&self) -> Option<Shape> {
                Some(Shape::default())
            }
            fn append_to(&self, elements: &mut Vec<Number>) {
                elements.push(Number::from(*self));
            }
        })*
    };
}
number_values!(bool f16 f32 f64 i32 u32 i64 u8 usize);

impl<V: Values> Values for [V] {
    fn shape(&self) -> Option<Shape> {
        let inner = self.first().map_or(Some(Shape::default()), V::shape)?;
        let even = self.iter().all(|row| row.shape().as_ref() == Some(&inner));
        even.then(|| inner.with_inserted(0, self.len()))
    }
    fn append_to(&self, elements: &mut Vec<Number>) {
        for row in self {
            row.append_to(elements);
        }
    }
}

impl<V: Values, const N: usize> Values for [V; N] {
    fn shape(&self) -> Option<Shape> {
        self[..].shape()
    }
    fn append_to(&self, elements: &mut Vec<Number>) {
        self[..].append_to(elements);
    }
}

impl<V: Values> Values for Vec<V> {
    fn shape(&self) -> Option<Shape> {
        self[..].shape()
    }
    fn append_to(&self, elements: &mut Vec<Number>) {
        self[..].append_to(elements);
    }
}

impl<V: Values + ?Sized> Values for &V {
    fn shape(&self) -> Option<Shape> {
        (**self).shape()
    }
    fn append_to(&self, elements: &mut Vec<Number>) {
        (**self).append_to(elements);
    }
}

/// Numbers as an array of a dtype: by default bool for booleans, i32 for integers, f32 for floats.
pub(crate) fn to_data(numbers: &[Number], dtype: Option<DType>) -> Result<Data, ErrorKind> {
    let dtype = dtype.unwrap_or(match numbers.first() {
        Some(Number::Bool(_)) => DType::Bool,
        Some(Number::Int(_)) => DType::I32,
        _ => DType::F32,
    });
    if let Some(&number) = numbers.iter().find(|n| !n.fits(dtype)) {
        return Err(ErrorKind::Number { number, dtype });
    }
    Ok(gradus_ir::with_dtype!(dtype, T => T::wrap(numbers.iter().map(|&n| T::from_number(n)).collect())))
}
