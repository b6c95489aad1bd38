//! Decoding: from the distribution over the next token to text. Logits processors, strategies, stop rules.
//!
//! The network is behind [`LanguageModel`], so that each strategy can be tested against a hand-computed table.
//!
//! A [`GenerationConfig`] is checked into a [`Decoding`]; [`generate`] runs one request, an [`Engine`] many at once.
//! Inside, a strategy is a `Search`: it says what the model should compute next and goes on with the result, and the
//! engine puts what all searches want into one forward pass.
//!
//! ```
//! # use gpt2::decode::{LanguageModel, Sequence};
//! use std::sync::Arc;
//!
//! use gpt2::decode::{GenerationConfig, NoText, generate};
//!
//! # fn beams(model: &mut dyn LanguageModel) -> gpt2::Result<Vec<Sequence>> {
//! let config = GenerationConfig { num_beams: 4, eos_token_id: vec![50256], ..GenerationConfig::default() };
//! generate(model, &NoText, &[464, 4583], &Arc::new(config.validate()?), |_event| ())
//! # }
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `config` | parameters, their ranges, which exclude each other |
//! | `processors` | what changes the scores of the next token: penalties, bans, temperature, truncations |
//! | `single` | greedy search and sampling, with or without guesses (`lookup`, or a second model) |
//! | `beam`, `group_beam` | beam search and beam sample, diverse beam search |
//! | `contrastive` | contrastive search |
//! | `random` | draws as a pure function of (seed, row, step) |
//! | `stop` | end-of-sequence tokens, stop strings, what text is shown |
//! | `engine` | many requests over one model |
//!
//! Reference: transformers 5.23.0, `generation/utils.py` and `generation/logits_process.py`.

mod beam;
mod config;
mod contrastive;
mod engine;
mod group_beam;
mod lookup;
pub mod numeric;
mod processors;
mod random;
mod search;
mod single;
mod stop;
#[cfg(test)]
mod table;
#[cfg(test)]
mod tests;

pub use config::{Decoding, EarlyStopping, GenerationConfig, OnContextLimit};
pub use engine::{Engine, Event, RequestId, generate};
pub use processors::Processors;
pub use search::{Sequence, TokenLogprob};
pub use stop::{Detokenize, FinishReason, NoText};

use crate::error::Result;

/// What decoding needs of a model: ids in, logits out, over rows that each keep their own past.
///
/// A row is a sequence with its cached positions. Rows are numbered from 0, come into being empty when first named, and
/// may have any mixture of lengths: what a row gives never depends on the other rows of a call.
pub trait LanguageModel {
    /// `V`, the length of a row of logits.
    fn vocab_size(&self) -> usize;

    /// The most positions a row can hold.
    fn n_positions(&self) -> usize;

    /// Positions that row `row` holds.
    fn len(&self, row: usize) -> usize;

    /// Appends each input's ids to its row and runs the network over all of them in one pass. No two inputs name the
    /// same row.
    ///
    /// # Errors
    /// If a row would outgrow the context, an id lies outside the vocabulary, or the device fails.
    fn forward(&mut self, inputs: &[Input<'_>]) -> Result<Output>;

    /// Drops the positions of `row` from `len` on.
    fn truncate(&mut self, row: usize, len: usize);

    /// Makes each `to` hold what `from` held before the call; `moves` are `(to, from)` and happen at once. Rows that
    /// are not named stay as they are. Copies share storage until one of them is written.
    fn assign(&mut self, moves: &[(usize, usize)]);
}

/// New tokens for one row, and what is wanted of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Input<'a> {
    /// The row.
    pub row: usize,
    /// `T` new ids, at least one.
    pub ids: &'a [u32],
    /// For which of the new positions logits are returned.
    pub logits: Positions,
    /// For which of the new positions the most probable next token is returned: all that greedy search needs, and far
    /// less to move from a GPU.
    pub best: Positions,
    /// For which of the new positions the last hidden state (after the final norm) is returned.
    pub hidden: Positions,
    /// How many of the most probable next tokens are returned, with what their log-probabilities are made of, for the last
    /// of the new positions: all that beam search and sampling among the best need. 0: none; at most [`MOST_TOP`].
    pub top: usize,
}

/// The most that can be asked for by [`Input::top`].
pub const MOST_TOP: usize = 64;

/// Which of an input's new positions an output covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Positions {
    /// None.
    #[default]
    None,
    /// The last alone.
    Last,
    /// All `T`, in order.
    All,
}

/// What a forward pass returns: for each input in turn, the positions asked for, one after the other.
#[derive(Debug, Clone, Default)]
pub struct Output {
    /// Logits, (wanted positions, V), row-major.
    pub logits: Vec<f32>,
    /// The most probable token at each wanted position, the first one if there are several; none if the logits are not
    /// finite numbers.
    pub best: Vec<Option<u32>>,
    /// Hidden states after the final norm, (wanted positions, C), row-major.
    pub hidden: Vec<f32>,
    /// The most probable tokens, for each input that asks for some; none if the logits are not finite numbers.
    pub top: Vec<Option<Top>>,
}

/// The most probable next tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Top {
    /// Ids and logits, the best first, equal ones by id.
    pub best: Vec<(u32, f32)>,
    /// The logarithm of the sum of `e^(x - largest)` over all logits `x`.
    pub log_sum: f32,
}

impl Top {
    /// Of a row of logits (V); none if they are not finite numbers.
    #[must_use]
    pub fn of(logits: &[f32], k: usize) -> Option<Self> {
        numeric::check_finite(logits).ok()?;
        let best = numeric::top_k(logits, k).into_iter().map(|(id, x)| (id as u32, x)).collect();
        Some(Self { best, log_sum: numeric::log_sum(logits) })
    }

    /// Log-probabilities of the tokens.
    pub(crate) fn log_probs(&self) -> impl Iterator<Item = (u32, f32)> {
        let largest = self.best.first().map_or(0.0, |(_, x)| *x);
        self.best.iter().map(move |(id, x)| (*id, x - largest - self.log_sum))
    }
}
