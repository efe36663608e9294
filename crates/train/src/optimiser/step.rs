//! What a transformation sees of a step, and where it leaves its new state.

use gradus_tensor::graph::Live;
use gradus_tensor::{Cell, Tensor};

/// What the numbers of a step depend on: its count, the learning rate, and what the step before left.
pub struct Clock<'a> {
    number: u64,
    learning_rate: f64,
    remembered: &'a [f64],
    left: Vec<f64>,
}

impl<'a> Clock<'a> {
    pub(super) fn new(number: u64, learning_rate: f64, remembered: &'a [f64]) -> Clock<'a> {
        Clock { number, learning_rate, remembered, left: remembered.to_vec() }
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

    /// One of the numbers that are [remembered](super::Transform::remembered), as the last step left it.
    pub fn recall(&self, index: usize) -> f64 {
        self.remembered[index]
    }

    /// Leaves a number for the next step, unless this one fails.
    pub fn remember(&mut self, index: usize, number: f64) {
        self.left[index] = number;
    }

    pub(super) fn left(self) -> Vec<f64> {
        self.left
    }
}

/// What a transformation sees of a step, and where it leaves its new state.
pub struct Step<'a> {
    parameters: &'a [Tensor],
    numbers: &'a [Live],
    assignments: Vec<(Cell, Tensor)>,
}

impl<'a> Step<'a> {
    pub(super) fn new(parameters: &'a [Tensor]) -> Step<'a> {
        Step { parameters, numbers: &[], assignments: Vec::new() }
    }

    /// The step as the next link sees it, whose numbers these are.
    pub(super) fn begin(&mut self, numbers: &'a [Live]) {
        self.numbers = numbers;
    }

    /// The parameters before the step, in the order of the updates.
    pub fn parameters(&self) -> &'a [Tensor] {
        self.parameters
    }

    /// The link's [numbers](super::Transform::numbers) of this step.
    ///
    /// # Panics
    /// If there are not `N` of them.
    pub fn numbers<const N: usize>(&self) -> [Live; N] {
        let found = self.numbers.len();
        self.numbers.try_into().unwrap_or_else(|_| panic!("a transformation with {found} numbers asks for {N}"))
    }

    /// Leaves new state: it is assigned together with the parameters, or not at all if the step fails.
    pub fn assign(&mut self, state: &Cell, value: &Tensor) {
        self.assignments.push((state.clone(), value.clone()));
    }

    pub(super) fn into_assignments(self) -> Vec<(Cell, Tensor)> {
        self.assignments
    }
}
