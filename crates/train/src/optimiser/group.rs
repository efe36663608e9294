//! Groups of parameters, each with a chain, a learning rate and a schedule of its own.

use super::{Select, Step, Transform};
use crate::Schedule;
use gradus_nn::Param;
use gradus_tensor::Tensor;

/// How some of the parameters are optimised: a chain of transformations, a learning rate, and a schedule if there is one.
///
/// [`Optimiser::with_groups`](super::Optimiser::with_groups) takes several; named optimisers make them by their method
/// `group`.
pub struct Group {
    selects: Box<Selects>,
    pub(super) chain: Vec<Link>,
    pub(super) learning_rate: f64,
    pub(super) schedule: Option<Schedule>,
    /// Which of the optimiser's parameters are in the group.
    pub(super) members: Vec<usize>,
}

/// Whether a parameter with its path is in a group.
type Selects = dyn Fn(&str, &Param) -> bool + Send;

/// A link of a chain, with the numbers that it remembers.
pub(super) struct Link {
    pub(super) transform: Box<dyn Transform>,
    pub(super) numbers: Vec<f64>,
}

impl Link {
    pub(super) fn new(transform: Box<dyn Transform>) -> Link {
        let numbers = transform.numbers().iter().map(|&(_, first)| first).collect();
        Link { transform, numbers }
    }
}

impl Group {
    /// A group of all parameters that are in no group before it.
    pub fn of_the_rest(learning_rate: f64, chain: Vec<Box<dyn Transform>>) -> Group {
        Group::chosen(learning_rate, chain, |_, _| true)
    }

    /// A group of the parameters whose paths are selected, as far as they are in no group before it.
    pub fn of_paths(paths: impl Select + Send + 'static, learning_rate: f64, chain: Vec<Box<dyn Transform>>) -> Group {
        Group::chosen(learning_rate, chain, move |path, _| paths.selects(path))
    }

    /// A group of the parameters for which this function of path and parameter says so, as far as they are in no group
    /// before it.
    pub fn chosen(
        learning_rate: f64,
        chain: Vec<Box<dyn Transform>>,
        selects: impl Fn(&str, &Param) -> bool + Send + 'static,
    ) -> Group {
        let chain = chain.into_iter().map(Link::new).collect();
        Group { selects: Box::new(selects), chain, learning_rate, schedule: None, members: Vec::new() }
    }

    /// Multiplies the learning rate by a schedule of the steps.
    pub fn schedule(mut self, schedule: impl Into<Schedule>) -> Group {
        self.schedule = Some(schedule.into());
        self
    }

    pub(super) fn has(&self, path: &str, parameter: &Param) -> bool {
        (self.selects)(path, parameter)
    }

    /// The learning rate of a step, counted from 0.
    pub(super) fn rate(&self, step: u64) -> f64 {
        self.learning_rate * self.schedule.as_ref().map_or(1.0, |schedule| schedule.at(step))
    }
}

/// Passes updates through a chain; the numbers that its links leave come back.
pub(super) fn pass<'a>(
    chain: &'a mut [Link],
    updates: Vec<Tensor>,
    step: &mut Step<'a>,
) -> (Vec<Tensor>, Vec<Vec<f64>>) {
    let mut updates = updates;
    let mut numbers = Vec::with_capacity(chain.len());
    for Link { transform, numbers: remembered } in chain {
        step.begin(remembered);
        updates = transform.transform(updates, step);
        numbers.push(step.end());
    }
    (updates, numbers)
}
