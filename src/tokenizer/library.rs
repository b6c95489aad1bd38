//! Tokenizers other than byte-level BPE (WordPiece, Unigram, ...), through Hugging Face's library.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokenizers::{AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

use super::Token;
use super::settings::Declared;
use super::vocabulary::{Vocabulary, in_order, shown};
use crate::base::foreign::guard;

/// A tokenizer of Hugging Face's library, without anything that it would add to a text or cut from it: templates,
/// padding, truncation.
pub(super) struct Library {
    tokenizer: Tokenizer,
    /// Its file.
    path: PathBuf,
    /// The part in which it differs from GPT-2's, if it is a byte-level BPE.
    beyond_gpt2: Option<&'static str>,
    /// The same, but treating special tokens as plain text; made on first use.
    plain: OnceLock<Box<Tokenizer>>,
}

impl Library {
    /// The tokenizer with these parts of a `tokenizer.json` at `path`, and more added tokens.
    pub fn new(
        mut parts: Map<String, Value>,
        added: Vec<Declared>,
        path: &Path,
        beyond_gpt2: Option<&'static str>,
    ) -> Result<(Vocabulary, Self), String> {
        check(&parts)?;
        parts.retain(|key, _| KEPT.contains(&key.as_str()));
        let load = || {
            let json = serde_json::to_vec(&parts).map_err(|e| e.to_string())?;
            let mut tokenizer = Tokenizer::from_bytes(json).map_err(|_| unreadable(&parts))?;
            tokenizer.add_tokens(added.into_iter().map(|(_, token)| in_library(token))).map_err(|e| e.to_string())?;
            let vocabulary = vocabulary(&tokenizer)?;
            Ok((vocabulary, Self { tokenizer, path: path.to_owned(), beyond_gpt2, plain: OnceLock::new() }))
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
        let tokenizer = if special { &self.tokenizer } else { self.plain() };
        let path = self.path.display();
        let encoding = guard(AssertUnwindSafe(|| tokenizer.encode(text, false)));
        let encoding = encoding.map_err(|_| format!("{path}: the tokenizer cannot handle this text: {FAULT}"))?;
        let encoding = encoding.map_err(|e| format!("{path}: {e}"))?;
        let tokens = encoding.get_ids().iter().zip(encoding.get_offsets());
        Ok(tokens.map(|(&id, &(start, end))| Token { id, start, end }).collect())
    }

    /// The text of `ids`; `None` if the decoder cannot join them.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Option<String> {
        guard(AssertUnwindSafe(|| self.tokenizer.decode(ids, skip_special))).ok()?.ok()
    }

    fn plain(&self) -> &Tokenizer {
        self.plain.get_or_init(|| {
            let mut plain = self.tokenizer.clone();
            plain.set_encode_special_tokens(true);
            Box::new(plain)
        })
    }
}

/// Why the library panics on some files that it takes.
const FAULT: &str = "a fault of the library `tokenizers`; it cannot handle added tokens that are `normalized` and take \
                     white space along (`lstrip`, `rstrip`) with a normalizer that shortens the text";

fn in_library(token: super::added::AddedToken) -> AddedToken {
    let super::added::AddedToken { content, single_word, lstrip, rstrip, normalized, special } = token;
    AddedToken { content, single_word, lstrip, rstrip, normalized, special }
}

/// Names the part that the library cannot read.
fn unreadable(parts: &Map<String, Value>) -> String {
    fn fails<T: DeserializeOwned>(part: &Value) -> bool {
        serde_json::from_value::<T>(part.clone()).is_err()
    }
    type Fails = fn(&Value) -> bool;
    let checks: [(&str, Fails); 5] = [
        ("added_tokens", fails::<Option<Vec<AddedToken>>>),
        ("normalizer", fails::<Option<NormalizerWrapper>>),
        ("pre_tokenizer", fails::<Option<PreTokenizerWrapper>>),
        ("decoder", fails::<Option<DecoderWrapper>>),
        ("model", fails::<ModelWrapper>),
    ];
    let at_fault = checks.into_iter().find(|(key, fails)| parts.get(*key).is_some_and(fails));
    match at_fault {
        Some((key, _)) => {
            let kind = parts.get(key).and_then(|part| part.get("type")).and_then(Value::as_str);
            let kind = kind.map(|kind| format!(" of type {}", shown(kind))).unwrap_or_default();
            format!(
                "its `{key}`{kind} lacks something, or has it in another form than the library `tokenizers` expects"
            )
        }
        None => "not a tokenizer that the library `tokenizers` can read".into(),
    }
}

/// The parts of a `tokenizer.json` that the library gets to see: none that add to a text or cut it.
const KEPT: [&str; 6] = ["version", "added_tokens", "normalizer", "pre_tokenizer", "decoder", "model"];

/// Rejects what would make the library panic, or worse: it trusts files to be well-formed. Kinds of parts that are not
/// listed here were never tried on broken files.
fn check(parts: &Map<String, Value>) -> Result<(), String> {
    const MODELS: [&str; 4] = ["BPE", "WordPiece", "WordLevel", "Unigram"];
    const NORMALIZERS: [&str; 12] = [
        "Sequence",
        "BertNormalizer",
        "NFC",
        "NFD",
        "NFKC",
        "NFKD",
        "Lowercase",
        "StripAccents",
        "Strip",
        "Replace",
        "Prepend",
        "ByteLevel",
    ];
    const PRE_TOKENIZERS: [&str; 10] = [
        "Sequence",
        "ByteLevel",
        "BertPreTokenizer",
        "Whitespace",
        "WhitespaceSplit",
        "Metaspace",
        "Split",
        "Punctuation",
        "Digits",
        "CharDelimiterSplit",
    ];
    const DECODERS: [&str; 9] =
        ["Sequence", "ByteLevel", "WordPiece", "Metaspace", "BPEDecoder", "Replace", "Fuse", "Strip", "ByteFallback"];
    let model = parts.get("model").and_then(Value::as_object).ok_or("it has no model")?;
    // Files of the first versions do not name the type.
    if let Some(kind) = model.get("type").map(|kind| kind.as_str().unwrap_or_default())
        && !MODELS.contains(&kind)
    {
        return Err(format!("a model of type {} is not supported", shown(kind)));
    }
    check_vocabulary(model)?;
    let prefix = model.get("continuing_subword_prefix").and_then(Value::as_str).unwrap_or_default();
    if model.contains_key("merges") && !prefix.is_empty() {
        return Err("merges with a continuing_subword_prefix are not supported".into());
    }
    check_part(parts.get("normalizer"), "normalizer", &NORMALIZERS)?;
    check_part(parts.get("pre_tokenizer"), "pre_tokenizer", &PRE_TOKENIZERS)?;
    check_part(parts.get("decoder"), "decoder", &DECODERS)
}

/// Checks a vocabulary written as an object, and merges.
fn check_vocabulary(model: &Map<String, Value>) -> Result<(), String> {
    let is_id = |id: &Value| id.as_u64().is_some_and(|id| u32::try_from(id).is_ok());
    let vocabulary = model.get("vocab").and_then(Value::as_object);
    if let Some((piece, _)) = vocabulary.and_then(|vocabulary| vocabulary.iter().find(|(_, id)| !is_id(id))) {
        return Err(format!("`model.vocab`: the id of {} is not a whole number from 0", shown(piece)));
    }
    let is_merge = |merge: &Value| match merge {
        Value::String(_) => true,
        Value::Array(pair) => pair.len() == 2 && pair.iter().all(Value::is_string),
        _ => false,
    };
    let Some(merges) = model.get("merges") else { return Ok(()) };
    let merges = merges.as_array().ok_or("`model.merges` is not a list")?;
    match merges.iter().position(|merge| !is_merge(merge)) {
        Some(at) => Err(format!("`model.merges`: item {at} is not a merge, which is two pieces")),
        None => Ok(()),
    }
}

/// Checks a part and, if it is a sequence, the parts in it.
fn check_part(part: Option<&Value>, name: &str, supported: &[&str]) -> Result<(), String> {
    let Some(part) = part.filter(|part| !part.is_null()) else { return Ok(()) };
    let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
    if !supported.contains(&kind) {
        return Err(format!("a {name} of type {} is not supported", shown(kind)));
    }
    if part.get("prepend").is_some_and(|text| text == "") {
        return Err(format!("a {name} that prepends nothing is not supported"));
    }
    if part.get("stop").is_some_and(|stop| stop != 0) {
        return Err(format!("a {name} that strips the end of tokens is not supported"));
    }
    let within = part.as_object().into_iter().flat_map(Map::values).filter_map(Value::as_array).flatten();
    within.filter(|_| kind == "Sequence").try_for_each(|part| check_part(Some(part), name, supported))
}

/// The tokenizer's vocabulary, with the bytes that each token adds to a text.
fn vocabulary(tokenizer: &Tokenizer) -> Result<Vocabulary, String> {
    let entries: HashMap<String, u32> = tokenizer.get_vocab(true);
    let pieces = in_order(entries.into_iter().map(|(piece, id)| (piece, u64::from(id))).collect())?;
    let added = tokenizer.get_added_tokens_decoder();
    let byte_level = matches!(tokenizer.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
    let decoded = |ids: &[u32]| tokenizer.decode(ids, false).unwrap_or_default();
    // Decoders strip or add spaces at the start of a text, so each token is decoded after another one.
    let before = (0..pieces.len() as u32).find(|&id| !added.contains_key(&id) && !decoded(&[id]).is_empty());
    let before: Vec<u32> = before.into_iter().collect();
    let text_before = decoded(&before);
    let mut vocabulary = Vocabulary::with_capacity(pieces.len());
    for (piece, id) in pieces.iter().zip(0..) {
        if added.get(&id).is_some_and(|token| token.special) {
            vocabulary.push_added_as(piece, true, piece.bytes())?;
        } else if byte_level {
            vocabulary.push(piece)?;
        } else {
            let both = decoded(&[&before[..], &[id]].concat());
            let text = both.strip_prefix(&text_before).map_or_else(|| decoded(&[id]), str::to_owned);
            match fallback_byte(piece) {
                Some(byte) if text != *piece => vocabulary.push_as(piece, [byte])?,
                _ => vocabulary.push_as(piece, text.into_bytes())?,
            };
        }
    }
    Ok(vocabulary)
}

/// The byte of a piece like `<0x0A>`; SentencePiece vocabularies have these for bytes without any other token.
fn fallback_byte(piece: &str) -> Option<u8> {
    u8::from_str_radix(piece.strip_prefix("<0x")?.strip_suffix('>')?, 16).ok()
}
