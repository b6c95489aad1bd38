//! What decoding needs of a model, and how a forward pass is asked for: rows of tokens in, logits out.
//!
//! The network implements [`LanguageModel`]; decoding strategies and their tests know nothing else of it.

use crate::error::Result;
use crate::logits::Top;

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

impl<'a> Input<'a> {
    /// `ids` for `row`, and the logits that follow the last of them.
    #[must_use]
    pub fn logits(row: usize, ids: &'a [u32]) -> Self {
        Self { row, ids, logits: Positions::Last, ..Self::default() }
    }

    /// `ids` for `row`, and the most probable token after the last of them.
    #[must_use]
    pub fn best(row: usize, ids: &'a [u32]) -> Self {
        Self { row, ids, best: Positions::Last, ..Self::default() }
    }
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
