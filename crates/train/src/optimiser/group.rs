//! Groups of parameters, each with a chain, a learning rate and a schedule of its own.

use super::{Clock, Select, Step, Transform};
use crate::Schedule;
use gradus_nn::Param;
use gradus_tensor::Tensor;
use gradus_tensor::graph::Live;

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
    pub(super) remembered: Vec<f64>,
}

impl Link {
    pub(super) fn new(transform: Box<dyn Transform>) -> Link {
        let remembered = transform.remembered().iter().map(|&(_, first)| first).collect();
        Link { transform, remembered }
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

/// The numbers of a step that are others than those of the step before: of all links, one after the other.
#[derive(Default)]
pub(super) struct Numbers {
    pub(super) values: Vec<f64>,
    /// How many each link has.
    counts: Vec<usize>,
    /// What each link leaves for the next step.
    pub(super) left: Vec<Vec<f64>>,
}

impl Numbers {
    /// Adds those of a chain in step `number`, counted from 1.
    pub(super) fn add(&mut self, chain: &[Link], number: u64, learning_rate: f64) {
        for Link { transform, remembered } in chain {
            let mut clock = Clock::new(number, learning_rate, remembered);
            let values = transform.numbers(&mut clock);
            self.counts.push(values.len());
            self.values.extend(values);
            self.left.push(clock.left());
        }
    }

    /// What each link is given of the numbers, in order.
    pub(super) fn of_links<'a>(&self, mut live: &'a [Live]) -> impl Iterator<Item = &'a [Live]> {
        self.counts.iter().map(move |&count| live.split_off(..count).unwrap_or_default())
    }
}

/// Passes updates through a chain, each link with its numbers.
pub(super) fn pass<'a, 'n: 'a>(
    chain: &[Link],
    updates: Vec<Tensor>,
    numbers: &mut impl Iterator<Item = &'n [Live]>,
    step: &mut Step<'a>,
) -> Vec<Tensor> {
    chain.iter().zip(numbers).fold(updates, |updates, (link, numbers)| {
        step.begin(numbers);
        link.transform.transform(updates, step)
    })
}
