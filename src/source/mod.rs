//! From a name to an opened model: a hub id, a local folder, a file of any form, or the built-in demo model.
//!
//! The only code that uses the network. [`open`] finds the files of a model, downloads what is missing, and opens each
//! file once. It returns an [`OpenedModel`], whose weights are mapped but not read. `local` knows which files make up a
//! model, `cache` the layout of the cache that is shared with Python's `huggingface_hub`, `hub` when to ask the
//! network; `weights` which files hold the numbers, `opened` what counts where they contradict each other; `download`
//! fetches files through the requests in `api`, which `settings` configures, `asking` watches and `retry` repeats after
//! each `failure`; `store` writes them into the cache.
//!
//! No server is trusted. A listing has at most 16 MiB and 6 time limits (a minute), a file as many bytes as the server
//! has announced, and a configuration or tokenizer no more than its reader takes. A server that sends fewer than 1000
//! bytes a second over three time limits (half a minute) is given up, and one that asks for more than a minute's pause
//! is not waited for, nor is one whose answers before any content take more than 12 time limits (two minutes) in all.
//! What it sends goes only into regular files within the cache.
//!
//! # Why not through the crate `hf-hub`
//!
//! Its downloads cannot cope with failing networks: `hf-hub` 1.0.0 has no time limits for files, restarts after every
//! interruption, takes an error page for the file, and lacks the size and checksum of large files, which the hub sends
//! with a redirect that `hf-hub` follows. So download, cache, locks and checksums are this module's own, which left
//! `hf-hub` one request, the listing of a repository (`listing` in `api`). It also brings `hf-xet` and `reqwest`'s
//! default features, including aws-lc. A cold release build, measured on 2 cores:
//!
//! | | crates | CPU seconds of the crates that differ |
//! |---|---|---|
//! | listing by `hf-hub` 1.0.0 | 342 | 176 in 107 crates: aws-lc 40, xet 71, redb 9, `hf-hub` itself 5 |
//! | listing by `reqwest`, TLS by `rustls` with ring | 237 | 7 in 2 crates: ring |
//!
//! `hf-hub` 0.5.0 has no xet, but wants another `reqwest` (0.12): a program with nothing else has 129 crates and took
//! 107 CPU seconds, against 85 crates and 72 seconds for `reqwest` alone.

mod adapter;
#[cfg(feature = "hub")]
mod api;
#[cfg(feature = "hub")]
mod asking;
#[cfg(feature = "hub")]
mod body;
mod cache;
#[cfg(feature = "hub")]
mod download;
#[cfg(feature = "hub")]
mod failure;
mod hub;
mod local;
mod opened;
#[cfg(feature = "hub")]
mod retry;
#[cfg(feature = "hub")]
mod settings;
#[cfg(feature = "hub")]
mod store;
mod weights;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::checkpoint::gguf::is_gguf;
use crate::checkpoint::{Checkpoint, WeightFiles};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::tokenizer::TokenizerFiles;

pub use cache::{cache_folder, cache_folder_and_variable};
use local::TokenizerChoice;
pub use opened::OpenedModel;

/// How to look for a model.
#[derive(Clone, Default)]
pub struct SourceOptions<'a> {
    /// Branch, tag or commit on the hub; `main` if `None`.
    pub revision: Option<String>,
    /// Only use the cache; open no connection.
    pub offline: bool,
    /// A `config.json` under any name, to use instead of the model's own.
    pub config: Option<PathBuf>,
    /// The number of attention heads, for checkpoints that do not say it.
    pub n_head: Option<usize>,
    /// LoRA adapters to merge into the weights, in this order: folders, or `owner/name` on the hub.
    pub adapters: Vec<String>,
    /// `gpt2` for GPT-2's tokenizer, `tokenizer.json`, a GGUF file, or a folder with tokenizer files, to use instead of
    /// the model's own.
    pub tokenizer: Option<PathBuf>,
    /// Called with the progress of downloads.
    pub progress: Option<&'a dyn Fn(Progress<'_>)>,
}

/// The progress of a file's download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// The hub takes long to say which files there are, and what they are. This comes once for each repository.
    Asking {
        /// The hub's address.
        hub: &'a str,
        /// The repository, `owner/name`.
        id: &'a str,
    },
    /// Waiting for another process that is downloading the file.
    Waiting {
        /// The file's name in the repository.
        name: &'a str,
    },
    /// Something did not arrive, and will be asked for again after a pause.
    Retrying {
        /// The file's name in the repository, or "the list of files".
        name: &'a str,
        /// What happened: "http://127.0.0.1:8080 answered 503 Service Unavailable".
        reason: &'a str,
        /// The time until the next attempt.
        pause: Duration,
        /// The number of the next attempt, from 2 on.
        attempt: usize,
        /// The number of attempts after which the download is given up.
        of: usize,
    },
    /// This much of the file has arrived.
    Received {
        /// The file's name in the repository.
        name: &'a str,
        /// Bytes.
        bytes: u64,
        /// Bytes of the whole file, if the hub says.
        total: Option<u64>,
    },
    /// The file is complete, or the download was given up.
    Ended {
        /// The file's name in the repository.
        name: &'a str,
    },
}

/// The published models, by their short names.
pub const PUBLISHED: [&str; 5] = ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2"];

/// The short name of a published model, which may be given as `owner/name`.
#[must_use]
pub fn published(model: &str) -> Option<&'static str> {
    let known = SHORT_NAMES.iter().find(|(short, id)| *short == model || *id == model);
    known.map(|(short, _)| *short)
}

/// The hub's address, without a password, and the environment variable that says so, if one does.
///
/// # Errors
/// [`Error::Source`] if the variable has no address.
#[cfg(feature = "hub")]
pub fn endpoint() -> Result<(String, Option<&'static str>)> {
    let settings::Endpoint { shown, variable, .. } = settings::Endpoint::from_environment()?;
    Ok((shown, variable))
}

/// The models in the cache, as [`open`] takes them: `owner/name`, or the short name. Sorted.
#[must_use]
pub fn cached_models() -> Vec<String> {
    let entries = cache_folder().and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    let model = |name: &str| {
        let id = name.strip_prefix("models--")?.replacen("--", "/", 1);
        is_hub_id(&id).then(|| published(&id).map_or(id.clone(), str::to_owned))
    };
    let has_files = |entry: &std::fs::DirEntry| entry.path().join("snapshots").is_dir();
    let names = entries.filter(has_files).filter_map(|entry| model(entry.file_name().to_str()?));
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    names
}

/// The published checkpoints by their short names. They use the built-in tokenizer.
const SHORT_NAMES: [(&str, &str); 5] = [
    ("gpt2", "openai-community/gpt2"),
    ("gpt2-medium", "openai-community/gpt2-medium"),
    ("gpt2-large", "openai-community/gpt2-large"),
    ("gpt2-xl", "openai-community/gpt2-xl"),
    ("distilgpt2", "distilbert/distilgpt2"),
];

/// Finds and opens `model`: `demo`, a folder, a file with weights, a short name (`gpt2`, `gpt2-medium`, `gpt2-large`,
/// `gpt2-xl`, `distilgpt2`) or `owner/name` on the hub. The cache comes first; what is missing is downloaded.
///
/// # Errors
/// [`Error::Source`], [`Error::NoModel`], [`Error::NotFound`] or [`Error::Hub`], saying in one line what was not found or reached;
/// [`Error::Architecture`] for a model that is no GPT-2; [`Error::Usage`] for a
/// revision of something that is not on the hub; [`Error::Config`] for a configuration that does not describe a GPT-2;
/// [`Error::Io`] and [`Error::Format`] for files that cannot be read or are damaged.
pub fn open(model: &str, options: &SourceOptions<'_>) -> Result<OpenedModel> {
    let origin = origin(model)?;
    if let (Some(revision), false) = (&options.revision, matches!(origin, Origin::Hub(_))) {
        return Err(Error::Usage(format!(
            "revision `{revision}` names a version of a model on the hub, which `{model}` is not"
        )));
    }
    let tokenizer = TokenizerChoice::of(options)?;
    match origin {
        Origin::Demo => demo(tokenizer, options),
        Origin::File(path) => local::find_file(&path, model, &tokenizer, options)?.open(options),
        Origin::Folder(path) => local::find(&local::Folder(path), model, &tokenizer, options)?.open(options),
        Origin::Hub(id) => hub::open(&id, options, tokenizer),
    }
}

/// Finds the tokenizer of `model` (GPT-2's if `None`) as [`open`] does, but needs no weights, and no network for the
/// published checkpoints.
///
/// # Errors
/// As [`open`].
pub fn find_tokenizer(model: Option<&str>, options: &SourceOptions<'_>) -> Result<TokenizerFiles> {
    let choice = TokenizerChoice::of(options)?;
    if let TokenizerChoice::Given(tokenizer) = choice {
        return Ok(tokenizer);
    }
    let Some(model) = model else { return Ok(TokenizerFiles::BuiltIn) };
    let beside = match origin(model)? {
        Origin::Demo => return Ok(TokenizerFiles::BuiltIn),
        Origin::Hub(id) if SHORT_NAMES.iter().any(|(_, known)| *known == id) => return Ok(TokenizerFiles::BuiltIn),
        Origin::Hub(id) => return Ok(hub::open(&id, options, choice)?.tokenizer),
        Origin::File(path) if local::file_starts(&path, is_gguf)? => return local::tokenizer_in_gguf(&path),
        Origin::File(path) => path.parent().map(Path::to_owned).unwrap_or_default(),
        Origin::Folder(path) => path,
    };
    match local::own_tokenizer(&local::Folder(beside.clone()))? {
        // Whether it is GPT-2's depends on the model. A folder of tokenizer files need not hold one.
        TokenizerFiles::None => match open(model, options) {
            Ok(opened) => Ok(opened.tokenizer),
            Err(_) => local::tokenizer_by_config(&beside),
        },
        found => Ok(found),
    }
}

/// What a model's name stands for.
#[derive(Debug, PartialEq, Eq)]
enum Origin {
    Demo,
    /// A file with weights.
    File(PathBuf),
    Folder(PathBuf),
    /// `owner/name`
    Hub(String),
}

fn origin(model: &str) -> Result<Origin> {
    if model == "demo" {
        return Ok(Origin::Demo);
    }
    // The address of a model's page, as copied from a browser.
    let page = ["https://huggingface.co/", "https://hf.co/"].iter().find_map(|hub| model.strip_prefix(hub));
    if let Some(id) = page.map(|id| id.trim_end_matches('/')).filter(|id| is_hub_id(id)) {
        return Ok(Origin::Hub(id.to_owned()));
    }
    let path = Path::new(model);
    // A folder that merely shares a short name (a checkout called `gpt2`) must not hide the model of that name.
    if let Some((_, id)) = SHORT_NAMES.iter().find(|(short, _)| *short == model)
        && !path.join("config.json").is_file()
    {
        return Ok(Origin::Hub((*id).to_owned()));
    }
    if path.is_dir() {
        Ok(Origin::Folder(path.to_owned()))
    } else if path.exists() {
        Ok(Origin::File(path.to_owned()))
    } else if let Some(index) = Some(PathBuf::from(format!("{model}.index"))).filter(|index| index.is_file()) {
        // TensorFlow names a checkpoint by what its files' names begin with.
        Ok(Origin::File(index))
    } else if weights::has_extension_of_weights(model)
        || path.has_root()
        || model.starts_with(['.', '~'])
        || model.contains('\\')
    {
        let expands = "; the shell replaces ~ only where it begins a word, without quotes";
        let advice = if model.starts_with('~') { expands } else { "" };
        Err(Error::NotFound(format!("`{model}`: no such folder or file{advice}")))
    } else if is_hub_id(model) {
        Ok(Origin::Hub(model.to_owned()))
    } else {
        Err(Error::NoModel { name: model.to_owned(), known: &PUBLISHED })
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

/// Bytes aligned so that numbers may start there, as in a mapped file.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

static DEMO_WEIGHTS: &Aligned<[u8]> = &Aligned(*include_bytes!("../../assets/demo/model.safetensors"));

fn demo(tokenizer: TokenizerChoice, options: &SourceOptions<'_>) -> Result<OpenedModel> {
    let config = match &options.config {
        Some(path) => Config::from_file(path)?,
        None => Config::from_json(include_bytes!("../../assets/demo/config.json"), "demo")?,
    };
    let checkpoint = Checkpoint::open(&WeightFiles::Static(&DEMO_WEIGHTS.0))?;
    let tokenizer = match tokenizer {
        TokenizerChoice::Given(tokenizer) => tokenizer,
        TokenizerChoice::BuiltIn | TokenizerChoice::Own(_) => TokenizerFiles::BuiltIn,
    };
    OpenedModel::new("demo", Some(config), checkpoint, tokenizer, None, options)
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
        assert_eq!(of("https://huggingface.co/openai-community/gpt2"), hub("openai-community/gpt2"));
        assert_eq!(of("gpt2-xl"), hub("openai-community/gpt2-xl"));
        assert_eq!(of("distilgpt2"), hub("distilbert/distilgpt2"));
        assert_eq!(of("some-one/My_model.v1"), hub("some-one/My_model.v1"));
        assert_eq!(of("assets/demo"), Origin::Folder("assets/demo".into()));
        assert_eq!(of("."), Origin::Folder(".".into()));
        assert_eq!(of("Cargo.toml"), Origin::File("Cargo.toml".into()));
    }

    #[test]
    fn names_that_mean_nothing_are_refused_in_one_line() {
        for (model, words) in [
            ("./nothing", &["./nothing", "no such"][..]),
            ("/nothing/at/all", &["no such"]),
            ("~/model", &["no such"]),
            ("model.gguf", &["no such", "model.gguf"]),
            ("C:\\models\\small", &["no such"]),
            ("models\\small", &["no such"]),
            ("a/b/c", &["a/b/c", "owner/name", "gpt2-medium", "demo"]),
            ("a/b c", &["owner/name"]),
            // For Windows, `a/..` is the current folder.
            (if cfg!(windows) { "a/..." } else { "a/.." }, &["owner/name"]),
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
        let demo = open("demo", &SourceOptions::default()).expect("the demo");
        demo.checkpoint.check(&demo.config).expect("all tensors");
        assert!(DEMO_WEIGHTS.0.as_ptr().cast::<u64>().is_aligned());
        assert!(matches!(demo.tokenizer, TokenizerFiles::BuiltIn));
        let revision = SourceOptions { revision: Some("v1".to_owned()), ..SourceOptions::default() };
        assert!(matches!(open("demo", &revision), Err(Error::Usage(_))));
    }
}
