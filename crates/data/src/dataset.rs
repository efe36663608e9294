//! Data sets: items by index.

use crate::DataError;
use std::sync::Arc;

/// Items by index, made or read when they are asked for, by any thread: what a [`Loader`](crate::Loader) makes batches of.
///
/// One's own data set says how many items there are, and makes one:
///
/// ```
/// use gradus_data::{DataError, Dataset};
/// struct Squares;
/// impl Dataset for Squares {
///     type Item = (f32, f32);
///     fn len(&self) -> usize {
///         100
///     }
///     fn get(&self, index: usize) -> Result<(f32, f32), DataError> {
///         Ok((index as f32, (index * index) as f32))
///     }
/// }
/// let odd = Squares.subset((1..100).step_by(2).collect())?.map(|(x, square)| Ok(square / x));
/// assert_eq!((odd.len(), odd.get(2)?), (50, 5.0));
/// # Ok::<(), DataError>(())
/// ```
///
/// A data set that is asked for an index that it does not have answers with [`DataError::NoRow`]; what else goes wrong may be
/// any error, boxed ([`DataError::Other`]).
pub trait Dataset: Send + Sync {
    /// What there is at each index.
    type Item: Send;

    /// The number of items.
    fn len(&self) -> usize;

    /// Item number `index`, from 0.
    ///
    /// # Errors
    /// If it cannot be read or made, or there is none.
    fn get(&self, index: usize) -> Result<Self::Item, DataError>;

    /// Whether there are no items.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The data set of what `f` makes of each item.
    fn map<T: Send, F>(self, f: F) -> Map<Self, F>
    where
        Self: Sized,
        F: Fn(Self::Item) -> Result<T, DataError> + Send + Sync,
    {
        Map { data: self, f }
    }

    /// The items at these indices, in this order: a part of a split. One index may come several times.
    ///
    /// # Errors
    /// If there is no item at one of them.
    fn subset(self, indices: Vec<usize>) -> Result<Subset<Self>, DataError>
    where
        Self: Sized,
    {
        let rows = self.len();
        match indices.iter().find(|&&index| index >= rows) {
            Some(&row) => Err(DataError::NoRow { row, rows }),
            None => Ok(Subset { data: self, indices }),
        }
    }

    /// The items of two data sets of equal length, in pairs.
    ///
    /// # Errors
    /// If they differ in length.
    fn zip<B: Dataset>(self, other: B) -> Result<Zip<Self, B>, DataError>
    where
        Self: Sized,
    {
        if self.len() != other.len() {
            let found = format!("{} items beside {}", other.len(), self.len());
            return Err(DataError::Argument { argument: "a data set to zip", found, expected: "as many items" });
        }
        Ok(Zip { first: self, second: other })
    }

    /// The items of this data set, then those of another.
    fn chain<B: Dataset<Item = Self::Item>>(self, other: B) -> Chain<Self, B>
    where
        Self: Sized,
    {
        Chain { first: self, second: other }
    }
}

macro_rules! dataset_behind {
    ($($pointer:ty)*) => {
        $(impl<D: Dataset + ?Sized> Dataset for $pointer {
            type Item = D::Item;

            fn len(&self) -> usize {
                (**self).len()
            }

            fn get(&self, index: usize) -> Result<D::Item, DataError> {
                (**self).get(index)
            }
        })*
    };
}
dataset_behind!(&D Box<D> Arc<D>);

/// Items in memory, which are cloned when they are asked for.
///
/// ```
/// use gradus_data::{Dataset, InMemory};
/// let words = InMemory::new(["mind", "the", "gap"]);
/// assert_eq!(words.get(2)?, "gap");
/// # Ok::<(), gradus_data::DataError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InMemory<T>(Vec<T>);

impl<T> InMemory<T> {
    /// The items of a vector, an array or another iterator.
    pub fn new(items: impl IntoIterator<Item = T>) -> InMemory<T> {
        InMemory(items.into_iter().collect())
    }

    /// The items.
    pub fn items(&self) -> &[T] {
        &self.0
    }
}

impl<T: Clone + Send + Sync> Dataset for InMemory<T> {
    type Item = T;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, index: usize) -> Result<T, DataError> {
        self.0.get(index).cloned().ok_or(DataError::NoRow { row: index, rows: self.0.len() })
    }
}

/// See [`Dataset::map`].
#[derive(Clone, Debug)]
pub struct Map<D, F> {
    data: D,
    f: F,
}

impl<D: Dataset, T: Send, F: Fn(D::Item) -> Result<T, DataError> + Send + Sync> Dataset for Map<D, F> {
    type Item = T;

    fn len(&self) -> usize {
        self.data.len()
    }

    fn get(&self, index: usize) -> Result<T, DataError> {
        (self.f)(self.data.get(index)?)
    }
}

/// See [`Dataset::subset`].
#[derive(Clone, Debug)]
pub struct Subset<D> {
    data: D,
    indices: Vec<usize>,
}

impl<D> Subset<D> {
    /// The indices, in the whole data set.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }
}

impl<D: Dataset> Dataset for Subset<D> {
    type Item = D::Item;

    fn len(&self) -> usize {
        self.indices.len()
    }

    fn get(&self, index: usize) -> Result<D::Item, DataError> {
        let rows = self.indices.len();
        self.data.get(*self.indices.get(index).ok_or(DataError::NoRow { row: index, rows })?)
    }
}

/// See [`Dataset::zip`].
#[derive(Clone, Debug)]
pub struct Zip<A, B> {
    first: A,
    second: B,
}

impl<A: Dataset, B: Dataset> Dataset for Zip<A, B> {
    type Item = (A::Item, B::Item);

    fn len(&self) -> usize {
        self.first.len()
    }

    fn get(&self, index: usize) -> Result<Self::Item, DataError> {
        Ok((self.first.get(index)?, self.second.get(index)?))
    }
}

/// See [`Dataset::chain`].
#[derive(Clone, Debug)]
pub struct Chain<A, B> {
    first: A,
    second: B,
}

impl<A: Dataset, B: Dataset<Item = A::Item>> Dataset for Chain<A, B> {
    type Item = A::Item;

    fn len(&self) -> usize {
        self.first.len() + self.second.len()
    }

    fn get(&self, index: usize) -> Result<A::Item, DataError> {
        match index.checked_sub(self.first.len()) {
            None => self.first.get(index),
            Some(after) => self.second.get(after),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combinations() {
        let letters = InMemory::new("abcde".chars());
        let both = letters.clone().zip(InMemory::new(1..=5)).unwrap().chain(InMemory::new([('f', 6)]));
        assert_eq!((both.len(), both.get(4).unwrap(), both.get(5).unwrap()), (6, ('e', 5), ('f', 6)));
        assert!(matches!(both.get(6), Err(DataError::NoRow { .. })));
        let part = both.subset(vec![5, 0, 0]).unwrap();
        assert_eq!((part.indices(), part.get(2).unwrap()), (&[5, 0, 0][..], ('a', 1)));
        assert!(matches!(part.get(3), Err(DataError::NoRow { row: 3, rows: 3 })));
        assert!(matches!((&part).subset(vec![3]), Err(DataError::NoRow { row: 3, rows: 3 })));
        assert!(letters.clone().zip(InMemory::new([1])).unwrap_err().to_string().contains("1 items beside 5"));
        let boxed: Box<dyn Dataset<Item = char>> = Box::new(letters);
        assert_eq!((boxed.is_empty(), boxed.get(1).unwrap()), (false, 'b'));
    }
}
