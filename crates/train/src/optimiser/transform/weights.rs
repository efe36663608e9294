//! Scaling, and the decay of weights.

use super::{Clock, Step, Transform};
use crate::Schedule;
use gradus_tensor::Tensor;

/// Multiplies by minus the learning rate.
pub struct ScaleByLearningRate;

impl Transform for ScaleByLearningRate {
    fn numbers(&self, clock: &mut Clock<'_>) -> Vec<f64> {
        vec![-clock.learning_rate()]
    }

    fn transform(&self, updates: Vec<Tensor>, step: &mut Step<'_>) -> Vec<Tensor> {
        let [factor] = step.numbers();
        updates.into_iter().map(|u| u * factor).collect()
    }
}

/// Multiplies by a number, or by a schedule of the steps.
pub struct ScaleBy(pub Schedule);

impl Transform for ScaleBy {
    fn numbers(&self, clock: &mut Clock<'_>) -> Vec<f64> {
        vec![self.0.at(clock.number() - 1)]
    }

    fn transform(&self, updates: Vec<Tensor>, step: &mut Step<'_>) -> Vec<Tensor> {
        let [factor] = step.numbers();
        updates.into_iter().map(|u| u * factor).collect()
    }
}

/// Adds `rate` · parameter: weight decay. Before momentum and scaling it is an L2 penalty; after scaling by Adam it is
/// the decoupled decay of AdamW (Loshchilov, Hutter 2019).
pub struct AddDecayedWeights {
    /// How much of the parameter.
    pub rate: Schedule,
}

impl Transform for AddDecayedWeights {
    fn numbers(&self, clock: &mut Clock<'_>) -> Vec<f64> {
        vec![self.rate.at(clock.number() - 1)]
    }

    fn transform(&self, updates: Vec<Tensor>, step: &mut Step<'_>) -> Vec<Tensor> {
        let [rate] = step.numbers();
        let decayed = |(u, p): (Tensor, &Tensor)| u + p.widened() * rate;
        updates.into_iter().zip(step.parameters()).map(decayed).collect()
    }
}
