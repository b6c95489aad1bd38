//! Beam search and beam sample.
//!
//! All beams advance together, one token per step. Finished sequences are set aside, and the search continues until no
//! running beam can beat them. Scores are `f32`, as in the reference, so that ties and cut-offs fall the same way.
//!
//! Reference: transformers 5.23.0, `_beam_search` (the vectorised form, since 4.50.3).

use std::sync::Arc;

use super::decoding::{Beam, Decoding};
use super::parameters::EarlyStopping;
use super::random::Noise;
use super::search::{FEW_MORE, NewToken, Plan, Search, Sequence, StepOutput, Task, TokenLogprob};
use super::stop::Finish;
use crate::base::math;
use crate::error::Result;
use crate::language_model::MOST_TOP;
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
    fn of_top(top: &[Option<Top>]) -> Result<Self> {
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
    fn drawn(&self, beams: &[Hypothesis], k: usize, noise: Noise) -> Vec<Candidate> {
        let vocab_size = self.row(0).len();
        let mut scores = Vec::with_capacity(beams.len() * vocab_size);
        for (b, beam) in beams.iter().enumerate() {
            scores.extend(self.row(b).iter().map(|x| x + beam.score));
        }
        let mut weights = vec![];
        logits::weights(&scores, &mut weights);
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
    fn are_in_doubt(&self, task: &Task<'_>, k: usize) -> bool {
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
    fn repeat(&mut self, task: &Task<'_>, beams: &[Hypothesis]) -> Vec<(usize, usize)> {
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

/// One request.
pub(super) struct BeamSearch {
    params: Beam,
    rows: BeamRows,
    beams: Vec<Hypothesis>,
    /// The best finished sequences; an unfinished one is only a placeholder.
    finished: Vec<(Hypothesis, Option<Finish>)>,
    /// Finished sequences of lost beams: results if there are too few others.
    spare: Vec<(Hypothesis, Option<Finish>)>,
    /// Whether a running beam may still beat a finished one.
    improvable: bool,
    /// Whether too many tokens tied to continue with only the most probable ones.
    needs_rows: bool,
    /// The lengths that rows are cut back to before they are run again.
    truncations: Vec<(usize, usize)>,
}

impl BeamSearch {
    pub(super) fn new(params: Beam, task: &Task<'_>) -> Self {
        let beams = Hypothesis::start(task, params.num_beams);
        let place = Hypothesis { score: BEHIND, ..beams[0].clone() };
        Self {
            rows: BeamRows::default(),
            finished: vec![(place, None); params.num_beams],
            spare: vec![],
            beams,
            improvable: true,
            needs_rows: false,
            truncations: vec![],
            params,
        }
    }

    /// How many continuations to consider: enough to leave `num_beams` even if the best ones of every beam are the tokens
    /// that end it.
    fn candidates(&self, task: &Task<'_>) -> usize {
        self.params.num_beams * (1 + task.decoding.stop.eos_token_id.len()).max(2)
    }

    /// How many of each beam's best tokens are enough to continue; none if all scores are needed.
    fn enough(&self, task: &Task<'_>) -> Option<usize> {
        let Decoding { processors, logprobs, .. } = &*task.decoding;
        let k = (self.candidates(task) + FEW_MORE).min(task.vocab_size);
        let is_plain = !self.params.sample && !self.needs_rows && processors.is_empty() && logprobs.is_none();
        (is_plain && k <= MOST_TOP).then_some(k)
    }

    /// Whether as many sequences have finished as there are beams.
    fn full(&self) -> bool {
        self.finished.iter().all(|(_, finish)| finish.is_some())
    }

    /// Merges the sequences that ended in this step into the finished ones.
    fn set_aside(&mut self, task: &Task<'_>, scores: &Scores<'_>, candidates: &[Candidate], ends: &[Option<Finish>]) {
        let closed = !self.improvable || (self.full() && self.params.early_stopping == EarlyStopping::True);
        let length = self.beams[0].ids.len() + 1 - task.prompt.len();
        let divisor = math::pow(length as f64, self.params.length_penalty) as f32;
        // Only the first `num_beams` candidates may end; the others are there to replace them.
        for (&candidate, &end) in candidates.iter().zip(ends).take(self.params.num_beams) {
            let score = candidate.score / divisor;
            if task.is_constrained() && is_lost(candidate.score) {
                continue;
            }
            if end.is_none() || closed || score == f32::NEG_INFINITY {
                continue;
            }
            let hypothesis = scores.extend(task, &self.beams, candidate, score);
            if self.finished.iter().any(|(other, _)| other.score < score) {
                self.finished.push((hypothesis, end));
            } else if is_lost(candidate.score) && self.spare.len() < self.params.num_beams {
                self.spare.push((hypothesis, end));
            }
        }
        self.finished.sort_by(|(a, _), (b, _)| b.score.total_cmp(&a.score));
        self.finished.truncate(self.params.num_beams);
    }

    /// Continues with the best `num_beams` candidates that have not ended.
    fn go_on(&mut self, task: &Task<'_>, scores: &Scores<'_>, candidates: &[Candidate], ends: &[Option<Finish>]) {
        let running = |(candidate, end): (&Candidate, &Option<Finish>)| {
            (*candidate, if end.is_some() { candidate.score + BEHIND } else { candidate.score })
        };
        let mut next: Vec<(Candidate, f32)> = candidates.iter().zip(ends).map(running).collect();
        next.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        next.truncate(self.params.num_beams);
        for (row, (candidate, _)) in next.iter().enumerate() {
            self.rows.follow(row, scores.row_of(candidate.beam));
        }
        self.beams = next.into_iter().map(|(c, score)| scores.extend(task, &self.beams, c, score)).collect();
    }

    /// Whether the best running beam would beat a finished sequence if it ended at the length that favours it most.
    fn can_improve(&self, task: &Task<'_>) -> bool {
        let Beam { length_penalty, early_stopping, .. } = self.params;
        let length = match early_stopping {
            EarlyStopping::Never if length_penalty > 0.0 => task.most_tokens(1),
            _ => self.beams[0].ids.len() - task.prompt.len(),
        };
        let best = self.beams[0].score / math::pow(length as f64, length_penalty) as f32;
        let worst = self.finished.last().map_or(BEHIND, |(hypothesis, _)| hypothesis.score);
        self.finished.iter().any(|(_, finish)| best > if finish.is_some() { worst } else { BEHIND })
    }
}

impl Search for BeamSearch {
    fn width(&self) -> usize {
        self.params.num_beams
    }

    fn plan(&mut self, task: &Task<'_>, plan: &mut Plan) {
        self.truncations.drain(..).for_each(|(row, seen)| plan.cut(task, row, seen));
        self.rows.plan(task, self.beams.iter().enumerate(), plan);
        if let Some(k) = self.enough(task) {
            plan.only_top(k);
        }
    }

    fn advance(
        &mut self,
        task: &Task<'_>,
        mut output: StepOutput<'_>,
        _: &mut Vec<NewToken>,
    ) -> Result<Option<Vec<Sequence>>> {
        let scores = match output.top {
            [] => {
                let raw = output.raw.chunks_exact(output.vocab_size).collect();
                Scores::new(task, output.rows().collect(), raw, &self.beams, |_| ())?
            }
            top => Scores::of_top(top)?,
        };
        let k = self.candidates(task);
        if scores.are_in_doubt(task, k) {
            self.needs_rows = true;
            self.truncations = self.rows.repeat(task, &self.beams);
            return Ok(None);
        }
        let candidates = if self.params.sample {
            let step = self.beams[0].ids.len() - task.prompt.len();
            scores.drawn(&self.beams, k, Noise { seed: task.decoding.seed, row: 0, step: step as u64 })
        } else {
            scores.best(&self.beams, k)
        };
        let largest = candidates.iter().map(|c| c.score).fold(f32::NEG_INFINITY, f32::max);
        let largest = if task.is_constrained() && is_lost(largest) { f32::NEG_INFINITY } else { largest };
        task.check_choice(largest, &self.beams[0].ids)?;
        let end = |candidate: &Candidate| {
            let mut ids = self.beams[candidate.beam].ids.clone();
            ids.push(candidate.id as u32);
            task.finish(&ids, 1)
        };
        let ends: Vec<Option<Finish>> = candidates.iter().map(end).collect();
        self.set_aside(task, &scores, &candidates, &ends);
        self.go_on(task, &scores, &candidates, &ends);
        let goes_on = !task.is_constrained() || !is_lost(self.beams[0].score);
        self.improvable = self.improvable && goes_on && self.can_improve(task);
        let satisfied = self.full() && self.params.early_stopping == EarlyStopping::True;
        if self.improvable && !satisfied && !ends.iter().all(Option::is_some) {
            return Ok(None);
        }
        let best = self.finished.iter().chain(&self.spare);
        let sequence = |(hypothesis, finish): &(Hypothesis, Option<Finish>)| {
            let sequence = task.sequence(&hypothesis.ids, (*finish)?, &hypothesis.logprobs);
            Some(Sequence { score: Some(hypothesis.score), ..sequence })
        };
        // There may be fewer texts than beams.
        let found: Vec<_> = best.filter_map(sequence).take(self.params.num_return_sequences).collect();
        if found.is_empty() {
            task.check_choice(f32::NEG_INFINITY, &self.beams[0].ids)?;
        }
        Ok(Some(found))
    }
}
