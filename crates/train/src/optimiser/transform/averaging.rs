//! Links at the end of a chain that keep a second set of weights.

use super::{Clock, Step, Transform, state_of};
use gradus_tensor::{Cell, Tensor};

/// Cells that start at the parameters, in f32 for those of f16.
fn copies(parameters: &[Tensor]) -> Vec<Cell> {
    // Times one: a copy, so that parameter and state never share a buffer.
    parameters.iter().map(|p| Cell::buffer(p.widened().detach() * 1.0)).collect()
}

/// Look-ahead (Zhang et al. 2019, Algorithm 1): every few steps slow weights move a share of the way to the fast ones, which
/// go on from there. It comes last in a chain.
pub struct Lookahead {
    every: u64,
    share: f64,
    slow: Vec<Cell>,
}

impl Lookahead {
    /// Slow weights that move by `share` (such as 0.5) every so many steps (such as 5).
    pub fn new(every: u64, share: f64) -> Lookahead {
        Lookahead { every: every.max(1), share, slow: Vec::new() }
    }
}

impl Transform for Lookahead {
    fn init(&mut self, parameters: &[Tensor]) {
        self.slow = copies(parameters);
    }

    fn numbers(&self, clock: &mut Clock<'_>) -> Vec<f64> {
        // A number chooses, so that all steps share their plan.
        let meet = f64::from(u8::from(clock.number().is_multiple_of(self.every)));
        vec![meet, 1.0 - meet, meet * self.share]
    }

    fn transform(&self, updates: Vec<Tensor>, step: &mut Step<'_>) -> Vec<Tensor> {
        let [meet, stay, share] = step.numbers();
        let triples = updates.into_iter().zip(step.parameters()).zip(&self.slow);
        triples
            .map(|((update, parameter), cell)| {
                let (slow, parameter) = (cell.tensor(), parameter.widened());
                let way = &parameter + &update - &slow;
                let new = &slow + way * share;
                step.assign(cell, &new);
                update * stay + (new - parameter) * meet
            })
            .collect()
    }

    fn state(&self) -> Vec<(&'static str, usize, Cell)> {
        state_of("slow", &self.slow).collect()
    }

    fn evaluation_weights(&self, _: &[Tensor]) -> Option<Vec<Tensor>> {
        Some(self.slow.iter().map(Cell::tensor).collect())
    }
}

/// Schedule-free averaging (Defazio et al. 2024, equations 3 to 5): the chain before it moves a sequence z, gradients are taken
/// between z and the average x of its values, and x is what to evaluate with. It comes last in a chain, after the learning
/// rate, and takes the place of momentum and of a schedule that decays.
pub struct ScheduleFree {
    beta: f64,
    power: f64,
    z: Vec<Cell>,
}

/// Where the numbers of [`ScheduleFree`] are.
const LARGEST_RATE: usize = 0;
const TOTAL_WEIGHT: usize = 1;

impl ScheduleFree {
    /// How near to the average gradients are taken (such as 0.9), and the power of the largest rate so far that weighs the
    /// values (2 in the paper).
    pub fn new(beta: f64, power: f64) -> ScheduleFree {
        ScheduleFree { beta, power, z: Vec::new() }
    }
}

impl Transform for ScheduleFree {
    fn init(&mut self, parameters: &[Tensor]) {
        self.z = copies(parameters);
    }

    fn numbers(&self, clock: &mut Clock<'_>) -> Vec<f64> {
        let largest = clock.recall(LARGEST_RATE).max(clock.learning_rate());
        let weight = largest.powf(self.power);
        let total = clock.recall(TOTAL_WEIGHT) + weight;
        let share = if total > 0.0 { weight / total } else { 0.0 };
        clock.remember(LARGEST_RATE, largest);
        clock.remember(TOTAL_WEIGHT, total);
        vec![1.0 - share, self.beta * share + 1.0 - self.beta]
    }

    fn transform(&self, updates: Vec<Tensor>, step: &mut Step<'_>) -> Vec<Tensor> {
        let [of_average, of_z] = step.numbers();
        let triples = updates.into_iter().zip(step.parameters()).zip(&self.z);
        triples
            .map(|((update, parameter), cell)| {
                let (before, parameter) = (cell.tensor(), parameter.widened());
                let z = &before + update;
                step.assign(cell, &z);
                // β times the average before the step, without a division by β.
                let average = &parameter - before * (1.0 - self.beta);
                let new = average * of_average + z * of_z;
                new - parameter
            })
            .collect()
    }

    fn state(&self) -> Vec<(&'static str, usize, Cell)> {
        state_of("z", &self.z).collect()
    }

    fn remembered(&self) -> &'static [(&'static str, f64)] {
        &[("largest_rate", 0.0), ("total_weight", 0.0)]
    }

    fn evaluation_weights(&self, parameters: &[Tensor]) -> Option<Vec<Tensor>> {
        let average = |(y, z): (&Tensor, &Cell)| {
            let average = (y.widened() - z.tensor() * (1.0 - self.beta)) / self.beta;
            average.to_dtype(y.dtype())
        };
        // With β = 0 gradients are taken at z, and the average cannot be told from it: then it is not kept.
        (self.beta != 0.0).then(|| parameters.iter().zip(&self.z).map(average).collect())
    }
}
