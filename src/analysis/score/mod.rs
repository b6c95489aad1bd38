//! Scoring a text: each token's log-probability and rank.
//!
//! Texts are cut into windows, and as many windows as fit go through the network in one pass. What windows have in common
//! at their start runs once (`prefixes`): their rows share its pages. Logits are computed for a few positions at a time,
//! only where something is scored, and few numbers are kept of each row (V).

mod place;
mod prefixes;
mod run;

use std::ops::ControlFlow;

pub use self::place::TokenScore;
use self::run::Run;
use super::interventions::Interventions;
use super::perplexity::{Window, Windows};
use super::words::{Border, WordStarts};
use crate::error::{Error, Result};
use crate::model::Gpt2;

/// How to score.
#[derive(Debug, Clone, Copy, Default)]
pub struct ScoreOptions<'w> {
    /// How texts are cut. If not at all, they must fit the context.
    pub windows: Windows,
    /// How many of the most probable tokens to report for each position.
    pub alternatives: usize,
    /// Whether to report the entropy of each distribution.
    pub entropy: bool,
    /// Which tokens begin words, to report the borders of words.
    pub words: Option<&'w WordStarts>,
    /// Changes of the model that depend on what it reads: each window then runs alone, with those for its own tokens.
    pub interventions: Option<&'w Interventions>,
}

/// A text to score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<'a> {
    /// Its ids, after those that are given.
    pub ids: &'a [u32],
    /// How many ids at the start are only given: a start of text, or a context.
    pub given: usize,
}

/// A text's scores.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// The score of each id; none if it is given, or nothing precedes it: at the start of the text and, if the stride
    /// equals the context, at the start of each window.
    pub tokens: Vec<Option<TokenScore>>,
    /// For each id, the most probable tokens in its place with their natural log-probabilities, best first. Empty
    /// unless asked for.
    pub alternatives: Vec<Vec<(u32, f32)>>,
    /// Whether a word begins in the place of each id and after the last. Empty unless asked for; none where nothing is
    /// scored.
    pub borders: Vec<Option<Border>>,
    /// The perplexity: [`Windows::perplexity`].
    pub perplexity: Option<f64>,
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

    /// Whether every token that has a score is the most probable one in its place.
    #[must_use]
    pub fn is_greedy(&self) -> bool {
        self.tokens.iter().flatten().all(|token| token.rank == 1)
    }
}

/// Checks that a text can be scored. It may be one token longer than the context, since nothing comes after its last
/// token; but where words end shows only after it.
///
/// # Errors
/// [`Error::Usage`] if an id is outside the vocabulary, [`Error::Context`] if the text is longer and is not cut.
pub fn check(model: &Gpt2, text: Text<'_>, options: &ScoreOptions<'_>) -> Result<()> {
    let config = model.config();
    if let Some(id) = text.ids.iter().find(|id| **id as usize >= config.vocab_size) {
        let last = config.vocab_size - 1;
        return Err(Error::Usage(format!("token id {id} is outside the model's vocabulary (0 to {last})")));
    }
    let most = config.n_positions + usize::from(options.words.is_none());
    if options.windows == Windows::Whole && text.ids.len() > most {
        return Err(Error::Context { tokens: text.ids.len(), context: config.n_positions });
    }
    Ok(())
}

/// How far [`score`] has come since it last said so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Tokens of the texts that are done.
    pub tokens: usize,
    /// Tokens of windows that are done, of which [`work`] tells the total: windows overlap.
    pub work: usize,
}

/// How many tokens the windows over a text have.
#[must_use]
pub fn work(text: Text<'_>, options: &ScoreOptions<'_>) -> usize {
    options.windows.over(text.ids.len(), text.given).map(|window| window.end - window.begin).sum()
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
    texts: &[Text<'_>],
    options: &ScoreOptions<'_>,
    mut progress: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<Vec<Score>> {
    texts.iter().try_for_each(|text| check(model, *text, options))?;
    let parts: Vec<Part> = texts.iter().enumerate().flat_map(|(i, text)| parts(i, *text, options)).collect();
    let mut scores: Vec<Score> = texts.iter().map(|text| Score::without(text.ids.len(), options)).collect();
    // What is broken off leaves tokens without scores.
    match options.interventions {
        None => _ = Run::new(model, texts, options, &parts).all(&mut scores, &mut progress)?,
        Some(interventions) => {
            for part in &parts {
                let model = interventions.apply(model, part.tokens(texts, model.config().n_positions))?;
                let mut run = Run::new(&model, texts, options, std::slice::from_ref(part));
                if run.all(&mut scores, &mut progress)?.is_break() {
                    break;
                }
            }
        }
    }
    for (score, text) in scores.iter_mut().zip(texts) {
        let logprob = |i: usize| score.tokens[i].map(|token| f64::from(token.logprob));
        score.perplexity = options.windows.perplexity(text.ids.len(), text.given, logprob);
    }
    Ok(scores)
}

impl Score {
    /// Those of `len` tokens before any is scored.
    fn without(len: usize, options: &ScoreOptions<'_>) -> Self {
        Self {
            tokens: vec![None; len],
            alternatives: if options.alternatives > 0 { vec![vec![]; len] } else { vec![] },
            borders: if options.words.is_some() { vec![None; len + 1] } else { vec![] },
            perplexity: None,
        }
    }
}

/// A window of one of the texts.
#[derive(Debug, Clone, Copy)]
struct Part {
    text: usize,
    /// If it reaches one past the end of the text, the border there is wanted.
    window: Window,
}

impl Part {
    /// The tokens of the window, of which a last one beyond the context is only scored.
    fn tokens<'t>(&self, texts: &[Text<'t>], context: usize) -> &'t [u32] {
        let (ids, Window { begin, end, .. }) = (texts[self.text].ids, self.window);
        &ids[begin..end.min(ids.len()).min(begin + context)]
    }
}

/// The windows over a text that score something.
fn parts(text: usize, Text { ids, given }: Text<'_>, options: &ScoreOptions<'_>) -> Vec<Part> {
    let mut windows: Vec<Window> = options.windows.over(ids.len(), given).collect();
    if options.words.is_some()
        && let Some(last) = windows.last_mut()
    {
        // The distribution after the last token, which one more input gives.
        let end = ids.len() + 1;
        match options.windows.context() {
            Some(context) if last.end - last.begin > context => {
                windows.push(Window { begin: ids.len() - context, end, targets: ids.len() });
            }
            _ => last.end = end,
        }
    }
    windows.into_iter().filter(|window| !window.scored().is_empty()).map(|window| Part { text, window }).collect()
}
