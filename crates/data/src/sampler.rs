//! In which order items come.

use crate::DataError;
use crate::split::{shuffled, shuffled_classes};
use gradus_tensor::Key;
use std::sync::Arc;

/// The order of items in each epoch, which depends on the epoch's number and on nothing else: so an epoch can be gone on with in
/// the middle, on another machine, without a record of what came before.
pub trait Sampler: Send + Sync {
    /// How many items an epoch has.
    fn len(&self) -> usize;

    /// The indices of an epoch's items, [`len`](Sampler::len) of them, in order.
    fn order(&self, epoch: u64) -> Vec<usize>;

    /// Whether an epoch has no items.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

macro_rules! sampler_behind {
    ($($pointer:ty)*) => {
        $(impl<S: Sampler + ?Sized> Sampler for $pointer {
            fn len(&self) -> usize {
                (**self).len()
            }

            fn order(&self, epoch: u64) -> Vec<usize> {
                (**self).order(epoch)
            }
        })*
    };
}
sampler_behind!(&S Box<S> Arc<S>);

/// All items in order, each epoch: to evaluate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InOrder(usize);

impl InOrder {
    /// Items 0 … `len` − 1.
    pub fn new(len: usize) -> InOrder {
        InOrder(len)
    }
}

impl Sampler for InOrder {
    fn len(&self) -> usize {
        self.0
    }

    fn order(&self, _: u64) -> Vec<usize> {
        (0..self.0).collect()
    }
}

/// All items in random order, another one each epoch.
///
/// ```
/// use gradus_data::{Sampler, Shuffled};
/// use gradus_tensor::Key;
/// let sampler = Shuffled::new(100, Key::new(7));
/// assert_ne!(sampler.order(0), sampler.order(1));
/// assert_eq!(sampler.order(1), Shuffled::new(100, Key::new(7)).order(1));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shuffled {
    len: usize,
    key: Key,
}

impl Shuffled {
    /// Items 0 … `len` − 1.
    pub fn new(len: usize, key: Key) -> Shuffled {
        Shuffled { len, key }
    }
}

impl Sampler for Shuffled {
    fn len(&self) -> usize {
        self.len
    }

    fn order(&self, epoch: u64) -> Vec<usize> {
        self.key.fold_in(epoch).shuffled(self.len)
    }
}

/// Every class equally often, in random order, whatever their sizes: of a large class each epoch sees other rows, of a small one
/// some rows several times, but none a second time before all came once.
///
/// ```
/// use gradus_data::{ClassBalanced, Sampler};
/// use gradus_tensor::Key;
/// let labels = [0, 0, 0, 0, 0, 1];
/// let order = ClassBalanced::new(&labels, Key::new(7)).order(0);
/// assert_eq!(order.iter().filter(|&&row| labels[row] == 1).count(), 3);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassBalanced {
    classes: Vec<Vec<usize>>,
    draws: usize,
    key: Key,
}

impl ClassBalanced {
    /// As many draws each epoch as there are labels.
    pub fn new<L: Ord>(labels: &[L], key: Key) -> ClassBalanced {
        ClassBalanced { classes: shuffled_classes(labels, key), draws: labels.len(), key }
    }

    /// So many draws each epoch; without labels there are none.
    pub fn draws(self, draws: usize) -> ClassBalanced {
        ClassBalanced { draws: if self.classes.is_empty() { 0 } else { draws }, ..self }
    }
}

impl Sampler for ClassBalanced {
    fn len(&self) -> usize {
        self.draws
    }

    fn order(&self, epoch: u64) -> Vec<usize> {
        let key = self.key.fold_in(epoch);
        let classes = self.classes.len();
        let mut order = Vec::with_capacity(self.draws);
        // Classes that get one draw more than others change from epoch to epoch.
        for (turn, class) in key.fold_in(0).shuffled(classes).into_iter().enumerate() {
            let draws = self.draws / classes + usize::from(turn < self.draws % classes);
            let (rows, key) = (&self.classes[class], key.fold_in(1 + class as u64));
            for start in (0..draws).step_by(rows.len()) {
                let pass = key.fold_in(start as u64).shuffled(rows.len());
                order.extend(pass.into_iter().take(draws - start).map(|i| rows[i]));
            }
        }
        shuffled(order, key.fold_in(u64::MAX))
    }
}

/// Items drawn with probabilities in proportion to weights.
///
/// ```
/// use gradus_data::{Sampler, Weighted};
/// use gradus_tensor::Key;
/// let sampler = Weighted::with_replacement(&[0.0, 1.0, 3.0], 1000, Key::new(7))?;
/// let order = sampler.order(0);
/// assert!(order.iter().all(|&row| row > 0) && order.iter().filter(|&&row| row == 2).count() > 700);
/// # Ok::<(), gradus_data::DataError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Weighted {
    weights: Vec<f64>,
    /// Sums of the weights up to each, if items may come again.
    sums: Option<Vec<f64>>,
    draws: usize,
    key: Key,
}

impl Weighted {
    /// `draws` items each epoch, each drawn from all: items may come several times.
    ///
    /// # Errors
    /// If weights are negative or not finite, or none is above 0 although items are to be drawn.
    pub fn with_replacement(weights: &[f64], draws: usize, key: Key) -> Result<Weighted, DataError> {
        Weighted::check(weights, usize::from(draws > 0))?;
        // Halves, quarters, …: the sum of weights near the largest float stays finite.
        let scale = weights.iter().fold(0.0, |a: f64, &b| a.max(b)).max(f64::MIN_POSITIVE);
        let sums = weights.iter().scan(0.0, |sum, weight| {
            *sum += weight / scale;
            Some(*sum)
        });
        let sums = Some(sums.collect());
        Ok(Weighted { weights: weights.to_vec(), sums, draws, key })
    }

    /// `draws` different items each epoch, each drawn from those that are left (Efraimidis and Spirakis: "Weighted random
    /// sampling with a reservoir", 2006).
    ///
    /// # Errors
    /// If weights are negative or not finite, or fewer than `draws` are above 0.
    pub fn without_replacement(weights: &[f64], draws: usize, key: Key) -> Result<Weighted, DataError> {
        Weighted::check(weights, draws)?;
        Ok(Weighted { weights: weights.to_vec(), sums: None, draws, key })
    }

    fn check(weights: &[f64], positive: usize) -> Result<(), DataError> {
        if let Some((row, weight)) = weights.iter().enumerate().find(|(_, w)| !w.is_finite() || **w < 0.0) {
            let found = format!("{weight} for item {row}");
            return Err(DataError::Argument { argument: "weights", found, expected: "finite numbers from 0 on" });
        }
        let found = weights.iter().filter(|&&weight| weight > 0.0).count();
        if found < positive {
            let found = format!("{positive} of {found} items with a weight above 0");
            return Err(DataError::Argument { argument: "draws", found, expected: "no more than there are" });
        }
        Ok(())
    }
}

impl Sampler for Weighted {
    fn len(&self) -> usize {
        self.draws
    }

    fn order(&self, epoch: u64) -> Vec<usize> {
        let key = self.key.fold_in(epoch);
        match &self.sums {
            Some(sums) => {
                let total = sums.last().copied().unwrap_or(0.0);
                let draw = |i| {
                    let target = uniform(key, i) * total;
                    // The first sum above the target; rounding may leave none.
                    let row = sums.partition_point(|&sum| sum <= target);
                    if row < sums.len() { row } else { self.weights.iter().rposition(|&w| w > 0.0).unwrap_or(0) }
                };
                (0..self.draws as u64).map(draw).collect()
            }
            None => {
                // The least of exponential variables with these rates come first.
                let time = |row: usize| -(1.0 - uniform(key, row as u64)).ln() / self.weights[row];
                let positive = (0..self.weights.len()).filter(|&row| self.weights[row] > 0.0);
                let mut times: Vec<(f64, usize)> = positive.map(|row| (time(row), row)).collect();
                times.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                times.into_iter().take(self.draws).map(|(_, row)| row).collect()
            }
        }
    }
}

/// A uniform number in [0, 1): 53 bits of the key's `index`th child.
fn uniform(key: Key, index: u64) -> f64 {
    (key.fold_in(index).value() >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_differ_and_come_again() {
        let labels: Vec<usize> = (0..50).map(|i| i % 7).collect();
        let weights: Vec<f64> = (0..50).map(|i| i as f64).collect();
        let key = Key::new(5);
        let samplers: [Box<dyn Sampler>; 4] = [
            Box::new(Shuffled::new(50, key)),
            Box::new(ClassBalanced::new(&labels, key)),
            Box::new(Weighted::with_replacement(&weights, 50, key).unwrap()),
            Box::new(Weighted::without_replacement(&weights, 20, key).unwrap()),
        ];
        for sampler in samplers {
            let orders: Vec<Vec<usize>> = (0..3).map(|epoch| sampler.order(epoch)).collect();
            assert!(orders[0] != orders[1] && orders[1] != orders[2]);
            assert_eq!(orders[2], sampler.order(2));
            assert!(orders.iter().all(|order| order.len() == sampler.len() && order.iter().all(|&row| row < 50)));
        }
        assert_eq!(InOrder::new(3).order(9), [0, 1, 2]);
        assert!(Shuffled::new(0, key).is_empty());
    }

    #[test]
    fn classes_come_equally_often() {
        let labels: Vec<char> = "aaaaaaaaaaaaaaabbbbcc".chars().collect();
        let sampler = ClassBalanced::new(&labels, Key::new(1)).draws(100);
        for epoch in 0..20 {
            let order = sampler.order(epoch);
            let count = |wanted: &dyn Fn(usize) -> bool| order.iter().filter(|&&row| wanted(row)).count();
            for class in ['a', 'b', 'c'] {
                assert!([33, 34].contains(&count(&|row| labels[row] == class)));
            }
            // 33 or 34 draws from 15, 4 and 2 rows: none comes once more than another, but for one round.
            for (rows, least) in [(0..15, 2), (15..19, 8), (19..21, 16)] {
                assert!(rows.into_iter().all(|row| (least..=least + 1).contains(&count(&|r| r == row))));
            }
        }
        assert_eq!(ClassBalanced::new::<u8>(&[], Key::new(1)).draws(5).order(0).len(), 0);
    }

    #[test]
    fn weights_are_probabilities() {
        let weights = [1.0, 0.0, 2.0, 5.0];
        let (key, draws) = (Key::new(3), 40_000);
        let mut counts = [0; 4];
        Weighted::with_replacement(&weights, draws, key).unwrap().order(0).iter().for_each(|&row| counts[row] += 1);
        // Four standard deviations of a binomial count.
        for (count, weight) in counts.iter().zip(weights) {
            let (p, n) = (weight / 8.0, draws as f64);
            assert!((*count as f64 - n * p).abs() <= 4.0 * (n * p * (1.0 - p)).sqrt(), "{counts:?}");
        }
        // The first two of three: probabilities worked out by hand.
        let sampler = Weighted::without_replacement(&weights, 2, key).unwrap();
        let trials = 20_000;
        let last_first = (0..trials).filter(|&epoch| sampler.order(epoch) == [3, 2]).count() as f64;
        let (p, n) = (5.0 / 8.0 * 2.0 / 3.0, trials as f64);
        assert!((last_first - n * p).abs() <= 4.0 * (n * p * (1.0 - p)).sqrt(), "{last_first}");

        let extreme = Weighted::with_replacement(&[f64::MAX, f64::MAX], 100, key).unwrap().order(0);
        assert!(extreme.contains(&0) && extreme.contains(&1));
        assert!(Weighted::with_replacement(&[0.0], 1, key).is_err());
        assert!(Weighted::with_replacement(&[], 0, key).unwrap().order(0).is_empty());
        assert!(Weighted::without_replacement(&[1.0, 0.0], 2, key).unwrap_err().to_string().contains("2 of 1 items"));
        for wrong in [f64::NAN, -1.0, f64::INFINITY] {
            assert!(Weighted::without_replacement(&[1.0, wrong], 1, key).is_err());
        }
    }
}
