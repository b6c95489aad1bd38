//! The distribution of the next token: the best candidates, ranks of given tokens, entropy, and the tree of continuations.

mod tree;

use std::ops::Range;

use crate::base::math;
use crate::decode::Processors;
use crate::error::{Error, Result};
use crate::language_model::{Input, LanguageModel};
use crate::logits;
use crate::model::{Gpt2, Session, select_rows, to_host};

pub use tree::{MOST_NODES, Node, node_count, tree, tree_bytes};

/// How many positions' logits are held at once.
const LOGIT_ROWS: usize = 32;

/// What to report about each distribution.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// How many of the best tokens to report.
    pub k: usize,
    /// Tokens to report whatever their rank.
    pub tokens: Vec<u32>,
    /// Applied to the logits first. Tokens that they rule out get probability 0.
    pub processors: Processors,
}

/// The distribution after one position.
#[derive(Debug, Clone, PartialEq)]
pub struct NextToken {
    /// The position before the predicted token, from 0.
    pub position: usize,
    /// Its entropy in nats.
    pub entropy: f64,
    /// How many tokens the processors left.
    pub kept: usize,
    /// The probability of the tokens that the constraint does not allow; none without one.
    pub removed: Option<f64>,
    /// The best candidates, best first, without those ruled out.
    pub best: Vec<Candidate>,
    /// The requested tokens, in the order of [`Query::tokens`].
    pub tokens: Vec<Candidate>,
}

/// A candidate for the next token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    rank: u32,
    /// The token.
    pub id: u32,
    // No options, which would double the size: there may be a vocabulary of candidates at every position.
    logit: f32,
    logprob: f32,
}

impl Candidate {
    /// Its rank in the distribution, 1 for the best, as counted by [`logits::rank`].
    #[must_use]
    pub fn rank(&self) -> usize {
        self.rank as usize
    }

    /// Its logit after the processors; none if they ruled it out.
    #[must_use]
    pub fn logit(&self) -> Option<f32> {
        Some(self.logit).filter(|logit| logit.is_finite())
    }

    /// The natural logarithm of its probability; none if that is 0.
    #[must_use]
    pub fn logprob(&self) -> Option<f32> {
        Some(self.logprob).filter(|logprob| logprob.is_finite())
    }

    /// Its probability.
    #[must_use]
    pub fn prob(&self) -> f64 {
        self.logprob().map_or(0.0, |logprob| math::exp(f64::from(logprob)))
    }
}

/// The distributions after the given positions of `ids`, from one forward pass.
///
/// # Errors
/// As [`Gpt2::forward`]; [`Error::Numerics`] if the model's logits are not finite.
pub fn next_tokens(model: &Gpt2, ids: &[u32], positions: Range<usize>, query: &Query) -> Result<Vec<NextToken>> {
    Ok(next_tokens_of(model, &[(ids, positions)], query)?.pop().unwrap_or_default())
}

/// The distributions after the given positions of several texts, from one forward pass. Each text's are those that
/// [`next_tokens`] gives, to the bit.
///
/// # Errors
/// As [`next_tokens`], if any of the texts fails.
pub fn next_tokens_of(model: &Gpt2, texts: &[(&[u32], Range<usize>)], query: &Query) -> Result<Vec<Vec<NextToken>>> {
    texts.iter().try_for_each(|(ids, positions)| check(model, query, &ids[..positions.end], 0))?;
    let inputs: Vec<(usize, &[u32])> =
        texts.iter().enumerate().map(|(row, (ids, positions))| (row, &ids[..positions.end])).collect();
    let x = model.forward(&inputs, &mut model.new_cache(), None)?;
    // Where the rows of `x` (N, C) are that are wanted: the text, and the position in it.
    let (mut indices, mut places, mut before) = (vec![], vec![], 0);
    for (text, (_, positions)) in texts.iter().enumerate() {
        indices.extend(positions.clone().map(|position| (before + position) as u32));
        places.extend(positions.clone().map(|position| (text, position)));
        before += positions.end;
    }
    let mut found: Vec<Vec<NextToken>> = texts.iter().map(|_| vec![]).collect();
    for (indices, places) in indices.chunks(LOGIT_ROWS).zip(places.chunks(LOGIT_ROWS)) {
        let x = select_rows(&x, indices)?;
        let mut logits = to_host(&model.logits(&model.final_norm(&x)?)?)?;
        let vocab_size = model.config().vocab_size;
        let prompts = places.iter().map(|&(text, position)| &texts[text].0[..=position]);
        let other = after_other_prompts(model, query, prompts.clone())?;
        let mut others = other.chunks_exact(vocab_size);
        for ((row, &(text, position)), ids) in logits.chunks_exact_mut(vocab_size).zip(places).zip(prompts) {
            let distribution = Distribution::new(row, others.next(), query, ids, 0)?;
            found[text].push(distribution.describe(position, query));
        }
    }
    Ok(found)
}

/// The loop of greedy search, step by step: the distribution after the prompt, then that after the prompt and its best
/// token, and so on, `steps` times. Nothing ends it early. The processors see the prompt and the appended tokens as
/// `generate` shows them.
///
/// # Errors
/// [`Error::Context`] if the prompt and all but the last of the appended tokens do not fit the context; otherwise as
/// [`next_tokens`].
pub fn append_best(model: &Gpt2, prompt: &[u32], steps: usize, query: &Query) -> Result<Vec<NextToken>> {
    check(model, query, prompt, steps.saturating_sub(1))?;
    let query = Query { k: query.k.max(1), ..query.clone() };
    let (tokens, context) = (prompt.len().saturating_add(steps.saturating_sub(1)), model.config().n_positions);
    if tokens > context {
        return Err(Error::Context { tokens, context });
    }
    let mut session = Session::new(model);
    let mut ids = prompt.to_vec();
    let mut found: Vec<NextToken> = Vec::with_capacity(steps);
    for step in 0..steps {
        let newest = &ids[ids.len() - 1..];
        let (new, other) =
            if step == 0 { (prompt, query.other(prompt)) } else { (newest, query.other(prompt).map(|_| newest)) };
        let inputs = [Some(Input::logits(0, new)), other.map(|other| Input::logits(1, other))];
        let inputs: Vec<_> = inputs.into_iter().flatten().collect();
        let mut logits = session.forward(&inputs)?.logits;
        let distribution = Distribution::of_rows(&mut logits, model.config().vocab_size, &query, &ids, step)?;
        let next = distribution.describe(ids.len() - 1, &query);
        // There is one: a distribution without any is an error.
        ids.extend(next.best.first().map(|best| best.id));
        found.push(next);
    }
    Ok(found)
}

/// Bytes that [`next_tokens`] takes for the last `positions` of `tokens`.
#[must_use]
pub fn bytes(model: &Gpt2, tokens: usize, positions: usize, query: &Query) -> u64 {
    let (room, k) = (model.room(), query.k.min(model.config().vocab_size) + query.tokens.len());
    // What comes out of the pass is copied.
    let pass = tokens as u64 * (room.position_bytes + 4 * model.config().n_embd as u64) + room.cache_bytes(tokens);
    let logits = 4 * LOGIT_ROWS.min(positions) * model.config().vocab_size * size_of::<f32>();
    pass + (logits + positions * k * size_of::<Candidate>()) as u64
}

/// Checks whether the model can answer the query after the prompt and `more` tokens.
fn check(model: &Gpt2, query: &Query, prompt: &[u32], more: usize) -> Result<()> {
    let (vocab_size, context) = (model.config().vocab_size, model.config().n_positions);
    query.processors.check(vocab_size, prompt.len())?;
    let tokens = query.other(prompt).map_or(0, |other| other.len().saturating_add(more));
    if tokens > context {
        let fault = format!(
            "the negative prompt with what follows has {tokens} tokens, more than the context of {context}; shorten it"
        );
        return Err(Error::Usage(fault));
    }
    match query.tokens.iter().find(|id| **id as usize >= vocab_size) {
        Some(id) => Err(Error::Usage(format!("token id {id} is outside the vocabulary of {vocab_size}"))),
        None => Ok(()),
    }
}

/// The logits (N, V) after the other prompts of guidance; none if there is no guidance.
fn after_other_prompts<'a>(
    model: &Gpt2,
    query: &'a Query,
    prompts: impl Iterator<Item = &'a [u32]>,
) -> Result<Vec<f32>> {
    let others: Vec<&[u32]> = prompts.filter_map(|prompt| query.other(prompt)).collect();
    // A prompt that was given is the same everywhere.
    let distinct =
        if others.windows(2).all(|pair| pair[0] == pair[1]) { &others[..others.len().min(1)] } else { &others };
    if distinct.is_empty() {
        return Ok(vec![]);
    }
    let inputs: Vec<_> = distinct.iter().enumerate().map(|(row, ids)| Input::logits(row, ids)).collect();
    let logits = Session::new(model).forward(&inputs)?.logits;
    Ok(if distinct.len() < others.len() { logits.repeat(others.len()) } else { logits })
}

impl Query {
    /// The other prompt of guidance, if there is guidance.
    fn other<'a>(&'a self, prompt: &'a [u32]) -> Option<&'a [u32]> {
        self.processors.guidance().map(|guidance| guidance.other(prompt))
    }
}

/// A distribution over the next token, after the processors.
struct Distribution<'a> {
    /// Logits, (V).
    logits: &'a [f32],
    /// Natural log-probabilities, (V).
    logprobs: Vec<f32>,
    /// The probability that the constraint removed.
    removed: Option<f64>,
}

impl<'a> Distribution<'a> {
    /// From the logits (V) in `rows`, or (2, V) with guidance.
    fn of_rows(rows: &'a mut [f32], vocab_size: usize, query: &Query, ids: &[u32], generated: usize) -> Result<Self> {
        let (logits, other) = rows.split_at_mut(vocab_size);
        Self::new(logits, Some(&*other).filter(|other| !other.is_empty()), query, ids, generated)
    }

    /// The distribution of the token after `ids`, of which the last `generated` are no part of the prompt, from the
    /// model's logits (V), and those after the `other` prompt if there is guidance.
    fn new(logits: &'a mut [f32], other: Option<&[f32]>, query: &Query, ids: &[u32], generated: usize) -> Result<Self> {
        if let (Some(guidance), Some(other)) = (query.processors.guidance(), other) {
            guidance.apply(logits, other);
        }
        logits::check_finite(logits)?;
        let (prompt, generated) = ids.split_at(ids.len() - generated);
        let removed = query.processors.apply_and_measure(logits, ids, prompt, generated)?;
        query.processors.check_choice(logits::max(logits), generated)?;
        let mut logprobs = logits.to_vec();
        logits::log_softmax(&mut logprobs);
        Ok(Self { logits, logprobs, removed })
    }

    /// How many tokens the processors left.
    fn kept(&self) -> usize {
        self.logits.iter().filter(|logit| **logit > f32::NEG_INFINITY).count()
    }

    /// What the query asks about it, after `position`.
    fn describe(&self, position: usize, query: &Query) -> NextToken {
        NextToken {
            position,
            entropy: self.entropy(),
            kept: self.kept(),
            removed: self.removed,
            best: self.best(query.k),
            tokens: query.tokens.iter().map(|id| self.token(*id)).collect(),
        }
    }

    /// The `k` best candidates that the processors left.
    fn best(&self, k: usize) -> Vec<Candidate> {
        let best = logits::top_k(self.logits, k).into_iter().enumerate();
        let left = best.filter(|(_, (_, logit))| *logit > f32::NEG_INFINITY);
        let mut best: Vec<_> = left.map(|(place, (id, _))| self.candidate(place + 1, id as u32)).collect();
        best.shrink_to_fit();
        best
    }

    /// A token, whatever its rank.
    fn token(&self, id: u32) -> Candidate {
        self.candidate(logits::rank(self.logits, id as usize), id)
    }

    fn candidate(&self, rank: usize, id: u32) -> Candidate {
        Candidate { rank: rank as u32, id, logit: self.logits[id as usize], logprob: self.logprobs[id as usize] }
    }

    /// The entropy in nats, summed in `f64`. (Processors use [`logits::entropy`], in `f32` as in PyTorch.)
    fn entropy(&self) -> f64 {
        logits::exact_entropy(self.logprobs.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::GenerationConfig;

    #[test]
    fn a_given_token_has_its_rank_in_the_full_list() {
        let query = Query { k: 5, ..Query::default() };
        let mut row = [1.0, 3.0, 2.0, 3.0, -1.0];
        let distribution = Distribution::new(&mut row, None, &query, &[0], 0).unwrap();
        let best = distribution.best(5);
        assert_eq!(best.iter().map(|c| (c.rank(), c.id)).collect::<Vec<_>>(), [(1, 1), (2, 3), (3, 2), (4, 0), (5, 4)]);
        for candidate in best {
            assert_eq!(distribution.token(candidate.id), candidate);
        }
    }

    #[test]
    fn ruled_out_tokens_have_no_probability_and_rank_last() {
        let config = GenerationConfig { bad_words_ids: vec![vec![1]], ..GenerationConfig::default() };
        let query = Query { k: 5, processors: config.processors().unwrap(), ..Query::default() };
        let mut row = [1.0, 3.0, 1.0];
        let distribution = Distribution::new(&mut row, None, &query, &[0], 0).unwrap();
        assert_eq!(distribution.best(5).iter().map(|c| c.id).collect::<Vec<_>>(), [0, 2]);
        let banned = distribution.token(1);
        assert_eq!((banned.rank(), banned.logit(), banned.logprob(), banned.prob()), (3, None, None, 0.0));
        assert!((distribution.entropy() - std::f64::consts::LN_2).abs() < 1e-6);
    }

    #[test]
    fn rows_that_are_not_finite_are_refused() {
        let query = Query::default();
        assert!(matches!(Distribution::new(&mut [0.0, f32::NAN], None, &query, &[0], 0), Err(Error::Numerics(_))));
        let config = GenerationConfig { bad_words_ids: vec![vec![0], vec![1]], ..GenerationConfig::default() };
        let query = Query { processors: config.processors().unwrap(), ..Query::default() };
        assert!(matches!(Distribution::new(&mut [0.0, 1.0], None, &query, &[0], 0), Err(Error::Numerics(_))));
    }
}
