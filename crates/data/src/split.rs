//! Splits: which rows are for training, and which are kept apart from it.

use crate::DataError;
use gradus_tensor::Key;
use std::collections::BTreeMap;

/// The rows of each part of a data set.
pub type Parts = Vec<Vec<usize>>;

/// One round of a cross-validation: each row is in one of the two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fold {
    /// The rows to train on, in ascending order.
    pub train: Vec<usize>,
    /// The rows to test on, in ascending order.
    pub test: Vec<usize>,
}

/// Splits `rows` rows at random into parts of these fractions, which sum to 1. Each row is in one part; sizes are as near to
/// the fractions as whole rows allow. One key gives one split.
///
/// ```
/// use gradus_data::split_random;
/// use gradus_tensor::Key;
/// let parts = split_random(10, &[0.7, 0.2, 0.1], Key::new(0))?;
/// assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [7, 2, 1]);
/// # Ok::<(), gradus_data::DataError>(())
/// ```
///
/// # Errors
/// If fractions are negative, not finite, or do not sum to 1.
pub fn split_random(rows: usize, fractions: &[f64], key: Key) -> Result<Parts, DataError> {
    check(fractions)?;
    let mut given = vec![0; fractions.len()];
    let mut order = key.shuffled(rows).into_iter();
    Ok(shares(rows, fractions, 0, &mut given).into_iter().map(|share| order.by_ref().take(share).collect()).collect())
}

/// Splits rows at random so that each part has each class in the proportion of the whole, as near as whole rows allow.
///
/// ```
/// use gradus_data::split_stratified;
/// use gradus_tensor::Key;
/// let labels = ["cat", "dog", "dog", "dog", "cat", "dog", "dog", "dog"];
/// let parts = split_stratified(&labels, &[0.5, 0.5], Key::new(0))?;
/// for part in parts {
///     assert_eq!(part.iter().filter(|&&row| labels[row] == "cat").count(), 1);
/// }
/// # Ok::<(), gradus_data::DataError>(())
/// ```
///
/// # Errors
/// As [`split_random`].
pub fn split_stratified<L: Ord>(labels: &[L], fractions: &[f64], key: Key) -> Result<Parts, DataError> {
    check(fractions)?;
    let mut parts = vec![Vec::new(); fractions.len()];
    let (mut given, mut seen) = (vec![0; fractions.len()], 0);
    for class in shuffled_classes(labels, key) {
        let mut rows = class.iter().copied();
        for (part, share) in parts.iter_mut().zip(shares(class.len(), fractions, seen, &mut given)) {
            part.extend(rows.by_ref().take(share));
        }
        seen += class.len();
    }
    // Classes lie one after the other.
    Ok(parts.into_iter().enumerate().map(|(i, part)| shuffled(part, key.fold_in(u64::MAX - i as u64))).collect())
}

/// Splits rows so that all rows of a group (of a patient, a document, a camera) are in one part, whose sizes come near to the
/// fractions: large groups are placed first, each where most rows are missing.
///
/// # Errors
/// As [`split_random`].
pub fn split_grouped<G: Ord>(groups: &[G], fractions: &[f64], key: Key) -> Result<Parts, DataError> {
    check(fractions)?;
    let mut parts: Parts = vec![Vec::new(); fractions.len()];
    for group in by_size(groups, key) {
        let missing = |part: usize| fractions[part] * groups.len() as f64 - parts[part].len() as f64;
        // Of equals the first: a part of fraction 0 gets nothing, since another one misses more, or is equally full.
        let most = (0..parts.len())
            .filter(|&part| fractions[part] > 0.0)
            .max_by(|&a, &b| missing(a).total_cmp(&missing(b)).then(b.cmp(&a)));
        if let Some(part) = most {
            parts[part].extend(group);
        }
    }
    Ok(parts.into_iter().enumerate().map(|(i, part)| shuffled(part, key.fold_in(u64::MAX - i as u64))).collect())
}

/// Splits rows by time: those of the first part come before all of the second, and so on, so that nothing is predicted from its
/// future. Rows of equal time stay together, in the part that the first of them belongs to; within a part, rows are in the order
/// of time.
///
/// ```
/// use gradus_data::split_by_time;
/// let days = ["2026-03-01", "2026-01-05", "2026-02-01", "2026-01-05"];
/// assert_eq!(split_by_time(&days, &[0.5, 0.5])?, [vec![1, 3], vec![2, 0]]);
/// # Ok::<(), gradus_data::DataError>(())
/// ```
///
/// # Errors
/// As [`split_random`], and if two times have no order (NaN).
pub fn split_by_time<T: PartialOrd>(times: &[T], fractions: &[f64]) -> Result<Parts, DataError> {
    check(fractions)?;
    if let Some(row) = times.iter().position(|time| time.partial_cmp(time).is_none()) {
        let expected = "a time that comes before or after every other";
        return Err(DataError::Argument { argument: "times", found: format!("without order in row {row}"), expected });
    }
    let mut order: Vec<usize> = (0..times.len()).collect();
    order.sort_by(|&a, &b| times[a].partial_cmp(&times[b]).unwrap_or(std::cmp::Ordering::Equal));
    let mut ends = shares(times.len(), fractions, 0, &mut vec![0; fractions.len()]);
    for part in 1..ends.len() {
        ends[part] += ends[part - 1];
    }
    let mut start = 0;
    let mut parts = Vec::with_capacity(ends.len());
    for mut end in ends {
        end = end.max(start);
        while end > start && end < order.len() && times[order[end]] == times[order[end - 1]] {
            end += 1;
        }
        parts.push(order[start..end].to_vec());
        start = end;
    }
    Ok(parts)
}

/// `folds` rounds of a cross-validation: each row is tested once. Test parts differ by one row at most.
///
/// ```
/// use gradus_data::k_fold;
/// use gradus_tensor::Key;
/// for fold in k_fold(10, 5, Key::new(0))? {
///     assert_eq!((fold.train.len(), fold.test.len()), (8, 2));
/// }
/// # Ok::<(), gradus_data::DataError>(())
/// ```
///
/// # Errors
/// If there are fewer than two folds, or fewer rows than folds.
pub fn k_fold(rows: usize, folds: usize, key: Key) -> Result<Vec<Fold>, DataError> {
    check_folds(folds, rows, "rows")?;
    Ok(dealt(key.shuffled(rows), folds))
}

/// A cross-validation whose folds have each class in the proportion of the whole: numbers of a class, and sizes, differ by one
/// at most.
///
/// # Errors
/// As [`k_fold`]. A class may have fewer rows than there are folds; then some do not test it.
pub fn k_fold_stratified<L: Ord>(labels: &[L], folds: usize, key: Key) -> Result<Vec<Fold>, DataError> {
    check_folds(folds, labels.len(), "rows")?;
    // Dealt out in turn, neighbours of one class go to different folds.
    Ok(dealt(shuffled_classes(labels, key).concat(), folds))
}

/// A cross-validation in which no group is both trained on and tested. Large groups are placed first, each in the fold with the
/// fewest rows.
///
/// # Errors
/// If there are fewer than two folds, or fewer groups than folds.
pub fn k_fold_grouped<G: Ord>(groups: &[G], folds: usize, key: Key) -> Result<Vec<Fold>, DataError> {
    let groups_by_size = by_size(groups, key);
    check_folds(folds, groups_by_size.len(), "groups")?;
    let mut fold_of = vec![0; groups.len()];
    let mut sizes = vec![0; folds];
    for group in groups_by_size {
        let smallest = (0..folds).min_by_key(|&fold| sizes[fold]).unwrap_or(0);
        sizes[smallest] += group.len();
        group.iter().for_each(|&row| fold_of[row] = smallest);
    }
    Ok(of_folds(&fold_of, folds))
}

/// Rows dealt out to folds in turn.
fn dealt(order: Vec<usize>, folds: usize) -> Vec<Fold> {
    let mut fold_of = vec![0; order.len()];
    order.into_iter().enumerate().for_each(|(place, row)| fold_of[row] = place % folds);
    of_folds(&fold_of, folds)
}

fn of_folds(fold_of: &[usize], folds: usize) -> Vec<Fold> {
    let fold = |fold| {
        let (test, train) = (0..fold_of.len()).partition(|&row| fold_of[row] == fold);
        Fold { train, test }
    };
    (0..folds).map(fold).collect()
}

/// The rows of each class, shuffled; classes in their order.
pub(crate) fn shuffled_classes<L: Ord>(labels: &[L], key: Key) -> Vec<Vec<usize>> {
    let mut classes: BTreeMap<&L, Vec<usize>> = BTreeMap::new();
    labels.iter().enumerate().for_each(|(row, label)| classes.entry(label).or_default().push(row));
    classes.into_values().enumerate().map(|(i, class)| shuffled(class, key.fold_in(i as u64))).collect()
}

/// The rows of each group, the largest first, equally large ones in random order.
fn by_size<G: Ord>(groups: &[G], key: Key) -> Vec<Vec<usize>> {
    let mut classes: BTreeMap<&G, Vec<usize>> = BTreeMap::new();
    groups.iter().enumerate().for_each(|(row, group)| classes.entry(group).or_default().push(row));
    let classes: Vec<Vec<usize>> = classes.into_values().collect();
    let mut ordered: Vec<Vec<usize>> = key.shuffled(classes.len()).into_iter().map(|i| classes[i].clone()).collect();
    ordered.sort_by_key(|group| std::cmp::Reverse(group.len()));
    ordered
}

pub(crate) fn shuffled(rows: Vec<usize>, key: Key) -> Vec<usize> {
    key.shuffled(rows.len()).into_iter().map(|i| rows[i]).collect()
}

/// How many of `count` more rows each part gets, after `seen` rows of which it was `given` some: the whole rows of its
/// fraction, and one more where most is missing overall.
fn shares(count: usize, fractions: &[f64], seen: usize, given: &mut [usize]) -> Vec<usize> {
    let mut shares: Vec<usize> = fractions.iter().map(|fraction| (fraction * count as f64 + 1e-9) as usize).collect();
    for (given, share) in given.iter_mut().zip(&shares) {
        *given += share;
    }
    let mut left = count.saturating_sub(shares.iter().sum());
    let mut has_more = vec![false; shares.len()];
    while left > 0 {
        let missing = |part: usize| fractions[part] * (seen + count) as f64 - given[part] as f64;
        // Each part at most once, so that a class is spread as evenly as it can be.
        let candidates = (0..shares.len()).filter(|&part| fractions[part] > 0.0 && !has_more[part]);
        let Some(part) = candidates.max_by(|&a, &b| missing(a).total_cmp(&missing(b)).then(b.cmp(&a))) else { break };
        (shares[part], given[part], has_more[part]) = (shares[part] + 1, given[part] + 1, true);
        left -= 1;
    }
    shares
}

fn check(fractions: &[f64]) -> Result<(), DataError> {
    let sum: f64 = fractions.iter().sum();
    let fit = fractions.iter().all(|fraction| *fraction >= 0.0) && (sum - 1.0).abs() < 1e-6;
    if fit {
        return Ok(());
    }
    let found = format!("{fractions:?}");
    Err(DataError::Argument { argument: "fractions", found, expected: "numbers from 0 on that sum to 1" })
}

fn check_folds(folds: usize, most: usize, of: &str) -> Result<(), DataError> {
    if folds >= 2 && folds <= most {
        return Ok(());
    }
    let found = format!("{folds} for {most} {of}");
    Err(DataError::Argument { argument: "folds", found, expected: "from 2 to that many" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every row is in one part.
    fn is_partition(parts: &[Vec<usize>], rows: usize) -> bool {
        let mut all = parts.concat();
        all.sort_unstable();
        all == (0..rows).collect::<Vec<_>>()
    }

    fn fractions() -> impl Strategy<Value = Vec<f64>> {
        proptest::collection::vec(0u32..5, 1..5).prop_filter("a sum of 0", |w| w.iter().sum::<u32>() > 0).prop_map(
            |weights| {
                let sum: u32 = weights.iter().sum();
                weights.iter().map(|&weight| weight as f64 / sum as f64).collect()
            },
        )
    }

    proptest! {
        #[test]
        fn nothing_is_in_two_parts(
            labels in proptest::collection::vec(0u8..6, 0..80),
            fractions in fractions(),
            seed in any::<u64>(),
        ) {
            let (rows, key) = (labels.len(), Key::new(seed));
            let quota = |part: usize, rows: usize| fractions[part] * rows as f64;

            let parts = split_random(rows, &fractions, key).unwrap();
            prop_assert!(is_partition(&parts, rows));
            prop_assert!((0..parts.len()).all(|p| (parts[p].len() as f64 - quota(p, rows)).abs() < 1.0));
            prop_assert_eq!(&parts, &split_random(rows, &fractions, key).unwrap());

            let parts = split_stratified(&labels, &fractions, key).unwrap();
            prop_assert!(is_partition(&parts, rows));
            for class in 0..6 {
                let all = labels.iter().filter(|&&l| l == class).count();
                for (p, part) in parts.iter().enumerate() {
                    let here = part.iter().filter(|&&row| labels[row] == class).count();
                    prop_assert!((here as f64 - quota(p, all)).abs() < 1.0 + 1e-6, "{here} of {all}");
                }
            }
            // What is rounded in each class does not add up.
            prop_assert!((0..parts.len()).all(|p| (parts[p].len() as f64 - quota(p, rows)).abs() < 2.0));

            let parts = split_grouped(&labels, &fractions, key).unwrap();
            prop_assert!(is_partition(&parts, rows));
            let part_of = |row: usize| parts.iter().position(|part| part.contains(&row));
            for a in 0..rows {
                for b in 0..a {
                    prop_assert!(labels[a] != labels[b] || part_of(a) == part_of(b));
                }
            }
            prop_assert!((0..parts.len()).all(|p| fractions[p] > 0.0 || parts[p].is_empty()));

            let parts = split_by_time(&labels, &fractions).unwrap();
            prop_assert!(is_partition(&parts, rows));
            for later in 1..parts.len() {
                let before = parts[..later].concat().into_iter().map(|row| labels[row]).max();
                prop_assert!(parts[later].iter().all(|&row| Some(labels[row]) > before));
            }
        }

        #[test]
        fn folds_test_every_row_once(
            labels in proptest::collection::vec(0u8..9, 10..80),
            folds in 2usize..6,
            seed in any::<u64>(),
        ) {
            let (rows, key) = (labels.len(), Key::new(seed));
            let spread = |numbers: Vec<usize>| numbers.iter().max().unwrap() - numbers.iter().min().unwrap();
            let mut all = vec![k_fold(rows, folds, key).unwrap(), k_fold_stratified(&labels, folds, key).unwrap()];
            for rounds in &all {
                prop_assert!(spread(rounds.iter().map(|fold| fold.test.len()).collect()) <= 1);
            }
            for class in 0..9 {
                let of_class = |fold: &Fold| fold.test.iter().filter(|&&row| labels[row] == class).count();
                prop_assert!(spread(all[1].iter().map(of_class).collect()) <= 1);
            }
            let groups = labels.iter().collect::<std::collections::BTreeSet<_>>().len();
            match k_fold_grouped(&labels, folds, key) {
                Ok(rounds) => {
                    for fold in &rounds {
                        let tested = |row: &usize| fold.test.iter().any(|test| labels[*test] == labels[*row]);
                        prop_assert!(!fold.train.iter().any(tested) && !fold.test.is_empty());
                    }
                    all.push(rounds);
                }
                Err(_) => prop_assert!(groups < folds),
            }
            for rounds in all {
                prop_assert_eq!(rounds.len(), folds);
                let tests: Vec<Vec<usize>> = rounds.iter().map(|fold| fold.test.clone()).collect();
                prop_assert!(is_partition(&tests, rows));
                for fold in rounds {
                    prop_assert!(is_partition(&[fold.train, fold.test], rows));
                }
            }
        }
    }

    #[test]
    fn keys_make_the_difference() {
        let labels: Vec<u8> = (0..60).map(|i| i % 3).collect();
        let halves = [0.5, 0.5];
        let of = |seed| {
            let key = Key::new(seed);
            (
                split_random(60, &halves, key).unwrap(),
                split_stratified(&labels, &halves, key).unwrap(),
                k_fold(60, 3, key).unwrap(),
                k_fold_stratified(&labels, 3, key).unwrap(),
            )
        };
        let (a, b) = (of(1), of(2));
        assert!(a.0 != b.0 && a.1 != b.1 && a.2 != b.2 && a.3 != b.3);
        assert_eq!(a, of(1));
        let groups: Vec<usize> = (0..30).map(|i| i / 2).collect();
        assert_ne!(k_fold_grouped(&groups, 3, Key::new(1)).unwrap(), k_fold_grouped(&groups, 3, Key::new(2)).unwrap());
    }

    #[test]
    fn senseless_arguments() {
        for fractions in [&[][..], &[0.5], &[1.5, -0.5], &[f64::NAN], &[f64::INFINITY]] {
            let error = split_random(3, fractions, Key::new(0)).unwrap_err().to_string();
            assert!(error.contains("expected numbers from 0 on that sum to 1"), "{error}");
        }
        assert!(split_by_time(&[1.0, f64::NAN], &[1.0]).unwrap_err().to_string().contains("row 1"));
        for folds in [0, 1, 4] {
            assert!(k_fold(3, folds, Key::new(0)).is_err());
        }
        assert!(k_fold_grouped(&[1, 1, 1], 2, Key::new(0)).unwrap_err().to_string().contains("2 for 1 groups"));
    }
}
