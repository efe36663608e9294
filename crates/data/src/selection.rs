//! Exact quantiles of numbers that pass by several times, in little memory.

use crate::DataError;

/// How finely a pass looks: each takes this many bits off the numbers between which a quantile lies.
const BITS: u32 = 14;

/// Finds quantiles between neighbours in proportion, as NumPy's `linear`, by counting the numbers in ever smaller ranges. All
/// numbers are pushed in each pass, until [`is_done`](Selection::is_done): a few passes, since every one but the last narrows a
/// range to a 16,384th of it, or to the numbers in it.
pub(crate) struct Selection {
    shares: Vec<f64>,
    /// How many numbers there are.
    count: u64,
    ranges: Vec<Range>,
}

/// Keys between which numbers of some ranks lie.
struct Range {
    /// Places in the sorted numbers, from 0.
    ranks: Vec<u64>,
    /// How many numbers come before the range.
    before: u64,
    /// How many are in it.
    inside: u64,
    low: u64,
    high: u64,
    bins: Vec<Bin>,
}

#[derive(Clone, Copy)]
struct Bin {
    count: u64,
    low: u64,
    high: u64,
}

const EMPTY: Bin = Bin { count: 0, low: u64::MAX, high: 0 };

/// Numbers that compare as floats do, for all that are not NaN.
fn key(number: f64) -> u64 {
    // −0 is 0.
    let bits = (number + 0.0).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

fn number(key: u64) -> f64 {
    f64::from_bits(if key >> 63 == 1 { key & !(1 << 63) } else { !key })
}

impl Range {
    fn shift(&self) -> u32 {
        (u64::BITS - BITS).saturating_sub((self.high - self.low).leading_zeros())
    }
}

impl Selection {
    /// Quantiles of `count` numbers (one at least), of which `least` and `most` are the ends.
    pub(crate) fn new(shares: &[f64], count: u64, least: f64, most: f64) -> Selection {
        let place = |share: &f64| share * (count - 1) as f64;
        let mut ranks: Vec<u64> =
            shares.iter().flat_map(|s| [place(s).floor() as u64, place(s).ceil() as u64]).collect();
        ranks.sort();
        ranks.dedup();
        let range = Range { ranks, before: 0, inside: count, low: key(least), high: key(most), bins: Vec::new() };
        Selection { shares: shares.to_vec(), count, ranges: vec![range] }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.ranges.iter().all(|range| range.low == range.high)
    }

    /// The next number of a pass, `times` over.
    pub(crate) fn push(&mut self, number: f64, times: u64) {
        let key = key(number);
        for range in &mut self.ranges {
            if range.low == range.high || !(range.low..=range.high).contains(&key) || times == 0 {
                continue;
            }
            range.bins.resize(1 << BITS, EMPTY);
            let bin = ((key - range.low) >> range.shift()) as usize;
            let bin = &mut range.bins[bin];
            *bin = Bin { count: bin.count + times, low: bin.low.min(key), high: bin.high.max(key) };
        }
    }

    /// Ends a pass.
    ///
    /// # Errors
    /// If there were other numbers than in the one before.
    pub(crate) fn end_pass(&mut self) -> Result<(), DataError> {
        let mut ranges = Vec::new();
        for range in std::mem::take(&mut self.ranges) {
            if range.low == range.high {
                ranges.push(range);
                continue;
            }
            let found: u64 = range.bins.iter().map(|bin| bin.count).sum();
            if found != range.inside {
                let found = format!("with {found} numbers where a pass before found {}", range.inside);
                return Err(DataError::Argument {
                    argument: "a pass over rows",
                    found,
                    expected: "the same rows again",
                });
            }
            let mut before = range.before;
            for bin in range.bins {
                let is_here = |&&rank: &&u64| (before..before + bin.count).contains(&rank);
                let ranks: Vec<u64> = range.ranks.iter().filter(is_here).copied().collect();
                if !ranks.is_empty() {
                    let Bin { count: inside, low, high } = bin;
                    ranges.push(Range { ranks, before, inside, low, high, bins: Vec::new() });
                }
                before += bin.count;
            }
        }
        self.ranges = ranges;
        Ok(())
    }

    /// The quantiles, once it is done.
    pub(crate) fn quantiles(&self) -> Vec<f64> {
        let at = |rank: u64| {
            let range = self.ranges.iter().find(|range| range.ranks.contains(&rank));
            range.map_or(f64::NAN, |range| number(range.low))
        };
        let quantile = |share: &f64| {
            let place = share * (self.count - 1) as f64;
            let (low, high) = (at(place.floor() as u64), at(place.ceil() as u64));
            low + (high - low) * place.fract()
        };
        self.shares.iter().map(quantile).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gradus_tensor::Key;
    use proptest::prelude::*;

    /// By sorting.
    fn sorted_quantile(values: &mut [f64], share: f64) -> f64 {
        values.sort_by(f64::total_cmp);
        let place = share * (values.len() - 1) as f64;
        let (low, high) = (values[place.floor() as usize], values[place.ceil() as usize]);
        low + (high - low) * place.fract()
    }

    fn select(values: &[f64], shares: &[f64]) -> (Vec<f64>, usize) {
        let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(l, m), &v| (l.min(v), m.max(v)));
        let mut selection = Selection::new(shares, values.len() as u64, least, most);
        let mut passes = 0;
        while !selection.is_done() {
            values.iter().for_each(|&value| selection.push(value, 1));
            selection.end_pass().unwrap();
            passes += 1;
        }
        (selection.quantiles(), passes)
    }

    /// `numpy.quantile` of these numbers.
    #[test]
    fn known_quantiles() {
        let (found, _) = select(&[7.0, 1.0, 2.0, 2.0, 7.0, 10.0], &[0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(found, [1.0, 2.0, 4.5, 7.0, 10.0]);
        assert_eq!(select(&[3.0, 1.0], &[0.25]).0, [1.5]);
        assert_eq!(select(&[-4.0], &[0.5]), (vec![-4.0], 0));
    }

    #[test]
    fn many_numbers_take_few_passes() {
        let mut values: Vec<f64> = (0..200_000).map(|i| (Key::new(i).value() as f64 / 1e18 - 9.0).powi(3)).collect();
        let shares = [0.25, 0.5, 0.75];
        let (found, passes) = select(&values, &shares);
        assert_eq!(found, shares.map(|share| sorted_quantile(&mut values, share)));
        assert!(passes <= 3, "{passes}");
        // All ties: the range shrinks to what there is.
        let ties: Vec<f64> = (0..1000).map(|i| f64::from(i % 3)).collect();
        assert_eq!(select(&ties, &[0.5]), (vec![1.0], 1));
    }

    #[test]
    fn other_numbers_in_a_later_pass_are_an_error() {
        let mut selection = Selection::new(&[0.5], 3, 1.0, 2.0);
        selection.push(1.0, 2);
        let error = selection.end_pass().unwrap_err().to_string();
        assert!(error.contains("with 2 numbers where a pass before found 3"), "{error}");
    }

    proptest! {
        #[test]
        fn quantiles_are_those_of_sorted_numbers(
            values in proptest::collection::vec(prop_oneof![-5.0..5.0, (-3..4i32).prop_map(f64::from), -1e300..1e300], 1..60),
            share in 0.0..=1.0,
        ) {
            let expected = sorted_quantile(&mut values.clone(), share);
            prop_assert_eq!(select(&values, &[share]).0, vec![expected]);
        }
    }
}
