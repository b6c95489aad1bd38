//! What a pass records for inspection.

use super::gpu::Memory;
use super::{Network, no_hooks};
use crate::error::Result;
use crate::model::{Hook, HookPoint, Recorder, Segment};

const FLOAT: usize = size_of::<f32>();

/// What a pass records for inspection, in f32.
pub struct Record {
    /// (N, C).
    pub embed: Memory,
    /// (N, C) after each block.
    pub hidden: Vec<Memory>,
    /// For each layer whose probabilities are wanted, (H, T, S) of each segment.
    pub attention: Vec<Option<Memory>>,
    /// Where each segment's probabilities begin, counted in numbers.
    pub starts: Vec<(usize, Segment)>,
}

impl Network {
    pub fn record_rows(&self, rows: usize, x: u64, to: &Memory, first: usize) -> Result<()> {
        let width = self.shape.width;
        self.copy_rows(rows, (x, self.shape.padded), (to.address() + (first * width * FLOAT) as u64, width))
    }

    /// Allocates what a trace wants for the segments.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for what is inside a block, except attention's probabilities.
    pub fn record(&self, trace: &dyn Recorder, segments: &[Segment]) -> Result<Record> {
        let is_kept = |point: &HookPoint| match point.hook {
            Hook::ResidPre => point.layer == 0,
            hook => matches!(hook, Hook::Pattern | Hook::ResidPost),
        };
        let points = (0..self.shape.layers).flat_map(|layer| Hook::ALL.map(|hook| HookPoint { layer, hook }));
        if let Some(point) = points.filter(|point| trace.wants(*point)).find(|point| !is_kept(point)) {
            return Err(no_hooks(&format!("record {point}")));
        }
        let tokens: usize = segments.iter().map(|s| s.len).sum();
        let rows = || self.gpu.zeros(tokens * self.shape.width * FLOAT);
        let mut starts = vec![];
        let mut numbers = 0;
        for s in segments {
            starts.push((numbers, *s));
            numbers += self.shape.heads * s.len * s.total();
        }
        let attention = |layer| {
            let wanted = trace.wants(HookPoint { layer, hook: Hook::Pattern });
            wanted.then(|| self.gpu.zeros(numbers * FLOAT)).transpose()
        };
        Ok(Record {
            embed: rows()?,
            hidden: (0..self.shape.layers).map(|_| rows()).collect::<Result<_>>()?,
            attention: (0..self.shape.layers).map(attention).collect::<Result<_>>()?,
            starts,
        })
    }

    /// Moves the recording into the trace.
    pub fn keep(&self, trace: &mut dyn Recorder, record: Record, tokens: usize) -> Result<()> {
        let shape = (tokens, self.shape.width);
        let embed = HookPoint { layer: 0, hook: Hook::ResidPre };
        if trace.wants(embed) {
            trace.record(embed, vec![self.gpu.tensor(record.embed, shape)?])?;
        }
        for (layer, hidden) in record.hidden.into_iter().enumerate() {
            let after = HookPoint { layer, hook: Hook::ResidPost };
            if trace.wants(after) {
                trace.record(after, vec![self.gpu.tensor(hidden, shape)?])?;
            }
        }
        for (layer, weights) in record.attention.into_iter().enumerate() {
            let Some(weights) = weights else { continue };
            let of_segment = |(start, s): &(usize, Segment)| {
                let shape = (self.shape.heads, s.len, s.total());
                let bytes = shape.0 * shape.1 * shape.2 * FLOAT;
                let own = self.gpu.zeros(bytes)?;
                self.gpu.copy((&weights, start * FLOAT), (&own, 0), bytes)?;
                self.gpu.tensor(own, shape)
            };
            let tensors = record.starts.iter().map(of_segment).collect::<Result<_>>()?;
            trace.record(HookPoint { layer, hook: Hook::Pattern }, tensors)?;
        }
        Ok(())
    }
}

impl Record {
    /// Where the probabilities of a segment's queries from `position` on begin, and the distances to the next query's
    /// and the next head's.
    pub fn place(&self, segment: usize, position: usize) -> (usize, usize, usize) {
        let (start, s) = &self.starts[segment];
        (start + (position - s.past) * s.total(), s.total(), s.len * s.total())
    }

    /// Where the probabilities of a layer go; 0 if they are not wanted.
    pub fn weights(&self, layer: usize) -> u64 {
        self.attention[layer].as_ref().map_or(0, Memory::address)
    }
}
