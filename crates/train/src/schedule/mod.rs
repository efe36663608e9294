//! Schedules: numbers that change with the steps of training.

mod cyclic;
mod plateau;

pub use cyclic::{Cyclic, OneCycle};
pub use plateau::{Plateau, PlateauState};

use std::f64::consts::PI;
use std::fmt;
use std::sync::Arc;

/// A number for each step of training, counted from 0: what the learning rate is multiplied by, or a hyperparameter
/// such as a momentum.
///
/// As a factor of the learning rate it reads like PyTorch's schedulers (`lr = base · factor`); with a learning rate of 1 it
/// is optax's, whose schedules are rates themselves. It is a pure function of the step, so that an optimiser which knows
/// its number of steps needs no other state to go on. Any number is a schedule that never changes.
///
/// ```
/// use gradus_train::Schedule;
///
/// // 500 steps of warm-up, then down along a cosine to a hundredth.
/// let schedule = Schedule::linear(0.0, 1.0, 500).then(500, Schedule::cosine(9500, 0.01));
/// assert_eq!(schedule.at(0), 0.0);
/// assert_eq!(schedule.at(250), 0.5);
/// assert_eq!(schedule.at(500), 1.0);
/// assert_eq!(schedule.at(20_000), 0.01);
/// ```
#[derive(Clone)]
pub struct Schedule {
    at: Arc<dyn Fn(u64) -> f64 + Send + Sync>,
    name: &'static str,
}

/// The name of schedules that never change.
const CONSTANT: &str = "constant";

impl Schedule {
    /// A schedule of one's own: a function of the step.
    ///
    /// ```
    /// # use gradus_train::Schedule;
    /// let halved = Schedule::new(|step| if step < 100 { 1.0 } else { 0.5 });
    /// assert_eq!(halved.at(100), 0.5);
    /// ```
    pub fn new(at: impl Fn(u64) -> f64 + Send + Sync + 'static) -> Schedule {
        Schedule::named("function", at)
    }

    fn named(name: &'static str, at: impl Fn(u64) -> f64 + Send + Sync + 'static) -> Schedule {
        Schedule { at: Arc::new(at), name }
    }

    /// The number at a step.
    pub fn at(&self, step: u64) -> f64 {
        (self.at)(step)
    }

    /// Whether it is this number at every step, and known to be.
    pub(crate) fn is(&self, value: f64) -> bool {
        self.name == CONSTANT && self.at(0) == value
    }

    /// Always the same.
    pub fn constant(value: f64) -> Schedule {
        Schedule::named(CONSTANT, move |_| value)
    }

    /// `factor` for some steps, then 1 (PyTorch's `ConstantLR`).
    pub fn constant_for(steps: u64, factor: f64) -> Schedule {
        Schedule::named("constant at first", move |step| if step < steps { factor } else { 1.0 })
    }

    /// From `start` to `end` in equal parts over some steps, then `end` (PyTorch's `LinearLR`).
    pub fn linear(start: f64, end: f64, steps: u64) -> Schedule {
        Schedule::named("linear", move |step| mix(end, start, 1.0 - progress(step, steps)))
    }

    /// From 1 to `end` along (1 − step/steps)^`power`, then `end` (PyTorch's `PolynomialLR`, whose end is 0; optax's
    /// `polynomial_schedule`).
    pub fn polynomial(steps: u64, power: f64, end: f64) -> Schedule {
        Schedule::named("polynomial", move |step| mix(end, 1.0, (1.0 - progress(step, steps)).powf(power)))
    }

    /// `gamma` more at every step: `gamma`^step (PyTorch's `ExponentialLR`).
    pub fn exponential(gamma: f64) -> Schedule {
        Schedule::named("exponential", move |step| gamma.powf(step as f64))
    }

    /// `gamma` more every `size` steps (PyTorch's `StepLR`).
    pub fn step(size: u64, gamma: f64) -> Schedule {
        Schedule::named("step", move |step| gamma.powf((step / size.max(1)) as f64))
    }

    /// `gamma` more at each of the milestones, in any order (PyTorch's `MultiStepLR`).
    pub fn multi_step(milestones: impl Into<Vec<u64>>, gamma: f64) -> Schedule {
        let milestones = milestones.into();
        Schedule::piecewise(milestones.into_iter().map(|milestone| (milestone, gamma)))
    }

    /// 1, multiplied from each boundary on by the boundary's factor (optax's `piecewise_constant_schedule`).
    ///
    /// ```
    /// # use gradus_train::Schedule;
    /// let schedule = Schedule::piecewise([(10, 0.5), (30, 0.1)]);
    /// assert_eq!([schedule.at(9), schedule.at(10), schedule.at(30)], [1.0, 0.5, 0.05]);
    /// ```
    pub fn piecewise(boundaries: impl IntoIterator<Item = (u64, f64)>) -> Schedule {
        let mut boundaries: Vec<(u64, f64)> = boundaries.into_iter().collect();
        boundaries.sort_by_key(|&(boundary, _)| boundary);
        Schedule::named("piecewise", move |step| {
            boundaries.iter().take_while(|(boundary, _)| *boundary <= step).map(|(_, factor)| factor).product()
        })
    }

    /// Down from 1 to `floor` along half a cosine, then `floor` (Loshchilov, Hutter 2017, equation 5; optax's
    /// `cosine_decay_schedule`).
    pub fn cosine(steps: u64, floor: f64) -> Schedule {
        Schedule::named("cosine", move |step| mix(floor, 1.0, half_cosine(progress(step, steps))))
    }

    /// As [`cosine`](Schedule::cosine), but up again after `steps`, and so on: what PyTorch's `CosineAnnealingLR` does
    /// beyond its `T_max`.
    pub fn cosine_wave(steps: u64, floor: f64) -> Schedule {
        let steps = steps.max(1);
        // Whole periods are taken off first, so that late steps keep their digits.
        Schedule::named("cosine", move |step| {
            mix(floor, 1.0, half_cosine((step % steps.saturating_mul(2)) as f64 / steps as f64))
        })
    }

    /// [`cosine`](Schedule::cosine) again and again: `first` steps down to `floor`, then from 1 over `multiply` times as
    /// many, and so on (SGDR: Loshchilov, Hutter 2017; PyTorch's `CosineAnnealingWarmRestarts`).
    pub fn cosine_restarts(first: u64, multiply: u64, floor: f64) -> Schedule {
        let (first, multiply) = (first.max(1), multiply.max(1));
        Schedule::named("cosine restarts", move |step| {
            let (mut length, mut left) = (first, step);
            if multiply == 1 {
                left %= length;
            }
            while left >= length {
                left -= length;
                length = length.saturating_mul(multiply);
            }
            mix(floor, 1.0, half_cosine(left as f64 / length as f64))
        })
    }

    /// Up to 1 over `warmup` steps, then down with the inverse root of the step (Vaswani et al. 2017, section 5.3, scaled
    /// so that its peak is 1).
    pub fn inverse_sqrt(warmup: u64) -> Schedule {
        let warmup = warmup.max(1) as f64;
        Schedule::named("inverse root", move |step| {
            let number = step as f64 + 1.0;
            (number / warmup).min((warmup / number).sqrt())
        })
    }

    /// This one before step `at`, and from there on the next, which counts its steps from 0 (PyTorch's `SequentialLR`,
    /// optax's `join_schedules`).
    pub fn then(self, at: u64, next: impl Into<Schedule>) -> Schedule {
        let next = next.into();
        Schedule::named("sequence", move |step| if step < at { self.at(step) } else { next.at(step - at) })
    }

    /// The product with another (PyTorch's `ChainedScheduler`), or with a number.
    ///
    /// ```
    /// # use gradus_train::Schedule;
    /// let schedule = Schedule::linear(0.0, 1.0, 10).times(Schedule::step(2, 0.5));
    /// assert_eq!(schedule.at(5), 0.5 * 0.25);
    /// ```
    pub fn times(self, other: impl Into<Schedule>) -> Schedule {
        let other = other.into();
        Schedule::named("product", move |step| self.at(step) * other.at(step))
    }

    /// Up from 0 in equal parts over `steps` steps (the first of them takes 1/`steps`), then this one, which counts its steps
    /// from there.
    pub fn after_warmup(self, steps: u64) -> Schedule {
        let peak = self.at(0);
        Schedule::new(move |step| peak * (step + 1) as f64 / steps.max(1) as f64).then(steps, self)
    }
}

/// A number that never changes.
impl From<f64> for Schedule {
    fn from(value: f64) -> Schedule {
        Schedule::constant(value)
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schedule({}, {} at first)", self.name, self.at(0))
    }
}

/// How much of `steps` is over, from 0 to 1; 1 if there are none.
fn progress(step: u64, steps: u64) -> f64 {
    if step < steps { step as f64 / steps as f64 } else { 1.0 }
}

/// From `low` (share 0) to `high` (share 1); exact at both ends.
fn mix(low: f64, high: f64, share: f64) -> f64 {
    low * (1.0 - share) + high * share
}

/// From 1 to 0 along half a cosine, for 0 to 1.
fn half_cosine(progress: f64) -> f64 {
    0.5 * (1.0 + (PI * progress).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_exact_and_nothing_divides_by_zero() {
        for steps in [0, 1, 7] {
            let schedules = [
                Schedule::linear(0.3, 0.1, steps),
                Schedule::polynomial(steps, 2.0, 0.1),
                Schedule::cosine(steps, 0.1),
            ];
            for schedule in schedules {
                assert_eq!([schedule.at(steps), schedule.at(u64::MAX)], [0.1, 0.1], "{schedule:?}");
            }
            let unending = [
                Schedule::cosine_wave(steps, 0.0),
                Schedule::cosine_restarts(steps, 1, 0.0),
                Schedule::cosine_restarts(steps, 2, 0.0),
                Schedule::step(steps, 0.5),
                Schedule::inverse_sqrt(steps),
            ];
            for schedule in unending {
                for step in [0, 1, u64::MAX] {
                    assert!((0.0..=1.0).contains(&schedule.at(step)), "{schedule:?} at {step}");
                }
            }
        }
    }

    #[test]
    fn warm_up_comes_before_the_rest() {
        let schedule = Schedule::constant(2.0).after_warmup(4);
        let values: Vec<f64> = (0..6).map(|step| schedule.at(step)).collect();
        assert_eq!(values, [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]);
        assert_eq!(Schedule::cosine(10, 0.0).after_warmup(0).at(0), 1.0);
    }

    #[test]
    fn the_inverse_root_has_its_peak_after_the_warm_up() {
        let schedule = Schedule::inverse_sqrt(100);
        assert_eq!([schedule.at(49), schedule.at(99), schedule.at(399)], [0.5, 1.0, 0.5]);
    }

    #[test]
    fn milestones_come_in_any_order() {
        let schedule = Schedule::multi_step([20, 10], 0.1);
        assert_eq!([schedule.at(9), schedule.at(10), schedule.at(25)], [1.0, 0.1, 0.1 * 0.1]);
    }
}
