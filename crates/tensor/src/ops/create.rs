//! New tensors: from values, constant, counted, and triangular.

use crate::operand::to_data;
use crate::{DType, Device, Element, Error, Placement, Tensor, Values};
use gradus_ir::op::{CompareOp, Op};
use gradus_ir::{Error as ErrorKind, Number, Shape, with_dtype};

impl Tensor {
    /// A tensor of Rust values: a number, or nested arrays or vectors of them. Floats become f32, integers i32 and
    /// booleans bool, unless the placement names a dtype.
    ///
    /// ```
    /// # use gradus_tensor::{Device, DType, Tensor};
    /// let device = Device::cpu();
    /// assert_eq!(Tensor::new([[1.0, 2.0]], &device).dtype(), DType::F32);
    /// assert_eq!(Tensor::new(vec![1, 2], (&device, DType::F64)).shape()[..], [2]);
    /// ```
    #[track_caller]
    pub fn new(values: impl Values, on: impl Into<Placement>) -> Tensor {
        let Placement { device, dtype } = on.into();
        let Some(shape) = values.shape() else {
            let (expected, found) = ("rows of equal length", "rows of different lengths".into());
            let kind = ErrorKind::Argument { argument: "values", expected, found };
            return Tensor::failed(Error::new("new", kind), &device);
        };
        let mut numbers = Vec::with_capacity(shape.numel());
        values.append_to(&mut numbers);
        match to_data(&numbers, dtype) {
            Ok(data) => Tensor::upload(data, shape, &device),
            Err(kind) => Tensor::failed(Error::new("new", kind), &device),
        }
    }

    /// A tensor from a flat vector, row-major. The dtype is that of `T`, unless the placement names another.
    #[track_caller]
    pub fn from_vec<T: Element>(values: Vec<T>, shape: impl Into<Shape>, on: impl Into<Placement>) -> Tensor {
        let Placement { device, dtype } = on.into();
        let dtype = dtype.unwrap_or(T::DTYPE);
        if matches!(T::DTYPE, DType::F16 | DType::F64) && dtype != T::DTYPE {
            // Here, for devices without them.
            let data = with_dtype!(dtype, U => U::wrap(values.iter().map(|x| U::from_number(x.to_number())).collect()));
            return Tensor::upload(data, shape.into(), &device);
        }
        Tensor::upload(T::wrap(values), shape.into(), &device).to_dtype(dtype)
    }

    /// Zeros (false for bool); f32 unless the placement names a dtype.
    #[track_caller]
    pub fn zeros(shape: impl Into<Shape>, on: impl Into<Placement>) -> Tensor {
        Tensor::constant_of(shape.into(), 0.0, on.into())
    }

    /// Ones (true for bool); f32 unless the placement names a dtype.
    #[track_caller]
    pub fn ones(shape: impl Into<Shape>, on: impl Into<Placement>) -> Tensor {
        Tensor::constant_of(shape.into(), 1.0, on.into())
    }

    #[track_caller]
    fn constant_of(shape: Shape, value: f64, on: Placement) -> Tensor {
        let dtype = on.dtype.unwrap_or(DType::F32);
        let number = match dtype {
            DType::Bool => Number::Bool(value != 0.0),
            DType::I32 | DType::U32 => Number::Int(value as i64),
            DType::F16 | DType::F32 | DType::F64 => Number::Float(value),
        };
        Tensor::source(Op::Const(number), None, shape, dtype, &on.device)
    }

    /// One number everywhere; f32 for a float, i32 for an integer, bool for a bool, unless the placement names a dtype.
    #[track_caller]
    pub fn full(shape: impl Into<Shape>, value: impl Into<Number>, on: impl Into<Placement>) -> Tensor {
        let (number, on) = (value.into(), on.into());
        let dtype = on.dtype.unwrap_or(match number {
            Number::Bool(_) => DType::Bool,
            Number::Int(_) => DType::I32,
            Number::Float(_) => DType::F32,
        });
        if !number.fits(dtype) {
            return Tensor::failed(Error::new("full", ErrorKind::Number { number, dtype }), &on.device);
        }
        Tensor::source(Op::Scalar(0), Some(number), shape.into(), dtype, &on.device)
    }

    /// Zeros of the shape, dtype and device of this tensor.
    #[track_caller]
    pub fn zeros_like(&self) -> Tensor {
        if self.error().is_some() { self.clone() } else { Tensor::zeros(self.shape(), self) }
    }

    /// Ones of the shape, dtype and device of this tensor.
    #[track_caller]
    pub fn ones_like(&self) -> Tensor {
        if self.error().is_some() { self.clone() } else { Tensor::ones(self.shape(), self) }
    }

    /// 0, 1, … , `count` − 1; i32 unless the placement names a dtype.
    #[track_caller]
    pub fn arange(count: usize, on: impl Into<Placement>) -> Tensor {
        let Placement { device, dtype } = on.into();
        Tensor::source(Op::Iota(0), None, Shape::new(&[count]), dtype.unwrap_or(DType::I32), &device)
    }

    /// The index along an axis of a shape, as i32.
    #[track_caller]
    pub(crate) fn iota(shape: Shape, axis: usize, device: &Device) -> Tensor {
        Tensor::source(Op::Iota(axis), None, shape, DType::I32, device)
    }

    /// `count` numbers from `start` to `end`, both included, at equal distances; f32 unless the placement names a dtype.
    ///
    /// ```
    /// # use gradus_tensor::{Device, Tensor};
    /// let x = Tensor::linspace(0.0, 1.0, 5, &Device::cpu());
    /// assert_eq!(x.to_vec::<f32>()?, [0.0, 0.25, 0.5, 0.75, 1.0]);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    #[track_caller]
    pub fn linspace(start: f64, end: f64, count: usize, on: impl Into<Placement>) -> Tensor {
        let Placement { device, dtype } = on.into();
        let index = Tensor::arange(count, (&device, dtype.unwrap_or(DType::F32)));
        // Each half counts from its own end, so that both ends are exact.
        let step = if count > 1 { (end - start) / (count - 1) as f64 } else { 0.0 };
        let up = &index * step + start;
        let down = (&index - (count.max(1) - 1) as f64) * step + end;
        index.lt((count as f64 / 2.0).max(1.0)).where_(up, down)
    }

    /// The identity matrix.
    #[track_caller]
    pub fn eye(n: usize, on: impl Into<Placement>) -> Tensor {
        let Placement { device, dtype } = on.into();
        let shape = Shape::new(&[n, n]);
        let diagonal = Tensor::iota(shape.clone(), 0, &device).eq(Tensor::iota(shape, 1, &device));
        diagonal.to_dtype(dtype.unwrap_or(DType::F32))
    }

    /// The lower triangle of the last two axes, zero above diagonal `diagonal` (0 is the main one, 1 the next above).
    #[track_caller]
    pub fn tril(&self, diagonal: isize) -> Tensor {
        self.triangle("tril", CompareOp::Le, diagonal)
    }

    /// The upper triangle of the last two axes, zero below diagonal `diagonal`.
    #[track_caller]
    pub fn triu(&self, diagonal: isize) -> Tensor {
        self.triangle("triu", CompareOp::Ge, diagonal)
    }

    /// What lies where column `compare` row + `diagonal`.
    #[track_caller]
    fn triangle(&self, op: &'static str, compare: CompareOp, diagonal: isize) -> Tensor {
        let rank = self.rank();
        if self.error().is_some() || rank < 2 {
            let kind = ErrorKind::Rank { expected: "at least rank 2".into(), shape: self.shape().clone() };
            return self.fail(op, kind);
        }
        let row = Tensor::iota(self.shape().clone(), rank - 2, self.device());
        let column = Tensor::iota(self.shape().clone(), rank - 1, self.device());
        let keep = Tensor::record(Op::Compare(compare), &[&column, &(row + diagonal as i64)], None);
        Tensor::select(&keep, self, &self.zeros_like())
    }
}
