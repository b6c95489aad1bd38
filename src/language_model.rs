//! What decoding needs from a model, and how to ask for a forward pass: rows of tokens in, logits out.
//!
//! The network implements [`LanguageModel`]; decoding strategies and their tests know nothing else about it.

use crate::error::Result;
use crate::logits::Top;

/// What decoding needs from a model: ids in, logits out, over rows that each keep their own past.
///
/// A row is a sequence with its cached positions. Rows are numbered from 0, start out empty when first named, and may
/// have any mix of lengths: the output for a row never depends on the other rows of a call.
pub trait LanguageModel {
    /// `V`, the length of a row of logits.
    fn vocab_size(&self) -> usize;

    /// The most positions a row can hold.
    fn n_positions(&self) -> usize;

    /// The number of positions that `row` holds.
    fn len(&self, row: usize) -> usize;

    /// What runs take of the memory, and how much is left of it now. Unknown unless a model says it.
    fn room(&self) -> Room {
        Room::default()
    }

    /// Appends each input's ids to its row and runs the network over all of them in one pass. No two inputs may name
    /// the same row.
    ///
    /// # Errors
    /// If a row would outgrow the context, an id is outside the vocabulary, or the device fails.
    fn forward(&mut self, inputs: &[Input<'_>]) -> Result<Output>;

    /// Drops the positions of `row` from `len` on.
    fn truncate(&mut self, row: usize, len: usize);

    /// Empties all rows and frees the memory that is kept for later passes.
    fn release(&mut self) {}

    /// Makes each `to` hold what `from` held before the call; `moves` are `(to, from)` and happen simultaneously. Other
    /// rows stay as they are. Copies share storage until one of them is written.
    fn assign(&mut self, moves: &[(usize, usize)]);
}

/// What runs of a model take of the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// Bytes that are left; none if that is unknown.
    pub left: Option<u64>,
    /// What sets the limit, in words.
    pub limit: &'static str,
    /// Bytes of a page of the cache.
    pub page_bytes: u64,
    /// Positions of a page.
    pub page_positions: usize,
    /// Bytes of a new position while a pass runs over it.
    pub position_bytes: u64,
}

impl Room {
    /// Bytes of the pages that a row of `positions` takes.
    #[must_use]
    pub fn cache_bytes(&self, positions: usize) -> u64 {
        (positions.div_ceil(self.page_positions.max(1)) as u64).saturating_mul(self.page_bytes)
    }
}

/// New tokens for one row, and the outputs wanted for them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Input<'a> {
    /// The row.
    pub row: usize,
    /// `T` new ids, at least one.
    pub ids: &'a [u32],
    /// The new positions to return logits for.
    pub logits: Positions,
    /// The new positions to return the most probable next token for: all that greedy search needs, and far less to copy
    /// from a GPU than logits.
    pub best: Positions,
    /// The new positions to return the last hidden state (after the final norm) for.
    pub hidden: Positions,
    /// How many of the most probable next tokens to return for the last new position, with what their log-probabilities
    /// need: all that beam search and top-k sampling need. 0 for none, at most [`MOST_TOP`].
    pub top: usize,
}

impl<'a> Input<'a> {
    /// `ids` for `row`, asking for the logits after the last of them.
    #[must_use]
    pub fn logits(row: usize, ids: &'a [u32]) -> Self {
        Self { row, ids, logits: Positions::Last, ..Self::default() }
    }

    /// `ids` for `row`, asking for the most probable token after the last of them.
    #[must_use]
    pub fn best(row: usize, ids: &'a [u32]) -> Self {
        Self { row, ids, best: Positions::Last, ..Self::default() }
    }
}

/// The largest [`Input::top`].
pub const MOST_TOP: usize = 64;

/// Which of an input's new positions an output covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Positions {
    /// None.
    #[default]
    None,
    /// Only the last.
    Last,
    /// All `T`, in order.
    All,
}

/// The results of a forward pass: for each input in turn, the positions asked for, in order.
#[derive(Debug, Clone, Default)]
pub struct Output {
    /// Logits, (wanted positions, V), row-major.
    pub logits: Vec<f32>,
    /// The most probable token at each wanted position, the first of equals; `None` if the logits are not finite.
    pub best: Vec<Option<u32>>,
    /// Hidden states after the final norm, (wanted positions, C), row-major.
    pub hidden: Vec<f32>,
    /// The most probable tokens, for each input that asks for them; `None` if the logits are not finite.
    pub top: Vec<Option<Top>>,
}
