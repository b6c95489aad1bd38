//! The keys and values of past positions on a device.
//!
//! A layer's keys are one tensor (R, H, P, D), and so are its values: rows, heads, room for positions. Batched products
//! run over any adjacent rows, and over as many positions as these hold, without a copy. Room grows in steps. When
//! beams are reassigned, their rows move in the next pass, all at once.

use candle_core::Tensor;

use super::Place;
use super::view::AttentionShape;
use crate::config::Config;
use crate::error::Result;
use crate::model::network::{self, Segment};

/// Room for positions grows in multiples of this number.
const STEP: usize = 128;

/// A cache for any number of rows.
#[derive(Debug)]
pub struct Cache {
    pub(super) shape: AttentionShape,
    pub(super) place: Place,
    n_layer: usize,
    rows: Vec<Row>,
    /// Keys and values of each layer, (R, H, P, D); none before the first pass or while all rows are empty.
    pub(super) layers: Vec<[Tensor; 2]>,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    len: usize,
    /// The index of its positions among the rows of the tensors; another row's slot after an assignment.
    slot: usize,
}

impl Cache {
    /// An empty cache.
    pub fn new(config: &Config, place: &Place) -> Self {
        let shape = AttentionShape { heads: config.n_head, head_dim: config.head_dim() };
        let (n_layer, place) = (config.n_layer, place.clone());
        Self { shape, place, n_layer, rows: vec![], layers: vec![] }
    }

    /// Creates `row` and all rows before it.
    fn create(&mut self, row: usize) {
        self.rows.extend((self.rows.len()..=row).map(|slot| Row { len: 0, slot }));
    }

    /// Makes room for new positions; lengths only change with [`commit`](Self::commit).
    pub fn make_room(&mut self, segments: &[Segment]) -> Result<()> {
        segments.iter().for_each(|s| self.create(s.row));
        let positions = segments.iter().map(Segment::total).max().unwrap_or(0);
        if self.layers.is_empty() {
            let shape = (self.rows.len(), self.shape.heads, positions.next_multiple_of(STEP), self.shape.head_dim);
            let zeros = || Tensor::zeros(shape, self.place.dtype, &self.place.device);
            self.layers = (0..self.n_layer).map(|_| Ok([zeros()?, zeros()?])).collect::<Result<_>>()?;
        } else {
            self.rearrange(positions)?;
            segments.iter().filter(|s| s.past == 0).try_for_each(|s| self.clear(s.row))?;
        }
        self.rows.iter_mut().enumerate().for_each(|(i, row)| row.slot = i);
        Ok(())
    }

    /// Moves every row to its own slot, and makes room for `positions`.
    fn rearrange(&mut self, positions: usize) -> Result<()> {
        let (rows, _, room, _) = self.layers[0][0].dims4()?;
        // A new row is empty, so it may come from anywhere.
        let slots: Vec<u32> = self.rows.iter().map(|row| row.slot.min(rows - 1) as u32).collect();
        let moved = slots.len() != rows || slots.iter().enumerate().any(|(i, slot)| i != *slot as usize);
        let slots = Tensor::new(slots, &self.place.device)?;
        let more = positions.next_multiple_of(STEP).saturating_sub(room);
        if !moved && more == 0 {
            return Ok(());
        }
        let arranged = |old: &Tensor| -> Result<Tensor> {
            let old = if moved { old.index_select(&slots, 0)? } else { old.clone() };
            Ok(if more > 0 { old.pad_with_zeros(2, 0, more)? } else { old })
        };
        let layers = self.layers.iter().map(|[k, v]| Ok([arranged(k)?, arranged(v)?]));
        // Only a full set replaces the old one: an error leaves everything unchanged.
        self.layers = layers.collect::<Result<_>>()?;
        Ok(())
    }

    /// Clears the numbers of a row that starts over: products with longer rows read them, and a weight of 0 does not
    /// hide NaN.
    fn clear(&self, row: usize) -> Result<()> {
        for tensor in self.layers.iter().flatten() {
            tensor.narrow(0, row, 1)?.zero_set()?;
        }
        Ok(())
    }

    /// Makes the new positions part of their rows.
    pub fn commit(&mut self, segments: &[Segment]) {
        for s in segments {
            self.rows[s.row].len = s.total();
        }
    }
}

impl network::Cache for Cache {
    fn len(&self, row: usize) -> usize {
        self.rows.get(row).map_or(0, |row| row.len)
    }

    /// Frees the memory once no row holds anything.
    fn truncate(&mut self, row: usize, len: usize) {
        if let Some(row) = self.rows.get_mut(row) {
            row.len = row.len.min(len);
        }
        if self.rows.iter().all(|row| row.len == 0) {
            self.rows.clear();
            self.layers.clear();
        }
    }

    /// The numbers move in the next pass, which can report a lack of memory.
    fn assign(&mut self, moves: &[(usize, usize)]) {
        if let Some(last) = moves.iter().map(|(to, from)| *to.max(from)).max() {
            self.create(last);
        }
        let before = self.rows.clone();
        for (to, from) in moves {
            self.rows[*to] = before[*from];
        }
    }
}
