//! A tokenizer for other programs: as the files that transformers reads, as the metadata of a GGUF file.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::added::AddedToken;
use super::class::Family;
use super::load::{HuggingFaceFiles, VocabularyFiles};
use super::settings::{Settings, object};
use super::{Encoder, Tokenizer, TokenizerFiles};
use crate::checkpoint::gguf::{TokenKind, Vocabulary};
use crate::config::Config;
use crate::error::{Error, Result};

/// A file to write beside a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedFile {
    /// Its name in the model's folder.
    pub name: &'static str,
    /// Its content.
    pub bytes: Vec<u8>,
}

const CONFIG: &str = "tokenizer_config.json";

impl TokenizerFiles {
    /// Every name that a file of [`to_save`](Self::to_save) may have.
    pub const SAVED: [&'static str; 6] =
        ["tokenizer.json", "vocab.json", "merges.txt", CONFIG, "special_tokens_map.json", "added_tokens.json"];

    /// The files with which transformers, and this library, load the same tokenizer from a GPT-2's folder. Those that
    /// exist are copied; for a built-in tokenizer and one in a GGUF file they are made.
    ///
    /// # Errors
    /// Those of reading the tokenizer.
    pub fn to_save(&self) -> Result<Vec<SavedFile>> {
        match self {
            Self::HuggingFace(files) => copies(files),
            Self::BuiltIn | Self::Gguf(_) => Ok(files_of(&Tokenizer::load(self)?)),
            Self::Foreign { .. } | Self::None => Ok(vec![]),
        }
    }
}

/// The files as they are, except for byte order marks, which transformers does not read, and for the class, if it was
/// named elsewhere.
fn copies(files: &HuggingFaceFiles) -> Result<Vec<SavedFile>> {
    let vocabulary = match &files.vocabulary {
        VocabularyFiles::TokenizerJson(file) => vec![("tokenizer.json", file)],
        VocabularyFiles::VocabAndMerges(vocab, merges) => vec![("vocab.json", vocab), ("merges.txt", merges)],
    };
    let mut saved = vec![];
    for (name, file) in vocabulary.into_iter().chain(files.beside()) {
        saved.push(SavedFile { name, bytes: file.bytes()?.to_vec() });
    }
    let mut config = files.tokenizer_config.as_ref().map(object).transpose()?.unwrap_or_default();
    let is_json = matches!(files.vocabulary, VocabularyFiles::TokenizerJson(_));
    let settings = Settings::read(files)?;
    if !config.contains_key("tokenizer_class") && (is_json || settings.family != Family::Gpt2) {
        config.insert("tokenizer_class".into(), settings.class().into());
        saved.retain(|file| file.name != CONFIG);
        saved.push(SavedFile { name: CONFIG, bytes: pretty(&config.into()) });
    }
    Ok(saved)
}

/// The files of a byte-level BPE; none for another kind.
fn files_of(tokenizer: &Tokenizer) -> Vec<SavedFile> {
    let (Some(encoder), Some(merges)) = (tokenizer.as_byte_level(), tokenizer.merges()) else { return vec![] };
    let merges = merges.into_iter().fold("#version: 0.2\n".to_owned(), |lines, merge| lines + &merge + "\n");
    let ids = 0..tokenizer.vocab_size() as u32;
    let vocab: Map<String, Value> =
        ids.filter_map(|id| Some((tokenizer.piece(id)?.to_owned(), Value::from(id)))).collect();
    let properties = |token: &AddedToken| {
        json!({
            "content": token.content, "lstrip": token.lstrip, "normalized": token.normalized, "rstrip": token.rstrip,
            "single_word": token.single_word, "special": token.special,
        })
    };
    let decoder: Map<String, Value> =
        encoder.added().iter().map(|(id, token)| (id.to_string(), properties(token))).collect();
    let end = tokenizer.end_of_text();
    let role = |id: Option<u32>| id.filter(|id| tokenizer.is_special(*id)).and_then(|id| tokenizer.piece(id));
    let config = json!({
        "tokenizer_class": Family::Gpt2.class(),
        "add_prefix_space": encoder.prefix_space(),
        "add_bos_token": !tokenizer.before_text().is_empty(),
        "add_eos_token": !tokenizer.after_text().is_empty(),
        "bos_token": tokenizer.before_text().first().map_or_else(|| role(tokenizer.start_of_text()), |id| tokenizer.piece(*id)),
        "eos_token": tokenizer.after_text().first().map_or_else(|| role(end), |id| tokenizer.piece(*id)),
        "unk_token": role(end),
        "added_tokens_decoder": decoder,
    });
    vec![
        SavedFile { name: "vocab.json", bytes: Value::Object(vocab).to_string().into_bytes() },
        SavedFile { name: "merges.txt", bytes: merges.into_bytes() },
        SavedFile { name: CONFIG, bytes: pretty(&config) },
    ]
}

fn pretty(json: &Value) -> Vec<u8> {
    format!("{json:#}\n").into_bytes()
}

impl Tokenizer {
    /// The tokenizer for the GGUF file of a model with this configuration. Rows of the embedding without a token get
    /// unused ones; added tokens beyond the last row are left out. The tokens that start and end a text are those that
    /// the tokenizer's files name, else the configuration's.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a tokenizer that GGUF cannot store, or one with more tokens than the model.
    pub fn to_gguf(&self, config: &Config) -> Result<Vocabulary<'_>> {
        let vocab_size = config.vocab_size;
        let encoder = match &self.encoder {
            Encoder::ByteLevel(encoder) => Ok::<_, Error>(encoder),
            #[cfg(feature = "tokenizers")]
            Encoder::Library(library) => Err(Error::Unsupported(library.beyond_gguf())),
        }?;
        let merges = self.merges().unwrap_or_default();
        let count = self.vocab_size();
        let mut tokens: Vec<Cow<'_, str>> =
            (0..count as u32).filter_map(|id| self.piece(id).map(Cow::Borrowed)).collect();
        let mut kinds = vec![TokenKind::Normal; count];
        for (id, token) in encoder.added().iter() {
            // A piece of the vocabulary that does not stand for its letters stays one.
            if self.bytes(id) == Some(token.content.as_bytes()) {
                kinds[id as usize] = if token.special { TokenKind::Control } else { TokenKind::UserDefined };
            }
        }
        let beyond = encoder.added().iter().filter(|(id, _)| *id as usize >= vocab_size).count();
        if count - beyond > vocab_size {
            let message =
                format!("the tokenizer has {count} tokens but the model has {vocab_size}; GGUF needs both to be equal");
            return Err(Error::Unsupported(message));
        }
        tokens.truncate(vocab_size);
        tokens.extend((count..vocab_size).map(|id| format!("[PAD{id}]").into()));
        kinds.truncate(vocab_size);
        kinds.resize(vocab_size, TokenKind::Unused);
        let end = self.end_of_text();
        let inside = |id: &u32| (*id as usize) < vocab_size;
        let [before, after] = [self.before_text(), self.after_text()].map(|ids| ids.first().copied().filter(inside));
        Ok(Vocabulary {
            tokens,
            kinds,
            merges: merges.into_iter().map(Cow::Owned).collect(),
            bos: before.or(self.own.start.filter(inside)).or(config.bos_token_id).or(self.start_of_text.filter(inside)),
            eos: after.or(self.own.end.filter(inside)).or(config.eos_token_id.first().copied()).or(end.filter(inside)),
            add_bos: before.is_some(),
            add_eos: after.is_some(),
        })
    }

    /// What this tokenizer does that GGUF cannot say, so that llama.cpp gives other ids for some texts; by transformers'
    /// names.
    #[must_use]
    pub fn lost_in_gguf(&self) -> Vec<&'static str> {
        let Some(encoder) = self.as_byte_level() else { return vec![] };
        let any = |has: fn(&AddedToken) -> bool| encoder.added().iter().any(|(_, token)| has(token));
        let lost = [
            ("add_prefix_space", encoder.prefix_space()),
            ("lstrip", any(|token| token.lstrip)),
            ("rstrip", any(|token| token.rstrip)),
            ("single_word", any(|token| token.single_word)),
        ];
        lost.into_iter().filter(|(_, is_lost)| *is_lost).map(|(name, _)| name).collect()
    }
}
