//! Texts as tokens of sub-words.

use crate::DataError;
use std::path::Path;
use std::str::FromStr;
use tokenizers::Tokenizer;

/// A tokeniser from a `tokenizer.json` of Hugging Face's, as most published language models have one. With the feature
/// `tokenizers`.
///
/// ```no_run
/// use gradus_data::{Tokeniser, Windows};
/// let tokeniser = Tokeniser::read("gpt2/tokenizer.json")?;
/// let windows = Windows::new(tokeniser.encode("To be, or not to be")?, 4, 1)?;
/// # Ok::<(), gradus_data::DataError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tokeniser {
    inner: Tokenizer,
}

impl Tokeniser {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be opened or read, or is no tokeniser.
    pub fn read(path: impl AsRef<Path>) -> Result<Tokeniser, DataError> {
        let path = path.as_ref();
        let text =
            std::fs::read_to_string(path).map_err(|source| DataError::Open { path: path.to_path_buf(), source })?;
        Tokeniser::from_json(&text, &path.display().to_string())
    }

    /// Reads the text of such a file; errors call it `name`.
    ///
    /// # Errors
    /// If it is no tokeniser.
    pub fn from_json(text: &str, name: &str) -> Result<Tokeniser, DataError> {
        let wrong = |error: tokenizers::Error| DataError::Malformed {
            name: name.into(),
            format: "a tokeniser",
            found: error.to_string(),
        };
        Ok(Tokeniser { inner: Tokenizer::from_str(text).map_err(wrong)? })
    }

    /// The tokens of a text, without those that a model puts around it.
    ///
    /// # Errors
    /// [`DataError::Other`] if the tokeniser has none for a part of the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        Ok(self.inner.encode(text, false).map_err(DataError::Other)?.get_ids().to_vec())
    }

    /// The text of tokens, without special ones.
    ///
    /// # Errors
    /// [`DataError::Other`] if the tokeniser cannot put them together.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, DataError> {
        self.inner.decode(tokens, true).map_err(DataError::Other)
    }

    /// How many tokens there are, special ones included.
    pub fn vocabulary_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The token of a text that is one, such as `<|endoftext|>`.
    pub fn token(&self, text: &str) -> Option<u32> {
        self.inner.token_to_id(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: &str = r#"{
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"<unk>": 0, "to": 1, "be": 2, "or": 3}, "unk_token": "<unk>"}
    }"#;

    #[test]
    fn words_and_unknown_ones() {
        let tokeniser = Tokeniser::from_json(WORDS, "it").unwrap();
        assert_eq!(tokeniser.encode("To be or NOT to be").unwrap(), [1, 2, 3, 0, 1, 2]);
        assert_eq!(tokeniser.decode(&[1, 2]).unwrap(), "to be");
        assert_eq!((tokeniser.vocabulary_size(), tokeniser.token("or"), tokeniser.token("no")), (4, Some(3), None));
        for end in [0, 5, WORDS.len() - 30] {
            let error = Tokeniser::from_json(&WORDS[..end], "it").unwrap_err().to_string();
            assert!(error.starts_with("it is not a tokeniser as it should be"), "{error}");
        }
        assert!(matches!(Tokeniser::read("no such file"), Err(DataError::Open { .. })));
    }
}
