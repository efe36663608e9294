//! Losses of two classes.

use super::{Reduction, fail, misshapen, paired};
use gradus_tensor::graph::with_rule;
use gradus_tensor::{Error, ErrorKind, GradientRule, Shape, Tensor, no_grad};
use std::sync::Arc;

/// The mean binary cross-entropy of logits (before the sigmoid) with targets in 0 ..= 1: −t ln σ(x) − (1 − t) ln(1 − σ(x)),
/// computed as softplus(x) − x t, which never overflows. Shapes must be equal. [`BinaryCrossEntropy`] has weights.
#[track_caller]
pub fn bce_with_logits(logits: &Tensor, targets: &Tensor) -> Tensor {
    bce_with_logits_reduced(logits, targets, Reduction::Mean)
}

/// [`bce_with_logits`] with another reduction.
#[track_caller]
pub fn bce_with_logits_reduced(logits: &Tensor, targets: &Tensor, reduction: Reduction) -> Tensor {
    paired("bce_with_logits", [logits, targets], reduction, |x, t| -(-&x).log_sigmoid() - &x * t)
}

/// Binary cross-entropy of logits with weights: −w (p t ln σ(x) + (1 − t) ln(1 − σ(x))), with a weight p of the positive class and
/// w of each element. Unlike a mean over weighted classes, its mean divides by the number of elements, as in PyTorch.
///
/// ```
/// use gradus_nn::BinaryCrossEntropy;
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let (logits, targets) = (Tensor::zeros([2, 3], &device), Tensor::ones([2, 3], &device));
/// // Of three labels, the last is so rare that its positives count tenfold.
/// let loss = BinaryCrossEntropy::new().positive_weight(&Tensor::new([1.0, 1.0, 10.0], &device)).loss(&logits, &targets);
/// assert!((loss.item::<f32>()? - 4.0 * 2f32.ln()).abs() < 1e-5);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct BinaryCrossEntropy {
    positive_weight: Option<Tensor>,
    weight: Option<Tensor>,
    reduction: Reduction,
}

impl BinaryCrossEntropy {
    /// Equal weights, mean.
    pub fn new() -> BinaryCrossEntropy {
        BinaryCrossEntropy::default()
    }

    /// How much positive targets count, against 1 for negative ones: a tensor that broadcasts to the logits' shape, such as
    /// one number for each label.
    pub fn positive_weight(mut self, weight: &Tensor) -> BinaryCrossEntropy {
        self.positive_weight = Some(weight.clone());
        self
    }

    /// How much each element counts: a tensor that broadcasts to the logits' shape.
    pub fn weight(mut self, weight: &Tensor) -> BinaryCrossEntropy {
        self.weight = Some(weight.clone());
        self
    }

    /// What becomes of the elements.
    pub fn reduction(mut self, reduction: Reduction) -> BinaryCrossEntropy {
        self.reduction = reduction;
        self
    }

    /// The loss of logits with targets in 0 ..= 1, of equal shapes.
    #[track_caller]
    pub fn loss(&self, logits: &Tensor, targets: &Tensor) -> Tensor {
        let op = "binary_cross_entropy";
        for weight in self.positive_weight.iter().chain(&self.weight) {
            // A weight may be smaller than the logits, not larger.
            let fits = weight.shape().broadcast(logits.shape()).as_ref() == Some(logits.shape());
            let expected: &Shape = if fits { weight.shape() } else { logits.shape() };
            if let Some(failed) = misshapen(op, expected, "the weight", weight, logits) {
                return failed;
            }
        }
        paired(op, [logits, targets], self.reduction, |x, t| {
            // −ln σ(x) is softplus(−x).
            let losses = match &self.positive_weight {
                None => -(-&x).log_sigmoid() - &x * t,
                Some(weight) => {
                    let more = &t * (weight.widened() - 1.0) + 1.0;
                    (-t + 1.0) * &x - more * x.log_sigmoid()
                }
            };
            match &self.weight {
                Some(weight) => losses * weight.widened(),
                None => losses,
            }
        })
    }
}

/// The mean binary cross-entropy of probabilities with targets in 0 ..= 1. As in PyTorch, logarithms are −100 at least, and the
/// gradient's denominator p (1 − p) is 10⁻¹² at least. [`bce_with_logits`] loses no digits, and is to be preferred.
///
/// ```
/// use gradus_nn::bce_loss;
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let loss = bce_loss(&Tensor::new([0.5, 0.0], &device), &Tensor::new([1.0, 1.0], &device));
/// assert!((loss.item::<f32>()? - (2f32.ln() + 100.0) / 2.0).abs() < 1e-4);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[track_caller]
pub fn bce_loss(probabilities: &Tensor, targets: &Tensor) -> Tensor {
    bce_loss_reduced(probabilities, targets, Reduction::Mean)
}

/// [`bce_loss`] with another reduction.
#[track_caller]
pub fn bce_loss_reduced(probabilities: &Tensor, targets: &Tensor, reduction: Reduction) -> Tensor {
    paired("bce_loss", [probabilities, targets], reduction, |p, t| {
        let losses = no_grad(|| {
            let [of_one, of_zero] = logarithms(&p);
            (&t - 1.0) * of_zero - &t * of_one
        });
        with_rule(&losses, &[p, t], Arc::new(OfProbabilities))
    })
}

/// ln p and ln(1 − p), −100 at least.
#[track_caller]
fn logarithms(p: &Tensor) -> [Tensor; 2] {
    [p.log().maximum(-100.0), (-p).log1p().maximum(-100.0)]
}

/// The gradient of binary cross-entropy of probabilities, finite where a probability is 0 or 1.
struct OfProbabilities;

impl GradientRule for OfProbabilities {
    fn name(&self) -> &str {
        "bce_loss"
    }

    fn backward(&self, inputs: &[Tensor], _: &Tensor, cotangent: &Tensor, wanted: &[bool]) -> Vec<Option<Tensor>> {
        let (p, t) = (&inputs[0], &inputs[1]);
        // PyTorch has this limit as an f32, also in f64.
        let least = f64::from(1e-12f32);
        let of_p = || (p - t) / ((-p + 1.0) * p).maximum(least) * cotangent;
        let of_t = || {
            let [of_one, of_zero] = logarithms(p);
            (of_zero - of_one) * cotangent
        };
        vec![wanted[0].then(of_p), wanted[1].then(of_t)]
    }
}

/// The focal loss of two classes (Lin et al., "Focal loss for dense object detection", 2017): binary cross-entropy of logits, times
/// α of the class, times (1 − p)^γ, where p is the probability of the target: what is classified well counts less.
///
/// ```
/// use gradus_nn::FocalLoss;
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let loss = FocalLoss::new().loss(&Tensor::new([0.0], &device), &Tensor::new([1.0], &device));
/// assert!((loss.item::<f32>()? - 0.25 * 0.25 * 2f32.ln()).abs() < 1e-6);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct FocalLoss {
    alpha: Option<f64>,
    gamma: f64,
    reduction: Reduction,
}

impl Default for FocalLoss {
    fn default() -> FocalLoss {
        FocalLoss { alpha: Some(0.25), gamma: 2.0, reduction: Reduction::Mean }
    }
}

impl FocalLoss {
    /// α = 0.25, γ = 2, mean.
    pub fn new() -> FocalLoss {
        FocalLoss::default()
    }

    /// The weight of the positive class, in 0 ..= 1; that of the negative one is 1 − α. `None` weights neither.
    pub fn alpha(mut self, alpha: impl Into<Option<f64>>) -> FocalLoss {
        self.alpha = alpha.into();
        self
    }

    /// How little what is classified well counts, at least 0 (which is cross-entropy).
    pub fn gamma(mut self, gamma: f64) -> FocalLoss {
        self.gamma = gamma;
        self
    }

    /// What becomes of the elements.
    pub fn reduction(mut self, reduction: Reduction) -> FocalLoss {
        self.reduction = reduction;
        self
    }

    /// The loss of logits with targets in 0 ..= 1, of equal shapes.
    #[track_caller]
    pub fn loss(&self, logits: &Tensor, targets: &Tensor) -> Tensor {
        if self.gamma.is_nan() || self.gamma < 0.0 {
            let (expected, found) = ("at least 0", self.gamma.to_string());
            let kind = ErrorKind::Argument { argument: "gamma", expected, found };
            return fail(logits, Error::new("focal_loss", kind));
        }
        paired("focal_loss", [logits, targets], self.reduction, |x, t| {
            let cross_entropy = -(-&x).log_sigmoid() - &x * &t;
            let wrong = (-&x).sigmoid() * &t + x.sigmoid() * (1.0 - &t);
            // The gradient of a power with an exponent below 1 is infinite at 0.
            let losses = wrong.maximum(1e-30).pow(self.gamma) * cross_entropy;
            match self.alpha {
                Some(alpha) => losses * (&t * (2.0 * alpha - 1.0) + (1.0 - alpha)),
                None => losses,
            }
        })
    }
}
