//! The interface of all strategies: a search says what the model should compute next and continues with the result.
//!
//! A search never owns the model, so the [`Engine`](super::Engine) can run many searches in one forward pass. Rows are
//! numbered from 0 within a search; the engine maps them to rows of the model.

use std::sync::Arc;

use super::decoding::Decoding;
use super::parameters::OnContextLimit;
use super::stop::{Detokenize, Finish, FinishReason, bytes};
use crate::error::Result;
use crate::language_model::Positions;
use crate::logits::{self, LogNormalizer, Top};

/// A finished sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Sequence {
    /// The generated ids, the end-of-sequence token included.
    pub ids: Vec<u32>,
    /// Their text, without special tokens, cut before the stop string. Empty if ids have no text.
    pub text: Vec<u8>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The score of a beam: its log-probability divided by its length to the power of `length_penalty`.
    pub score: Option<f32>,
    /// Each id's log-probability after the processors, if asked for.
    pub logprobs: Option<Vec<Arc<TokenLogprob>>>,
}

/// The log-probability of a generated token, and the best alternatives, after the processors.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub id: u32,
    /// Its log-probability; in beam search, what it adds to the beam's log-probability.
    pub logprob: f32,
    /// The best tokens with their log-probabilities, best first, without tokens that are ruled out.
    pub top: Vec<(u32, f32)>,
}

impl TokenLogprob {
    /// From a `row` (V) whose numbers become log-probabilities by `log_prob`.
    fn new(row: &[f32], log_prob: impl Fn(f32) -> f32, id: usize, k: usize) -> Arc<Self> {
        let finite = logits::top_k(row, k).into_iter().filter(|(_, x)| x.is_finite());
        let mut top: Vec<_> = finite.map(|(id, x)| (id as u32, log_prob(x))).collect();
        // It was collected in place of something wider.
        top.shrink_to_fit();
        Arc::new(Self { id: id as u32, logprob: log_prob(row[id]), top })
    }

    /// From the processed logits (V) by which `id` was chosen.
    pub(super) fn from_logits(logits: &[f32], id: usize, k: usize) -> Arc<Self> {
        let normalizer = LogNormalizer::of(logits);
        Self::new(logits, |logit| normalizer.log_prob(logit), id, k)
    }

    /// From processed log-probabilities (V), not normalised again.
    pub(super) fn from_log_probs(log_probs: &[f32], id: usize, k: usize) -> Arc<Self> {
        Self::new(log_probs, |log_prob| log_prob, id, k)
    }
}

/// What a search knows about its request and the models.
pub(super) struct Task<'a> {
    pub decoding: Arc<Decoding>,
    pub prompt: Vec<u32>,
    pub vocab_size: usize,
    pub n_positions: usize,
    /// `n_positions` of the second model, if there is one.
    pub assistant_positions: usize,
    pub text: &'a dyn Detokenize,
}

impl Task<'_> {
    /// The most tokens that can be generated if the last `unseen` need not be run through the model.
    pub(super) fn most_tokens(&self, unseen: usize) -> usize {
        let room = match self.decoding.on_context_limit {
            OnContextLimit::Stop => (self.n_positions + unseen).saturating_sub(self.prompt.len()),
            OnContextLimit::Crop => usize::MAX,
        };
        self.max_new_tokens().min(room)
    }

    /// The most tokens that are asked for.
    fn max_new_tokens(&self) -> usize {
        let rest = self.decoding.max_length.map(|length| length.saturating_sub(self.prompt.len()));
        rest.unwrap_or(self.decoding.max_new_tokens)
    }

    /// Why a sequence that reached [`Self::most_tokens`] ends.
    pub(super) fn limit_reason(&self, generated: usize) -> FinishReason {
        if generated >= self.max_new_tokens() { FinishReason::Length } else { FinishReason::Context }
    }

    /// Whether the sequence `ids` (prompt and generated) ends with its newest token.
    pub(super) fn finish(&self, ids: &[u32], unseen: usize) -> Option<Finish> {
        let generated = &ids[self.prompt.len()..];
        let limit = || (generated.len() >= self.most_tokens(unseen)).then(|| self.limit_reason(generated.len()).into());
        self.decoding.stop.check(generated, self.text).or_else(limit)
    }

    /// The part of `ids` that a step sees: all, or the last `n_positions` if the context is cropped.
    pub(super) fn window<'i>(&self, ids: &'i [u32]) -> &'i [u32] {
        &ids[ids.len().saturating_sub(self.n_positions)..]
    }

    /// Applies the processors to the scores (V) of the token after `ids`.
    pub(super) fn process(&self, scores: &mut [f32], ids: &[u32]) {
        let (prompt, generated) = (self.prompt.len(), &ids[self.prompt.len()..]);
        self.decoding.processors.apply(scores, self.window(ids), prompt, generated);
    }

    /// The finished sequence from `ids` (prompt and generated).
    pub(super) fn sequence(&self, ids: &[u32], finish: Finish, logprobs: &[Arc<TokenLogprob>]) -> Sequence {
        let ids = ids[self.prompt.len()..].to_vec();
        let mut text = bytes(&ids, self.text);
        text.truncate(finish.text_end.unwrap_or(text.len()));
        let logprobs = self.decoding.logprobs.map(|_| logprobs.to_vec());
        Sequence { ids, text, finish_reason: finish.reason, score: None, logprobs }
    }
}

/// Processing can turn scores that differ by a rounding error into ties, which are broken by id. With this many extra
/// tokens, a search picks the same ones as from a whole row. If even the extra ones tie with the last token needed, it
/// asks for whole rows from then on.
pub(super) const FEW_MORE: usize = 8;

/// What a search wants the model to do: first the moves, then the truncations, then the inputs.
#[derive(Default)]
pub(super) struct Plan {
    /// `(to, from)`, all applied at once.
    pub moves: Vec<(usize, usize)>,
    /// `(row, positions to keep)`.
    pub truncations: Vec<(usize, usize)>,
    pub inputs: Vec<PlannedInput>,
}

/// A future [`Input`](crate::language_model::Input).
pub(super) struct PlannedInput {
    pub row: usize,
    pub ids: Vec<u32>,
    pub logits: Positions,
    pub best: Positions,
    pub hidden: Positions,
    pub top: usize,
}

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        self.inputs.is_empty() && self.moves.is_empty()
    }

    /// How many positions of the output belong to this plan; `wanted` selects logits, best tokens or hidden states.
    pub(super) fn positions(&self, wanted: impl Fn(&PlannedInput) -> Positions) -> usize {
        let count = |input: &PlannedInput| match wanted(input) {
            Positions::None => 0,
            Positions::Last => 1,
            Positions::All => input.ids.len(),
        };
        self.inputs.iter().map(count).sum()
    }

    /// Extends `row`, which has seen the first `seen` of `ids`, to the end of `ids` and asks for the logits there. If the
    /// context is cropped, the row starts over.
    pub(super) fn extend(&mut self, task: &Task<'_>, row: usize, ids: &[u32], seen: usize) {
        let window = task.window(ids);
        let new = if window.len() < ids.len() {
            self.truncations.push((row, 0));
            window
        } else {
            &ids[seen..]
        };
        self.feed(row, new, Positions::Last, Positions::None);
    }

    /// Leaves out what row 0 holds already: the first ids, `seen`, of the prompt that a search begins with.
    pub(super) fn go_on_after(&mut self, seen: &[u32]) {
        let states = |input: &PlannedInput| input.hidden != Positions::None;
        match &mut self.inputs[..] {
            [input] if self.truncations.is_empty() && input.ids.starts_with(seen) && !states(input) => {
                input.ids.drain(..seen.len());
            }
            _ => self.truncations.push((0, 0)),
        }
    }

    /// Appends `ids` to `row`.
    pub(super) fn feed(&mut self, row: usize, ids: &[u32], logits: Positions, hidden: Positions) {
        self.inputs.push(PlannedInput { row, ids: ids.to_vec(), logits, best: Positions::None, hidden, top: 0 });
    }

    /// Asks for the best token only, wherever logits were asked for.
    pub(super) fn only_best(&mut self) {
        for input in &mut self.inputs {
            input.best = std::mem::replace(&mut input.logits, Positions::None);
        }
    }

    /// Asks for the `k` best tokens only, wherever the last logits were asked for. `k` should include [`FEW_MORE`] extra
    /// tokens.
    pub(super) fn only_top(&mut self, k: usize) {
        for input in &mut self.inputs {
            (input.top, input.logits) = (k, Positions::None);
        }
    }
}

/// What the model computed for a search's plan: the positions asked for, input by input.
pub(super) struct StepOutput<'a> {
    /// Logits, (positions, V).
    pub logits: &'a mut [f32],
    /// Best tokens, (positions); see [`Output::best`](crate::language_model::Output::best).
    pub best: &'a [Option<u32>],
    /// Hidden states, (positions, C).
    pub hidden: &'a [f32],
    /// The most probable tokens, one entry for each input that asks for them.
    pub top: &'a [Option<Top>],
    pub vocab_size: usize,
    pub n_embd: usize,
}

impl StepOutput<'_> {
    /// The rows of logits.
    pub(super) fn rows(&mut self) -> std::slice::ChunksExactMut<'_, f32> {
        self.logits.chunks_exact_mut(self.vocab_size)
    }

    /// What is known about the next token at each position, if the plan asks for only one kind of output.
    pub(super) fn next_tokens(&mut self) -> impl Iterator<Item = NextToken<'_>> {
        let rows = self.logits.chunks_exact_mut(self.vocab_size).map(NextToken::Logits);
        rows.chain(self.best.iter().copied().map(NextToken::Best)).chain(self.top.iter().map(NextToken::Top))
    }
}

/// What a model says about the next token.
pub(super) enum NextToken<'a> {
    /// Logits (V).
    Logits(&'a mut [f32]),
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
