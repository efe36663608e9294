//! Updates that only look at signs.

use super::{Step, Transform, filled, running_mean, state_of, zeros};
use gradus_tensor::{Cell, Tensor};

/// The sign of a mix of gradient and momentum (Chen et al. 2023, Algorithm 2).
pub struct ScaleByLion {
    beta1: f64,
    beta2: f64,
    mean: Vec<Cell>,
}

impl ScaleByLion {
    /// How much of the momentum is in the mix, and the decay rate of the momentum.
    pub fn new(beta1: f64, beta2: f64) -> ScaleByLion {
        ScaleByLion { beta1, beta2, mean: Vec::new() }
    }
}

impl Transform for ScaleByLion {
    fn init(&mut self, parameters: &[Tensor]) {
        self.mean = zeros(parameters);
    }

    fn transform(&self, updates: Vec<Tensor>, step: &mut Step<'_>) -> Vec<Tensor> {
        let pairs = updates.into_iter().zip(&self.mean);
        pairs
            .map(|(gradient, cell)| {
                let mix = cell.tensor() * self.beta1 + &gradient * (1.0 - self.beta1);
                running_mean(cell, &gradient, self.beta2, step);
                mix.sign()
            })
            .collect()
    }

    fn state(&self) -> Vec<(&'static str, usize, Cell)> {
        state_of("mean", &self.mean).collect()
    }
}

/// Steps of each element's own size, which grows while the gradient keeps its sign and shrinks when it changes (Riedmiller,
/// Braun 1993; the variant without back-tracking, as in PyTorch). For full batches. The learning rate is the first size alone.
pub struct ScaleByRprop {
    first: f64,
    shrink: f64,
    grow: f64,
    sizes: (f64, f64),
    gradient: Vec<Cell>,
    size: Vec<Cell>,
}

impl ScaleByRprop {
    /// The first size, what sizes are multiplied by after a change of sign and otherwise, and their bounds.
    pub fn new(first: f64, (shrink, grow): (f64, f64), sizes: (f64, f64)) -> ScaleByRprop {
        ScaleByRprop { first, shrink, grow, sizes, gradient: Vec::new(), size: Vec::new() }
    }
}

impl Transform for ScaleByRprop {
    fn init(&mut self, parameters: &[Tensor]) {
        (self.gradient, self.size) = (zeros(parameters), filled(parameters, self.first));
    }

    fn transform(&self, updates: Vec<Tensor>, step: &mut Step<'_>) -> Vec<Tensor> {
        let triples = updates.into_iter().zip(&self.gradient).zip(&self.size);
        triples
            .map(|((gradient, before), size)| {
                let change = gradient.sign() * before.tensor().sign();
                let grown = change.gt(0.0).where_(size.tensor() * self.grow, size.tensor());
                let sized = change.lt(0.0).where_(size.tensor() * self.shrink, grown);
                let sized = sized.clamp(self.sizes.0, self.sizes.1);
                // After a change of sign the element waits for a step.
                let gradient = gradient.masked_fill(&change.lt(0.0), 0.0);
                step.assign(before, &gradient);
                step.assign(size, &sized);
                -(gradient.sign() * sized)
            })
            .collect()
    }

    fn state(&self) -> Vec<(&'static str, usize, Cell)> {
        state_of("gradient", &self.gradient).chain(state_of("size", &self.size)).collect()
    }
}
