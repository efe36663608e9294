//! Windows of a long text: what a language model learns from.

use crate::{DataError, Dataset};

/// Windows of a text's tokens, each with the tokens that come next: items are `length` tokens, and those one place further.
///
/// ```
/// use gradus_data::{Dataset, Loader, Shuffled, Windows};
/// use gradus_tensor::Key;
/// let windows = Windows::new(b"to be or not".iter().map(|&byte| byte.into()).collect(), 4, 4)?;
/// assert_eq!((windows.len(), windows.get(1)?), (2, (vec![101, 32, 111, 114], vec![32, 111, 114, 32])));
/// let sampler = Shuffled::new(windows.len(), Key::new(7));
/// for batch in Loader::new(windows, sampler, 2)?.epoch(0) {
///     let (inputs, targets) = batch?;
///     assert_eq!((inputs.shape(), targets.shape()), (&[2, 4][..], &[2, 4][..]));
/// }
/// # Ok::<(), gradus_data::DataError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    tokens: Vec<u32>,
    length: usize,
    stride: usize,
}

impl Windows {
    /// Windows of `length` tokens, that begin every `stride` tokens. What is left at the end is no window; a text of `length`
    /// tokens or fewer has none.
    ///
    /// # Errors
    /// If `length` or `stride` is 0, or a token too large for i32.
    pub fn new(tokens: Vec<u32>, length: usize, stride: usize) -> Result<Windows, DataError> {
        if length == 0 || stride == 0 {
            let found = format!("{length} tokens every {stride}");
            return Err(DataError::Argument { argument: "a window", found, expected: "at least 1 every 1" });
        }
        if let Some(token) = tokens.iter().find(|&&token| i32::try_from(token).is_err()) {
            return Err(DataError::Argument {
                argument: "a token",
                found: token.to_string(),
                expected: "less than 2³¹",
            });
        }
        Ok(Windows { tokens, length, stride })
    }
}

impl Dataset for Windows {
    type Item = (Vec<i32>, Vec<i32>);

    fn len(&self) -> usize {
        // The last window needs a token after it.
        let last = self.tokens.len().checked_sub(1).and_then(|tokens| tokens.checked_sub(self.length));
        last.map_or(0, |last| last / self.stride + 1)
    }

    fn get(&self, index: usize) -> Result<(Vec<i32>, Vec<i32>), DataError> {
        let rows = self.len();
        if index >= rows {
            return Err(DataError::NoRow { row: index, rows });
        }
        let start = index * self.stride;
        let window = |start: usize| self.tokens[start..start + self.length].iter().map(|&token| token as i32).collect();
        Ok((window(start), window(start + 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_window_has_a_next_token() {
        for (tokens, length, stride, expected) in
            [(5, 2, 1, 3), (5, 2, 2, 2), (5, 4, 3, 1), (5, 5, 1, 0), (0, 1, 1, 0), (6, 2, 9, 1)]
        {
            let windows = Windows::new((0..tokens).collect(), length, stride).unwrap();
            assert_eq!(windows.len(), expected);
            for index in 0..expected {
                let (inputs, targets) = windows.get(index).unwrap();
                assert_eq!(inputs.len(), length);
                assert!(inputs.iter().zip(&targets).all(|(input, target)| input + 1 == *target));
                assert_eq!(inputs[0] as usize, index * stride);
            }
            assert!(windows.get(expected).is_err());
        }
        assert!(Windows::new(vec![1], 0, 1).is_err() && Windows::new(vec![1], 1, 0).is_err());
        assert!(Windows::new(vec![u32::MAX], 1, 1).is_err());
        assert!(Windows::new(vec![1], usize::MAX, 1).is_ok());
    }
}
