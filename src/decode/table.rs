//! A language model for tests: logits are a function of a row's ids, and misuse of the interface fails loudly.

use crate::error::{Error, Result};
use crate::language_model::{Input, LanguageModel, Output, Positions, Room};
use crate::logits::{self, Top};

/// A model without a network.
pub(super) struct TableModel<F> {
    vocab_size: usize,
    n_positions: usize,
    /// The logits (V) after a non-empty row of ids.
    logits: F,
    rows: Vec<Vec<u32>>,
    /// Forward passes so far.
    pub passes: usize,
    /// What it says about memory.
    pub room: Room,
    /// The most positions that all rows together can hold.
    pub capacity: usize,
    /// Whether the new positions of the widest pass stay taken until it is released.
    pub keeps: bool,
    kept: usize,
}

/// A number in [-1, 1) that depends on all of `seeds`.
pub(super) fn hash(seeds: impl IntoIterator<Item = u32>) -> f32 {
    let mix = |h: u64, x: u32| (h ^ u64::from(x)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    let h = seeds.into_iter().fold(0x1234_5678, mix).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (h >> 40) as f32 / (1 << 23) as f32 - 1.0
}

impl<F: Fn(&[u32]) -> Vec<f32>> TableModel<F> {
    pub fn new(vocab_size: usize, n_positions: usize, logits: F) -> Self {
        let (room, capacity) = (Room::default(), usize::MAX);
        Self { vocab_size, n_positions, logits, rows: vec![], passes: 0, room, capacity, keeps: false, kept: 0 }
    }

    /// The logits (V) after `ids`.
    pub fn logits(&self, ids: &[u32]) -> Vec<f32> {
        (self.logits)(ids)
    }

    fn row(&mut self, row: usize) -> &mut Vec<u32> {
        if self.rows.len() <= row {
            self.rows.resize(row + 1, vec![]);
        }
        &mut self.rows[row]
    }
}

/// A model whose logits depend on all ids of the row and their positions, mostly on the last two.
pub(super) fn scrambled(vocab_size: usize, n_positions: usize, seed: u32) -> TableModel<impl Fn(&[u32]) -> Vec<f32>> {
    TableModel::new(vocab_size, n_positions, move |ids: &[u32]| {
        let all = hash(ids.iter().copied().chain([seed]));
        let near = &ids[ids.len().saturating_sub(2)..];
        let local = |id: u32| hash(near.iter().copied().chain([seed, id]));
        (0..vocab_size as u32).map(|id| 4.0 * local(id) + hash([(all * 1e6) as i32 as u32, id])).collect()
    })
}

impl<F: Fn(&[u32]) -> Vec<f32>> LanguageModel for TableModel<F> {
    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn n_positions(&self) -> usize {
        self.n_positions
    }

    fn len(&self, row: usize) -> usize {
        self.rows.get(row).map_or(0, Vec::len)
    }

    fn room(&self) -> Room {
        self.room
    }

    fn forward(&mut self, inputs: &[Input<'_>]) -> Result<Output> {
        self.passes += 1;
        let held: usize = self.rows.iter().map(Vec::len).sum();
        let new = inputs.iter().map(|input| input.ids.len()).sum();
        if self.keeps {
            self.kept = self.kept.max(new);
        }
        if held + new + self.kept > self.capacity {
            return Err(Error::OutOfMemory("the table is full".into()));
        }
        let mut output = Output::default();
        for (place, input) in inputs.iter().enumerate() {
            assert!(inputs[..place].iter().all(|other| other.row != input.row), "row {} twice", input.row);
            assert!(!input.ids.is_empty(), "row {} gets no ids", input.row);
            let (vocab_size, n_positions) = (self.vocab_size, self.n_positions);
            for (i, &id) in input.ids.iter().enumerate() {
                assert!((id as usize) < vocab_size, "id {id} is outside the vocabulary");
                self.row(input.row).push(id);
                let ids = self.rows[input.row].clone();
                assert!(ids.len() <= n_positions, "row {} outgrows the context", input.row);
                let wanted = |positions| match positions {
                    Positions::None => false,
                    Positions::Last => i + 1 == input.ids.len(),
                    Positions::All => true,
                };
                if wanted(input.logits) {
                    output.logits.extend((self.logits)(&ids));
                }
                if wanted(input.best) {
                    let logits = (self.logits)(&ids);
                    let finite = logits::check_finite(&logits).is_ok();
                    output.best.push(finite.then(|| logits::argmax(&logits) as u32));
                }
                if input.top > 0 && i + 1 == input.ids.len() {
                    output.top.push(Top::of(&(self.logits)(&ids), input.top));
                }
                if wanted(input.hidden) {
                    output.hidden.extend((0..5).map(|c| hash([id, ids.len() as u32, c])));
                }
            }
        }
        Ok(output)
    }

    fn truncate(&mut self, row: usize, len: usize) {
        self.row(row).truncate(len);
    }

    fn release(&mut self) {
        self.rows.clear();
        self.kept = 0;
    }

    fn assign(&mut self, moves: &[(usize, usize)]) {
        let before: Vec<Vec<u32>> = moves.iter().map(|&(_, from)| self.row(from).clone()).collect();
        for (&(to, _), ids) in moves.iter().zip(before) {
            *self.row(to) = ids;
        }
    }
}
