//! Tokenizers other than byte-level BPE (WordPiece, Unigram, ...), through Hugging Face's library.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde_json::{Map, Value};
use tokenizers::{DecoderWrapper, Tokenizer};

use super::Token;
use super::vocabulary::{Vocabulary, in_order, shown};

/// A tokenizer of Hugging Face's library, without anything that it would add to a text or cut from it: templates,
/// padding, truncation.
pub(super) struct Library {
    tokenizer: Tokenizer,
    /// The same, but treating special tokens as plain text; made on first use.
    plain: OnceLock<Box<Tokenizer>>,
}

impl Library {
    /// Parses a `tokenizer.json`.
    pub fn from_json(json: &[u8]) -> Result<(Vocabulary, Self), String> {
        let broken = |e: &dyn std::fmt::Display| format!("not a tokenizer: {e}");
        let mut parts: Map<String, Value> = serde_json::from_slice(json).map_err(|e| broken(&e))?;
        check(&parts)?;
        parts.retain(|key, _| KEPT.contains(&key.as_str()));
        let json = serde_json::to_vec(&parts).map_err(|e| broken(&e))?;
        let tokenizer = Tokenizer::from_bytes(json).map_err(|e| broken(&e))?;
        let vocabulary = vocabulary(&tokenizer)?;
        Ok((vocabulary, Self { tokenizer, plain: OnceLock::new() }))
    }

    /// Splits `text` into tokens; see [`super::Tokenizer::encode`].
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<Token>, String> {
        let tokenizer = if special { &self.tokenizer } else { self.plain() };
        let encoding = tokenizer.encode(text, false).map_err(|e| e.to_string())?;
        let tokens = encoding.get_ids().iter().zip(encoding.get_offsets());
        Ok(tokens.map(|(&id, &(start, end))| Token { id, start, end }).collect())
    }

    /// The text of `ids`; `None` if the decoder cannot join them.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Option<String> {
        self.tokenizer.decode(ids, skip_special).ok()
    }

    fn plain(&self) -> &Tokenizer {
        self.plain.get_or_init(|| {
            let mut plain = self.tokenizer.clone();
            plain.set_encode_special_tokens(true);
            Box::new(plain)
        })
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
    let prefix = model.get("continuing_subword_prefix").and_then(Value::as_str).unwrap_or_default();
    if model.contains_key("merges") && !prefix.is_empty() {
        return Err("merges with a continuing_subword_prefix are not supported".into());
    }
    check_part(parts.get("normalizer"), "normalizer", &NORMALIZERS)?;
    check_part(parts.get("pre_tokenizer"), "pre_tokenizer", &PRE_TOKENIZERS)?;
    check_part(parts.get("decoder"), "decoder", &DECODERS)
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
            vocabulary.push_special(piece)?;
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
