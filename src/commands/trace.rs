//! `gpt2 trace`: what happens inside the network.

use std::ops::Range;

use anyhow::Result;
use gpt2::Error;
use gpt2::analysis::activations::{self, Activations, Hidden};
use gpt2::analysis::lens::{LensLayer, LensReading, lens};
use gpt2::error::tokens_text;

use super::load::Loaded;
use super::{check_context, require_memory};
use crate::cli::{Format, Theme, TraceArgs, Verbosity};
use crate::output::trace::{BestRecord, HeadRecord, HiddenRecord, LensRecord, ReadingRecord, TraceRecord};
use crate::output::{Stdout, check_folder, html, svg};

/// How many values are reported from each end of a hidden state.
const EXCERPT: usize = 8;

/// How many tokens the lens reports for each layer and position.
const LENS_TOP: usize = 5;

pub fn run(args: &TraceArgs, verbosity: Verbosity) -> Result<()> {
    let views = Views::of(args)?;
    [&args.svg, &args.html, &args.save].into_iter().try_for_each(|path| check_folder(path.as_deref()))?;
    let prompt = args.text.prompt()?;
    let loaded = Loaded::load(&args.model, verbosity)?;
    let config = loaded.model.config();
    let layers = selected(args.layer, config.n_layer, "--layer")?;
    let heads = selected(args.head, config.n_head, "--head")?;
    let ids = loaded.prompt_ids(&prompt, None, &args.text, verbosity)?;
    let recorded = match () {
        () if args.save.is_some() => 0..config.n_layer,
        () if views.attention || args.html.is_some() => layers.clone(),
        () => 0..0,
    };
    let shown = (layers.len() * heads.len(), ids.len());
    if args.html.is_some() {
        html::trace::check(shown, narrower(args))?;
    }
    if args.svg.is_some() && views.attention {
        svg::check_attention(shown, narrower(args))?;
    }
    check_context(&loaded, ids.len())?;
    let bytes = |tokens| activations::bytes(&loaded.model, tokens, recorded.len(), args.save.is_some());
    let what = format!("tracing {}", tokens_text(ids.len()));
    require_memory(&what, ids.len(), bytes, |tokens| format!("a text of {}", tokens_text(tokens)))?;
    let activations = Activations::record(&loaded.model, &ids, recorded)?;
    if let Some(path) = &args.save {
        gpt2::files::check_output(path)?;
        activations.save(&loaded.model, path)?;
    }
    let tracer = Tracer { loaded: &loaded, activations, layers, heads };
    let tokenizer = loaded.tokenizer.as_ref();
    let mut record = tracer.record(&ids, if args.html.is_some() { Views::ALL } else { views })?;
    if let Some(path) = &args.html {
        html::trace::write(path, &record, tokenizer)?;
        views.keep(&mut record);
    }
    if let Some(path) = &args.svg {
        svg::write(path, &record, tokenizer, args.theme)?;
    }
    let mut out = Stdout::lock();
    match args.format {
        Format::Text => record.write_text(tokenizer, &mut out)?,
        format => out.json(&record, format)?,
    }
    out.finish()
}

/// Which views to show.
#[derive(Debug, Clone, Copy)]
struct Views {
    hidden: bool,
    attention: bool,
    lens: bool,
}

impl Views {
    const ALL: Self = Self { hidden: true, attention: true, lens: true };

    fn of(args: &TraceArgs) -> Result<Self> {
        let attention = args.attention || ((args.layer.is_some() || args.head.is_some()) && args.html.is_none());
        let hidden = args.hidden || !(attention || args.lens);
        if args.svg.is_some() && [hidden, attention, args.lens].into_iter().filter(|view| *view).count() > 1 {
            let message = "--svg draws one view: choose one of --hidden, --attention and --lens";
            return Err(Error::Usage(message.into()).into());
        }
        if args.theme == Theme::Auto && args.svg.as_deref().is_some_and(svg::is_png) {
            let message = "--theme auto: a PNG cannot follow the viewer; choose light or dark, or write .svg";
            return Err(Error::Usage(message.into()).into());
        }
        Ok(Self { hidden, attention, lens: args.lens })
    }

    /// Drops the other views of a record.
    fn keep(self, record: &mut TraceRecord) {
        record.hidden = record.hidden.take().filter(|_| self.hidden);
        record.attention = record.attention.take().filter(|_| self.attention);
        record.lens = record.lens.take().filter(|_| self.lens);
    }
}

/// How to ask for fewer heads.
fn narrower(args: &TraceArgs) -> &'static str {
    match (args.layer, args.head) {
        (None, None) => "choose a --layer or a --head, or shorten the text",
        (None, Some(_)) => "choose a --layer, or shorten the text",
        (Some(_), None) => "choose a --head, or shorten the text",
        (Some(_), Some(_)) => "shorten the text",
    }
}

/// The layer or head that a flag names, or all.
fn selected(chosen: Option<usize>, count: usize, flag: &str) -> Result<Range<usize>> {
    match chosen {
        None => Ok(0..count),
        Some(chosen) if chosen < count => Ok(chosen..chosen + 1),
        Some(chosen) => Err(Error::Usage(format!("{flag} {chosen}: the model has 0 to {}", count - 1)).into()),
    }
}

/// A recorded pass and the flags that say what to show of it.
struct Tracer<'a> {
    loaded: &'a Loaded,
    activations: Activations,
    layers: Range<usize>,
    heads: Range<usize>,
}

impl Tracer<'_> {
    fn record(mut self, ids: &[u32], views: Views) -> Result<TraceRecord> {
        let attention = views.attention.then(|| self.attention()).transpose()?;
        let lens = || lens(&self.loaded.model, &self.activations, LENS_TOP);
        Ok(TraceRecord {
            model: self.loaded.name.clone(),
            ids: ids.to_vec(),
            tokens: ids.iter().map(|id| self.loaded.token_text(*id)).collect(),
            hidden: views.hidden.then(|| self.hidden()).transpose()?,
            attention,
            lens: if views.lens { Some(lens()?.iter().map(|layer| self.lens(layer)).collect()) } else { None },
        })
    }

    fn hidden(&self) -> Result<Vec<HiddenRecord>> {
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
        self.activations.hidden.iter().map(record).collect()
    }

    /// The heads' weights, which move out of the activations, a layer at a time.
    fn attention(&mut self) -> Result<Vec<HeadRecord>> {
        let mut records = vec![];
        let layers = std::mem::take(&mut self.activations.attention);
        for layer in layers.into_iter().filter(|layer| self.layers.contains(&layer.layer)) {
            for head in self.heads.clone() {
                let weights = layer.weights(head)?;
                records.push(HeadRecord { layer: layer.layer, head, weights });
            }
        }
        Ok(records)
    }

    fn lens(&self, layer: &LensLayer) -> LensRecord {
        let best = |(id, prob): &(u32, f32)| BestRecord { id: *id, token: self.loaded.token_text(*id), prob: *prob };
        let reading = |(position, reading): (usize, &LensReading)| ReadingRecord {
            position,
            top: reading.top.iter().map(best).collect(),
            outcome_prob: reading.outcome,
        };
        LensRecord { name: layer.name.clone(), positions: layer.positions.iter().enumerate().map(reading).collect() }
    }
}
