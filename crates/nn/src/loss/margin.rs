//! Losses that ask for a margin.

use super::{Reduction, fail, misshapen, paired};
use crate::autocast::widened_input;
use gradus_tensor::graph::recorded_at;
use gradus_tensor::{Error, ErrorKind, Tensor};
use std::panic::Location;

/// The mean of max(0, 1 − t x) of scores x with targets t of −1 or 1: a support vector machine's loss. Its gradient at the margin
/// is 0.
///
/// ```
/// use gradus_nn::hinge_loss;
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let loss = hinge_loss(&Tensor::new([0.5, 2.0], &device), &Tensor::new([-1.0, 1.0], &device));
/// assert_eq!(loss.item::<f32>()?, 0.75);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[track_caller]
pub fn hinge_loss(scores: &Tensor, targets: &Tensor) -> Tensor {
    hinge_loss_reduced(scores, targets, Reduction::Mean)
}

/// [`hinge_loss`] with another reduction.
#[track_caller]
pub fn hinge_loss_reduced(scores: &Tensor, targets: &Tensor, reduction: Reduction) -> Tensor {
    paired("hinge_loss", [scores, targets], reduction, |x, t| (-(x * t) + 1.0).relu())
}

/// The mean of max(0, 1 − t x)² of scores x with targets t of −1 or 1.
#[track_caller]
pub fn squared_hinge_loss(scores: &Tensor, targets: &Tensor) -> Tensor {
    squared_hinge_loss_reduced(scores, targets, Reduction::Mean)
}

/// [`squared_hinge_loss`] with another reduction.
#[track_caller]
pub fn squared_hinge_loss_reduced(scores: &Tensor, targets: &Tensor, reduction: Reduction) -> Tensor {
    paired("squared_hinge_loss", [scores, targets], reduction, |x, t| (-(x * t) + 1.0).relu().square())
}

/// The mean of ln(1 + e^(−t x)) of scores x with targets t of −1 or 1: logistic regression's loss.
#[track_caller]
pub fn soft_margin_loss(scores: &Tensor, targets: &Tensor) -> Tensor {
    soft_margin_loss_reduced(scores, targets, Reduction::Mean)
}

/// [`soft_margin_loss`] with another reduction.
#[track_caller]
pub fn soft_margin_loss_reduced(scores: &Tensor, targets: &Tensor, reduction: Reduction) -> Tensor {
    paired("soft_margin_loss", [scores, targets], reduction, |x, t| -(x * t).log_sigmoid())
}

/// The hinge loss of several classes: Σ max(0, margin − s + o)^p / classes, where s is the target's score, over the scores o of all
/// other classes (Weston, Watkins 1999).
///
/// ```
/// use gradus_nn::MultiMargin;
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let loss = MultiMargin::new().loss(&Tensor::new([[0.0, 0.0, 5.0, 0.0]], &device), &Tensor::new([2], &device));
/// assert_eq!(loss.item::<f32>()?, 0.0);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MultiMargin {
    margin: f64,
    squared: bool,
    weight: Option<Tensor>,
    reduction: Reduction,
}

impl Default for MultiMargin {
    fn default() -> MultiMargin {
        MultiMargin { margin: 1.0, squared: false, weight: None, reduction: Reduction::Mean }
    }
}

impl MultiMargin {
    /// Margin 1, p = 1, equal weights, mean.
    pub fn new() -> MultiMargin {
        MultiMargin::default()
    }

    /// The margin.
    pub fn margin(mut self, margin: f64) -> MultiMargin {
        self.margin = margin;
        self
    }

    /// p = 2.
    pub fn squared(mut self) -> MultiMargin {
        self.squared = true;
        self
    }

    /// A weight per class, `[classes]`, that the losses of its examples are multiplied by.
    pub fn weight(mut self, weight: &Tensor) -> MultiMargin {
        self.weight = Some(weight.clone());
        self
    }

    /// What becomes of the losses of examples.
    pub fn reduction(mut self, reduction: Reduction) -> MultiMargin {
        self.reduction = reduction;
        self
    }

    /// The loss of scores `[examples, classes]` with class indices `[examples]` (i32 or u32).
    #[track_caller]
    pub fn loss(&self, scores: &Tensor, targets: &Tensor) -> Tensor {
        let op = "multi_margin";
        let scores = &widened_input(scores);
        let [examples, classes] = match scores.dims() {
            Ok(dims) => dims,
            Err(error) => return fail(scores, error),
        };
        if let Some(failed) = misshapen(op, &[examples].into(), "the targets (class indices)", targets, scores) {
            return failed;
        }
        if let Some(weight) = &self.weight
            && let Some(failed) = misshapen(op, &[classes].into(), "the weight", weight, scores)
        {
            return failed;
        }
        recorded_at(Location::caller(), || {
            let x = scores.widened();
            let index = targets.unsqueeze(1);
            let losses = (&x - x.gather(1, &index) + self.margin).relu();
            let losses = if self.squared { losses.square() } else { losses };
            let others = Tensor::arange(classes, scores.device()).to_dtype(targets.dtype()).ne(&index);
            let losses = others.where_(losses, 0.0).sum(1) / classes;
            let losses = match &self.weight {
                Some(weight) => losses * weight.widened().index_select(0, targets),
                None => losses,
            };
            self.reduction.apply(losses).to_dtype(scores.dtype())
        })
    }
}

/// A loss of pairs by the cosine c of their angle: 1 − c for a pair that belongs together, max(0, c − margin) for one that does
/// not.
///
/// ```
/// use gradus_nn::CosineEmbedding;
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let (x, y) = (Tensor::new([[1.0, 0.0]], &device), Tensor::new([[0.0, 2.0]], &device));
/// assert_eq!(CosineEmbedding::new().loss(&x, &y, &Tensor::new([1.0], &device)).item::<f32>()?, 1.0);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct CosineEmbedding {
    margin: f64,
    reduction: Reduction,
}

impl CosineEmbedding {
    /// Margin 0, mean.
    pub fn new() -> CosineEmbedding {
        CosineEmbedding::default()
    }

    /// The cosine up to which strangers cost nothing, in −1 ..= 1.
    pub fn margin(mut self, margin: f64) -> CosineEmbedding {
        self.margin = margin;
        self
    }

    /// What becomes of the losses of pairs.
    pub fn reduction(mut self, reduction: Reduction) -> CosineEmbedding {
        self.reduction = reduction;
        self
    }

    /// The loss of `left` and `right`, `[..., width]` both, with targets `[...]`: 1 for pairs that belong together, −1 for
    /// others.
    #[track_caller]
    pub fn loss(&self, left: &Tensor, right: &Tensor, targets: &Tensor) -> Tensor {
        let op = "cosine_embedding";
        let (left, right) = (&widened_input(left), &widened_input(right));
        if let Some(failed) = of_pairs(op, left, &[("the right side", right)]) {
            return failed;
        }
        let pairs = left.shape().without(&[left.rank() - 1]);
        if let Some(failed) = misshapen(op, &pairs, "the targets", targets, left) {
            return failed;
        }
        let cosine = recorded_at(Location::caller(), || {
            let (x, y) = (left.widened(), right.widened());
            // PyTorch has this number as an f32, also in f64.
            let [xx, yy] = [&x, &y].map(|x| x.square().sum(-1) + f64::from(1e-12f32));
            // The roots apart: their product does not overflow where that of squares would.
            (x * y).sum(-1) / (xx.sqrt() * yy.sqrt())
        });
        let targets = targets.to_dtype(cosine.dtype());
        paired(op, [&cosine, &targets], self.reduction, |cosine, t| {
            let strangers = t.lt(0.0).where_((&cosine - self.margin).relu(), 0.0);
            t.gt(0.0).where_(1.0 - cosine, strangers)
        })
        .to_dtype(left.dtype())
    }
}

/// A loss of an anchor, a positive that belongs to it and a negative that does not: max(0, d(a, p) − d(a, n) + margin), with the
/// distance d(x, y) = ‖x − y + ε‖ (Schroff et al., "FaceNet", 2015; ε as in PyTorch, so that distances of 0 have a gradient).
///
/// ```
/// use gradus_nn::TripletMargin;
/// use gradus_tensor::{Device, Tensor};
/// let device = Device::cpu();
/// let [anchor, positive, negative] = [[0.0, 0.0], [3.0, 4.0], [0.0, 2.0]].map(|x| Tensor::new([x], &device));
/// let loss = TripletMargin::new().loss(&anchor, &positive, &negative);
/// assert!((loss.item::<f32>()? - 4.0).abs() < 1e-5);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TripletMargin {
    margin: f64,
    norm: f64,
    epsilon: f64,
    swap: bool,
    reduction: Reduction,
}

impl Default for TripletMargin {
    fn default() -> TripletMargin {
        TripletMargin { margin: 1.0, norm: 2.0, epsilon: 1e-6, swap: false, reduction: Reduction::Mean }
    }
}

impl TripletMargin {
    /// Margin 1, Euclidean distances, ε = 10⁻⁶, mean.
    pub fn new() -> TripletMargin {
        TripletMargin::default()
    }

    /// How much nearer positives should be.
    pub fn margin(mut self, margin: f64) -> TripletMargin {
        self.margin = margin;
        self
    }

    /// The norm's degree p, at least 1.
    pub fn norm(mut self, p: f64) -> TripletMargin {
        self.norm = p;
        self
    }

    /// ε.
    pub fn epsilon(mut self, epsilon: f64) -> TripletMargin {
        self.epsilon = epsilon;
        self
    }

    /// The negative's distance is that from the positive, where it is nearer there (Balntas et al. 2016).
    pub fn swap(mut self) -> TripletMargin {
        self.swap = true;
        self
    }

    /// What becomes of the losses of triplets.
    pub fn reduction(mut self, reduction: Reduction) -> TripletMargin {
        self.reduction = reduction;
        self
    }

    /// The loss of triplets, `[..., width]` each.
    #[track_caller]
    pub fn loss(&self, anchor: &Tensor, positive: &Tensor, negative: &Tensor) -> Tensor {
        let op = "triplet_margin";
        let (anchor, positive) = (&widened_input(anchor), &widened_input(positive));
        let negative = &widened_input(negative);
        if let Some(failed) = of_pairs(op, anchor, &[("the positive", positive), ("the negative", negative)]) {
            return failed;
        }
        if self.norm.is_nan() || self.norm < 1.0 {
            let (expected, found) = ("at least 1", self.norm.to_string());
            return fail(anchor, Error::new(op, ErrorKind::Argument { argument: "p", expected, found }));
        }
        recorded_at(Location::caller(), || {
            let [a, p, n] = [anchor, positive, negative].map(Tensor::widened);
            let (near, mut far) = (self.distance(&a, &p), self.distance(&a, &n));
            if self.swap {
                far = far.minimum(self.distance(&p, &n));
            }
            self.reduction.apply((near - far + self.margin).relu()).to_dtype(anchor.dtype())
        })
    }

    fn distance(&self, x: &Tensor, y: &Tensor) -> Tensor {
        let difference = x - y + self.epsilon;
        if self.norm == 2.0 {
            return difference.norm(-1);
        }
        difference.abs().pow(self.norm).sum(-1).pow(1.0 / self.norm)
    }
}

/// An error if an operand differs from `[..., width]` in shape or dtype.
#[track_caller]
fn of_pairs(op: &'static str, first: &Tensor, others: &[(&'static str, &Tensor)]) -> Option<Tensor> {
    if first.error().is_none() && first.rank() == 0 {
        let kind = ErrorKind::Rank { expected: "[..., width]".into(), shape: first.shape().clone() };
        return Some(fail(first, Error::new(op, kind)));
    }
    others.iter().find_map(|(what, other)| super::unequal(op, first, what, other))
}
