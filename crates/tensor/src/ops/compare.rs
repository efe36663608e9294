//! Comparisons, and choosing by them.

use crate::{Axes, DType, Operand, Tensor};
use gradus_ir::op::{CompareOp, Op};

macro_rules! comparisons {
    ($($(#[$doc:meta])* $name:ident $row:ident;)*) => {
        impl Tensor {
            $($(#[$doc])*
            #[track_caller]
            pub fn $name(&self, other: impl Into<Operand>) -> Tensor {
                let (a, b) = self.broadcast_with(CompareOp::$row.name(), other.into());
                Tensor::record(Op::Compare(CompareOp::$row), &[&a, &b], None)
            })*
        }
    };
}
comparisons! {
    /// Where elements are equal, as a bool tensor. NaN equals nothing.
    eq Eq;
    /// Where elements differ. NaN differs from everything.
    ne Ne;
    /// Where elements are less. NaN compares false.
    lt Lt;
    /// Where elements are less or equal. NaN compares false.
    le Le;
    /// Where elements are greater. NaN compares false.
    gt Gt;
    /// Where elements are greater or equal. NaN compares false.
    ge Ge;
}

impl Tensor {
    /// The op behind `where`, on operands of one shape.
    #[track_caller]
    pub(crate) fn select(condition: &Tensor, then: &Tensor, otherwise: &Tensor) -> Tensor {
        Tensor::record(
            Op::Select,
            &[condition, then, otherwise],
            Some(gradus_ir::op::Type { shape: then.shape().clone(), dtype: then.dtype() }),
        )
    }

    /// `then` where this bool tensor is true, `otherwise` elsewhere; all three broadcast. At least one branch must be a
    /// tensor (two numbers: use a tensor of one of them).
    ///
    /// ```
    /// # use gradus_tensor::{Device, Tensor};
    /// let x = Tensor::new([-1.0, 2.0], &Device::cpu());
    /// let y = x.gt(0.0).where_(&x, 0.0);
    /// assert_eq!(y.to_vec::<f32>()?, [0.0, 2.0]);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    #[track_caller]
    pub fn where_(&self, then: impl Into<Operand>, otherwise: impl Into<Operand>) -> Tensor {
        let (then, otherwise) = match (then.into(), otherwise.into()) {
            (Operand::Tensor(then), otherwise) => {
                let (then, otherwise) = then.broadcast_with("where", otherwise);
                (then.into_owned(), otherwise)
            }
            (then, Operand::Tensor(otherwise)) => {
                let (otherwise, then) = otherwise.broadcast_with("where", then);
                (then, otherwise.into_owned())
            }
            (then, otherwise) => {
                let is_bool = matches!(then, Operand::Number(number) if number.fits(DType::Bool));
                let dtype = if is_bool { DType::Bool } else { DType::F32 };
                let like = Tensor::zeros(self.shape().clone(), (self.device(), dtype));
                let (_, then) = like.broadcast_with("where", then);
                let (_, otherwise) = like.broadcast_with("where", otherwise);
                (then, otherwise)
            }
        };
        let (condition, then) = self.broadcast_with("where", Operand::Tensor(then));
        let otherwise = otherwise.expand_to(then.shape());
        Tensor::select(&condition, &then, &otherwise)
    }

    /// `value` where the bool tensor `mask` (broadcast) is true, this tensor elsewhere.
    #[track_caller]
    pub fn masked_fill(&self, mask: &Tensor, value: impl Into<Operand>) -> Tensor {
        mask.where_(value, self)
    }

    /// Where elements are NaN.
    #[track_caller]
    pub fn is_nan(&self) -> Tensor {
        self.ne(self)
    }

    /// Where elements are neither NaN nor infinite.
    #[track_caller]
    pub fn is_finite(&self) -> Tensor {
        if !self.dtype().is_float() {
            return self.eq(self);
        }
        let infinity = self.constant(f64::INFINITY);
        self.abs().lt(infinity)
    }

    /// Where elements are infinite.
    #[track_caller]
    pub fn is_infinite(&self) -> Tensor {
        if !self.dtype().is_float() {
            return self.ne(self);
        }
        let infinity = self.constant(f64::INFINITY);
        self.abs().eq(infinity)
    }

    /// Whether any element of a bool tensor is true, over `axes`.
    #[track_caller]
    pub fn any(&self, axes: impl Into<Axes>) -> Tensor {
        let count = self.to_dtype(DType::I32).sum(axes);
        let zero = count.constant(0.0);
        count.gt(zero)
    }

    /// Whether all elements of a bool tensor are true, over `axes`.
    #[track_caller]
    pub fn all(&self, axes: impl Into<Axes>) -> Tensor {
        self.logical_not().any(axes).logical_not()
    }
}
