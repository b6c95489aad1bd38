//! Diverse beam search: each group of beams avoids the tokens that earlier groups picked in the same step.
//!
//! Reference: transformers 4.49.0, `_group_beam_search` and `BeamSearchScorer`, the last version that has it built in;
//! Vijayakumar et al. 2016, "Diverse Beam Search". Its bookkeeping differs from that of the later [`beam`](super::beam)
//! search: finished scores are `f64`, and beams unfinished at the limit compete with finished sequences.

use super::beams::{BEHIND, BeamRows, Candidate, Hypothesis, Scores, is_lost};
use super::decoding::Beam;
use super::parameters::EarlyStopping;
use super::plan::Plan;
use super::search::{NewToken, Search, StepOutput, Task};
use super::sequence::Sequence;
use super::stop::{Finish, FinishReason};
use crate::base::math;
use crate::error::Result;

/// One request.
pub(super) struct GroupBeamSearch {
    params: Beam,
    diversity_penalty: f32,
    rows: BeamRows,
    groups: Vec<Group>,
    /// Tokens generated so far in the groups that are still running.
    generated: usize,
}

/// A group of beams and its finished sequences.
struct Group {
    /// The row of the first beam.
    first_row: usize,
    beams: Vec<Hypothesis>,
    /// Finished sequences with their scores; at most as many as there are beams.
    finished: Vec<(f64, Hypothesis, Finish)>,
    worst: f64,
    done: bool,
}

impl Group {
    fn new(task: &Task<'_>, first_row: usize, size: usize) -> Self {
        let beams = Hypothesis::start(task, size);
        Self { first_row, beams, finished: vec![], worst: f64::INFINITY, done: false }
    }

    /// Adds a finished sequence if it is among the best.
    fn add(&mut self, task: &Task<'_>, hypothesis: Hypothesis, finish: Finish, length_penalty: f64) {
        if task.is_constrained() && is_lost(hypothesis.score) {
            return;
        }
        let length = (hypothesis.ids.len() - task.prompt.len()) as f64;
        let score = f64::from(hypothesis.score) / math::pow(length, length_penalty);
        if self.finished.len() < self.beams.len() || score > self.worst {
            self.finished.push((score, hypothesis, finish));
            if self.finished.len() > self.beams.len() {
                let scores = self.finished.iter().enumerate();
                if let Some((worst, _)) = scores.min_by(|(_, a), (_, b)| a.0.total_cmp(&b.0)) {
                    self.finished.remove(worst);
                }
                self.worst = self.finished.iter().map(|&(score, ..)| score).fold(f64::INFINITY, f64::min);
            } else {
                self.worst = self.worst.min(score);
            }
        }
    }

    /// One step: sets aside the candidates that end and continues with the best of the others. `row` is where the group's
    /// beams were run.
    fn step(
        &mut self,
        task: &Task<'_>,
        params: &Beam,
        scores: &Scores<'_>,
        row: usize,
        rows: &mut BeamRows,
    ) -> Result<()> {
        let size = self.beams.len();
        let candidates = scores.best(&self.beams, size * (1 + task.decoding.stop.eos_token_id.len()).max(2));
        let best = candidates.first().map_or(f32::NEG_INFINITY, |candidate| candidate.score);
        if task.is_constrained() && is_lost(best) {
            // There may be fewer texts than beams.
            self.done = !self.finished.is_empty();
            return if self.done { Ok(()) } else { task.check_choice(f32::NEG_INFINITY, &self.beams[0].ids) };
        }
        task.check_choice(best, &self.beams[0].ids)?;
        let mut next: Vec<Candidate> = vec![];
        let mut ended: Vec<Candidate> = vec![];
        for (rank, &candidate) in candidates.iter().enumerate() {
            let mut hypothesis = scores.extend(task, &self.beams, candidate, candidate.score);
            match task.ends(&hypothesis.ids[task.prompt.len()..]) {
                Some(finish) => {
                    ended.push(Candidate { score: candidate.score + BEHIND, ..candidate });
                    if rank < size {
                        close(task, &mut hypothesis.ids, finish);
                        self.add(task, hypothesis, finish, params.length_penalty);
                    }
                }
                None => next.push(candidate),
            }
            if next.len() == size {
                break;
            }
        }
        // Stop strings, unlike end-of-sequence tokens, may end more candidates than we can spare.
        next.extend(ended.into_iter().take(size - next.len()));
        for (beam, candidate) in next.iter().enumerate() {
            rows.follow(self.first_row + beam, row + scores.row_of(candidate.beam));
        }
        self.beams = next.into_iter().map(|c| scores.extend(task, &self.beams, c, c.score)).collect();
        self.done = self.finished.len() >= size && self.is_settled(task, params, best);
        Ok(())
    }

    /// Whether no beam can beat the worst finished sequence; `best` is the score of this step's best candidate.
    fn is_settled(&self, task: &Task<'_>, params: &Beam, best: f32) -> bool {
        let length = match params.early_stopping {
            EarlyStopping::True => return true,
            EarlyStopping::Never if params.length_penalty > 0.0 => task.most_tokens(1),
            _ => self.beams[0].ids.len() - task.prompt.len(),
        };
        self.worst >= f64::from(best) / math::pow(length as f64, params.length_penalty)
    }
}

/// The reference always writes the first end-of-sequence token of the list, whichever of them ended the sequence.
fn close(task: &Task<'_>, ids: &mut [u32], finish: Finish) {
    if let (FinishReason::Eos, Some(last), Some(&eos)) =
        (finish.reason, ids.last_mut(), task.decoding.stop.eos_token_id.first())
    {
        *last = eos;
    }
}

impl GroupBeamSearch {
    pub(super) fn new(params: Beam, num_beam_groups: usize, diversity_penalty: f32, task: &Task<'_>) -> Self {
        let size = params.num_beams / num_beam_groups;
        let groups = (0..num_beam_groups).map(|group| Group::new(task, group * size, size)).collect();
        Self { params, diversity_penalty, rows: BeamRows::default(), groups, generated: 0 }
    }

    /// The best finished sequences of all groups, once the search has ended.
    fn results(&mut self, task: &Task<'_>) -> Vec<Sequence> {
        for group in self.groups.iter_mut().filter(|group| !group.done) {
            for beam in group.beams.clone() {
                let reason = task.limit_reason(beam.ids.len() - task.prompt.len());
                group.add(task, beam, reason.into(), self.params.length_penalty);
            }
        }
        let mut all: Vec<_> = self.groups.drain(..).flat_map(|group| group.finished).collect();
        // Among equal scores the later one comes first, as in the reference, which pops from an ascending stable sort.
        all.reverse();
        all.sort_by(|(a, ..), (b, ..)| b.total_cmp(a));
        all.truncate(self.params.num_return_sequences);
        let sequence = |(score, hypothesis, finish): (f64, Hypothesis, Finish)| Sequence {
            score: Some(score as f32),
            ..task.sequence(&hypothesis.ids, finish, &hypothesis.logprobs)
        };
        all.into_iter().map(sequence).collect()
    }
}

impl Search for GroupBeamSearch {
    fn width(&self) -> usize {
        self.params.num_beams
    }

    fn plan(&mut self, task: &Task<'_>, plan: &mut Plan) {
        let running = self.groups.iter().filter(|group| !group.done);
        let beams = running.flat_map(|group| (group.first_row..).zip(&group.beams));
        self.rows.plan(task, beams, plan);
    }

    fn advance(
        &mut self,
        task: &Task<'_>,
        mut output: StepOutput<'_>,
        _: &mut Vec<NewToken>,
    ) -> Result<Option<Vec<Sequence>>> {
        let mut raws = output.raw.chunks_exact(output.vocab_size);
        let prompt_raw = output.raw(0);
        let mut outputs: Vec<&mut [f32]> = output.rows().collect();
        // The tokens that earlier groups picked in this step.
        let mut picked: Vec<u32> = vec![];
        let mut prompt_row;
        for group in &mut self.groups {
            let size = group.beams.len();
            if group.done {
                // The reference pads a finished group and counts the padding as picked.
                picked.extend(task.decoding.stop.eos_token_id.first().into_iter().cycle().take(size));
                continue;
            }
            let (rows, raw, row): (Vec<&mut [f32]>, Vec<&[f32]>, usize) = if self.generated == 0 {
                prompt_row = outputs[0].to_vec();
                (vec![&mut prompt_row], prompt_raw.into_iter().collect(), 0)
            } else {
                (outputs.drain(..size).collect(), raws.by_ref().take(size).collect(), group.first_row)
            };
            let adjust = |row: &mut [f32]| penalise(row, &picked, self.diversity_penalty);
            let scores = Scores::new(task, rows, raw, &group.beams, adjust)?;
            group.step(task, &self.params, &scores, row, &mut self.rows)?;
            picked.extend(group.beams.iter().filter_map(|beam| beam.ids.last()));
        }
        self.generated += 1;
        let over = self.generated >= task.most_tokens(1) || task.is_late || self.groups.iter().all(|group| group.done);
        Ok(over.then(|| self.results(task)))
    }
}

/// Subtracts `penalty` from a token's log-probability for each of its occurrences in `picked`.
///
/// `HammingDiversityLogitsProcessor`.
fn penalise(log_probs: &mut [f32], picked: &[u32], penalty: f32) {
    for (place, id) in picked.iter().enumerate() {
        // Once for each distinct token, so that the penalty is one product, as in the reference.
        if !picked[..place].contains(id)
            && let Some(x) = log_probs.get_mut(*id as usize)
        {
            *x -= penalty * picked.iter().filter(|other| *other == id).count() as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::penalise;

    #[test]
    fn tokens_of_earlier_groups_are_penalised_as_often_as_they_were_picked() {
        let mut row = [0.0, -1.0, -2.0];
        penalise(&mut row, &[2, 1, 2, 50256], 0.5);
        assert_eq!(row, [0.0, -1.5, -3.0]);
    }
}
