//! Losses of distributions.

use super::{Reduction, paired, unequal};
use crate::autocast::widened_input;
use gradus_tensor::Tensor;

/// The Kullback-Leibler divergence of predicted log-probabilities q from target probabilities p: p (ln p − q) for each element,
/// where 0 ln 0 = 0.
///
/// A mean over all elements is seldom what is meant: [`Reduction::BatchMean`], the default here (unlike PyTorch's), divides by the
/// number of examples.
///
/// ```
/// use gradus_nn::KlDivergence;
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let predicted = Tensor::zeros([1, 4], &device).log_softmax(1);
/// let divergence = KlDivergence::new().loss(&predicted, &Tensor::new([[0.0, 1.0, 0.0, 0.0]], &device));
/// assert!((divergence.item::<f32>()? - 4f32.ln()).abs() < 1e-6);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct KlDivergence {
    log_target: bool,
    reduction: Reduction,
}

impl Default for KlDivergence {
    fn default() -> KlDivergence {
        KlDivergence { log_target: false, reduction: Reduction::BatchMean }
    }
}

impl KlDivergence {
    /// Targets are probabilities; the mean over examples.
    pub fn new() -> KlDivergence {
        KlDivergence::default()
    }

    /// Targets are log-probabilities.
    pub fn log_target(mut self) -> KlDivergence {
        self.log_target = true;
        self
    }

    /// What becomes of the elements.
    pub fn reduction(mut self, reduction: Reduction) -> KlDivergence {
        self.reduction = reduction;
        self
    }

    /// The divergence of log-probabilities `predicted` from `target`, of equal shapes.
    #[track_caller]
    pub fn loss(&self, predicted: &Tensor, target: &Tensor) -> Tensor {
        paired("kl_divergence", [predicted, target], self.reduction, |q, p| {
            // What is impossible counts for nothing, also where −∞ is predicted for it.
            if self.log_target {
                let impossible = p.eq(f64::NEG_INFINITY);
                let [p, q] = [p, q].map(|x| impossible.where_(0.0, &x));
                return impossible.where_(0.0, p.exp() * (&p - q));
            }
            let impossible = p.eq(0.0);
            let (safe, q) = (impossible.where_(1.0, &p), impossible.where_(0.0, &q));
            impossible.where_(0.0, &p * (safe.log() - q))
        })
    }
}

/// The negative logarithm of a normal density with predicted mean and variance: ½ (ln v + (mean − target)² / v), with v at least
/// ε (Nix, Weigend 1994). The gradient passes the limit ε, as in PyTorch.
///
/// ```
/// use gradus_nn::GaussianNll;
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let [mean, target, variance] = [1.0, 3.0, 4.0].map(|x| Tensor::new([x], &device));
/// let loss = GaussianNll::new().loss(&mean, &target, &variance);
/// assert!((loss.item::<f32>()? - 0.5 * (4f32.ln() + 1.0)).abs() < 1e-6);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct GaussianNll {
    full: bool,
    epsilon: f64,
    reduction: Reduction,
}

impl Default for GaussianNll {
    fn default() -> GaussianNll {
        GaussianNll { full: false, epsilon: 1e-6, reduction: Reduction::Mean }
    }
}

impl GaussianNll {
    /// Without the constant ½ ln 2π, ε = 10⁻⁶, mean.
    pub fn new() -> GaussianNll {
        GaussianNll::default()
    }

    /// With the constant.
    pub fn full(mut self) -> GaussianNll {
        self.full = true;
        self
    }

    /// The least variance.
    pub fn epsilon(mut self, epsilon: f64) -> GaussianNll {
        self.epsilon = epsilon;
        self
    }

    /// What becomes of the elements.
    pub fn reduction(mut self, reduction: Reduction) -> GaussianNll {
        self.reduction = reduction;
        self
    }

    /// The loss; all three have equal shapes.
    #[track_caller]
    pub fn loss(&self, mean: &Tensor, target: &Tensor, variance: &Tensor) -> Tensor {
        let op = "gaussian_nll";
        let (mean, variance) = (&widened_input(mean), &widened_input(variance));
        if let Some(failed) = unequal(op, mean, "the variance", variance) {
            return failed;
        }
        paired(op, [mean, target], self.reduction, |mean, target| {
            let variance = variance.widened();
            let limited = &variance + (variance.maximum(self.epsilon) - &variance).detach();
            let losses = (limited.log() + (mean - target).square() / &limited) * 0.5;
            if self.full { losses + 0.5 * std::f64::consts::TAU.ln() } else { losses }
        })
    }
}

/// The negative logarithm of a Poisson density of counts, but for what does not depend on the prediction: eˣ − t x of a predicted
/// logarithm of the rate.
///
/// ```
/// use gradus_nn::PoissonNll;
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let loss = PoissonNll::new().loss(&Tensor::new([0.0], &device), &Tensor::new([3.0], &device));
/// assert_eq!(loss.item::<f32>()?, 1.0);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PoissonNll {
    of_rates: bool,
    full: bool,
    epsilon: f64,
    reduction: Reduction,
}

impl Default for PoissonNll {
    fn default() -> PoissonNll {
        PoissonNll { of_rates: false, full: false, epsilon: 1e-8, reduction: Reduction::Mean }
    }
}

impl PoissonNll {
    /// Predictions are logarithms of rates; without Stirling's term; mean.
    pub fn new() -> PoissonNll {
        PoissonNll::default()
    }

    /// Predictions are rates x themselves: x − t ln(x + ε).
    pub fn of_rates(mut self) -> PoissonNll {
        self.of_rates = true;
        self
    }

    /// With Stirling's approximation of ln t!, for targets above 1: t ln t − t + ½ ln 2πt.
    pub fn full(mut self) -> PoissonNll {
        self.full = true;
        self
    }

    /// ε, 10⁻⁸ unless set.
    pub fn epsilon(mut self, epsilon: f64) -> PoissonNll {
        self.epsilon = epsilon;
        self
    }

    /// What becomes of the elements.
    pub fn reduction(mut self, reduction: Reduction) -> PoissonNll {
        self.reduction = reduction;
        self
    }

    /// The loss of predictions with counts, of equal shapes.
    #[track_caller]
    pub fn loss(&self, prediction: &Tensor, target: &Tensor) -> Tensor {
        paired("poisson_nll", [prediction, target], self.reduction, |x, t| {
            let losses = if self.of_rates { &x - &t * (&x + self.epsilon).log() } else { x.exp() - &t * &x };
            if !self.full {
                return losses;
            }
            let above = t.gt(1.0);
            let safe = above.where_(&t, 1.0);
            let stirling = &safe * safe.log() - &safe + (&safe * std::f64::consts::TAU).log() * 0.5;
            losses + above.where_(stirling, 0.0)
        })
    }
}
