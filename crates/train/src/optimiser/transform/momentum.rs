//! Momentum and running means of updates.

use super::{Clock, Step, Transform, correction, running_mean, state_of, zeros};
use crate::Schedule;
use gradus_tensor::{Cell, Tensor};

/// Heavy-ball momentum, b ← decay · b + (1 − dampening) · u (the first step takes u undamped, as PyTorch does); with
/// Nesterov's look-ahead the update is u + decay · b instead of b (Sutskever et al. 2013).
pub struct Momentum {
    decay: Schedule,
    dampening: f64,
    nesterov: bool,
    velocity: Vec<Cell>,
}

impl Momentum {
    /// Momentum that keeps `decay` of the last update, a number or a schedule.
    pub fn new(decay: impl Into<Schedule>, dampening: f64, nesterov: bool) -> Momentum {
        Momentum { decay: decay.into(), dampening, nesterov, velocity: Vec::new() }
    }
}

impl Transform for Momentum {
    fn init(&mut self, parameters: &[Tensor]) {
        self.velocity = zeros(parameters);
    }

    fn numbers(&self, clock: &mut Clock<'_>) -> Vec<f64> {
        let share = if clock.number() == 1 { 1.0 } else { 1.0 - self.dampening };
        vec![self.decay.at(clock.number() - 1), share]
    }

    fn transform(&self, updates: Vec<Tensor>, step: &mut Step<'_>) -> Vec<Tensor> {
        let [decay, share] = step.numbers();
        let pairs = updates.into_iter().zip(&self.velocity);
        pairs
            .map(|(update, cell)| {
                let velocity = cell.tensor() * decay + &update * share;
                step.assign(cell, &velocity);
                if self.nesterov { update + velocity * decay } else { velocity }
            })
            .collect()
    }

    fn state(&self) -> Vec<(&'static str, usize, Cell)> {
        state_of("velocity", &self.velocity).collect()
    }
}

/// The running mean of the updates, corrected for its start at 0 (optax's `ema`).
pub struct Ema {
    decay: f64,
    mean: Vec<Cell>,
}

impl Ema {
    /// A mean that keeps `decay` of itself at each step.
    pub fn new(decay: f64) -> Ema {
        Ema { decay, mean: Vec::new() }
    }
}

impl Transform for Ema {
    fn init(&mut self, parameters: &[Tensor]) {
        self.mean = zeros(parameters);
    }

    fn numbers(&self, clock: &mut Clock<'_>) -> Vec<f64> {
        vec![correction(self.decay, clock.count())]
    }

    fn transform(&self, updates: Vec<Tensor>, step: &mut Step<'_>) -> Vec<Tensor> {
        let [correction] = step.numbers();
        let pairs = updates.into_iter().zip(&self.mean);
        pairs.map(|(update, cell)| running_mean(cell, &update, self.decay, step) / correction).collect()
    }

    fn state(&self) -> Vec<(&'static str, usize, Cell)> {
        state_of("mean", &self.mean).collect()
    }
}
