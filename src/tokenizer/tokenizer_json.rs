//! `tokenizer.json`: a byte-level BPE becomes one of ours, any other tokenizer goes to Hugging Face's library.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use rustc_hash::FxHashSet;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value, json};

use super::class::Family;
use super::load::{ByteLevelParts, Fault};
use super::settings::{Declared, Settings, properties};
use super::template::Template;
use super::vocabulary::{merge, shown};
use super::{Tokenizer, alphabet};
use crate::error::{Error, Result};
use crate::json;

/// Qwen2's words.
const QWEN2_WORDS: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Parses the `tokenizer.json` at `path`, with the small files beside it.
pub(super) fn parse(json: &[u8], settings: &Settings, path: &Path) -> Result<Tokenizer> {
    let fault = |message| Error::format(path, message);
    let mut tokenizer = match serde_json::from_slice::<ByteLevelJson<'_>>(json) {
        Ok(file) if file.is_byte_level_bpe() => match settings.family {
            family if family.rebuilds() => file.into_tokenizer(settings),
            Family::Plain | Family::Unknown if file.beyond_gpt2().is_none() => file.into_tokenizer(settings),
            family if file.is_as_made_by(family, settings) => of_another_kind(json, settings, path, file.beyond_gpt2()),
            _ => return Err(settings.refusal()),
        },
        Err(e) if !e.is_data() => Err(json::fault(json, &e)),
        _ => of_another_kind(json, settings, path, None),
    }
    .map_err(fault)?;
    tokenizer.settle(settings);
    let unknown = tokenizer.template.ids().find(|id| tokenizer.piece(*id).is_none());
    match unknown {
        Some(id) => Err(fault(format!("`post_processor` adds the token {id}, which the vocabulary lacks"))),
        None => Ok(tokenizer),
    }
}

#[cfg(feature = "tokenizers")]
fn of_another_kind(
    json: &[u8],
    settings: &Settings,
    path: &Path,
    beyond_gpt2: Option<&'static str>,
) -> Result<Tokenizer, String> {
    let parts = object(json)?;
    let declared = declared(parts.get("added_tokens").unwrap_or_default())?;
    let template = Template::of(parts.get("post_processor").unwrap_or_default())?;
    let added = settings.added_tokens(&declared);
    let added = [declared, added];
    let (vocabulary, library) = super::library::Library::new(parts, added, path, json.len(), beyond_gpt2)?;
    let mut tokenizer = Tokenizer::new(vocabulary, super::Encoder::Library(Box::new(library)));
    tokenizer.template = template;
    Ok(tokenizer)
}

#[cfg(not(feature = "tokenizers"))]
fn of_another_kind(json: &[u8], _: &Settings, _: &Path, _: Option<&'static str>) -> Result<Tokenizer, String> {
    object(json)?;
    Err("not a byte-level BPE like GPT-2's; other kinds need the feature `tokenizers`, without which this was built"
        .into())
}

fn object(json: &[u8]) -> Result<Map<String, Value>, String> {
    match serde_json::from_slice(json).map_err(|e| json::fault(json, &e))? {
        Value::Object(parts) => Ok(parts),
        _ => Err("not a tokenizer, which is a JSON object".into()),
    }
}

/// The `added_tokens` of a file.
fn declared(tokens: &Value) -> Result<Vec<Declared>, String> {
    let tokens = match tokens {
        Value::Null => return Ok(vec![]),
        tokens => tokens.as_array().ok_or("`added_tokens` is not a list")?,
    };
    let token = |(at, token): (usize, &Value)| {
        let wrong = |fault: String| format!("`added_tokens`: item {at}: {fault}");
        let object = token.as_object().ok_or_else(|| wrong("it is not an object".into()))?;
        let id = object.get("id").and_then(Value::as_u64);
        let id = id.ok_or_else(|| wrong("its `id` is not a whole number from 0".into()))?;
        Ok((Some(id), properties(object).map_err(wrong)?))
    };
    tokens.iter().enumerate().map(token).collect()
}

/// A `tokenizer.json` with a BPE; files with other models fail to parse as one.
#[derive(Deserialize)]
struct ByteLevelJson<'a> {
    #[serde(default)]
    added_tokens: Value,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(borrow)]
    model: Model<'a>,
}

#[derive(Deserialize)]
struct Model<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(default)]
    dropout: Value,
    unk_token: Option<IgnoredAny>,
    #[serde(default)]
    continuing_subword_prefix: Value,
    #[serde(default)]
    end_of_word_suffix: Value,
    #[serde(default)]
    byte_fallback: Value,
    #[serde(default)]
    ignore_merges: Value,
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
    /// Whether the model is a BPE of bytes. What else the file says about splitting text does not matter to the class
    /// `GPT2Tokenizer`.
    fn is_byte_level_bpe(&self) -> bool {
        let kind = |part: &Value| part.get("type").is_some_and(|kind| kind == "ByteLevel");
        let has = |part: &Value, list: &str| {
            let parts = part.get(list).and_then(Value::as_array);
            kind(part) || parts.is_some_and(|parts| parts.iter().any(kind))
        };
        self.model.is_bpe() && (has(&self.pre_tokenizer, "pretokenizers") || has(&self.decoder, "decoders"))
    }

    /// The part, if any, in which the tokenizer differs from GPT-2's beyond vocabulary, merges, added tokens, and what
    /// it puts in front.
    fn beyond_gpt2(&self) -> Option<&'static str> {
        let is = |part: &Value, key: &str, value: Value| part.get(key) == Some(&value);
        let unset = |value: &Value| matches!(value, Value::Null | Value::Bool(false)) || value == "" || value == 0.0;
        let model = &self.model;
        let is_byte_level = is(&self.pre_tokenizer, "type", "ByteLevel".into())
            && self.pre_tokenizer.get("add_prefix_space").is_some_and(Value::is_boolean)
            && self.pre_tokenizer.get("use_regex").is_none_or(|uses| uses == true);
        let is_plain_bpe = model.is_bpe()
            && (model.unk_token.is_none() || model.has_every_byte())
            && [&model.dropout, &model.continuing_subword_prefix, &model.end_of_word_suffix].into_iter().all(unset)
            && [&model.byte_fallback, &model.ignore_merges].into_iter().all(unset);
        let parts = [
            ("normalizer", self.normalizer.is_null()),
            ("pre_tokenizer", is_byte_level),
            ("decoder", is(&self.decoder, "type", "ByteLevel".into())),
            ("model", is_plain_bpe),
        ];
        parts.into_iter().find(|(_, is_gpt2s)| !is_gpt2s).map(|(name, _)| name)
    }

    /// Whether a class of this family makes of the file what the file says itself.
    fn is_as_made_by(&self, family: Family, settings: &Settings) -> bool {
        let part = |part: &Value, key: &str| part.get(key).cloned().unwrap_or_default();
        let byte_level = |part: &Value, uses_regex: bool| {
            part.get("type").is_some_and(|kind| kind == "ByteLevel")
                && part.get("add_prefix_space") == Some(&settings.is_set("add_prefix_space").into())
                && part.get("use_regex").is_none_or(|uses| *uses == uses_regex)
        };
        let is_nfc = self.normalizer == json!({"type": "NFC"});
        match family {
            Family::Plain | Family::Unknown => true,
            Family::GptNeoX => {
                let is_bare = Template::of(&self.post_processor).is_ok_and(|template| template.ids().next().is_none());
                is_nfc && is_bare && byte_level(&self.pre_tokenizer, true)
            }
            Family::Qwen2 => {
                let parts = part(&self.pre_tokenizer, "pretokenizers");
                let split = json!({
                    "type": "Split", "pattern": {"Regex": QWEN2_WORDS}, "behavior": "Isolated", "invert": false,
                });
                is_nfc && parts.get(0) == Some(&split) && parts.get(1).is_some_and(|part| byte_level(part, false))
            }
            _ => false,
        }
    }

    /// The tokenizer as the class makes it.
    fn into_tokenizer(self, settings: &Settings) -> Result<Tokenizer, String> {
        let declared = declared(&self.added_tokens)?;
        let rebuilds = settings.family.rebuilds();
        let from_settings = settings.added_tokens(&declared);
        let added = if rebuilds { from_settings } else { [declared, from_settings].concat() };
        let prefix_space = match rebuilds {
            true => settings.is_set("add_prefix_space"),
            false => self.pre_tokenizer.get("add_prefix_space") == Some(&Value::Bool(true)),
        };
        let pairs = self.model.merges.iter().map(Merge::pair).collect::<Result<Vec<_>, _>>()?;
        let parts = ByteLevelParts { entries: self.model.vocab.0, pairs, added, prefix_space };
        let tokenizer = parts.into_tokenizer().map_err(Fault::into_message)?;
        Ok(Tokenizer { template: Template::of(&self.post_processor)?, ..tokenizer })
    }
}

impl Model<'_> {
    fn is_bpe(&self) -> bool {
        self.kind.as_ref().is_none_or(|kind| kind == "BPE")
    }

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
        while let Some(Piece(piece)) = map.next_key()? {
            match map.next_value::<Value>()?.as_u64() {
                Some(id) => entries.push((piece, id)),
                None => {
                    let problem = format!("the id of {} is not a whole number from 0", shown(&piece));
                    return Err(A::Error::custom(problem));
                }
            }
        }
        Ok(entries)
    }
}

/// A piece, borrowed from the file if it is written without escapes.
#[derive(Deserialize)]
struct Piece<'a>(#[serde(borrow)] Cow<'a, str>);
