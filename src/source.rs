//! Where models come from: a hub id, a local folder, a GGUF file, or the demo model inside the program.
//!
//! The only code that knows the network. What it hands on are paths of local files.

use std::path::{Path, PathBuf};

use crate::checkpoint::WeightFiles;
use crate::error::Result;

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

/// Where a model's configuration is.
#[derive(Debug, Clone)]
pub enum ConfigSource {
    /// A `config.json`.
    File(PathBuf),
    /// Text built into the program.
    Static(&'static str),
    /// In the metadata of the GGUF file that holds the weights.
    Gguf,
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

/// Finds the files of `model`: `demo`, a folder, a `.gguf` file, a short name (`gpt2`, `gpt2-medium`, `gpt2-large`,
/// `gpt2-xl`, `distilgpt2`) or `owner/name` on the hub. The cache is asked first; what is missing is downloaded.
///
/// # Errors
/// [`crate::Error::Source`], saying in one line what was not found or reached and the ways out.
pub fn resolve(model: &str, options: &SourceOptions) -> Result<ModelFiles> {
    let _ = (model, options);
    todo!()
}

/// The folder in which downloaded models are kept: `HF_HUB_CACHE`, else `HF_HOME/hub`, else `~/.cache/huggingface/hub`.
#[must_use]
pub fn cache_folder() -> Option<PathBuf> {
    let _ = Path::new("");
    todo!()
}
