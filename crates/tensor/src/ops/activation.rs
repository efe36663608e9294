//! Activation functions, composed of rows. Definitions follow PyTorch's, also at kinks.

use crate::{Number, Operand, Tensor};
use gradus_ir::op::UnaryOp;

impl Tensor {
    /// max(x, 0) + `slope` · min(x, 0).
    #[track_caller]
    pub fn leaky_relu(&self, slope: f64) -> Tensor {
        let positive = self.gt(self.constant(0.0));
        Tensor::select(&positive, self, &(self * slope))
    }

    /// x where positive, `weight` · x elsewhere; the weight broadcasts.
    #[track_caller]
    pub fn prelu(&self, weight: impl Into<Operand>) -> Tensor {
        let (x, weight) = self.broadcast_with("prelu", weight.into());
        Tensor::select(&x.gt(x.constant(0.0)), &x, &(&*x * weight))
    }

    /// x where positive, `alpha` (eˣ − 1) elsewhere (Clevert et al. 2016).
    #[track_caller]
    pub fn elu(&self, alpha: f64) -> Tensor {
        let (positive, below) = self.split_at_zero();
        Tensor::select(&positive, self, &(below.expm1() * alpha))
    }

    /// x where positive, `alpha` (e^(x/alpha) − 1) elsewhere (Barron 2017).
    #[track_caller]
    pub fn celu(&self, alpha: f64) -> Tensor {
        let (positive, below) = self.split_at_zero();
        Tensor::select(&positive, self, &((below / alpha).expm1() * alpha))
    }

    /// The self-normalising unit, λ · elu(x, α) with the constants of Klambauer et al. 2017.
    #[track_caller]
    pub fn selu(&self) -> Tensor {
        const ALPHA: f64 = 1.673_263_242_354_377_2;
        const SCALE: f64 = 1.050_700_987_355_480_5;
        let (positive, below) = self.split_at_zero();
        let negative = below.expm1() * self.constant(ALPHA);
        Tensor::select(&positive, self, &negative) * self.constant(SCALE)
    }

    /// Where x is positive, and x with its positive part set to 0, so that exponentials do not overflow there.
    #[track_caller]
    fn split_at_zero(&self) -> (Tensor, Tensor) {
        let zero = self.constant(0.0);
        let positive = self.gt(&zero);
        let below = Tensor::select(&positive, &zero, self);
        (positive, below)
    }

    /// x · Φ(x) with the normal distribution function Φ (Hendrycks, Gimpel 2016).
    #[track_caller]
    pub fn gelu(&self) -> Tensor {
        let phi = (self * self.constant(std::f64::consts::FRAC_1_SQRT_2)).erf() + self.constant(1.0);
        phi * self.constant(0.5) * self
    }

    /// The tanh approximation of [`gelu`](Tensor::gelu).
    #[track_caller]
    pub fn gelu_tanh(&self) -> Tensor {
        // √(2/π) (x + 0.044715 x³)
        const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;
        let cubic = self.square() * self.constant(0.044715) + self.constant(1.0);
        let inner = self * self.constant(SQRT_2_OVER_PI) * cubic;
        (inner.tanh() + self.constant(1.0)) * self.constant(0.5) * self
    }

    /// x · sigmoid(x), also called swish (Elfwing et al. 2017).
    #[track_caller]
    pub fn silu(&self) -> Tensor {
        self * self.sigmoid()
    }

    /// x · tanh(softplus(x)) (Misra 2019).
    #[track_caller]
    pub fn mish(&self) -> Tensor {
        self * self.unary(UnaryOp::Softplus).tanh()
    }

    /// ln(1 + e^(`beta` x)) / `beta`, and x itself where `beta` x exceeds `threshold`.
    #[track_caller]
    pub fn softplus(&self, beta: f64, threshold: f64) -> Tensor {
        let scaled = self * beta;
        let linear = scaled.gt(threshold);
        Tensor::select(&linear, self, &(scaled.unary(UnaryOp::Softplus) / beta))
    }

    /// ln sigmoid(x), without overflow.
    #[track_caller]
    pub fn log_sigmoid(&self) -> Tensor {
        -(-self).unary(UnaryOp::Softplus)
    }

    /// x / (1 + |x|).
    #[track_caller]
    pub fn softsign(&self) -> Tensor {
        self / (self.abs() + self.constant(1.0))
    }

    /// x limited to −1 ..= 1; the gradient is 0 at the limits.
    #[track_caller]
    pub fn hardtanh(&self) -> Tensor {
        self.limited(-1.0, 1.0)
    }

    /// x limited to 0 ..= 6; the gradient is 0 at the limits.
    #[track_caller]
    pub fn relu6(&self) -> Tensor {
        self.limited(0.0, 6.0)
    }

    /// x/6 + 1/2 limited to 0 ..= 1; the gradient is 0 at the limits.
    #[track_caller]
    pub fn hardsigmoid(&self) -> Tensor {
        (self * self.constant(1.0 / 6.0) + self.constant(0.5)).limited(0.0, 1.0)
    }

    /// x · hardsigmoid(x).
    #[track_caller]
    pub fn hardswish(&self) -> Tensor {
        let (three, zero) = (self.constant(3.0), self.constant(0.0));
        let (left, right) = (self.le(-&three), self.ge(&three));
        // The parabola sees only what it is for: its derivative at infinity, times 0, would be NaN.
        let inner = Tensor::select(&left, &zero, &Tensor::select(&right, &zero, self));
        let middle = &inner * (&inner + &three) * self.constant(1.0 / 6.0);
        Tensor::select(&left, &zero, &Tensor::select(&right, self, &middle))
    }

    /// x − tanh(x).
    #[track_caller]
    pub fn tanhshrink(&self) -> Tensor {
        self - self.tanh()
    }

    /// x moved towards 0 by `lambda`, and 0 within it.
    #[track_caller]
    pub fn softshrink(&self, lambda: f64) -> Tensor {
        let shrunk = self - self.sign() * lambda;
        self.beyond(lambda, &shrunk)
    }

    /// x, and 0 where |x| is at most `lambda`.
    #[track_caller]
    pub fn hardshrink(&self, lambda: f64) -> Tensor {
        self.beyond(lambda, self)
    }

    /// The first half of an axis times the sigmoid of the second (Dauphin et al. 2016). The extent must be even.
    #[track_caller]
    pub fn glu(&self, axis: isize) -> Tensor {
        let half = self.axis(axis).map_or(0, |a| self.shape()[a].div_ceil(2));
        let halves = self.split(axis, &[half, half]);
        &halves[0] * halves[1].sigmoid()
    }

    #[track_caller]
    fn limited(&self, low: f64, high: f64) -> Tensor {
        let (low, high) = (self.constant(low), self.constant(high));
        let raised = Tensor::select(&self.le(&low), &low, self);
        Tensor::select(&raised.ge(&high), &high, &raised)
    }

    /// `value` where |x| > `lambda`, 0 elsewhere (NaN stays).
    #[track_caller]
    fn beyond(&self, lambda: f64, value: &Tensor) -> Tensor {
        let within = self.abs().le(Number::from(lambda).to_f64());
        Tensor::select(&within, &self.zeros_like(), value)
    }
}
