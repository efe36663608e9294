//! What a program wants to do in the course of training.

use super::EpochRecord;
use crate::Optimiser;
use gradus_nn::Module;
use gradus_tensor::Tensor;
use std::collections::BTreeMap;
use std::error::Error;

/// What a callback may fail with: it ends the run.
pub type CallbackError = Box<dyn Error + Send + Sync>;

/// Whether to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// End the run, for this reason.
    Stop(String),
}

/// What a callback sees and may change.
pub struct Moment<'a> {
    /// The model.
    pub model: &'a dyn Module,
    /// The optimiser: its learning rate can be changed.
    pub optimiser: &'a mut Optimiser,
    /// The epoch that is running, from 1.
    pub epoch: u64,
    /// How many steps were taken.
    pub step: u64,
    /// How many steps there are in all.
    pub steps: u64,
    /// Lines for the user, shown beside the progress.
    pub notes: &'a mut Vec<String>,
}

/// Something that is done in the course of training. Nothing needs to be implemented but a name.
pub trait Callback {
    /// What errors and saved states call it.
    fn name(&self) -> &str;

    /// Before the first step, also of a run that goes on.
    ///
    /// # Errors
    /// Whatever goes wrong; it ends the run.
    fn on_start(&mut self, _moment: &mut Moment<'_>) -> Result<Flow, CallbackError> {
        Ok(Flow::Continue)
    }

    /// After losses were read: every so many steps. `loss` is their mean since the last time.
    ///
    /// # Errors
    /// Whatever goes wrong; it ends the run.
    fn on_losses(&mut self, _moment: &mut Moment<'_>, _loss: f64) -> Result<Flow, CallbackError> {
        Ok(Flow::Continue)
    }

    /// After an epoch and its validation.
    ///
    /// # Errors
    /// Whatever goes wrong; it ends the run.
    fn on_epoch(&mut self, _moment: &mut Moment<'_>, _epoch: &EpochRecord) -> Result<Flow, CallbackError> {
        Ok(Flow::Continue)
    }

    /// At the end of the run, also of one that was stopped or interrupted.
    ///
    /// # Errors
    /// Whatever goes wrong; it ends the run.
    fn on_end(&mut self, _moment: &mut Moment<'_>) -> Result<(), CallbackError> {
        Ok(())
    }

    /// What has to be saved so that a run that goes on from a checkpoint is the same as one that was not interrupted.
    fn state(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// The same of tensors, by name.
    fn tensors(&self) -> BTreeMap<String, Tensor> {
        BTreeMap::new()
    }

    /// Goes back to a state. The model is as it was then.
    ///
    /// # Errors
    /// If it is none of this callback's.
    fn load_state(
        &mut self,
        _state: &serde_json::Value,
        _tensors: &BTreeMap<String, Tensor>,
        _model: &dyn Module,
    ) -> Result<(), CallbackError> {
        Ok(())
    }
}

/// A callback that is still there after the run.
impl<C: Callback + ?Sized> Callback for &mut C {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn on_start(&mut self, moment: &mut Moment<'_>) -> Result<Flow, CallbackError> {
        (**self).on_start(moment)
    }

    fn on_losses(&mut self, moment: &mut Moment<'_>, loss: f64) -> Result<Flow, CallbackError> {
        (**self).on_losses(moment, loss)
    }

    fn on_epoch(&mut self, moment: &mut Moment<'_>, epoch: &EpochRecord) -> Result<Flow, CallbackError> {
        (**self).on_epoch(moment, epoch)
    }

    fn on_end(&mut self, moment: &mut Moment<'_>) -> Result<(), CallbackError> {
        (**self).on_end(moment)
    }

    fn state(&self) -> serde_json::Value {
        (**self).state()
    }

    fn tensors(&self) -> BTreeMap<String, Tensor> {
        (**self).tensors()
    }

    fn load_state(
        &mut self,
        state: &serde_json::Value,
        tensors: &BTreeMap<String, Tensor>,
        model: &dyn Module,
    ) -> Result<(), CallbackError> {
        (**self).load_state(state, tensors, model)
    }
}
