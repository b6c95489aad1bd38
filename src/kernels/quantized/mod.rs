//! Weights as small integers in blocks with a scale, as ggml defines them, packed when they are loaded.
//!
//! Activations are rounded to 8 bits, 32 with one scale, so that the products are of integers, which processors
//! multiply four times as fast as floating-point numbers; and 4 or 8 bits a weight are read in a fraction of the time
//! of 32.
//!
//! Reference: ggml, `ggml-common.h` and `ggml-quants.c`.

mod activations;
mod convert;
mod format;
mod level;
mod packed;
mod panel;
mod product;
mod registers;
mod row;
mod tiles;

pub use convert::{dequantize, quantize};
pub use packed::pack;
pub use product::matmul;

use super::simd::LANES;
use crate::checkpoint::{Bytes, StorageType};

/// The formats that have a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuantizedType {
    /// 8 bits in blocks of 32: 8.5 bits a weight.
    Q8_0,
    /// 6 bits in blocks of 256: 6.56 bits a weight.
    Q6K,
    /// 5 bits in blocks of 256: 5.5 bits a weight.
    Q5K,
    /// 4 bits in blocks of 256: 4.5 bits a weight.
    Q4K,
}

impl QuantizedType {
    /// The format as checkpoints name it.
    #[must_use]
    pub fn storage(self) -> StorageType {
        match self {
            Self::Q8_0 => StorageType::Q8_0,
            Self::Q6K => StorageType::Q6K,
            Self::Q5K => StorageType::Q5K,
            Self::Q4K => StorageType::Q4K,
        }
    }

    /// The type of a matrix whose rows have `inputs` numbers and which shall be quantised: this one, or `Q8_0` where
    /// they are not whole blocks of it, or `F16` where they are not whole blocks of that either. (llama.cpp does the
    /// same.)
    #[must_use]
    pub fn fitting(self, inputs: usize) -> StorageType {
        let fits = |dtype: &StorageType| inputs.is_multiple_of(dtype.block_len());
        [self.storage(), StorageType::Q8_0].into_iter().find(fits).unwrap_or(StorageType::F16)
    }

    /// The format in which a checkpoint stores a tensor, if it has a kernel.
    #[must_use]
    pub fn of(storage: StorageType) -> Option<Self> {
        [Self::Q8_0, Self::Q6K, Self::Q5K, Self::Q4K].into_iter().find(|kind| kind.storage() == storage)
    }
}

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
        let len = kind.storage().byte_len(&[outputs, inputs]);
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
        dequantize(self.kind.storage(), &bytes, out);
    }
}

#[cfg(test)]
mod tests;
