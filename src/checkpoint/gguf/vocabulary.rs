//! The tokenizer in the metadata of a GGUF file.

use super::{Array, Gguf, Metadata, Value};
use crate::error::Result;

/// A byte-level BPE vocabulary: tokens and merges as `vocab.json` and `merges.txt` write them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vocabulary<'a> {
    /// Tokens by id: `Ġtheory`.
    pub tokens: Vec<&'a str>,
    /// Merges by rank: `Ġ t`.
    pub merges: Vec<&'a str>,
    /// The ids of special tokens, ascending.
    pub special: Vec<u32>,
}

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";

/// llama.cpp's name for byte-level BPE.
const BYTE_LEVEL_BPE: &str = "gpt2";

/// llama.cpp's name for GPT-2's way of splitting text into words. Older files have no name, or `default`.
const GPT2_WORDS: &str = "gpt-2";

/// llama.cpp's `token_type` of ordinary and of special tokens.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;

impl Gguf {
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
            Some(strings) => Ok(strings.collect::<Vec<_>>()),
            None => Err(self.error(format!("`{key}` is missing or is not an array of strings"))),
        };
        let kinds = self.metadata.get(TOKEN_TYPE).and_then(Value::as_array).and_then(Array::i32s);
        let special = (0..).zip(kinds.into_iter().flatten()).filter(|(_, kind)| *kind == CONTROL).map(|(id, _)| id);
        let (tokens, merges) = (strings(TOKENS)?, strings(MERGES)?);
        let special = special.take_while(|id: &u32| (*id as usize) < tokens.len()).collect();
        Ok(Vocabulary { tokens, merges, special })
    }
}

impl Metadata {
    /// Adds a tokenizer, in the form that llama.cpp reads.
    pub fn push_vocabulary(&mut self, vocabulary: &Vocabulary) {
        let kind = |id| if vocabulary.special.binary_search(&id).is_ok() { CONTROL } else { NORMAL };
        let kinds = (0..).zip(&vocabulary.tokens).map(|(id, _)| kind(id));
        self.push(MODEL, Value::String(BYTE_LEVEL_BPE.into()));
        self.push(PRE, Value::String(GPT2_WORDS.into()));
        self.push(TOKENS, Value::Array(Array::of_strings(vocabulary.tokens.iter().copied())));
        self.push(TOKEN_TYPE, Value::Array(Array::of_i32(kinds)));
        self.push(MERGES, Value::Array(Array::of_strings(vocabulary.merges.iter().copied())));
        self.push(ADD_BOS, Value::Bool(false));
    }
}
