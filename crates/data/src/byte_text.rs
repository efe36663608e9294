//! Text as bytes.

use crate::DataError;
use crate::gzip::unpacked;
use crate::layout::{MAX_BYTES, up_to};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// A text whose tokens are its bytes, of which there are 256: any file, whatever its language or encoding.
///
/// ```
/// use gradus_data::{ByteText, Windows};
/// let text = ByteText::from_reader("süß".as_bytes(), "it")?;
/// assert_eq!(text.tokens(), [115, 195, 188, 195, 159]);
/// assert_eq!(ByteText::decode([195, 188]), "ü");
/// let windows = Windows::new(text.tokens(), 2, 1)?;
/// # Ok::<(), gradus_data::DataError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByteText {
    bytes: Vec<u8>,
}

impl ByteText {
    /// Reads a file, gzip or not.
    ///
    /// # Errors
    /// If it cannot be opened or read, is empty, or unpacks to more than 4 GiB.
    pub fn read(path: impl AsRef<Path>) -> Result<ByteText, DataError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| DataError::Open { path: path.to_path_buf(), source })?;
        ByteText::from_reader(file, &path.display().to_string())
    }

    /// Reads bytes; errors call them `name`.
    ///
    /// # Errors
    /// As [`read`](ByteText::read).
    pub fn from_reader(from: impl Read, name: &str) -> Result<ByteText, DataError> {
        let failed = |source| DataError::Read { name: name.into(), source };
        let bytes = up_to(&mut unpacked(from).map_err(failed)?, MAX_BYTES + 1).map_err(failed)?;
        match bytes.len() as u64 {
            0 => Err(DataError::NoText { name: name.into() }),
            1..=MAX_BYTES => Ok(ByteText { bytes }),
            _ => Err(DataError::TextTooLarge { name: name.into(), max_bytes: MAX_BYTES }),
        }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, as tokens.
    pub fn tokens(&self) -> Vec<u32> {
        self.bytes.iter().map(|&byte| byte.into()).collect()
    }

    /// The text of tokens; `\u{fffd}` for what is no UTF-8 or no byte.
    pub fn decode(tokens: impl IntoIterator<Item = u32>) -> String {
        // 0xff is in no UTF-8 text.
        let bytes: Vec<u8> = tokens.into_iter().map(|token| u8::try_from(token).unwrap_or(0xff)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_but_none() {
        assert!(matches!(ByteText::from_reader(&b""[..], "it"), Err(DataError::NoText { .. })));
        assert_eq!(ByteText::from_reader(&[0xff, 0][..], "it").unwrap().bytes(), [0xff, 0]);
        assert_eq!(ByteText::decode([104, 105, 300, 0xff]), "hi\u{fffd}\u{fffd}");
        assert!(ByteText::read("no such file").unwrap_err().to_string().contains("no such file"));
    }
}
