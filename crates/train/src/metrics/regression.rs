//! Metrics of predicted numbers.

use super::{MetricError, check_lengths, check_values};

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
    check(predicted, targets)?;
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

/// The root of the mean of the squared differences, in the targets' unit.
///
/// # Errors
///
/// As [`mean_squared_error`].
pub fn root_mean_squared_error(predicted: &[f64], targets: &[f64]) -> Result<f64, MetricError> {
    mean_squared_error(predicted, targets).map(f64::sqrt)
}

/// The mean of the differences without their signs.
///
/// # Errors
///
/// As [`mean_squared_error`].
///
/// ```
/// use gradus_train::metrics::mean_absolute_error;
///
/// assert_eq!(mean_absolute_error(&[1.0, 2.0], &[1.0, 4.0])?, 1.0);
/// # Ok::<(), gradus_train::metrics::MetricError>(())
/// ```
pub fn mean_absolute_error(predicted: &[f64], targets: &[f64]) -> Result<f64, MetricError> {
    check(predicted, targets)?;
    let differences = predicted.iter().zip(targets).map(|(predicted, target)| (predicted - target).abs());
    Ok(differences.sum::<f64>() / targets.len() as f64)
}

/// What the metrics of regression need to know of predictions that come in batches.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RegressionSums {
    count: u64,
    squares: f64,
    absolutes: f64,
    mean: f64,
    /// The sum of the targets' squared distances from their mean.
    spread: f64,
}

impl RegressionSums {
    /// No predictions yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one prediction. The targets' variance is updated by Welford's method, which loses no digits to a large mean.
    ///
    /// # Errors
    ///
    /// [`MetricError::InvalidValue`] for NaN.
    pub fn add(&mut self, predicted: f64, target: f64) -> Result<(), MetricError> {
        check(&[predicted], &[target])?;
        self.count += 1;
        self.squares += (predicted - target).powi(2);
        self.absolutes += (predicted - target).abs();
        let distance = target - self.mean;
        self.mean += distance / self.count as f64;
        self.spread += distance * (target - self.mean);
        Ok(())
    }

    /// As [`mean_squared_error`](mean_squared_error()).
    ///
    /// # Errors
    ///
    /// [`MetricError::Empty`] if nothing was counted.
    pub fn mean_squared_error(&self) -> Result<f64, MetricError> {
        if self.count == 0 { Err(MetricError::Empty) } else { Ok(self.squares / self.count as f64) }
    }

    /// As [`mean_absolute_error`](mean_absolute_error()).
    ///
    /// # Errors
    ///
    /// [`MetricError::Empty`] if nothing was counted.
    pub fn mean_absolute_error(&self) -> Result<f64, MetricError> {
        if self.count == 0 { Err(MetricError::Empty) } else { Ok(self.absolutes / self.count as f64) }
    }

    /// As [`r2_score`](r2_score()).
    ///
    /// # Errors
    ///
    /// [`MetricError::Empty`] if nothing was counted, [`MetricError::ConstantTargets`] if there is no variance to explain.
    pub fn r2_score(&self) -> Result<f64, MetricError> {
        match (self.count, self.spread == 0.0) {
            (0, _) => Err(MetricError::Empty),
            (_, true) => Err(MetricError::ConstantTargets),
            _ => Ok(1.0 - self.squares / self.spread),
        }
    }
}

fn check(predicted: &[f64], targets: &[f64]) -> Result<(), MetricError> {
    check_lengths(predicted.len(), targets.len())?;
    check_values(predicted, "a number", |x| !x.is_nan())?;
    check_values(targets, "a number", |x| !x.is_nan())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-14, "found {found}, expected {expected}");
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
    fn sums_give_what_whole_slices_give() {
        // A mean that is large against the variance.
        let targets: Vec<f64> = (0..100_u32).map(|i| 1e7 + f64::from(i * 37 % 101)).collect();
        let predicted: Vec<f64> = targets.iter().enumerate().map(|(i, y)| y + (i % 7) as f64 - 3.0).collect();
        let mut sums = RegressionSums::new();
        predicted.iter().zip(&targets).for_each(|(p, y)| sums.add(*p, *y).unwrap());
        let near = |a: f64, b: f64| assert!((a - b).abs() <= 1e-9 * b.abs(), "{a}, {b}");
        near(sums.mean_squared_error().unwrap(), mean_squared_error(&predicted, &targets).unwrap());
        near(sums.mean_absolute_error().unwrap(), mean_absolute_error(&predicted, &targets).unwrap());
        near(sums.r2_score().unwrap(), r2_score(&predicted, &targets).unwrap());
        assert_eq!(root_mean_squared_error(&[1.0, 5.0], &[1.0, 1.0]), Ok(8.0_f64.sqrt()));
        assert_eq!(RegressionSums::new().r2_score(), Err(MetricError::Empty));
        let mut constant = RegressionSums::new();
        constant.add(1.0, 0.1).and_then(|()| constant.add(2.0, 0.1)).unwrap();
        assert_eq!(constant.r2_score(), Err(MetricError::ConstantTargets));
        assert!(constant.add(f64::NAN, 0.0).is_err());
    }
}
