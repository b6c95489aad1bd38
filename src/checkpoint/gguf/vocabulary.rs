//! The tokenizer in the metadata of a GGUF file.

use std::borrow::Cow;

use super::{Array, Gguf, Metadata, Value};
use crate::error::Result;

/// A byte-level BPE vocabulary: tokens and merges as `vocab.json` and `merges.txt` write them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vocabulary<'a> {
    /// Tokens by id: `Ġtheory`. Those that are not [`Normal`](TokenKind::Normal) are written as plain text.
    pub tokens: Vec<Cow<'a, str>>,
    /// What each token is.
    pub kinds: Vec<TokenKind>,
    /// Merges by rank: `Ġ t`.
    pub merges: Vec<Cow<'a, str>>,
    /// The token that starts a text, if the file names it.
    pub bos: Option<u32>,
    /// The token that ends a text, if the file names it.
    pub eos: Option<u32>,
    /// Whether texts get [`bos`](Self::bos) in front.
    pub add_bos: bool,
    /// Whether texts get [`eos`](Self::eos) at their end.
    pub add_eos: bool,
}

/// What a token is, with llama.cpp's `token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Found by merging bytes.
    Normal = 1,
    /// Stands for what the vocabulary lacks.
    Unknown = 2,
    /// Found where its text is, unless special tokens are taken as text.
    Control = 3,
    /// Found where its text is.
    UserDefined = 4,
    /// Fills a row of the embedding.
    Unused = 5,
    /// A byte, in vocabularies of other kinds.
    Byte = 6,
}

impl TokenKind {
    /// The kind with this code; `Normal` for codes without a meaning.
    fn of(code: i32) -> Self {
        use TokenKind::*;
        [Unknown, Control, UserDefined, Unused, Byte].into_iter().find(|kind| *kind as i32 == code).unwrap_or(Normal)
    }
}

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";

/// The key of the token that starts a text.
pub(super) const BOS: &str = "tokenizer.ggml.bos_token_id";

/// The key of the token that ends a text.
pub(super) const EOS: &str = "tokenizer.ggml.eos_token_id";

/// llama.cpp's name for byte-level BPE.
const BYTE_LEVEL_BPE: &str = "gpt2";

/// llama.cpp's name for GPT-2's way of splitting text into words. Older files have no name, or `default`.
const GPT2_WORDS: &str = "gpt-2";

impl Gguf {
    /// Whether the file has a tokenizer of some kind.
    #[must_use]
    pub fn has_tokenizer(&self) -> bool {
        self.metadata.get(MODEL).is_some()
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// [`crate::Error::Format`] if the file has none, or a different kind than GPT-2's.
    pub fn vocabulary(&self) -> Result<Vocabulary<'_>> {
        match self.metadata.get(MODEL).map(Value::as_str) {
            Some(Some(BYTE_LEVEL_BPE)) => {}
            None => return Err(self.error("it has no tokenizer")),
            Some(other) => {
                let other = other.unwrap_or_default();
                return Err(self.error(format!("its tokenizer is of the kind {other:?}, not GPT-2's")));
            }
        }
        match self.metadata.get(PRE).map(|value| value.as_str().unwrap_or_default()) {
            None | Some("default" | GPT2_WORDS) => {}
            Some(other) => {
                return Err(self.error(format!("its tokenizer splits words like {other:?}, not like GPT-2")));
            }
        }
        let strings = |key| match self.metadata.get(key).and_then(Value::as_array).and_then(Array::strings) {
            Some(strings) => Ok(strings.map(Cow::Borrowed).collect::<Vec<_>>()),
            None => Err(self.error(format!("`{key}` is missing or is not an array of strings"))),
        };
        let (tokens, merges) = (strings(TOKENS)?, strings(MERGES)?);
        let kinds = self.metadata.get(TOKEN_TYPE).and_then(Value::as_array).and_then(Array::i32s);
        let mut kinds: Vec<TokenKind> = kinds.into_iter().flatten().map(TokenKind::of).collect();
        kinds.resize(tokens.len(), TokenKind::Normal);
        let id = |key| {
            let id = self.metadata.get(key).and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
            id.filter(|id| (*id as usize) < tokens.len())
        };
        let is_set = |key| matches!(self.metadata.get(key), Some(Value::Bool(true)));
        let (bos, eos) = (id(BOS), id(EOS));
        Ok(Vocabulary { tokens, kinds, merges, bos, eos, add_bos: is_set(ADD_BOS), add_eos: is_set(ADD_EOS) })
    }
}

impl Metadata {
    /// Adds a tokenizer, in the form that llama.cpp reads. The tokens that start and end its texts take the place of the
    /// configuration's.
    pub fn push_vocabulary(&mut self, vocabulary: &Vocabulary) {
        self.push(MODEL, Value::String(BYTE_LEVEL_BPE.into()));
        self.push(PRE, Value::String(GPT2_WORDS.into()));
        self.push(TOKENS, Value::Array(Array::of_strings(vocabulary.tokens.iter().map(|token| &**token))));
        self.push(TOKEN_TYPE, Value::Array(Array::of_i32(vocabulary.kinds.iter().map(|kind| *kind as i32))));
        self.push(MERGES, Value::Array(Array::of_strings(vocabulary.merges.iter().map(|merge| &**merge))));
        for (key, id, add_key, add) in
            [(BOS, vocabulary.bos, ADD_BOS, vocabulary.add_bos), (EOS, vocabulary.eos, ADD_EOS, vocabulary.add_eos)]
        {
            if let Some(id) = id {
                self.set(key, Value::U32(id));
            }
            self.push(add_key, Value::Bool(add));
        }
    }
}
