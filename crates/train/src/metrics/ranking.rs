//! Metrics of the order that scores give.

use super::{MetricError, check_lengths, check_values};

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

/// The points of the ROC curve, from (0, 0) to (1, 1): the share of negative examples that score at least as high as each score
/// that occurs, and that of positive ones, from the highest score down.
///
/// # Errors
///
/// As [`roc_auc`].
///
/// ```
/// use gradus_train::metrics::roc_curve;
///
/// let curve = roc_curve(&[0.1, 0.4, 0.35, 0.8], &[false, false, true, true])?;
/// assert_eq!(curve, [(0.0, 0.0), (0.0, 0.5), (0.5, 0.5), (0.5, 1.0), (1.0, 1.0)]);
/// # Ok::<(), gradus_train::metrics::MetricError>(())
/// ```
pub fn roc_curve(scores: &[f64], labels: &[bool]) -> Result<Vec<(f64, f64)>, MetricError> {
    let steps = thresholds(scores, labels)?;
    let (positives, negatives) = steps.last().map_or((0, 0), |&(_, positives, negatives)| (positives, negatives));
    if negatives == 0 {
        return Err(MetricError::MissingClass { class: false });
    }
    let share = |(_, p, n): (f64, usize, usize)| (n as f64 / negatives as f64, p as f64 / positives as f64);
    Ok([(0.0, 0.0)].into_iter().chain(steps.into_iter().map(share)).collect())
}

/// Threshold, precision and recall where examples that score at least the threshold are called positive, for each score that
/// occurs, from the highest down.
///
/// # Errors
///
/// As [`average_precision`].
pub fn precision_recall_curve(scores: &[f64], labels: &[bool]) -> Result<Vec<(f64, f64, f64)>, MetricError> {
    let steps = thresholds(scores, labels)?;
    let positives = steps.last().map_or(0, |&(_, positives, _)| positives) as f64;
    Ok(steps.into_iter().map(|(at, p, n)| (at, p as f64 / (p + n) as f64, p as f64 / positives)).collect())
}

/// The area under the precision-recall curve as a sum of steps: Σ (recallₙ − recallₙ₋₁) · precisionₙ over the scores that occur,
/// from the highest down; equal scores are one step.
///
/// # Errors
///
/// [`MetricError::LengthMismatch`], [`MetricError::Empty`], [`MetricError::MissingClass`] if there are no positive examples,
/// [`MetricError::InvalidValue`] if a score is NaN.
///
/// ```
/// use gradus_train::metrics::average_precision;
///
/// let found = average_precision(&[0.1, 0.4, 0.35, 0.8], &[false, false, true, true])?;
/// assert!((found - 5.0 / 6.0).abs() < 1e-15);
/// # Ok::<(), gradus_train::metrics::MetricError>(())
/// ```
pub fn average_precision(scores: &[f64], labels: &[bool]) -> Result<f64, MetricError> {
    let mut recalled = 0.0;
    let steps = precision_recall_curve(scores, labels)?.into_iter();
    Ok(steps.map(|(_, precision, recall)| (recall - std::mem::replace(&mut recalled, recall)) * precision).sum())
}

/// For each score that occurs, from the highest down: how many positive and negative examples score at least as high.
fn thresholds(scores: &[f64], labels: &[bool]) -> Result<Vec<(f64, usize, usize)>, MetricError> {
    check_lengths(scores.len(), labels.len())?;
    check_values(scores, "a number", |score| !score.is_nan())?;
    if !labels.contains(&true) {
        return Err(MetricError::MissingClass { class: true });
    }
    let mut ranked: Vec<(f64, bool)> = scores.iter().copied().zip(labels.iter().copied()).collect();
    ranked.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let (mut positives, mut negatives) = (0, 0);
    let step = |tied: &[(f64, bool)]| {
        let yes = tied.iter().filter(|(_, label)| *label).count();
        (positives, negatives) = (positives + yes, negatives + tied.len() - yes);
        (tied[0].0, positives, negatives)
    };
    Ok(ranked.chunk_by(|a, b| a.0 == b.0).map(step).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-14, "found {found}, expected {expected}");
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
    fn average_precisions() {
        // By hand: thresholds 0.9, 0.7, 0.5 (two tied), 0.1 (two tied).
        let labels = [true, false, true, false, false, true];
        let expected = 1.0 / 3.0 + 1.0 / 3.0 * 2.0 / 4.0 + 1.0 / 3.0 * 3.0 / 6.0;
        assert_close(average_precision(&[0.9, 0.1, 0.5, 0.5, 0.7, 0.1], &labels).unwrap(), expected);
        // All tied: the share of positive examples, whatever their order.
        assert_eq!(average_precision(&[1.0; 6], &labels), Ok(0.5));
        assert_eq!(average_precision(&[1.0, 2.0], &[true, true]), Ok(1.0));
        assert_eq!(average_precision(&[1.0], &[false]), Err(MetricError::MissingClass { class: true }));
        assert_eq!(average_precision(&[], &[]), Err(MetricError::Empty));
        assert!(average_precision(&[f64::NAN], &[true]).is_err());
    }

    #[test]
    fn the_area_is_that_under_the_curve() {
        let scores: Vec<f64> = (0..300_u32).map(|i| f64::from(i * 7919 % 37)).collect();
        let labels: Vec<bool> = (0..300_u32).map(|i| i * 104_729 % 11 < 4).collect();
        let curve = roc_curve(&scores, &labels).unwrap();
        let area: f64 = curve.windows(2).map(|w| (w[1].0 - w[0].0) * (w[0].1 + w[1].1) / 2.0).sum();
        assert_close(area, roc_auc(&scores, &labels).unwrap());
        assert_eq!(roc_curve(&[1.0], &[true]), Err(MetricError::MissingClass { class: false }));
    }
}
