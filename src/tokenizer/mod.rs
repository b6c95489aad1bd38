//! Tokenizers: GPT-2's byte-level BPE, built in, and those that come with a model.

use crate::error::Result;
use crate::source::TokenizerFiles;

mod stream;
pub use stream::TextStream;

/// A tokenizer: text to ids and back. Cheap to share between threads (`Send + Sync`).
pub struct Tokenizer;

/// One token of an encoded text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The id.
    pub id: u32,
    /// Byte offsets in the text.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Tokenizer {
    /// GPT-2's tokenizer, from the merges inside the program: no file, ready in milliseconds.
    #[must_use]
    pub fn gpt2() -> Self {
        todo!()
    }

    /// Loads the tokenizer of a model.
    ///
    /// # Errors
    /// [`crate::Error::Io`] or [`crate::Error::Tokenizer`], naming the file and what is wrong with it.
    pub fn load(files: &TokenizerFiles) -> Result<Self> {
        let _ = files;
        todo!()
    }

    /// Splits `text` into tokens. With `special`, the text of special tokens (`<|endoftext|>`) becomes the special token.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] if the tokenizer has no token for a part of the text.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<Token>> {
        let _ = (text, special);
        todo!()
    }

    /// The bytes of a token, exactly: special tokens give their text; ids outside the vocabulary give none.
    #[must_use]
    pub fn bytes(&self, id: u32) -> Option<&[u8]> {
        let _ = id;
        todo!()
    }

    /// The token as the vocabulary writes it: `Ġtheory`.
    #[must_use]
    pub fn piece(&self, id: u32) -> Option<&str> {
        let _ = id;
        todo!()
    }

    /// Whether the token is special (`<|endoftext|>`) and so left out of decoded text.
    #[must_use]
    pub fn is_special(&self, id: u32) -> bool {
        let _ = id;
        todo!()
    }

    /// The id of the token that the vocabulary writes as `piece`.
    #[must_use]
    pub fn id(&self, piece: &str) -> Option<u32> {
        let _ = piece;
        todo!()
    }

    /// `<|endoftext|>`, where the vocabulary has it.
    #[must_use]
    pub fn end_of_text(&self) -> Option<u32> {
        todo!()
    }

    /// One more than the largest id.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        todo!()
    }

    /// The bytes of `ids`, one after the other; special tokens are left out if `skip_special`. Ids outside the
    /// vocabulary give nothing.
    #[must_use]
    pub fn decode_bytes(&self, ids: &[u32], skip_special: bool) -> Vec<u8> {
        let _ = (ids, skip_special);
        todo!()
    }

    /// The text of `ids`, U+FFFD where the bytes are not UTF-8 (as transformers' `decode` does).
    #[must_use]
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        String::from_utf8_lossy(&self.decode_bytes(ids, skip_special)).into_owned()
    }
}
