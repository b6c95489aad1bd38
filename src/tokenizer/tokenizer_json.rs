//! `tokenizer.json`: a byte-level BPE like GPT-2's becomes one of ours, any other tokenizer goes to Hugging Face's
//! library.

use std::borrow::Cow;
use std::fmt;

use rustc_hash::FxHashSet;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::vocabulary::{in_order, merge};
use super::{Tokenizer, alphabet};

/// Parses a `tokenizer.json`.
pub(super) fn parse(json: &[u8]) -> Result<Tokenizer, String> {
    match serde_json::from_slice::<ByteLevelJson<'_>>(json) {
        Ok(file) if file.is_like_gpt2() => file.into_tokenizer(),
        _ => of_another_kind(json),
    }
}

#[cfg(feature = "tokenizers")]
fn of_another_kind(json: &[u8]) -> Result<Tokenizer, String> {
    let (vocabulary, library) = super::library::Library::from_json(json)?;
    Ok(Tokenizer { vocabulary, encoder: super::Encoder::Library(Box::new(library)) })
}

#[cfg(not(feature = "tokenizers"))]
fn of_another_kind(json: &[u8]) -> Result<Tokenizer, String> {
    serde_json::from_slice::<IgnoredAny>(json).map_err(|e| format!("not a tokenizer: {e}"))?;
    Err("not a byte-level BPE like GPT-2's; other kinds need the feature `tokenizers`, without which this was built"
        .into())
}

/// A `tokenizer.json` with a byte-level BPE; files with other tokenizers fail to parse as one.
#[derive(Deserialize)]
struct ByteLevelJson<'a> {
    #[serde(default, borrow)]
    added_tokens: Vec<AddedToken<'a>>,
    normalizer: Option<IgnoredAny>,
    #[serde(borrow)]
    pre_tokenizer: PreTokenizer<'a>,
    #[serde(borrow)]
    decoder: Decoder<'a>,
    #[serde(borrow)]
    model: Model<'a>,
}

#[derive(Deserialize)]
struct AddedToken<'a> {
    id: u64,
    #[serde(borrow)]
    content: Cow<'a, str>,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct PreTokenizer<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    add_prefix_space: bool,
    #[serde(default = "yes")]
    use_regex: bool,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct Decoder<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Model<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<Cow<'a, str>>,
    dropout: Option<f64>,
    unk_token: Option<IgnoredAny>,
    #[serde(borrow)]
    continuing_subword_prefix: Option<Cow<'a, str>>,
    #[serde(borrow)]
    end_of_word_suffix: Option<Cow<'a, str>>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    #[serde(borrow)]
    vocab: Entries<'a>,
    #[serde(borrow)]
    merges: Vec<Merge<'a>>,
}

/// A merge, as older and newer files write it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge<'a> {
    Line(#[serde(borrow)] Cow<'a, str>),
    Pair(#[serde(borrow)] Cow<'a, str>, #[serde(borrow)] Cow<'a, str>),
}

impl ByteLevelJson<'_> {
    /// Whether the tokenizer differs from GPT-2's only in vocabulary and merges.
    fn is_like_gpt2(&self) -> bool {
        let none = |affix: &Option<Cow<'_, str>>| affix.as_ref().is_none_or(|affix| affix.is_empty());
        let model = &self.model;
        self.normalizer.is_none()
            && self.pre_tokenizer.kind == "ByteLevel"
            && !self.pre_tokenizer.add_prefix_space
            && self.pre_tokenizer.use_regex
            && self.decoder.kind == "ByteLevel"
            && model.kind.as_ref().is_none_or(|kind| kind == "BPE")
            && model.dropout.is_none_or(|dropout| dropout == 0.0)
            && (model.unk_token.is_none() || model.has_every_byte())
            && none(&model.continuing_subword_prefix)
            && none(&model.end_of_word_suffix)
            && !model.byte_fallback
            && !model.ignore_merges
            && self.added_tokens.iter().all(AddedToken::is_plain)
    }

    fn into_tokenizer(self) -> Result<Tokenizer, String> {
        let mut entries = self.model.vocab.0;
        let known: FxHashSet<_> = entries.iter().map(|(piece, id)| (piece.clone(), *id)).collect();
        let added = self.added_tokens.iter().map(|token| (token.content.clone(), token.id));
        entries.extend(added.filter(|token| !known.contains(token)));
        let pieces = in_order(entries)?;
        let pairs = self.model.merges.iter().map(Merge::pair).collect::<Result<Vec<_>, _>>()?;
        let special: Vec<_> = self.added_tokens.iter().filter_map(|token| u32::try_from(token.id).ok()).collect();
        Tokenizer::byte_level(&pieces, &pairs, &special)
    }
}

impl AddedToken<'_> {
    fn is_plain(&self) -> bool {
        self.special && !self.single_word && !self.lstrip && !self.rstrip && !self.content.is_empty()
    }
}

impl Model<'_> {
    fn has_every_byte(&self) -> bool {
        let pieces: FxHashSet<_> = self.vocab.0.iter().map(|(piece, _)| &**piece).collect();
        alphabet::in_vocabulary_order().all(|letter| pieces.contains(&*letter.encode_utf8(&mut [0; 4])))
    }
}

impl Merge<'_> {
    fn pair(&self) -> Result<(&str, &str), String> {
        match self {
            Self::Line(line) => merge(line),
            Self::Pair(left, right) => Ok((left, right)),
        }
    }
}

/// A JSON object of pieces and ids, in file order. Nothing is allocated by the size of an id.
pub(super) struct Entries<'a>(pub Vec<(Cow<'a, str>, u64)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor).map(Self)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Vec<(Cow<'de, str>, u64)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of pieces and ids")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((Piece(piece), id)) = map.next_entry()? {
            entries.push((piece, id));
        }
        Ok(entries)
    }
}

/// A piece, borrowed from the file if it is written without escapes.
#[derive(Deserialize)]
struct Piece<'a>(#[serde(borrow)] Cow<'a, str>);
