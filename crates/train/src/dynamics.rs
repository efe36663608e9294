//! How each sample was learnt: what tells samples with wrong labels, hard ones and easy ones apart.

use crate::metrics::{MetricError, RunningError, check_classes, classes, floats};
use crate::{BatchSource, Callback, CallbackError, EpochRecord, Flow, Moment};
use gradus_nn::Module;
use gradus_tensor::{Device, Tensor, no_grad};
use std::collections::BTreeMap;
use thiserror::Error;

/// Why [`Dynamics`] cannot take a batch. It then takes none of its samples.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DynamicsError {
    /// Logits and labels do not fit, are out of range, or cannot be computed.
    #[error(transparent)]
    Batch(#[from] RunningError),

    /// There are not as many samples as logits.
    #[error("found {indices} indices of samples for {rows} rows of logits, expected as many")]
    Indices {
        /// How many indices.
        indices: usize,
        /// How many rows.
        rows: usize,
    },

    /// There is no such sample.
    #[error("there is no sample {sample} (from 0) among {samples}")]
    NoSample {
        /// The sample.
        sample: usize,
        /// How many there are.
        samples: usize,
    },

    /// A sample was recorded in this epoch, or a later one.
    #[error("sample {sample} was recorded in epoch {last}, expected a later one than {epoch}")]
    Epoch {
        /// The sample.
        sample: usize,
        /// The epoch that was given.
        epoch: u64,
        /// The last in which it was recorded.
        last: u64,
    },
}

/// Gathers, epoch by epoch, what a classifier says of each sample; of every sample a few numbers are kept, however many epochs
/// there are.
///
/// Where batches carry the numbers of their samples, what is computed in training can be recorded; a [`RecordDynamics`] looks
/// at all samples after each epoch.
///
/// ```
/// use gradus_tensor::{Device, Tensor};
/// use gradus_train::Dynamics;
///
/// let device = Device::cpu();
/// let labels = Tensor::new([0, 1], &device);
/// let mut dynamics = Dynamics::new(2);
/// dynamics.record(0, &[0, 1], &Tensor::new([[2.0, 0.0], [1.0, 0.0]], &device), &labels)?;
/// dynamics.record(1, &[0, 1], &Tensor::new([[4.0, 1.0], [3.0, 0.0]], &device), &labels)?;
/// let [first, second] = dynamics.samples()[..] else { unreachable!() };
/// assert_eq!((first.area_under_margin, first.correctness, first.first_learned), (2.5, 1.0, Some(0)));
/// // Never learnt, at a growing margin: its label may be wrong.
/// assert_eq!((second.area_under_margin, second.correctness, second.first_learned), (-2.0, 0.0, None));
/// # Ok::<(), gradus_train::DynamicsError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Dynamics {
    samples: Vec<Seen>,
}

/// How a sample was learnt, over the epochs in which it was recorded. A prediction is the class with the greatest logit, of
/// several the first; *p* is the softmax of the logits. Without an epoch, means are NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleDynamics {
    /// In how many epochs it was recorded.
    pub epochs: u64,
    /// The mean of the label's logit less the greatest other one: low for wrong labels (AUM: Pleiss et al., "Identifying
    /// Mislabeled Data using the Area Under the Margin Ranking", 2020).
    pub area_under_margin: f64,
    /// The mean of p at the label (Swayamdipta et al., "Dataset Cartography", 2020, as the two that follow).
    pub confidence: f64,
    /// The population standard deviation of p at the label: high for ambiguous samples.
    pub variability: f64,
    /// The share of epochs in which the prediction was right.
    pub correctness: f64,
    /// How often the prediction was right and, when the sample was next recorded, wrong (Toneva et al., "An Empirical Study of
    /// Example Forgetting", 2019).
    pub forgetting_events: u64,
    /// The first epoch in which the prediction was right; `None` if it never was.
    pub first_learned: Option<u64>,
    /// The mean of the Euclidean norm of p less the one-hot label (EL2N: Paul et al., "Deep Learning on a Data Diet", 2021).
    /// They average over networks, early in training: record few epochs.
    pub el2n: f64,
    /// The same in the last epoch.
    pub last_el2n: f64,
    /// The mean cross-entropy.
    pub loss: f64,
}

/// What is kept of a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Seen {
    epochs: f64,
    margin: f64,
    confidence: f64,
    /// The sum of squared differences from `confidence` (Welford).
    squares: f64,
    correct: f64,
    forgotten: f64,
    was_correct: f64,
    el2n: f64,
    last_el2n: f64,
    loss: f64,
    /// Counted from 1; 0 is never.
    first_learned: f64,
    last_epoch: f64,
}

impl Dynamics {
    /// Of so many samples, none of which was seen yet.
    pub fn new(samples: usize) -> Dynamics {
        Dynamics { samples: vec![Seen::default(); samples] }
    }

    /// Takes what a model says of some samples in an epoch (counted from 0): their numbers, from 0, `logits [rows, classes]`,
    /// of two classes at least, and integer `labels [rows]`. A sample is recorded once in an epoch, and epochs come in order;
    /// not every sample needs to come in every epoch. It is computed in f64, on the host.
    ///
    /// # Errors
    /// [`DynamicsError`] if they do not fit together, there is no such sample or label, a sample comes twice in an epoch, or a
    /// logit is not finite.
    pub fn record(
        &mut self,
        epoch: u64,
        samples: &[usize],
        logits: &Tensor,
        labels: &Tensor,
    ) -> Result<(), DynamicsError> {
        let (rows, count) = check_classes(logits, labels)?;
        if samples.len() != rows {
            return Err(DynamicsError::Indices { indices: samples.len(), rows });
        }
        let (logits, labels) = (floats(logits)?, classes(labels)?);
        let wrong = |error: MetricError| DynamicsError::Batch(error.into());
        if rows > 0 && count < 2 {
            return Err(wrong(MetricError::SingleClass));
        }
        if let Some(&class) = labels.iter().find(|&&label| label >= count) {
            return Err(wrong(MetricError::ClassOutOfRange { class, classes: count }));
        }
        if let Some(index) = logits.iter().position(|logit| !logit.is_finite()) {
            return Err(wrong(MetricError::InvalidValue { index, value: logits[index], expected: "a finite logit" }));
        }
        // Into a copy of what changes, so that an error changes nothing.
        let mut changed: BTreeMap<usize, Seen> = BTreeMap::new();
        for ((&sample, label), logits) in samples.iter().zip(labels).zip(logits.chunks(count.max(1))) {
            let before = changed.get(&sample).or(self.samples.get(sample));
            let before = before.ok_or(DynamicsError::NoSample { sample, samples: self.samples.len() })?;
            if before.epochs > 0.0 && epoch as f64 <= before.last_epoch {
                return Err(DynamicsError::Epoch { sample, epoch, last: before.last_epoch as u64 });
            }
            changed.insert(sample, before.and(epoch, logits, label));
        }
        changed.into_iter().for_each(|(sample, seen)| self.samples[sample] = seen);
        Ok(())
    }

    /// How each sample was learnt, in order.
    pub fn samples(&self) -> Vec<SampleDynamics> {
        self.samples.iter().map(Seen::summary).collect()
    }

    /// The samples that were recorded and never predicted right.
    pub fn never_learned(&self) -> Vec<usize> {
        let never = |seen: &Seen| seen.epochs > 0.0 && seen.first_learned == 0.0;
        (0..self.samples.len()).filter(|&sample| never(&self.samples[sample])).collect()
    }

    /// All that is kept, by name: `[samples]` each.
    fn tensors(&self) -> BTreeMap<String, Tensor> {
        let tensor = |&(name, field): &(&str, Field)| {
            let numbers: Vec<f64> = self.samples.iter().map(|&(mut seen)| *field(&mut seen)).collect();
            (name.to_string(), Tensor::from_vec(numbers, [self.samples.len()], &Device::cpu()))
        };
        FIELDS.iter().map(tensor).collect()
    }

    /// Goes back to what [`tensors`](Dynamics::tensors) gave.
    fn load_tensors(&mut self, tensors: &BTreeMap<String, Tensor>) -> Result<(), CallbackError> {
        let mut samples = vec![Seen::default(); self.samples.len()];
        for (name, field) in FIELDS {
            let numbers = tensors.get(name).ok_or(format!("no tensor `{name}`"))?.to_vec::<f64>()?;
            if numbers.len() != samples.len() {
                return Err(format!("`{name}` of {} samples, expected {}", numbers.len(), samples.len()).into());
            }
            samples.iter_mut().zip(numbers).for_each(|(seen, number)| *field(seen) = number);
        }
        self.samples = samples;
        Ok(())
    }
}

type Field = fn(&mut Seen) -> &mut f64;

const FIELDS: [(&str, Field); 12] = [
    ("epochs", |seen| &mut seen.epochs),
    ("margin", |seen| &mut seen.margin),
    ("confidence", |seen| &mut seen.confidence),
    ("squares", |seen| &mut seen.squares),
    ("correct", |seen| &mut seen.correct),
    ("forgotten", |seen| &mut seen.forgotten),
    ("was_correct", |seen| &mut seen.was_correct),
    ("el2n", |seen| &mut seen.el2n),
    ("last_el2n", |seen| &mut seen.last_el2n),
    ("loss", |seen| &mut seen.loss),
    ("first_learned", |seen| &mut seen.first_learned),
    ("last_epoch", |seen| &mut seen.last_epoch),
];

impl Seen {
    /// With one more epoch.
    fn and(&self, epoch: u64, logits: &[f64], label: usize) -> Seen {
        let greatest = |skip: usize| {
            let others = logits.iter().enumerate().filter(|(class, _)| *class != skip);
            others.map(|(_, &logit)| logit).fold(f64::NEG_INFINITY, f64::max)
        };
        let predicted = (0..logits.len()).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0);
        let is_correct = predicted == label;
        // Moved by the greatest, so that nothing overflows.
        let most = greatest(usize::MAX);
        let total: f64 = logits.iter().map(|logit| (logit - most).exp()).sum();
        let p = |class: usize| (logits[class] - most).exp() / total;
        let error = |class: usize| p(class) - if class == label { 1.0 } else { 0.0 };
        let el2n = (0..logits.len()).map(|class| error(class).powi(2)).sum::<f64>().sqrt();

        let epochs = self.epochs + 1.0;
        let difference = p(label) - self.confidence;
        let confidence = self.confidence + difference / epochs;
        Seen {
            epochs,
            margin: self.margin + logits[label] - greatest(label),
            confidence,
            squares: self.squares + difference * (p(label) - confidence),
            correct: self.correct + f64::from(u8::from(is_correct)),
            forgotten: self.forgotten + if is_correct { 0.0 } else { self.was_correct },
            was_correct: f64::from(u8::from(is_correct)),
            el2n: self.el2n + el2n,
            last_el2n: el2n,
            loss: self.loss + total.ln() + most - logits[label],
            first_learned: if is_correct && self.first_learned == 0.0 {
                epoch as f64 + 1.0
            } else {
                self.first_learned
            },
            last_epoch: epoch as f64,
        }
    }

    fn summary(&self) -> SampleDynamics {
        let mean = |sum: f64| sum / self.epochs;
        let or_nan = |value: f64| if self.epochs == 0.0 { f64::NAN } else { value };
        SampleDynamics {
            epochs: self.epochs as u64,
            area_under_margin: mean(self.margin),
            confidence: or_nan(self.confidence),
            variability: mean(self.squares).sqrt(),
            correctness: mean(self.correct),
            forgetting_events: self.forgotten as u64,
            first_learned: (self.first_learned > 0.0).then(|| self.first_learned as u64 - 1),
            el2n: mean(self.el2n),
            last_el2n: or_nan(self.last_el2n),
            loss: mean(self.loss),
        }
    }
}

/// The logits and labels of a batch.
type Predict<'a, B> = Box<dyn Fn(&B) -> (Tensor, Tensor) + 'a>;

/// Records, after every epoch of a [`Trainer`](crate::Trainer), what the model says of all samples of some data, in use and not
/// in training: without dropout, and with the weights that the optimiser would have evaluated. Checkpoints hold what was
/// recorded.
///
/// Sample *i* is the *i*-th row of the data's epoch 0, whatever order training takes: give batches in order.
///
/// ```
/// use gradus_data::TensorDataset;
/// use gradus_nn::{Init, Layer, Linear, cross_entropy};
/// use gradus_tensor::{DType, Device, Key, Tensor};
/// use gradus_train::{RecordDynamics, Sgd, TensorBatches, Trainer};
///
/// // Two clusters, and one wrong label.
/// let device = Device::cpu();
/// let y = Tensor::arange(40, &device) % 2;
/// let x = Tensor::randn([40, 2], Key::new(0), &device) * 0.3 + y.to_dtype(DType::F32).unsqueeze(1) * 4.0;
/// let mut labels = y.to_vec::<i32>()?;
/// labels[7] = 1 - labels[7];
/// let data = TensorDataset::new([x, Tensor::from_vec(labels, [40], &device)])?;
/// let (shuffled, in_order) = (TensorBatches::new(data.clone(), 8).shuffled(Key::new(1)), TensorBatches::new(data, 8));
///
/// let model = Linear::new(2, 2, &Init::new(42, &device));
/// let mut recorder = RecordDynamics::new(40, &in_order, |[x, y]: &[Tensor; 2]| (model.forward(x), y.clone()));
/// Trainer::new(&model, Sgd::new(0.1).of(&model), |model, [x, y]: &[Tensor; 2]| cross_entropy(&model.forward(x), y))
///     .epochs(10)
///     .callback(&mut recorder)
///     .quiet()
///     .fit(&shuffled, None)?;
/// let margins: Vec<f64> = recorder.dynamics().samples().iter().map(|sample| sample.area_under_margin).collect();
/// let lowest = (0..40).min_by(|&a, &b| margins[a].total_cmp(&margins[b]));
/// assert_eq!(lowest, Some(7));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RecordDynamics<'a, B> {
    dynamics: Dynamics,
    data: &'a dyn BatchSource<Batch = B>,
    predict: Predict<'a, B>,
}

impl<'a, B: crate::Batch> RecordDynamics<'a, B> {
    /// Of so many samples; `predict` gives the logits `[rows, classes]` and integer labels `[rows]` of a batch.
    pub fn new(
        samples: usize,
        data: &'a dyn BatchSource<Batch = B>,
        predict: impl Fn(&B) -> (Tensor, Tensor) + 'a,
    ) -> RecordDynamics<'a, B> {
        RecordDynamics { dynamics: Dynamics::new(samples), data, predict: Box::new(predict) }
    }

    /// What was recorded so far.
    pub fn dynamics(&self) -> &Dynamics {
        &self.dynamics
    }

    fn record(&mut self, epoch: u64) -> Result<(), CallbackError> {
        let mut first = 0;
        for batch in self.data.epoch(0, 0) {
            let batch = batch?;
            let (logits, labels) = no_grad(|| (self.predict)(&batch));
            let samples: Vec<usize> = (first..first + batch.rows()).collect();
            self.dynamics.record(epoch, &samples, &logits, &labels)?;
            first += samples.len();
        }
        Ok(())
    }
}

impl<B: crate::Batch> Callback for RecordDynamics<'_, B> {
    fn name(&self) -> &str {
        "dynamics"
    }

    fn on_epoch(&mut self, moment: &mut Moment<'_>, epoch: &EpochRecord) -> Result<Flow, CallbackError> {
        moment.model.eval();
        moment.optimiser.evaluate(|| Ok(self.record(epoch.epoch - 1)))??;
        Ok(Flow::Continue)
    }

    fn tensors(&self) -> BTreeMap<String, Tensor> {
        self.dynamics.tensors()
    }

    fn load_state(
        &mut self,
        _: &serde_json::Value,
        tensors: &BTreeMap<String, Tensor>,
        _: &dyn Module,
    ) -> Result<(), CallbackError> {
        self.dynamics.load_tensors(tensors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logits(rows: &[[f64; 3]]) -> Tensor {
        Tensor::from_vec(rows.concat(), [rows.len(), 3], &Device::cpu())
    }

    fn labels(labels: &[i32]) -> Tensor {
        Tensor::new(labels, &Device::cpu())
    }

    /// By hand: right, wrong, wrong, right, wrong.
    #[test]
    fn what_is_learnt_and_forgotten() {
        let mut dynamics = Dynamics::new(2);
        for (epoch, logit) in [2.0, -1.0, -2.0, 1.0, 0.0].into_iter().enumerate() {
            // Of equal logits the first class is predicted.
            dynamics.record(3 * epoch as u64, &[1], &logits(&[[0.0, logit, -9.0]]), &labels(&[1])).unwrap();
        }
        let samples = dynamics.samples();
        let seen = samples[1];
        assert_eq!((seen.epochs, seen.forgetting_events, seen.first_learned), (5, 2, Some(0)));
        assert_eq!((seen.area_under_margin, seen.correctness), (0.0, 0.4));
        assert!(samples[0].loss.is_nan() && samples[0].confidence.is_nan() && samples[0].epochs == 0);
        assert_eq!(dynamics.never_learned(), [] as [usize; 0]);
        dynamics.record(0, &[0], &logits(&[[0.0, 1.0, 0.0]]), &labels(&[0])).unwrap();
        assert_eq!(dynamics.never_learned(), [0]);
        let mut loaded = Dynamics::new(2);
        loaded.load_tensors(&dynamics.tensors()).unwrap();
        assert_eq!(loaded, dynamics);
        let error = Dynamics::new(3).load_tensors(&dynamics.tensors()).unwrap_err().to_string();
        assert_eq!(error, "`epochs` of 2 samples, expected 3");
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let mut dynamics = Dynamics::new(2);
        let fine = logits(&[[0.0, 1.0, 2.0], [800.0, 1.0, -800.0]]);
        dynamics.record(1, &[0, 1], &fine, &labels(&[2, 2])).unwrap();
        assert_eq!(dynamics.samples()[1].loss, 1600.0);
        let before = dynamics.clone();
        let mut says = |epoch, samples: &[usize], logits: &Tensor, of: &[i32], what: &str| {
            let error = dynamics.record(epoch, samples, logits, &labels(of)).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
            assert_eq!(dynamics, before);
        };
        says(2, &[0], &fine, &[0, 1], "1 indices of samples for 2 rows");
        says(2, &[0, 2], &fine, &[0, 1], "no sample 2 (from 0) among 2");
        says(2, &[0, 0], &fine, &[0, 1], "sample 0 was recorded in epoch 2");
        says(1, &[0, 1], &fine, &[0, 1], "sample 0 was recorded in epoch 1, expected a later one than 1");
        says(2, &[0, 1], &fine, &[0, 3], "found class 3, expected one below 3");
        says(2, &[0, 1], &fine, &[0], "expected [examples, classes]");
        says(2, &[0, 1], &logits(&[[0.0, 1.0, 2.0], [f64::NAN, 1.0, 2.0]]), &[0, 1], "NaN at index 3");
        says(2, &[0, 1], &Tensor::zeros([2, 1], &Device::cpu()), &[0, 0], "found one class alone");
    }
}
