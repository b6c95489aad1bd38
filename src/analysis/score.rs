//! Scoring a text: each token's log-probability and rank.
//!
//! Texts are cut into windows, and as many windows as fit go through the network in one pass. Logits are computed for a
//! few positions at a time, and only two numbers are kept of each row (V).

use std::ops::ControlFlow;

use candle_core::Tensor;

use super::perplexity::{Sliding, Window, perplexity};
use crate::base::pool;
use crate::error::{Error, Result};
use crate::logits::{self, LogNormalizer};
use crate::model::{Gpt2, select_rows, with_slice};

/// The most tokens in a forward pass, unless a single window is longer: enough for full speed, few enough to keep keys,
/// values and activations small compared to the weights.
const PASS_TOKENS: usize = 1024;

/// How many positions' logits are held at once.
const LOGIT_ROWS: usize = 96;

/// How to score.
#[derive(Debug, Clone, Copy, Default)]
pub struct ScoreOptions {
    /// Slides a window over the text. If none, the text is scored in one pass and must fit the context.
    pub sliding: Option<Sliding>,
    /// How many of the most probable tokens to report for each position.
    pub alternatives: usize,
}

/// A text's scores.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// The score of each id; none if nothing precedes it: at the start of the text and, if the stride equals the
    /// context, at the start of each window.
    pub tokens: Vec<Option<TokenScore>>,
    /// For each id, the most probable tokens in its place with their natural log-probabilities, best first. Empty
    /// unless asked for.
    pub alternatives: Vec<Vec<(u32, f32)>>,
    /// The guide's perplexity with a sliding window, otherwise `exp` of the mean loss; none if nothing was scored.
    pub perplexity: Option<f64>,
}

/// A token's probability and rank, given the tokens before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenScore {
    /// Natural log-probability.
    pub logprob: f32,
    /// Its rank in the distribution, 1 for the best, as counted by [`logits::rank`].
    pub rank: usize,
}

impl Score {
    /// The sum of the log-probabilities.
    #[must_use]
    pub fn sum_logprob(&self) -> f64 {
        let sum: f64 = self.tokens.iter().flatten().map(|token| f64::from(token.logprob)).sum();
        // The sum of nothing is -0.
        sum + 0.0
    }

    /// How many tokens have a score.
    #[must_use]
    pub fn scored_tokens(&self) -> usize {
        self.tokens.iter().flatten().count()
    }
}

/// Checks that a text can be scored.
///
/// # Errors
/// [`Error::Usage`] if an id is outside the vocabulary, [`Error::Context`] if the text is longer than the context and
/// there is no sliding window.
pub fn check(model: &Gpt2, ids: &[u32], options: &ScoreOptions) -> Result<()> {
    let config = model.config();
    if let Some(id) = ids.iter().find(|id| **id as usize >= config.vocab_size) {
        let last = config.vocab_size - 1;
        return Err(Error::Usage(format!("token id {id} is outside the model's vocabulary (0 to {last})")));
    }
    if options.sliding.is_none() && ids.len() > config.n_positions {
        return Err(Error::Context { tokens: ids.len(), context: config.n_positions });
    }
    Ok(())
}

/// How far [`score`] has come since it last said so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Tokens of the texts that are done.
    pub tokens: usize,
    /// Tokens that went through the network, of which [`work`] tells the total: windows overlap.
    pub work: usize,
}

/// How many tokens go through the network to score `len` tokens.
#[must_use]
pub fn work(len: usize, options: &ScoreOptions) -> usize {
    windows(options, len).map(|window| window.end - window.begin).sum()
}

/// Scores texts. `progress` is called after each pass, and ends the work if it breaks: the tokens of later passes then
/// have no scores, and perplexities are over those that have.
///
/// A text's scores do not depend on the other texts.
///
/// # Errors
/// As [`check`]; [`Error::Numerics`] if the model's logits are not finite.
pub fn score(
    model: &Gpt2,
    texts: &[&[u32]],
    options: &ScoreOptions,
    mut progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<Vec<Score>> {
    texts.iter().try_for_each(|ids| check(model, ids, options))?;
    let empty = |ids: &&[u32]| Score {
        tokens: vec![None; ids.len()],
        alternatives: if options.alternatives > 0 { vec![vec![]; ids.len()] } else { vec![] },
        perplexity: None,
    };
    let mut scores: Vec<Score> = texts.iter().map(empty).collect();
    let mut parts = texts.iter().enumerate().flat_map(|(text, ids)| {
        windows(options, ids.len()).filter(|w| !w.scored().is_empty()).map(move |window| Part { text, window })
    });
    let mut pass: Vec<Part> = vec![];
    loop {
        let part = parts.next();
        let tokens: usize = pass.iter().chain(&part).map(Part::len).sum();
        if !pass.is_empty() && (part.is_none() || tokens > PASS_TOKENS) {
            run_pass(model, texts, &pass, options, &mut scores)?;
            let tokens = pass.iter().map(|part| part.window.end - part.window.targets).sum();
            let work = pass.iter().map(Part::len).sum();
            pass.clear();
            if progress(Progress { tokens, work }).is_break() {
                break;
            }
        }
        match part {
            Some(part) => pass.push(part),
            None => break,
        }
    }
    for score in &mut scores {
        let logprob = |i: usize| score.tokens[i].map_or(0.0, |token: TokenScore| f64::from(token.logprob));
        let is_done = |window: &Window| window.scored().all(|i| score.tokens[i].is_some());
        score.perplexity = perplexity(windows(options, score.tokens.len()).filter(is_done), logprob);
    }
    Ok(scores)
}

fn windows(options: &ScoreOptions, len: usize) -> impl Iterator<Item = Window> {
    let whole = options.sliding.is_none().then(|| Window::whole(len)).filter(|_| len > 0);
    options.sliding.into_iter().flat_map(move |sliding| sliding.windows(len)).chain(whole)
}

/// A window of one of the texts.
#[derive(Debug, Clone, Copy)]
struct Part {
    text: usize,
    window: Window,
}

impl Part {
    fn len(&self) -> usize {
        self.window.end - self.window.begin
    }
}

/// A position in the pass whose distribution scores a token.
struct Target {
    /// The index of the distribution among the pass's positions.
    at: u32,
    text: usize,
    position: usize,
    id: u32,
}

/// Runs some windows through the network in one pass and records the scores of their tokens.
fn run_pass(
    model: &Gpt2,
    texts: &[&[u32]],
    parts: &[Part],
    options: &ScoreOptions,
    scores: &mut [Score],
) -> Result<()> {
    let ids = |part: &Part| &texts[part.text][part.window.begin..part.window.end];
    // A window's last token is left out: nothing after it is scored.
    let inputs: Vec<(usize, &[u32])> = parts.iter().map(|part| &ids(part)[..part.len() - 1]).enumerate().collect();
    let x = model.forward(&inputs, &mut model.new_cache(), None)?;
    let mut targets = vec![];
    let mut first = 0;
    for (part, (_, input)) in parts.iter().zip(&inputs) {
        let (text, begin) = (part.text, part.window.begin);
        targets.extend(part.window.scored().map(|position| Target {
            at: (first + position - 1 - begin) as u32,
            text,
            position,
            id: texts[text][position],
        }));
        first += input.len();
    }
    for targets in targets.chunks(LOGIT_ROWS) {
        let rows: Vec<u32> = targets.iter().map(|target| target.at).collect();
        let x = select_rows(&x, &rows)?;
        let logits = model.logits(&model.final_norm(&x)?)?;
        for (target, (token, alternatives)) in targets.iter().zip(read(&logits, targets, options)?) {
            scores[target.text].tokens[target.position] = Some(token);
            if options.alternatives > 0 {
                scores[target.text].alternatives[target.position] = alternatives;
            }
        }
    }
    Ok(())
}

/// A token's score, and the best tokens in its place with their log-probabilities.
type Place = (TokenScore, Vec<(u32, f32)>);

/// The scores of the targets, from their logits (rows, V).
fn read(logits: &Tensor, targets: &[Target], options: &ScoreOptions) -> Result<Vec<Place>> {
    let (_, vocabulary) = logits.dims2()?;
    let mut found: Vec<_> = targets.iter().map(|target| (target, None)).collect();
    with_slice(logits, |logits| {
        let mut rows: Vec<_> = found.iter_mut().zip(logits.chunks_exact(vocabulary)).collect();
        pool::for_each(logits.len(), &mut rows, |((target, found), row)| {
            *found = Some(place(row, target.id, options.alternatives))
        });
    })?;
    found.into_iter().filter_map(|(_, found)| found).collect()
}

/// One token's score, and the best tokens in its place, from a row of logits.
fn place(row: &[f32], id: u32, alternatives: usize) -> Result<Place> {
    logits::check_finite(row)?;
    let normalizer = LogNormalizer::of(row);
    let logprob = normalizer.log_prob(row[id as usize]);
    let rank = logits::rank(row, id as usize);
    let best = logits::top_k(row, alternatives);
    let best = best.into_iter().map(|(id, logit)| (id as u32, normalizer.log_prob(logit))).collect();
    Ok((TokenScore { logprob, rank }, best))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_rank_by_id() {
        let row = [1.0, 3.0, 2.0, 3.0, -1.0];
        let sum: f32 = row.iter().map(|x: &f32| x.exp()).sum();
        for (id, rank) in [(0, 4), (1, 1), (2, 3), (3, 2), (4, 5)] {
            let (token, best) = place(&row, id, 2).unwrap();
            assert_eq!(token.rank, rank, "{id}");
            assert!((token.logprob - (row[id as usize] - sum.ln())).abs() < 1e-6, "{id}");
            assert_eq!(best.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 3]);
        }
    }

    #[test]
    fn rows_that_are_not_finite_are_refused() {
        for bad in [f32::NAN, f32::INFINITY] {
            let outcome = place(&[0.0, bad, 1.0], 0, 0);
            assert!(matches!(outcome, Err(Error::Numerics(_))), "{bad}");
        }
    }
}
