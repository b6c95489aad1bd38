//! A quantised matrix.

use super::panels::{PAIR, PANEL, pack, unpack_row};
use crate::base::{Bytes, QuantizedType, ggml};

/// A quantised weight matrix: (out, in), rows of whole blocks, packed in panels.
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
        let len = dtype.dtype().byte_len(&[outputs, inputs]);
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
        ggml::dequantize(self.dtype.dtype(), &bytes, out).expect("a matrix has rows of whole blocks");
    }
}
