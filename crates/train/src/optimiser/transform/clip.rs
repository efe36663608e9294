//! Clipping of gradients.

use super::{Step, Transform};
use gradus_tensor::Tensor;

/// Scales all updates together so that their Euclidean norm is at most `limit`, as PyTorch's `clip_grad_norm_` does.
pub struct ClipByNorm {
    /// The largest norm that passes.
    pub limit: f64,
}

impl Transform for ClipByNorm {
    fn transform(&self, updates: Vec<Tensor>, _: &mut Step<'_>) -> Vec<Tensor> {
        let squares = updates.iter().map(|u| u.square().sum(..)).reduce(|a, b| a + b);
        let Some(norm) = squares.map(|s| s.sqrt()) else {
            return updates;
        };
        let scale = (self.limit / (norm + 1e-6)).clamp(0.0, 1.0);
        updates.into_iter().map(|u| u * &scale).collect()
    }
}

/// Limits every element to ±`limit`.
pub struct ClipByValue {
    /// The largest magnitude that passes.
    pub limit: f64,
}

impl Transform for ClipByValue {
    fn transform(&self, updates: Vec<Tensor>, _: &mut Step<'_>) -> Vec<Tensor> {
        updates.into_iter().map(|u| u.clamp(-self.limit, self.limit)).collect()
    }
}

/// Limits the norm of each unit's gradient to a share of the norm of the unit's weights (AGC: Brock et al. 2021, equation 3).
/// A unit is an output: a row of a matrix, a kernel of a convolution, and the whole of a bias or a single number, as in
/// optax. Weights whose norm is below `epsilon` count as that.
pub struct AdaptiveClip {
    /// The largest ratio of the norms that passes, such as 0.01.
    pub limit: f64,
    /// The least norm of weights, such as 10⁻³.
    pub epsilon: f64,
}

impl AdaptiveClip {
    /// The norm of each unit, broadcastable to the tensor.
    fn unit_norms(tensor: &Tensor) -> Tensor {
        match tensor.rank() {
            0 | 1 => tensor.square().sum(..).sqrt(),
            rank => tensor.square().sum_keepdim((1..rank).collect::<Vec<usize>>()).sqrt(),
        }
    }
}

impl Transform for AdaptiveClip {
    fn transform(&self, updates: Vec<Tensor>, step: &mut Step<'_>) -> Vec<Tensor> {
        let clip = |(update, parameter): (Tensor, &Tensor)| {
            let most = AdaptiveClip::unit_norms(&parameter.widened()).maximum(self.epsilon) * self.limit;
            let norms = AdaptiveClip::unit_norms(&update);
            // What is below its limit is multiplied by exactly 1; a zero gradient does not divide.
            let scale = (most / norms.maximum(1e-6)).minimum(1.0);
            update * scale
        };
        updates.into_iter().zip(step.parameters()).map(clip).collect()
    }
}
