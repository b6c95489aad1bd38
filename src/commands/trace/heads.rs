//! `gpt2 trace --heads`: heads that do something known.

use anyhow::Result;
use gpt2::Error;
use gpt2::analysis::heads::{self, head_scores, repeated_sequence};
use gpt2::error::tokens_text;
use gpt2::model::Packing;

use crate::cli::{Format, HeadsArgs, Prompt, TraceArgs, Verbosity};
use crate::commands::interventions::Changes;
use crate::commands::load::{Loaded, Purpose};
use crate::commands::rows::{self, Batch, Input, together};
use crate::commands::{check_context, require_memory};
use crate::output::heads::HeadsRecord;
use crate::output::trace::TraceRecord;
use crate::output::{Stdout, check_folder, say_written, svg};

/// How many tokens the random sequence has before it repeats, as in TransformerLens's demonstrations.
const LENGTH: usize = 50;

/// What the heads are scored on.
enum Work {
    Random,
    Text(Prompt),
    Batch(Input),
}

pub fn run(args: &TraceArgs, verbosity: Verbosity) -> Result<()> {
    args.pieces.check(args.texts.is_for_people(args.format))?;
    check_folder(args.svg.as_deref())?;
    svg::check_theme(args.svg.as_deref(), args.theme)?;
    args.texts.check_format(args.format == Some(Format::Text))?;
    let work = match Input::of_texts(&args.texts)? {
        Some(input) => Work::Batch(input),
        None if args.text.is_given() => Work::Text(args.text.prompt()?),
        None => Work::Random,
    };
    if !matches!(work, Work::Random) && (args.heads.length.is_some() || args.heads.seed.is_some()) {
        let message = "--length and --seed are about a random sequence: leave them out, or the text";
        return Err(Error::Usage(message.into()).into());
    }
    let changes = Changes::read(&args.interventions)?;
    let purpose = Purpose { hooks: changes.are_any(), ..Packing::Later.into() };
    let loaded = Loaded::load_for(&args.model, purpose, verbosity)?;
    let is_said = args.texts.is_for_people(args.format) && !verbosity.quiet;
    let loaded = loaded.with_changes(changes, &args.text, is_said)?;
    let scorer = Scorer { args, loaded: &loaded, verbosity };
    match work {
        Work::Random => {
            let seed = args.heads.seed.unwrap_or_default();
            scorer.single(&sequence(&args.heads, seed, &loaded)?, Some(seed))
        }
        Work::Text(prompt) => scorer.single(&loaded.prompt_ids(&prompt, None, &args.text, verbosity)?, None),
        Work::Batch(input) => scorer.batch(input),
    }
}

/// The random sequence, twice.
fn sequence(args: &HeadsArgs, seed: u64, loaded: &Loaded) -> Result<Vec<u32>> {
    let (config, start) = (loaded.model.config(), loaded.start_token());
    let before = usize::from(start.is_some());
    let most = (config.n_positions.saturating_sub(before) / 2).min(config.vocab_size - before);
    let length = args.length.unwrap_or(LENGTH.min(most));
    if length > most {
        let (context, vocabulary) = (config.n_positions, config.vocab_size);
        return Err(Error::Usage(format!(
            "--length {length}: twice so many different tokens do not fit; at most {most} do, in a context of {context} \
             with a vocabulary of {vocabulary}"
        ))
        .into());
    }
    Ok(repeated_sequence(seed, length, config.vocab_size, start)?)
}

/// A loaded model and the flags.
struct Scorer<'a> {
    args: &'a TraceArgs,
    loaded: &'a Loaded,
    verbosity: Verbosity,
}

impl Scorer<'_> {
    fn single(&self, ids: &[u32], seed: Option<u64>) -> Result<()> {
        let record = self.record(ids, seed)?;
        let notation = self.loaded.notation(self.args.pieces.pieces);
        if let Some(path) = &self.args.svg {
            svg::write(path, &record, notation, self.args.theme)?;
            if !self.verbosity.quiet {
                say_written(path, "a picture of what each head does");
            }
        }
        let mut out = Stdout::lock();
        match self.args.format.unwrap_or_default() {
            Format::Text => record.write_text(notation, &mut out)?,
            format => out.json(&record, format)?,
        }
        out.finish()
    }

    fn batch(&self, input: Input) -> Result<()> {
        let (args, texts) = (self.args, &self.args.texts);
        let mut settings = self.loaded.settings("trace", &args.model, &args.text, &texts.rows);
        settings.parameters.insert("heads".into(), true.into());
        let is_text = texts.is_text(args.format.map(|format| format == Format::Text));
        let batch = Batch::open(&texts.rows, input, is_text, args.batch.batch_size, &mut settings, self.verbosity)?;
        let ids = |prompt: &Prompt, line| self.loaded.prompt_ids(prompt, Some(line), &args.text, self.verbosity);
        batch.run(
            &TraceRecord::default(),
            |rows, tokens| {
                let all = rows.iter().map(|row| ids(&row.prompt, row.place.line)).collect();
                rows::of_those_that_can(all, |all| {
                    *tokens += all.iter().map(Vec::len).sum::<usize>();
                    together(all, &|all| all.iter().map(|ids| self.record(ids, None)).collect())
                })
            },
            |row, record, out| {
                row.write_heading(out)?;
                record.write_text(self.loaded.notation(args.pieces.pieces), out)
            },
        )
    }

    fn record(&self, ids: &[u32], seed: Option<u64>) -> Result<TraceRecord> {
        check_context(self.loaded, ids.len())?;
        let (model, what) = (&self.loaded.model, format!("scoring heads over {}", tokens_text(ids.len())));
        require_memory(
            &what,
            ids.len(),
            |tokens| heads::bytes(model, tokens),
            |tokens| format!("a text of {}", tokens_text(tokens)),
        )?;
        let found = head_scores(&self.loaded.model_for(ids)?, ids)?;
        Ok(TraceRecord { heads: Some(HeadsRecord::new(&found, seed)), ..super::bare_record(ids, self.loaded) })
    }
}
