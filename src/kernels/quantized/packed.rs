//! Quantised weights packed for the kernels: 16 rows together, so that four bytes of each are one vector in memory.
//!
//! A stored block is some bytes in fours, and in some formats an f16 that leaves a rest of two: the scale of the block.
//! A group of 16 rows has, block by block, the first four bytes of every row, then the next four, and so on, and then the
//! f16 of every row: one run of memory, not a byte longer than the rows themselves. Rows beyond the last output are zeros.

use super::QuantizedType;
use crate::kernels::simd::LANES;

/// Outputs that a matrix is filled up to.
pub(super) const WIDTH: usize = 2 * LANES;

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
        self.storage().byte_len(&[outputs.checked_next_multiple_of(WIDTH)?, inputs])
    }
}

/// Where the bytes of a stored row lie in its group: calls `f` with the range in the row and the start in the group.
fn each_part(kind: QuantizedType, row_bytes: usize, row: usize, mut f: impl FnMut(std::ops::Range<usize>, usize)) {
    let (size, half) = (kind.storage().block_bytes(), kind.lone_half());
    let (fours, blocks) = (size / 4, row_bytes / size);
    for block in 0..blocks {
        let start = block * size;
        for i in 0..fours {
            let at = start + 4 * i + if half == Some(0) { 2 } else { 0 };
            f(at..at + 4, start * LANES + (i * LANES + row) * 4);
        }
        if let Some(half) = half {
            let at = start + half;
            f(at..at + 2, (start + 4 * fours) * LANES + 2 * row);
        }
    }
}

/// Packs up to 16 rows, as they are stored, into a group, which holds zeros.
pub fn pack(kind: QuantizedType, row_bytes: usize, rows: &[u8], group: &mut [u8]) {
    for (i, row) in rows.chunks_exact(row_bytes).enumerate() {
        each_part(kind, row_bytes, i, |bytes, at| group[at..at + bytes.len()].copy_from_slice(&row[bytes]));
    }
}

/// A row of a group as it was stored.
pub(super) fn unpack_row(kind: QuantizedType, group: &[u8], row: usize) -> Vec<u8> {
    let mut out = vec![0; group.len() / LANES];
    each_part(kind, out.len(), row, |bytes, at| {
        let len = bytes.len();
        out[bytes].copy_from_slice(&group[at..at + len]);
    });
    out
}
