//! `gpt2 trace`: what happens inside the network.

mod attribution;
mod heads;
mod saving;
mod views;

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use gpt2::Error;
use gpt2::analysis::activations::{self, Activations, Hidden};
use gpt2::analysis::lens::{LensLayer, LensReading, lens_at};
use gpt2::analysis::saved::Names;
use gpt2::error::tokens_text;
use gpt2::memory;
use gpt2::model::{Gpt2, Packing};

use self::attribution::Question;
use self::saving::Saving;
use self::views::{Views, narrower, selected};
use super::interventions::Changes;
use super::load::{Loaded, Purpose};
use super::rows::{self, Batch, Input, together};
use super::{check_context, require_memory, shapes};
use crate::cli::{Format, Prompt, TraceArgs, Verbosity};
use crate::output::attribution::AttributionRecord;
use crate::output::trace::{
    BestRecord, HeadRecord, HiddenRecord, LensRecord, ReadingRecord, RepeatRecord, TraceRecord,
};
use crate::output::{Stdout, check_folder, html, say_written, svg};

/// How many values are reported from each end of a hidden state.
const EXCERPT: usize = 8;

/// How many tokens the lens reports for each layer and position.
const LENS_TOP: usize = 5;

/// The most attention weights that are kept for a view that nobody chose.
const MOST_WEIGHTS: usize = 16_000_000;

pub fn run(mut args: TraceArgs, verbosity: Verbosity) -> Result<()> {
    if args.heads.heads {
        return heads::run(&args, verbosity);
    }
    let kept = args.take_kept();
    let args = &args;
    let views = Views::of(args)?;
    args.pieces.check(args.texts.is_for_people(args.format))?;
    [&args.svg, &args.html, &args.save].into_iter().try_for_each(|path| check_folder(path.as_deref()))?;
    args.texts.check_format(args.format == Some(Format::Text))?;
    let work = match Input::of_texts(&args.texts)? {
        Some(input) => Work::Batch(input),
        None => Work::Single(args.text.prompt()?),
    };
    let changes = Changes::read(&args.interventions)?;
    let is_attributed = args.attribution.attribute.is_some() || args.html.is_some();
    let hooks = changes.are_any() || is_attributed || args.names == Names::TransformerLens;
    let purpose = Purpose { hooks, ..Packing::Later.into() };
    let loaded = Loaded::load_for(&args.model, purpose, verbosity)?;
    let is_said = args.texts.is_for_people(args.format) && !verbosity.quiet;
    let loaded = loaded.with_changes(changes, &args.text, is_said)?;
    let config = loaded.model.config();
    let layers = selected(args.layer, config.n_layer, "--layer")?;
    let heads = selected(args.head, config.n_head, "--head")?;
    let format = args.format.unwrap_or_default();
    let are_rows = matches!(work, Work::Batch(_));
    let saving = |path| Saving::new(path, args.names, &kept, config, are_rows);
    let saving = args.save.as_deref().map(saving).transpose()?;
    let question = Question::of(&args.attribution, &loaded)?;
    let tracer = Tracer { args, loaded: &loaded, views, layers, heads, saving, question, verbosity };
    match work {
        Work::Single(prompt) if args.shapes => shapes::of_text(&loaded, &prompt, &args.text, format, verbosity),
        Work::Batch(input) if args.shapes => shapes::of_rows(&loaded, input, &args.text, format, verbosity),
        Work::Single(prompt) => tracer.single(&prompt, format),
        Work::Batch(input) => tracer.batch(input),
    }
}

/// What to trace.
enum Work {
    Single(Prompt),
    Batch(Input),
}

/// A loaded model and the flags that say what to show of a pass.
struct Tracer<'a> {
    args: &'a TraceArgs,
    loaded: &'a Loaded,
    views: Views,
    layers: Range<usize>,
    heads: Range<usize>,
    saving: Option<Saving<'a>>,
    question: Option<Question>,
    verbosity: Verbosity,
}

impl Tracer<'_> {
    fn single(&self, prompt: &Prompt, format: Format) -> Result<()> {
        let ids = self.ids(prompt, None)?;
        let shown = (self.layers.len() * self.heads.len(), ids.len());
        if self.args.html.is_some() {
            html::trace::check(shown, narrower(self.args))?;
        }
        if self.args.svg.is_some() && self.views.attention {
            svg::check_attention(shown, narrower(self.args))?;
        }
        let (activations, repeat) = self.run(&[&ids], &[])?.pop().context("the text was not run")?;
        let written = |path: &Path, what: String| {
            if !self.verbosity.quiet {
                say_written(path, what);
            }
        };
        if let (Some(path), Some(saving)) = (&self.args.save, &self.saving) {
            written(path, saving.of_text(ids.len()));
        }
        let tokenizer = self.loaded.tokenizer.as_ref();
        let notation = self.loaded.notation(self.args.pieces.pieces);
        let views = self.views_of(ids.len());
        let views = if self.args.html.is_some() { views.of_page() } else { views };
        let mut record = self.record(&ids, activations, views, repeat)?;
        record.attribution = self.attributions(&[&ids])?.pop();
        if let Some(path) = &self.args.html {
            html::trace::write(path, &record, &attribution::of_each(self.loaded, &ids)?, tokenizer)?;
            self.views.keep(&mut record);
            written(path, "a page with attention, attribution, logit lens and hidden states".to_owned());
        }
        if let Some(path) = &self.args.svg {
            svg::write(path, &record, notation, self.args.theme)?;
            written(path, self.views.picture(shown.0));
        }
        let has_files = [&self.args.save, &self.args.svg, &self.args.html].iter().any(|path| path.is_some());
        let mut out = Stdout::lock();
        match format {
            // The user asked for files, and the default view is not about them.
            Format::Text if has_files && !self.views.are_chosen => {}
            Format::Text => record.write_text(notation, &mut out)?,
            format => out.json(&record, format)?,
        }
        out.finish()
    }

    fn batch(&self, input: Input) -> Result<()> {
        let (args, texts) = (self.args, &self.args.texts);
        let is_saved = |path: &Option<PathBuf>| args.save.is_some() && *path == args.save;
        for (flag, path) in [("--output", &texts.rows.output), ("--summary", &texts.rows.summary)] {
            if is_saved(path) {
                bail!(Error::Usage(format!("--save is the file of {flag}; give another file")));
            }
        }
        let mut settings = self.loaded.settings("trace", &args.model, &args.text, &texts.rows);
        let Views { hidden, attention, lens, .. } = self.views;
        let shown = serde_json::json!({
            "hidden": hidden, "attention": attention, "lens": lens, "layer": args.layer, "head": args.head,
            "repeat": args.repeat, "attribute": args.attribution.attribute, "against": args.attribution.against,
            "position": args.attribution.position,
        });
        settings.parameters.extend(shown.as_object().cloned().unwrap_or_default());
        let is_text = texts.is_text(args.format.map(|format| format == Format::Text));
        // Without a chosen view there is only the file.
        let is_shown = self.views.are_chosen || self.saving.is_none();
        let batch = Batch::open(&texts.rows, input, is_text, args.batch.batch_size, &mut settings, self.verbosity)?;
        batch.run_then(
            &TraceRecord::default(),
            |rows, tokens| {
                let ids = rows.iter().map(|row| Ok((row.name(), self.ids(&row.prompt, Some(row.place.line))?)));
                rows::of_those_that_can(ids.collect(), |texts| {
                    *tokens += texts.iter().map(|(_, ids)| ids.len()).sum::<usize>();
                    together(texts, &|texts| self.records(texts))
                })
            },
            |row, record, out| {
                if !is_shown {
                    return Ok(());
                }
                row.write_heading(out)?;
                record.write_text(self.loaded.notation(self.args.pieces.pieces), out)
            },
            || {
                let Some((path, saving)) = args.save.as_ref().zip(self.saving.as_ref()) else { return Ok(()) };
                let what = saving.finish()?;
                if !self.verbosity.quiet {
                    say_written(path, what);
                }
                Ok(())
            },
        )
    }

    fn ids(&self, prompt: &Prompt, line: Option<usize>) -> Result<Vec<u32>> {
        self.loaded.prompt_ids(prompt, line, &self.args.text, self.verbosity)
    }

    /// What is shown of a text of so many tokens: of a long one, no attention that nobody asked for.
    fn views_of(&self, tokens: usize) -> Views {
        let heads = self.layers.len().saturating_mul(self.heads.len());
        let is_much = heads.saturating_mul(tokens.saturating_mul(tokens)) > MOST_WEIGHTS;
        Views { attention: self.views.attention && !(self.views.is_overview && is_much), ..self.views }
    }

    /// The records of rows, which have names and ids.
    fn records(&self, texts: &[(String, Vec<u32>)]) -> Result<Vec<TraceRecord>> {
        let ids: Vec<&[u32]> = texts.iter().map(|(_, ids)| ids.as_slice()).collect();
        let names: Vec<String> = texts.iter().map(|(name, _)| name.clone()).collect();
        let runs = self.run(&ids, &names)?.into_iter().zip(&ids);
        let record = |((activations, repeat), ids): ((_, _), &&[u32])| {
            self.record(ids, activations, self.views_of(ids.len()), repeat)
        };
        let mut records = runs.map(record).collect::<Result<Vec<_>>>()?;
        for (record, attribution) in records.iter_mut().zip(self.attributions(&ids)?) {
            record.attribution = Some(attribution);
        }
        Ok(records)
    }

    /// What made the logit that is asked about, in each of the texts; nothing if none is.
    fn attributions(&self, texts: &[&[u32]]) -> Result<Vec<AttributionRecord>> {
        self.question.as_ref().map_or(Ok(vec![]), |question| question.answer(self.loaded, texts))
    }

    /// Runs the texts, rows if they have names, as often as is asked for; what comes of each text is that of the first run,
    /// which is saved.
    fn run(&self, texts: &[&[u32]], names: &[String]) -> Result<Vec<(Activations, Option<RepeatRecord>)>> {
        let Views { hidden, attention, lens, .. } = self.views;
        let args = self.args;
        if !(hidden || attention || lens || args.html.is_some() || args.save.is_some() || args.repeat.is_some()) {
            // What made a logit is found in a pass of its own.
            return Ok(texts.iter().map(|_| (Activations::default(), None)).collect());
        }
        let all = 0..self.loaded.model.config().n_layer;
        let recorded = match () {
            () if self.args.repeat.is_some() => all,
            () if self.args.html.is_some() || texts.iter().any(|ids| self.views_of(ids.len()).attention) => {
                self.layers.clone()
            }
            () => 0..0,
        };
        let model = &self.loaded.model;
        texts.iter().try_for_each(|ids| check_context(self.loaded, ids.len()))?;
        let bytes = |tokens| {
            let saved = self.saving.as_ref().map_or(0, |saving| saving.bytes(model.config(), tokens));
            activations::bytes(model, tokens, recorded.len(), self.args.repeat.is_some()) + saved
        };
        match texts {
            [ids] => {
                let what = format!("tracing {}", tokens_text(ids.len()));
                require_memory(&what, ids.len(), bytes, |tokens| format!("a text of {}", tokens_text(tokens)))?;
            }
            _ => memory::require_bytes("tracing", texts.iter().map(|ids| bytes(ids.len())).sum())?,
        }
        let pass = |saving: Option<&Saving<'_>>| {
            let record = |model: &Gpt2, texts: &[&[u32]], names: &[String]| match saving {
                Some(saving) => saving.record(model, texts, names, recorded.clone()),
                None => Activations::record_all(model, texts, recorded.clone()),
            };
            if !self.loaded.is_changed_by_text() {
                return Ok(record(model, texts, names)?);
            }
            let mut found = vec![];
            for (text, ids) in texts.iter().enumerate() {
                let name = names.get(text).map(std::slice::from_ref).unwrap_or_default();
                found.extend(record(&self.loaded.model_for(ids)?, &[*ids], name)?);
            }
            Ok(found)
        };
        let first = match &self.saving {
            Some(saving) => saving.all_or_none(|| pass(Some(saving)))?,
            None => pass(None)?,
        };
        let Some(runs) = self.args.repeat else {
            return Ok(first.into_iter().map(|activations| (activations, None)).collect());
        };
        let hashes = |all: &[Activations]| all.iter().map(|one| one.fingerprint(model)).collect::<gpt2::Result<_>>();
        let mut found: Vec<Vec<String>> = vec![hashes(&first)?];
        for _ in 1..runs {
            found.push(hashes(&pass(None)?)?);
        }
        let of_text = |text: usize| RepeatRecord::new(found.iter().map(|run| run[text].clone()).collect());
        Ok(first.into_iter().enumerate().map(|(text, one)| (one, Some(of_text(text)))).collect())
    }

    fn record(
        &self,
        ids: &[u32],
        mut activations: Activations,
        views: Views,
        repeat: Option<RepeatRecord>,
    ) -> Result<TraceRecord> {
        let attention = views.attention.then(|| self.attention(&mut activations)).transpose()?;
        let from = if views.is_overview { ids.len() - 1 } else { 0 };
        let lens = || lens_at(&self.loaded.model, &activations, from..ids.len(), LENS_TOP);
        Ok(TraceRecord {
            repeat,
            hidden: views.hidden.then(|| hidden(&activations)).transpose()?,
            attention,
            lens: if views.lens { Some(lens()?.iter().map(|layer| self.lens(layer, from)).collect()) } else { None },
            ..bare_record(ids, self.loaded)
        })
    }

    /// The heads' weights, which move out of the activations, a layer at a time.
    fn attention(&self, activations: &mut Activations) -> Result<Vec<HeadRecord>> {
        let mut records = vec![];
        let layers = std::mem::take(&mut activations.attention);
        for layer in layers.into_iter().filter(|layer| self.layers.contains(&layer.layer)) {
            for head in self.heads.clone() {
                let weights = layer.weights(head)?;
                records.push(HeadRecord { layer: layer.layer, head, weights });
            }
        }
        Ok(records)
    }

    /// The record of a layer's readings from a position on.
    fn lens(&self, layer: &LensLayer, from: usize) -> LensRecord {
        let best = |(id, prob): &(u32, f32)| BestRecord { id: *id, token: self.loaded.token_text(*id), prob: *prob };
        let reading = |(position, reading): (usize, &LensReading)| ReadingRecord {
            position: from + position,
            top: reading.top.iter().map(best).collect(),
            outcome_prob: reading.outcome,
        };
        LensRecord { name: layer.name.clone(), positions: layer.positions.iter().enumerate().map(reading).collect() }
    }
}

/// A record without any view.
fn bare_record(ids: &[u32], loaded: &Loaded) -> TraceRecord {
    TraceRecord {
        model: loaded.name.clone(),
        settings: loaded.record_settings([]),
        ids: ids.to_vec(),
        tokens: ids.iter().map(|id| loaded.token_text(*id)).collect(),
        ..TraceRecord::default()
    }
}

fn hidden(activations: &Activations) -> Result<Vec<HiddenRecord>> {
    let record = |state: &Hidden| {
        let summary = state.summary(EXCERPT)?;
        Ok(HiddenRecord {
            name: state.name.clone(),
            shape: [summary.shape.0, summary.shape.1],
            mean: summary.mean,
            std: summary.std,
            first: summary.first,
            last_position: summary.last_position,
            last: summary.last,
            norms: summary.norms,
        })
    };
    activations.hidden.iter().map(record).collect()
}
