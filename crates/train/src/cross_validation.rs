//! Cross-validation: a prediction for every row, from a model that has not seen it.

use gradus_data::Fold;
use std::error::Error;

/// What a fold may fail with.
pub type FoldError = Box<dyn Error + Send + Sync>;

/// Why there is no cross-validation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CrossValidationError {
    /// A fold failed.
    #[error("fold {fold}: {source}")]
    Fold {
        /// Its number, from 0.
        fold: usize,
        /// What it said.
        source: FoldError,
    },
    /// A fold did not give one prediction for each of its test rows.
    #[error("fold {fold} gave {found} predictions for {expected} test rows")]
    Predictions {
        /// Its number, from 0.
        fold: usize,
        /// How many test rows it has.
        expected: usize,
        /// How many predictions there were.
        found: usize,
    },
    /// A row is in the test part of no fold, or of several, or there is no such row.
    #[error("row {row} of {rows} is tested {times} times, expected once")]
    Row {
        /// The row.
        row: usize,
        /// How many rows there are.
        rows: usize,
        /// In how many folds it is tested.
        times: usize,
    },
}

/// Calls `predict` with each fold, which trains on its training rows alone and gives a prediction for each of its test rows, in
/// their order; gives the predictions of all rows, in order. What is measured on them is measured out of sample, and they are
/// what label-noise scores are computed from.
///
/// ```
/// use gradus_data::k_fold;
/// use gradus_tensor::Key;
/// use gradus_train::cross_validate;
///
/// // The mean of the rows that were seen, as a model.
/// let y = [1.0, 2.0, 3.0, 4.0];
/// let folds = k_fold(4, 4, Key::new(0))?;
/// let predictions = cross_validate(4, &folds, |fold, _| {
///     let mean = fold.train.iter().map(|&row| y[row]).sum::<f64>() / fold.train.len() as f64;
///     Ok(vec![mean; fold.test.len()])
/// })?;
/// assert_eq!(predictions[0], 3.0);
/// assert_eq!(predictions[3], 2.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If the test parts of the folds are not each of the rows once, which is looked at first; or if a fold fails, or gives too few or
/// too many predictions.
pub fn cross_validate<T>(
    rows: usize,
    folds: &[Fold],
    mut predict: impl FnMut(&Fold, usize) -> Result<Vec<T>, FoldError>,
) -> Result<Vec<T>, CrossValidationError> {
    let mut times = vec![0; rows];
    for &row in folds.iter().flat_map(|fold| &fold.test) {
        match times.get_mut(row) {
            Some(times) => *times += 1,
            None => return Err(CrossValidationError::Row { row, rows, times: 1 }),
        }
    }
    if let Some(row) = times.iter().position(|&times| times != 1) {
        return Err(CrossValidationError::Row { row, rows, times: times[row] });
    }
    let mut predictions: Vec<(usize, T)> = Vec::with_capacity(rows);
    for (number, fold) in folds.iter().enumerate() {
        let of_fold = predict(fold, number).map_err(|source| CrossValidationError::Fold { fold: number, source })?;
        if of_fold.len() != fold.test.len() {
            let (expected, found) = (fold.test.len(), of_fold.len());
            return Err(CrossValidationError::Predictions { fold: number, expected, found });
        }
        predictions.extend(fold.test.iter().copied().zip(of_fold));
    }
    predictions.sort_by_key(|(row, _)| *row);
    Ok(predictions.into_iter().map(|(_, prediction)| prediction).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gradus_data::k_fold;
    use gradus_tensor::Key;

    #[test]
    fn every_row_is_predicted_by_who_has_not_seen_it() {
        let folds = k_fold(23, 5, Key::new(3)).unwrap();
        let predicted = cross_validate(23, &folds, |fold, number| {
            assert!(fold.test.iter().all(|row| !fold.train.contains(row)));
            Ok(fold.test.iter().map(|&row| (row, number)).collect())
        });
        let predicted = predicted.unwrap();
        assert!(predicted.iter().enumerate().all(|(row, (of, _))| row == *of));
        assert_eq!(predicted.iter().map(|(_, fold)| fold).collect::<std::collections::BTreeSet<_>>().len(), 5);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let folds = k_fold(6, 3, Key::new(3)).unwrap();
        let all = |fold: &Fold, _: usize| Ok(fold.test.clone());
        assert!(matches!(cross_validate(7, &folds, all), Err(CrossValidationError::Row { row: 6, times: 0, .. })));
        assert!(matches!(cross_validate(5, &folds, all), Err(CrossValidationError::Row { row: 5, .. })));
        assert!(matches!(cross_validate(6, &folds[..2], all), Err(CrossValidationError::Row { times: 0, .. })));
        let twice = [&folds[..], &folds[..1]].concat();
        assert!(matches!(cross_validate(6, &twice, all), Err(CrossValidationError::Row { times: 2, .. })));
        let few = |_: &Fold, _: usize| Ok(vec![1]);
        let error = cross_validate(6, &folds, few).unwrap_err();
        assert!(matches!(error, CrossValidationError::Predictions { fold: 0, expected: 2, found: 1 }));
        let fails = |_: &Fold, number: usize| if number == 2 { Err("no memory".into()) } else { Ok(vec![0, 0]) };
        assert_eq!(cross_validate(6, &folds, fails).unwrap_err().to_string(), "fold 2: no memory");
    }
}
