//! (out, in) weights in blocks, packed into panels: of 16 outputs at a time, so that four bytes of each are one vector in
//! memory.
//!
//! A block as it is stored is some bytes in fours, and in some formats an f16 that leaves a rest of two: the scale of the
//! block. A panel has, block by block, the first four bytes of every output, then the next four, and so on, and then the f16
//! of every output: one run of memory, not a byte longer than the rows themselves. Outputs beyond the last are zeros.

use crate::base::QuantizedType;
use crate::base::simd::LANES;

/// Outputs of a panel: a vector.
pub const PANEL: usize = LANES;

/// Outputs of two panels, which many rows are multiplied with together: a matrix is filled up to a multiple.
pub const PAIR: usize = 2 * PANEL;

impl QuantizedType {
    /// Where in a stored block the f16 lies that leaves a rest of two bytes.
    fn lone_half(self) -> Option<usize> {
        match self {
            Self::Q8_0 => Some(0),
            Self::Q6K => Some(208),
            Self::Q5K | Self::Q4K => None,
        }
    }

    /// Bytes that a matrix of `inputs` and `outputs` takes when it is packed; none if its rows are no whole blocks, or if
    /// the number does not fit a `usize`.
    #[must_use]
    pub fn packed_bytes(self, inputs: usize, outputs: usize) -> Option<usize> {
        self.dtype().byte_len(&[outputs.checked_next_multiple_of(PAIR)?, inputs])
    }
}

/// How a stored block lies in a packed one.
struct BlockParts {
    /// Bytes of a block.
    size: usize,
    /// Where its fours begin, and how many there are.
    fours: (usize, usize),
    /// Where the lone f16 lies.
    half: Option<usize>,
}

impl BlockParts {
    fn of(kind: QuantizedType) -> Self {
        let (size, half) = (kind.dtype().block_bytes(), kind.lone_half());
        let start = if half == Some(0) { 2 } else { 0 };
        Self { size, fours: (start, size / 4), half }
    }
}

/// Packs up to 16 rows, as they are stored, into a panel, which holds zeros.
pub fn pack(kind: QuantizedType, row_bytes: usize, rows: &[u8], panel: &mut [u8]) {
    let BlockParts { size, fours: (first, fours), half } = BlockParts::of(kind);
    for (i, block) in panel.chunks_exact_mut(size * LANES).enumerate() {
        let (vectors, halves) = block.split_at_mut(fours * 4 * LANES);
        let vectors = vectors.as_chunks_mut::<4>().0.as_chunks_mut::<LANES>().0;
        for (lane, row) in rows.chunks_exact(row_bytes).enumerate().take(LANES) {
            let stored = &row[i * size..][..size];
            for (vector, four) in vectors.iter_mut().zip(stored[first..].as_chunks().0) {
                vector[lane] = *four;
            }
            if let Some(half) = half {
                halves[2 * lane..][..2].copy_from_slice(&stored[half..][..2]);
            }
        }
    }
}

/// Writes blocks of the (out, in) matrix from block `first` on, as many as `out` holds.
pub(super) fn unpack(kind: QuantizedType, inputs: usize, packed: &[u8], first: usize, out: &mut [u8]) {
    let (size, row_blocks) = (kind.dtype().block_bytes(), inputs / kind.dtype().block_len());
    for (at, out) in (first..).zip(out.chunks_exact_mut(size)) {
        let (row, place) = (at / row_blocks, at % row_blocks);
        let block = &packed[(row / PANEL * row_blocks + place) * size * PANEL..][..size * PANEL];
        unpack_block(kind, block, row % PANEL, out);
    }
}

/// A row of a panel as it was stored.
pub fn unpack_row(kind: QuantizedType, panel: &[u8], row: usize) -> Vec<u8> {
    let size = kind.dtype().block_bytes();
    let mut out = vec![0; panel.len() / LANES];
    for (block, out) in panel.chunks_exact(size * LANES).zip(out.chunks_exact_mut(size)) {
        unpack_block(kind, block, row, out);
    }
    out
}

/// The block of row `row` in a block of a panel.
fn unpack_block(kind: QuantizedType, block: &[u8], row: usize, out: &mut [u8]) {
    let BlockParts { fours: (first, fours), half, .. } = BlockParts::of(kind);
    let (vectors, halves) = block.split_at(fours * 4 * LANES);
    let vectors = vectors.as_chunks::<4>().0.as_chunks::<LANES>().0;
    for (four, vector) in out[first..].as_chunks_mut().0.iter_mut().zip(vectors) {
        *four = vector[row];
    }
    if let Some(half) = half {
        out[half..half + 2].copy_from_slice(&halves[2 * row..][..2]);
    }
}
