//! The small files beside a vocabulary: `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`, and the
//! tokenizer's class in `config.json`.
//!
//! Reference: transformers 5.23.0, `PreTrainedTokenizerBase._from_pretrained`, `TokenizersBackend.__init__` and
//! `GPT2Tokenizer`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::added::AddedToken;
use super::class::Family;
use super::load::{HuggingFaceFiles, VocabularyFiles};
use super::vocabulary::shown;
use crate::error::{Error, Result};
use crate::files::SmallFile;
use crate::json;

/// The tokens with a role, in transformers' order.
const NAMED: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// An added token and the id that a file gives it.
pub(super) type Declared = (Option<u64>, AddedToken);

/// What the small files say.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// What transformers makes of the vocabulary.
    pub family: Family,
    /// The name that says so.
    class: Option<Class>,
    /// The settings of `tokenizer_config.json`, over them those of `special_tokens_map.json`.
    keys: Map<String, Value>,
    /// The tokens with an id of `added_tokens_decoder`; `None` if there is no such key.
    decoder: Option<BTreeMap<u64, AddedToken>>,
    /// Those of `added_tokens.json`.
    added: BTreeMap<u64, String>,
}

impl Settings {
    /// Reads the small files.
    pub fn read(files: &HuggingFaceFiles) -> Result<Self> {
        let mut keys = files.tokenizer_config.as_ref().map(object).transpose()?.unwrap_or_default();
        let model = files.config.as_ref().map(object).transpose()?.unwrap_or_default();
        let class = Class::named(files, &keys, &model);
        let named = class.as_ref().map(|class| Family::of_class(&class.name)).unwrap_or_default();
        let family = match &files.vocabulary {
            // Files that transformers does not read with this class are those of a GPT-2.
            VocabularyFiles::VocabAndMerges(..) if named == Family::Plain => Family::Gpt2,
            _ => named,
        };
        let decoder = match (&files.tokenizer_config, keys.remove("added_tokens_decoder")) {
            (Some(file), Some(tokens)) => Some(decoder(&tokens).map_err(|fault| Error::format(file.path(), fault))?),
            _ => None,
        };
        if is_empty(keys.get("extra_special_tokens"))
            && let Some(tokens) = keys.remove("additional_special_tokens")
        {
            keys.insert("extra_special_tokens".into(), tokens);
        }
        let mut settings = Self { family, class, keys, decoder, added: BTreeMap::new() };
        if settings.decoder.is_none() {
            if let Some(file) = &files.special_tokens_map {
                settings.take_special_tokens(object(file)?);
            }
            if let Some(file) = &files.added_tokens {
                settings.added = added(object(file)?).map_err(|fault| Error::format(file.path(), fault))?;
            }
        }
        Ok(settings)
    }

    fn take_special_tokens(&mut self, map: Map<String, Value>) {
        const EXTRA: &str = "extra_special_tokens";
        for (key, value) in map {
            match (key.as_str(), value) {
                (EXTRA, Value::Array(tokens)) => {
                    let known = self.keys.entry(key).or_insert_with(|| Value::Array(vec![]));
                    let known = known.as_array_mut();
                    known.into_iter().for_each(|known| known.extend(tokens.iter().cloned()));
                }
                // Of the tokens with an unusual role, those of tokenizer_config.json stay.
                (role, _) if is_other_role(role) && self.keys.get(role).is_some_and(Value::is_string) => {}
                (_, value) => {
                    self.keys.insert(key, value);
                }
            }
        }
    }

    /// The class that is to read the files, as they name it or would name it.
    pub fn class(&self) -> &str {
        self.class.as_ref().map_or(self.family.class(), |class| &class.name)
    }

    /// Why files are refused that transformers would read otherwise than they seem to say.
    pub fn refusal(&self) -> Error {
        let Some(Class { path, key, value, .. }) = &self.class else {
            return Error::Tokenizer("the class of the tokenizer is unknown".into());
        };
        Error::Tokenizer(format!(
            "{}: `{key}` is {}, whose tokenizer is not supported; save it with transformers as tokenizer.json, with \
             \"tokenizer_class\": \"{}\" in tokenizer_config.json",
            path.display(),
            shown(value),
            super::class::PLAIN,
        ))
    }

    /// Whether `key` is there and true.
    pub fn is_set(&self, key: &str) -> bool {
        self.keys.get(key) == Some(&Value::Bool(true))
    }

    /// The text of the token with this role (`bos_token`).
    pub fn named(&self, role: &str) -> Option<String> {
        match self.keys.get(role) {
            Some(value) => token(value).map(|token| token.content),
            None => self.family.token(role).map(str::to_owned),
        }
    }

    /// Whether a file names the token with this role.
    pub fn names(&self, role: &str) -> bool {
        self.keys.get(role).and_then(token).is_some()
    }

    /// The tokens that transformers adds to a vocabulary, in its order; `in_file` are those of a `tokenizer.json`.
    pub fn added_tokens(&self, in_file: &[Declared]) -> Vec<Declared> {
        let roles = NAMED.into_iter().filter_map(|role| self.named(role).map(|content| (role, content)));
        let of_role = |(role, content): (&str, String)| {
            self.keys.get(role).and_then(token).unwrap_or_else(|| AddedToken::new(&content, true))
        };
        let mut special: Vec<AddedToken> = roles.map(of_role).collect();
        special.extend(self.other_roles());
        let roles: Vec<String> = special.iter().map(|token| token.content.clone()).collect();
        let extra = self.extra(&["extra_special_tokens", "additional_special_tokens"]);
        let mut tokens: Vec<Declared> = match &self.decoder {
            Some(decoder) => decoder.iter().map(|(id, token)| (Some(*id), token.clone())).collect(),
            None => {
                let given = NAMED.into_iter().filter_map(|role| self.keys.get(role).and_then(token));
                let given: Vec<String> =
                    given.chain(self.extra(&["extra_special_tokens"])).map(|token| token.content).collect();
                let new = |content: &String| AddedToken::new(content, given.contains(content));
                let mut tokens: BTreeMap<_, _> = self.added.iter().map(|(id, content)| (*id, new(content))).collect();
                tokens.extend(in_file.iter().filter_map(|(id, token)| Some(((*id)?, token.clone()))));
                tokens.into_iter().map(|(id, token)| (Some(id), token)).collect()
            }
        };
        // A `tokenizer.json` that is taken as it is has its tokens already.
        let in_file = in_file.iter().filter(|_| !self.family.rebuilds());
        let known: Vec<String> = tokens.iter().chain(in_file).map(|(_, token)| token.content.clone()).collect();
        for token in special.into_iter().chain(extra).filter(|token| !known.contains(&token.content)) {
            if !tokens.iter().any(|(_, before)| *before == token) {
                tokens.push((None, token));
            }
        }
        for (_, token) in &mut tokens {
            token.special |= roles.contains(&token.content);
        }
        tokens
    }

    /// The special tokens without a role under the first of these keys that is there.
    fn extra(&self, keys: &[&str]) -> Vec<AddedToken> {
        let tokens = keys.iter().find_map(|key| self.keys.get(*key)).and_then(Value::as_array);
        tokens.into_iter().flatten().filter_map(token).collect()
    }

    /// Tokens with a role that only some models have: `image_token`.
    fn other_roles(&self) -> impl Iterator<Item = AddedToken> {
        let extra = self.keys.get("extra_special_tokens").and_then(Value::as_object);
        let extra = extra.into_iter().flat_map(Map::values);
        self.keys.iter().filter(|(key, _)| is_other_role(key)).map(|(_, value)| value).chain(extra).filter_map(token)
    }
}

/// A class that the small files name.
#[derive(Debug)]
struct Class {
    name: String,
    /// The file and the key that say it, with this value.
    path: PathBuf,
    key: &'static str,
    value: String,
}

impl Class {
    /// The class of `tokenizer_config.json` or `config.json`, else that of the model's type.
    fn named(files: &HuggingFaceFiles, keys: &Map<String, Value>, model: &Map<String, Value>) -> Option<Self> {
        let named = |file: &Option<SmallFile>, json: &Map<String, Value>, key, class: fn(&str) -> Option<&str>| {
            let value = json.get(key)?.as_str()?.to_owned();
            let path = file.as_ref()?.path().to_owned();
            Some(Self { name: class(&value)?.to_owned(), path, key, value })
        };
        named(&files.tokenizer_config, keys, "tokenizer_class", |class| Some(class))
            .or_else(|| named(&files.config, model, "tokenizer_class", |class| Some(class)))
            .or_else(|| named(&files.config, model, "model_type", Family::class_of_model))
    }
}

/// Whether `key` is a role that only some models have.
fn is_other_role(key: &str) -> bool {
    key.ends_with("_token") && !NAMED.contains(&key)
}

/// The object in a JSON file.
pub(super) fn object(file: &SmallFile) -> Result<Map<String, Value>> {
    match serde_json::from_slice(file.bytes()?) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Error::format(file.path(), "not a JSON object")),
        Err(e) => Err(Error::format(file.path(), json::fault(file.bytes()?, &e))),
    }
}

fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(values)) => values.is_empty(),
        Some(Value::Object(values)) => values.is_empty(),
        Some(_) => false,
    }
}

/// A token with a role, written as its text or with its properties; it is special.
fn token(value: &Value) -> Option<AddedToken> {
    match value {
        Value::String(content) => Some(AddedToken::new(content, true)),
        Value::Object(token) => {
            let token = properties(token).ok()?;
            Some(AddedToken { special: true, ..token })
        }
        _ => None,
    }
    .filter(|token| !token.content.is_empty())
}

/// `{"50257": {"content": "<|user|>", "special": true}}`
fn decoder(tokens: &Value) -> Result<BTreeMap<u64, AddedToken>, String> {
    let tokens = tokens.as_object().ok_or("`added_tokens_decoder` is not an object of ids and tokens")?;
    let entry = |(key, token): (&String, &Value)| {
        let id = key.parse().map_err(|_| format!("`added_tokens_decoder`: {} is not a token id", shown(key)))?;
        let token = token.as_object().ok_or_else(|| "it is not an object".to_owned()).and_then(properties);
        Ok((id, token.map_err(|fault| format!("`added_tokens_decoder`: the token {id}: {fault}"))?))
    };
    tokens.iter().map(entry).collect()
}

/// The properties of a token under transformers' names.
pub(super) fn properties(token: &Map<String, Value>) -> Result<AddedToken, String> {
    let flag = |key: &str| match token.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(_) => Err(format!("`{key}` is neither true nor false")),
    };
    let content = token.get("content").and_then(Value::as_str).ok_or("it has no text `content`")?.to_owned();
    let [single_word, lstrip, rstrip] = ["single_word", "lstrip", "rstrip"].map(flag);
    let special = flag("special")?.unwrap_or(false);
    Ok(AddedToken {
        content,
        single_word: single_word?.unwrap_or(false),
        lstrip: lstrip?.unwrap_or(false),
        rstrip: rstrip?.unwrap_or(false),
        normalized: flag("normalized")?.unwrap_or(!special),
        special,
    })
}

/// `{"<|user|>": 50257}`
fn added(tokens: Map<String, Value>) -> Result<BTreeMap<u64, String>, String> {
    let entry = |(content, id): (String, Value)| match id.as_u64() {
        Some(id) => Ok((id, content)),
        None => Err(format!("the id of {} is not a whole number from 0", shown(&content))),
    };
    tokens.into_iter().map(entry).collect()
}
