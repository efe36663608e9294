//! Schedules that go up and down.

use super::{Schedule, half_cosine, mix};

/// One cycle of the learning rate: up to its peak, and down far below its start (Smith, Topin 2019; PyTorch's `OneCycleLR`).
/// Momentum goes the other way.
///
/// ```
/// use gradus_train::{OneCycle, Sgd};
///
/// let cycle = OneCycle::new(1000);
/// assert_eq!([cycle.rate().at(0), cycle.rate().at(299)], [0.04, 1.0]);
/// let rule = Sgd::new(0.5).momentum(cycle.momentum(0.85, 0.95)).schedule(cycle.rate());
/// # let _ = rule;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct OneCycle {
    steps: u64,
    rise: f64,
    start: f64,
    end: f64,
    linear: bool,
    three_phases: bool,
}

impl OneCycle {
    /// A cycle of so many steps: up in the first 30 % of them, from 1/25 to 1, then down to 1/25 · 10⁻⁴, along half cosines.
    pub fn new(steps: u64) -> OneCycle {
        OneCycle { steps, rise: 0.3, start: 1.0 / 25.0, end: 1.0 / 25.0 * 1e-4, linear: false, three_phases: false }
    }

    /// The share of the steps on which the rate rises.
    pub fn rise(self, share: f64) -> OneCycle {
        OneCycle { rise: share, ..self }
    }

    /// What the first and the last step take, as shares of the peak.
    pub fn from_to(self, start: f64, end: f64) -> OneCycle {
        OneCycle { start, end, ..self }
    }

    /// Along straight lines instead of cosines.
    pub fn linear(self) -> OneCycle {
        OneCycle { linear: true, ..self }
    }

    /// Down to the start as fast as it came up, and only then to the end.
    pub fn three_phases(self) -> OneCycle {
        OneCycle { three_phases: true, ..self }
    }

    /// The factor of the learning rate, whose peak is 1.
    pub fn rate(&self) -> Schedule {
        self.through(self.start, 1.0, self.end)
    }

    /// A momentum: `high` at first and at the end, `low` at the peak of the rate.
    pub fn momentum(&self, low: f64, high: f64) -> Schedule {
        self.through(high, low, high)
    }

    /// From `start` to `peak` and, with a stop at `start` if there are three phases, to `end`.
    fn through(&self, start: f64, peak: f64, end: f64) -> Schedule {
        let (last, linear) = (self.steps.max(1) as f64 - 1.0, self.linear);
        let top = self.rise * self.steps as f64 - 1.0;
        let mut phases = vec![(top, start, peak)];
        if self.three_phases {
            phases.push((2.0 * self.rise * self.steps as f64 - 2.0, peak, start));
            phases.push((last, start, end));
        } else {
            phases.push((last, peak, end));
        }
        Schedule::named("one cycle", move |step| {
            let (step, mut begin) = ((step as f64).min(last), 0.0);
            for &(until, from, to) in &phases {
                if step <= until {
                    let progress = if until > begin { (step - begin) / (until - begin) } else { 1.0 };
                    return mix(to, from, if linear { 1.0 - progress } else { half_cosine(progress) });
                }
                begin = until;
            }
            end
        })
    }
}

/// Up and down between two bounds, again and again (Smith 2017; PyTorch's `CyclicLR`). The bounds are factors of the learning
/// rate, or rates if that is 1.
///
/// ```
/// use gradus_train::Cyclic;
///
/// let schedule = Cyclic::new(0.1, 1.0, 4).falling_over(2).schedule();
/// let values: Vec<f64> = (0..7).map(|step| (schedule.at(step) * 1e3).round()).collect();
/// assert_eq!(values, [100.0, 325.0, 550.0, 775.0, 1000.0, 550.0, 100.0]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Cyclic {
    low: f64,
    high: f64,
    up: u64,
    down: u64,
    halving: bool,
    gamma: f64,
}

impl Cyclic {
    /// From `low` up to `high` over `steps` steps, and down again over as many.
    pub fn new(low: f64, high: f64, steps: u64) -> Cyclic {
        Cyclic { low, high, up: steps, down: steps, halving: false, gamma: 1.0 }
    }

    /// Takes another number of steps for the way down.
    pub fn falling_over(self, steps: u64) -> Cyclic {
        Cyclic { down: steps, ..self }
    }

    /// Halves the height of each cycle (PyTorch's `triangular2`).
    pub fn halving(self) -> Cyclic {
        Cyclic { halving: true, ..self }
    }

    /// Multiplies the height by `gamma` at every step (PyTorch's `exp_range`).
    pub fn decaying(self, gamma: f64) -> Cyclic {
        Cyclic { gamma, ..self }
    }

    /// The schedule.
    pub fn schedule(self) -> Schedule {
        let (up, length) = (self.up.max(1), self.up.max(1).saturating_add(self.down));
        Schedule::named("cyclic", move |step| {
            let (cycle, within) = (step / length, step % length);
            let height =
                if within <= up { within as f64 / up as f64 } else { (length - within) as f64 / (length - up) as f64 };
            let halved = if self.halving { 0.5_f64.powf(cycle as f64) } else { 1.0 };
            self.low + (self.high - self.low) * height * halved * self.gamma.powf(step as f64)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_of_any_length_are_finite() {
        for steps in [0, 1, 2, 3, 10] {
            for cycle in [OneCycle::new(steps), OneCycle::new(steps).three_phases(), OneCycle::new(steps).rise(0.0)] {
                for step in [0, 1, 2, 9, u64::MAX] {
                    assert!((0.0..=1.0).contains(&cycle.rate().at(step)), "{cycle:?} at {step}");
                }
            }
            let cyclic = Cyclic::new(0.0, 1.0, steps).falling_over(0).schedule();
            assert!((0..20).all(|step| (0.0..=1.0).contains(&cyclic.at(step))));
        }
        assert!((OneCycle::new(100).rate().at(99) - 4e-6).abs() < 1e-18);
    }

    #[test]
    fn the_height_decays() {
        let schedule = Cyclic::new(0.0, 1.0, 2).decaying(0.5).schedule();
        assert_eq!([schedule.at(1), schedule.at(2), schedule.at(6)], [0.25, 0.25, 1.0 / 64.0]);
    }
}
