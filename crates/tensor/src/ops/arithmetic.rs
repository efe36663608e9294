//! Arithmetic: operators, and the element-wise functions.

use crate::{DType, Operand, Tensor};
use gradus_ir::op::{BinaryOp, Op, Type, UnaryOp};

impl Tensor {
    #[track_caller]
    pub(crate) fn unary(&self, op: UnaryOp) -> Tensor {
        Tensor::record(Op::Unary(op), &[self], None)
    }

    #[track_caller]
    pub(crate) fn binary(&self, op: BinaryOp, other: Operand) -> Tensor {
        let (a, b) = self.broadcast_with(op.name(), other);
        Tensor::record(Op::Binary(op), &[&a, &b], None)
    }
}

/// Functions of one tensor that are rows of the op table.
macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident $row:ident;)*) => {
        impl Tensor {
            $($(#[$doc])*
            #[track_caller]
            pub fn $name(&self) -> Tensor {
                self.unary(UnaryOp::$row)
            }
            )*
        }
    };
}
functions! {
    /// |x|, element by element.
    abs Abs;
    /// −1, 0 or 1; NaN stays NaN. Its gradient is zero.
    sign Sign;
    /// x².
    square Square;
    /// 1 / x.
    recip Recip;
    /// √x; NaN below 0.
    sqrt Sqrt;
    /// 1 / √x.
    rsqrt Rsqrt;
    /// eˣ.
    exp Exp;
    /// eˣ − 1, exact near 0.
    expm1 Expm1;
    /// Natural logarithm.
    log Log;
    /// ln(1 + x), exact near 0.
    log1p Log1p;
    /// Sine of radians.
    sin Sin;
    /// Cosine of radians.
    cos Cos;
    /// Tangent of radians.
    tan Tan;
    /// Inverse tangent.
    atan Atan;
    /// Hyperbolic tangent.
    tanh Tanh;
    /// 1 / (1 + e⁻ˣ).
    sigmoid Sigmoid;
    /// The error function.
    erf Erf;
    /// max(x, 0); NaN stays NaN, the gradient at 0 is 0.
    relu Relu;
    /// The largest integer not above x. Its gradient is zero.
    floor Floor;
    /// The smallest integer not below x. Its gradient is zero.
    ceil Ceil;
    /// The nearest integer, ties to even. Its gradient is zero.
    round Round;
    /// x without its fraction. Its gradient is zero.
    trunc Trunc;
    /// Logical negation of a bool tensor.
    logical_not Not;
}

/// Functions of two tensors (or a tensor and a number), broadcast to one shape.
macro_rules! functions_of_two {
    ($($(#[$doc:meta])* $name:ident $row:ident;)*) => {
        impl Tensor {
            $($(#[$doc])*
            #[track_caller]
            pub fn $name(&self, other: impl Into<Operand>) -> Tensor {
                self.binary(BinaryOp::$row, other.into())
            })*
        }
    };
}
functions_of_two! {
    /// xʸ; integer exponents of negative bases are right, others give NaN.
    pow Pow;
    /// The larger of two; NaN wins; equal elements share the gradient evenly.
    maximum Max;
    /// The smaller of two; NaN wins; equal elements share the gradient evenly.
    minimum Min;
    /// Logical and of bool tensors.
    logical_and And;
    /// Logical or of bool tensors.
    logical_or Or;
    /// Exclusive or of bool tensors.
    logical_xor Xor;
}

impl Tensor {
    /// x raised to a fixed integer power, by repeated multiplication.
    ///
    /// ```
    /// # use gradus_tensor::{Device, Tensor};
    /// let x = Tensor::new([-2.0, 0.5], &Device::cpu());
    /// assert_eq!(x.powi(3).to_vec::<f32>()?, [-8.0, 0.125]);
    /// # Ok::<(), gradus_tensor::Error>(())
    /// ```
    #[track_caller]
    pub fn powi(&self, exponent: i32) -> Tensor {
        let mut result: Option<Tensor> = None;
        let (mut square, mut rest) = (self.clone(), exponent.unsigned_abs());
        while rest > 0 {
            if rest & 1 == 1 {
                result = Some(match result {
                    Some(power) => power * &square,
                    None => square.clone(),
                });
            }
            rest >>= 1;
            if rest > 0 {
                square = square.square();
            }
        }
        let power = result.unwrap_or_else(|| self.constant(1.0));
        if exponent < 0 { power.recip() } else { power }
    }

    /// x limited to `low ..= high`; NaN stays NaN, and the gradient at a limit is that of x.
    #[track_caller]
    pub fn clamp(&self, low: impl Into<Operand>, high: impl Into<Operand>) -> Tensor {
        let (x, low) = self.broadcast_with("clamp", low.into());
        let raised = Tensor::select(&x.lt(&low), &low, &x);
        let (x, high) = raised.broadcast_with("clamp", high.into());
        Tensor::select(&x.gt(&high), &high, &x)
    }

    /// Hyperbolic sine.
    #[track_caller]
    pub fn sinh(&self) -> Tensor {
        // (e − 1/e)/2 in terms of e − 1, exact near 0
        let e = self.expm1();
        (&e + &e / (&e + e.constant(1.0))) * e.constant(0.5)
    }

    /// Hyperbolic cosine.
    #[track_caller]
    pub fn cosh(&self) -> Tensor {
        (self.exp() + (-self).exp()) * self.constant(0.5)
    }

    /// The elements converted to another dtype: floats truncate and saturate to integers, NaN to 0; integers wrap;
    /// bool is 0 or 1, and from numbers it is "not 0". Gradients flow between float dtypes only.
    #[track_caller]
    pub fn to_dtype(&self, dtype: DType) -> Tensor {
        if self.dtype() == dtype {
            return self.clone();
        }
        Tensor::record(Op::Cast, &[self], Some(Type { shape: self.shape().clone(), dtype }))
    }

    /// The same as f32, if it is of f16: for what adds up much before it is rounded.
    #[track_caller]
    pub fn widened(&self) -> Tensor {
        self.to_dtype(self.dtype().computed())
    }
}

/// The operators of `std::ops`, for tensors by value and by reference, and numbers on either side.
macro_rules! operators {
    ($($(#[$doc:meta])* $trait:ident $method:ident $row:ident;)*) => {
        $(impl<T: Into<Operand>> std::ops::$trait<T> for &Tensor {
            type Output = Tensor;
            $(#[$doc])*
            #[track_caller]
            fn $method(self, other: T) -> Tensor {
                self.binary(BinaryOp::$row, other.into())
            }
        }
        impl<T: Into<Operand>> std::ops::$trait<T> for Tensor {
            type Output = Tensor;
            $(#[$doc])*
            #[track_caller]
            fn $method(self, other: T) -> Tensor {
                self.binary(BinaryOp::$row, other.into())
            }
        }
        operators!(number $trait $method $row: f32 f64 i32 u32 i64);)*
    };
    (number $trait:ident $method:ident $row:ident: $($number:ty)*) => {
        $(impl std::ops::$trait<&Tensor> for $number {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, tensor: &Tensor) -> Tensor {
                tensor.scalar(self.into()).binary(BinaryOp::$row, tensor.into())
            }
        }
        impl std::ops::$trait<Tensor> for $number {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, tensor: Tensor) -> Tensor {
                tensor.scalar(self.into()).binary(BinaryOp::$row, tensor.into())
            }
        })*
    };
}
operators! {
    /// The sum, broadcast.
    Add add Add;
    /// The difference, broadcast.
    Sub sub Sub;
    /// The element-wise product, broadcast.
    Mul mul Mul;
    /// The quotient, broadcast; integers round down and x / 0 = 0.
    Div div Div;
    /// The remainder with the sign of the divisor, as in Python; for integers x % 0 = 0.
    Rem rem Rem;
}

impl std::ops::Neg for &Tensor {
    type Output = Tensor;
    #[track_caller]
    fn neg(self) -> Tensor {
        self.unary(UnaryOp::Neg)
    }
}

impl std::ops::Neg for Tensor {
    type Output = Tensor;
    #[track_caller]
    fn neg(self) -> Tensor {
        self.unary(UnaryOp::Neg)
    }
}
