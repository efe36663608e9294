//! How good predictions are, from plain slices.
//!
//! The numbers agree with scikit-learn's functions of the same names.

use std::fmt;

use thiserror::Error;

/// Why a metric has no value.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum MetricError {
    /// There are not as many predictions as labels or targets.
    #[error("found {predictions} predictions for {labels} labels, expected as many")]
    LengthMismatch {
        /// The number of predictions, scores or probabilities.
        predictions: usize,
        /// The number of labels or targets.
        labels: usize,
    },

    /// There is nothing to average over.
    #[error("found no predictions, expected at least one")]
    Empty,

    /// A predicted class or a label is not below the number of classes.
    #[error("found class {class}, expected one below {classes}")]
    ClassOutOfRange {
        /// The class that was found.
        class: usize,
        /// The number of classes.
        classes: usize,
    },

    /// All labels are alike, but the metric compares two classes.
    #[error("found no label that is {class}, expected both classes")]
    MissingClass {
        /// The class that no label has.
        class: bool,
    },

    /// A score, a probability or a target is NaN, or a probability is outside 0 to 1.
    #[error("found {value} at index {index}, expected {expected}")]
    InvalidValue {
        /// Where it is in its slice, from 0.
        index: usize,
        /// The value.
        value: f64,
        /// What would be valid.
        expected: &'static str,
    },

    /// All targets are alike, so that there is no variance to explain.
    #[error("found only equal targets, expected some variance")]
    ConstantTargets,
}

/// The share of predicted classes that equal their labels.
///
/// # Errors
///
/// [`MetricError::LengthMismatch`] or [`MetricError::Empty`].
///
/// ```
/// use gradus_train::metrics::accuracy;
///
/// assert_eq!(accuracy(&[0, 1, 1, 2], &[0, 1, 2, 2])?, 0.75);
/// # Ok::<(), gradus_train::metrics::MetricError>(())
/// ```
pub fn accuracy(predicted: &[usize], labels: &[usize]) -> Result<f64, MetricError> {
    check_lengths(predicted.len(), labels.len())?;
    let correct = predicted.iter().zip(labels).filter(|(predicted, label)| predicted == label).count();
    Ok(correct as f64 / labels.len() as f64)
}

/// How often each class was predicted for each label.
///
/// ```
/// use gradus_train::metrics::ConfusionMatrix;
///
/// let mut matrix = ConfusionMatrix::new(2);
/// for (predicted, label) in [(0, 0), (0, 0), (1, 0), (1, 1)] {
///     matrix.add(predicted, label)?;
/// }
/// assert_eq!(matrix.count(1, 0), 1);
/// assert_eq!(matrix.per_class()[1].precision, 0.5);
/// println!("{matrix}");
/// # Ok::<(), gradus_train::metrics::MetricError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfusionMatrix {
    classes: usize,
    counts: Vec<u64>,
}

/// Precision, recall and F1 of one class, or their averages over classes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassScores {
    /// Of the predictions of this class, the share that is right; 0 if it was never predicted.
    pub precision: f64,
    /// Of the labels of this class, the share that was found; 0 if there are none.
    pub recall: f64,
    /// The harmonic mean of precision and recall; 0 if both are 0.
    pub f1: f64,
}

impl ConfusionMatrix {
    /// An empty matrix for classes `0..classes`.
    pub fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes] }
    }

    /// The matrix of these predictions and labels.
    ///
    /// # Errors
    ///
    /// [`MetricError::LengthMismatch`] or [`MetricError::ClassOutOfRange`].
    ///
    /// ```
    /// use gradus_train::metrics::ConfusionMatrix;
    ///
    /// let matrix = ConfusionMatrix::from_predictions(&[0, 1, 1], &[0, 1, 0], 2)?;
    /// assert_eq!(matrix.counts(), [1, 1, 0, 1]);
    /// # Ok::<(), gradus_train::metrics::MetricError>(())
    /// ```
    pub fn from_predictions(predicted: &[usize], labels: &[usize], classes: usize) -> Result<Self, MetricError> {
        if predicted.len() != labels.len() {
            return Err(MetricError::LengthMismatch { predictions: predicted.len(), labels: labels.len() });
        }
        let mut matrix = Self::new(classes);
        for (&predicted, &label) in predicted.iter().zip(labels) {
            matrix.add(predicted, label)?;
        }
        Ok(matrix)
    }

    /// Counts one prediction.
    ///
    /// # Errors
    ///
    /// [`MetricError::ClassOutOfRange`] if one of the two is not below the number of classes.
    pub fn add(&mut self, predicted: usize, label: usize) -> Result<(), MetricError> {
        let class = predicted.max(label);
        if class >= self.classes {
            return Err(MetricError::ClassOutOfRange { class, classes: self.classes });
        }
        self.counts[label * self.classes + predicted] += 1;
        Ok(())
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// All counts, one row per label and in it one number per predicted class.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// How often `predicted` was predicted where `label` was right; 0 for classes that do not exist.
    pub fn count(&self, predicted: usize, label: usize) -> u64 {
        if predicted < self.classes && label < self.classes { self.counts[label * self.classes + predicted] } else { 0 }
    }

    /// The share of correct predictions.
    ///
    /// # Errors
    ///
    /// [`MetricError::Empty`] if nothing was counted.
    pub fn accuracy(&self) -> Result<f64, MetricError> {
        let total: u64 = self.counts.iter().sum();
        let correct: u64 = (0..self.classes).map(|class| self.count(class, class)).sum();
        if total == 0 { Err(MetricError::Empty) } else { Ok(correct as f64 / total as f64) }
    }

    /// The scores of each class.
    pub fn per_class(&self) -> Vec<ClassScores> {
        let share = |part: u64, whole: u64| {
            if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
        };
        let scores = |class| {
            let (correct, labelled, predicted) =
                (self.count(class, class), self.label_count(class), self.predicted_count(class));
            ClassScores {
                precision: share(correct, predicted),
                recall: share(correct, labelled),
                f1: share(2 * correct, labelled + predicted),
            }
        };
        (0..self.classes).map(scores).collect()
    }

    /// The plain mean of the scores of all classes that were seen, as label or as prediction.
    ///
    /// # Errors
    ///
    /// [`MetricError::Empty`] if nothing was counted.
    pub fn macro_average(&self) -> Result<ClassScores, MetricError> {
        let seen = |&class: &usize| self.label_count(class) + self.predicted_count(class) > 0;
        let per_class = self.per_class();
        let seen: Vec<_> = (0..self.classes).filter(seen).map(|class| per_class[class]).collect();
        if seen.is_empty() {
            return Err(MetricError::Empty);
        }
        let mean = |score: fn(&ClassScores) -> f64| seen.iter().map(score).sum::<f64>() / seen.len() as f64;
        Ok(ClassScores { precision: mean(|s| s.precision), recall: mean(|s| s.recall), f1: mean(|s| s.f1) })
    }

    fn label_count(&self, class: usize) -> u64 {
        (0..self.classes).map(|predicted| self.count(predicted, class)).sum()
    }

    fn predicted_count(&self, class: usize) -> u64 {
        (0..self.classes).map(|label| self.count(class, label)).sum()
    }
}

/// An aligned table: a row per label, a column per predicted class, then the scores.
impl fmt::Display for ConfusionMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let largest = self.counts.iter().copied().max().unwrap_or(0);
        let width = largest.max(self.classes as u64).to_string().len() + 2;
        write!(f, "{:>15}", "label\\predicted")?;
        for class in 0..self.classes {
            write!(f, "{class:>width$}")?;
        }
        writeln!(f, "{:>12}{:>9}{:>9}", "precision", "recall", "f1")?;
        for (label, scores) in self.per_class().into_iter().enumerate() {
            write!(f, "{label:>15}")?;
            for predicted in 0..self.classes {
                write!(f, "{:>width$}", self.count(predicted, label))?;
            }
            writeln!(f, "{:>12.4}{:>9.4}{:>9.4}", scores.precision, scores.recall, scores.f1)?;
        }
        if let (Ok(mean), Ok(accuracy)) = (self.macro_average(), self.accuracy()) {
            let gap = self.classes * width + 12;
            writeln!(f, "{:>15}{:>gap$.4}{:>9.4}{:>9.4}", "mean", mean.precision, mean.recall, mean.f1)?;
            writeln!(f, "{:>15}{:>gap$.4}", "accuracy", accuracy)?;
        }
        Ok(())
    }
}

/// The area under the ROC curve: how probably a positive example scores higher than a negative one, a tie counting
/// one half. Exact, by ranks.
///
/// # Errors
///
/// [`MetricError::LengthMismatch`], [`MetricError::Empty`], [`MetricError::MissingClass`] if all labels are alike,
/// [`MetricError::InvalidValue`] if a score is NaN.
///
/// ```
/// use gradus_train::metrics::roc_auc;
///
/// assert_eq!(roc_auc(&[0.1, 0.4, 0.35, 0.8], &[false, false, true, true])?, 0.75);
/// # Ok::<(), gradus_train::metrics::MetricError>(())
/// ```
pub fn roc_auc(scores: &[f64], labels: &[bool]) -> Result<f64, MetricError> {
    check_lengths(scores.len(), labels.len())?;
    check_values(scores, "a number", |score| !score.is_nan())?;
    let mut ranked: Vec<(f64, bool)> = scores.iter().copied().zip(labels.iter().copied()).collect();
    ranked.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));

    // Twice the number of (positive, negative) pairs in the right order, so that half a pair is a whole number.
    let (mut positives, mut negatives, mut twice_ordered) = (0_u128, 0_u128, 0_u128);
    for tied in ranked.chunk_by(|a, b| a.0 == b.0) {
        let tied_positives = tied.iter().filter(|(_, label)| *label).count() as u128;
        let tied_negatives = tied.len() as u128 - tied_positives;
        twice_ordered += tied_positives * (2 * negatives + tied_negatives);
        positives += tied_positives;
        negatives += tied_negatives;
    }
    match (positives, negatives) {
        (0, _) => Err(MetricError::MissingClass { class: true }),
        (_, 0) => Err(MetricError::MissingClass { class: false }),
        _ => Ok(twice_ordered as f64 / (2 * positives * negatives) as f64),
    }
}

/// The mean negative logarithm of the probability given to the right class, where `probabilities` are those of
/// `true`. Probabilities of 0 and 1 are moved inwards by the machine epsilon, so that one error is not infinite.
///
/// # Errors
///
/// [`MetricError::LengthMismatch`], [`MetricError::Empty`], [`MetricError::InvalidValue`] if a probability is NaN or
/// outside 0 to 1.
///
/// ```
/// use gradus_train::metrics::log_loss;
///
/// let loss = log_loss(&[0.5, 0.25], &[true, false])?;
/// assert!((loss - (2.0_f64.ln() + (4.0_f64 / 3.0).ln()) / 2.0).abs() < 1e-15);
/// # Ok::<(), gradus_train::metrics::MetricError>(())
/// ```
pub fn log_loss(probabilities: &[f64], labels: &[bool]) -> Result<f64, MetricError> {
    check_lengths(probabilities.len(), labels.len())?;
    check_values(probabilities, "a probability from 0 to 1", |p| (0.0..=1.0).contains(&p))?;
    let loss = |(&p, &label): (&f64, &bool)| {
        let p = p.clamp(f64::EPSILON, 1.0 - f64::EPSILON);
        if label { -p.ln() } else { -(-p).ln_1p() }
    };
    Ok(probabilities.iter().zip(labels).map(loss).sum::<f64>() / labels.len() as f64)
}

/// The mean of the squared differences.
///
/// # Errors
///
/// [`MetricError::LengthMismatch`], [`MetricError::Empty`], [`MetricError::InvalidValue`] for NaN.
///
/// ```
/// use gradus_train::metrics::mean_squared_error;
///
/// assert_eq!(mean_squared_error(&[1.0, 2.0], &[1.0, 4.0])?, 2.0);
/// # Ok::<(), gradus_train::metrics::MetricError>(())
/// ```
pub fn mean_squared_error(predicted: &[f64], targets: &[f64]) -> Result<f64, MetricError> {
    check_lengths(predicted.len(), targets.len())?;
    check_values(predicted, "a number", |x| !x.is_nan())?;
    check_values(targets, "a number", |x| !x.is_nan())?;
    let squares = predicted.iter().zip(targets).map(|(predicted, target)| (predicted - target).powi(2));
    Ok(squares.sum::<f64>() / targets.len() as f64)
}

/// The coefficient of determination: 1 is perfect, 0 is no better than always predicting the mean target.
///
/// # Errors
///
/// [`MetricError::LengthMismatch`], [`MetricError::Empty`], [`MetricError::InvalidValue`] for NaN,
/// [`MetricError::ConstantTargets`] if there is no variance to explain.
///
/// ```
/// use gradus_train::metrics::r2_score;
///
/// assert_eq!(r2_score(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0])?, 1.0);
/// assert_eq!(r2_score(&[2.0, 2.0, 2.0], &[1.0, 2.0, 3.0])?, 0.0);
/// # Ok::<(), gradus_train::metrics::MetricError>(())
/// ```
pub fn r2_score(predicted: &[f64], targets: &[f64]) -> Result<f64, MetricError> {
    let unexplained = mean_squared_error(predicted, targets)?;
    if targets.iter().all(|target| *target == targets[0]) {
        return Err(MetricError::ConstantTargets);
    }
    let mean = targets.iter().sum::<f64>() / targets.len() as f64;
    let variance = targets.iter().map(|target| (target - mean).powi(2)).sum::<f64>() / targets.len() as f64;
    Ok(1.0 - unexplained / variance)
}

fn check_lengths(predictions: usize, labels: usize) -> Result<(), MetricError> {
    match (predictions == labels, labels) {
        (false, _) => Err(MetricError::LengthMismatch { predictions, labels }),
        (true, 0) => Err(MetricError::Empty),
        (true, _) => Ok(()),
    }
}

fn check_values(values: &[f64], expected: &'static str, is_valid: impl Fn(f64) -> bool) -> Result<(), MetricError> {
    match values.iter().position(|&value| !is_valid(value)) {
        Some(index) => Err(MetricError::InvalidValue { index, value: values[index], expected }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `metrics.multiclass` of the golden numbers, which scikit-learn computed.
    const LABELS: [usize; 40] = [
        0, 0, 0, 1, 2, 1, 1, 2, 0, 1, 2, 2, 1, 2, 1, 2, 1, 0, 0, 1, 2, 0, 1, 1, 2, 0, 0, 1, 1, 0, 1, 1, 1, 0, 1, 0, 2,
        1, 0, 1,
    ];
    const PREDICTED: [usize; 40] = [
        0, 0, 0, 1, 2, 1, 1, 2, 1, 1, 2, 2, 1, 2, 1, 2, 1, 0, 0, 0, 2, 0, 1, 1, 2, 0, 0, 1, 1, 0, 1, 1, 1, 0, 1, 0, 0,
        1, 0, 0,
    ];

    fn assert_close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-14, "found {found}, expected {expected}");
    }

    #[test]
    fn golden_confusion_matrix() {
        let matrix = ConfusionMatrix::from_predictions(&PREDICTED, &LABELS, 3).unwrap();
        assert_eq!(matrix.counts(), [12, 1, 0, 2, 16, 0, 1, 0, 8]);
        let mean = matrix.macro_average().unwrap();
        assert_close(mean.f1, 0.9042016806722689);
        assert_close(mean.recall, 0.9002849002849004);
        assert_close(matrix.accuracy().unwrap(), 0.9);
        assert_eq!(accuracy(&PREDICTED, &LABELS), matrix.accuracy());
        let scores = matrix.per_class();
        assert_close(scores[0].precision, 12.0 / 15.0);
        assert_close(scores[1].recall, 16.0 / 18.0);
    }

    #[test]
    fn classes_that_never_occur() {
        let matrix = ConfusionMatrix::from_predictions(&[0, 1], &[0, 0], 4).unwrap();
        assert_eq!(matrix.per_class()[1], ClassScores { precision: 0.0, recall: 0.0, f1: 0.0 });
        // Classes 2 and 3 are not averaged over.
        assert_eq!(matrix.macro_average().unwrap().precision, 0.5);
        assert_eq!(ConfusionMatrix::new(2).accuracy(), Err(MetricError::Empty));
        assert_eq!(ConfusionMatrix::new(0).macro_average(), Err(MetricError::Empty));
        assert_eq!(ConfusionMatrix::new(2).add(1, 2), Err(MetricError::ClassOutOfRange { class: 2, classes: 2 }));
    }

    #[test]
    fn confusion_table_is_aligned() {
        let text = ConfusionMatrix::from_predictions(&PREDICTED, &LABELS, 3).unwrap().to_string();
        let expected = "\
label\\predicted   0   1   2   precision   recall       f1
              0  12   1   0      0.8000   0.9231   0.8571
              1   2  16   0      0.9412   0.8889   0.9143
              2   1   0   8      1.0000   0.8889   0.9412
           mean                  0.9137   0.9003   0.9042
       accuracy                  0.9000
";
        assert_eq!(text, expected);
        assert_eq!(ConfusionMatrix::new(0).to_string().lines().count(), 1);
    }

    #[test]
    fn area_under_the_curve() {
        let labels = [true, false, true, false, false, true];
        // 9 pairs: 4 in order, 2 tied.
        assert_close(roc_auc(&[0.9, 0.1, 0.5, 0.5, 0.7, 0.1], &labels).unwrap(), 5.0 / 9.0);
        assert_eq!(roc_auc(&[1.0; 6], &labels), Ok(0.5));
        assert_eq!(roc_auc(&[0.0, -0.0], &[false, true]), Ok(0.5));
        assert_eq!(roc_auc(&[f64::INFINITY, f64::NEG_INFINITY], &[true, false]), Ok(1.0));
        assert_eq!(roc_auc(&[1.0, 2.0], &[true, true]), Err(MetricError::MissingClass { class: false }));
        assert_eq!(roc_auc(&[1.0], &[false]), Err(MetricError::MissingClass { class: true }));
        let error = roc_auc(&[1.0, f64::NAN], &[true, false]).unwrap_err();
        assert_eq!(error.to_string(), "found NaN at index 1, expected a number");
    }

    #[test]
    fn area_equals_the_count_of_all_pairs() {
        let scores: Vec<f64> = (0..200_u32).map(|i| f64::from(i * 7919 % 31)).collect();
        let labels: Vec<bool> = (0..200_u32).map(|i| i * 104_729 % 13 < 5).collect();
        let (mut ordered, mut pairs) = (0.0, 0.0);
        for i in (0..200).filter(|&i| labels[i]) {
            for j in (0..200).filter(|&j| !labels[j]) {
                pairs += 1.0;
                ordered +=
                    f64::from(u8::from(scores[i] > scores[j])) + 0.5 * f64::from(u8::from(scores[i] == scores[j]));
            }
        }
        assert_close(roc_auc(&scores, &labels).unwrap(), ordered / pairs);
    }

    #[test]
    fn log_loss_is_finite_and_checked() {
        // scikit-learn: log_loss([1, 0, 0, 1], [0.9, 0.1, 0.2, 0.65])
        assert_close(log_loss(&[0.9, 0.1, 0.2, 0.65], &[true, false, false, true]).unwrap(), 0.21616187468057912);
        let wrong = log_loss(&[0.0, 1.0], &[true, false]).unwrap();
        assert_close(wrong, -f64::EPSILON.ln());
        assert!(matches!(log_loss(&[1.5], &[true]), Err(MetricError::InvalidValue { index: 0, .. })));
        assert!(log_loss(&[f64::NAN], &[true]).is_err());
    }

    #[test]
    fn regression() {
        // scikit-learn's own example of r2_score.
        let (predicted, targets) = ([2.5, 0.0, 2.0, 8.0], [3.0, -0.5, 2.0, 7.0]);
        assert_close(mean_squared_error(&predicted, &targets).unwrap(), 0.375);
        assert_close(r2_score(&predicted, &targets).unwrap(), 0.9486081370449679);
        assert_eq!(r2_score(&[1.0, 2.0], &[0.1, 0.1]), Err(MetricError::ConstantTargets));
        assert!(mean_squared_error(&[0.0], &[f64::NAN]).is_err());
    }

    #[test]
    fn lengths_are_checked() {
        let mismatch = MetricError::LengthMismatch { predictions: 1, labels: 2 };
        assert_eq!(accuracy(&[0], &[0, 1]), Err(mismatch.clone()));
        assert_eq!(ConfusionMatrix::from_predictions(&[0], &[0, 1], 2), Err(mismatch.clone()));
        assert_eq!(roc_auc(&[0.0], &[true, false]), Err(mismatch.clone()));
        assert_eq!(log_loss(&[0.0], &[true, false]), Err(mismatch.clone()));
        assert_eq!(r2_score(&[0.0], &[1.0, 2.0]), Err(mismatch));
        assert_eq!(accuracy(&[], &[]), Err(MetricError::Empty));
        assert_eq!(r2_score(&[], &[]), Err(MetricError::Empty));
    }
}
