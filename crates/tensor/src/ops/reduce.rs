//! Reductions, and what is composed of them: in f32 where it is of f16, which many sums would leave, and rounded at the
//! end.

use crate::{Axes, Tensor};
use gradus_ir::Error as ErrorKind;
use gradus_ir::op::{Op, ReduceOp};

impl Tensor {
    #[track_caller]
    fn reduce(&self, op: ReduceOp, axes: &Axes, keepdim: bool) -> Tensor {
        if self.error().is_some() {
            return self.clone();
        }
        let positions = match self.axes(axes) {
            Ok(positions) => positions,
            Err(kind) => return self.fail(op.name(), kind),
        };
        let reduced = Tensor::record(Op::Reduce(op, positions.clone()), &[self], None);
        if keepdim || reduced.error().is_some() { reduced } else { reduced.reshape(self.shape().without(&positions)) }
    }

    /// How many elements go into each result of a reduction.
    fn count(&self, axes: &Axes) -> f64 {
        self.axes(axes).map_or(1.0, |axes| axes.iter().map(|&a| self.shape()[a] as f64).product())
    }
}

macro_rules! reductions {
    ($($(#[$doc:meta])* $name:ident $keepdim:ident $op:ident;)*) => {
        impl Tensor {
            $($(#[$doc])*
            #[track_caller]
            pub fn $name(&self, axes: impl Into<Axes>) -> Tensor {
                self.reduce(ReduceOp::$op, &axes.into(), false)
            }

            #[doc = concat!("[`", stringify!($name), "`](Tensor::", stringify!($name), "), with the reduced axes kept at extent 1.")]
            #[track_caller]
            pub fn $keepdim(&self, axes: impl Into<Axes>) -> Tensor {
                self.reduce(ReduceOp::$op, &axes.into(), true)
            })*
        }
    };
}
reductions! {
    /// The sum over axes (`1`, `[0, 2]`, or `..` for all); 0 of nothing.
    ///
    /// ```
    /// # use gradus_tensor::{Device, Tensor};
    /// let x = Tensor::new([[1, 2], [3, 4]], &Device::cpu());
    /// assert_eq!(x.sum(0).to_vec::<i32>()?, [4, 6]);
    /// assert_eq!(x.sum(..).item::<i32>()?, 10);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    sum sum_keepdim Sum;
    /// The product over axes; 1 of nothing.
    prod prod_keepdim Prod;
    /// The largest element over axes; NaN wins; equal elements share the gradient evenly. An error of nothing.
    max max_keepdim Max;
    /// The smallest element over axes; NaN wins; equal elements share the gradient evenly. An error of nothing.
    min min_keepdim Min;
}

impl Tensor {
    /// The index (i32) of the first largest element along an axis; the first NaN wins.
    #[track_caller]
    pub fn argmax(&self, axis: isize) -> Tensor {
        self.reduce(ReduceOp::ArgMax, &axis.into(), false)
    }

    /// The index (i32) of the first smallest element along an axis; the first NaN wins.
    #[track_caller]
    pub fn argmin(&self, axis: isize) -> Tensor {
        self.reduce(ReduceOp::ArgMin, &axis.into(), false)
    }

    /// The mean over axes; NaN of nothing. Floats only.
    #[track_caller]
    pub fn mean(&self, axes: impl Into<Axes>) -> Tensor {
        self.mean_of(&axes.into(), false)
    }

    /// [`mean`](Tensor::mean), with the reduced axes kept at extent 1.
    #[track_caller]
    pub fn mean_keepdim(&self, axes: impl Into<Axes>) -> Tensor {
        self.mean_of(&axes.into(), true)
    }

    #[track_caller]
    fn mean_of(&self, axes: &Axes, keepdim: bool) -> Tensor {
        if let Some(failed) = self.needs_floats("mean") {
            return failed;
        }
        let sum = self.widened().reduce(ReduceOp::Sum, axes, keepdim);
        let count = sum.constant(self.count(axes));
        (sum / count).to_dtype(self.dtype())
    }

    #[track_caller]
    fn needs_floats(&self, op: &'static str) -> Option<Tensor> {
        if self.dtype().is_float() {
            return None;
        }
        Some(self.fail(op, ErrorKind::DType { expected: "a float dtype", found: self.dtype() }))
    }

    /// The variance over axes: mean squared distance from the mean, with n − `correction` in place of n (0: of a
    /// population; 1: estimated from a sample).
    #[track_caller]
    pub fn var(&self, axes: impl Into<Axes>, correction: usize) -> Tensor {
        self.var_of(&axes.into(), correction, false)
    }

    /// [`var`](Tensor::var), with the reduced axes kept at extent 1.
    #[track_caller]
    pub fn var_keepdim(&self, axes: impl Into<Axes>, correction: usize) -> Tensor {
        self.var_of(&axes.into(), correction, true)
    }

    #[track_caller]
    fn var_of(&self, axes: &Axes, correction: usize, keepdim: bool) -> Tensor {
        if let Some(failed) = self.needs_floats("var") {
            return failed;
        }
        let x = self.widened();
        let squares = (&x - x.mean_of(axes, true)).square().reduce(ReduceOp::Sum, axes, keepdim);
        let divisor = squares.constant((self.count(axes) - correction as f64).max(0.0));
        (squares / divisor).to_dtype(self.dtype())
    }

    /// The standard deviation over axes; see [`var`](Tensor::var).
    #[track_caller]
    pub fn std(&self, axes: impl Into<Axes>, correction: usize) -> Tensor {
        self.widened().var(axes, correction).sqrt().to_dtype(self.dtype())
    }

    /// The Euclidean norm over axes. Its gradient at 0 is 0.
    #[track_caller]
    pub fn norm(&self, axes: impl Into<Axes>) -> Tensor {
        safe_sqrt(&self.widened().square().sum(axes)).to_dtype(self.dtype())
    }

    /// [`norm`](Tensor::norm), with the reduced axes kept at extent 1.
    #[track_caller]
    pub fn norm_keepdim(&self, axes: impl Into<Axes>) -> Tensor {
        safe_sqrt(&self.widened().square().sum_keepdim(axes)).to_dtype(self.dtype())
    }

    /// ln Σ eˣ over axes, without overflow.
    #[track_caller]
    pub fn logsumexp(&self, axes: impl Into<Axes>) -> Tensor {
        let axes = axes.into();
        let x = self.widened();
        let largest = x.max_keepdim(axes.clone()).detach();
        // An infinite largest element is not subtracted: ∞ − ∞ has no value.
        let shift = Tensor::select(&largest.is_finite(), &largest, &largest.zeros_like());
        let sum = (x - &shift).exp().sum_keepdim(axes.clone());
        let result = (sum.log() + shift).to_dtype(self.dtype());
        match self.axes(&axes) {
            Ok(positions) => result.reshape(self.shape().without(&positions)),
            Err(_) => result,
        }
    }

    /// eˣ / Σ eˣ along an axis (or several), without overflow.
    ///
    /// ```
    /// # use gradus_tensor::{Device, Tensor};
    /// let p = Tensor::new([1000.0, 1000.0], &Device::cpu()).softmax(-1);
    /// assert_eq!(p.to_vec::<f32>()?, [0.5, 0.5]);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    #[track_caller]
    pub fn softmax(&self, axes: impl Into<Axes>) -> Tensor {
        let axes = axes.into();
        if self.is_empty_over(&axes) {
            return self.clone();
        }
        let x = self.widened();
        let e = (&x - x.max_keepdim(axes.clone()).detach()).exp();
        (&e / e.sum_keepdim(axes)).to_dtype(self.dtype())
    }

    /// Whether there is no element, so that a softmax over these axes has nothing to do.
    fn is_empty_over(&self, axes: &Axes) -> bool {
        self.error().is_none() && self.numel() == 0 && self.axes(axes).is_ok()
    }

    /// ln softmax along an axis (or several), without overflow or loss of small probabilities.
    #[track_caller]
    pub fn log_softmax(&self, axes: impl Into<Axes>) -> Tensor {
        let axes = axes.into();
        if self.is_empty_over(&axes) {
            return self.clone();
        }
        let x = self.widened();
        let shifted = &x - x.max_keepdim(axes.clone()).detach();
        (&shifted - shifted.exp().sum_keepdim(axes).log()).to_dtype(self.dtype())
    }
}

/// √x whose gradient at 0 is 0.
#[track_caller]
fn safe_sqrt(x: &Tensor) -> Tensor {
    let positive = x.gt(x.constant(0.0));
    let root = Tensor::select(&positive, x, &x.ones_like()).sqrt();
    // NaN is not positive, and must stay.
    Tensor::select(&positive, &root, x)
}
