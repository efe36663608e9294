//! A watcher of the gap between training and validation.

use std::fmt;

/// Watches the losses of training and validation, and says once when over-fitting starts: when the validation loss has been above
/// its best for a while by more than noise, and the training loss has gone on falling.
///
/// ```
/// use gradus_train::OverFitting;
///
/// let mut watcher = OverFitting::new();
/// let mut warnings = Vec::new();
/// for epoch in 0..12 {
///     let training = 0.8_f64.powi(epoch);
///     let validation = training + 0.05 * f64::from(epoch);
///     warnings.extend(watcher.observe(training, validation));
/// }
/// assert_eq!(warnings.len(), 1);
/// println!("{}", warnings[0]); // over-fitting since epoch 8: …
/// ```
#[derive(Clone, Debug)]
pub struct OverFitting {
    patience: usize,
    rise: f64,
    losses: Vec<(f64, f64)>,
    warned: bool,
}

/// That over-fitting has started; it prints as one line, with what to try.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OverFittingWarning {
    /// The epoch (from 1) of the best validation loss.
    pub best_epoch: usize,
    /// Losses of training and validation in that epoch.
    pub best: (f64, f64),
    /// And in the last one.
    pub last: (f64, f64),
}

impl Default for OverFitting {
    fn default() -> OverFitting {
        OverFitting::new()
    }
}

impl OverFitting {
    /// Waits for three epochs in a row whose validation loss is 1 % above its best.
    pub fn new() -> OverFitting {
        OverFitting { patience: 3, rise: 0.01, losses: Vec::new(), warned: false }
    }

    /// How many epochs in a row have to be worse, at least one.
    pub fn patience(self, epochs: usize) -> OverFitting {
        OverFitting { patience: epochs.max(1), ..self }
    }

    /// By which share of its magnitude the validation loss has to be above its best.
    pub fn rise(self, share: f64) -> OverFitting {
        OverFitting { rise: share, ..self }
    }

    /// Takes the losses of an epoch; a warning comes once, when over-fitting is found.
    pub fn observe(&mut self, training: f64, validation: f64) -> Option<OverFittingWarning> {
        self.losses.push((training, validation));
        if self.warned {
            return None;
        }
        let warning = self.find()?;
        self.warned = true;
        Some(warning)
    }

    fn find(&self) -> Option<OverFittingWarning> {
        let numbers = self.losses.iter().enumerate().filter(|(_, (_, validation))| !validation.is_nan());
        let (index, &best) = numbers.min_by(|a, b| a.1.1.total_cmp(&b.1.1))?;
        let later = &self.losses[index + 1..];
        if later.len() < self.patience {
            return None;
        }
        let limit = best.1 + self.rise * best.1.abs();
        let last = *self.losses.last()?;
        let worse = later[later.len() - self.patience..].iter().all(|&(_, validation)| validation > limit);
        (worse && last.0 < best.0).then_some(OverFittingWarning { best_epoch: index + 1, best, last })
    }

    /// Validation loss minus training loss in the last epoch.
    pub fn gap(&self) -> Option<f64> {
        self.losses.last().map(|(training, validation)| validation - training)
    }

    /// The losses of training and validation so far, one pair for each epoch: its state, to be saved and loaded.
    pub fn losses(&self) -> &[(f64, f64)] {
        &self.losses
    }

    /// Goes back (or on) to the losses of earlier epochs.
    pub fn load_losses(&mut self, losses: &[(f64, f64)]) {
        (self.losses, self.warned) = (Vec::new(), false);
        for &(training, validation) in losses {
            self.observe(training, validation);
        }
    }
}

impl fmt::Display for OverFittingWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OverFittingWarning { best_epoch, best, last } = self;
        write!(
            f,
            "over-fitting since epoch {best_epoch}: training loss {:.4} → {:.4}, validation loss {:.4} (its best) → {:.4}; try to \
             stop at epoch {best_epoch}, more weight decay or dropout, augmentation or more data, a smaller model",
            best.0, last.0, best.1, last.1,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warning(losses: &[(f64, f64)]) -> Option<OverFittingWarning> {
        let mut watcher = OverFitting::new();
        losses.iter().find_map(|&(training, validation)| watcher.observe(training, validation))
    }

    #[test]
    fn it_is_found_once_and_where_it_begins() {
        let falling = |epoch: i32| 0.9_f64.powi(epoch);
        let over: Vec<(f64, f64)> = (0..20).map(|e| (falling(e), 1.0 + 0.01 * f64::from((e - 8).pow(2)))).collect();
        let found = warning(&over).expect("the validation loss rises");
        assert_eq!((found.best_epoch, found.best), (9, over[8]));
        let line = found.to_string();
        assert!(line.starts_with("over-fitting since epoch 9: training loss 0.4305 → "), "{line}");
        assert!(!line.contains('\n'));
        let mut watcher = OverFitting::new();
        assert_eq!(over.iter().filter_map(|&(t, v)| watcher.observe(t, v)).count(), 1);
        let mut resumed = OverFitting::new();
        resumed.load_losses(watcher.losses());
        assert_eq!(resumed.observe(0.0, 9.0), None);
        assert_eq!(resumed.gap(), Some(9.0));
    }

    #[test]
    fn noise_divergence_and_nan_are_no_over_fitting() {
        let falling = |epoch: i32| 0.9_f64.powi(epoch);
        // Within a hundredth of the best; both rising; one bad epoch at a time; not a number.
        let noise: Vec<(f64, f64)> = (0..20).map(|e| (falling(e), 1.0 + 0.009 * f64::from(e % 2))).collect();
        let both: Vec<(f64, f64)> = (0..20).map(|e| (f64::from(e), f64::from(e))).collect();
        let now_and_then: Vec<(f64, f64)> = (0..20).map(|e| (falling(e), if e % 3 == 0 { 1.0 } else { 2.0 })).collect();
        let nan = [(f64::NAN, f64::NAN); 10];
        for losses in [&noise[..], &both, &now_and_then, &nan] {
            assert_eq!(warning(losses), None);
        }
    }
}
