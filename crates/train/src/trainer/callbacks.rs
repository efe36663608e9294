//! Callbacks that come with the library.

use super::{Callback, CallbackError, EpochRecord, Flow, Moment};
use crate::log::Log;
use crate::{EarlyStopping, EarlyStoppingState, Snapshot};
use gradus_nn::Module;
use gradus_tensor::Tensor;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Ends a run when a metric no longer improves, and gives the model the weights of its best value when the run ends.
///
/// ```
/// use gradus_train::{EarlyStopping, StopEarly};
///
/// // Ten epochs in a row without a new lowest validation loss, or five without a new highest accuracy.
/// let by_loss = StopEarly::new("validation_loss", EarlyStopping::falling(10));
/// let by_accuracy = StopEarly::new("accuracy", EarlyStopping::rising(5));
/// ```
pub struct StopEarly {
    metric: String,
    stopping: EarlyStopping,
}

impl StopEarly {
    /// By a metric of the validation data, `validation_loss` or `train_loss`.
    pub fn new(metric: impl Into<String>, stopping: EarlyStopping) -> StopEarly {
        StopEarly { metric: metric.into(), stopping }
    }

    fn flow(&self) -> Flow {
        match self.stopping.best_epoch() {
            best if self.stopping.is_over() => {
                let best = best.map_or("none so far".into(), |epoch| format!("best in epoch {}", epoch + 1));
                Flow::Stop(format!("`{}` no longer improves, {best}", self.metric))
            }
            _ => Flow::Continue,
        }
    }
}

impl Callback for StopEarly {
    fn name(&self) -> &str {
        "early stopping"
    }

    fn on_start(&mut self, _: &mut Moment<'_>) -> Result<Flow, CallbackError> {
        Ok(self.flow())
    }

    fn on_epoch(&mut self, moment: &mut Moment<'_>, epoch: &EpochRecord) -> Result<Flow, CallbackError> {
        let Some(value) = epoch.value(&self.metric) else {
            let known: Vec<&str> = epoch.metrics.iter().map(|(name, _)| name.as_str()).collect();
            return Err(format!("no metric `{}`: there are train_loss, {}", self.metric, known.join(", ")).into());
        };
        self.stopping.observe(value, moment.model)?;
        Ok(self.flow())
    }

    fn on_end(&mut self, _: &mut Moment<'_>) -> Result<(), CallbackError> {
        Ok(self.stopping.restore_best()?)
    }

    fn state(&self) -> Value {
        let EarlyStoppingState { epochs, best } = self.stopping.state();
        json!({ "epochs": epochs, "best": best.map(|(value, epoch)| (value.to_string(), epoch)) })
    }

    fn tensors(&self) -> BTreeMap<String, Tensor> {
        let best = self.stopping.best_weights();
        best.into_iter().flat_map(Snapshot::tensors).map(|(path, tensor)| (path.into(), tensor.clone())).collect()
    }

    fn load_state(
        &mut self,
        state: &Value,
        tensors: &BTreeMap<String, Tensor>,
        model: &dyn Module,
    ) -> Result<(), CallbackError> {
        let (epochs, best): (u64, Option<(String, u64)>) =
            (serde_json::from_value(state["epochs"].clone())?, serde_json::from_value(state["best"].clone())?);
        let best = best.map(|(value, epoch)| Ok::<_, CallbackError>((value.parse()?, epoch))).transpose()?;
        let mut weights = None;
        if best.is_some() {
            let present = Snapshot::of(model)?;
            model.load_state_dict(tensors)?;
            weights = Some(Snapshot::of(model));
            present.restore()?;
        }
        self.stopping.load_state(EarlyStoppingState { epochs, best }, weights.transpose()?);
        Ok(())
    }
}

/// Writes losses, learning rate and metrics to a log: for TensorBoard, or as lines of JSON.
///
/// ```
/// use gradus_train::Logged;
/// use gradus_train::log::{JsonLines, TensorBoard};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let out = folder.path();
/// let board = Logged::new(TensorBoard::create(out)?);
/// let lines = Logged::new(JsonLines::open(out.join("log.jsonl"))?);
/// # Ok::<(), gradus_train::log::LogError>(())
/// ```
pub struct Logged<L>(L);

impl<L: Log> Logged<L> {
    /// Writes to this log.
    pub fn new(log: L) -> Logged<L> {
        Logged(log)
    }
}

impl<L: Log> Callback for Logged<L> {
    fn name(&self) -> &str {
        "log"
    }

    fn on_losses(&mut self, moment: &mut Moment<'_>, loss: f64) -> Result<Flow, CallbackError> {
        let rate = moment.optimiser.next_learning_rates().last().copied().unwrap_or(0.0);
        self.0.scalars(moment.step, &[("loss/step", loss), ("learning_rate", rate)])?;
        Ok(Flow::Continue)
    }

    fn on_epoch(&mut self, moment: &mut Moment<'_>, epoch: &EpochRecord) -> Result<Flow, CallbackError> {
        let mut scalars = vec![("loss/training", epoch.train_loss)];
        scalars.extend(epoch.validation_loss.map(|loss| ("loss/validation", loss)));
        scalars.extend(epoch.metrics.iter().map(|(name, value)| (name.as_str(), *value)));
        self.0.scalars(moment.step, &scalars)?;
        Ok(Flow::Continue)
    }
}
