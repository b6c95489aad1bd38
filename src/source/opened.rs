//! A model whose files are opened: decides between what they say, and loads it.

use super::{SourceOptions, adapter};
use crate::checkpoint::{Checkpoint, Format, Notice, PADDED_VOCABULARY};
use crate::config::{Config, GPT2_VOCABULARY};
use crate::decode::GenerationFile;
use crate::device::Backend;
use crate::error::{Error, Result};
use crate::files::SmallFile;
use crate::memory::{self, DeviceFootprint, Footprint};
use crate::model::{Gpt2, LoadOptions};
use crate::tokenizer::{Tokenizer, TokenizerFiles};

/// A model whose files are found and opened. The location of its numbers is known and checked; the numbers are not read
/// yet.
#[derive(Debug)]
pub struct OpenedModel {
    /// The name the user gave, with short names spelled out: `openai-community/gpt2`, a path, or `demo`.
    pub name: String,
    /// The commit of its repository, if it came from the hub.
    pub revision: Option<String>,
    /// The configuration, which follows the weights ([`Checkpoint::settle`]).
    pub config: Config,
    /// The weights.
    pub checkpoint: Checkpoint,
    /// Where the tokenizer is; it is read when loaded.
    pub tokenizer: TokenizerFiles,
    /// Whether the tokenizer was asked for, rather than the model's own.
    pub(crate) tokenizer_is_given: bool,
    /// `generation_config.json`, if there is one.
    generation_config: Option<SmallFile>,
    /// What the user should know about the files.
    pub notices: Vec<Notice>,
}

impl OpenedModel {
    /// Decides between the configurations there may be, and makes it fit the weights.
    pub(super) fn new(
        name: &str,
        config: Option<Config>,
        mut checkpoint: Checkpoint,
        tokenizer: TokenizerFiles,
        generation_config: Option<SmallFile>,
        options: &SourceOptions<'_>,
    ) -> Result<Self> {
        let own = if options.config.is_some() { None } else { checkpoint.config(options.n_head)? };
        let Some(mut config) = own.or(config) else {
            let missing = if checkpoint.format() == Format::TensorFlow { "hparams.json" } else { "config.json" };
            return Err(Error::NoConfig { origin: checkpoint.origin().to_owned(), missing });
        };
        if let Some(n_head) = options.n_head.filter(|n_head| *n_head != config.n_head) {
            let problem = format!("is {n_head}, but the model's configuration says {} heads", config.n_head);
            return Err(Error::parameter("n_head", problem));
        }
        let mut notices = checkpoint.settle(&mut config);
        notices.extend(checkpoint.unused_tensors());
        for adapter in &options.adapters {
            adapter::open(adapter, options)?.merge(&mut checkpoint, &mut config)?;
            let was_tied = config.tie_word_embeddings;
            checkpoint.settle(&mut config);
            if was_tied && !config.tie_word_embeddings {
                let note =
                    format!("the adapter `{adapter}` has an embedding or head of its own: they are no longer tied");
                notices.push(Notice::Note(note));
            }
        }
        if config.vocab_size == PADDED_VOCABULARY && !has_token_beyond_gpt2s(&tokenizer) {
            checkpoint.cut_vocabulary(&mut config, GPT2_VOCABULARY);
        }
        let tokenizer = match tokenizer {
            TokenizerFiles::None if config.vocab_size == GPT2_VOCABULARY => TokenizerFiles::BuiltIn,
            tokenizer => tokenizer,
        };
        let (name, tokenizer_is_given) = (name.to_owned(), options.tokenizer.is_some());
        Ok(Self { name, revision: None, config, checkpoint, tokenizer, tokenizer_is_given, generation_config, notices })
    }

    /// Loads the network if it fits into memory.
    ///
    /// # Errors
    /// [`Error::Memory`], which says what would fit, if it does not; errors of [`Gpt2::load`].
    pub fn load_network(&self, options: LoadOptions) -> Result<Gpt2> {
        let (config, checkpoint) = (&self.config, &self.checkpoint);
        if matches!(options.backend, Backend::Kernels) {
            let footprint = |weights| Footprint::of_checkpoint(config, checkpoint, weights);
            memory::require(&self.name, options.weights, footprint)?;
        } else {
            let footprint = |weights| DeviceFootprint::of_checkpoint(config, checkpoint, weights);
            memory::require_on(&options.backend, &self.name, options.weights, footprint)?;
        }
        Gpt2::load(self.config.clone(), &self.checkpoint, options)
    }

    /// `generation_config.json`, if there is one.
    #[must_use]
    pub fn generation_config_file(&self) -> Option<&SmallFile> {
        self.generation_config.as_ref()
    }

    /// Loads the tokenizer; `None` if the model has none.
    ///
    /// # Errors
    /// Those of [`Tokenizer::load`].
    pub fn load_tokenizer(&self) -> Result<Option<Tokenizer>> {
        match &self.tokenizer {
            TokenizerFiles::None => Ok(None),
            files => Tokenizer::load(files).map(Some),
        }
    }

    /// What `generation_config.json` says; none if there is no such file.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Config`] for a file that cannot be used.
    pub fn generation_file(&self) -> Result<Option<GenerationFile>> {
        let Some(file) = &self.generation_config else { return Ok(None) };
        GenerationFile::parse(file.bytes()?, &file.path().display().to_string()).map(Some)
    }
}

/// Whether a tokenizer has more tokens than GPT-2's, so that rows beyond those are no padding.
fn has_token_beyond_gpt2s(files: &TokenizerFiles) -> bool {
    match files {
        TokenizerFiles::None | TokenizerFiles::BuiltIn => false,
        files => Tokenizer::load(files).is_ok_and(|tokenizer| tokenizer.vocab_size() > GPT2_VOCABULARY),
    }
}
