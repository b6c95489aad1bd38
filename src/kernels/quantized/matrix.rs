//! A quantised matrix.

use super::convert::dequantize;
use super::panels::{PAIR, PANEL, pack, unpack_row};
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

/// A quantised weight matrix: (out, in), rows of whole blocks, packed in [panels](super::panels).
#[derive(Debug, Clone)]
pub struct QuantizedMatrix {
    bytes: Bytes,
    dtype: QuantizedType,
    inputs: usize,
    outputs: usize,
    /// Bytes of a panel.
    panel_bytes: usize,
}

impl QuantizedMatrix {
    /// Packs `rows`, which must hold `outputs` rows of `inputs` numbers as they are stored.
    ///
    /// # Panics
    /// If the length is wrong: loading checks it.
    #[must_use]
    pub fn new(rows: &[u8], dtype: QuantizedType, inputs: usize, outputs: usize) -> Self {
        let len = dtype.storage().byte_len(&[outputs, inputs]);
        assert_eq!(Some(rows.len()), len, "length of a quantised matrix");
        let row_bytes = rows.len() / outputs.max(1);
        let mut packed = vec![0; outputs.next_multiple_of(PAIR) * row_bytes];
        for (rows, panel) in rows.chunks(PANEL * row_bytes).zip(packed.chunks_mut(PANEL * row_bytes)) {
            pack(dtype, row_bytes, rows, panel);
        }
        Self::packed(packed.into(), dtype, inputs, outputs)
    }

    /// A matrix over `bytes` that were [packed](pack). They need no alignment.
    ///
    /// # Panics
    /// If the length is wrong: loading checks it.
    #[must_use]
    pub fn packed(bytes: Bytes, dtype: QuantizedType, inputs: usize, outputs: usize) -> Self {
        assert_eq!(Some(bytes.len()), dtype.packed_bytes(inputs, outputs), "length of a packed matrix");
        let panels = outputs.next_multiple_of(PAIR) / PANEL;
        Self { panel_bytes: bytes.len() / panels.max(1), bytes, dtype, inputs, outputs }
    }

    /// The bytes of panel `i`: there are panels for an even number of times 16 outputs.
    pub(super) fn panel(&self, i: usize) -> &[u8] {
        &self.bytes[i * self.panel_bytes..][..self.panel_bytes]
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
    pub fn dtype(&self) -> QuantizedType {
        self.dtype
    }

    /// Bytes that the matrix takes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Writes row `row`, as numbers, into `out`: an embedding's vector.
    ///
    /// # Panics
    /// If there is no such row, or the length is another.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.outputs, "a row of a matrix");
        let bytes = unpack_row(self.dtype, self.panel(row / PANEL), row % PANEL);
        dequantize(self.dtype.storage(), &bytes, out);
    }
}
