//! Metrics of predicted classes.

use super::{MetricError, check_lengths, check_values};
use std::fmt;

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

/// The share of examples whose label is among the `k` classes of the highest scores. `scores` holds a row of `classes` numbers
/// for each label. Of equal scores those of lower classes count as higher, as in `argmax`.
///
/// # Errors
///
/// [`MetricError::NoRows`], [`MetricError::LengthMismatch`], [`MetricError::Empty`], [`MetricError::ClassOutOfRange`], or
/// [`MetricError::InvalidValue`] if a score is NaN.
///
/// ```
/// use gradus_train::metrics::top_k_accuracy;
///
/// let scores = [0.5, 0.3, 0.2, 0.1, 0.3, 0.6];
/// assert_eq!(top_k_accuracy(&scores, 3, &[1, 0], 2)?, 0.5);
/// # Ok::<(), gradus_train::metrics::MetricError>(())
/// ```
pub fn top_k_accuracy(scores: &[f64], classes: usize, labels: &[usize], k: usize) -> Result<f64, MetricError> {
    if classes == 0 || !scores.len().is_multiple_of(classes) {
        return Err(MetricError::NoRows { scores: scores.len(), classes });
    }
    check_lengths(scores.len() / classes, labels.len())?;
    check_values(scores, "a number", |score| !score.is_nan())?;
    let mut found = 0_usize;
    for (row, &label) in scores.chunks(classes).zip(labels) {
        let Some(&own) = row.get(label) else {
            return Err(MetricError::ClassOutOfRange { class: label, classes });
        };
        let ahead = row.iter().enumerate().filter(|&(class, &score)| score > own || (score == own && class < label));
        found += usize::from(ahead.count() < k);
    }
    Ok(found as f64 / labels.len() as f64)
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
        let total = self.total();
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

    /// The scores of all classes pooled: precision, recall and F1 are then all the accuracy, since each example has one label.
    ///
    /// # Errors
    ///
    /// [`MetricError::Empty`] if nothing was counted.
    pub fn micro_average(&self) -> Result<ClassScores, MetricError> {
        self.accuracy().map(|accuracy| ClassScores { precision: accuracy, recall: accuracy, f1: accuracy })
    }

    /// The mean of the scores of all classes, weighted by how many labels they have.
    ///
    /// # Errors
    ///
    /// [`MetricError::Empty`] if nothing was counted.
    pub fn weighted_average(&self) -> Result<ClassScores, MetricError> {
        let total = self.total();
        if total == 0 {
            return Err(MetricError::Empty);
        }
        let per_class = self.per_class();
        let mean = |score: fn(&ClassScores) -> f64| {
            let weighted = per_class.iter().enumerate().map(|(class, s)| self.label_count(class) as f64 * score(s));
            weighted.sum::<f64>() / total as f64
        };
        Ok(ClassScores { precision: mean(|s| s.precision), recall: mean(|s| s.recall), f1: mean(|s| s.f1) })
    }

    /// The mean recall of the classes that have labels: what the accuracy would be if all had as many.
    ///
    /// # Errors
    ///
    /// [`MetricError::Empty`] if nothing was counted.
    pub fn balanced_accuracy(&self) -> Result<f64, MetricError> {
        let per_class = self.per_class();
        let labelled = (0..self.classes).filter(|&class| self.label_count(class) > 0);
        let recalls: Vec<f64> = labelled.map(|class| per_class[class].recall).collect();
        if recalls.is_empty() {
            return Err(MetricError::Empty);
        }
        Ok(recalls.iter().sum::<f64>() / recalls.len() as f64)
    }

    /// How much better than chance labels and predictions agree (Cohen 1960): 1 is always, 0 as often as by chance.
    ///
    /// # Errors
    ///
    /// [`MetricError::Empty`] if nothing was counted, [`MetricError::SingleClass`] if all labels and predictions are of one
    /// class.
    pub fn cohen_kappa(&self) -> Result<f64, MetricError> {
        let observed = self.accuracy()?;
        let total = self.total() as f64;
        let by_chance = |class| (self.label_count(class) as f64 / total) * (self.predicted_count(class) as f64 / total);
        if (0..self.classes).any(|class| u128::from(self.count(class, class)) == u128::from(self.total())) {
            return Err(MetricError::SingleClass);
        }
        let expected: f64 = (0..self.classes).map(by_chance).sum();
        Ok((observed - expected) / (1.0 - expected))
    }

    /// The correlation of labels and predictions (Matthews 1975; for several classes Gorodkin 2004): 1 is perfect. It is 0 where
    /// all labels, or all predictions, are of one class.
    ///
    /// # Errors
    ///
    /// [`MetricError::Empty`] if nothing was counted.
    pub fn matthews_correlation(&self) -> Result<f64, MetricError> {
        let total = self.total() as f64;
        if total == 0.0 {
            return Err(MetricError::Empty);
        }
        let sum = |term: &dyn Fn(usize) -> f64| (0..self.classes).map(term).sum::<f64>();
        let (labels, predicted) = (|c| self.label_count(c) as f64, |c| self.predicted_count(c) as f64);
        let covariance = sum(&|c| self.count(c, c) as f64) * total - sum(&|c| labels(c) * predicted(c));
        let of_labels = total * total - sum(&|c| labels(c) * labels(c));
        let of_predicted = total * total - sum(&|c| predicted(c) * predicted(c));
        if of_labels == 0.0 || of_predicted == 0.0 {
            return Ok(0.0);
        }
        Ok(covariance / (of_labels.sqrt() * of_predicted.sqrt()))
    }

    /// Adds another matrix' counts: those of another batch, or of another part of the data.
    ///
    /// # Errors
    ///
    /// [`MetricError::ClassOutOfRange`] if it has another number of classes.
    pub fn merge(&mut self, other: &Self) -> Result<(), MetricError> {
        if other.classes != self.classes {
            return Err(MetricError::ClassOutOfRange { class: other.classes, classes: self.classes });
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        Ok(())
    }

    fn total(&self) -> u64 {
        self.counts.iter().sum()
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
    fn averages_and_agreement() {
        // Numbers of scikit-learn for the golden predictions.
        let matrix = ConfusionMatrix::from_predictions(&PREDICTED, &LABELS, 3).unwrap();
        assert_close(matrix.weighted_average().unwrap().f1, 0.9017647058823529);
        assert_close(matrix.micro_average().unwrap().f1, 0.9);
        assert_close(matrix.balanced_accuracy().unwrap(), 0.9002849002849004);
        assert_close(matrix.cohen_kappa().unwrap(), 0.8442064264849075);
        assert_close(matrix.matthews_correlation().unwrap(), 0.8466813024179647);
        let mut halves = ConfusionMatrix::from_predictions(&PREDICTED[..20], &LABELS[..20], 3).unwrap();
        halves.merge(&ConfusionMatrix::from_predictions(&PREDICTED[20..], &LABELS[20..], 3).unwrap()).unwrap();
        assert_eq!(halves, matrix);
        assert!(halves.merge(&ConfusionMatrix::new(2)).is_err());
    }

    #[test]
    fn one_class_alone() {
        let matrix = ConfusionMatrix::from_predictions(&[0, 0], &[0, 0], 2).unwrap();
        assert_eq!(matrix.cohen_kappa(), Err(MetricError::SingleClass));
        assert_eq!(matrix.matthews_correlation(), Ok(0.0));
        assert_eq!(matrix.balanced_accuracy(), Ok(1.0));
        let constant = ConfusionMatrix::from_predictions(&[1, 1], &[0, 1], 2).unwrap();
        assert_eq!((constant.cohen_kappa(), constant.matthews_correlation()), (Ok(0.0), Ok(0.0)));
        let nothing = ConfusionMatrix::new(3);
        let all = [nothing.cohen_kappa(), nothing.matthews_correlation(), nothing.balanced_accuracy()];
        assert_eq!(all, [const { Err(MetricError::Empty) }; 3]);
        assert_eq!(nothing.weighted_average(), Err(MetricError::Empty));
    }

    #[test]
    fn the_best_scores() {
        let scores = [0.1, 0.4, 0.4, 0.1, 0.0, 0.3, 0.3, 0.4];
        for (k, expected) in [(0, 0.0), (1, 0.0), (2, 0.5), (3, 1.0), (4, 1.0), (9, 1.0)] {
            // Class 2 ties with class 1, and comes after it; so does class 2 of the second row.
            assert_eq!(top_k_accuracy(&scores, 4, &[2, 2], k), Ok(expected), "k = {k}");
        }
        assert_eq!(top_k_accuracy(&scores, 3, &[0], 1), Err(MetricError::NoRows { scores: 8, classes: 3 }));
        assert_eq!(top_k_accuracy(&[], 0, &[], 1), Err(MetricError::NoRows { scores: 0, classes: 0 }));
        assert_eq!(top_k_accuracy(&[], 3, &[], 1), Err(MetricError::Empty));
        assert_eq!(top_k_accuracy(&scores, 4, &[4, 0], 1), Err(MetricError::ClassOutOfRange { class: 4, classes: 4 }));
        assert!(top_k_accuracy(&[f64::NAN, 1.0], 2, &[0], 1).is_err());
    }

    #[test]
    fn lengths_are_checked() {
        let mismatch = MetricError::LengthMismatch { predictions: 1, labels: 2 };
        assert_eq!(accuracy(&[0], &[0, 1]), Err(mismatch.clone()));
        assert_eq!(ConfusionMatrix::from_predictions(&[0], &[0, 1], 2), Err(mismatch));
        assert_eq!(accuracy(&[], &[]), Err(MetricError::Empty));
    }
}
