//! The interface of all strategies: a search says what the model should compute next and continues with the result.
//!
//! A search never owns the model, so the [`Engine`](super::Engine) can run many searches in one forward pass. Rows are
//! numbered from 0 within a search; the engine maps them to rows of the model.

use std::sync::Arc;

use super::decoding::Decoding;
use super::parameters::OnContextLimit;
use super::plan::Plan;
use super::sequence::{Sequence, TokenLogprob};
use super::stop::{Detokenize, Finish, FinishReason, bytes};
use crate::error::Result;
use crate::logits::Top;

/// What a search knows about its request and the models.
pub(super) struct Task<'a> {
    pub decoding: Arc<Decoding>,
    pub prompt: Vec<u32>,
    pub vocab_size: usize,
    pub n_positions: usize,
    /// `n_positions` of the second model, if there is one.
    pub assistant_positions: usize,
    pub text: &'a dyn Detokenize,
    /// Whether `max_time` is over.
    pub is_late: bool,
}

impl Task<'_> {
    /// The most tokens that can be generated if the last `unseen` need not be run through the model.
    pub(super) fn most_tokens(&self, unseen: usize) -> usize {
        let room = match self.decoding.on_context_limit {
            OnContextLimit::Stop => (self.n_positions + unseen).saturating_sub(self.longest(self.prompt.len())),
            OnContextLimit::Crop => usize::MAX,
        };
        self.max_new_tokens().min(room)
    }

    /// The positions of the longest row for a row of so many: with guidance, the other prompt may be longer.
    pub(super) fn longest(&self, positions: usize) -> usize {
        let other = self.decoding.other_prompt(&self.prompt).map_or(0, <[u32]>::len);
        positions + other.saturating_sub(self.prompt.len())
    }

    /// The most tokens that are asked for.
    fn max_new_tokens(&self) -> usize {
        let rest = self.decoding.max_length.map(|length| length.saturating_sub(self.prompt.len()));
        rest.unwrap_or(self.decoding.max_new_tokens)
    }

    /// Why a sequence that reached [`Self::most_tokens`] ends.
    pub(super) fn limit_reason(&self, generated: usize) -> FinishReason {
        if generated >= self.max_new_tokens() || self.is_late { FinishReason::Length } else { FinishReason::Context }
    }

    /// Whether the sequence `ids` (prompt and generated) ends with its newest token.
    pub(super) fn finish(&self, ids: &[u32], unseen: usize) -> Option<Finish> {
        let generated = &ids[self.prompt.len()..];
        let is_last = || self.is_late || generated.len() >= self.most_tokens(unseen);
        let limit = || is_last().then(|| self.limit_reason(generated.len()).into());
        self.ends(generated).or_else(limit)
    }

    /// Whether the `generated` tokens end by themselves.
    pub(super) fn ends(&self, generated: &[u32]) -> Option<Finish> {
        let whole = || self.decoding.processors.constraint().is_some_and(|constraint| constraint.ends(generated));
        self.decoding.stop.check(generated, self.text).or_else(|| whole().then(|| FinishReason::Stop.into()))
    }

    /// Whether there is a constraint, under which a search may have fewer ways to go on than beams.
    pub(super) fn is_constrained(&self) -> bool {
        self.decoding.processors.constraint().is_some()
    }

    /// Fails if `largest`, the best score of the token after `ids`, shows that nothing is left to choose from.
    pub(super) fn check_choice(&self, largest: f32, ids: &[u32]) -> Result<()> {
        self.decoding.processors.check_choice(largest, &ids[self.prompt.len()..])
    }

    /// The part of `ids` that a step sees: all, or the last `n_positions` if the context is cropped.
    pub(super) fn window<'i>(&self, ids: &'i [u32]) -> &'i [u32] {
        &ids[ids.len().saturating_sub(self.n_positions)..]
    }

    /// Applies the processors to the scores (V) of the token after `ids`.
    pub(super) fn process(&self, scores: &mut [f32], ids: &[u32]) -> Result<()> {
        let generated = &ids[self.prompt.len()..];
        self.decoding.processors.apply(scores, self.window(ids), &self.prompt, generated)
    }

    /// The same without the constraint, which may wait until a token is chosen.
    pub(super) fn process_freely(&self, scores: &mut [f32], ids: &[u32]) -> Result<()> {
        let generated = &ids[self.prompt.len()..];
        self.decoding.processors.apply_freely(scores, self.window(ids), &self.prompt, generated)
    }

    /// Rules out what may not follow `ids` by the constraint.
    pub(super) fn constrain(&self, scores: &mut [f32], ids: &[u32]) -> Result<()> {
        let constraint = self.decoding.processors.constraint();
        constraint.map_or(Ok(()), |constraint| constraint.apply(scores, &ids[self.prompt.len()..]))
    }

    /// Whether `id` may follow `ids` by the constraint.
    pub(super) fn allows(&self, ids: &[u32], id: usize) -> Result<bool> {
        let constraint = self.decoding.processors.constraint();
        constraint.map_or(Ok(true), |constraint| constraint.allows(&ids[self.prompt.len()..], id as u32))
    }

    /// Whether it is known all that may follow `ids` by the constraint.
    pub(super) fn knows_constraint(&self, ids: &[u32]) -> Result<bool> {
        let constraint = self.decoding.processors.constraint();
        constraint.map_or(Ok(true), |constraint| constraint.is_known(&ids[self.prompt.len()..]))
    }

    /// The finished sequence from `ids` (prompt and generated).
    pub(super) fn sequence(&self, ids: &[u32], finish: Finish, logprobs: &[Arc<TokenLogprob>]) -> Sequence {
        let ids = ids[self.prompt.len()..].to_vec();
        let mut text = bytes(&ids, self.text);
        text.truncate(finish.text_end.unwrap_or(text.len()));
        let logprobs = self.decoding.logprobs.map(|_| logprobs.to_vec());
        let constraint = self.decoding.processors.constraint();
        let is_whole = constraint.map(|constraint| finish.text_end.is_none() && constraint.is_complete(&ids));
        Sequence { ids, text, finish_reason: finish.reason, score: None, logprobs, is_whole, guesses: None }
    }
}

/// What the model computed for a search's plan: the positions asked for, input by input.
pub(super) struct StepOutput<'a> {
    /// Logits, (positions, V), after guidance.
    pub logits: &'a mut [f32],
    /// The same before guidance, if a request wants log-probabilities from them; otherwise empty.
    pub raw: &'a [f32],
    /// Best tokens, (positions); see [`Output::best`](crate::language_model::Output::best).
    pub best: &'a [Option<u32>],
    /// Hidden states, (positions, C).
    pub hidden: &'a [f32],
    /// The most probable tokens, one entry for each input that asks for them.
    pub top: &'a [Option<Top>],
    pub vocab_size: usize,
    pub n_embd: usize,
}

impl<'a> StepOutput<'a> {
    /// The rows of logits.
    pub(super) fn rows(&mut self) -> std::slice::ChunksExactMut<'_, f32> {
        self.logits.chunks_exact_mut(self.vocab_size)
    }

    /// The row of logits `i` before guidance, if it is wanted.
    pub(super) fn raw(&self, i: usize) -> Option<&'a [f32]> {
        self.raw.chunks_exact(self.vocab_size).nth(i)
    }

    /// What is known about the next token at each position, if the plan asks for only one kind of output.
    pub(super) fn next_tokens(&mut self) -> impl Iterator<Item = NextToken<'_>> {
        let raw = self.raw.chunks_exact(self.vocab_size).map(Some).chain(std::iter::repeat(None));
        let rows = self.logits.chunks_exact_mut(self.vocab_size).zip(raw);
        let rows = rows.map(|(logits, raw)| NextToken::Logits(logits, raw));
        rows.chain(self.best.iter().copied().map(NextToken::Best)).chain(self.top.iter().map(NextToken::Top))
    }
}

/// What a model says about the next token.
pub(super) enum NextToken<'a> {
    /// Logits (V), and those before guidance if they are wanted.
    Logits(&'a mut [f32], Option<&'a [f32]>),
    /// The most probable token, if the logits are finite.
    Best(Option<u32>),
    /// The most probable tokens, if the logits are finite.
    Top(&'a Option<Top>),
}

/// A token that a search has settled on.
pub(super) struct NewToken {
    pub sequence: usize,
    pub id: u32,
    pub text: Vec<u8>,
    pub logprob: Option<Arc<TokenLogprob>>,
}

/// A request in progress.
pub(super) trait Search: Send {
    /// The most rows of the model that it uses.
    fn width(&self) -> usize;

    /// What the second model should compute before the next step; no inputs once the guesses are complete. Its rows
    /// follow every move of the first model's rows.
    fn draft(&mut self, _task: &Task<'_>, _plan: &mut Plan) {}

    /// Receives what the second model computed.
    fn drafted(&mut self, _task: &Task<'_>, _output: StepOutput<'_>) -> Result<()> {
        Ok(())
    }

    /// What the model should compute next: at least one input.
    fn plan(&mut self, task: &Task<'_>, plan: &mut Plan);

    /// Continues with what the model computed. Returns the sequences once all are finished.
    fn advance(
        &mut self,
        task: &Task<'_>,
        output: StepOutput<'_>,
        tokens: &mut Vec<NewToken>,
    ) -> Result<Option<Vec<Sequence>>>;

    /// The log-probabilities of the prompt's tokens from the second on, once, when they are known and asked for.
    fn prompt_logprobs(&mut self) -> Option<Vec<Arc<TokenLogprob>>> {
        None
    }
}
