//! Checkpoints: all that a run needs to go on with the same bits.

use super::{History, TrainError, floats, weights};
use crate::{Optimiser, OptimiserState};
use gradus_nn::{Module, Visitor, Walk};
use gradus_tensor::{Key, Rng, RngState, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The format of `state.json`.
const FORMAT: u32 = 1;
/// What folders are called until they are complete.
const INCOMPLETE: &str = ".incomplete-";
const MODEL: &str = "model.safetensors";
const OPTIMISER: &str = "optimiser.safetensors";
const CALLBACKS: &str = "callbacks.safetensors";
const STATE: &str = "state.json";
const BEST: &str = "best.safetensors";

/// Whether less of something is better, or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Better {
    /// As of a loss.
    Lower,
    /// As of an accuracy.
    Higher,
}

impl Better {
    /// Whether a value is better than the best so far; NaN never is.
    pub(super) fn is_better(self, value: f64, best: Option<f64>) -> bool {
        match (self, best) {
            (_, None) => !value.is_nan(),
            (Better::Lower, Some(best)) => value < best,
            (Better::Higher, Some(best)) => value > best,
        }
    }
}

/// Where and when a trainer saves checkpoints.
///
/// A checkpoint is a folder, `epoch-000002-batch-000120`, with the weights (`model.safetensors`, under PyTorch's names),
/// what the optimiser and callbacks keep (`optimiser.safetensors`, `callbacks.safetensors`), and everything else (`state.json`: where the run is, the sources
/// of random keys, history, states of callbacks). It is complete as soon as it has its name, whenever the program or the
/// machine stops. One is saved at the end of every epoch and when the run ends or is interrupted; those for other
/// moments are asked for here.
///
/// ```no_run
/// use gradus_train::{Better, Checkpoints};
/// use std::time::Duration;
///
/// let checkpoints = Checkpoints::new("out/run")
///     .every_steps(500)
///     .every(Duration::from_secs(60))
///     .keep(3)
///     .best_by("accuracy", Better::Higher)
///     .resume(true);
/// ```
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    every_steps: Option<u64>,
    every: Option<Duration>,
    keep: usize,
    best: Option<(String, Better)>,
    resume: bool,
    last: Instant,
}

impl Checkpoints {
    /// Checkpoints in a folder, which is made if it is not there. The last two are kept.
    pub fn new(folder: impl Into<PathBuf>) -> Checkpoints {
        let folder = folder.into();
        Checkpoints { folder, every_steps: None, every: None, keep: 2, best: None, resume: false, last: Instant::now() }
    }

    /// One every so many steps, too.
    pub fn every_steps(self, steps: u64) -> Checkpoints {
        Checkpoints { every_steps: Some(steps.max(1)), ..self }
    }

    /// One after so much time, too.
    pub fn every(self, time: Duration) -> Checkpoints {
        Checkpoints { every: Some(time), ..self }
    }

    /// How many are kept, at least 1; older ones are removed.
    pub fn keep(self, checkpoints: usize) -> Checkpoints {
        Checkpoints { keep: checkpoints.max(1), ..self }
    }

    /// Keeps the weights of the epoch that was best by this metric (or `validation_loss`, or `train_loss`) as
    /// `best.safetensors`, for [`load_weights`](crate::load_weights).
    pub fn best_by(self, metric: impl Into<String>, better: Better) -> Checkpoints {
        Checkpoints { best: Some((metric.into(), better)), ..self }
    }

    /// Goes on from the last checkpoint of the folder, if it has one. Without this a folder with checkpoints is refused,
    /// as they are another run's.
    pub fn resume(self, resume: bool) -> Checkpoints {
        Checkpoints { resume, ..self }
    }

    /// Where the best weights are, if they are kept.
    pub fn best_path(&self) -> Option<PathBuf> {
        self.best.as_ref().map(|_| self.folder.join(BEST))
    }

    /// The metric that tells the best weights.
    pub(super) fn best(&self) -> Option<&(String, Better)> {
        self.best.as_ref()
    }

    /// Whether it is time for one.
    pub(super) fn is_due(&self, step: u64) -> bool {
        self.every_steps.is_some_and(|every| step.is_multiple_of(every))
            || self.every.is_some_and(|every| self.last.elapsed() >= every)
    }

    /// Makes the folder ready; gives the last checkpoint where there is one to go on from. A run that has begun goes on from
    /// where it is.
    pub(super) fn open(&mut self, has_begun: bool) -> Result<Option<PathBuf>, TrainError> {
        fs::create_dir_all(&self.folder).map_err(|source| self.failed("make", &self.folder, source))?;
        self.last = Instant::now();
        let (complete, incomplete) = self.entries()?;
        for path in incomplete {
            fs::remove_dir_all(&path).map_err(|source| self.failed("remove", &path, source))?;
        }
        match complete.last() {
            _ if has_begun => Ok(None),
            Some(path) if !self.resume => {
                let problem =
                    "the folder has checkpoints of another run: go on from them with `resume`, or take another";
                Err(TrainError::Checkpoint { path: path.clone(), problem: problem.into() })
            }
            last => Ok(last.cloned()),
        }
    }

    /// Complete and incomplete checkpoints, oldest first.
    fn entries(&self) -> Result<(Vec<PathBuf>, Vec<PathBuf>), TrainError> {
        let (mut complete, mut incomplete) = (Vec::new(), Vec::new());
        let failed = |source| self.failed("read", &self.folder, source);
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            match path.file_name().and_then(|name| name.to_str()) {
                Some(name) if name.starts_with(INCOMPLETE) => incomplete.push(path),
                Some(name) if name.starts_with("epoch-") && path.is_dir() => complete.push(path),
                _ => {}
            }
        }
        complete.sort();
        Ok((complete, incomplete))
    }

    fn failed(&self, action: &'static str, path: &Path, source: std::io::Error) -> TrainError {
        TrainError::Io { action, path: path.to_path_buf(), source }
    }

    /// Saves a checkpoint, unless there is one of this moment.
    pub(super) fn save(
        &mut self,
        model: &dyn Module,
        optimiser: &Optimiser,
        of_callbacks: BTreeMap<String, Tensor>,
        state: &mut RunState,
    ) -> Result<(), TrainError> {
        self.last = Instant::now();
        let path = self.folder.join(format!("epoch-{:06}-batch-{:06}", state.epoch, state.batch));
        if path.is_dir() {
            return Ok(());
        }
        let failed = |source| self.failed("write", &path, source);
        let incomplete = tempfile::Builder::new().prefix(INCOMPLETE).tempdir_in(&self.folder).map_err(failed)?;
        weights::save_weights(model, incomplete.path().join(MODEL))?;
        let OptimiserState { steps, learning_rates, numbers, tensors } = optimiser.state();
        weights::save_tensors(tensors.into_iter().collect(), &incomplete.path().join(OPTIMISER))?;
        weights::save_tensors(of_callbacks, &incomplete.path().join(CALLBACKS))?;
        state.format = FORMAT;
        state.optimiser = SavedOptimiser { steps, learning_rates, numbers };
        state.rngs = rngs(model).into_iter().map(|(path, rng)| (path, SavedRng::of(&rng))).collect();
        let json = serde_json::to_vec_pretty(state).map_err(|error| failed(error.into()))?;
        let mut file = File::create(incomplete.path().join(STATE)).map_err(failed)?;
        file.write_all(&json).and_then(|()| file.sync_all()).map_err(failed)?;
        sync(incomplete.path()).map_err(failed)?;
        fs::rename(incomplete.path(), &path).map_err(failed)?;
        sync(&self.folder).map_err(failed)?;
        // It has another name now, so nothing is removed.
        let _ = incomplete.keep();
        let (complete, _) = self.entries()?;
        for old in complete.iter().rev().skip(self.keep) {
            fs::remove_dir_all(old).map_err(|source| self.failed("remove", old, source))?;
        }
        Ok(())
    }

    /// Saves the best weights so far.
    pub(super) fn save_best(&self, model: &dyn Module) -> Result<(), TrainError> {
        weights::save_weights(model, self.folder.join(BEST))
    }
}

/// A renaming is on the disk once its folder is.
fn sync(folder: &Path) -> std::io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Gives model and optimiser the tensors and random keys of a checkpoint; gives the rest of it, and the callbacks' tensors.
pub(super) fn load(
    path: &Path,
    model: &dyn Module,
    optimiser: &mut Optimiser,
) -> Result<(RunState, BTreeMap<String, Tensor>), TrainError> {
    let file = path.join(STATE);
    let wrong = |problem: String| TrainError::Checkpoint { path: file.clone(), problem };
    let text = fs::read(&file).map_err(|source| TrainError::Io { action: "read", path: file.clone(), source })?;
    let state: RunState = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    if state.format != FORMAT {
        return Err(wrong(format!("format {}, expected {FORMAT}", state.format)));
    }
    let rngs = rngs(model);
    let names = |names: Vec<&String>| names.into_iter().cloned().collect::<Vec<_>>().join(", ");
    if !rngs.keys().eq(state.rngs.keys()) {
        let (found, expected) = (names(state.rngs.keys().collect()), names(rngs.keys().collect()));
        return Err(wrong(format!("random keys for [{found}], but the model has [{expected}]")));
    }
    // The optimiser first: what does not fit leaves the model as it was.
    let tensors = weights::read_tensors(model, &path.join(OPTIMISER))?.into_iter().collect();
    let SavedOptimiser { steps, learning_rates, numbers } = state.optimiser.clone();
    let before = optimiser.state();
    optimiser.load_state(&OptimiserState { steps, learning_rates, numbers, tensors })?;
    if let Err(error) = weights::load_weights(model, path.join(MODEL)) {
        optimiser.load_state(&before)?;
        return Err(error);
    }
    rngs.iter().zip(state.rngs.values()).for_each(|((_, rng), saved)| saved.give(rng));
    Ok((state, weights::read_tensors(model, &path.join(CALLBACKS))?))
}

/// The sources of random keys of a model.
fn rngs(model: &dyn Module) -> BTreeMap<String, Rng> {
    #[derive(Default)]
    struct Collect(BTreeMap<String, Rng>);
    impl Visitor for Collect {
        fn rng(&mut self, path: &str, rng: &Rng) {
            self.0.insert(path.into(), rng.clone());
        }
    }
    let mut collect = Collect::default();
    model.visit(&mut Walk::new(&mut collect));
    collect.0
}

/// What of a run is neither in the model nor in the optimiser's tensors.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct RunState {
    format: u32,
    /// The epoch that is running, from 0, and the next batch in it.
    pub(super) epoch: u64,
    pub(super) batch: usize,
    pub(super) step: u64,
    /// Sum over rows and number of rows of the epoch's losses so far.
    pub(super) epoch_loss: (f64, usize),
    /// The same since losses were told last.
    pub(super) told_loss: (f64, usize),
    /// How many steps were skipped before the epoch.
    pub(super) skipped: u64,
    /// The best value of the metric that tells the best weights.
    #[serde(with = "floats::optional")]
    pub(super) best: Option<f64>,
    pub(super) history: History,
    pub(super) callbacks: BTreeMap<String, serde_json::Value>,
    optimiser: SavedOptimiser,
    rngs: BTreeMap<String, SavedRng>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct SavedOptimiser {
    steps: u64,
    learning_rates: Vec<f64>,
    numbers: Vec<(String, f64)>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct SavedRng {
    key: u64,
    drawn: u64,
}

impl SavedRng {
    fn of(rng: &Rng) -> SavedRng {
        let RngState { key, drawn } = rng.state();
        SavedRng { key: key.value(), drawn }
    }

    fn give(self, rng: &Rng) {
        rng.set_state(RngState { key: Key::new(self.key), drawn: self.drawn });
    }
}
