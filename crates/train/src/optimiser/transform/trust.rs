//! Layer-wise trust ratios.

use super::{Step, Transform, norm};
use gradus_tensor::Tensor;

/// Scales each parameter's update to a share of the parameter's norm (LARS: You, Gitman, Ginsburg 2017; LAMB: You et al. 2020).
/// Where one of the norms is zero the update stays as it is.
pub struct ScaleByTrustRatio {
    /// The share: 1 for LAMB, such as 0.001 for LARS.
    pub coefficient: f64,
    /// What is added to the update's norm.
    pub epsilon: f64,
}

impl Transform for ScaleByTrustRatio {
    fn transform(&self, updates: Vec<Tensor>, step: &mut Step<'_>) -> Vec<Tensor> {
        let scale = |(update, parameter): (Tensor, &Tensor)| {
            let (of_parameter, of_update) = (norm(&parameter.widened()), norm(&update));
            let zero = of_parameter.eq(0.0).logical_or(of_update.eq(0.0));
            // A divisor that is never 0, for the branch that is not taken.
            let divisor = zero.where_(1.0, &of_update + self.epsilon);
            let ratio = zero.where_(1.0, of_parameter * self.coefficient / divisor);
            update * ratio
        };
        updates.into_iter().zip(step.parameters()).map(scale).collect()
    }
}
