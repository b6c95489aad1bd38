//! Tokenizers other than byte-level BPE (WordPiece, Unigram, ...), through Hugging Face's library.
//!
//! Of the library, the models and single components are used. What runs them is here, so that each is within limits
//! ([`budget`]) and an error names it; and so are patterns and added tokens, for which the library takes quadratic time
//! and memory in some texts.

mod budget;
mod check;
mod dialect;
mod pattern;
mod steps;

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use rustc_hash::FxHashMap;
use serde_json::{Map, Value};
use tokenizers::{AddedVocabulary, Model as _, ModelWrapper, NormalizedString, NormalizerWrapper, PreTokenizedString};

use self::budget::Budget;
use self::steps::Steps;
use super::Token;
use super::added::{AddedToken, AddedTokens, Matching, Part};
use super::settings::Declared;
use super::vocabulary::{Vocabulary, in_order, shown};
use crate::base::foreign::guard;

/// A tokenizer of Hugging Face's library, without anything that it would add to a text or cut from it: templates,
/// padding, truncation.
pub(super) struct Library {
    model: ModelWrapper,
    steps: Steps,
    added: AddedVocabulary,
    /// The added tokens that the normalizer changes, as it writes them.
    normalized: FxHashMap<u32, String>,
    search: AddedTokens,
    /// Its file.
    path: PathBuf,
    /// The part in which it differs from GPT-2's, if it is a byte-level BPE.
    beyond_gpt2: Option<&'static str>,
}

impl Library {
    /// The tokenizer with these parts of a `tokenizer.json` of `length` bytes at `path`, the added tokens in it, and
    /// more of them.
    pub fn new(
        mut parts: Map<String, Value>,
        added: [Vec<Declared>; 2],
        path: &Path,
        length: usize,
        beyond_gpt2: Option<&'static str>,
    ) -> Result<(Vocabulary, Self), String> {
        if let Some(version) = parts.get("version").filter(|version| !version.is_null() && **version != "1.0") {
            return Err(format!("version {} of tokenizer.json is not supported", shown(&version.to_string())));
        }
        let model = parts.get("model").and_then(Value::as_object).ok_or("it has no model")?;
        check::check_model(model)?;
        let kind = model.get("type").and_then(Value::as_str).map(str::to_owned);
        let model = parts.remove("model").unwrap_or_default();
        let load = || {
            let budget = Budget::of_file(length);
            let steps = Steps::new(&parts, &budget)?;
            let model: ModelWrapper =
                serde_json::from_value(model).map_err(|_| unreadable("model", kind.as_deref()))?;
            let (added, normalized, search) = added_tokens(added, &model, &steps, &budget)?;
            let library = Self { model, steps, added, normalized, search, path: path.to_owned(), beyond_gpt2 };
            Ok((library.vocabulary(&budget)?, library))
        };
        guard(AssertUnwindSafe(load)).unwrap_or_else(|_| Err(format!("the tokenizer cannot be loaded: {FAULT}")))
    }

    /// Why GGUF cannot store it.
    pub fn beyond_gguf(&self) -> String {
        let path = self.path.display();
        match self.beyond_gpt2 {
            Some(part) => format!(
                "{path}: the tokenizer's `{part}` differs from GPT-2's, and GGUF cannot say how; convert to safetensors instead"
            ),
            None => format!("{path}: the tokenizer is not a byte-level BPE, and GGUF has no other kind for GPT-2"),
        }
    }

    /// Splits `text` into tokens; see [`super::Tokenizer::encode`].
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<Token>, String> {
        let budget = Budget::new(text.len());
        let tokens = guard(AssertUnwindSafe(|| self.tokens(text, special, &budget)));
        let tokens = tokens.unwrap_or_else(|_| Err(format!("the tokenizer cannot handle this text: {FAULT}")));
        tokens.map_err(|fault| format!("{}: {fault}", self.path.display()))
    }

    /// The text of `ids`; see [`super::Tokenizer::decode`].
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, String> {
        let text = guard(AssertUnwindSafe(|| {
            let tokens = ids.iter().filter_map(|&id| self.written(id));
            let tokens: Vec<String> =
                tokens.filter(|token| !(skip_special && self.added.is_special_token(token))).collect();
            let budget = Budget::new(tokens.iter().map(String::len).sum());
            self.steps.decode(tokens, &budget)
        }));
        let text = text.unwrap_or_else(|_| Err(format!("the tokens cannot be decoded: {FAULT}")));
        text.map_err(|fault| format!("{}: {fault}", self.path.display()))
    }

    /// The token as the decoder gets it.
    fn written(&self, id: u32) -> Option<String> {
        let normalized = self.normalized.get(&id).cloned();
        normalized.or_else(|| self.added.simple_id_to_token(id)).or_else(|| self.model.id_to_token(id))
    }

    /// Reference: `TokenizerImpl::encode_single_sequence` and `AddedVocabulary::extract_and_normalize`.
    fn tokens(&self, text: &str, special: bool, budget: &Budget) -> Result<Vec<Token>, String> {
        let mut tokens = vec![];
        let mut done = 0;
        let parts = self.search.split_once(text, false, special);
        for (mut piece, token) in cut(NormalizedString::from(text), &parts)? {
            if let Some(id) = token {
                tokens.push(token_at(id, &piece, (0, piece.len())));
                continue;
            }
            self.steps.normalize(&mut piece, done, budget)?;
            let size = piece.len();
            let parts = self.search.split_once(piece.get(), true, special);
            for (piece, token) in cut(piece, &parts)? {
                match token {
                    Some(id) => tokens.push(token_at(id, &piece, (0, piece.len()))),
                    None => {
                        let mut words = PreTokenizedString::from(piece);
                        self.steps.pre_tokenize(&mut words, done, budget)?;
                        self.tokenize(words, budget, &mut tokens)?;
                    }
                }
            }
            done += size;
        }
        Ok(tokens)
    }

    /// Finds the pieces of the vocabulary in words.
    fn tokenize(&self, mut words: PreTokenizedString, budget: &Budget, tokens: &mut Vec<Token>) -> Result<(), String> {
        let tokenize = |_, word: NormalizedString| {
            self.check_word(word.get())?;
            let found = self.model.tokenize(word.get())?;
            tokens.extend(found.into_iter().map(|token| token_at(token.id, &word, token.offsets)));
            budget.check_time().map_err(|fault| format!("model: {fault}"))?;
            Ok(None::<NormalizedString>)
        };
        words.split(tokenize).map_err(|e| e.to_string())
    }

    /// WordPiece looks up every part of a word, in cubic time, unless the word is longer than the file allows.
    fn check_word(&self, word: &str) -> Result<(), String> {
        const LONGEST: usize = 1 << 12;
        match &self.model {
            ModelWrapper::WordPiece(model)
                if word.len() > LONGEST && word.chars().count() <= model.max_input_chars_per_word =>
            {
                let length = word.len();
                Err(format!(
                    "model: WordPiece: a word of {length} bytes is too long; more than {LONGEST} take too long"
                ))
            }
            _ => Ok(()),
        }
    }

    /// The vocabulary, with the bytes that each token adds to a text.
    fn vocabulary(&self, budget: &Budget) -> Result<Vocabulary, String> {
        let mut entries: FxHashMap<String, u32> = self.model.get_vocab().into_iter().collect();
        entries.extend(self.added.get_vocab().iter().map(|(piece, id)| (piece.clone(), *id)));
        let pieces = in_order(entries.into_iter().map(|(piece, id)| (piece, u64::from(id))).collect())?;
        let added = self.added.get_added_tokens_decoder();
        let byte_level = self.steps.decodes_bytes();
        let decoded = |ids: &[u32]| {
            let tokens: Vec<String> = ids.iter().filter_map(|&id| self.written(id)).collect();
            let budget = budget.for_tokens(tokens.iter().map(String::len));
            self.steps.decode(tokens, &budget)
        };
        // Decoders strip or add spaces at the start of a text, so each token is decoded after another one.
        let mut before = vec![];
        for id in (0..pieces.len() as u32).filter(|id| !added.contains_key(id)) {
            if !decoded(&[id])?.is_empty() {
                before.push(id);
                break;
            }
        }
        let text_before = decoded(&before)?;
        let mut vocabulary = Vocabulary::with_capacity(pieces.len());
        for (piece, id) in pieces.iter().zip(0..) {
            if added.get(&id).is_some_and(|token| token.special) {
                vocabulary.push_added_as(piece, true, piece.bytes())?;
            } else if byte_level {
                vocabulary.push(piece)?;
            } else if let Some(end) = self.steps.word_end() {
                // Only the last token of a text has no space after it.
                vocabulary.push_as(piece, piece.replace(end, " ").into_bytes())?;
            } else {
                let both = decoded(&[&before[..], &[id]].concat())?;
                let text = match both.strip_prefix(&text_before) {
                    Some(text) => text.to_owned(),
                    None => decoded(&[id])?,
                };
                let length = self.written(id).map(|token| token.len());
                if let Err(fault) = budget.for_tokens(length.into_iter()).check_size(text.len()) {
                    // By itself it says which component made it.
                    decoded(&[id])?;
                    return Err(format!("decoder: {fault}"));
                }
                budget.check_time()?;
                match fallback_byte(piece) {
                    Some(byte) if text != *piece => vocabulary.push_as(piece, [byte])?,
                    _ => vocabulary.push_as(piece, text.into_bytes())?,
                };
            }
        }
        Ok(vocabulary)
    }
}

/// The added tokens as the library numbers them, those that the normalizer changes, and the search for all of them.
fn added_tokens(
    added: [Vec<Declared>; 2],
    model: &ModelWrapper,
    steps: &Steps,
    budget: &Budget,
) -> Result<(AddedVocabulary, FxHashMap<u32, String>, AddedTokens), String> {
    let mut vocabulary = AddedVocabulary::new();
    AddedTokens::check_size(added.iter().flatten().map(|(_, token)| token))?;
    for tokens in added {
        let tokens = tokens.into_iter().map(|(_, token)| in_library(token));
        vocabulary.add_tokens(tokens, model, None::<&NormalizerWrapper>).map_err(|e| e.to_string())?;
    }
    let mut changed = FxHashMap::default();
    let mut tokens = vec![];
    for (&id, token) in vocabulary.get_added_tokens_decoder() {
        let mut content = NormalizedString::from(token.content.as_str());
        if token.normalized {
            steps.normalize(&mut content, 0, &budget.for_tokens([token.content.len()].into_iter()))?;
            budget.check_time()?;
            if content.get() != token.content {
                changed.insert(id, content.get().to_owned());
            }
        }
        let special = vocabulary.is_special_token(&token.content);
        let tokenizers::AddedToken { single_word, lstrip, rstrip, normalized, .. } = *token;
        let content = content.get().to_owned();
        // Of those that the normalizer makes equal, the one with the lowest id is found.
        tokens.push((id, AddedToken { content, single_word, lstrip, rstrip, normalized, special }));
    }
    Ok((vocabulary, changed, AddedTokens::new(tokens, Matching::HuggingFace)?))
}

/// The parts of a piece, and the added tokens that they are.
fn cut(piece: NormalizedString, parts: &[Part]) -> Result<Vec<(NormalizedString, Option<u32>)>, String> {
    if let [Part { token, start: 0, end }] = parts
        && *end == piece.len()
    {
        return Ok(vec![(piece, *token)]);
    }
    let slice = |part: &Part| {
        let slice = piece.slice(tokenizers::normalizer::Range::Normalized(part.start..part.end));
        Ok((slice.ok_or_else(|| format!("the tokenizer cannot handle this text: {FAULT}"))?, part.token))
    };
    parts.iter().map(slice).collect()
}

/// A token at these offsets in a normalized word.
fn token_at(id: u32, word: &NormalizedString, (start, end): (usize, usize)) -> Token {
    let range = word.convert_offsets(tokenizers::normalizer::Range::Normalized(start..end));
    let first = word.offsets_original().0;
    match range {
        Some(range) => Token { id, start: first + range.start, end: first + range.end },
        None => Token { id, start, end },
    }
}

/// Why the library panics on some files that it takes.
const FAULT: &str = "a fault of the library `tokenizers`";

fn in_library(token: AddedToken) -> tokenizers::AddedToken {
    let AddedToken { content, single_word, lstrip, rstrip, normalized, special } = token;
    tokenizers::AddedToken { content, single_word, lstrip, rstrip, normalized, special }
}

/// Names a part that the library cannot read.
fn unreadable(place: &str, kind: Option<&str>) -> String {
    let kind = kind.map(|kind| format!(" of type {}", shown(kind))).unwrap_or_default();
    format!("its `{place}`{kind} lacks something, or has it in another form than the library `tokenizers` expects")
}

/// The byte of a piece like `<0x0A>`; SentencePiece vocabularies have these for bytes without any other token.
fn fallback_byte(piece: &str) -> Option<u8> {
    u8::from_str_radix(piece.strip_prefix("<0x")?.strip_suffix('>')?, 16).ok()
}
