//! Scaling by the size that gradients had, without a mean of the gradients themselves.

use super::{Clock, Step, Transform, correction, filled, running_mean, state_of, zeros};
use gradus_tensor::{Cell, Tensor};

/// Divides by the root of the running mean of squares (RMSProp: Tieleman, Hinton 2012), or of the running variance if centred
/// (Graves 2013).
pub struct ScaleByRms {
    decay: f64,
    epsilon: f64,
    corrected: bool,
    square: Vec<Cell>,
    mean: Option<Vec<Cell>>,
}

impl ScaleByRms {
    /// The decay rate of the mean, and what is added to the denominator.
    pub fn new(decay: f64, epsilon: f64) -> ScaleByRms {
        ScaleByRms { decay, epsilon, corrected: false, square: Vec::new(), mean: None }
    }

    /// Takes off the square of the mean.
    pub fn centred(self) -> ScaleByRms {
        ScaleByRms { mean: Some(Vec::new()), ..self }
    }

    /// Corrects the means for their start at 0.
    pub fn corrected(self) -> ScaleByRms {
        ScaleByRms { corrected: true, ..self }
    }
}

impl Transform for ScaleByRms {
    fn init(&mut self, parameters: &[Tensor]) {
        self.square = zeros(parameters);
        self.mean = self.mean.take().map(|_| zeros(parameters));
    }

    fn numbers(&self, clock: &mut Clock<'_>) -> Vec<f64> {
        vec![correction(self.decay, clock.count())]
    }

    fn transform(&self, updates: Vec<Tensor>, step: &mut Step<'_>) -> Vec<Tensor> {
        let [correction] = step.numbers();
        let update = |(index, gradient): (usize, Tensor)| {
            let mut size = running_mean(&self.square[index], &gradient.square(), self.decay, step);
            if self.corrected {
                size = size / correction;
            }
            if let Some(cells) = &self.mean {
                let mut mean = running_mean(&cells[index], &gradient, self.decay, step);
                if self.corrected {
                    mean = mean / correction;
                }
                // Rounding can take it below 0.
                size = (size - mean.square()).relu();
            }
            gradient / (size.sqrt() + self.epsilon)
        };
        updates.into_iter().enumerate().map(update).collect()
    }

    fn state(&self) -> Vec<(&'static str, usize, Cell)> {
        state_of("square", &self.square).chain(state_of("mean", self.mean.iter().flatten())).collect()
    }
}

/// Divides by the root of the sum of all squares so far, and more at each step if the rate is to decay beside that
/// (Duchi et al. 2011; as in PyTorch).
pub struct ScaleByAdagrad {
    epsilon: f64,
    initial: f64,
    rate_decay: f64,
    sum: Vec<Cell>,
}

impl ScaleByAdagrad {
    /// What is added to the denominator, where sums start, and the decay `d` of the rate: step t is divided by 1 + (t − 1) d.
    pub fn new(epsilon: f64, initial: f64, rate_decay: f64) -> ScaleByAdagrad {
        ScaleByAdagrad { epsilon, initial, rate_decay, sum: Vec::new() }
    }
}

impl Transform for ScaleByAdagrad {
    fn init(&mut self, parameters: &[Tensor]) {
        self.sum = filled(parameters, self.initial);
    }

    fn numbers(&self, clock: &mut Clock<'_>) -> Vec<f64> {
        vec![1.0 / (1.0 + (clock.count() - 1.0) * self.rate_decay)]
    }

    fn transform(&self, updates: Vec<Tensor>, step: &mut Step<'_>) -> Vec<Tensor> {
        let [factor] = step.numbers();
        let pairs = updates.into_iter().zip(&self.sum);
        pairs
            .map(|(gradient, cell)| {
                let sum = cell.tensor() + gradient.square();
                step.assign(cell, &sum);
                gradient / (sum.sqrt() + self.epsilon) * factor
            })
            .collect()
    }

    fn state(&self) -> Vec<(&'static str, usize, Cell)> {
        state_of("sum", &self.sum).collect()
    }
}

/// Divides by the root of the running mean of squares, and multiplies by that of the updates' own (Zeiler 2012, Algorithm 1).
pub struct ScaleByAdadelta {
    decay: f64,
    epsilon: f64,
    square: Vec<Cell>,
    delta: Vec<Cell>,
}

impl ScaleByAdadelta {
    /// The decay rate of both means, and what is added inside of both roots.
    pub fn new(decay: f64, epsilon: f64) -> ScaleByAdadelta {
        ScaleByAdadelta { decay, epsilon, square: Vec::new(), delta: Vec::new() }
    }
}

impl Transform for ScaleByAdadelta {
    fn init(&mut self, parameters: &[Tensor]) {
        (self.square, self.delta) = (zeros(parameters), zeros(parameters));
    }

    fn transform(&self, updates: Vec<Tensor>, step: &mut Step<'_>) -> Vec<Tensor> {
        let triples = updates.into_iter().zip(&self.square).zip(&self.delta);
        triples
            .map(|((gradient, square), delta)| {
                let square = running_mean(square, &gradient.square(), self.decay, step);
                let root = |mean: Tensor| (mean + self.epsilon).sqrt();
                let update = gradient * (root(delta.tensor()) / root(square));
                running_mean(delta, &update.square(), self.decay, step);
                update
            })
            .collect()
    }

    fn state(&self) -> Vec<(&'static str, usize, Cell)> {
        state_of("square", &self.square).chain(state_of("delta", &self.delta)).collect()
    }
}
