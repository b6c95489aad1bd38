//! Weights as small integers in blocks with a scale, as ggml defines them, packed when they are loaded.
//!
//! Activations are rounded to 8 bits, 32 with one scale, so that the products are of integers, which processors
//! multiply four times as fast as floating-point numbers; and 4 or 8 bits a weight are read in a fraction of the time
//! of 32.
//!
//! Reference: ggml, `ggml-common.h` and `ggml-quants.c`.

mod activations;
mod format;
mod level;
mod packed;
mod panel;
mod product;
mod registers;
mod row;
mod tiles;

pub use packed::pack;
pub use product::matmul;

use super::simd::LANES;
use crate::base::{Bytes, QuantizedType, ggml};

/// Rows that are packed together.
pub const GROUP: usize = LANES;

/// A quantised weight matrix: (out, in), rows of whole blocks, packed.
#[derive(Debug, Clone)]
pub struct QuantizedMatrix {
    bytes: Bytes,
    kind: QuantizedType,
    inputs: usize,
    outputs: usize,
}

impl QuantizedMatrix {
    /// Packs `rows`, which must hold `outputs` rows of `inputs` numbers as they are stored.
    ///
    /// # Panics
    /// If the length is wrong: loading checks it.
    #[must_use]
    pub fn new(rows: &[u8], kind: QuantizedType, inputs: usize, outputs: usize) -> Self {
        let len = kind.dtype().byte_len(&[outputs, inputs]);
        assert_eq!(Some(rows.len()), len, "length of a quantised matrix");
        let row_bytes = rows.len() / outputs.max(1);
        let mut packed = vec![0; outputs.next_multiple_of(packed::WIDTH) * row_bytes];
        for (rows, group) in rows.chunks(GROUP * row_bytes).zip(packed.chunks_mut(GROUP * row_bytes)) {
            pack(kind, row_bytes, rows, group);
        }
        Self::packed(packed.into(), kind, inputs, outputs)
    }

    /// A matrix over `bytes` that were [packed](pack). They need no alignment.
    ///
    /// # Panics
    /// If the length is wrong: loading checks it.
    #[must_use]
    pub fn packed(bytes: Bytes, kind: QuantizedType, inputs: usize, outputs: usize) -> Self {
        assert_eq!(Some(bytes.len()), kind.packed_bytes(inputs, outputs), "length of a packed matrix");
        Self { bytes, kind, inputs, outputs }
    }

    /// Sixteen rows, packed.
    fn group(&self, i: usize) -> &[u8] {
        let bytes = GROUP * (self.bytes.len() / self.outputs.next_multiple_of(packed::WIDTH));
        &self.bytes[i * bytes..(i + 1) * bytes]
    }

    /// `K`, the length of an input row.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// `N`, the length of an output row.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The format.
    #[must_use]
    pub fn kind(&self) -> QuantizedType {
        self.kind
    }

    /// Bytes that the matrix takes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Writes row `row`, as numbers, into `out`: an embedding's vector.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        let bytes = packed::unpack_row(self.kind, self.group(row / GROUP), row % GROUP);
        ggml::dequantize(self.kind.dtype(), &bytes, out).expect("a matrix has rows of whole blocks");
    }
}

#[cfg(test)]
mod tests;
