//! Text as characters, numbered.

use crate::DataError;
use crate::gzip::unpacked;
use gradus_tensor::{Placement, Tensor};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// More than this is not read: what a few bytes may unpack to.
const MAX_BYTES: u64 = 1 << 32;

/// A text whose characters are numbered: what a language model of characters learns from.
///
/// ```
/// use gradus_data::CharText;
/// use gradus_tensor::Device;
/// let text = CharText::from_reader("to be or not".as_bytes(), "hamlet")?;
/// assert_eq!(text.vocabulary().iter().collect::<String>(), " benort");
/// assert_eq!(text.encode("not").unwrap(), [3, 4, 6]);
/// assert_eq!(text.decode([4, 5]), "or");
/// let windows = text.windows([0, 3], 2, &Device::cpu());
/// assert_eq!(windows.to_vec::<i32>().unwrap(), [6, 4, 1, 2]);
/// # Ok::<(), gradus_data::DataError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CharText {
    tokens: Vec<u32>,
    vocabulary: Vec<char>,
}

impl CharText {
    /// Reads a file of UTF-8 text, gzip or not.
    ///
    /// # Errors
    /// If it cannot be opened or read, is not UTF-8, has no character, or unpacks to more than 4 GiB.
    pub fn read(path: impl AsRef<Path>) -> Result<CharText, DataError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| DataError::Open { path: path.to_path_buf(), source })?;
        CharText::from_reader(file, &path.display().to_string())
    }

    /// Reads text; errors call it `name`.
    ///
    /// # Errors
    /// As [`read`](CharText::read).
    pub fn from_reader(from: impl Read, name: &str) -> Result<CharText, DataError> {
        CharText::up_to(MAX_BYTES, from, name)
    }

    fn up_to(max_bytes: u64, from: impl Read, name: &str) -> Result<CharText, DataError> {
        let failed = |source| DataError::Read { name: name.into(), source };
        let mut text = String::new();
        unpacked(from).map_err(failed)?.take(max_bytes + 1).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > max_bytes {
            return Err(DataError::TextTooLarge { name: name.into(), max_bytes });
        }
        if text.is_empty() {
            return Err(DataError::NoText { name: name.into() });
        }
        // A text has few characters, many times each.
        let vocabulary: Vec<char> = text.chars().collect::<BTreeSet<char>>().into_iter().collect();
        let number = |c: char| vocabulary.binary_search(&c).expect("the vocabulary is the text's") as u32;
        Ok(CharText { tokens: text.chars().map(number).collect(), vocabulary })
    }

    /// The characters that occur, in the order of their numbers.
    pub fn vocabulary(&self) -> &[char] {
        &self.vocabulary
    }

    /// The text, as numbers.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// How many characters there are.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Always false: an empty text is an error when it is read.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The numbers of characters; `None` if one is not in the vocabulary.
    pub fn encode(&self, text: &str) -> Option<Vec<u32>> {
        text.chars().map(|c| Some(self.vocabulary.binary_search(&c).ok()? as u32)).collect()
    }

    /// The characters of numbers; `\u{fffd}` for a number that is not in the vocabulary.
    pub fn decode(&self, tokens: impl IntoIterator<Item = u32>) -> String {
        let character = |token: u32| self.vocabulary.get(token as usize).copied();
        tokens.into_iter().map(|token| character(token).unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    }

    /// The first characters and the others, in one vocabulary: the latter to see how well a model does that has learnt from the
    /// former. `fraction`, of what comes first, is in 0 ..= 1.
    pub fn split(&self, fraction: f64) -> (CharText, CharText) {
        let at = (self.len() as f64 * fraction.clamp(0.0, 1.0)).round() as usize;
        let part = |tokens: &[u32]| CharText { tokens: tokens.into(), vocabulary: self.vocabulary.clone() };
        (part(&self.tokens[..at]), part(&self.tokens[at..]))
    }

    /// So many characters from each of these places on, `[starts, length]` (i32). What begins too late for that is moved to the
    /// last place that is not; a text shorter than `length` gives no windows.
    #[track_caller]
    pub fn windows(&self, starts: impl IntoIterator<Item = usize>, length: usize, on: impl Into<Placement>) -> Tensor {
        let last = self.len().checked_sub(length);
        let starts = starts.into_iter().filter_map(|start| Some(start.min(last?)));
        let windows: Vec<i32> =
            starts.flat_map(|start| &self.tokens[start..start + length]).map(|&token| token as i32).collect();
        let rows = windows.len() / length.max(1);
        Tensor::from_vec(windows, [rows, length], on)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gradus_tensor::Device;

    #[test]
    fn what_is_no_text_is_an_error() {
        let read = |bytes: &[u8]| CharText::from_reader(bytes, "it").map(|_| ()).map_err(|error| error.to_string());
        assert_eq!(read(b""), Err("it is empty: found nothing, expected text".into()));
        assert!(read(&[b'a', 0xff]).unwrap_err().contains("UTF-8"));
        assert!(read(&[0x1f, 0x8b, 8]).is_err());
        let long = CharText::up_to(3, "abcd".as_bytes(), "it").unwrap_err().to_string();
        assert_eq!(long, "it is larger than 3 bytes, the most that is read as one text: split it");
        assert!(CharText::up_to(4, "abcd".as_bytes(), "it").is_ok());
        assert!(CharText::read("no such file").unwrap_err().to_string().contains("no such file"));
    }

    #[test]
    fn windows_stay_inside() {
        let text = CharText::from_reader("abcde".as_bytes(), "it").unwrap();
        let windows = text.windows([0, 3, 99], 3, &Device::cpu());
        assert_eq!(windows.to_vec::<i32>().unwrap(), [0, 1, 2, 2, 3, 4, 2, 3, 4]);
        assert_eq!(text.windows([0], 6, &Device::cpu()).shape()[..], [0, 6]);
        let (first, rest) = text.split(0.6);
        assert_eq!((first.len(), rest.decode(rest.tokens().iter().copied())), (3, "de".into()));
        assert_eq!((text.encode("ax"), text.decode([9])), (None, "\u{fffd}".into()));
    }
}
