//! Lower learning rates when a metric no longer improves.

use crate::Optimiser;

/// Multiplies the learning rates by a factor when a metric has not improved for a while (PyTorch's `ReduceLROnPlateau`).
///
/// ```
/// use gradus_train::Plateau;
///
/// let mut plateau = Plateau::falling().factor(0.5).patience(1);
/// let rates: Vec<bool> = [1.0, 0.8, 0.8, 0.8, 0.7].into_iter().map(|loss| plateau.observe(loss)).collect();
/// assert_eq!(rates, [false, false, false, true, false]);
/// assert_eq!(plateau.next(0.1), 0.05);
/// ```
#[derive(Clone, Debug)]
pub struct Plateau {
    rising: bool,
    factor: f64,
    patience: u64,
    threshold: f64,
    relative: bool,
    cooldown: u64,
    smallest: f64,
    state: PlateauState,
}

/// What a [`Plateau`] remembers, to be saved and loaded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlateauState {
    /// The best value so far; infinite on the bad side at first.
    pub best: f64,
    /// For how many values it has not improved.
    pub waited: u64,
    /// For how many values more nothing is counted after a reduction.
    pub cooling: u64,
}

impl Plateau {
    /// Watches a number that should fall, such as a loss: the factor is 0.1, the patience 10 values, and better is what is
    /// below the best by a share of 10⁻⁴.
    pub fn falling() -> Plateau {
        Plateau::new(false)
    }

    /// Watches a number that should rise, such as an accuracy.
    pub fn rising() -> Plateau {
        Plateau::new(true)
    }

    fn new(rising: bool) -> Plateau {
        let best = if rising { f64::NEG_INFINITY } else { f64::INFINITY };
        Plateau {
            rising,
            factor: 0.1,
            patience: 10,
            threshold: 1e-4,
            relative: true,
            cooldown: 0,
            smallest: 0.0,
            state: PlateauState { best, waited: 0, cooling: 0 },
        }
    }

    /// What rates are multiplied by.
    pub fn factor(self, factor: f64) -> Plateau {
        Plateau { factor, ..self }
    }

    /// How many values without improvement are put up with.
    pub fn patience(self, values: u64) -> Plateau {
        Plateau { patience: values, ..self }
    }

    /// By what share of the best's magnitude a value must be better.
    pub fn relative_threshold(self, threshold: f64) -> Plateau {
        Plateau { threshold, relative: true, ..self }
    }

    /// By how much a value must be better.
    pub fn absolute_threshold(self, threshold: f64) -> Plateau {
        Plateau { threshold, relative: false, ..self }
    }

    /// How many values after a reduction are not counted.
    pub fn cooldown(self, values: u64) -> Plateau {
        Plateau { cooldown: values, ..self }
    }

    /// The rate below which nothing is reduced.
    pub fn smallest(self, rate: f64) -> Plateau {
        Plateau { smallest: rate, ..self }
    }

    /// Takes the next value, and says whether it is time to reduce. NaN is never an improvement.
    pub fn observe(&mut self, value: f64) -> bool {
        let state = &mut self.state;
        let margin = if self.relative { self.threshold * state.best.abs() } else { self.threshold };
        // An infinite best has no share: everything finite is better.
        let better = match (self.rising, state.best.is_infinite()) {
            (true, true) => value > state.best,
            (false, true) => value < state.best,
            (true, false) => value > state.best + margin,
            (false, false) => value < state.best - margin,
        };
        if better {
            (state.best, state.waited) = (value, 0);
        } else {
            state.waited += 1;
        }
        if state.cooling > 0 {
            state.cooling -= 1;
            state.waited = 0;
        }
        let reduce = state.waited > self.patience;
        if reduce {
            (state.waited, state.cooling) = (0, self.cooldown);
        }
        reduce
    }

    /// A rate after a reduction. One that would move by no more than 10⁻⁸ stays, as in PyTorch.
    pub fn next(&self, rate: f64) -> f64 {
        let next = (rate * self.factor).max(self.smallest);
        if rate - next > 1e-8 { next } else { rate }
    }

    /// Takes the next value, and reduces the optimiser's rates when it is time; says whether it did.
    pub fn reduce(&mut self, value: f64, optimiser: &mut Optimiser) -> bool {
        let reduce = self.observe(value);
        if reduce {
            let rates: Vec<f64> = optimiser.learning_rates().into_iter().map(|rate| self.next(rate)).collect();
            optimiser.set_learning_rates(&rates);
        }
        reduce
    }

    /// What it remembers.
    pub fn state(&self) -> PlateauState {
        self.state
    }

    /// Goes back (or on) to a state.
    pub fn load_state(&mut self, state: PlateauState) {
        self.state = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_is_no_improvement_and_infinity_no_best() {
        let mut plateau = Plateau::falling().patience(0);
        assert!(plateau.observe(f64::NAN));
        assert!(!plateau.observe(1e300));
        assert!(plateau.observe(f64::NAN));
        let mut plateau = Plateau::rising().patience(0);
        assert!(!plateau.observe(-1.0));
        assert!(!plateau.observe(f64::INFINITY));
        assert!(plateau.observe(f64::INFINITY));
    }

    #[test]
    fn it_goes_on_from_a_state() {
        let mut first = Plateau::falling().patience(2);
        first.observe(1.0);
        first.observe(1.0);
        let mut second = Plateau::falling().patience(2);
        second.load_state(first.state());
        for value in [1.0, 1.0, 0.5, 1.0, 1.0, 1.0] {
            assert_eq!(first.observe(value), second.observe(value));
        }
        assert_eq!(first.state(), second.state());
    }
}
