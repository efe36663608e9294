//! What a transformation sees of a step, and where it leaves its new state.

use gradus_tensor::{Cell, Tensor};

/// What a transformation sees of a step, and where it leaves its new state.
pub struct Step<'a> {
    parameters: &'a [Tensor],
    number: u64,
    learning_rate: f64,
    remembered: &'a [f64],
    numbers: Vec<f64>,
    assignments: Vec<(Cell, Tensor)>,
}

impl<'a> Step<'a> {
    pub(super) fn new(parameters: &'a [Tensor], number: u64, learning_rate: f64) -> Step<'a> {
        Step { parameters, number, learning_rate, remembered: &[], numbers: Vec::new(), assignments: Vec::new() }
    }

    /// The step as the next link sees it, which remembers these numbers.
    pub(super) fn begin(&mut self, remembered: &'a [f64]) {
        (self.remembered, self.numbers) = (remembered, remembered.to_vec());
    }

    /// The numbers that the last link leaves.
    pub(super) fn end(&mut self) -> Vec<f64> {
        std::mem::take(&mut self.numbers)
    }

    /// The parameters before the step, in the order of the updates.
    pub fn parameters(&self) -> &'a [Tensor] {
        self.parameters
    }

    /// 1 for the first step.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The number as a float, for powers.
    pub fn count(&self) -> f64 {
        self.number as f64
    }

    /// The learning rate of this step: the group's, times its schedule.
    pub fn learning_rate(&self) -> f64 {
        self.learning_rate
    }

    /// One of the numbers of [`Transform::numbers`](super::Transform::numbers), as the last step left it.
    pub fn recall(&self, index: usize) -> f64 {
        self.remembered[index]
    }

    /// Leaves a number for the next step, unless this one fails.
    pub fn remember(&mut self, index: usize, number: f64) {
        self.numbers[index] = number;
    }

    /// Leaves new state: it is assigned together with the parameters, or not at all if the step fails.
    pub fn assign(&mut self, state: &Cell, value: &Tensor) {
        self.assignments.push((state.clone(), value.clone()));
    }

    pub(super) fn into_assignments(self) -> Vec<(Cell, Tensor)> {
        self.assignments
    }
}
