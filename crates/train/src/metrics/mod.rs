//! How good predictions are: functions of plain slices, and [`Metric`]s that gather batches of tensors.
//!
//! The numbers agree with scikit-learn's functions of the same names. What has no value (nothing to average over, a comparison
//! of classes where there is one alone) is an error that says so, never NaN; shares of nothing that scikit-learn calls 0, with a
//! warning, are 0.

mod classes;
mod probabilities;
mod ranking;
mod regression;
mod running;

pub use classes::{ClassScores, ConfusionMatrix, accuracy, top_k_accuracy};
pub use probabilities::{Bin, Calibration, brier_score, log_loss};
pub use ranking::{average_precision, precision_recall_curve, roc_auc, roc_curve};
pub use regression::{RegressionSums, mean_absolute_error, mean_squared_error, r2_score, root_mean_squared_error};
pub use running::{
    Accuracy, AreaUnderRoc, Average, ClassMetric, Classes, Metric, Regression, RegressionMetric, RunningError,
    RunningMean,
};

pub(crate) use running::{check_classes, classes, floats};
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

    /// Labels and predictions are all of one class, so that agreement by chance is complete.
    #[error("found one class alone, expected two at least")]
    SingleClass,

    /// The number of scores is no multiple of the number of classes, or there are no classes.
    #[error("found {scores} scores, expected rows of {classes}")]
    NoRows {
        /// The number of scores.
        scores: usize,
        /// The number of classes.
        classes: usize,
    },

    /// All targets are alike, so that there is no variance to explain.
    #[error("found only equal targets, expected some variance")]
    ConstantTargets,
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
