//! From the model flags to a model and a tokenizer, and from the text flags to ids: what most subcommands begin with.

use std::io::IsTerminal;
use std::time::Instant;

use anyhow::{Context, Result};
use gpt2::Error;
use gpt2::base::{QuantizedType, pool};
use gpt2::checkpoint::Checkpoint;
use gpt2::config::{Config, LARGEST_CONFIG};
use gpt2::device::Backend;
use gpt2::files::read_at_most;
use gpt2::memory::{self, Footprint};
use gpt2::model::{Gpt2, LoadOptions, WeightType};
use gpt2::source::{self, ModelFiles, SourceOptions, TokenizerFiles};
use gpt2::tokenizer::Tokenizer;

use crate::cli::{ModelArgs, Prompt, TextArgs, Verbosity};
use crate::output::say;

/// A model ready to run.
pub struct Loaded {
    /// The model's name, as results report it.
    pub name: String,
    /// The network.
    pub model: Gpt2,
    /// The tokens that end a text: the generation configuration's, where there is one, as in transformers.
    pub eos_token_id: Vec<u32>,
    /// The tokenizer, if it is needed and there is one.
    pub tokenizer: Option<Tokenizer>,
    /// Why the model's tokenizer cannot be used, if that is so: ids need none.
    tokenizer_fault: Option<gpt2::Error>,
    /// Seconds from the command line to here.
    pub load_s: f64,
}

/// Sets the number of threads and checks the device.
pub fn set_up(args: &ModelArgs) -> Result<()> {
    if let Some(threads) = args.threads {
        pool::set_threads(usize::from(threads));
    }
    Ok(args.device.require()?)
}

/// Finds the model's files, and downloads them if need be, for a device that this program was built for.
pub fn find(args: &ModelArgs, verbosity: Verbosity) -> Result<ModelFiles> {
    set_up(args)?;
    locate(args, verbosity)
}

/// Finds the model's files, and downloads them if need be.
pub fn locate(args: &ModelArgs, verbosity: Verbosity) -> Result<ModelFiles> {
    let options = SourceOptions {
        revision: args.revision.clone(),
        offline: args.is_offline(),
        tokenizer: args.tokenizer.clone(),
        progress: !verbosity.quiet && std::io::stderr().is_terminal(),
    };
    Ok(source::resolve(&args.model, &options)?)
}

impl Loaded {
    /// Loads model and tokenizer side by side.
    pub fn load(args: &ModelArgs, verbosity: Verbosity) -> Result<Self> {
        let start = Instant::now();
        let backend = args.device.open()?;
        let files = find(args, verbosity)?;
        let (tokenizer, model) = std::thread::scope(|scope| {
            let tokenizer = scope.spawn(|| tokenizer(&files.tokenizer));
            let model = network(args, &files, backend, verbosity);
            (tokenizer.join(), model)
        });
        let tokenizer = tokenizer.map_err(|_| anyhow::anyhow!("the tokenizer could not be loaded"))?;
        let (tokenizer, tokenizer_fault) = match tokenizer {
            Err(fault) if args.tokenizer.is_none() => (None, Some(fault)),
            tokenizer => (tokenizer?, None),
        };
        let (name, model) = (files.name.clone(), model?);
        let eos_token_id = match &files.generation_config {
            Some(path) => generation_eos(path, model.config())?,
            None => model.config().eos_token_id.clone(),
        };
        let load_s = start.elapsed().as_secs_f64();
        if verbosity.verbose > 0 {
            say(format_args!("loaded {name} in {load_s:.3} s"));
        }
        Ok(Self { name, model, eos_token_id, tokenizer, tokenizer_fault, load_s })
    }

    /// The ids of a text, as it stands.
    pub fn text_ids(&self, prompt: &Prompt, text: &TextArgs, verbosity: Verbosity) -> Result<Vec<u32>> {
        let ids = match prompt {
            Prompt::Ids(ids) => {
                if let (Some(fault), false) = (&self.tokenizer_fault, verbosity.quiet) {
                    eprintln!("note: going on without a tokenizer: {fault}");
                }
                ids.clone()
            }
            Prompt::Text(given) => self.encode(given, text)?,
        };
        let vocab_size = self.model.config().vocab_size;
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocab_size) {
            let last = vocab_size - 1;
            return Err(Error::Usage(format!("token id {id} lies outside the model's vocabulary (0 to {last})")).into());
        }
        Ok(ids)
    }

    /// The ids of a prompt. An empty prompt starts from `<|endoftext|>`.
    pub fn prompt_ids(&self, prompt: &Prompt, text: &TextArgs, verbosity: Verbosity) -> Result<Vec<u32>> {
        let mut ids = self.text_ids(prompt, text, verbosity)?;
        let empty = ids.is_empty();
        if text.bos || empty {
            ids.insert(
                0,
                self.start_token().with_context(|| {
                    if empty {
                        "the prompt is empty and the model has no token to start from"
                    } else {
                        "--bos: the model has no such token"
                    }
                })?,
            );
        }
        if empty && !text.bos && !verbosity.quiet {
            say("the prompt is empty: starting from <|endoftext|>");
        }
        Ok(ids)
    }

    /// The token that starts a text: the configuration's, where it lies inside the vocabulary, else the tokenizer's.
    pub fn start_token(&self) -> Option<u32> {
        let config = self.model.config();
        let inside = |id: &u32| (*id as usize) < config.vocab_size;
        let own = config.bos_token_id.filter(inside);
        own.or_else(|| self.tokenizer.as_ref().and_then(Tokenizer::end_of_text).filter(inside))
            .or_else(|| config.eos_token_id.iter().copied().find(inside))
    }

    fn encode(&self, text: &str, args: &TextArgs) -> Result<Vec<u32>> {
        let tokens = self.tokenizer()?.encode(text, !args.no_special)?;
        Ok(tokens.into_iter().map(|token| token.id).collect())
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// If the model has none that can be used.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_ref().ok_or_else(|| {
            let fault = match &self.tokenizer_fault {
                Some(fault) => fault.to_string(),
                None => format!("{} has no tokenizer", self.name),
            };
            Error::Tokenizer(format!("{fault}: give ids with --ids, or a tokenizer with --tokenizer")).into()
        })
    }

    /// What makes ids of texts among the decoding parameters, if the model has a tokenizer.
    pub fn encoder(&self) -> Option<impl Fn(&str) -> gpt2::Result<Vec<u32>>> {
        self.tokenizer
            .as_ref()
            .map(|tokenizer| |text: &str| Ok(tokenizer.encode(text, true)?.into_iter().map(|token| token.id).collect()))
    }

    /// The text of a token, U+FFFD where it is not UTF-8 alone.
    pub fn token_text(&self, id: u32) -> Option<String> {
        self.tokenizer.as_ref()?.bytes(id).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }
}

/// Loads the tokenizer, if there is one.
pub fn tokenizer(files: &TokenizerFiles) -> gpt2::Result<Option<Tokenizer>> {
    match files {
        TokenizerFiles::None => Ok(None),
        files => Ok(Some(Tokenizer::load(files)?)),
    }
}

/// The end-of-text tokens of a `generation_config.json`; the model's own where it names none.
fn generation_eos(path: &std::path::Path, config: &Config) -> Result<Vec<u32>> {
    let text = read_at_most(path, LARGEST_CONFIG)?;
    let json: serde_json::Value =
        serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", path.display()))?;
    let id = |value: &serde_json::Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids = match json.get("eos_token_id") {
        None | Some(serde_json::Value::Null) => return Ok(config.eos_token_id.clone()),
        Some(serde_json::Value::Array(ids)) => ids.iter().map(id).collect(),
        Some(value) => id(value).map(|id| vec![id]),
    };
    ids.with_context(|| format!("{}: eos_token_id is no token id or list of token ids", path.display()))
}

/// Loads the network.
pub fn network(args: &ModelArgs, files: &ModelFiles, backend: Backend, verbosity: Verbosity) -> Result<Gpt2> {
    let checkpoint = Checkpoint::open(&files.weights)?;
    let config = files.read_config()?;
    let weights = args.weights();
    // What a device has is its driver's to know.
    if matches!(backend, Backend::Kernels) {
        memory::require(&files.name, weights, |weights| Footprint::of_checkpoint(&config, &checkpoint, weights))?;
    }
    let model = Gpt2::load(config, &checkpoint, LoadOptions { weights, backend })?;
    if let (WeightType::Quantized(kind), false) = (weights, verbosity.quiet) {
        note_fallback(&model, kind);
    }
    Ok(model)
}

/// Says so where widths did not allow the format that was asked for.
fn note_fallback(model: &Gpt2, wanted: QuantizedType) {
    let config = model.config();
    let mut widths = vec![config.n_embd, config.n_inner];
    widths.dedup();
    for width in widths {
        let (wanted, found) = (wanted.dtype(), wanted.fitting(width));
        if found != wanted {
            let block = wanted.block_len();
            say(format_args!("note: matrices with {width} inputs are {found}: {wanted} takes multiples of {block}"));
        }
    }
}
