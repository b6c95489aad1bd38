//! The parameters of a run, under transformers' names, and what they add up to once checked.
//!
//! [`GenerationConfig`] is what a user writes; [`GenerationConfig::validate`] turns it into a [`Decoding`], in which
//! every value is in range and every parameter belongs to the one strategy that was chosen.
//!
//! Reference: transformers 5.23.0, `generation/configuration_utils.py`; group beam and contrastive search 4.49.0.

mod validate;

use super::processors::Processors;
use super::stop::StopRules;

/// How to decode, under transformers' names and with its defaults, but for `max_new_tokens` and `top_k` (off).
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationConfig {
    /// The most tokens to generate.
    pub max_new_tokens: usize,
    /// Until so many tokens are generated, none may end the sequence.
    pub min_new_tokens: usize,
    /// Draw from the distribution; implied by the parameters that shape it.
    pub do_sample: bool,
    /// What the logits are divided by before drawing.
    pub temperature: Option<f64>,
    /// Draw from the `k` best tokens only; 0 is off. For contrastive search: how many candidates compete.
    pub top_k: Option<usize>,
    /// Draw from the best tokens that together reach this probability; 1 is off.
    pub top_p: Option<f64>,
    /// Draw from the tokens at least this likely, relative to the likeliest.
    pub min_p: Option<f64>,
    /// Draw from the tokens closest to the expected surprisal that together reach this probability; 1 is off.
    pub typical_p: Option<f64>,
    /// Draw from the tokens at least this likely; 0 is off.
    pub epsilon_cutoff: Option<f64>,
    /// As `epsilon_cutoff`, but lower where the distribution is flat; 0 is off.
    pub eta_cutoff: Option<f64>,
    /// Above 1, tokens that occurred before are less likely; 1 is off.
    pub repetition_penalty: f64,
    /// No sequence of so many tokens occurs twice; 0 is off.
    pub no_repeat_ngram_size: usize,
    /// Sequences of tokens that are never generated.
    pub bad_words_ids: Vec<Vec<u32>>,
    /// Beams; 1 is no beam search.
    pub num_beams: usize,
    /// Groups of beams that keep away from each other; 1 is plain beam search.
    pub num_beam_groups: usize,
    /// How strongly a group keeps away from the tokens of the groups before it.
    pub diversity_penalty: Option<f64>,
    /// The power of the length by which the score of a finished beam is divided; above 0 longer ones win.
    pub length_penalty: Option<f64>,
    /// When a beam search that has found enough sequences ends.
    pub early_stopping: Option<EarlyStopping>,
    /// How many sequences are returned: the best beams, or so many samples.
    pub num_return_sequences: usize,
    /// The weight of the degeneration penalty in contrastive search.
    pub penalty_alpha: Option<f64>,
    /// The tokens that end a sequence.
    pub eos_token_id: Vec<u32>,
    /// The seed of all draws.
    pub seed: u64,
    /// Guess up to so many tokens from what followed the last n-gram earlier (assisted decoding).
    pub prompt_lookup_num_tokens: Option<usize>,
    /// Guess tokens with the second model of the engine (assisted decoding).
    pub assistant: bool,
    /// Report each token's log-probability, and so many of the best alternatives.
    pub logprobs: Option<usize>,
    /// Text that ends a sequence.
    pub stop: Vec<String>,
    /// What happens when the model's context is full.
    pub on_context_limit: OnContextLimit,
}

impl Default for GenerationConfig {
    fn default() -> Self {
        Self {
            max_new_tokens: 50,
            min_new_tokens: 0,
            do_sample: false,
            temperature: None,
            top_k: None,
            top_p: None,
            min_p: None,
            typical_p: None,
            epsilon_cutoff: None,
            eta_cutoff: None,
            repetition_penalty: 1.0,
            no_repeat_ngram_size: 0,
            bad_words_ids: vec![],
            num_beams: 1,
            num_beam_groups: 1,
            diversity_penalty: None,
            length_penalty: None,
            early_stopping: None,
            num_return_sequences: 1,
            penalty_alpha: None,
            eos_token_id: vec![],
            seed: 0,
            prompt_lookup_num_tokens: None,
            assistant: false,
            logprobs: None,
            stop: vec![],
            on_context_limit: OnContextLimit::Stop,
        }
    }
}

/// When a beam search that has found as many sequences as it has beams ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EarlyStopping {
    /// At once.
    True,
    /// When the best unfinished beam, taken at its present length, is no better than the worst finished one.
    #[default]
    False,
    /// When no unfinished beam can become better any more.
    Never,
}

/// What happens when the model's context is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnContextLimit {
    /// The sequence ends.
    #[default]
    Stop,
    /// Each step sees the last `n_positions` tokens, as if the prompt were those.
    Crop,
}

/// A checked configuration: what [`Engine`](super::Engine) runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoding {
    pub(super) strategy: Strategy,
    pub(super) processors: Processors,
    pub(super) stop: StopRules,
    pub(super) max_new_tokens: usize,
    pub(super) on_context_limit: OnContextLimit,
    pub(super) logprobs: Option<usize>,
    pub(super) seed: u64,
    /// One more than the largest id that the configuration names for the model to avoid.
    pub(super) least_vocab_size: usize,
}

impl Decoding {
    /// Whether the result depends on the seed.
    #[must_use]
    pub fn draws(&self) -> bool {
        match &self.strategy {
            Strategy::Single(single) => single.sample,
            Strategy::Beam(beam) => beam.sample,
            Strategy::GroupBeam { .. } | Strategy::Contrastive { .. } => false,
        }
    }

    /// Whether the tokens are known one by one ([`Event::Token`](super::Event::Token)), and not only at the end.
    #[must_use]
    pub fn streams(&self) -> bool {
        matches!(self.strategy, Strategy::Single(_) | Strategy::Contrastive { .. })
    }

    /// Whether the engine needs a second model.
    #[must_use]
    pub fn needs_assistant(&self) -> bool {
        matches!(self.strategy, Strategy::Single(Single { draft: Draft::Assistant, .. }))
    }
}

/// How the next token is found.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Strategy {
    /// Greedy search or sampling: each sequence for itself.
    Single(Single),
    /// Beam search or beam sample.
    Beam(Beam),
    /// Diverse beam search.
    GroupBeam { beam: Beam, num_beam_groups: usize, diversity_penalty: f32 },
    /// Contrastive search.
    Contrastive { penalty_alpha: f32, top_k: usize },
}

/// Greedy search or sampling.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Single {
    pub sample: bool,
    pub num_return_sequences: usize,
    pub draft: Draft,
}

/// Where guesses at the next tokens come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Draft {
    None,
    /// What followed an earlier occurrence of the last n-gram, up to so many tokens.
    PromptLookup(usize),
    /// A second model.
    Assistant,
}

/// What beam searches share.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Beam {
    pub num_beams: usize,
    pub length_penalty: f64,
    pub early_stopping: EarlyStopping,
    pub num_return_sequences: usize,
    pub sample: bool,
}
