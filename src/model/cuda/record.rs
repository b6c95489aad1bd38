//! What a pass records for inspection.

use super::Network;
use super::gpu::Memory;
use crate::error::Result;
use crate::model::{Segment, Trace};

const FLOAT: usize = size_of::<f32>();

/// What a pass records for inspection, in f32.
pub struct Record {
    /// (N, C).
    pub embed: Memory,
    /// (N, C) after each block.
    pub hidden: Vec<Memory>,
    /// For each traced layer, (H, T, S) of each segment.
    pub attention: Vec<Memory>,
    pub first_layer: usize,
    /// Where each segment's probabilities begin, counted in numbers.
    pub starts: Vec<(usize, Segment)>,
}

impl Network {
    pub fn record_rows(&self, rows: usize, x: u64, to: &Memory, first: usize) -> Result<()> {
        let width = self.shape.width;
        self.copy_rows(rows, (x, self.shape.padded), (to.address() + (first * width * FLOAT) as u64, width))
    }

    /// Allocates what a trace wants for the segments.
    pub fn record(&self, trace: &Trace, segments: &[Segment]) -> Result<Record> {
        let tokens: usize = segments.iter().map(|s| s.len).sum();
        let rows = || self.gpu.zeros(tokens * self.shape.width * FLOAT);
        let mut starts = vec![];
        let mut numbers = 0;
        for s in segments {
            starts.push((numbers, *s));
            numbers += self.shape.heads * s.len * s.total();
        }
        let traced =
            trace.attention_layers.start.min(self.shape.layers)..trace.attention_layers.end.min(self.shape.layers);
        Ok(Record {
            embed: rows()?,
            hidden: (0..self.shape.layers).map(|_| rows()).collect::<Result<_>>()?,
            first_layer: traced.start,
            attention: traced.map(|_| self.gpu.zeros(numbers * FLOAT)).collect::<Result<_>>()?,
            starts,
        })
    }

    /// Moves the recording into the trace.
    pub fn keep(&self, trace: &mut Trace, record: Record, tokens: usize) -> Result<()> {
        let shape = (tokens, self.shape.width);
        trace.embed = Some(self.gpu.tensor(record.embed, shape)?);
        for hidden in record.hidden {
            trace.hidden.push(self.gpu.tensor(hidden, shape)?);
        }
        for layer in record.attention {
            for (start, s) in &record.starts {
                let shape = (self.shape.heads, s.len, s.total());
                let bytes = shape.0 * shape.1 * shape.2 * FLOAT;
                let own = self.gpu.zeros(bytes)?;
                self.gpu.copy((&layer, start * FLOAT), (&own, 0), bytes)?;
                trace.attention.push(self.gpu.tensor(own, shape)?);
            }
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
        layer.checked_sub(self.first_layer).and_then(|i| self.attention.get(i)).map_or(0, Memory::address)
    }
}
