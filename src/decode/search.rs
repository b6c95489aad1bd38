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
    /// Whether the text is all that the constraint asks for; none without a constraint.
    pub is_whole: Option<bool>,
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
    /// The model's own, before guidance and processors, if asked for.
    pub raw: Option<Box<RawLogprob>>,
}

/// What the model itself says about a generated token.
#[derive(Debug, Clone, PartialEq)]
pub struct RawLogprob {
    /// The token's log-probability.
    pub logprob: f32,
    /// The model's best tokens with their log-probabilities, best first.
    pub top: Vec<(u32, f32)>,
}

/// The `k` best tokens of a `row` (V) whose numbers become log-probabilities by `log_prob`, without those ruled out.
fn best(row: &[f32], log_prob: impl Fn(f32) -> f32, k: usize) -> Vec<(u32, f32)> {
    let finite = logits::top_k(row, k).into_iter().filter(|(_, x)| x.is_finite());
    let mut top: Vec<_> = finite.map(|(id, x)| (id as u32, log_prob(x))).collect();
    // It was collected in place of something wider.
    top.shrink_to_fit();
    top
}

impl RawLogprob {
    fn new(row: &[f32], id: usize, k: usize) -> Box<Self> {
        let normalizer = LogNormalizer::of(row);
        let log_prob = |logit| normalizer.log_prob(logit);
        Box::new(Self { logprob: log_prob(row[id]), top: best(row, log_prob, k) })
    }
}

impl TokenLogprob {
    /// From a `row` (V) whose numbers become log-probabilities by `log_prob`.
    fn new(row: &[f32], log_prob: impl Fn(f32) -> f32, id: usize, k: usize, raw: Option<&[f32]>) -> Arc<Self> {
        let raw = raw.map(|raw| RawLogprob::new(raw, id, k));
        Arc::new(Self { id: id as u32, logprob: log_prob(row[id]), top: best(row, log_prob, k), raw })
    }

    /// From the processed logits (V) by which `id` was chosen, and the model's own.
    pub(super) fn from_logits(logits: &[f32], id: usize, k: usize, raw: Option<&[f32]>) -> Arc<Self> {
        let normalizer = LogNormalizer::of(logits);
        Self::new(logits, |logit| normalizer.log_prob(logit), id, k, raw)
    }

    /// From processed log-probabilities (V), not normalised again, and the model's own logits.
    pub(super) fn from_log_probs(log_probs: &[f32], id: usize, k: usize, raw: Option<&[f32]>) -> Arc<Self> {
        Self::new(log_probs, |log_prob| log_prob, id, k, raw)
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

    /// The finished sequence from `ids` (prompt and generated).
    pub(super) fn sequence(&self, ids: &[u32], finish: Finish, logprobs: &[Arc<TokenLogprob>]) -> Sequence {
        let ids = ids[self.prompt.len()..].to_vec();
        let mut text = bytes(&ids, self.text);
        text.truncate(finish.text_end.unwrap_or(text.len()));
        let logprobs = self.decoding.logprobs.map(|_| logprobs.to_vec());
        let constraint = self.decoding.processors.constraint();
        let is_whole = constraint.map(|constraint| finish.text_end.is_none() && constraint.is_complete(&ids));
        Sequence { ids, text, finish_reason: finish.reason, score: None, logprobs, is_whole }
    }
}

/// Processing can turn scores that differ by a rounding error into ties, which are broken by id. With this many extra
/// tokens, a search picks the same ones as from a whole row. If even the extra ones tie with the last token needed, it
/// asks for whole rows from then on.
pub(super) const FEW_MORE: usize = 8;

/// What a search wants the model to do: first the moves, then the truncations, then the inputs.
///
/// With guidance, each row has another one, `width` rows further: it holds the other prompt and the same generated tokens,
/// and follows all that happens to the row. The search sees none of this: its logits are what guidance makes of both.
#[derive(Default)]
pub(super) struct Plan {
    /// `(to, from)`, all applied at once.
    pub moves: Vec<(usize, usize)>,
    /// `(row, positions to keep)`.
    pub truncations: Vec<(usize, usize)>,
    pub inputs: Vec<PlannedInput>,
    /// The inputs of the other rows.
    pub others: Vec<PlannedInput>,
    /// How many rows a search has, if each has another one.
    guided: Option<usize>,
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
    /// The plan of a search with `width` rows.
    pub(super) fn new(task: &Task<'_>, width: usize) -> Self {
        Self { guided: task.decoding.processors.guidance().map(|_| width), ..Self::default() }
    }

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

    /// Makes row `to` hold what `from` holds.
    pub(super) fn assign(&mut self, to: usize, from: usize) {
        self.moves.push((to, from));
        self.moves.extend(self.guided.map(|width| (to + width, from + width)));
    }

    /// Cuts `row` back to its first `seen` positions.
    pub(super) fn cut(&mut self, task: &Task<'_>, row: usize, seen: usize) {
        self.truncations.push((row, seen));
        if let (Some(width), Some(other)) = (self.guided, task.decoding.other_prompt(&task.prompt)) {
            self.truncations.push((row + width, seen_of_other(task, other, seen)));
        }
    }

    /// Extends `row`, which has seen the first `seen` of `ids`, to the end of `ids` and asks for the logits there. If the
    /// context is cropped, the row starts over.
    pub(super) fn extend(&mut self, task: &Task<'_>, row: usize, ids: &[u32], seen: usize) {
        self.run(
            task,
            row,
            ids,
            seen,
            Wanted { logits: Positions::Last, hidden: Positions::None, room: task.n_positions },
        );
    }

    /// The same with other outputs, and another room for a row.
    pub(super) fn run(&mut self, task: &Task<'_>, row: usize, ids: &[u32], seen: usize, wanted: Wanted) {
        let Wanted { logits, hidden, room } = wanted;
        let starts_over = ids.len() > room;
        if starts_over {
            self.truncations.push((row, 0));
        }
        let new = &ids[if starts_over { ids.len() - room } else { seen }..];
        self.feed(row, new, logits, hidden);
        if let (Some(width), Some(other)) = (self.guided, task.decoding.other_prompt(&task.prompt)) {
            let seen = seen_of_other(task, other, seen);
            let ids = [other, &ids[task.prompt.len()..]].concat();
            let starts_over = ids.len() > room;
            if starts_over {
                self.truncations.push((row + width, 0));
            }
            let new = ids[if starts_over { ids.len() - room } else { seen }..].to_vec();
            let (best, hidden, top) = (Positions::None, Positions::None, 0);
            self.others.push(PlannedInput { row: row + width, ids: new, logits, best, hidden, top });
        }
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

    /// Appends a generated token to `row` and asks for its logits and hidden state.
    pub(super) fn append(&mut self, row: usize, id: u32) {
        self.feed(row, &[id], Positions::Last, Positions::Last);
        self.others.extend(self.guided.map(|width| PlannedInput {
            row: row + width,
            ids: vec![id],
            logits: Positions::Last,
            best: Positions::None,
            hidden: Positions::None,
            top: 0,
        }));
    }

    /// Appends `ids` to `row`, without another one.
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

/// What a row is to give, and how many positions it may hold.
pub(super) struct Wanted {
    pub logits: Positions,
    pub hidden: Positions,
    pub room: usize,
}

/// How much of the other prompt and what follows it a row has seen, when its own row has seen `seen`.
fn seen_of_other(task: &Task<'_>, other: &[u32], seen: usize) -> usize {
    seen.checked_sub(task.prompt.len()).map_or(0, |generated| other.len() + generated)
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
