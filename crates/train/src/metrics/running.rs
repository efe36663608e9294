//! Metrics that gather batches.

use super::{ClassScores, ConfusionMatrix, MetricError, RegressionSums, roc_auc};
use gradus_tensor::{DType, Device, Tensor};
use thiserror::Error;

/// A number that says how good a model is, gathered from batches of its outputs.
///
/// ```
/// use gradus_tensor::{Device, Tensor};
/// use gradus_train::metrics::{Accuracy, Metric};
///
/// let device = Device::cpu();
/// let mut accuracy = Accuracy::new();
/// accuracy.update(&Tensor::new([[2.0, 1.0], [0.0, 3.0]], &device), &Tensor::new([0, 0], &device))?;
/// accuracy.update(&Tensor::new([[2.0, 1.0], [5.0, 3.0]], &device), &Tensor::new([0, 0], &device))?;
/// assert_eq!(accuracy.value()?, 0.75);
/// # Ok::<(), gradus_train::metrics::RunningError>(())
/// ```
pub trait Metric: Send {
    /// A short name for logs, such as `accuracy`.
    fn name(&self) -> String;

    /// Whether more is better.
    fn rises(&self) -> bool;

    /// Takes the outputs and targets of a batch.
    ///
    /// # Errors
    ///
    /// [`RunningError`] if they do not fit or cannot be computed; the batch then does not count.
    fn update(&mut self, outputs: &Tensor, targets: &Tensor) -> Result<(), RunningError>;

    /// The value over all batches so far.
    ///
    /// # Errors
    ///
    /// [`RunningError::Metric`] if it has none, [`RunningError::Tensor`] if it cannot be computed.
    fn value(&self) -> Result<f64, RunningError>;

    /// Forgets all batches.
    fn reset(&mut self);
}

/// Why a [`Metric`] cannot go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunningError {
    /// There is no value, or what is counted is out of range.
    #[error(transparent)]
    Metric(#[from] MetricError),

    /// A tensor could not be computed, or carries an error.
    #[error(transparent)]
    Tensor(#[from] gradus_tensor::Error),

    /// Outputs and targets do not fit.
    #[error("found outputs of shape {outputs} and targets of shape {targets}, expected {expected}")]
    Shapes {
        /// The outputs' shape.
        outputs: gradus_tensor::Shape,
        /// The targets' shape.
        targets: gradus_tensor::Shape,
        /// What would fit.
        expected: &'static str,
    },
}

/// A mean, such as that of the losses of an epoch, weighted by the sizes of batches.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RunningMean {
    sum: f64,
    weight: f64,
}

impl RunningMean {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a value with its weight.
    pub fn add(&mut self, value: f64, weight: f64) {
        self.sum += value * weight;
        self.weight += weight;
    }

    /// The mean so far.
    ///
    /// # Errors
    ///
    /// [`MetricError::Empty`] if there is no weight.
    pub fn mean(&self) -> Result<f64, MetricError> {
        if self.weight == 0.0 { Err(MetricError::Empty) } else { Ok(self.sum / self.weight) }
    }
}

const CLASSES: &str = "[examples, classes] and integers [examples]";
const ALIKE: &str = "as many numbers in both";

/// Outputs `[n, classes]` and integer targets `[n]`, or what else they are.
pub(crate) fn check_classes(outputs: &Tensor, targets: &Tensor) -> Result<(usize, usize), RunningError> {
    for tensor in [outputs, targets] {
        if let Some(error) = tensor.error() {
            return Err(error.clone().into());
        }
    }
    match (&outputs.shape()[..], &targets.shape()[..]) {
        (&[n, classes], &[m]) if n == m && !targets.dtype().is_float() => Ok((n, classes)),
        _ => Err(mismatch(outputs, targets, CLASSES)),
    }
}

fn mismatch(outputs: &Tensor, targets: &Tensor, expected: &'static str) -> RunningError {
    RunningError::Shapes { outputs: outputs.shape().clone(), targets: targets.shape().clone(), expected }
}

/// The elements on the host.
pub(crate) fn floats(tensor: &Tensor) -> Result<Vec<f64>, RunningError> {
    Ok(tensor.detach().to_device(&Device::cpu()).to_dtype(DType::F64).to_vec()?)
}

/// Elements that are classes; what is negative is a class beyond all others.
pub(crate) fn classes(tensor: &Tensor) -> Result<Vec<usize>, RunningError> {
    let integers = tensor.detach().to_device(&Device::cpu()).to_dtype(DType::I32).to_vec::<i32>()?;
    Ok(integers.into_iter().map(|class| usize::try_from(class).unwrap_or(usize::MAX)).collect())
}

/// The share of examples whose label is among the highest outputs: `outputs [n, classes]`, integer `targets [n]`. The count
/// stays on the device until the value is asked for, so that batches wait for nothing.
#[derive(Debug, Clone)]
pub struct Accuracy {
    k: usize,
    correct: Option<Tensor>,
    examples: usize,
}

impl Accuracy {
    /// The highest output has to be that of the label.
    pub fn new() -> Self {
        Self::top(1)
    }

    /// The label has to be among the `k` highest outputs. Of equal outputs those of lower classes count as higher.
    pub fn top(k: usize) -> Self {
        Self { k, correct: None, examples: 0 }
    }
}

impl Default for Accuracy {
    fn default() -> Self {
        Self::new()
    }
}

impl Metric for Accuracy {
    fn name(&self) -> String {
        if self.k == 1 { "accuracy".into() } else { format!("top-{} accuracy", self.k) }
    }

    fn rises(&self) -> bool {
        true
    }

    fn update(&mut self, outputs: &Tensor, targets: &Tensor) -> Result<(), RunningError> {
        let (examples, classes) = check_classes(outputs, targets)?;
        if examples == 0 {
            return Ok(());
        }
        let (outputs, targets) = (outputs.detach(), targets.detach().to_dtype(DType::I32));
        // Chosen by comparison, so that a label out of range is nobody's instead of an error of the run.
        let class = Tensor::arange(classes, outputs.device()).to_dtype(DType::I32);
        let chosen = targets.unsqueeze(1).eq(class.unsqueeze(0));
        let own = chosen.where_(&outputs, outputs.zeros_like()).sum_keepdim(1);
        let tied_before = outputs.eq(&own).logical_and(class.unsqueeze(0).lt(targets.unsqueeze(1)));
        let ahead = outputs.gt(&own).logical_or(tied_before).to_dtype(DType::I32).sum(1);
        let known = chosen.any(1).logical_and(own.squeeze(1).is_nan().logical_not());
        let correct = ahead.lt(self.k as i32).logical_and(known).to_dtype(DType::I32).sum(..);
        let correct = match &self.correct {
            Some(before) => before.to_device(correct.device()) + correct,
            None => correct,
        };
        if let Some(error) = correct.error() {
            return Err(error.clone().into());
        }
        (self.correct, self.examples) = (Some(correct), self.examples + examples);
        Ok(())
    }

    fn value(&self) -> Result<f64, RunningError> {
        match &self.correct {
            Some(correct) => Ok(f64::from(correct.item::<i32>()?) / self.examples as f64),
            None => Err(MetricError::Empty.into()),
        }
    }

    fn reset(&mut self) {
        (self.correct, self.examples) = (None, 0);
    }
}

/// What [`Classes`] tells of its confusion matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClassMetric {
    /// Precision, averaged.
    Precision(Average),
    /// Recall, averaged.
    Recall(Average),
    /// F1, averaged.
    F1(Average),
    /// The mean recall of the classes that have labels.
    BalancedAccuracy,
    /// Matthews' correlation.
    MatthewsCorrelation,
    /// Cohen's kappa.
    CohenKappa,
}

/// How the scores of classes become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Average {
    /// The plain mean of all classes that were seen.
    Macro,
    /// All classes pooled: the accuracy.
    Micro,
    /// The mean, weighted by how many labels classes have.
    Weighted,
    /// One class alone.
    Of(usize),
}

/// Metrics of a confusion matrix: `outputs [n, classes]`, integer `targets [n]`.
///
/// ```
/// use gradus_tensor::{Device, Tensor};
/// use gradus_train::metrics::{Average, ClassMetric, Classes, Metric};
///
/// let device = Device::cpu();
/// let mut f1 = Classes::new(2, ClassMetric::F1(Average::Macro));
/// f1.update(&Tensor::new([[2.0, 1.0], [0.0, 3.0]], &device), &Tensor::new([0, 1], &device))?;
/// assert_eq!(f1.value()?, 1.0);
/// println!("{}", f1.matrix());
/// # Ok::<(), gradus_train::metrics::RunningError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Classes {
    matrix: ConfusionMatrix,
    metric: ClassMetric,
}

impl Classes {
    /// A metric of so many classes.
    pub fn new(classes: usize, metric: ClassMetric) -> Self {
        Self { matrix: ConfusionMatrix::new(classes), metric }
    }

    /// The matrix so far.
    pub fn matrix(&self) -> &ConfusionMatrix {
        &self.matrix
    }

    fn average(&self, average: Average) -> Result<ClassScores, MetricError> {
        match average {
            Average::Macro => self.matrix.macro_average(),
            Average::Micro => self.matrix.micro_average(),
            Average::Weighted => self.matrix.weighted_average(),
            Average::Of(class) => {
                let classes = self.matrix.classes();
                let scores = self.matrix.per_class().get(class).copied();
                scores.ok_or(MetricError::ClassOutOfRange { class, classes })
            }
        }
    }
}

impl Metric for Classes {
    fn name(&self) -> String {
        let averaged = |name: &str, average| match average {
            Average::Macro => format!("macro {name}"),
            Average::Micro => format!("micro {name}"),
            Average::Weighted => format!("weighted {name}"),
            Average::Of(class) => format!("{name} of class {class}"),
        };
        match self.metric {
            ClassMetric::Precision(average) => averaged("precision", average),
            ClassMetric::Recall(average) => averaged("recall", average),
            ClassMetric::F1(average) => averaged("f1", average),
            ClassMetric::BalancedAccuracy => "balanced accuracy".into(),
            ClassMetric::MatthewsCorrelation => "matthews correlation".into(),
            ClassMetric::CohenKappa => "cohen kappa".into(),
        }
    }

    fn rises(&self) -> bool {
        true
    }

    fn update(&mut self, outputs: &Tensor, targets: &Tensor) -> Result<(), RunningError> {
        check_classes(outputs, targets)?;
        let (predicted, labels) = (classes(&outputs.detach().argmax(1))?, classes(targets)?);
        let batch = ConfusionMatrix::from_predictions(&predicted, &labels, self.matrix.classes())?;
        Ok(self.matrix.merge(&batch)?)
    }

    fn value(&self) -> Result<f64, RunningError> {
        Ok(match self.metric {
            ClassMetric::Precision(average) => self.average(average)?.precision,
            ClassMetric::Recall(average) => self.average(average)?.recall,
            ClassMetric::F1(average) => self.average(average)?.f1,
            ClassMetric::BalancedAccuracy => self.matrix.balanced_accuracy()?,
            ClassMetric::MatthewsCorrelation => self.matrix.matthews_correlation()?,
            ClassMetric::CohenKappa => self.matrix.cohen_kappa()?,
        })
    }

    fn reset(&mut self) {
        self.matrix = ConfusionMatrix::new(self.matrix.classes());
    }
}

/// The area under the ROC curve of scores or logits, exact: it keeps all of them. Outputs and targets (true is what is not 0)
/// have as many elements.
#[derive(Debug, Clone, Default)]
pub struct AreaUnderRoc {
    scores: Vec<f64>,
    labels: Vec<bool>,
}

impl AreaUnderRoc {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Metric for AreaUnderRoc {
    fn name(&self) -> String {
        "roc auc".into()
    }

    fn rises(&self) -> bool {
        true
    }

    fn update(&mut self, outputs: &Tensor, targets: &Tensor) -> Result<(), RunningError> {
        let (scores, labels) = (floats(outputs)?, floats(targets)?);
        if scores.len() != labels.len() {
            return Err(mismatch(outputs, targets, ALIKE));
        }
        self.scores.extend(scores);
        self.labels.extend(labels.into_iter().map(|label| label != 0.0));
        Ok(())
    }

    fn value(&self) -> Result<f64, RunningError> {
        Ok(roc_auc(&self.scores, &self.labels)?)
    }

    fn reset(&mut self) {
        *self = Self::default();
    }
}

/// What [`Regression`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegressionMetric {
    /// The mean of squared differences.
    MeanSquared,
    /// Its root.
    RootMeanSquared,
    /// The mean of differences without their signs.
    MeanAbsolute,
    /// The coefficient of determination.
    R2,
}

/// Metrics of predicted numbers: outputs and targets have as many elements.
#[derive(Debug, Clone)]
pub struct Regression {
    sums: RegressionSums,
    metric: RegressionMetric,
}

impl Regression {
    /// One of the metrics.
    pub fn new(metric: RegressionMetric) -> Self {
        Self { sums: RegressionSums::new(), metric }
    }
}

impl Metric for Regression {
    fn name(&self) -> String {
        let name = match self.metric {
            RegressionMetric::MeanSquared => "mse",
            RegressionMetric::RootMeanSquared => "rmse",
            RegressionMetric::MeanAbsolute => "mae",
            RegressionMetric::R2 => "r2",
        };
        name.into()
    }

    fn rises(&self) -> bool {
        self.metric == RegressionMetric::R2
    }

    fn update(&mut self, outputs: &Tensor, targets: &Tensor) -> Result<(), RunningError> {
        let (predicted, expected) = (floats(outputs)?, floats(targets)?);
        if predicted.len() != expected.len() {
            return Err(mismatch(outputs, targets, ALIKE));
        }
        let mut sums = self.sums;
        predicted.into_iter().zip(expected).try_for_each(|(predicted, target)| sums.add(predicted, target))?;
        self.sums = sums;
        Ok(())
    }

    fn value(&self) -> Result<f64, RunningError> {
        Ok(match self.metric {
            RegressionMetric::MeanSquared => self.sums.mean_squared_error()?,
            RegressionMetric::RootMeanSquared => self.sums.mean_squared_error()?.sqrt(),
            RegressionMetric::MeanAbsolute => self.sums.mean_absolute_error()?,
            RegressionMetric::R2 => self.sums.r2_score()?,
        })
    }

    fn reset(&mut self) {
        self.sums = RegressionSums::new();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{accuracy, mean_squared_error, top_k_accuracy};
    use super::*;
    use gradus_tensor::Key;

    #[test]
    fn batches_give_what_the_whole_gives() -> Result<(), RunningError> {
        let device = Device::cpu();
        // Quarters, so that there are ties.
        let outputs = (Tensor::randn([60, 5], Key::new(1), &device) * 4.0).round() / 4.0;
        let labels: Vec<i32> = (0..60).map(|i| i * 7 % 5).collect();
        let targets = Tensor::from_vec(labels, [60], &device);
        let (scores, truth) = (floats(&outputs)?, classes(&targets)?);
        let predicted = classes(&outputs.argmax(1))?;
        let batches = |metric: &mut dyn Metric| -> Result<f64, RunningError> {
            metric.reset();
            for start in [0, 25, 50] {
                let range = start..(start + 25).min(60);
                metric.update(&outputs.slice(0, range.clone()), &targets.slice(0, range))?;
            }
            metric.value()
        };
        assert_eq!(batches(&mut Accuracy::new())?, accuracy(&predicted, &truth)?);
        for k in 0..=6 {
            assert_eq!(batches(&mut Accuracy::top(k))?, top_k_accuracy(&scores, 5, &truth, k)?, "k = {k}");
        }
        let matrix = ConfusionMatrix::from_predictions(&predicted, &truth, 5)?;
        assert_eq!(batches(&mut Classes::new(5, ClassMetric::F1(Average::Macro)))?, matrix.macro_average()?.f1);
        assert_eq!(batches(&mut Classes::new(5, ClassMetric::CohenKappa))?, matrix.cohen_kappa()?);
        let of_one = Average::Of(3);
        assert_eq!(batches(&mut Classes::new(5, ClassMetric::Recall(of_one)))?, matrix.per_class()[3].recall);

        let (mut mse, mut auc) = (Regression::new(RegressionMetric::MeanSquared), AreaUnderRoc::new());
        let column = outputs.slice(1, 0..1);
        mse.update(&column, &targets)?;
        auc.update(&column, &targets)?;
        let (x, y) = (floats(&column)?, floats(&targets)?);
        assert!((mse.value()? - mean_squared_error(&x, &y)?).abs() < 1e-12);
        assert_eq!(auc.value()?, roc_auc(&x, &y.iter().map(|&y| y != 0.0).collect::<Vec<_>>())?);
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_an_error_and_counts_for_nothing() {
        let device = Device::cpu();
        let outputs = Tensor::zeros([2, 3], &device);
        let mut all: Vec<Box<dyn Metric>> = vec![
            Box::new(Accuracy::new()),
            Box::new(Classes::new(3, ClassMetric::BalancedAccuracy)),
            Box::new(AreaUnderRoc::new()),
            Box::new(Regression::new(RegressionMetric::R2)),
        ];
        for metric in &mut all {
            assert!(metric.update(&outputs, &Tensor::new([0, 1, 2], &device)).is_err(), "{}", metric.name());
            let failed = outputs.matmul(&outputs);
            assert!(metric.update(&failed, &Tensor::new([0, 1], &device)).is_err(), "{}", metric.name());
            assert!(matches!(metric.value(), Err(RunningError::Metric(MetricError::Empty))), "{}", metric.name());
        }
        let mut classes = Classes::new(3, ClassMetric::BalancedAccuracy);
        assert!(classes.update(&outputs, &Tensor::new([0, 3], &device)).is_err());
        assert!(classes.update(&outputs, &Tensor::new([0, -1], &device)).is_err());
        // A label that no output stands for, and an output that is no number, are wrong.
        let mut accuracy = Accuracy::new();
        accuracy.update(&outputs, &Tensor::new([7, 0], &device)).unwrap();
        accuracy.update(&Tensor::new([[f32::NAN, 1.0]], &device), &Tensor::new([0], &device)).unwrap();
        assert_eq!(accuracy.value().unwrap(), 1.0 / 3.0);
    }

    #[test]
    fn means_are_weighted() {
        let mut mean = RunningMean::new();
        assert_eq!(mean.mean(), Err(MetricError::Empty));
        mean.add(1.0, 3.0);
        mean.add(5.0, 1.0);
        assert_eq!(mean.mean(), Ok(2.0));
    }
}
