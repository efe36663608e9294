//! The training loop.

mod batches;
mod callback;
mod callbacks;
mod checkpoint;
mod error;
mod floats;
mod history;
mod signal;
mod weights;

pub use batches::{Batch, BatchError, BatchSource, FromFn, MapBatches, TensorBatches, batches_from};
pub use callback::{Callback, CallbackError, Flow, Moment};
pub use callbacks::{Logged, StopEarly};
pub use checkpoint::{Better, Checkpoints};
pub use error::TrainError;
pub use history::{EpochRecord, History};
pub use weights::{load_weights, save_weights};

use crate::{LossScale, Optimiser, OverFitting, Progress};
use checkpoint::RunState;
use gradus_nn::{Module, autocast};
use gradus_tensor::{DType, Tensor, cat, eval, find_nan, no_grad, stack};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// What a batch means for a model: a loss, or a metric.
type OfBatch<'a, M, B> = Box<dyn Fn(&M, &B) -> Tensor + 'a>;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All epochs are done.
    Finished,
    /// A callback stopped it, for this reason.
    Stopped(String),
    /// Ctrl-C or SIGTERM stopped it. With checkpoints, a run that resumes goes on from there.
    Interrupted,
}

/// Trains a model: epochs over batches, validation, progress, checkpoints, and whatever callbacks do.
///
/// The loss of a batch is the mean over its rows; so is a metric. Losses are read from the device every
/// [`log_every`](Trainer::log_every) steps and not in between, so that a GPU is not waited for. A loss that is not
/// finite ends the run with an error, before anything of it is saved.
///
/// ```
/// use gradus_data::TensorDataset;
/// use gradus_nn::{Init, Layer, Linear, mse_loss};
/// use gradus_tensor::{Device, Key, Tensor};
/// use gradus_train::{Outcome, Sgd, TensorBatches, Trainer};
///
/// let device = Device::cpu();
/// let x = Tensor::randn([100, 1], Key::new(0), &device);
/// let y = &x * 3.0 + 1.0;
/// let data = TensorBatches::new(TensorDataset::new([x, y])?, 10).shuffled(Key::new(1));
///
/// let model = Linear::new(1, 1, &Init::new(42, &device));
/// let mut trainer = Trainer::new(&model, Sgd::new(0.1).of(&model), |model, [x, y]: &[Tensor; 2]| {
///     mse_loss(&model.forward(x), y)
/// })
/// .epochs(10)
/// .quiet();
/// assert_eq!(trainer.fit(&data, None)?, Outcome::Finished);
/// assert!((model.weight.tensor().item::<f32>()? - 3.0).abs() < 1e-3);
/// # Ok::<(), gradus_train::TrainError>(())
/// ```
pub struct Trainer<'a, M, B> {
    model: &'a M,
    optimiser: Optimiser,
    loss: OfBatch<'a, M, B>,
    metrics: Vec<(String, OfBatch<'a, M, B>)>,
    callbacks: Vec<Box<dyn Callback + 'a>>,
    checkpoints: Option<Checkpoints>,
    epochs: u64,
    accumulate: usize,
    log_every: u64,
    quiet: bool,
    stops_on_signals: bool,
    finds_nan: bool,
    skips_non_finite: bool,
    in_mixed_precision: bool,
    over_fitting: OverFitting,
    state: RunState,
    /// Losses that were not read yet, with their numbers of rows.
    unread: Vec<(usize, Tensor)>,
}

impl<'a, M: Module, B: Batch> Trainer<'a, M, B> {
    /// A trainer that steps down the gradient of `loss`. One epoch, unless told otherwise.
    pub fn new(model: &'a M, optimiser: Optimiser, loss: impl Fn(&M, &B) -> Tensor + 'a) -> Trainer<'a, M, B> {
        Trainer {
            model,
            optimiser,
            loss: Box::new(loss),
            metrics: Vec::new(),
            callbacks: Vec::new(),
            checkpoints: None,
            epochs: 1,
            accumulate: 1,
            log_every: 10,
            quiet: false,
            stops_on_signals: false,
            finds_nan: false,
            skips_non_finite: false,
            in_mixed_precision: false,
            over_fitting: OverFitting::new(),
            state: RunState::default(),
            unread: Vec::new(),
        }
    }

    /// So many passes over the training data.
    pub fn epochs(self, epochs: u64) -> Self {
        Trainer { epochs, ..self }
    }

    /// A step for every so many batches: the gradient is that of one large batch, up to rounding, with the memory of a
    /// small one. What is left at the end of an epoch is a step of its own.
    pub fn accumulate(self, batches: usize) -> Self {
        Trainer { accumulate: batches.max(1), ..self }
    }

    /// Also measures this on the validation data: a mean over the rows of a batch, as a tensor of one element.
    pub fn metric(mut self, name: impl Into<String>, metric: impl Fn(&M, &B) -> Tensor + 'a) -> Self {
        self.metrics.push((name.into(), Box::new(metric)));
        self
    }

    /// Reads losses every so many steps; 10 by default.
    pub fn log_every(self, steps: u64) -> Self {
        Trainer { log_every: steps.max(1), ..self }
    }

    /// Also does this. Callbacks are called in the order in which they were added.
    pub fn callback(mut self, callback: impl Callback + 'a) -> Self {
        self.callbacks.push(Box::new(callback));
        self
    }

    /// Saves checkpoints.
    pub fn checkpoints(self, checkpoints: Checkpoints) -> Self {
        Trainer { checkpoints: Some(checkpoints), ..self }
    }

    /// Shows no progress.
    pub fn quiet(self) -> Self {
        Trainer { quiet: true, ..self }
    }

    /// Ends the run in good order on Ctrl-C, SIGTERM or SIGHUP: after the step that is running, with a checkpoint. The
    /// second signal ends the program at once. This is for the whole process.
    pub fn stop_on_signals(self) -> Self {
        Trainer { stops_on_signals: true, ..self }
    }

    /// Leaves out steps whose gradients are not finite, instead of ending the run: they change nothing, and
    /// [`EpochRecord::skipped`] counts them. Losses that are not finite are left out of means. For f16, whose numbers soon
    /// overflow.
    pub fn skip_non_finite(mut self) -> Self {
        self.optimiser.skip_non_finite(true);
        Trainer { skips_non_finite: true, ..self }
    }

    /// Trains in mixed precision: losses and metrics are computed in an [`autocast`](gradus_nn::autocast), so in f16 on a model
    /// whose parameters stay f32, and losses are [scaled](LossScale). Steps that overflow are left out and counted, as with
    /// [`skip_non_finite`](Trainer::skip_non_finite); the first few are some of them, until a scale is found. On a device without
    /// f16 the first step is an error.
    ///
    /// ```
    /// use gradus_data::TensorDataset;
    /// use gradus_nn::{Init, Layer, Linear, mse_loss};
    /// use gradus_tensor::{DType, Device, Key, Tensor};
    /// use gradus_train::{LossScale, Sgd, TensorBatches, Trainer};
    ///
    /// let device = Device::cpu();
    /// let x = Tensor::randn([100, 1], Key::new(0), &device);
    /// let data = TensorBatches::new(TensorDataset::new([x.clone(), x * 3.0])?, 10);
    /// let model = Linear::new(1, 1, &Init::new(42, &device));
    /// let mut trainer = Trainer::new(&model, Sgd::new(0.1).of(&model), |model, [x, y]: &[Tensor; 2]| {
    ///     assert_eq!(model.forward(x).dtype(), DType::F16);
    ///     mse_loss(&model.forward(x), y)
    /// })
    /// .mixed_precision(LossScale::dynamic())
    /// .epochs(10)
    /// .quiet();
    /// trainer.fit(&data, None)?;
    /// assert!((model.weight.tensor().item::<f32>()? - 3.0).abs() < 0.02);
    /// # Ok::<(), gradus_train::TrainError>(())
    /// ```
    pub fn mixed_precision(mut self, scale: LossScale) -> Self {
        self.optimiser.scale_losses(scale);
        Trainer { in_mixed_precision: true, skips_non_finite: true, ..self }
    }

    /// Looks for NaN in every step: the op that made the first one is an error with its line. Each step is computed
    /// twice, and every tensor of it is read. Those of steps that would be skipped are errors, too.
    pub fn find_nan(self) -> Self {
        Trainer { finds_nan: true, ..self }
    }

    /// What was measured so far.
    pub fn history(&self) -> &History {
        &self.state.history
    }

    /// The optimiser.
    pub fn optimiser(&self) -> &Optimiser {
        &self.optimiser
    }

    /// The optimiser, to change its learning rate between two runs.
    pub fn optimiser_mut(&mut self) -> &mut Optimiser {
        &mut self.optimiser
    }

    /// Trains until all epochs are done, or something ends the run. A second call goes on where the first one stopped: with
    /// more [`epochs`](Trainer::epochs), or after an interruption.
    ///
    /// # Errors
    /// See [`TrainError`]. Model and optimiser are then as after the last step that was taken.
    pub fn fit(
        &mut self,
        train: &dyn BatchSource<Batch = B>,
        validation: Option<&dyn BatchSource<Batch = B>>,
    ) -> Result<Outcome, TrainError> {
        let batches = train.batches();
        if batches == 0 {
            return Err(TrainError::NoBatches);
        }
        if self.stops_on_signals {
            signal::catch()?;
        }
        if let Some(checkpoints) = &mut self.checkpoints
            && let Some(path) = checkpoints.open(self.state.step > 0)?
        {
            self.resume(&path)?;
        }
        if self.state.step == 0 {
            self.state.skipped = self.optimiser.skipped_steps()?;
        }
        let per_epoch = batches.div_ceil(self.accumulate) as u64;
        let mut run = Run::new(self.quiet, per_epoch * self.epochs, self.state.step);
        let outcome = self.run(train, validation, batches, &mut run);
        if let Ok(outcome) = &outcome {
            self.save(true)?;
            self.each(&mut run, |callback, moment| callback.on_end(moment).map(|()| Flow::Continue))?;
            run.finish(outcome, &self.state.history);
        }
        outcome
    }

    /// Goes on from a checkpoint.
    fn resume(&mut self, path: &Path) -> Result<(), TrainError> {
        let (state, tensors) = checkpoint::load(path, self.model, &mut self.optimiser)?;
        self.state = state;
        for callback in &mut self.callbacks {
            let name = callback.name().to_string();
            let Some(state) = self.state.callbacks.get(&name) else { continue };
            let own = |(path, tensor): (&String, &Tensor)| {
                Some((path.strip_prefix(&name)?.strip_prefix('/')?.to_string(), tensor.clone()))
            };
            let own: BTreeMap<String, Tensor> = tensors.iter().filter_map(own).collect();
            let loaded = callback.load_state(state, &own, self.model);
            loaded.map_err(|source| TrainError::Callback { callback: name, source })?;
        }
        let pairs = self.state.history.epochs.iter().filter_map(|e| Some((e.train_loss, e.validation_loss?)));
        self.over_fitting.load_losses(&pairs.collect::<Vec<_>>());
        Ok(())
    }

    fn run(
        &mut self,
        train: &dyn BatchSource<Batch = B>,
        validation: Option<&dyn BatchSource<Batch = B>>,
        batches: usize,
        run: &mut Run,
    ) -> Result<Outcome, TrainError> {
        if let Flow::Stop(reason) = self.each(run, |callback, moment| callback.on_start(moment))? {
            return Ok(Outcome::Stopped(reason));
        }
        while self.state.epoch < self.epochs {
            self.model.train();
            let mut epoch = train.epoch(self.state.epoch, self.state.batch);
            while self.state.batch < batches {
                let count = self.accumulate.min(batches - self.state.batch);
                let mut group = Vec::with_capacity(count);
                for batch in self.state.batch..self.state.batch + count {
                    let number = self.state.epoch;
                    let next =
                        epoch.next().ok_or(TrainError::Batches { epoch: number, expected: batches, found: batch })?;
                    group.push(next.map_err(|source| TrainError::Batch { epoch: number, batch, source })?);
                }
                run.rows += group.iter().map(Batch::rows).sum::<usize>();
                self.step(&group, run)?;
                self.state.batch += count;
                run.progress.step(1);
                if self.state.step.is_multiple_of(self.log_every)
                    && let Flow::Stop(reason) = self.tell(run)?
                {
                    return Ok(Outcome::Stopped(reason));
                }
                if self.stops_on_signals && signal::asked() {
                    return Ok(Outcome::Interrupted);
                }
                self.save(false)?;
            }
            if let Flow::Stop(reason) = self.end_epoch(validation, run)? {
                return Ok(Outcome::Stopped(reason));
            }
            self.save(true)?;
        }
        Ok(Outcome::Finished)
    }

    /// What a forward pass gives in the precision that was asked for.
    fn computed(&self, forward: impl FnOnce() -> Tensor) -> Tensor {
        if self.in_mixed_precision { autocast(forward) } else { forward() }
    }

    /// One step of the optimiser.
    fn step(&mut self, group: &[B], run: &mut Run) -> Result<(), TrainError> {
        let finds_nan = self.finds_nan;
        let checked = |work: &mut dyn FnMut() -> gradus_tensor::Result<()>| {
            if finds_nan { find_nan(work) } else { work() }
        };
        let gradients = match group {
            [batch] if self.state.step > 0 && !finds_nan => {
                let loss = self.computed(|| (self.loss)(self.model, batch));
                self.optimiser.step(&loss)?;
                self.unread.push((batch.rows(), loss));
                self.state.step += 1;
                return Ok(());
            }
            [batch] => {
                let loss = self.computed(|| (self.loss)(self.model, batch));
                if finds_nan {
                    // A NaN of the loss may be none of its gradients.
                    checked(&mut || eval([&loss]))?;
                }
                let gradients = self.optimiser.gradients(&loss)?;
                self.unread.push((batch.rows(), loss));
                gradients
            }
            _ => {
                let mut total: Vec<Tensor> = Vec::new();
                let mut rows = 0;
                for batch in group {
                    let loss = self.computed(|| (self.loss)(self.model, batch));
                    let gradients = self.optimiser.gradients(&loss)?;
                    let weight = batch.rows() as f64;
                    let weighted = gradients.into_iter().map(|gradient| gradient.widened() * weight);
                    total = match total.is_empty() {
                        true => weighted.collect(),
                        false => std::mem::take(&mut total).into_iter().zip(weighted).map(|(t, g)| t + g).collect(),
                    };
                    // Now, so that the batch's activations go before those of the next one come.
                    checked(&mut || eval(total.iter().chain([&loss])))?;
                    rows += batch.rows();
                    self.unread.push((batch.rows(), loss));
                }
                total.into_iter().map(|total| total / rows.max(1) as f64).collect()
            }
        };
        let sizes = (self.state.step == 0).then(|| {
            let sizes: Vec<Tensor> = gradients.iter().map(|g| g.abs().max(..).to_dtype(DType::F32)).collect();
            stacked(&sizes)
        });
        let mut gradients = Some(gradients);
        checked(&mut || self.optimiser.apply(gradients.take().unwrap_or_default()))?;
        self.state.step += 1;
        if let Some(sizes) = sizes {
            for (size, (path, _)) in sizes.to_vec::<f32>()?.into_iter().zip(self.optimiser.parameters()) {
                if size == 0.0 {
                    run.note(format!("the gradient of `{path}` is 0 everywhere in the first step: is it in use?"));
                }
            }
        }
        Ok(())
    }

    /// Reads what losses there are.
    fn read_losses(&mut self) -> Result<(), TrainError> {
        if self.unread.is_empty() {
            return Ok(());
        }
        let unread = std::mem::take(&mut self.unread);
        let losses: Vec<Tensor> = unread.iter().map(|(_, loss)| loss.to_dtype(DType::F32)).collect();
        let values = stacked(&losses).to_vec::<f32>()?;
        for (i, (&(rows, _), value)) in unread.iter().zip(values).enumerate() {
            let loss = f64::from(value);
            if !loss.is_finite() && self.skips_non_finite {
                continue;
            }
            if !loss.is_finite() {
                let before = (unread.len() - 1 - i) / self.accumulate;
                return Err(TrainError::NotFinite { step: self.state.step - before as u64, loss });
            }
            for (sum, count) in [&mut self.state.epoch_loss, &mut self.state.told_loss] {
                *sum += loss * rows as f64;
                *count += rows;
            }
        }
        Ok(())
    }

    /// Tells the user and the callbacks of the losses since the last time.
    fn tell(&mut self, run: &mut Run) -> Result<Flow, TrainError> {
        self.read_losses()?;
        let loss = mean(std::mem::take(&mut self.state.told_loss));
        self.state.history.losses.push((self.state.step, loss));
        run.message(loss, self.optimiser.next_learning_rates().last().copied());
        self.each(run, |callback, moment| callback.on_losses(moment, loss))
    }

    fn end_epoch(
        &mut self,
        validation: Option<&dyn BatchSource<Batch = B>>,
        run: &mut Run,
    ) -> Result<Flow, TrainError> {
        self.read_losses()?;
        let train_loss = mean(std::mem::take(&mut self.state.epoch_loss));
        let evaluated = validation.map(|data| self.evaluate(data)).transpose()?;
        let (validation_loss, metrics) = evaluated.map_or((None, Vec::new()), |(loss, metrics)| (Some(loss), metrics));
        let skipped = self.optimiser.skipped_steps()?;
        let record = EpochRecord {
            epoch: self.state.epoch + 1,
            step: self.state.step,
            train_loss,
            validation_loss,
            metrics,
            skipped: skipped.saturating_sub(std::mem::replace(&mut self.state.skipped, skipped)),
            learning_rate: self.optimiser.next_learning_rates().last().copied().unwrap_or(0.0),
        };
        run.note(record.to_string());
        let warning = validation_loss.and_then(|loss| self.over_fitting.observe(train_loss, loss));
        warning.into_iter().for_each(|warning| run.note(warning.to_string()));
        self.state.history.epochs.push(record.clone());
        (self.state.epoch, self.state.batch) = (self.state.epoch + 1, 0);
        if let Some(checkpoints) = &self.checkpoints
            && let Some((metric, better)) = checkpoints.best()
            && let Some(value) = record.value(metric)
            && better.is_better(value, self.state.best)
        {
            self.optimiser.evaluate(|| Ok(checkpoints.save_best(self.model)))??;
            self.state.best = Some(value);
        }
        self.each(run, |callback, moment| callback.on_epoch(moment, &record))
    }

    /// Calls every callback; the first reason to stop counts.
    fn each(
        &mut self,
        run: &mut Run,
        mut call: impl FnMut(&mut dyn Callback, &mut Moment<'_>) -> Result<Flow, CallbackError>,
    ) -> Result<Flow, TrainError> {
        let mut flow = Flow::Continue;
        let mut notes = Vec::new();
        for callback in &mut self.callbacks {
            let mut moment = Moment {
                model: self.model,
                optimiser: &mut self.optimiser,
                epoch: self.state.epoch.min(self.epochs.saturating_sub(1)) + 1,
                step: self.state.step,
                steps: run.steps,
                notes: &mut notes,
            };
            let wish = call(&mut **callback, &mut moment);
            let wish = wish.map_err(|source| TrainError::Callback { callback: callback.name().into(), source })?;
            if flow == Flow::Continue {
                flow = wish;
            }
        }
        notes.into_iter().for_each(|note| run.note(note));
        Ok(flow)
    }

    /// Saves a checkpoint, if one is due or is wanted in any case.
    fn save(&mut self, in_any_case: bool) -> Result<(), TrainError> {
        if !self.checkpoints.as_ref().is_some_and(|c| in_any_case || c.is_due(self.state.step)) {
            return Ok(());
        }
        // What is saved must not have come from a NaN.
        self.read_losses()?;
        let states = self.callbacks.iter().map(|callback| (callback.name().to_string(), callback.state()));
        self.state.callbacks = states.collect();
        let named = |callback: &dyn Callback| {
            let name = callback.name().to_string();
            callback.tensors().into_iter().map(move |(path, tensor)| (format!("{name}/{path}"), tensor))
        };
        let tensors = self.callbacks.iter().flat_map(|callback| named(&**callback)).collect();
        match &mut self.checkpoints {
            Some(checkpoints) => checkpoints.save(self.model, &self.optimiser, tensors, &mut self.state),
            None => Ok(()),
        }
    }

    /// The mean loss and metrics over the rows of some data, with the model as in use: it stays in this mode.
    ///
    /// # Errors
    /// See [`TrainError`].
    pub fn evaluate(&self, data: &dyn BatchSource<Batch = B>) -> Result<(f64, Vec<(String, f64)>), TrainError> {
        self.model.eval();
        // With the weights that the optimiser would have evaluated, where these are not those that it trains.
        self.optimiser.evaluate(|| Ok(no_grad(|| self.measure(data))))?
    }

    /// What `predict` gives for each batch of some data, one after the other along the first axis, with the model as in use: it
    /// stays in this mode. Batches come in the order of the data's epoch 0.
    ///
    /// ```
    /// use gradus_data::TensorDataset;
    /// use gradus_nn::{Init, Layer, Linear};
    /// use gradus_tensor::{Device, Tensor};
    /// use gradus_train::{Sgd, TensorBatches, Trainer};
    ///
    /// let device = Device::cpu();
    /// let model = Linear::new(3, 2, &Init::new(42, &device));
    /// let x = Tensor::ones([10, 3], &device);
    /// let data = TensorBatches::new(TensorDataset::new([x.clone()])?, 4);
    /// let trainer = Trainer::new(&model, Sgd::new(0.1).of(&model), |model, [x]: &[Tensor; 1]| model.forward(x).sum(..));
    /// let predictions = trainer.predict(&data, |model, [x]| model.forward(x))?;
    /// assert_eq!(predictions.shape()[..], [10, 2]);
    /// assert_eq!(predictions.to_vec::<f32>()?, model.forward(&x).to_vec::<f32>()?);
    /// # Ok::<(), gradus_train::TrainError>(())
    /// ```
    ///
    /// # Errors
    /// See [`TrainError`]; predictions of batches must agree in all but their first extents.
    pub fn predict(
        &self,
        data: &dyn BatchSource<Batch = B>,
        predict: impl Fn(&M, &B) -> Tensor,
    ) -> Result<Tensor, TrainError> {
        self.model.eval();
        let predictions = self.optimiser.evaluate(|| {
            let of_batch = |(number, batch): (usize, Result<B, BatchError>)| {
                let batch = batch.map_err(|source| TrainError::Batch { epoch: 0, batch: number, source })?;
                let prediction = no_grad(|| self.computed(|| predict(self.model, &batch)));
                // Now, so that the batch's activations go before those of the next one come.
                prediction.eval()?;
                Ok(prediction)
            };
            Ok(data.epoch(0, 0).enumerate().map(of_batch).collect::<Result<Vec<Tensor>, TrainError>>())
        })??;
        if predictions.is_empty() {
            return Err(TrainError::NoBatches);
        }
        let all = cat(&predictions.iter().collect::<Vec<_>>(), 0);
        all.eval()?;
        Ok(all)
    }

    fn measure(&self, data: &dyn BatchSource<Batch = B>) -> Result<(f64, Vec<(String, f64)>), TrainError> {
        let mut sums = vec![0.0; 1 + self.metrics.len()];
        let mut rows = 0;
        for (number, batch) in data.epoch(0, 0).enumerate() {
            let batch = batch.map_err(|source| TrainError::Batch { epoch: 0, batch: number, source })?;
            let all = [&self.loss].into_iter().chain(self.metrics.iter().map(|(_, metric)| metric));
            let value = |of_batch: &OfBatch<'a, M, B>| self.computed(|| of_batch(self.model, &batch));
            let all: Vec<Tensor> = all.map(|of_batch| value(of_batch).to_dtype(DType::F32)).collect();
            for (sum, value) in sums.iter_mut().zip(stacked(&all).to_vec::<f32>()?) {
                *sum += f64::from(value) * batch.rows() as f64;
            }
            rows += batch.rows();
        }
        let mut means = sums.into_iter().map(|sum| mean((sum, rows)));
        let loss = means.next().unwrap_or(f64::NAN);
        Ok((loss, self.metrics.iter().map(|(name, _)| name.clone()).zip(means).collect()))
    }
}

/// Single numbers as one tensor.
fn stacked(numbers: &[Tensor]) -> Tensor {
    stack(&numbers.iter().collect::<Vec<_>>(), 0)
}

/// The mean of a sum over rows; NaN of none.
fn mean((sum, rows): (f64, usize)) -> f64 {
    sum / rows as f64
}

/// What a call of `fit` shows.
struct Run {
    progress: Progress,
    started: Instant,
    /// Rows that were looked at since.
    rows: usize,
    steps: u64,
}

impl Run {
    fn new(quiet: bool, steps: u64, done: u64) -> Run {
        let mut progress = if quiet { Progress::hidden() } else { Progress::new(steps, "training") };
        progress.step(done);
        Run { progress, started: Instant::now(), rows: 0, steps }
    }

    fn note(&mut self, note: String) {
        self.progress.note(note);
    }

    fn message(&mut self, loss: f64, learning_rate: Option<f64>) {
        let rows = self.rows as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
        let rate = learning_rate.map_or(String::new(), |rate| format!("  rate {rate:.2e}"));
        self.progress.message(format_args!("loss {loss:.4}{rate}  {rows:.0} rows/s"));
    }

    fn finish(&mut self, outcome: &Outcome, history: &History) {
        let last = history.epochs.last().map_or(String::new(), |epoch| format!(": {epoch}"));
        let progress = std::mem::replace(&mut self.progress, Progress::hidden());
        progress.finish_with(match outcome {
            Outcome::Finished => format!("done{last}"),
            Outcome::Stopped(reason) => format!("stopped, {reason}{last}"),
            Outcome::Interrupted => format!("interrupted{last}"),
        });
    }
}
