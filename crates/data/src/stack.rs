//! Batches of items.

use crate::elements::Elements;
use crate::{Array, DataError};

/// Items that make a batch: numbers become a vector, arrays the rows of a larger one, tuples of items tuples of batches.
///
/// ```
/// use gradus_data::{Array, Stack};
/// let items = vec![(Array::new([2], vec![1u8, 2])?, 7u32), (Array::new([2], vec![3u8, 4])?, 9)];
/// let (images, labels) = Stack::stack(items)?;
/// assert_eq!((images.shape(), labels), (&[2, 2][..], Array::new([2], vec![7u32, 9])?));
/// # Ok::<(), gradus_data::DataError>(())
/// ```
pub trait Stack: Sized + Send {
    /// Several items together.
    type Batch: Send;

    /// The items in order, along a new first axis.
    ///
    /// # Errors
    /// If they do not lie together: [`DataError::Uneven`].
    fn stack(items: Vec<Self>) -> Result<Self::Batch, DataError>;
}

impl Stack for Array {
    type Batch = Array;

    fn stack(items: Vec<Array>) -> Result<Array, DataError> {
        Array::stack(&items)
    }
}

macro_rules! stack_numbers {
    ($($t:ty)*) => {
        $(impl Stack for $t {
            type Batch = Array;

            fn stack(items: Vec<$t>) -> Result<Array, DataError> {
                Array::new([items.len()], items)
            }
        }

        impl Stack for Vec<$t> {
            type Batch = Array;

            fn stack(items: Vec<Vec<$t>>) -> Result<Array, DataError> {
                if items.is_empty() {
                    return Ok(Array::counted(vec![0, 0], Elements::from(Vec::<$t>::new())));
                }
                let rows = items.into_iter().map(|row| Array::new([row.len()], row)).collect::<Result<Vec<_>, _>>()?;
                Array::stack(&rows)
            }
        })*
    };
}
stack_numbers!(u8 bool i32 u32 f32 f64);

impl Stack for String {
    type Batch = Vec<String>;

    fn stack(items: Vec<String>) -> Result<Vec<String>, DataError> {
        Ok(items)
    }
}

macro_rules! stack_tuples {
    ($($($name:ident $items:ident),+;)*) => {
        $(impl<$($name: Stack),+> Stack for ($($name,)+) {
            type Batch = ($($name::Batch,)+);

            fn stack(items: Vec<Self>) -> Result<Self::Batch, DataError> {
                $(let mut $items = Vec::with_capacity(items.len());)+
                for item in items {
                    #[allow(non_snake_case, reason = "a part is called as its type")]
                    let ($($name,)+) = item;
                    $($items.push($name);)+
                }
                Ok(($($name::stack($items)?,)+))
            }
        })*
    };
}
stack_tuples! {
    A first, B second;
    A first, B second, C third;
    A first, B second, C third, D fourth;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stack_apart() {
        let items = vec![(1u32, vec![0.5f32, 1.0], "a".to_string(), true), (2, vec![2.0, 3.0], "b".to_string(), false)];
        let (numbers, rows, texts, flags) = Stack::stack(items).unwrap();
        assert_eq!(numbers, Array::new([2], vec![1u32, 2]).unwrap());
        assert_eq!(rows, Array::new([2, 2], vec![0.5f32, 1.0, 2.0, 3.0]).unwrap());
        assert_eq!((texts, flags.shape()), (vec!["a".to_string(), "b".to_string()], &[2][..]));
        let error = Stack::stack(vec![vec![1i32], vec![1, 2]]).unwrap_err().to_string();
        assert_eq!(error, "item 1 of a batch (from 0) is i32 [2], expected i32 [1] as the first");
        assert_eq!(<Vec<u8> as Stack>::stack(vec![]).unwrap().shape(), [0, 0]);
    }
}
