//! Metrics of probabilities.

use super::{MetricError, check_lengths, check_values};

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

/// The mean squared difference between the probabilities of `true` and what came true (Brier 1950): 0 is perfect.
///
/// # Errors
///
/// As [`log_loss`].
///
/// ```
/// use gradus_train::metrics::brier_score;
///
/// assert_eq!(brier_score(&[1.0, 0.5], &[true, false])?, 0.125);
/// # Ok::<(), gradus_train::metrics::MetricError>(())
/// ```
pub fn brier_score(probabilities: &[f64], labels: &[bool]) -> Result<f64, MetricError> {
    check_lengths(probabilities.len(), labels.len())?;
    check_values(probabilities, "a probability from 0 to 1", |p| (0.0..=1.0).contains(&p))?;
    let squares = probabilities.iter().zip(labels).map(|(p, &label)| (p - f64::from(u8::from(label))).powi(2));
    Ok(squares.sum::<f64>() / labels.len() as f64)
}

/// How far confidence and accuracy are apart, in bins of equal width (Guo et al. 2017). For two classes, confidence is the
/// probability of `true` and correct what came true; for several, the probability of the predicted class, and whether it is
/// right.
///
/// ```
/// use gradus_train::metrics::Calibration;
///
/// let mut calibration = Calibration::new(10);
/// for (confidence, correct) in [(0.95, true), (0.95, false), (0.55, true), (0.55, false)] {
///     calibration.add(confidence, correct)?;
/// }
/// assert!((calibration.expected_error()? - 0.25).abs() < 1e-12);
/// assert!((calibration.largest_error()? - 0.45).abs() < 1e-12);
/// # Ok::<(), gradus_train::metrics::MetricError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    bins: Vec<Bin>,
}

/// A bin of a [`Calibration`]: what a reliability diagram shows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bin {
    /// How many predictions fell into it.
    pub count: u64,
    /// How many of them were correct.
    pub correct: u64,
    /// The sum of their confidences.
    pub confidence: f64,
}

impl Bin {
    /// The share of correct predictions minus the mean confidence; 0 if it is empty.
    pub fn gap(&self) -> f64 {
        if self.count == 0 { 0.0 } else { (self.correct as f64 - self.confidence) / self.count as f64 }
    }
}

impl Calibration {
    /// No predictions yet, in so many bins (at least one). Bin i holds confidences above i / bins, and up to (i + 1) / bins; the
    /// first one also 0.
    pub fn new(bins: usize) -> Self {
        Self { bins: vec![Bin::default(); bins.max(1)] }
    }

    /// Counts one prediction.
    ///
    /// # Errors
    ///
    /// [`MetricError::InvalidValue`] if the confidence is NaN or outside 0 to 1.
    pub fn add(&mut self, confidence: f64, correct: bool) -> Result<(), MetricError> {
        check_values(&[confidence], "a probability from 0 to 1", |p| (0.0..=1.0).contains(&p))?;
        let place = (confidence * self.bins.len() as f64).ceil() as usize;
        let bin = &mut self.bins[place.max(1) - 1];
        bin.count += 1;
        bin.correct += u64::from(correct);
        bin.confidence += confidence;
        Ok(())
    }

    /// All bins, from 0 to 1.
    pub fn bins(&self) -> &[Bin] {
        &self.bins
    }

    /// The mean gap of the bins, without its sign, weighted by their counts: the expected calibration error.
    ///
    /// # Errors
    ///
    /// [`MetricError::Empty`] if nothing was counted.
    pub fn expected_error(&self) -> Result<f64, MetricError> {
        let total: u64 = self.bins.iter().map(|bin| bin.count).sum();
        let sum: f64 = self.bins.iter().map(|bin| bin.count as f64 * bin.gap().abs()).sum();
        if total == 0 { Err(MetricError::Empty) } else { Ok(sum / total as f64) }
    }

    /// The largest gap of a bin, without its sign: the maximum calibration error.
    ///
    /// # Errors
    ///
    /// [`MetricError::Empty`] if nothing was counted.
    pub fn largest_error(&self) -> Result<f64, MetricError> {
        let gaps = self.bins.iter().filter(|bin| bin.count > 0).map(|bin| bin.gap().abs());
        gaps.reduce(f64::max).ok_or(MetricError::Empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-14, "found {found}, expected {expected}");
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
    fn calibration_bins_are_closed_at_their_upper_end() {
        let mut calibration = Calibration::new(5);
        for confidence in [0.0, 0.2, 0.200001, 0.4, 1.0] {
            calibration.add(confidence, true).unwrap();
        }
        let counts: Vec<u64> = calibration.bins().iter().map(|bin| bin.count).collect();
        assert_eq!(counts, [2, 2, 0, 0, 1]);
        assert!(calibration.add(1.0 + 1e-12, true).is_err());
        assert!(calibration.add(f64::NAN, true).is_err());
        assert_eq!(Calibration::new(0).expected_error(), Err(MetricError::Empty));
        assert_eq!(Calibration::new(3).largest_error(), Err(MetricError::Empty));
    }

    #[test]
    fn brier_scores() {
        assert_close(brier_score(&[0.9, 0.1, 0.2, 0.65], &[true, false, false, true]).unwrap(), 0.0456250);
        assert!(brier_score(&[1.1], &[true]).is_err());
        assert_eq!(brier_score(&[], &[]), Err(MetricError::Empty));
    }
}
