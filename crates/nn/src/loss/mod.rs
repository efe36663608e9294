//! Losses. Both sides must have equal shapes: broadcasting here hides a common bug. Those of f16 are computed in f32 and
//! rounded at the end; in an [`autocast`](crate::autocast) they stay f32. Definitions follow PyTorch's, also at kinks.

mod binary;
mod cross_entropy;
mod divergence;
mod margin;
mod regression;

pub use binary::{BinaryCrossEntropy, FocalLoss, bce_loss, bce_loss_reduced, bce_with_logits, bce_with_logits_reduced};
pub use cross_entropy::{CrossEntropy, NllLoss, cross_entropy, nll_loss};
pub use divergence::{GaussianNll, KlDivergence, PoissonNll};
pub use margin::{
    CosineEmbedding, MultiMargin, TripletMargin, hinge_loss, hinge_loss_reduced, soft_margin_loss,
    soft_margin_loss_reduced, squared_hinge_loss, squared_hinge_loss_reduced,
};
pub use regression::{
    huber_loss, huber_loss_reduced, l1_loss, l1_loss_reduced, mse_loss, mse_loss_reduced, smooth_l1_loss,
    smooth_l1_loss_reduced, weighted_mse_loss, weighted_mse_loss_reduced,
};

use crate::autocast::widened_input;
use gradus_tensor::graph::recorded_at;
use gradus_tensor::{Error, ErrorKind, Shape, Tensor};
use std::panic::Location;

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
    /// Their sum, divided by the extent of the first axis: for a divergence between distributions, the mean over examples.
    BatchMean,
}

impl Reduction {
    #[track_caller]
    fn apply(self, losses: Tensor) -> Tensor {
        match self {
            Reduction::None => losses,
            Reduction::Mean => losses.mean(..),
            Reduction::Sum => losses.sum(..),
            Reduction::BatchMean => {
                let examples = losses.shape().first().copied().unwrap_or(1);
                losses.sum(..) / examples
            }
        }
    }

    /// The same for losses that weights have been multiplied to; a mean is divided by their sum.
    #[track_caller]
    fn apply_weighted(self, losses: Tensor, weights: &Tensor) -> Tensor {
        match self {
            Reduction::Mean => losses.sum(..) / weights.sum(..),
            other => other.apply(losses),
        }
    }
}

/// A loss of two tensors of one shape, from its elements, which `losses` computes (in f32 where the tensors are f16).
#[track_caller]
fn paired(
    op: &'static str,
    [prediction, target]: [&Tensor; 2],
    reduction: Reduction,
    losses: impl FnOnce(Tensor, Tensor) -> Tensor,
) -> Tensor {
    let (prediction, target) = (&widened_input(prediction), &widened_input(target));
    if let Some(failed) = unequal(op, prediction, "the target", target) {
        return failed;
    }
    // Ops in a closure would otherwise stand on its line.
    recorded_at(Location::caller(), || {
        let losses = losses(prediction.widened(), target.widened());
        reduction.apply(losses).to_dtype(prediction.dtype())
    })
}

/// An error if an operand differs from the prediction in shape or dtype, or if one of them carries an error.
#[track_caller]
fn unequal(op: &'static str, prediction: &Tensor, what: &'static str, other: &Tensor) -> Option<Tensor> {
    if let Some(failed) = misshapen(op, prediction.shape(), what, other, prediction) {
        return Some(failed);
    }
    let (left, right) = (prediction.dtype(), other.dtype());
    (left != right).then(|| fail(prediction, Error::new(op, ErrorKind::DTypes { left, right })))
}

/// An error if a tensor has another shape than expected, or if it or the prediction carries one.
#[track_caller]
fn misshapen(
    op: &'static str,
    expected: &Shape,
    what: &'static str,
    tensor: &Tensor,
    prediction: &Tensor,
) -> Option<Tensor> {
    if let Some(error) = prediction.error().or(tensor.error()) {
        return Some(fail(prediction, error.clone()));
    }
    if tensor.shape() == expected {
        return None;
    }
    let (expected, found) = (expected.clone(), tensor.shape().clone());
    Some(fail(prediction, Error::new(op, ErrorKind::Shape { what, expected, found })))
}

/// An operand as f32 where it and the logits are f16.
#[track_caller]
fn in_f32(operand: &Tensor, logits: &Tensor) -> Tensor {
    let dtype = logits.dtype();
    if operand.dtype() == dtype { operand.widened() } else { operand.clone() }
}

fn fail(like: &Tensor, error: Error) -> Tensor {
    Tensor::build(like.device(), || Err(error))
}
