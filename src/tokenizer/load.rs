//! From tokenizer files to a [`Tokenizer`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::added::{AddedToken, AddedTokens, Matching};
use super::byte_level::ByteLevel;
use super::settings::{Declared, Settings};
use super::template::Template;
use super::tokenizer_json::Entries;
use super::vocabulary::{Vocabulary, in_order, merge};
use super::{Encoder, Roles, Tokenizer, tokenizer_json};
use crate::checkpoint::gguf::{self, Gguf, TokenKind};
use crate::error::{Error, Result};
use crate::files::SmallFile;
use crate::json;

/// The largest tokenizer file that is read, in bytes. Those of the largest vocabularies have about 30 MB.
pub(crate) const LARGEST_FILE: u64 = 256 << 20;

/// Half of a tokenizer, and what to do about it where the other half is missing.
const HALVES: [(&str, &str); 4] = [
    ("vocab.json", "a vocabulary without its merges; put the tokenizer's merges.txt beside it"),
    ("merges.txt", "a list of merges without its vocabulary; put the tokenizer's vocab.json beside it"),
    ("encoder.json", "a vocabulary without its merges; put the tokenizer's vocab.bpe beside it"),
    ("vocab.bpe", "a list of merges without its vocabulary; put the tokenizer's encoder.json beside it"),
];

const WORD_PIECE: &str =
    "a WordPiece vocabulary, which cannot be used; save the tokenizer as tokenizer.json with transformers";
const SENTENCE_PIECE: &str =
    "a SentencePiece model, which cannot be used; save the tokenizer as tokenizer.json with transformers";
const TEKKEN: &str = "a tokenizer of Mistral's, which cannot be used; save it as tokenizer.json with transformers";

/// Tokenizers that only other programs can use.
const FOREIGN: [(&str, &str); 5] = [
    ("vocab.txt", WORD_PIECE),
    ("spiece.model", SENTENCE_PIECE),
    ("sentencepiece.bpe.model", SENTENCE_PIECE),
    ("tokenizer.model", SENTENCE_PIECE),
    ("tekken.json", TEKKEN),
];

/// Small files beside a vocabulary.
const BESIDE: [&str; 5] =
    ["config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"];

/// Where a tokenizer comes from.
#[derive(Debug, Clone)]
pub enum TokenizerFiles {
    /// GPT-2's, built into the program.
    BuiltIn,
    /// Files as transformers writes them.
    HuggingFace(Box<HuggingFaceFiles>),
    /// The metadata of a GGUF file.
    Gguf(Arc<Gguf>),
    /// A tokenizer that only other programs can use.
    Foreign {
        /// Its file.
        path: PathBuf,
        /// What the file is, and what to do: "a vocabulary without its merges; put merges.txt beside it".
        problem: &'static str,
    },
    /// There is no tokenizer: only ids can be used.
    None,
}

/// A vocabulary and the small files beside it that say how to use it.
#[derive(Debug, Clone)]
pub struct HuggingFaceFiles {
    pub(super) vocabulary: VocabularyFiles,
    /// `tokenizer_config.json`
    pub(super) tokenizer_config: Option<SmallFile>,
    /// `special_tokens_map.json`
    pub(super) special_tokens_map: Option<SmallFile>,
    /// `added_tokens.json`
    pub(super) added_tokens: Option<SmallFile>,
    /// `config.json`, which may name the tokenizer's class
    pub(super) config: Option<SmallFile>,
}

#[derive(Debug, Clone)]
pub(super) enum VocabularyFiles {
    /// `tokenizer.json`
    TokenizerJson(SmallFile),
    /// `vocab.json` and `merges.txt`
    VocabAndMerges(SmallFile, SmallFile),
}

impl TokenizerFiles {
    /// The `tokenizer.json` at `path`, whatever its name, and nothing beside it.
    #[must_use]
    pub fn tokenizer_json(path: impl Into<PathBuf>) -> Self {
        Self::alone(VocabularyFiles::TokenizerJson(small(path)))
    }

    /// `vocab.json` and `merges.txt` at these paths, and nothing beside them.
    #[must_use]
    pub fn vocab_and_merges(vocab: impl Into<PathBuf>, merges: impl Into<PathBuf>) -> Self {
        Self::alone(VocabularyFiles::VocabAndMerges(small(vocab), small(merges)))
    }

    fn alone(vocabulary: VocabularyFiles) -> Self {
        let (tokenizer_config, special_tokens_map, added_tokens, config) = (None, None, None, None);
        let files = HuggingFaceFiles { vocabulary, tokenizer_config, special_tokens_map, added_tokens, config };
        Self::HuggingFace(Box::new(files))
    }

    /// Finds the tokenizer of a folder, or of a repository on the hub: `tokenizer.json`, else `vocab.json` and
    /// `merges.txt`, or the same under OpenAI's names, and the small files beside them. `file` gives the path of a file
    /// by its name, if there is one.
    ///
    /// # Errors
    /// Those of `file`.
    pub fn find(file: &dyn Fn(&str) -> Result<Option<PathBuf>>) -> Result<Self> {
        let pair = |vocab: &str, merges: &str| {
            let vocab = file(vocab)?;
            let merges = if vocab.is_some() { file(merges)? } else { None };
            let both = vocab.zip(merges);
            Ok::<_, Error>(both.map(|(vocab, merges)| VocabularyFiles::VocabAndMerges(small(vocab), small(merges))))
        };
        let mut vocabulary = file("tokenizer.json")?.map(|path| VocabularyFiles::TokenizerJson(small(path)));
        for (vocab, merges) in [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")] {
            if vocabulary.is_none() {
                vocabulary = pair(vocab, merges)?;
            }
        }
        let Some(vocabulary) = vocabulary else { return Self::find_foreign(file) };
        let beside = |name: &str| file(name).map(|path| path.map(small));
        Ok(Self::HuggingFace(Box::new(HuggingFaceFiles {
            vocabulary,
            tokenizer_config: beside("tokenizer_config.json")?,
            special_tokens_map: beside("special_tokens_map.json")?,
            added_tokens: beside("added_tokens.json")?,
            config: beside("config.json")?,
        })))
    }

    /// Finds a tokenizer of another kind, or half of one.
    fn find_foreign(file: &dyn Fn(&str) -> Result<Option<PathBuf>>) -> Result<Self> {
        for (name, problem) in HALVES.into_iter().chain(FOREIGN) {
            if let Some(path) = file(name)? {
                return Ok(Self::Foreign { path, problem });
            }
        }
        Ok(Self::None)
    }

    /// The tokenizer in a file that is not a GGUF file: a `tokenizer.json`, whatever its name.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for a file that is only a part of a tokenizer, by its name.
    pub fn file(path: &Path) -> Result<Self> {
        let is = |name: &str| path.file_name().is_some_and(|found| found == name);
        if let Some((_, problem)) = FOREIGN.into_iter().find(|(name, _)| is(name)) {
            return Ok(Self::Foreign { path: path.to_owned(), problem });
        }
        if HALVES.into_iter().map(|(name, _)| name).chain(BESIDE).any(is) {
            return Err(Error::Tokenizer(format!(
                "{} is not a tokenizer.json but only a part of a tokenizer; give the folder it is in",
                path.display()
            )));
        }
        Ok(Self::tokenizer_json(path))
    }

    /// The files that are read as a whole.
    #[must_use]
    pub fn small_files(&self) -> Vec<SmallFile> {
        let Self::HuggingFace(files) = self else { return vec![] };
        let mut found = match &files.vocabulary {
            VocabularyFiles::TokenizerJson(file) => vec![file.clone()],
            VocabularyFiles::VocabAndMerges(vocab, merges) => vec![vocab.clone(), merges.clone()],
        };
        found.extend(files.beside().map(|(_, file)| file.clone()));
        found
    }
}

impl HuggingFaceFiles {
    /// The small files beside the vocabulary that only a tokenizer needs, and their names.
    pub(super) fn beside(&self) -> impl Iterator<Item = (&'static str, &SmallFile)> {
        let files = [
            ("tokenizer_config.json", &self.tokenizer_config),
            ("special_tokens_map.json", &self.special_tokens_map),
            ("added_tokens.json", &self.added_tokens),
        ];
        files.into_iter().filter_map(|(name, file)| Some((name, file.as_ref()?)))
    }
}

fn small(path: impl Into<PathBuf>) -> SmallFile {
    SmallFile::new(path, LARGEST_FILE)
}

impl Tokenizer {
    /// Follows what the small files say of the use of a vocabulary.
    pub(super) fn settle(&mut self, settings: &Settings) {
        if settings.family.surrounds() {
            let token = |role: &str| self.named(settings, role).into_iter().collect();
            self.template = Template { before: token("cls_token"), after: token("sep_token") };
        }
        self.start_of_text = self.named(settings, "bos_token");
        let own = |role: &str| self.named(settings, role).filter(|_| settings.names(role));
        self.own = Roles { start: own("bos_token"), end: own("eos_token") };
        self.splits_special = settings.is_set("split_special_tokens");
    }

    fn named(&self, settings: &Settings, role: &str) -> Option<u32> {
        settings.named(role).and_then(|content| self.id(&content))
    }

    /// Loads the tokenizer of a model.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`] or [`Error::Tokenizer`], naming the file and what is wrong with it.
    pub fn load(files: &TokenizerFiles) -> Result<Self> {
        match files {
            TokenizerFiles::BuiltIn => Ok(Self::gpt2()),
            TokenizerFiles::HuggingFace(files) => {
                let settings = Settings::read(files)?;
                match &files.vocabulary {
                    VocabularyFiles::TokenizerJson(file) => {
                        tokenizer_json::parse(file.bytes()?, &settings, file.path())
                    }
                    VocabularyFiles::VocabAndMerges(vocab, merges) => from_vocab_and_merges(vocab, merges, &settings),
                }
            }
            TokenizerFiles::Gguf(gguf) => from_gguf(gguf),
            TokenizerFiles::Foreign { path, problem } => Err(Error::format(path, *problem)),
            TokenizerFiles::None => Err(Error::Tokenizer("the model comes without a tokenizer".into())),
        }
    }
}

/// A byte-level BPE as its files have it.
pub(super) struct ByteLevelParts<'a> {
    /// Pieces and their ids, without added tokens.
    pub entries: Vec<(Cow<'a, str>, u64)>,
    /// Merges, in the order in which they were learned.
    pub pairs: Vec<(&'a str, &'a str)>,
    /// The tokens to add, in order.
    pub added: Vec<Declared>,
    /// Whether texts get a space in front.
    pub prefix_space: bool,
}

/// What is wrong with the parts of a byte-level BPE, by the file that is at fault.
pub(super) enum Fault {
    Vocabulary(String),
    Merges(String),
}

impl Fault {
    pub fn into_message(self) -> String {
        match self {
            Self::Vocabulary(message) | Self::Merges(message) => message,
        }
    }
}

impl ByteLevelParts<'_> {
    /// The tokenizer. Nothing is added around a text yet.
    pub fn into_tokenizer(self) -> Result<Tokenizer, Fault> {
        let Self { entries, pairs, added, prefix_space } = self;
        let (vocabulary, added) = Self::vocabulary(entries, added).map_err(Fault::Vocabulary)?;
        let encoder = ByteLevel::with_merges(&vocabulary, &pairs, added, prefix_space).map_err(Fault::Merges)?;
        Ok(Tokenizer::new(vocabulary, Encoder::ByteLevel(Box::new(encoder))))
    }

    fn vocabulary(
        mut entries: Vec<(Cow<'_, str>, u64)>,
        added: Vec<Declared>,
    ) -> Result<(Vocabulary, AddedTokens), String> {
        if entries.is_empty() {
            return Err("the vocabulary is empty".into());
        }
        let added = assign_ids(&mut entries, added);
        let pieces = in_order(entries)?;
        // The ids are those of the pieces, of which `Vocabulary` has at most 2³².
        let added: Vec<_> = added.into_iter().map(|(id, token)| (id as u32, token)).collect();
        let special = |id| added.binary_search_by_key(&id, |(id, _)| *id).ok().map(|at| added[at].1.special);
        let mut vocabulary = Vocabulary::with_capacity(pieces.len());
        for (piece, id) in pieces.iter().zip(0..) {
            match special(id) {
                Some(special) => vocabulary.push_added(piece, special)?,
                None => vocabulary.push(piece)?,
            };
        }
        Ok((vocabulary, AddedTokens::new(added, Matching::HuggingFace)?))
    }
}

/// Adds tokens to a vocabulary as Hugging Face's library does: one that is already there keeps its id, others get the
/// next ones. A token that is added again takes its new properties, but stays special. Returns the tokens by id.
fn assign_ids(entries: &mut Vec<(Cow<'_, str>, u64)>, added: Vec<Declared>) -> BTreeMap<u64, AddedToken> {
    let mut ids = FxHashMap::default();
    ids.extend(added.iter().map(|(_, token)| (token.content.clone(), None)));
    let mut end = 0;
    for (piece, id) in entries.iter() {
        end = end.max(id.saturating_add(1));
        if let Some(known) = ids.get_mut(&**piece) {
            *known = Some(*id);
        }
    }
    // In a vocabulary with gaps, the ids that the files give are to fill them.
    let has_gaps = end != entries.len() as u64;
    let mut tokens = BTreeMap::<u64, AddedToken>::new();
    for (declared, token) in added.into_iter().filter(|(_, token)| !token.content.is_empty()) {
        let known = ids.entry(token.content.clone()).or_default();
        let id = *known.get_or_insert_with(|| {
            let id = declared.filter(|_| has_gaps).unwrap_or(end);
            end = end.max(id.saturating_add(1));
            entries.push((token.content.clone().into(), id));
            id
        });
        let special = token.special || tokens.get(&id).is_some_and(|known| known.special);
        tokens.insert(id, AddedToken { special, ..token });
    }
    tokens
}

fn from_vocab_and_merges(vocab: &SmallFile, merges: &SmallFile, settings: &Settings) -> Result<Tokenizer> {
    if !settings.family.rebuilds() {
        return Err(settings.refusal());
    }
    let of_vocab = |message: String| Error::format(vocab.path(), message);
    let of_merges = |message: String| Error::format(merges.path(), message);
    let entries: Entries<'_> = serde_json::from_slice(vocab.bytes()?)
        .map_err(|e| of_vocab(json::fault(vocab.bytes().unwrap_or_default(), &e)))?;
    let text = std::str::from_utf8(merges.bytes()?);
    let text = text.map_err(|e| of_merges(format!("not UTF-8: invalid byte at offset {}", e.valid_up_to())))?;
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with("#version"));
    let pairs = lines.map(merge).collect::<Result<Vec<_>, _>>().map_err(of_merges)?;
    let parts = ByteLevelParts {
        entries: entries.0,
        pairs,
        added: settings.added_tokens(&[]),
        prefix_space: settings.is_set("add_prefix_space"),
    };
    let mut tokenizer = parts.into_tokenizer().map_err(|fault| match fault {
        Fault::Vocabulary(message) => of_vocab(message),
        Fault::Merges(message) => of_merges(message),
    })?;
    let token = |role: &str, add: &str| tokenizer.named(settings, role).filter(|_| settings.is_set(add));
    let added = |role: &str, add: &str| token(role, add).into_iter().collect();
    tokenizer.template =
        Template { before: added("bos_token", "add_bos_token"), after: added("eos_token", "add_eos_token") };
    tokenizer.settle(settings);
    Ok(tokenizer)
}

fn from_gguf(gguf: &Gguf) -> Result<Tokenizer> {
    let gguf::Vocabulary { tokens, kinds, merges, bos, eos, add_bos, add_eos } = gguf.vocabulary()?;
    let tokenizer = || -> Result<Tokenizer, String> {
        let pairs = merges.iter().map(|line| merge(line)).collect::<Result<Vec<_>, _>>()?;
        let mut vocabulary = Vocabulary::with_capacity(tokens.len());
        let mut added = vec![];
        // In a file without special tokens, nobody said which are; llama.cpp knows the end of a text by its name.
        let says_kinds = kinds.contains(&TokenKind::Control);
        for ((piece, kind), id) in tokens.iter().zip(kinds).zip(0..) {
            let special = match kind {
                _ if piece == super::END_OF_TEXT && !says_kinds => true,
                TokenKind::Control | TokenKind::Unknown => true,
                TokenKind::UserDefined => false,
                TokenKind::Normal | TokenKind::Unused | TokenKind::Byte => {
                    vocabulary.push(piece)?;
                    continue;
                }
            };
            vocabulary.push_added_as(piece, special, piece.bytes())?;
            if !piece.is_empty() {
                added.push((id, AddedToken { normalized: false, ..AddedToken::new(piece, special) }));
            }
        }
        let added = AddedTokens::new(added, Matching::LlamaCpp)?;
        let encoder = ByteLevel::with_merges(&vocabulary, &pairs, added, false)?;
        Ok(Tokenizer::new(vocabulary, Encoder::ByteLevel(Box::new(encoder))))
    };
    let mut tokenizer = tokenizer().map_err(|message| Error::format(&gguf.path, message))?;
    let end = tokenizer.end_of_text();
    let around = |id: Option<u32>, add: bool| id.or(end).filter(|_| add).into_iter().collect();
    tokenizer.template = Template { before: around(bos, add_bos), after: around(eos, add_eos) };
    tokenizer.start_of_text = bos;
    tokenizer.own = Roles { start: bos, end: eos };
    Ok(tokenizer)
}

#[cfg(test)]
mod tests;
