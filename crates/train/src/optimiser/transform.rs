//! The transformations that optimisers are chains of.

use gradus_tensor::{Cell, Tensor};

/// What a transformation sees of a step, and where it leaves its new state.
pub struct Step<'a> {
    parameters: &'a [Tensor],
    number: u64,
    learning_rate: f64,
    assignments: Vec<(Cell, Tensor)>,
}

impl<'a> Step<'a> {
    pub(super) fn new(parameters: &'a [Tensor], number: u64, learning_rate: f64) -> Step<'a> {
        Step { parameters, number, learning_rate, assignments: Vec::new() }
    }

    /// The parameters before the step.
    pub fn parameters(&self) -> &'a [Tensor] {
        self.parameters
    }

    /// 1 for the first step.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The learning rate of this step.
    pub fn learning_rate(&self) -> f64 {
        self.learning_rate
    }

    /// Leaves new state: it is assigned together with the parameters, or not at all if the step fails.
    pub fn assign(&mut self, state: &Cell, value: &Tensor) {
        self.assignments.push((state.clone(), value.clone()));
    }

    pub(super) fn into_assignments(self) -> Vec<(Cell, Tensor)> {
        self.assignments
    }
}

/// One link of an optimiser's chain: maps the updates so far (at first the gradients) to new ones.
pub trait Transform: Send {
    /// Makes the state that is kept from step to step, if there is any; called once, before everything else.
    fn init(&mut self, _parameters: &[Tensor]) {}

    /// Updates in, updates out, one per parameter.
    fn transform(&mut self, updates: Vec<Tensor>, step: &mut Step<'_>) -> Vec<Tensor>;

    /// The state that is kept from step to step: names, and one cell per parameter for each.
    fn state(&self) -> Vec<(&'static str, &[Cell])> {
        Vec::new()
    }
}

/// Cells that start at zero, one per parameter.
fn zeros(parameters: &[Tensor]) -> Vec<Cell> {
    parameters.iter().map(|p| Cell::buffer(p.widened().zeros_like())).collect()
}

/// Multiplies by minus the learning rate.
pub struct ScaleByLearningRate;

impl Transform for ScaleByLearningRate {
    fn transform(&mut self, updates: Vec<Tensor>, step: &mut Step<'_>) -> Vec<Tensor> {
        updates.into_iter().map(|u| u * -step.learning_rate()).collect()
    }
}

/// Adds `rate` · parameter: weight decay. Before momentum and scaling it is an L2 penalty; after scaling by Adam it is
/// the decoupled decay of AdamW (Loshchilov, Hutter 2019).
pub struct AddDecayedWeights {
    /// How much of the parameter.
    pub rate: f64,
}

impl Transform for AddDecayedWeights {
    fn transform(&mut self, updates: Vec<Tensor>, step: &mut Step<'_>) -> Vec<Tensor> {
        let decayed = |(u, p): (Tensor, &Tensor)| u + p.widened() * self.rate;
        updates.into_iter().zip(step.parameters()).map(decayed).collect()
    }
}

/// Scales all updates together so that their Euclidean norm is at most `limit`, as PyTorch's `clip_grad_norm_` does.
pub struct ClipByNorm {
    /// The largest norm that passes.
    pub limit: f64,
}

impl Transform for ClipByNorm {
    fn transform(&mut self, updates: Vec<Tensor>, _: &mut Step<'_>) -> Vec<Tensor> {
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
    fn transform(&mut self, updates: Vec<Tensor>, _: &mut Step<'_>) -> Vec<Tensor> {
        updates.into_iter().map(|u| u.clamp(-self.limit, self.limit)).collect()
    }
}

/// Heavy-ball momentum, b ← decay · b + (1 − dampening) · u (the first step takes u undamped, as PyTorch does); with
/// Nesterov's look-ahead the update is u + decay · b instead of b (Sutskever et al. 2013).
pub struct Momentum {
    decay: f64,
    dampening: f64,
    nesterov: bool,
    velocity: Vec<Cell>,
}

impl Momentum {
    /// Momentum that keeps `decay` of the last update.
    pub fn new(decay: f64, dampening: f64, nesterov: bool) -> Momentum {
        Momentum { decay, dampening, nesterov, velocity: Vec::new() }
    }
}

impl Transform for Momentum {
    fn init(&mut self, parameters: &[Tensor]) {
        self.velocity = zeros(parameters);
    }

    fn transform(&mut self, updates: Vec<Tensor>, step: &mut Step<'_>) -> Vec<Tensor> {
        let share = if step.number() == 1 { 1.0 } else { 1.0 - self.dampening };
        let pairs = updates.into_iter().zip(&self.velocity);
        pairs
            .map(|(update, cell)| {
                let velocity = cell.tensor() * self.decay + &update * share;
                step.assign(cell, &velocity);
                if self.nesterov { update + velocity * self.decay } else { velocity }
            })
            .collect()
    }

    fn state(&self) -> Vec<(&'static str, &[Cell])> {
        vec![("velocity", &self.velocity)]
    }
}

/// Divides the running mean of the gradients by the root of the running mean of their squares, both corrected for their
/// start at 0 (Kingma, Ba 2015, Algorithm 1).
pub struct ScaleByAdam {
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    mean: Vec<Cell>,
    square: Vec<Cell>,
}

impl ScaleByAdam {
    /// Decay rates of the two means, and what is added to the denominator.
    pub fn new(beta1: f64, beta2: f64, epsilon: f64) -> ScaleByAdam {
        ScaleByAdam { beta1, beta2, epsilon, mean: Vec::new(), square: Vec::new() }
    }
}

impl Transform for ScaleByAdam {
    fn init(&mut self, parameters: &[Tensor]) {
        (self.mean, self.square) = (zeros(parameters), zeros(parameters));
    }

    fn transform(&mut self, updates: Vec<Tensor>, step: &mut Step<'_>) -> Vec<Tensor> {
        let number = i32::try_from(step.number()).unwrap_or(i32::MAX);
        let correction1 = 1.0 - self.beta1.powi(number);
        let correction2 = (1.0 - self.beta2.powi(number)).sqrt();
        let triples = updates.into_iter().zip(&self.mean).zip(&self.square);
        triples
            .map(|((gradient, mean_cell), square_cell)| {
                let mean = mean_cell.tensor() * self.beta1 + &gradient * (1.0 - self.beta1);
                let square = square_cell.tensor() * self.beta2 + gradient.square() * (1.0 - self.beta2);
                step.assign(mean_cell, &mean);
                step.assign(square_cell, &square);
                (mean / correction1) / (square.sqrt() / correction2 + self.epsilon)
            })
            .collect()
    }

    fn state(&self) -> Vec<(&'static str, &[Cell])> {
        vec![("mean", &self.mean), ("square", &self.square)]
    }
}
