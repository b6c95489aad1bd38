//! Beam search and beam sample.
//!
//! All beams advance together, one token per step. Finished sequences are set aside, and the search continues until no
//! running beam can beat them. Scores are `f32`, as in the reference, so that ties and cut-offs fall the same way.
//!
//! Reference: transformers 5.23.0, `_beam_search` (the vectorised form, since 4.50.3).

use super::beams::{BEHIND, BeamRows, Candidate, Hypothesis, Scores, is_lost};
use super::decoding::{Beam, Decoding};
use super::parameters::EarlyStopping;
use super::plan::{FEW_MORE, Plan};
use super::random::Noise;
use super::search::{NewToken, Search, StepOutput, Task};
use super::sequence::Sequence;
use super::stop::Finish;
use crate::base::math;
use crate::error::Result;
use crate::language_model::MOST_TOP;

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
