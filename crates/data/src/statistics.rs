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

/// The quantile of a share in 0 ..= 1, between neighbours in proportion, as NumPy's `linear`; 0 of no values. Sorts them.
pub(crate) fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return 0.0 };
    let place = share * last as f64;
    let (low, high) = (values[place.floor() as usize], values[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

/// The value that comes most often, of several the least; 0 of no values. Sorts them.
pub(crate) fn most_frequent(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let runs = values.chunk_by(|a, b| a == b);
    // The last of equals is what `max_by_key` gives.
    runs.rev().max_by_key(|run| run.len()).map_or(0.0, |run| run[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `numpy.quantile` and `statistics.mode` of these numbers.
    #[test]
    fn quantiles_and_modes() {
        let mut values = [7.0, 1.0, 2.0, 2.0, 7.0, 10.0];
        assert_eq!([0.0, 0.25, 0.5, 0.75, 1.0].map(|share| quantile(&mut values, share)), [1.0, 2.0, 4.5, 7.0, 10.0]);
        assert_eq!(quantile(&mut [3.0, 1.0], 0.25), 1.5);
        assert_eq!((quantile(&mut [], 0.5), most_frequent(&mut [])), (0.0, 0.0));
        assert_eq!(most_frequent(&mut values), 2.0);
        assert_eq!(most_frequent(&mut [-0.0, 5.0, 0.0]), 0.0);
    }
}
