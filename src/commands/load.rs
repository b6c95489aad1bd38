//! The start of most subcommands: from the model flags to a model and a tokenizer, from the text flags to ids.
//!
//! A thin layer over [`gpt2::pipeline`] that turns flags into options and adds advice that names flags to errors.

mod notes;

use std::cell::Cell;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use gpt2::Error;
use gpt2::base::{FloatType, pool};
use gpt2::decode::GenerationConfig;
use gpt2::device::Backend;
use gpt2::model::{Gpt2, LoadOptions, Packing};
use gpt2::pipeline::Pipeline;
use gpt2::source::{self, OpenedModel, SourceOptions};
use gpt2::tokenizer::{Tokenizer, TokenizerFiles};
use serde_json::Value;

use super::download_bar::DownloadBar;
use super::interventions::Changed;
use super::rows::Settings;
use super::settings;
use crate::cli::{ModelArgs, Prompt, RowArgs, TextArgs, TokenizerArgs, Verbosity};
use crate::output::say;
use crate::output::settings::SettingsRecord;
use crate::output::tokens::Notation;

/// A model ready to run.
pub struct Loaded {
    pub(super) pipeline: Pipeline,
    /// What to say about the start of texts, once.
    start_note: Cell<Option<String>>,
    /// Seconds from the command line to here.
    pub load_s: f64,
    /// Identifies the weights.
    fingerprint: String,
    tokenizer_files: TokenizerFiles,
    /// What every record says about itself.
    pub(super) settings: SettingsRecord,
    /// What is changed inside the network.
    pub(super) changed: Changed,
}

impl Loaded {
    /// The model with its tokenizer and special tokens, alone.
    #[cfg(feature = "serve")]
    pub fn into_pipeline(self) -> Pipeline {
        self.pipeline
    }

    /// The model with its tokenizer and special tokens.
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }
}

impl std::ops::Deref for Loaded {
    type Target = Pipeline;

    fn deref(&self) -> &Pipeline {
        &self.pipeline
    }
}

/// Sets the number of threads, and checks the instruction set and the device.
pub fn set_up(args: &ModelArgs, verbosity: Verbosity) -> Result<()> {
    notes::level(verbosity)?;
    if let Some(threads) = args.threads {
        let (threads, cores) = (usize::from(threads), pool::cores());
        // Threads that wait for a core make the others wait.
        if pool::set_threads(threads.min(cores)) && threads > cores && !verbosity.quiet {
            say(format_args!("note: using {cores} threads, not {threads}, since this process may use no more cores"));
        }
    }
    Ok(args.device().require()?)
}

/// Finds and opens the model, downloading it if needed.
pub fn open(args: &ModelArgs, verbosity: Verbosity) -> Result<OpenedModel> {
    let bar = DownloadBar::new(verbosity);
    let options = SourceOptions {
        revision: args.revision.clone(),
        offline: args.offline,
        config: args.config.clone(),
        n_head: args.n_head,
        adapters: args.adapter.clone(),
        tokenizer: args.tokenizer.clone(),
        progress: Some(&|progress| bar.show(progress)),
    };
    let opened = source::open(args.model(), &options)?;
    if !verbosity.quiet {
        opened.notices.iter().for_each(say);
    }
    Ok(opened)
}

/// Loads a network without its tokenizer.
pub fn network(args: &ModelArgs, opened: &OpenedModel, backend: Backend, verbosity: Verbosity) -> Result<Gpt2> {
    let model = opened.load_network(LoadOptions { weights: args.weights(), backend, ..LoadOptions::default() })?;
    notes::fallback(args, &model, verbosity);
    Ok(model)
}

/// What a model is loaded for.
#[derive(Debug, Clone, Copy)]
pub struct Purpose {
    pub packing: Packing,
    /// Whether its activations are to be changed, or recorded inside its blocks.
    pub hooks: bool,
    /// Whether a constraint is to say what its texts have to be.
    pub constraint: bool,
}

impl From<Packing> for Purpose {
    fn from(packing: Packing) -> Self {
        Self { packing, hooks: false, constraint: false }
    }
}

/// Loads a network and its tokenizer in parallel.
pub fn pipeline(
    args: &ModelArgs,
    opened: &OpenedModel,
    backend: Backend,
    purpose: Purpose,
    verbosity: Verbosity,
) -> Result<Pipeline> {
    let Purpose { packing, hooks, constraint } = purpose;
    let load = if constraint { Pipeline::load_for_constraints } else { Pipeline::load };
    let pipeline = load(opened, LoadOptions { weights: args.weights(), backend, packing, hooks })?;
    notes::fallback(args, &pipeline.model, verbosity);
    Ok(pipeline)
}

/// A tokenizer without a model.
pub struct LoadedTokenizer {
    pub tokenizer: Tokenizer,
    /// What to say when it puts something around a text.
    pub note: Option<String>,
    pub files: TokenizerFiles,
}

/// The tokenizer that the flags name, GPT-2's by default.
pub fn tokenizer(args: &TokenizerArgs, verbosity: Verbosity) -> Result<LoadedTokenizer> {
    let bar = DownloadBar::new(verbosity);
    let options = SourceOptions {
        revision: args.revision.clone(),
        offline: args.offline,
        tokenizer: args.tokenizer.clone(),
        progress: Some(&|progress| bar.show(progress)),
        ..SourceOptions::default()
    };
    let files = source::find_tokenizer(args.model.as_deref(), &options)?;
    let tokenizer = Tokenizer::load(&files).map_err(|error| match error {
        fault @ (Error::Tokenizer(_) | Error::Format { .. }) if args.tokenizer.is_none() => {
            Error::Tokenizer(format!("{fault}: give one with --tokenizer")).into()
        }
        error => anyhow::Error::from(error),
    })?;
    let note = start_note(&files, &tokenizer);
    Ok(LoadedTokenizer { tokenizer, note, files })
}

/// Says that texts begin with a token because a GGUF file asks for it: unlike a folder's tokenizer, which does as in
/// transformers, the file may come from a model that does not.
fn start_note(files: &TokenizerFiles, tokenizer: &Tokenizer) -> Option<String> {
    let start = Notation::new(Some(tokenizer)).token(*tokenizer.before_text().first()?);
    let is_gguf = matches!(files, TokenizerFiles::Gguf(_));
    is_gguf.then(|| format!("note: texts start with {start}, as the file's tokenizer.ggml.add_bos_token says"))
}

impl Loaded {
    /// Loads model and tokenizer in parallel.
    pub fn load(args: &ModelArgs, packing: Packing, verbosity: Verbosity) -> Result<Self> {
        Self::load_for(args, packing.into(), verbosity)
    }

    /// The same for a model whose activations are to be changed, or recorded inside its blocks.
    pub fn load_with_hooks(args: &ModelArgs, packing: Packing, verbosity: Verbosity) -> Result<Self> {
        Self::load_for(args, Purpose { hooks: true, ..packing.into() }, verbosity)
    }

    /// The same for any purpose.
    pub fn load_for(args: &ModelArgs, purpose: Purpose, verbosity: Verbosity) -> Result<Self> {
        let start = Instant::now();
        let backend = args.device().open()?;
        let device = backend.name();
        set_up(args, verbosity)?;
        let opened = open(args, verbosity)?;
        let pipeline = pipeline(args, &opened, backend, purpose, verbosity)?;
        let start_note = pipeline.tokenizer.as_ref().and_then(|tokenizer| start_note(&opened.tokenizer, tokenizer));
        let fingerprint = opened.checkpoint.fingerprint();
        let load_s = start.elapsed().as_secs_f64();
        if verbosity.verbose > 0 {
            say(format_args!("loaded {} in {load_s:.3} s", pipeline.name));
        }
        let settings = settings::of(args, &opened, &pipeline.model, device, &fingerprint);
        let tokenizer_files = opened.tokenizer;
        let (start_note, changed) = (Cell::new(start_note), Changed::default());
        Ok(Self { pipeline, start_note, load_s, fingerprint, tokenizer_files, settings, changed })
    }

    /// What a result is made with, including `parameters`. Flags about its text show in its ids.
    pub fn record_settings(&self, parameters: impl IntoIterator<Item = (String, Value)>) -> SettingsRecord {
        let mut settings = self.settings.clone();
        settings.parameters.extend(parameters);
        settings
    }

    /// The ids of a text, with what the tokenizer puts around it; of ids, those.
    pub fn text_ids(&self, prompt: &Prompt, text: &TextArgs, verbosity: Verbosity) -> Result<Vec<u32>> {
        match prompt {
            Prompt::Ids(ids) => {
                if let (Some(fault), false) = (self.tokenizer_fault(), verbosity.quiet) {
                    say(format_args!("note: continuing without a tokenizer: {fault}"));
                }
                self.check_ids(ids)?;
                Ok(ids.clone())
            }
            Prompt::Text(given) => {
                self.tokenizer()?;
                if let Some(note) = self.start_note.take().filter(|_| !verbosity.quiet) {
                    say(note);
                }
                Ok(self.pipeline.prompt_ids(given, !text.no_special)?)
            }
        }
    }

    /// How many of the ids of a prompt the tokenizer put before its text.
    pub fn added_before(&self, prompt: &Prompt) -> usize {
        match (prompt, &self.pipeline.tokenizer) {
            (Prompt::Text(_), Some(tokenizer)) => tokenizer.before_text().len(),
            _ => 0,
        }
    }

    /// The ids of a prompt, which may be that of the row on a `line`. An empty prompt starts from `<|endoftext|>`.
    pub fn prompt_ids(
        &self,
        prompt: &Prompt,
        line: Option<usize>,
        text: &TextArgs,
        verbosity: Verbosity,
    ) -> Result<Vec<u32>> {
        let mut ids = self.text_ids(prompt, text, verbosity)?;
        let empty = ids.is_empty();
        if (text.bos && self.added_before(prompt) == 0) || empty {
            ids.insert(
                0,
                self.start_token().with_context(|| {
                    if empty {
                        "the prompt is empty, and the model has no start token; give at least one token"
                    } else {
                        "--bos: the model has no start token"
                    }
                })?,
            );
        }
        if empty && !text.bos && !verbosity.quiet {
            let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
            say(format_args!(
                "note: {line}the prompt is empty: starting from token {}",
                self.notation(false).token(ids[0])
            ));
        }
        Ok(ids)
    }

    /// Says that an empty negative prompt, which may be that of the row on a `line`, starts from `<|endoftext|>` as well.
    pub fn note_negative(&self, config: &GenerationConfig, line: Option<usize>, verbosity: Verbosity) {
        let is_on = config.guidance_scale.is_some_and(|scale| scale != 1.0);
        if let (Some(""), Some(start), true) = (config.negative_prompt.as_deref(), self.start_token(), is_on)
            && !verbosity.quiet
        {
            let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
            let start = self.notation(false).token(start);
            say(format_args!("note: {line}the negative prompt is empty: starting from token {start}"));
        }
    }

    /// Says that a prompt ends in a space, which is most often a mistake: the next token would bring its own.
    pub fn note_space(&self, prompt: &Prompt, ids: &[u32], verbosity: Verbosity) {
        let Prompt::Text(text) = prompt else { return };
        // Other tokenizers drop the space.
        let is_kept = ids.last().and_then(|id| self.token_text(*id)).is_some_and(|token| token.ends_with(' '));
        if text.ends_with(' ') && is_kept && !verbosity.quiet {
            say(
                "note: the prompt ends in a space; GPT-2's tokens carry their space in front (\" time\"), so leave it out for a better continuation",
            );
        }
    }

    /// How tokens are written; `as_pieces` if as the vocabulary spells them.
    pub fn notation(&self, as_pieces: bool) -> Notation<'_> {
        Notation::new(self.tokenizer.as_ref()).with_pieces(as_pieces)
    }

    /// The model's own `generation_config.json` as defaults, if it is asked for. Says once what is set in it and not
    /// followed.
    ///
    /// # Errors
    /// For a value in it that cannot be used.
    pub fn generation_defaults(&self, asked: bool, verbosity: Verbosity) -> Result<GenerationConfig> {
        let ends = self.generation_config();
        if let Some(fault) = self.generation_fault() {
            let fault: Vec<String> = anyhow::Chain::new(fault).map(ToString::to_string).collect();
            let fault = fault.join(": ");
            if asked {
                bail!("{fault}");
            }
            if !verbosity.quiet {
                say(format_args!("note: {fault}; without it, texts end as config.json says"));
            }
        }
        let Some(file) = &self.generation_file else {
            if asked && !verbosity.quiet {
                say("note: the model has no generation_config.json to follow");
            }
            return Ok(ends);
        };
        let (ignored, advice) = match asked {
            true => (file.missing(), "this program does not have"),
            false => (file.set(), "--generation-config follows"),
        };
        if !ignored.is_empty() && !verbosity.quiet {
            let (them, is) = if ignored.len() == 1 { ("it", "is") } else { ("them", "are") };
            let names: Vec<String> = ignored.iter().map(|name| format!("`{name}`")).collect();
            let names = names.join(", ");
            say(format_args!("note: generation_config.json sets {names}, which {is} not followed: {advice} {them}"));
        }
        if !asked {
            return Ok(ends);
        }
        Ok(GenerationConfig { eos_token_id: ends.eos_token_id, ..file.config()? })
    }

    /// An error about a value of `generation_config.json` as an error of that file, unless it is one of the parameters that
    /// were `given` or the file is not followed.
    pub fn blame(&self, error: anyhow::Error, asked: bool, given: &[&str]) -> anyhow::Error {
        let Some(file) = self.generation_file.as_ref().filter(|_| asked) else { return error };
        match error.downcast::<Error>() {
            Ok(error) => file.blame(error, given).into(),
            Err(error) => error,
        }
    }

    /// What the results of a run over rows depend on, besides the rows and `parameters`.
    pub fn settings(&self, subcommand: &str, model: &ModelArgs, text: &TextArgs, rows: &RowArgs) -> Settings {
        let flags = serde_json::json!({
            "dtype": model.dtype.map(FloatType::name),
            "quantize": model.quantize.map(|format| format.dtype().to_string().to_lowercase()),
            "bos": text.bos,
            "no_special": text.no_special,
            "keep": rows.keep,
        });
        let mut parameters = flags.as_object().cloned().unwrap_or_default();
        parameters.extend(self.changed.parameters.clone());
        Settings {
            subcommand: subcommand.to_owned(),
            model: self.name.clone(),
            config: format!("{:?}", self.model.config()),
            weights: self.fingerprint.clone(),
            tokenizer: self.tokenizer_files.fingerprint(),
            seed: 0,
            parameters,
        }
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// If the model has no usable tokenizer.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        let advise = |fault| {
            Error::Tokenizer(format!(
                "{fault}; --ids needs no tokenizer, and --tokenizer takes another (`--tokenizer gpt2` is GPT-2's own)"
            ))
        };
        Ok(self.pipeline.tokenizer().map_err(advise)?)
    }
}
