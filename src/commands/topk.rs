//! `gpt2 topk`: the distribution over the next token.

use std::ops::Range;

use anyhow::{Result, bail};
use gpt2::Error;
use gpt2::analysis::next_token::{
    self, Candidate, MOST_NODES, NextToken, Node, Query, append_best, next_tokens, next_tokens_of, node_count, tree,
};
use gpt2::base::math;
use gpt2::decode::{GenerationConfig, Processors};
use gpt2::error::tokens_text;
use gpt2::json;
use gpt2::memory;
use gpt2::model::Packing;
use serde_json::Value;

use super::interventions::Changes;
use super::load::{Loaded, Purpose};
use super::progress::bar;
use super::rows::{self, Allowed, Batch, Input, Row, together};
use super::token::{self, token_id};
use super::{check_context, require_memory, shapes};
use crate::cli::{Format, Prompt, TopkArgs, Verbosity};
use crate::output::settings::SettingsRecord;
use crate::output::topk::{
    CandidateRecord, Candidates, NodeRecord, PositionRecord, StepRecord, StepsRecord, TopkRecord, TopkView, TreeRecord,
};
use crate::output::{Stdout, check_folder, html, say_written};

/// Trees of at least this many nodes get a progress bar.
const MANY: u64 = 1000;

/// The model's file of decoding parameters.
const GENERATION_CONFIG: &str = "generation_config.json";

pub fn run(args: &TopkArgs, verbosity: Verbosity) -> Result<()> {
    check(args)?;
    let work = match Input::of_texts_with(&args.texts, Allowed::Processors, &[])? {
        Some(input) => Work::Batch(input),
        None if args.keep_newline => Work::Single(args.text.prompt()?),
        None => Work::Single(args.text.prompt_without_newline()?),
    };
    let changes = Changes::read(&args.interventions)?;
    let (constraint, hooks) = (args.processors.config.is_constrained(), changes.are_any());
    let purpose = Purpose { constraint, hooks, ..Packing::Later.into() };
    let loaded = Loaded::load_for(&args.model, purpose, verbosity)?;
    let is_said = args.texts.is_for_people(args.format) && !verbosity.quiet;
    let loaded = loaded.with_changes(changes, &args.text, is_said)?;
    let format = args.format.unwrap_or_default();
    match work {
        Work::Single(prompt) if args.shapes => shapes::of_text(&loaded, &prompt, &args.text, format, verbosity),
        Work::Batch(input) if args.shapes => shapes::of_rows(&loaded, input, &args.text, format, verbosity),
        Work::Single(prompt) => Topk::new(args, &loaded, verbosity)?.single(&prompt, format),
        Work::Batch(input) => Topk::new(args, &loaded, verbosity)?.batch(input),
    }
}

/// What to look at.
enum Work {
    Single(Prompt),
    Batch(Input),
}

/// Checks everything that can be checked from the flags alone.
fn check(args: &TopkArgs) -> Result<()> {
    if let Some(depth) = args.tree
        && node_count(args.k, depth).is_none()
    {
        bail!(Error::Usage(format!("--tree {depth} with -k {} has more than {MOST_NODES} nodes", args.k)));
    }
    args.processors.config.check_values()?;
    args.pieces.check(args.texts.is_for_people(args.format))?;
    if args.html.is_some() && !args.all {
        bail!(Error::Usage("--html shows the distribution after every position: it needs --all".into()));
    }
    args.texts.check_format(args.format == Some(Format::Text))?;
    check_folder(args.html.as_deref())
}

/// A loaded model and the flags.
struct Topk<'a> {
    args: &'a TopkArgs,
    loaded: &'a Loaded,
    /// The parameters of the processors.
    config: GenerationConfig,
    query: Query,
    settings: SettingsRecord,
    verbosity: Verbosity,
}

impl<'a> Topk<'a> {
    fn new(args: &'a TopkArgs, loaded: &'a Loaded, verbosity: Verbosity) -> Result<Self> {
        let config = args.processors.over(loaded.generation_defaults(args.generation_config, verbosity)?)?;
        let topk = Self::of(args, loaded, config, verbosity);
        topk.map_err(|error| loaded.blame(error, args.generation_config, &args.processors.given()))
    }

    fn of(args: &'a TopkArgs, loaded: &'a Loaded, config: GenerationConfig, verbosity: Verbosity) -> Result<Self> {
        let vocab_size = loaded.model.config().vocab_size;
        let settings = loaded.record_settings(config.changed());
        let mut encoded = config.clone();
        loaded.encode_texts(&mut encoded)?;
        let query = Query {
            k: args.k.min(vocab_size),
            tokens: args.token.iter().map(|text| token_id(loaded, "--token", text)).collect::<Result<_>>()?,
            processors: processors(&encoded, args)?,
        };
        query.processors.check(vocab_size, 0)?;
        Ok(Self { args, loaded, config, query, settings, verbosity })
    }

    /// The same with the parameters of a row; none if it has none.
    fn of_row(&self, row: &Row) -> Result<Option<Self>> {
        if row.parameters.values().all(Value::is_null) {
            return Ok(None);
        }
        let config = self.config.with_json(&row.parameters).map_err(anyhow::Error::from);
        let topk = config.and_then(|config| Self::of(self.args, self.loaded, config, self.verbosity));
        let keys = row.parameters.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key.as_str());
        let given: Vec<&str> = self.args.processors.given().into_iter().chain(keys).collect();
        topk.map(Some).map_err(|error| self.loaded.blame(error, self.args.generation_config, &given))
    }

    fn single(&self, prompt: &Prompt, format: Format) -> Result<()> {
        let ids = self.loaded.prompt_ids(prompt, None, &self.args.text, self.verbosity)?;
        self.loaded.note_space(prompt, &ids, self.verbosity);
        self.loaded.note_negative(&self.config, None, self.verbosity);
        if self.args.html.is_some() {
            html::topk::check(wanted_positions(self.args, ids.len())?.len(), self.query.k)?;
        }
        let mut views = self.views(&[ids])?;
        let Some(view) = views.pop() else { return Ok(()) };
        if let (Some(path), TopkView::Positions(record)) = (&self.args.html, &view) {
            html::topk::write(path, record, self.query.k, self.loaded.tokenizer.as_ref())?;
            if !self.verbosity.quiet {
                say_written(path, "a page with the distributions over the text");
            }
        }
        let mut out = Stdout::lock();
        match format {
            Format::Text => self.write_text(&view, vec![], &mut out)?,
            format => out.json(&view, format)?,
        }
        out.finish()
    }

    fn batch(&self, input: Input) -> Result<()> {
        let (args, texts) = (self.args, &self.args.texts);
        let mut settings = self.loaded.settings("topk", &args.model, &args.text, &texts.rows);
        let shown = serde_json::json!({
            "k": args.k, "all": args.all, "position": args.position, "token": args.token, "tree": args.tree,
            "append": args.append, "generation_config": args.generation_config,
        });
        settings.parameters.extend(shown.as_object().cloned().unwrap_or_default());
        settings.parameters.extend(rows::parameters(&self.config));
        let is_text = texts.is_text(args.format.map(|format| format == Format::Text));
        let batch = Batch::open(&texts.rows, input, is_text, args.batch.batch_size, &mut settings, self.verbosity)?;
        let empty = match (args.tree, args.append) {
            (Some(_), _) => TopkView::Tree(TreeRecord::default()),
            (None, Some(_)) => TopkView::Steps(StepsRecord::default()),
            (None, None) => TopkView::Positions(TopkRecord::default()),
        };
        batch.run(
            &empty,
            |rows, tokens| {
                let asked = rows.iter().map(|row| {
                    let line = Some(row.place.line);
                    let ids = self.loaded.prompt_ids(&row.prompt, line, &args.text, self.verbosity)?;
                    let topk = self.of_row(row)?;
                    self.loaded.note_negative(&topk.as_ref().unwrap_or(self).config, line, self.verbosity);
                    Ok((topk, ids))
                });
                rows::of_those_that_can(asked.collect(), |asked| {
                    *tokens += asked.iter().map(|(_, ids)| ids.len()).sum::<usize>();
                    together(asked, &|asked| self.views_of_rows(asked))
                })
            },
            |row, view, out| {
                row.write_heading(out)?;
                let given = row.parameters.iter().filter(|(_, value)| !value.is_null());
                let given = given.map(|(key, value)| format!("{key} {}", json::shown(value)));
                self.write_text(view, given.collect(), out)?;
                Ok(writeln!(out)?)
            },
        )
    }

    /// What is shown of each row: together of those in turn that have no parameters of their own.
    fn views_of_rows(&self, rows: &[(Option<Self>, Vec<u32>)]) -> Result<Vec<TopkView<'a>>> {
        let mut views = vec![];
        for alike in rows.chunk_by(|(a, _), (b, _)| a.is_none() && b.is_none()) {
            let ids: Vec<Vec<u32>> = alike.iter().map(|(_, ids)| ids.clone()).collect();
            views.extend(alike[0].0.as_ref().unwrap_or(self).views(&ids)?);
        }
        Ok(views)
    }

    /// What is shown of each text.
    fn views(&self, texts: &[Vec<u32>]) -> Result<Vec<TopkView<'a>>> {
        texts.iter().try_for_each(|ids| check_context(self.loaded, ids.len()))?;
        match (self.args.tree, self.args.append) {
            (Some(depth), _) => texts.iter().map(|ids| self.tree(ids, depth)).collect(),
            (None, Some(steps)) => texts.iter().map(|ids| self.steps(ids, steps)).collect(),
            (None, None) => {
                let wanted = texts.iter().map(|ids| Ok((&ids[..], wanted_positions(self.args, ids.len())?)));
                let wanted = wanted.collect::<Result<Vec<_>>>()?;
                self.require(wanted.iter().map(|(_, positions)| (positions.end, positions.len())))?;
                let found = match self.loaded.is_changed_by_text() {
                    false => next_tokens_of(&self.loaded.model, &wanted, &self.query)?,
                    true => {
                        let of_text = |(text, (ids, positions)): (&Vec<u32>, &(&[u32], Range<usize>))| {
                            Ok(next_tokens(&self.loaded.model_for(text)?, ids, positions.clone(), &self.query)?)
                        };
                        texts.iter().zip(&wanted).map(of_text).collect::<Result<_>>()?
                    }
                };
                Ok(found.into_iter().zip(texts).map(|(found, ids)| self.positions(found, ids)).collect())
            }
        }
    }

    /// Checks that there is memory for distributions: for each text, after how many positions of how many tokens.
    fn require(&self, texts: impl Iterator<Item = (usize, usize)> + Clone) -> Result<()> {
        let (model, query) = (&self.loaded.model, &self.query);
        let of_text =
            |(tokens, positions), k| next_token::bytes(model, tokens, positions, &Query { k, ..query.clone() });
        let bytes = |k| texts.clone().map(|text| of_text(text, k)).sum();
        let positions: usize = texts.clone().map(|(_, positions)| positions).sum();
        let what = format!("-k {} at {positions} positions", query.k);
        Ok(require_memory(&what, query.k, bytes, |k| format!("-k {k}"))?)
    }

    fn positions(&self, found: Vec<NextToken>, ids: &[u32]) -> TopkView<'a> {
        let record = |next: NextToken| {
            let id = ids[next.position];
            PositionRecord {
                position: next.position,
                id,
                token: self.loaded.token_text(id),
                entropy: next.entropy,
                kept: Some(next.kept).filter(|kept| *kept < self.loaded.model.config().vocab_size),
                removed: next.removed,
                next: self.candidates(next.best),
                tokens: self.candidates(next.tokens),
            }
        };
        let positions = found.into_iter().map(record).collect();
        TopkView::Positions(TopkRecord {
            model: self.loaded.name.clone(),
            settings: self.settings.clone(),
            prompt_ids: ids.to_vec(),
            positions,
        })
    }

    fn tree(&self, ids: &[u32], depth: u64) -> Result<TopkView<'a>> {
        let nodes = node_count(self.query.k, depth).unwrap_or(MOST_NODES);
        let records = nodes * size_of::<NodeRecord>() as u64;
        let bytes = next_token::tree_bytes(&self.loaded.model, ids.len(), depth, nodes) + records;
        memory::require_bytes(&format!("a tree {depth} levels deep"), bytes)?;
        let bar = bar("nodes", nodes, self.verbosity.quiet || nodes < MANY)?;
        let nodes = tree(&self.loaded.model_for(ids)?, ids, depth, &self.query, &|| bar.inc(1))?;
        bar.finish_and_clear();
        let tree = nodes.into_iter().map(|node| self.node(node)).collect();
        Ok(TopkView::Tree(TreeRecord {
            model: self.loaded.name.clone(),
            settings: self.settings.clone(),
            prompt_ids: ids.to_vec(),
            tree,
        }))
    }

    fn steps(&self, ids: &[u32], count: usize) -> Result<TopkView<'a>> {
        // The last token is appended, and not run.
        let most = (self.loaded.model.config().n_positions + 1).saturating_sub(ids.len());
        if most < count {
            let (tokens, context) = (tokens_text(ids.len()), self.loaded.model.config().n_positions);
            bail!(Error::Usage(format!(
                "--append {count}: after {tokens}, a context of {context} has room for {most}; append no more"
            )));
        }
        self.require([(ids.len() + count, count)].into_iter())?;
        let found = append_best(&self.loaded.model_for(ids)?, ids, count, &self.query)?;
        let mut all_ids = ids.to_vec();
        all_ids.extend(found.iter().filter_map(|next| next.best.first()).map(|best| best.id));
        let step = |(i, next): (usize, NextToken)| {
            Some(StepRecord {
                step: i + 1,
                chosen: self.candidate(next.best.first()?),
                position: next.position,
                entropy: next.entropy,
                next: self.candidates(next.best),
                tokens: self.candidates(next.tokens),
            })
        };
        Ok(TopkView::Steps(StepsRecord {
            model: self.loaded.name.clone(),
            settings: self.settings.clone(),
            prompt_ids: ids.to_vec(),
            steps: found.into_iter().enumerate().filter_map(step).collect(),
            text: self.loaded.tokenizer.as_ref().map(|tokenizer| tokenizer.decode(&all_ids, false)).transpose()?,
            all_ids,
        }))
    }

    fn candidates(&self, candidates: Vec<Candidate>) -> Candidates<'a> {
        Candidates { candidates, pipeline: self.loaded.pipeline() }
    }

    fn candidate(&self, candidate: &Candidate) -> CandidateRecord {
        CandidateRecord::new(candidate, self.loaded.pipeline())
    }

    fn node(&self, node: Node) -> NodeRecord {
        NodeRecord {
            candidate: self.candidate(&node.candidate),
            joint_prob: math::exp(node.joint_logprob),
            joint_logprob: node.joint_logprob,
            next: node.next.into_iter().map(|node| self.node(node)).collect(),
        }
    }

    /// Writes it for people; `parameters` are those of a row.
    fn write_text(&self, view: &TopkView<'_>, parameters: Vec<String>, out: &mut Stdout) -> Result<()> {
        let args = self.args;
        let notation = self.loaded.notation(args.pieces.pieces);
        match view {
            TopkView::Positions(record) => {
                let flags = [args.generation_config.then(|| GENERATION_CONFIG.to_owned()), args.processors.shown()];
                let flags: Vec<String> = flags.into_iter().flatten().chain(parameters).collect();
                record.write_text(notation, args.all, &flags.join(" and "), out)
            }
            TopkView::Tree(record) => record.write_text(notation, out),
            TopkView::Steps(record) => record.write_text(notation, out),
        }
    }
}

/// The processors. An end is forced on the last of the tokens that are appended.
fn processors(config: &GenerationConfig, args: &TopkArgs) -> gpt2::Result<Processors> {
    let max_new_tokens = args.append.unwrap_or(usize::MAX);
    GenerationConfig { max_new_tokens, max_length: None, ..config.clone() }.processors()
}

/// The positions that the flags ask for, out of `len`.
fn wanted_positions(args: &TopkArgs, len: usize) -> Result<Range<usize>> {
    let Some(position) = args.position else {
        return Ok(if args.all { 0..len } else { len - 1..len });
    };
    let at = token::position(position, len)?;
    Ok(at..at + 1)
}
