//! `gpt2 topk`: the distribution over the next token.

use anyhow::{Result, bail};
use gpt2::Error;
use gpt2::decode::Processors;
use gpt2::language_model::{Input, LanguageModel};
use gpt2::logits;
use gpt2::model::{Session, select_rows, to_host};

use super::load::Loaded;
use crate::cli::{Format, TopkArgs, Verbosity};
use crate::output::topk::{CandidateRecord, NodeRecord, PositionRecord, TopkRecord, TreeRecord};
use crate::output::{Stdout, html};

/// Positions whose logits are held at once.
const CHUNK: usize = 32;

/// The most nodes of a tree: what a person could still look through, many times over.
const MOST_NODES: u64 = 1_000_000;

pub fn run(args: &TopkArgs, verbosity: Verbosity) -> Result<()> {
    if args.k == 0 {
        return Err(Error::Usage("-k is 0; show at least one token".into()).into());
    }
    let loaded = Loaded::load(&args.model, verbosity)?;
    let ids = loaded.prompt_ids(&args.text.prompt()?, &args.text, verbosity)?;
    let vocab_size = loaded.model.config().vocab_size;
    let processors = args.processors.config(loaded.tokenizer.as_ref(), vocab_size)?.processors()?;
    let query = Query { k: args.k.min(vocab_size), tokens: asked_tokens(args, &loaded)?, processors, loaded: &loaded };
    let mut out = Stdout::lock();
    match args.tree {
        Some(depth) => query.tree(ids, depth, args.format, &mut out)?,
        None => {
            let positions = wanted_positions(args, ids.len())?;
            let positions = query.positions(&ids, positions)?;
            let record = TopkRecord { model: loaded.name.clone(), prompt_ids: ids, positions };
            if let Some(path) = &args.html {
                html::topk::write(path, &record, query.k, loaded.tokenizer.as_ref())?;
            }
            match args.format {
                Format::Text => query.write_text(&record, args.all, &mut out)?,
                format => out.json(&record, format)?,
            }
        }
    }
    out.finish()
}

/// The positions that the flags ask for, among `len`.
fn wanted_positions(args: &TopkArgs, len: usize) -> Result<std::ops::Range<usize>> {
    let Some(position) = args.position else {
        return Ok(if args.all { 0..len } else { len - 1..len });
    };
    let from_start = if position < 0 { position + len as i64 } else { position };
    match usize::try_from(from_start) {
        Ok(at) if at < len => Ok(at..at + 1),
        _ => bail!(Error::Usage(format!("--position {position}: the prompt has {len} tokens, 0 to {}", len - 1))),
    }
}

/// The ids of the tokens given with `--token`.
fn asked_tokens(args: &TopkArgs, loaded: &Loaded) -> Result<Vec<u32>> {
    let id = |text: &String| {
        let tokens = loaded.tokenizer()?.encode(text, true)?;
        match tokens.as_slice() {
            [token] => Ok(token.id),
            tokens => bail!(Error::Usage(format!(
                "--token \"{text}\" is {} tokens; name one (a word within a sentence begins with a space: \" word\")",
                tokens.len()
            ))),
        }
    };
    args.token.iter().map(id).collect()
}

/// What is asked about each distribution.
struct Query<'a> {
    k: usize,
    tokens: Vec<u32>,
    processors: Processors,
    loaded: &'a Loaded,
}

impl Query<'_> {
    /// The distributions after the given positions, from one forward pass.
    fn positions(&self, ids: &[u32], wanted: std::ops::Range<usize>) -> Result<Vec<PositionRecord>> {
        let model = &self.loaded.model;
        let x = model.forward(&[(0, &ids[..wanted.end])], &mut model.new_cache(), None)?;
        let indices: Vec<u32> = wanted.map(|i| i as u32).collect();
        let mut records = Vec::with_capacity(indices.len());
        for chunk in indices.chunks(CHUNK) {
            let x = select_rows(&x, chunk)?;
            let mut logits = to_host(&model.logits(&model.final_norm(&x)?)?)?;
            for (row, at) in logits.chunks_exact_mut(model.config().vocab_size).zip(chunk) {
                records.push(self.position(row, ids, *at as usize)?);
            }
        }
        Ok(records)
    }

    fn position(&self, logits: &mut [f32], ids: &[u32], at: usize) -> Result<PositionRecord> {
        let distribution = Distribution::new(logits, &self.processors, &ids[..=at])?;
        let entry = |(rank, id): (usize, u32)| self.candidate(&distribution, rank, id);
        let next = distribution.best(self.k).into_iter().enumerate().map(|(i, id)| entry((i + 1, id))).collect();
        let tokens = self.tokens.iter().map(|id| entry((distribution.rank(*id), *id))).collect();
        let (id, entropy) = (ids[at], distribution.entropy());
        Ok(PositionRecord { position: at, id, token: self.loaded.token_text(id), entropy, next, tokens })
    }

    fn candidate(&self, distribution: &Distribution<'_>, rank: usize, id: u32) -> CandidateRecord {
        let finite = |x: f32| x.is_finite().then_some(x);
        let logprob = finite(distribution.logprobs[id as usize]).map(f64::from);
        CandidateRecord {
            rank,
            id,
            token: self.loaded.token_text(id),
            logit: finite(distribution.logits[id as usize]),
            prob: logprob.map_or(0.0, f64::exp),
            logprob,
        }
    }

    fn write_text(&self, record: &TopkRecord, lesson: bool, out: &mut Stdout) -> Result<()> {
        let piece = |id| self.loaded.tokenizer.as_ref().and_then(|t| t.piece(id)).map(str::to_owned);
        let width = |p: &PositionRecord| piece(p.id).map_or(6, |piece| unicode_width::UnicodeWidthStr::width(&*piece));
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

    /// The k best continuations, `depth` levels deep, with joint probabilities.
    fn tree(&self, prompt_ids: Vec<u32>, depth: u64, format: Format, out: &mut Stdout) -> Result<()> {
        let nodes = (1..=depth as u32).try_fold(0u64, |sum, level| {
            (self.k as u64).checked_pow(level).and_then(|n| sum.checked_add(n)).filter(|n| *n <= MOST_NODES)
        });
        if nodes.is_none() {
            bail!(Error::Usage(format!("--tree {depth} with -k {} has more than {MOST_NODES} nodes", self.k)));
        }
        let mut session = Session::new(&self.loaded.model);
        let mut logits = last_logits(&mut session, 0, &prompt_ids)?;
        let mut path = prompt_ids.clone();
        let next = self.grow(&mut session, &mut logits, &mut path, 0.0, depth)?;
        let record = TreeRecord { model: self.loaded.name.clone(), prompt_ids, tree: next };
        match format {
            Format::Text => record.write_text(out),
            format => out.json(&record, format),
        }
    }

    /// The nodes below a path whose next-token logits are given; `joint` is the path's own log-probability. Row
    /// `r` of the session holds the path at depth `r`: a child shares its parent's past.
    fn grow(
        &self,
        session: &mut Session<'_>,
        logits: &mut [f32],
        path: &mut Vec<u32>,
        joint: f64,
        depth: u64,
    ) -> Result<Vec<NodeRecord>> {
        let distribution = Distribution::new(logits, &self.processors, path)?;
        let best = distribution.best(self.k);
        let candidates: Vec<CandidateRecord> =
            best.into_iter().enumerate().map(|(i, id)| self.candidate(&distribution, i + 1, id)).collect();
        let full = path.len() >= session.n_positions();
        let mut nodes = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let joint = joint + candidate.logprob.unwrap_or(f64::NEG_INFINITY);
            let mut next = vec![];
            if depth > 1 && !full {
                let row = depth as usize;
                let parent = if path.len() == session.len(0) { 0 } else { row + 1 };
                session.assign(&[(row, parent)]);
                let mut logits = last_logits(session, row, &[candidate.id])?;
                path.push(candidate.id);
                next = self.grow(session, &mut logits, path, joint, depth - 1)?;
                path.pop();
            }
            nodes.push(NodeRecord { candidate, joint_prob: joint.exp(), joint_logprob: joint, next });
        }
        Ok(nodes)
    }
}

fn last_logits(session: &mut Session<'_>, row: usize, ids: &[u32]) -> Result<Vec<f32>> {
    let input = Input::logits(row, ids);
    Ok(session.forward(&[input])?.logits)
}

/// A distribution over the next token, after the processors.
struct Distribution<'a> {
    logits: &'a [f32],
    logprobs: Vec<f32>,
}

impl<'a> Distribution<'a> {
    fn new(logits: &'a mut [f32], processors: &Processors, ids: &[u32]) -> Result<Self> {
        processors.apply(logits, ids, 0);
        let mut logprobs = logits.to_vec();
        logits::log_softmax(&mut logprobs);
        if logprobs.iter().any(|p| p.is_nan()) {
            bail!("the model gives no numbers (NaN) after token {}; are its weights broken?", ids.len() - 1);
        }
        Ok(Self { logits, logprobs })
    }

    /// The `k` best tokens that the processors left, best first, the lower id first where they are equal.
    fn best(&self, k: usize) -> Vec<u32> {
        let best = logits::top_k(&self.logprobs, k);
        best.into_iter().filter(|(_, p)| *p > f32::NEG_INFINITY).map(|(id, _)| id as u32).collect()
    }

    /// 1 for the best.
    fn rank(&self, id: u32) -> usize {
        let own = self.logprobs[id as usize];
        let before = |(other, p): &(usize, &f32)| **p > own || (**p == own && *other < id as usize);
        1 + self.logprobs.iter().enumerate().filter(before).count()
    }

    /// In nats.
    fn entropy(&self) -> f64 {
        let term = |p: &f32| f64::from(*p) * f64::from(*p).exp();
        -self.logprobs.iter().filter(|p| p.is_finite()).map(term).sum::<f64>()
    }
}
