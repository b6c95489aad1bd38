//! A model with its own cache, as decoding sees it.

use super::{Gpt2, KvCache};
use crate::error::Result;
use crate::language_model::{Input, LanguageModel, Output, Room};

/// A run of a model: rows with their past. Implements [`LanguageModel`].
#[derive(Debug)]
pub struct Session<'m> {
    model: &'m Gpt2,
    cache: KvCache,
}

impl<'m> Session<'m> {
    /// A session without rows.
    #[must_use]
    pub fn new(model: &'m Gpt2) -> Self {
        Self { model, cache: model.new_cache() }
    }
}

impl LanguageModel for Session<'_> {
    fn vocab_size(&self) -> usize {
        self.model.config.vocab_size
    }

    fn n_positions(&self) -> usize {
        self.model.config.n_positions
    }

    fn len(&self, row: usize) -> usize {
        self.cache.len(row)
    }

    fn room(&self) -> Room {
        self.model.room()
    }

    fn forward(&mut self, inputs: &[Input<'_>]) -> Result<Output> {
        self.model.run(inputs, &mut self.cache)
    }

    fn truncate(&mut self, row: usize, len: usize) {
        self.cache.truncate(row, len);
    }

    fn release(&mut self) {
        self.cache = self.model.new_cache();
    }

    fn assign(&mut self, moves: &[(usize, usize)]) {
        self.cache.assign(moves);
    }
}
