//! What beam searches share: hypotheses, their scores, the rows that they are in.

use std::sync::Arc;

use super::plan::Plan;
use super::random::Noise;
use super::search::Task;
use super::sequence::TokenLogprob;
use crate::error::Result;
use crate::logits::{self, Top};
/// Added to a score to rank it below all others.
pub(super) const BEHIND: f32 = -1e9;

/// Whether a beam with this `score` goes on only because there are too few others: one that no token may follow, that has
/// ended, or that begins like another one.
pub(super) fn is_lost(score: f32) -> bool {
    score <= BEHIND / 2.0
}

/// A candidate sequence.
#[derive(Clone)]
pub(super) struct Hypothesis {
    /// The prompt and the generated ids.
    pub ids: Vec<u32>,
    pub score: f32,
    pub logprobs: Vec<Arc<TokenLogprob>>,
}

impl Hypothesis {
    /// The beams at the prompt. Only the first has a usable score, or all beams would find the same sequence.
    pub(super) fn start(task: &Task<'_>, num_beams: usize) -> Vec<Self> {
        let scores = std::iter::once(0.0).chain(std::iter::repeat(BEHIND));
        scores.take(num_beams).map(|score| Self { ids: task.prompt.clone(), score, logprobs: vec![] }).collect()
    }
}

/// A continuation of a beam by one token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub beam: usize,
    pub id: usize,
    /// The log-probability of the whole sequence.
    pub score: f32,
}

/// The processed scores of the beams. Until the beams differ, they share one row.
pub(super) enum Scores<'a> {
    /// Scores of all tokens, and the model's logits if they are wanted.
    Rows(Vec<&'a mut [f32]>, Vec<&'a [f32]>),
    /// Scores of the best tokens only, when nothing else can be picked.
    Top(Vec<Vec<(u32, f32)>>),
}

impl<'a> Scores<'a> {
    /// Processed log-probabilities of the token after each of the `beams`; `adjust` runs before the processors.
    pub(super) fn new(
        task: &Task<'_>,
        mut rows: Vec<&'a mut [f32]>,
        raw: Vec<&'a [f32]>,
        beams: &[Hypothesis],
        adjust: impl Fn(&mut [f32]),
    ) -> Result<Self> {
        for (row, beam) in rows.iter_mut().zip(beams) {
            logits::check_finite(row)?;
            // Guidance makes log-probabilities, which are not normalised again.
            if task.decoding.processors.guidance().is_none() {
                logits::log_softmax(row);
            }
            adjust(row);
            task.process(row, &beam.ids)?;
        }
        Ok(Self::Rows(rows, raw))
    }

    /// Log-probabilities of the best tokens of each beam.
    pub(super) fn of_top(top: &[Option<Top>]) -> Result<Self> {
        let row = |top: &Option<Top>| {
            let mut row: Vec<(u32, f32)> = top.as_ref().ok_or_else(logits::not_finite)?.log_probs().collect();
            // Different logits may round to the same log-probability.
            row.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            Ok(row)
        };
        Ok(Self::Top(top.iter().map(row).collect::<Result<_>>()?))
    }

    /// The index of `beam`'s row.
    pub(super) fn row_of(&self, beam: usize) -> usize {
        let rows = match self {
            Self::Rows(rows, _) => rows.len(),
            Self::Top(rows) => rows.len(),
        };
        beam.min(rows - 1)
    }

    /// The scores of all tokens after `beam`; empty if only the best are known.
    fn row(&self, beam: usize) -> &[f32] {
        match self {
            Self::Rows(rows, _) => rows[self.row_of(beam)],
            Self::Top(_) => &[],
        }
    }

    /// The model's logits after `beam`, if they are wanted.
    fn raw(&self, beam: usize) -> Option<&'a [f32]> {
        match self {
            Self::Rows(_, raw) => raw.get(self.row_of(beam)).copied(),
            Self::Top(_) => None,
        }
    }

    /// The `k` best tokens after `beam`.
    fn best_tokens(&self, beam: usize, k: usize) -> Vec<(usize, f32)> {
        match self {
            Self::Rows(..) => logits::top_k(self.row(beam), k),
            Self::Top(rows) => rows[self.row_of(beam)].iter().take(k).map(|(id, x)| (*id as usize, *x)).collect(),
        }
    }

    /// The `k` best continuations, best first; ties in order of beam and id.
    pub(super) fn best(&self, beams: &[Hypothesis], k: usize) -> Vec<Candidate> {
        let mut all = vec![];
        for (beam, Hypothesis { score, .. }) in beams.iter().enumerate() {
            // Adding the score keeps the order, except for ties created by rounding.
            let best = self.best_tokens(beam, k).into_iter();
            all.extend(best.map(|(id, x)| Candidate { beam, id, score: x + score }));
        }
        all.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.beam.cmp(&b.beam)).then(a.id.cmp(&b.id)));
        all.truncate(k);
        all
    }

    /// `k` continuations drawn without replacement, in the order drawn; if fewer are possible, the best of the others
    /// follow.
    pub(super) fn drawn(&self, beams: &[Hypothesis], k: usize, noise: Noise) -> Vec<Candidate> {
        let vocab_size = self.row(0).len();
        let mut scores = Vec::with_capacity(beams.len() * vocab_size);
        for (b, beam) in beams.iter().enumerate() {
            scores.extend(self.row(b).iter().map(|x| x + beam.score));
        }
        let mut weights = vec![];
        logits::weights(&scores, logits::max(&scores), &mut weights);
        let mut places = noise.race(&weights, k);
        if places.len() < k {
            let others = logits::top_k(&scores, 2 * k).into_iter().map(|(place, _)| place);
            let others: Vec<usize> = others.filter(|place| !places.contains(place)).take(k - places.len()).collect();
            places.extend(others);
        }
        let candidate = |place| Candidate { beam: place / vocab_size, id: place % vocab_size, score: scores[place] };
        places.into_iter().map(candidate).collect()
    }

    /// Whether [`Self::best`] may be wrong about the `k` best continuations, because tokens it does not know may tie with
    /// the last of them.
    pub(super) fn are_in_doubt(&self, task: &Task<'_>, k: usize) -> bool {
        let Self::Top(rows) = self else { return false };
        let in_doubt = |row: &Vec<(u32, f32)>| {
            row.len() < task.vocab_size && row.len() > k && row[k - 1].1 == row[row.len() - 1].1
        };
        rows.iter().any(in_doubt)
    }

    /// The beam that results from `candidate`, with this score.
    pub(super) fn extend(&self, task: &Task<'_>, from: &[Hypothesis], candidate: Candidate, score: f32) -> Hypothesis {
        let Hypothesis { mut ids, mut logprobs, .. } = from[candidate.beam].clone();
        ids.push(candidate.id as u32);
        if let Some(k) = task.decoding.logprobs {
            logprobs.push(TokenLogprob::from_log_probs(
                self.row(candidate.beam),
                candidate.id,
                k,
                self.raw(candidate.beam),
            ));
        }
        Hypothesis { ids, score, logprobs }
    }
}

/// The rows of a request's beams: the prompt runs once, then each beam takes over the row of the beam it continues.
#[derive(Default)]
pub(super) struct BeamRows {
    moves: Vec<(usize, usize)>,
    started: bool,
}

impl BeamRows {
    /// Runs the prompt at first, then the newest token of each of the `beams` on its row.
    pub(super) fn plan<'b>(
        &mut self,
        task: &Task<'_>,
        beams: impl Iterator<Item = (usize, &'b Hypothesis)>,
        plan: &mut Plan,
    ) {
        if !self.started {
            self.started = true;
            return plan.extend(task, 0, &task.prompt, 0);
        }
        self.moves.drain(..).for_each(|(to, from)| plan.assign(to, from));
        for (row, beam) in beams {
            plan.extend(task, row, &beam.ids, beam.ids.len() - 1);
        }
    }

    /// Makes the next [`Self::plan`] repeat the last run: the prompt, or the newest token of each beam. Returns the
    /// truncations this takes, `(row, positions to keep)`.
    pub(super) fn repeat(&mut self, task: &Task<'_>, beams: &[Hypothesis]) -> Vec<(usize, usize)> {
        if beams[0].ids.len() == task.prompt.len() {
            self.started = false;
            return vec![(0, 0)];
        }
        beams.iter().enumerate().map(|(row, beam)| (row, beam.ids.len() - 1)).collect()
    }

    /// Records that the beam in row `to` continues the one in row `from`.
    pub(super) fn follow(&mut self, to: usize, from: usize) {
        if to != from {
            self.moves.push((to, from));
        }
    }
}
