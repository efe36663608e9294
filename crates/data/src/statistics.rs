//! Statistics of a column.

/// Mean and population standard deviation; the latter is 1 if all values are equal, and both are those of nothing (0 and 1) if
/// there is none.
pub(crate) fn mean_and_deviation<I: ExactSizeIterator<Item = f64>>(values: impl Fn() -> I) -> (f64, f64) {
    let count = values().len() as f64;
    let Some(first) = values().next() else {
        return (0.0, 1.0);
    };
    // Summing differences from the first value keeps digits, and makes a constant column's deviation exactly 0.
    let mean = first + values().map(|x| x - first).sum::<f64>() / count;
    let variance = values().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
    (mean, if variance == 0.0 { 1.0 } else { variance.sqrt() })
}
