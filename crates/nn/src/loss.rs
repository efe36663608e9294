//! Losses. Both sides must have equal shapes: broadcasting here hides a common bug. Those of f16 are computed in f32 and
//! rounded at the end.

use gradus_tensor::{DType, Error, ErrorKind, Shape, Tensor};

/// How the elements of a loss become its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// They stay.
    None,
    /// Their mean (for weighted losses: divided by the sum of weights).
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

impl Reduction {
    #[track_caller]
    fn apply(self, losses: Tensor) -> Tensor {
        match self {
            Reduction::None => losses,
            Reduction::Mean => losses.mean(..),
            Reduction::Sum => losses.sum(..),
        }
    }
}

/// The mean of (prediction − target)².
///
/// Shapes must be equal. The classic bug, targets `[100]` against predictions `[100, 1]`, which broadcasting would turn
/// into `[100, 100]` wrong differences, is an error that names both shapes:
///
/// ```
/// use gradus_nn::mse_loss;
/// use gradus_tensor::{Device, Key, Tensor};
/// let device = Device::cpu();
/// let x = Tensor::rand([100, 1], Key::new(0), &device);
/// let target = (&x * 3.0).squeeze(1) + Tensor::randn([100], Key::new(1), &device) * 0.1;
/// let prediction = &x * 2.5 + 0.1;
/// let error = mse_loss(&prediction, &target).item::<f32>().unwrap_err().to_string();
/// assert!(error.contains("[100]") && error.contains("[100, 1]"), "{error}");
/// assert!(mse_loss(&prediction.squeeze(1), &target).item::<f32>().is_ok());
/// ```
#[track_caller]
pub fn mse_loss(prediction: &Tensor, target: &Tensor) -> Tensor {
    mse_loss_reduced(prediction, target, Reduction::Mean)
}

/// [`mse_loss`] with another reduction.
#[track_caller]
pub fn mse_loss_reduced(prediction: &Tensor, target: &Tensor, reduction: Reduction) -> Tensor {
    match unequal("mse_loss", prediction, target) {
        Some(failed) => failed,
        None => {
            let difference = prediction - target;
            let losses = difference.widened().square();
            reduction.apply(losses).to_dtype(difference.dtype())
        }
    }
}

/// The mean binary cross-entropy of logits (before the sigmoid) with targets in 0 ..= 1: −t ln σ(x) − (1 − t) ln(1 − σ(x)),
/// computed as softplus(x) − x t, which never overflows. Shapes must be equal.
#[track_caller]
pub fn bce_with_logits(logits: &Tensor, targets: &Tensor) -> Tensor {
    bce_with_logits_reduced(logits, targets, Reduction::Mean)
}

/// [`bce_with_logits`] with another reduction.
#[track_caller]
pub fn bce_with_logits_reduced(logits: &Tensor, targets: &Tensor, reduction: Reduction) -> Tensor {
    match unequal("bce_with_logits", logits, targets) {
        Some(failed) => failed,
        None => {
            let (x, t) = (in_f32(logits, logits), in_f32(targets, logits));
            reduction.apply(-(-&x).log_sigmoid() - &x * t).to_dtype(logits.dtype())
        }
    }
}

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

/// Cross-entropy with class indices and options, as PyTorch defines it.
#[derive(Clone, Debug)]
pub struct CrossEntropy {
    label_smoothing: f64,
    weight: Option<Tensor>,
    ignore_index: i64,
    reduction: Reduction,
}

impl Default for CrossEntropy {
    fn default() -> CrossEntropy {
        CrossEntropy { label_smoothing: 0.0, weight: None, ignore_index: -100, reduction: Reduction::Mean }
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
        self.weight = Some(weight.clone());
        self
    }

    /// Targets of this index count for nothing.
    pub fn ignore_index(mut self, index: i64) -> CrossEntropy {
        self.ignore_index = index;
        self
    }

    /// What becomes of the elements.
    pub fn reduction(mut self, reduction: Reduction) -> CrossEntropy {
        self.reduction = reduction;
        self
    }

    /// The loss of `logits [n, classes, …]` with `targets [n, …]`.
    #[track_caller]
    pub fn loss(&self, logits: &Tensor, targets: &Tensor) -> Tensor {
        if let Some(error) = logits.error().or(targets.error()) {
            return fail(logits, error.clone());
        }
        let fits = logits.rank() >= 1 && *targets.shape() == logits.shape().without(&[class_axis(logits)]);
        if !fits {
            let axes =
                if logits.rank() == 0 { Shape::default() } else { logits.shape().without(&[class_axis(logits)]) };
            let (what, found) = ("the targets (class indices)", targets.shape().clone());
            return fail(logits, Error::new("cross_entropy", ErrorKind::Shape { what, expected: axes, found }));
        }
        let axis = class_axis(logits);
        let classes = logits.shape()[axis];
        let log_p = in_f32(logits, logits).log_softmax(axis);
        let weight = self.weight.as_ref().map(|weight| in_f32(weight, logits));
        // u32 targets cannot be negative; a negative index to ignore then never occurs.
        let counts = if targets.dtype() == DType::U32 && self.ignore_index < 0 {
            targets.eq(targets)
        } else {
            targets.ne(self.ignore_index)
        };
        let index = counts.where_(targets, 0);
        let picked = -log_p.gather(axis as isize, &index.unsqueeze(axis as isize)).squeeze(axis);
        let class_weights = weight.as_ref().map(|weight| along(weight, logits.rank(), axis));
        let weights = match &weight {
            Some(weight) => weight.index_select(0, &index.flatten()).reshape(index.shape()),
            None => picked.ones_like(),
        };
        let weights = counts.where_(&weights, 0.0);
        let mut losses = &picked * &weights;
        if self.label_smoothing != 0.0 {
            let spread = match &class_weights {
                Some(weights) => -(&log_p * weights).sum(axis),
                None => -log_p.sum(axis),
            };
            let share = self.label_smoothing / classes as f64;
            losses = losses * (1.0 - self.label_smoothing) + spread * share;
        }
        // An ignored element may hold anything, also NaN.
        let losses = counts.where_(&losses, 0.0);
        let loss = match self.reduction {
            Reduction::None => losses,
            Reduction::Sum => losses.sum(..),
            Reduction::Mean => losses.sum(..) / weights.sum(..),
        };
        loss.to_dtype(logits.dtype())
    }
}

/// An operand as f32 where it and the logits are f16.
#[track_caller]
fn in_f32(operand: &Tensor, logits: &Tensor) -> Tensor {
    let dtype = logits.dtype();
    if operand.dtype() == dtype { operand.widened() } else { operand.clone() }
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

#[track_caller]
fn unequal(op: &'static str, prediction: &Tensor, target: &Tensor) -> Option<Tensor> {
    if let Some(error) = prediction.error().or(target.error()) {
        return Some(fail(prediction, error.clone()));
    }
    if prediction.shape() == target.shape() {
        return None;
    }
    let (expected, found) = (prediction.shape().clone(), target.shape().clone());
    Some(fail(prediction, Error::new(op, ErrorKind::Shape { what: "the target", expected, found })))
}

fn fail(like: &Tensor, error: Error) -> Tensor {
    Tensor::build(like.device(), || Err(error))
}
