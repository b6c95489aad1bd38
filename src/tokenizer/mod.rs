//! Tokenizers: the built-in byte-level BPE of GPT-2, and those that come with a model.
//!
//! A [`Tokenizer`] is a vocabulary (ids, pieces, bytes), an encoder, and what it adds around a text. One encoder serves
//! every byte-level BPE, whatever the source of its vocabulary; other tokenizers run through Hugging Face's library (with
//! the feature `tokenizers`). Decoding is a table from ids to bytes, so it is exact; [`TextStream`] turns the bytes into
//! text.

use crate::error::{Error, Result};

mod added;
mod alphabet;
mod bpe;
mod byte_level;
mod class;
mod fingerprint;
#[cfg(feature = "tokenizers")]
mod library;
mod load;
mod merging;
mod save;
mod settings;
mod stream;
mod template;
mod tokenizer_json;
mod vocabulary;
mod words;

use added::AddedToken;
use byte_level::ByteLevel;
#[cfg(feature = "tokenizers")]
use library::Library;
use load::ByteLevelParts;
#[cfg(feature = "hub")]
pub(crate) use load::LARGEST_FILE;
pub use load::{HuggingFaceFiles, TokenizerFiles};
pub use merging::{MergeStep, MergedWord};
pub use save::SavedFile;
pub use stream::TextStream;
use template::Template;
use vocabulary::Vocabulary;

/// The special token that ends (and starts) a text.
const END_OF_TEXT: &str = "<|endoftext|>";

/// A tokenizer: text to ids and back. Cheap to share between threads (`Send + Sync`).
pub struct Tokenizer {
    vocabulary: Vocabulary,
    encoder: Encoder,
    template: Template,
    /// The token that starts a text, if its files name one.
    start_of_text: Option<u32>,
    own: Roles,
    /// Whether special tokens in a text are always taken as text.
    splits_special: bool,
}

/// The tokens with a role that the tokenizer's files name themselves, not the class or the model.
#[derive(Debug, Clone, Copy, Default)]
struct Roles {
    start: Option<u32>,
    end: Option<u32>,
}

enum Encoder {
    ByteLevel(Box<ByteLevel>),
    #[cfg(feature = "tokenizers")]
    Library(Box<Library>),
}

/// One token of an encoded text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// The id.
    pub id: u32,
    /// Byte offsets in the text.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Tokenizer {
    /// GPT-2's tokenizer, from the built-in merges: no file, ready in milliseconds.
    #[must_use]
    pub fn gpt2() -> Self {
        let (vocabulary, encoder) = ByteLevel::gpt2();
        Self::new(vocabulary, Encoder::ByteLevel(Box::new(encoder)))
    }

    /// A tokenizer that adds nothing around a text.
    fn new(vocabulary: Vocabulary, encoder: Encoder) -> Self {
        let (template, own) = (Template::default(), Roles::default());
        Self { vocabulary, encoder, template, start_of_text: None, own, splits_special: false }
    }

    /// A byte-level BPE tokenizer from its parts: the piece of each id, the merges in the order in which they were
    /// learned, and the ids of the special tokens. Pieces are written in GPT-2's byte alphabet (`Ġtheory`); special
    /// tokens are written as text.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the parts do not fit together.
    pub fn from_vocab<S: AsRef<str>>(pieces: &[S], merges: &[(&str, &str)], special: &[u32]) -> Result<Self> {
        if let Some(id) = special.iter().find(|&&id| id as usize >= pieces.len()) {
            let message = format!("the special token {id} is outside the vocabulary of {}", pieces.len());
            return Err(Error::Tokenizer(message));
        }
        let added = special.iter().map(|&id| (None, AddedToken::new(pieces[id as usize].as_ref(), true)));
        let parts = ByteLevelParts {
            entries: pieces.iter().zip(0..).map(|(piece, id)| (piece.as_ref().into(), id)).collect(),
            pairs: merges.to_vec(),
            added: added.collect(),
            prefix_space: false,
        };
        parts.into_tokenizer().map_err(|fault| Error::Tokenizer(fault.into_message()))
    }

    /// Splits `text` into tokens whose offsets are contiguous and cover the text. With `special`, the text of a special
    /// token (`<|endoftext|>`) becomes that token. Nothing is added around it: see [`before_text`](Self::before_text).
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer has no token for part of the text.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<Token>> {
        let special = special && !self.splits_special;
        match &self.encoder {
            Encoder::ByteLevel(encoder) => encoder.encode(text, special),
            #[cfg(feature = "tokenizers")]
            Encoder::Library(library) => library.encode(text, special),
        }
        .map_err(Error::Tokenizer)
    }

    /// The tokens that this tokenizer puts before a text by default, as `tokenizer(text)` does in transformers: the one
    /// that starts a text (BOS), or none.
    #[must_use]
    pub fn before_text(&self) -> &[u32] {
        &self.template.before
    }

    /// The tokens that this tokenizer puts after a text by default; hardly any does.
    #[must_use]
    pub fn after_text(&self) -> &[u32] {
        &self.template.after
    }

    /// The exact bytes of a token: a special token gives its text; `None` for ids outside the vocabulary.
    #[must_use]
    pub fn bytes(&self, id: u32) -> Option<&[u8]> {
        self.vocabulary.bytes(id)
    }

    /// The token as the vocabulary writes it: `Ġtheory`.
    #[must_use]
    pub fn piece(&self, id: u32) -> Option<&str> {
        self.vocabulary.piece(id)
    }

    /// Whether the token is special (`<|endoftext|>`) and so left out of decoded text.
    #[must_use]
    pub fn is_special(&self, id: u32) -> bool {
        self.vocabulary.special().binary_search(&id).is_ok()
    }

    /// The id of the token that the vocabulary writes as `piece`.
    #[must_use]
    pub fn id(&self, piece: &str) -> Option<u32> {
        self.vocabulary.id(piece)
    }

    /// The token that starts a text: the one that the tokenizer's files name, else `<|endoftext|>` if the vocabulary has
    /// it.
    #[must_use]
    pub fn start_of_text(&self) -> Option<u32> {
        self.start_of_text.or_else(|| self.end_of_text())
    }

    /// `<|endoftext|>`, if the vocabulary has it.
    #[must_use]
    pub fn end_of_text(&self) -> Option<u32> {
        self.id(END_OF_TEXT)
    }

    /// The merges as lines of `merges.txt`, in the order in which they were learned; `None` if the tokenizer is not a
    /// byte-level BPE.
    #[must_use]
    pub fn merges(&self) -> Option<Vec<String>> {
        let merges = self.as_byte_level()?.merges();
        let piece = |id| self.piece(id).unwrap_or_default();
        Some(merges.into_iter().map(|(left, right)| format!("{} {}", piece(left), piece(right))).collect())
    }

    /// How the tokens of `text` came about, word by word: the merges of byte-pair encoding, step by step. `special` as in
    /// [`encode`](Self::encode).
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer is not a byte-level BPE, or for a word of more than `longest` bytes: time and
    /// the size of the result are quadratic in them.
    pub fn merged_words(&self, text: &str, special: bool, longest: usize) -> Result<Vec<MergedWord>> {
        let encoder =
            self.as_byte_level().ok_or("the tokenizer is not a byte-level BPE, so there are no merges to show");
        let merged = encoder.map_err(str::to_owned);
        let merged = merged.and_then(|it| it.merged_words(text, special && !self.splits_special, longest));
        merged.map_err(Error::Tokenizer)
    }

    fn as_byte_level(&self) -> Option<&ByteLevel> {
        match &self.encoder {
            Encoder::ByteLevel(encoder) => Some(encoder),
            #[cfg(feature = "tokenizers")]
            Encoder::Library(_) => None,
        }
    }

    /// One more than the largest id.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// The bytes of `ids`, concatenated; special tokens are left out if `skip_special`. Ids outside the vocabulary give
    /// nothing.
    #[must_use]
    pub fn decode_bytes(&self, ids: &[u32], skip_special: bool) -> Vec<u8> {
        let ids = ids.iter().filter(|&&id| !(skip_special && self.is_special(id)));
        ids.filter_map(|&id| self.bytes(id)).flatten().copied().collect()
    }

    /// The text of `ids` as [`decode`](Self::decode) gives it, but with bytes that are not UTF-8 as they are.
    ///
    /// # Errors
    /// Those of [`decode`](Self::decode).
    pub fn decode_exactly(&self, ids: &[u32]) -> Result<Vec<u8>> {
        match &self.encoder {
            Encoder::ByteLevel(_) => Ok(self.decode_bytes(ids, false)),
            #[cfg(feature = "tokenizers")]
            Encoder::Library(_) => Ok(self.decode(ids, false)?.into_bytes()),
        }
    }

    /// The text of `ids`, like transformers' `decode`: U+FFFD where bytes are not UTF-8. A tokenizer other than
    /// byte-level BPE joins tokens in its own way.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer's file makes too much of the tokens.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        match &self.encoder {
            Encoder::ByteLevel(_) => Ok(String::from_utf8_lossy(&self.decode_bytes(ids, skip_special)).into_owned()),
            #[cfg(feature = "tokenizers")]
            Encoder::Library(library) => library.decode(ids, skip_special).map_err(Error::Tokenizer),
        }
    }
}

#[cfg(test)]
mod tests;
