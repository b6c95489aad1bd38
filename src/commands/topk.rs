//! `gpt2 topk`: the distribution over the next token.

use std::ops::Range;

use anyhow::{Result, bail};
use gpt2::Error;
use gpt2::analysis::next_token::{self, MOST_NODES, NextToken, Node, Query, next_tokens, node_count, tree};
use gpt2::error::tokens_text;
use gpt2::memory;

use super::load::Loaded;
use super::progress::bar;
use super::{check_context, require_memory};
use crate::cli::{Format, TopkArgs, Verbosity};
use crate::output::topk::{CandidateRecord, Candidates, NodeRecord, PositionRecord, TopkRecord, TreeRecord};
use crate::output::{Stdout, check_folder, html};

/// Trees of at least this many nodes get a progress bar.
const MANY: u64 = 1000;

pub fn run(args: &TopkArgs, verbosity: Verbosity) -> Result<()> {
    check(args)?;
    let prompt = if args.keep_newline { args.text.prompt()? } else { args.text.prompt_without_newline()? };
    let loaded = Loaded::load(&args.model, verbosity)?;
    let ids = loaded.prompt_ids(&prompt, None, &args.text, verbosity)?;
    let mut config = args.processors.over(loaded.generation_defaults(args.generation_config, verbosity)?)?;
    let given = args.processors.given();
    let blame = |error: Error| loaded.blame(error.into(), args.generation_config, &given);
    loaded.encode_texts(&mut config).map_err(blame)?;
    let vocab_size = loaded.model.config().vocab_size;
    let query = Query {
        k: args.k.min(vocab_size),
        tokens: args.token.iter().map(|text| asked_token(text, &loaded)).collect::<Result<_>>()?,
        processors: config.processors().map_err(blame)?,
    };
    query.processors.check(vocab_size).map_err(blame)?;
    let mut out = Stdout::lock();
    match args.tree {
        Some(depth) => {
            check_context(&loaded, ids.len())?;
            require_tree(&loaded, ids.len(), depth, query.k)?;
            let nodes = node_count(query.k, depth).unwrap_or_default();
            let bar = bar("nodes", nodes, verbosity.quiet || nodes < MANY)?;
            let nodes = tree(&loaded.model, &ids, depth, &query, &|| bar.inc(1))?;
            bar.finish_and_clear();
            let tree = nodes.into_iter().map(|node| node_record(node, &loaded)).collect();
            let record = TreeRecord { model: loaded.name.clone(), prompt_ids: ids, tree };
            match args.format {
                Format::Text => record.write_text(&mut out)?,
                format => out.json(&record, format)?,
            }
        }
        None => {
            let positions = wanted_positions(args, ids.len())?;
            if args.html.is_some() {
                html::topk::check(positions.len(), query.k)?;
            }
            check_context(&loaded, ids.len())?;
            require(&loaded, positions.end, positions.len(), &query)?;
            let found = next_tokens(&loaded.model, &ids, positions, &query)?;
            let positions = found.into_iter().map(|next| position_record(next, &ids, &loaded)).collect();
            let record = TopkRecord { model: loaded.name.clone(), prompt_ids: ids, positions };
            if let Some(path) = &args.html {
                html::topk::write(path, &record, query.k, loaded.tokenizer.as_ref())?;
            }
            match args.format {
                Format::Text => write_text(&record, &loaded, args.all, &mut out)?,
                format => out.json(&record, format)?,
            }
        }
    }
    out.finish()
}

/// Checks everything that can be checked from the flags alone.
fn check(args: &TopkArgs) -> Result<()> {
    if let Some(depth) = args.tree
        && node_count(args.k, depth).is_none()
    {
        bail!(Error::Usage(format!("--tree {depth} with -k {} has more than {MOST_NODES} nodes", args.k)));
    }
    args.processors.config.check_values()?;
    if args.html.is_some() && !args.all {
        bail!(Error::Usage("--html shows the distribution after every position: it needs --all".into()));
    }
    check_folder(args.html.as_deref())
}

/// Checks that there is memory for the distributions after `positions` of `tokens`.
fn require(loaded: &Loaded, tokens: usize, positions: usize, query: &Query) -> Result<()> {
    let bytes = |k| next_token::bytes(&loaded.model, tokens, positions, &Query { k, ..query.clone() });
    let what = format!("-k {} at {positions} positions", query.k);
    Ok(require_memory(&what, query.k, bytes, |k| format!("-k {k}"))?)
}

/// The same for the tree.
fn require_tree(loaded: &Loaded, tokens: usize, depth: u64, k: usize) -> Result<()> {
    let nodes = node_count(k, depth).unwrap_or(MOST_NODES);
    let records = nodes * size_of::<NodeRecord>() as u64;
    let bytes = next_token::tree_bytes(&loaded.model, tokens, depth, nodes) + records;
    Ok(memory::require_bytes(&format!("a tree {depth} levels deep"), bytes)?)
}

/// The positions that the flags ask for, out of `len`.
fn wanted_positions(args: &TopkArgs, len: usize) -> Result<Range<usize>> {
    let Some(position) = args.position else {
        return Ok(if args.all { 0..len } else { len - 1..len });
    };
    let from_start = if position < 0 { position + len as i64 } else { position };
    match usize::try_from(from_start) {
        Ok(at) if at < len => Ok(at..at + 1),
        _ => {
            let (tokens, last) = (tokens_text(len), len - 1);
            bail!(Error::Usage(format!("--position {position}: the prompt has {tokens}, 0 to {last}")))
        }
    }
}

/// The id of a token given with `--token`.
fn asked_token(text: &str, loaded: &Loaded) -> Result<u32> {
    match loaded.tokenizer()?.encode(text, true)?.as_slice() {
        [token] => Ok(token.id),
        tokens => bail!(Error::Usage(format!(
            "--token \"{text}\" is {}; name one (a word within a sentence begins with a space: \" word\")",
            tokens_text(tokens.len())
        ))),
    }
}

fn position_record<'a>(next: NextToken, ids: &[u32], loaded: &'a Loaded) -> PositionRecord<'a> {
    let id = ids[next.position];
    let candidates = |candidates| Candidates { candidates, pipeline: loaded.pipeline() };
    PositionRecord {
        position: next.position,
        id,
        token: loaded.token_text(id),
        entropy: next.entropy,
        next: candidates(next.best),
        tokens: candidates(next.tokens),
    }
}

fn node_record(node: Node, loaded: &Loaded) -> NodeRecord {
    NodeRecord {
        candidate: CandidateRecord::new(&node.candidate, loaded.pipeline()),
        joint_prob: node.joint_logprob.exp(),
        joint_logprob: node.joint_logprob,
        next: node.next.into_iter().map(|node| node_record(node, loaded)).collect(),
    }
}

fn write_text(record: &TopkRecord<'_>, loaded: &Loaded, lesson: bool, out: &mut Stdout) -> Result<()> {
    let piece = |id| loaded.tokenizer.as_ref().and_then(|t| t.piece(id)).map(str::to_owned);
    let width = |p: &PositionRecord<'_>| piece(p.id).map_or(6, |piece| unicode_width::UnicodeWidthStr::width(&*piece));
    let widest = record.positions.iter().map(width).max().unwrap_or(0).min(24);
    for position in &record.positions {
        if lesson {
            let following = record.prompt_ids.get(position.position + 1).copied();
            position.write_lesson(out, widest, following, piece)?;
        } else {
            position.write_table(out)?;
        }
    }
    Ok(())
}
