//! Cross-entropy of several classes.

use super::{Reduction, fail, in_f32, misshapen, unequal};
use crate::autocast::widened_input;
use gradus_tensor::{DType, Error, ErrorKind, Shape, Tensor};

/// The mean cross-entropy of `logits [n, classes, …]` (before the softmax) with class indices `targets [n, …]` (i32 or
/// u32). [`CrossEntropy`] has options.
///
/// ```
/// use gradus_nn::cross_entropy;
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let logits = Tensor::zeros([2, 4], &device);
/// let loss = cross_entropy(&logits, &Tensor::new([3, 1], &device));
/// assert!((loss.item::<f32>()? - 4f32.ln()).abs() < 1e-6);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[track_caller]
pub fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Tensor {
    CrossEntropy::new().loss(logits, targets)
}

/// Cross-entropy with options, as PyTorch defines it. Targets are class indices, or a probability for each class.
///
/// ```
/// use gradus_nn::CrossEntropy;
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let logits = Tensor::zeros([3, 2], &device);
/// let loss = CrossEntropy::new().weight(&Tensor::new([1.0, 4.0], &device)).ignore_index(-1);
/// // The mean divides by the weights of the targets that count.
/// assert!((loss.loss(&logits, &Tensor::new([0, 1, -1], &device)).item::<f32>()? - 2f32.ln()).abs() < 1e-6);
/// let mixed = Tensor::new([[0.5, 0.5], [1.0, 0.0], [0.2, 0.8]], &device);
/// assert!((CrossEntropy::new().loss(&logits, &mixed).item::<f32>()? - 2f32.ln()).abs() < 1e-6);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct CrossEntropy {
    label_smoothing: f64,
    classes: NllLoss,
}

impl Default for CrossEntropy {
    fn default() -> CrossEntropy {
        CrossEntropy { label_smoothing: 0.0, classes: NllLoss::new() }
    }
}

impl CrossEntropy {
    /// No smoothing, equal weights, index −100 ignored, mean.
    pub fn new() -> CrossEntropy {
        CrossEntropy::default()
    }

    /// Gives `epsilon` of each target to all classes evenly (Szegedy et al. 2016).
    pub fn label_smoothing(mut self, epsilon: f64) -> CrossEntropy {
        self.label_smoothing = epsilon;
        self
    }

    /// A weight per class, `[classes]`.
    pub fn weight(mut self, weight: &Tensor) -> CrossEntropy {
        self.classes.weight = Some(weight.clone());
        self
    }

    /// Targets of this index count for nothing.
    pub fn ignore_index(mut self, index: i64) -> CrossEntropy {
        self.classes.ignore_index = index;
        self
    }

    /// What becomes of the elements.
    pub fn reduction(mut self, reduction: Reduction) -> CrossEntropy {
        self.classes.reduction = reduction;
        self
    }

    /// The loss of `logits [n, classes, …]` with class indices `[n, …]`, or with probabilities of the logits' shape and dtype.
    /// A mean over probabilities divides by the number of examples, whatever the weights.
    #[track_caller]
    pub fn loss(&self, logits: &Tensor, targets: &Tensor) -> Tensor {
        let logits = &widened_input(logits);
        if logits.error().is_none() && targets.error().is_none() && targets.dtype().is_float() {
            return self.soft(logits, targets);
        }
        if let Some(failed) = self.classes.misfit("cross_entropy", logits, targets) {
            return failed;
        }
        let axis = class_axis(logits);
        let log_p = in_f32(logits, logits).log_softmax(axis);
        let Picked { mut losses, weights, counts } = self.classes.picked(&log_p, logits, targets);
        if self.label_smoothing != 0.0 {
            let weight = self.classes.weight.as_ref().map(|weight| in_f32(weight, logits));
            let spread = match &weight {
                Some(weight) => -(&log_p * along(weight, logits.rank(), axis)).sum(axis),
                None => -log_p.sum(axis),
            };
            let share = self.label_smoothing / logits.shape()[axis] as f64;
            // An ignored element may hold anything, also NaN.
            losses = counts.where_(losses * (1.0 - self.label_smoothing) + spread * share, 0.0);
        }
        self.classes.reduction.apply_weighted(losses, &weights).to_dtype(logits.dtype())
    }

    /// The loss with a probability for each class.
    #[track_caller]
    fn soft(&self, logits: &Tensor, targets: &Tensor) -> Tensor {
        let op = "cross_entropy";
        let targets = &widened_input(targets);
        let failed = unequal(op, logits, "the targets (probabilities)", targets);
        if let Some(failed) = failed.or_else(|| self.classes.bad_weight(op, logits)) {
            return failed;
        }
        let axis = class_axis(logits);
        let (log_p, mut targets) = (logits.widened().log_softmax(axis), targets.widened());
        let classes = logits.shape()[axis].max(1) as f64;
        if self.label_smoothing != 0.0 {
            targets = targets * (1.0 - self.label_smoothing) + self.label_smoothing / classes;
        }
        if let Some(weight) = &self.classes.weight {
            targets = targets * along(&in_f32(weight, logits), logits.rank(), axis);
        }
        // A class that is impossible counts for nothing, also where its logit is −∞.
        let impossible = targets.eq(0.0);
        let losses = -impossible.where_(0.0, targets * impossible.where_(0.0, log_p)).sum(axis);
        self.classes.reduction.apply(losses).to_dtype(logits.dtype())
    }
}

/// The mean negative log-likelihood: minus the log-probability of each target. `log_probabilities [n, classes, …]` are what
/// [`Tensor::log_softmax`] gives, `targets [n, …]` class indices. [`NllLoss`] has options; [`cross_entropy`] takes logits.
///
/// ```
/// use gradus_nn::nll_loss;
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let loss = nll_loss(&Tensor::new([[-0.5, -1.0], [-2.0, -0.1]], &device), &Tensor::new([0, 0], &device));
/// assert_eq!(loss.item::<f32>()?, 1.25);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[track_caller]
pub fn nll_loss(log_probabilities: &Tensor, targets: &Tensor) -> Tensor {
    NllLoss::new().loss(log_probabilities, targets)
}

/// Negative log-likelihood with options: weights of classes, targets to ignore.
#[derive(Clone, Debug)]
pub struct NllLoss {
    weight: Option<Tensor>,
    ignore_index: i64,
    reduction: Reduction,
}

impl Default for NllLoss {
    fn default() -> NllLoss {
        NllLoss { weight: None, ignore_index: -100, reduction: Reduction::Mean }
    }
}

/// The losses of targets.
struct Picked {
    losses: Tensor,
    /// How much each counts.
    weights: Tensor,
    /// Whether each counts at all.
    counts: Tensor,
}

impl NllLoss {
    /// Equal weights, index −100 ignored, mean.
    pub fn new() -> NllLoss {
        NllLoss::default()
    }

    /// A weight per class, `[classes]`.
    pub fn weight(mut self, weight: &Tensor) -> NllLoss {
        self.weight = Some(weight.clone());
        self
    }

    /// Targets of this index count for nothing.
    pub fn ignore_index(mut self, index: i64) -> NllLoss {
        self.ignore_index = index;
        self
    }

    /// What becomes of the elements; a mean divides by the weights of the targets that count.
    pub fn reduction(mut self, reduction: Reduction) -> NllLoss {
        self.reduction = reduction;
        self
    }

    /// The loss of `log_probabilities [n, classes, …]` with `targets [n, …]` (i32 or u32).
    #[track_caller]
    pub fn loss(&self, log_probabilities: &Tensor, targets: &Tensor) -> Tensor {
        let log_probabilities = &widened_input(log_probabilities);
        if let Some(failed) = self.misfit("nll_loss", log_probabilities, targets) {
            return failed;
        }
        let wide = log_probabilities.widened();
        let Picked { losses, weights, .. } = self.picked(&wide, log_probabilities, targets);
        self.reduction.apply_weighted(losses, &weights).to_dtype(log_probabilities.dtype())
    }

    /// An error if targets or weights do not fit the logits.
    #[track_caller]
    fn misfit(&self, op: &'static str, logits: &Tensor, targets: &Tensor) -> Option<Tensor> {
        if let Some(error) = logits.error().or(targets.error()) {
            return Some(fail(logits, error.clone()));
        }
        let expected =
            if logits.rank() == 0 { Shape::default() } else { logits.shape().without(&[class_axis(logits)]) };
        if logits.rank() == 0 || *targets.shape() != expected {
            let (what, found) = ("the targets (class indices)", targets.shape().clone());
            return Some(fail(logits, Error::new(op, ErrorKind::Shape { what, expected, found })));
        }
        self.bad_weight(op, logits)
    }

    #[track_caller]
    fn bad_weight(&self, op: &'static str, logits: &Tensor) -> Option<Tensor> {
        let weight = self.weight.as_ref()?;
        if logits.rank() == 0 {
            let kind = ErrorKind::Rank { expected: "[n, classes, …]".into(), shape: Shape::default() };
            return Some(fail(logits, Error::new(op, kind)));
        }
        misshapen(op, &[logits.shape()[class_axis(logits)]].into(), "the weight", weight, logits)
    }

    /// The losses of targets that fit, given the log-probabilities in f32 or f64.
    #[track_caller]
    fn picked(&self, log_p: &Tensor, logits: &Tensor, targets: &Tensor) -> Picked {
        let axis = class_axis(logits);
        // u32 targets cannot be negative; a negative index to ignore then never occurs.
        let counts = if targets.dtype() == DType::U32 && self.ignore_index < 0 {
            targets.eq(targets)
        } else {
            targets.ne(self.ignore_index)
        };
        let index = counts.where_(targets, 0);
        let picked = -log_p.gather(axis as isize, &index.unsqueeze(axis as isize)).squeeze(axis);
        let weights = match &self.weight {
            Some(weight) => in_f32(weight, logits).index_select(0, &index.flatten()).reshape(index.shape()),
            None => picked.ones_like(),
        };
        let weights = counts.where_(&weights, 0.0);
        // An ignored element may hold anything, also NaN.
        let losses = counts.where_(picked * &weights, 0.0);
        Picked { losses, weights, counts }
    }
}

/// Classes lie along axis 1, or along the only axis of a single example.
fn class_axis(logits: &Tensor) -> usize {
    usize::from(logits.rank() > 1)
}

/// A vector as a tensor of `rank` axes that lies along `axis`.
#[track_caller]
fn along(vector: &Tensor, rank: usize, axis: usize) -> Tensor {
    let dims: Vec<usize> = (0..rank).map(|a| if a == axis { vector.numel() } else { 1 }).collect();
    vector.reshape(dims)
}
