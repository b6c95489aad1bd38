//! Where models come from: a hub id, a local folder, a GGUF file, or the demo model inside the program.
//!
//! The only code that knows the network. What it hands on are paths of local files. `local` knows which files make a
//! model, `cache` the layout of the cache that is shared with Python's `huggingface_hub`, `hub` when to ask the network;
//! `download` fetches files through the requests of `api`, and `store` writes them into the cache.

#[cfg(feature = "hub")]
mod api;
mod cache;
#[cfg(feature = "hub")]
mod download;
#[cfg(feature = "hub")]
mod failure;
mod hub;
mod local;
#[cfg(feature = "hub")]
mod store;

use std::path::{Path, PathBuf};

use crate::checkpoint::WeightFiles;
use crate::checkpoint::gguf::Gguf;
use crate::config::Config;
use crate::error::{Error, Result};

pub use cache::cache_folder;

/// How to look for a model.
#[derive(Debug, Clone, Default)]
pub struct SourceOptions {
    /// Branch, tag or commit on the hub; `main` if none.
    pub revision: Option<String>,
    /// Use the cache only; open no connection.
    pub offline: bool,
    /// `tokenizer.json`, or a folder with tokenizer files, in place of the model's own.
    pub tokenizer: Option<PathBuf>,
    /// Whether download progress may be drawn on stderr.
    pub progress: bool,
}

/// The files of a model, found or fetched.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    /// The name the user gave, with short names spelled out: `openai-community/gpt2`, a path, or `demo`.
    pub name: String,
    /// `config.json`; none where the weights carry it (GGUF) or the model is the demo.
    pub config: ConfigSource,
    /// The weights.
    pub weights: WeightFiles,
    /// The tokenizer.
    pub tokenizer: TokenizerFiles,
    /// `generation_config.json`, where there is one.
    pub generation_config: Option<PathBuf>,
}

impl ModelFiles {
    /// Reads and checks the model's configuration, wherever it is.
    ///
    /// # Errors
    /// As [`Config::from_file`], or as [`Gguf::open`] and [`Config::from_gguf`].
    pub fn read_config(&self) -> Result<Config> {
        match &self.config {
            ConfigSource::File(path) => Config::from_file(path),
            ConfigSource::Static(text) => Config::from_json(text.as_bytes(), &self.name),
            ConfigSource::Gguf(path) => Config::from_gguf(&Gguf::open(path)?),
        }
    }
}

/// Where a model's configuration is.
#[derive(Debug, Clone)]
pub enum ConfigSource {
    /// A `config.json`.
    File(PathBuf),
    /// Text built into the program.
    Static(&'static str),
    /// In the metadata of the GGUF file that holds the weights.
    Gguf(PathBuf),
}

/// Where a model's tokenizer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenizerFiles {
    /// GPT-2's, built into the program.
    BuiltIn,
    /// A `tokenizer.json`.
    TokenizerJson(PathBuf),
    /// `vocab.json` and `merges.txt`.
    VocabAndMerges(PathBuf, PathBuf),
    /// In the metadata of a GGUF file.
    Gguf(PathBuf),
    /// The folder has none: only ids can be used.
    None,
}

/// The published checkpoints by their short names. Their tokenizer is the built-in one.
const SHORT_NAMES: [(&str, &str); 5] = [
    ("gpt2", "openai-community/gpt2"),
    ("gpt2-medium", "openai-community/gpt2-medium"),
    ("gpt2-large", "openai-community/gpt2-large"),
    ("gpt2-xl", "openai-community/gpt2-xl"),
    ("distilgpt2", "distilbert/distilgpt2"),
];

/// Finds the files of `model`: `demo`, a folder, a `.gguf` file, a short name (`gpt2`, `gpt2-medium`, `gpt2-large`,
/// `gpt2-xl`, `distilgpt2`) or `owner/name` on the hub. The cache is asked first; what is missing is downloaded.
///
/// # Errors
/// [`Error::Source`], saying in one line what was not found or reached and the ways out; [`Error::Config`] and
/// [`Error::Format`] for a `config.json` or an index of shards that is broken; [`Error::Usage`] for a revision of
/// something that is not on the hub.
pub fn resolve(model: &str, options: &SourceOptions) -> Result<ModelFiles> {
    let origin = origin(model)?;
    if let (Some(revision), false) = (&options.revision, matches!(origin, Origin::Hub(_))) {
        return Err(Error::Usage(format!(
            "revision `{revision}` names a version of a model on the hub, which `{model}` is not"
        )));
    }
    match origin {
        Origin::Demo => demo(options),
        Origin::Gguf(path) => local::gguf_model(model, path, options.tokenizer.as_deref()),
        Origin::Folder(path) => local::find(&local::Folder(path), model, &local::TokenizerChoice::of(options)),
        Origin::Hub(id) => hub::find(&id, options),
    }
}

/// Finds the tokenizer of `model` (GPT-2's if there is none) as [`resolve`] does, but needs no weights, and no network
/// for the published checkpoints.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_tokenizer(model: Option<&str>, options: &SourceOptions) -> Result<TokenizerFiles> {
    if let Some(path) = &options.tokenizer {
        return local::tokenizer_at(path);
    }
    let Some(model) = model else { return Ok(TokenizerFiles::BuiltIn) };
    match origin(model)? {
        Origin::Demo => Ok(TokenizerFiles::BuiltIn),
        Origin::Hub(id) if SHORT_NAMES.iter().any(|(_, known)| *known == id) => Ok(TokenizerFiles::BuiltIn),
        Origin::Gguf(path) => Ok(TokenizerFiles::Gguf(path)),
        Origin::Folder(path) => local::tokenizer_of(&local::Folder(path)),
        Origin::Hub(id) => Ok(hub::find(&id, options)?.tokenizer),
    }
}

/// What a model's name stands for.
#[derive(Debug, PartialEq, Eq)]
enum Origin {
    Demo,
    Gguf(PathBuf),
    Folder(PathBuf),
    /// `owner/name`
    Hub(String),
}

fn origin(model: &str) -> Result<Origin> {
    if model == "demo" {
        return Ok(Origin::Demo);
    }
    let path = Path::new(model);
    // A folder that merely shares a short name (a checkout called `gpt2`) must not hide the model of that name.
    if let Some((_, id)) = SHORT_NAMES.iter().find(|(short, _)| *short == model)
        && !path.join("config.json").is_file()
    {
        return Ok(Origin::Hub((*id).to_owned()));
    }
    let is_gguf = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    if path.is_dir() {
        Ok(Origin::Folder(path.to_owned()))
    } else if path.exists() && is_gguf {
        Ok(Origin::Gguf(path.to_owned()))
    } else if path.exists() {
        Err(Error::Source(format!("`{model}` is a file; name the folder that holds it, or a .gguf file")))
    } else if is_gguf || model.starts_with(['/', '.', '~', '\\']) {
        Err(Error::Source(format!("`{model}`: no such folder or .gguf file")))
    } else if is_hub_id(model) {
        Ok(Origin::Hub(model.to_owned()))
    } else {
        let short = SHORT_NAMES.map(|(short, _)| short).join(", ");
        Err(Error::Source(format!(
            "`{model}` is no model: looked for a folder or .gguf file of that name; else it must be `demo`, a short name ({short}) or an id on the hub, `owner/name`"
        )))
    }
}

/// Whether the hub would take `id` as `owner/name`. Reference: huggingface_hub, `validate_repo_id`.
fn is_hub_id(id: &str) -> bool {
    let valid = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
            && !part.starts_with(['-', '.'])
            && !part.ends_with(['-', '.'])
    };
    id.len() <= 96
        && !id.contains("--")
        && !id.contains("..")
        && id.split_once('/').is_some_and(|(owner, name)| valid(owner) && valid(name))
}

/// Bytes at an address on which numbers may lie, as they would in a mapped file.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

static DEMO_WEIGHTS: &Aligned<[u8]> = &Aligned(*include_bytes!("../../assets/demo/model.safetensors"));

fn demo(options: &SourceOptions) -> Result<ModelFiles> {
    Ok(ModelFiles {
        name: "demo".to_owned(),
        config: ConfigSource::Static(include_str!("../../assets/demo/config.json")),
        weights: WeightFiles::Static(&DEMO_WEIGHTS.0),
        tokenizer: match &options.tokenizer {
            Some(path) => local::tokenizer_at(path)?,
            None => TokenizerFiles::BuiltIn,
        },
        generation_config: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_the_demo_a_path_or_a_model_on_the_hub() {
        let hub = |id: &str| Origin::Hub(id.to_owned());
        let of = |model: &str| origin(model).expect("a model");
        assert_eq!(of("demo"), Origin::Demo);
        assert_eq!(of("gpt2"), hub("openai-community/gpt2"));
        assert_eq!(of("gpt2-xl"), hub("openai-community/gpt2-xl"));
        assert_eq!(of("distilgpt2"), hub("distilbert/distilgpt2"));
        assert_eq!(of("some-one/My_model.v1"), hub("some-one/My_model.v1"));
        assert_eq!(of("assets/demo"), Origin::Folder("assets/demo".into()));
        assert_eq!(of("."), Origin::Folder(".".into()));
    }

    #[test]
    fn what_no_name_can_stand_for_is_told_in_one_line() {
        for (model, words) in [
            ("./nothing", &["./nothing", "no such"][..]),
            ("/nothing/at/all", &["no such"]),
            ("~/model", &["no such"]),
            ("model.gguf", &["no such", "model.gguf"]),
            ("Cargo.toml", &["is a file", "folder"]),
            ("a/b/c", &["a/b/c", "owner/name", "gpt2-medium", "demo"]),
            ("a/b c", &["owner/name"]),
            ("a/..", &["owner/name"]),
            ("a/-b", &["owner/name"]),
            ("bert", &["owner/name"]),
            ("", &["owner/name"]),
        ] {
            let message = origin(model).expect_err(model).to_string();
            assert!(!message.contains('\n'), "{message}");
            for word in words {
                assert!(message.contains(word), "`{word}` is not in {message}");
            }
        }
    }

    #[test]
    fn the_demo_is_complete_and_aligned() {
        let demo = resolve("demo", &SourceOptions::default()).expect("the demo");
        let WeightFiles::Static(bytes) = demo.weights else { panic!("not in the program") };
        assert!(bytes.as_ptr().cast::<u64>().is_aligned());
        assert_eq!(demo.tokenizer, TokenizerFiles::BuiltIn);
        let revision = SourceOptions { revision: Some("v1".to_owned()), ..SourceOptions::default() };
        assert!(matches!(resolve("demo", &revision), Err(Error::Usage(_))));
    }
}
