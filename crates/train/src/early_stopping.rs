//! Stopping when a metric no longer improves, with the weights of its best value.

use crate::Snapshot;
use gradus_nn::Module;
use gradus_tensor::Result;

/// Watches a metric of validation data, says when it has not improved for a while, and keeps the weights of its best value.
///
/// ```
/// use gradus_nn::Linear;
/// use gradus_tensor::{Device, Tensor};
/// use gradus_train::EarlyStopping;
///
/// let model = Linear::from_tensors(Tensor::new([[0.0]], &Device::cpu()), None);
/// let mut stopping = EarlyStopping::falling(2);
/// for (epoch, loss) in [3.0, 1.0, 2.0, 1.5, 0.5].into_iter().enumerate() {
///     model.weight.set(Tensor::new([[epoch as f32]], &Device::cpu()))?;
///     if stopping.observe(loss, &model)? {
///         break;
///     }
/// }
/// assert_eq!((stopping.best(), stopping.best_epoch()), (Some(1.0), Some(1)));
/// stopping.restore_best()?;
/// assert_eq!(model.weight.tensor().item::<f32>()?, 1.0);
/// # Ok::<(), gradus_tensor::Error>(())
/// ```
pub struct EarlyStopping {
    rising: bool,
    patience: u64,
    least: f64,
    state: EarlyStoppingState,
    weights: Option<Snapshot>,
}

/// What [`EarlyStopping`] remembers beside the weights, to be saved and loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EarlyStoppingState {
    /// How many values there were.
    pub epochs: u64,
    /// The best one so far, and which one it was, from 0.
    pub best: Option<(f64, u64)>,
}

impl EarlyStopping {
    /// Watches a number that should fall, such as a loss, and stops after `patience` values in a row that are no improvement.
    pub fn falling(patience: u64) -> EarlyStopping {
        EarlyStopping { rising: false, patience, least: 0.0, state: EarlyStoppingState::default(), weights: None }
    }

    /// Watches a number that should rise, such as an accuracy.
    pub fn rising(patience: u64) -> EarlyStopping {
        EarlyStopping { rising: true, ..EarlyStopping::falling(patience) }
    }

    /// Better is what is better than the best by more than this.
    pub fn least_change(self, least: f64) -> EarlyStopping {
        EarlyStopping { least, ..self }
    }

    /// Takes the next value, and copies the weights if it is the best; says whether to stop. NaN is never the best.
    ///
    /// # Errors
    /// If the weights cannot be copied; the value then does not count.
    #[track_caller]
    pub fn observe(&mut self, value: f64, model: &(impl Module + ?Sized)) -> Result<bool> {
        let better = match self.state.best {
            None => !value.is_nan(),
            Some((best, _)) if self.rising => value > best + self.least,
            Some((best, _)) => value < best - self.least,
        };
        if better {
            self.weights = Some(Snapshot::of(model)?);
            self.state.best = Some((value, self.state.epochs));
        }
        self.state.epochs += 1;
        Ok(self.is_over())
    }

    /// Whether it is time to stop.
    pub fn is_over(&self) -> bool {
        let waited = self.state.epochs - self.state.best.map_or(0, |(_, epoch)| epoch + 1);
        waited > 0 && waited >= self.patience
    }

    /// The best value so far.
    pub fn best(&self) -> Option<f64> {
        self.state.best.map(|(value, _)| value)
    }

    /// Which value was the best, from 0.
    pub fn best_epoch(&self) -> Option<u64> {
        self.state.best.map(|(_, epoch)| epoch)
    }

    /// The weights of the best value.
    pub fn best_weights(&self) -> Option<&Snapshot> {
        self.weights.as_ref()
    }

    /// Puts the weights (and buffers) of the best value into the model. Without one, or after loading a state whose weights were
    /// not loaded into the model, it stays as it is.
    ///
    /// # Errors
    /// If memory is short; the model is then as before.
    #[track_caller]
    pub fn restore_best(&self) -> Result<()> {
        self.weights.as_ref().map_or(Ok(()), Snapshot::restore_tensors)
    }

    /// What it remembers beside the weights; these are [`best_weights`](EarlyStopping::best_weights).
    pub fn state(&self) -> EarlyStoppingState {
        self.state
    }

    /// Goes back (or on) to a state. `weights` are those of the best value, such as a [`Snapshot`] of a model that they were
    /// loaded into.
    pub fn load_state(&mut self, state: EarlyStoppingState, weights: Option<Snapshot>) {
        (self.state, self.weights) = (state, weights);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gradus_nn::Linear;
    use gradus_tensor::{Device, Tensor};

    /// After which value it stops, and the best one.
    fn stops(mut stopping: EarlyStopping, values: &[f64]) -> (Option<usize>, Option<u64>) {
        let model = Linear::from_tensors(Tensor::new([[0.0]], &Device::cpu()), None);
        let at = values.iter().position(|&value| stopping.observe(value, &model).unwrap());
        (at, stopping.best_epoch())
    }

    #[test]
    fn when_it_stops() {
        let values = [1.0, 0.9, 0.95, 0.95, 0.8, 0.85, 0.85, 0.85];
        assert_eq!(stops(EarlyStopping::falling(2), &values), (Some(3), Some(1)));
        assert_eq!(stops(EarlyStopping::falling(3), &values), (Some(7), Some(4)));
        assert_eq!(stops(EarlyStopping::falling(4), &values), (None, Some(4)));
        assert_eq!(stops(EarlyStopping::falling(0), &values), (Some(2), Some(1)));
        assert_eq!(stops(EarlyStopping::falling(4).least_change(0.15), &values), (None, Some(4)));
        assert_eq!(stops(EarlyStopping::falling(4).least_change(0.2), &values), (Some(4), Some(0)));
        assert_eq!(stops(EarlyStopping::rising(2), &[0.1, 0.2, 0.2, 0.2]), (Some(3), Some(1)));
        assert_eq!(stops(EarlyStopping::falling(2), &[f64::NAN, f64::NAN, 1.0]), (Some(1), None));
        assert_eq!(stops(EarlyStopping::falling(2), &[f64::INFINITY, 1.0, f64::NAN, 0.5]), (None, Some(3)));
    }
}
