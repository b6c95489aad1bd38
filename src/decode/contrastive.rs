//! Contrastive search: among the most probable tokens, take the one least similar to the context.
//!
//! Each step runs the `top_k` best candidates and takes the one that maximises
//! `(1 - α)·p(candidate) - α·max_j cos(h_candidate, h_j)`, where `h` are the last hidden states. A candidate has to be
//! run before it can be judged, so unlike the other strategies this one needs a position for the last token too.
//!
//! Reference: transformers 4.49.0, `_contrastive_search`, the last version that has it built in; Su et al. 2022, "A
//! Contrastive Framework for Neural Text Generation".

use std::sync::Arc;

use super::parameters::OnContextLimit;
use super::plan::{Plan, Wanted};
use super::search::{NewToken, Search, StepOutput, Task};
use super::sequence::{Sequence, TokenLogprob};
use super::stop::{Finish, FinishReason, Outflow};
use crate::error::Result;
use crate::language_model::Positions;
use crate::logits;

/// One request.
pub(super) struct ContrastiveSearch {
    penalty_alpha: f32,
    top_k: usize,
    ids: Vec<u32>,
    logprobs: Vec<Arc<TokenLogprob>>,
    outflow: Outflow,
    /// Hidden states of the positions so far, each scaled to length 1, (positions, C).
    context: Vec<f32>,
    /// The row that holds the context; none if the context has to be run first.
    row: Option<usize>,
    /// The processed logits after the context, and the model's own if they are wanted.
    logits: Vec<f32>,
    raw: Option<Vec<f32>>,
    /// Positions that the longest of its rows holds.
    positions: usize,
    /// Tokens to choose from, with their probabilities, best first.
    candidates: Vec<(usize, f32)>,
}

impl ContrastiveSearch {
    pub(super) fn new(penalty_alpha: f32, top_k: usize, task: &Task<'_>) -> Self {
        Self {
            penalty_alpha,
            top_k: top_k.min(task.vocab_size),
            ids: task.prompt.clone(),
            logprobs: vec![],
            outflow: Outflow::default(),
            context: vec![],
            row: None,
            logits: vec![],
            raw: None,
            positions: 0,
            candidates: vec![],
        }
    }

    /// Picks the next candidates from the logits (V) after the ids.
    fn recall(&mut self, task: &Task<'_>, logits: &mut [f32], raw: Option<&[f32]>) -> Result<()> {
        logits::check_finite(logits)?;
        task.process(logits, &self.ids)?;
        task.check_choice(logits::max(logits), &self.ids)?;
        let mut probs = vec![];
        logits::softmax(logits, &mut probs);
        self.candidates = logits::top_k(&probs, self.top_k);
        // A token that is ruled out is never a candidate, however few there are.
        self.candidates.retain(|&(id, _)| logits[id].is_finite());
        self.logits.clear();
        self.logits.extend_from_slice(logits);
        self.raw = raw.map(<[f32]>::to_vec);
        Ok(())
    }

    /// The candidate with the best score; `hidden` are the candidates' hidden states (candidates, C), each of length 1.
    fn choose(&self, hidden: &[f32], n_embd: usize) -> usize {
        let degeneration = |h: &[f32]| {
            let cosines = self.context.chunks_exact(n_embd).map(|past| dot(past, h));
            cosines.fold(f32::NEG_INFINITY, f32::max)
        };
        let scores: Vec<f32> = hidden
            .chunks_exact(n_embd)
            .zip(&self.candidates)
            .map(|(h, &(_, p))| (1.0 - self.penalty_alpha) * p - self.penalty_alpha * degeneration(h))
            .collect();
        logits::argmax(&scores)
    }

    fn end(&self, task: &Task<'_>, finish: Finish) -> Vec<Sequence> {
        vec![task.sequence(&self.ids, finish, &self.logprobs)]
    }
}

/// The dot product of two vectors of the same length, summed in a fixed order.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    /// Parallel partial sums.
    const LANES: usize = 16;
    let mut lanes = [0.0_f32; LANES];
    for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
        for ((lane, x), y) in lanes.iter_mut().zip(a).zip(b) {
            *lane += x * y;
        }
    }
    lanes.iter().sum()
}

/// `hidden` (positions, C) with each state scaled to length 1.
fn normalised(hidden: &[f32], n_embd: usize) -> Vec<f32> {
    let mut hidden = hidden.to_vec();
    for h in hidden.chunks_exact_mut(n_embd) {
        let length = dot(h, h).sqrt();
        h.iter_mut().for_each(|x| *x /= length);
    }
    hidden
}

impl Search for ContrastiveSearch {
    fn width(&self) -> usize {
        self.top_k
    }

    fn plan(&mut self, task: &Task<'_>, plan: &mut Plan) {
        let Some(context) = self.row else {
            let crop = task.decoding.on_context_limit == OnContextLimit::Crop;
            // A cropped context leaves a position for the candidate.
            let room = if crop { task.n_positions - 1 } else { task.n_positions };
            self.positions = task.longest(self.ids.len()).min(room);
            plan.cut(task, 0, 0);
            let wanted = Wanted { logits: Positions::Last, hidden: Positions::All, room };
            return plan.run(task, 0, &self.ids, 0, wanted);
        };
        for (row, &(id, _)) in self.candidates.iter().enumerate() {
            if row != context {
                plan.assign(row, context);
            }
            plan.append(row, id as u32);
        }
    }

    fn advance(
        &mut self,
        task: &Task<'_>,
        mut output: StepOutput<'_>,
        tokens: &mut Vec<NewToken>,
    ) -> Result<Option<Vec<Sequence>>> {
        let n_embd = output.n_embd;
        logits::check_finite(output.hidden)?;
        let hidden = normalised(output.hidden, n_embd);
        if self.row.is_none() {
            self.row = Some(0);
            self.context = hidden;
            if task.most_tokens(0) == 0 {
                return Ok(Some(self.end(task, FinishReason::Context.into())));
            }
            let raw = output.raw(0);
            output.rows().try_for_each(|logits| self.recall(task, logits, raw))?;
            return Ok(None);
        }
        let chosen = self.choose(&hidden, n_embd);
        let (id, _) = self.candidates[chosen];
        let logprob =
            task.decoding.logprobs.map(|k| TokenLogprob::from_logits(&self.logits, id, k, self.raw.as_deref()));
        self.logprobs.extend(logprob.clone());
        let id = id as u32;
        self.ids.push(id);
        let finish = task.finish(&self.ids, 0);
        let text = self.outflow.push(task.text.token_bytes(id), &task.decoding.stop, finish);
        tokens.push(NewToken { sequence: 0, id, text, logprob });
        if let Some(finish) = finish {
            return Ok(Some(self.end(task, finish)));
        }
        self.context.extend_from_slice(&hidden[chosen * n_embd..][..n_embd]);
        // A full context has no position left for a candidate, so it starts over, cropped.
        self.positions += 1;
        let full = self.positions == task.n_positions;
        self.row = (!full).then_some(chosen);
        if !full {
            let raw = output.raw(chosen);
            output.rows().skip(chosen).take(1).try_for_each(|logits| self.recall(task, logits, raw))?;
        }
        Ok(None)
    }
}
