//! (in, out) weights packed into panels: of 48 outputs at a time, all inputs one after the other, (N / 48, K, 48), with
//! zeros beyond the last output.
//!
//! So what a product reads of a panel is one run of memory, for one row and for many, and nothing is packed while a
//! prompt waits.

use crate::base::FloatType;

/// Outputs of a panel: three vectors.
pub const PANEL: usize = 48;

/// Bytes that a matrix of `inputs` and `outputs` takes in panels; none if their number does not fit a `usize`.
#[must_use]
pub fn packed_bytes(dtype: FloatType, inputs: usize, outputs: usize) -> Option<usize> {
    outputs.checked_next_multiple_of(PANEL)?.checked_mul(inputs)?.checked_mul(dtype.size())
}

/// Splits the bytes of a packed matrix into parts of `step` inputs each, for [`pack`] to fill: a part is a slice of every
/// panel.
pub fn parts(dtype: FloatType, inputs: usize, step: usize, packed: &mut [u8]) -> Vec<Vec<&mut [u8]>> {
    let row = PANEL * dtype.size();
    let mut parts: Vec<Vec<&mut [u8]>> = (0..inputs.div_ceil(step)).map(|_| vec![]).collect();
    for panel in packed.chunks_mut(inputs * row) {
        for (part, slice) in parts.iter_mut().zip(panel.chunks_mut(step * row)) {
            part.push(slice);
        }
    }
    parts
}

/// Packs rows of an (in, out) matrix, all numbers of as many inputs as a part holds, into that part.
pub fn pack(dtype: FloatType, outputs: usize, rows: &[u8], part: &mut [&mut [u8]]) {
    let panel = PANEL * dtype.size();
    for (i, row) in rows.chunks_exact(outputs * dtype.size()).enumerate() {
        for (numbers, slice) in row.chunks(panel).zip(part.iter_mut()) {
            slice[i * panel..][..numbers.len()].copy_from_slice(numbers);
        }
    }
}

/// Writes numbers of the (in, out) matrix from index `first` on, as many as `out` holds.
pub(super) fn unpack(dtype: FloatType, inputs: usize, outputs: usize, packed: &[u8], first: usize, mut out: &mut [u8]) {
    let (size, mut at) = (dtype.size(), first);
    while !out.is_empty() {
        let (input, output) = (at / outputs, at % outputs);
        let len = (PANEL - output % PANEL).min(outputs - output).min(out.len() / size);
        let start = (output / PANEL * inputs + input) * PANEL + output % PANEL;
        let (part, rest) = out.split_at_mut(len * size);
        part.copy_from_slice(&packed[start * size..][..len * size]);
        (out, at) = (rest, at + len);
    }
}
