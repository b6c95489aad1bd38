//! Packs stored tensors into panels for the CPU's kernels, step by step, so that no second copy is made.

use std::cell::RefCell;
use std::ops::Range;

use super::{STEP, Tensor};
use crate::base::panels::{blocks, floats};
use crate::base::{DType, FloatType, QuantizedType, pool};
use crate::error::Result;

/// Packs a matrix into [panels](floats) of `dtype`; `transpose` swaps the stored axes to (in, out). `out` must be zeroed and have
/// the packed length. Releases the parts of a mapped file that it has read.
///
/// # Errors
/// As for [`convert`](Tensor::convert).
pub(crate) fn pack_floats(
    tensor: &Tensor,
    origin: &str,
    dtype: FloatType,
    transpose: bool,
    out: &mut [u8],
) -> Result<()> {
    let (rows, columns) = tensor.stored_dims();
    let (inputs, outputs) = if transpose { (columns, rows) } else { (rows, columns) };
    let step = (STEP / outputs.max(1)).max(1);
    let parts = floats::parts(dtype, inputs, step, out);
    pack(tensor, origin, dtype.dtype(), transpose, (inputs, outputs), step, parts, |rows, part| {
        floats::pack(dtype, outputs, rows, part);
    })
}

/// [Packs](blocks::pack) a matrix in a quantised format; `transpose` swaps the stored axes to (out, in). `out` must
/// be zeroed and have the packed length. Releases the parts of a mapped file that it has read.
///
/// # Errors
/// As for [`convert`](Tensor::convert).
pub(crate) fn pack_quantized(
    tensor: &Tensor,
    origin: &str,
    kind: QuantizedType,
    transpose: bool,
    out: &mut [u8],
) -> Result<()> {
    let (rows, columns) = tensor.stored_dims();
    let (outputs, inputs) = if transpose { (columns, rows) } else { (rows, columns) };
    let row_bytes = kind.dtype().byte_len(&[inputs]).unwrap_or_default();
    let step = (STEP / inputs.max(1)).max(1).next_multiple_of(blocks::PANEL);
    let parts = out.chunks_mut((step * row_bytes).max(1)).collect();
    pack(tensor, origin, kind.dtype(), transpose, (outputs, inputs), step, parts, |rows, part| {
        let panel = blocks::PANEL * row_bytes;
        for (rows, panel) in rows.chunks(panel).zip(part.chunks_mut(panel)) {
            blocks::pack(kind, row_bytes, rows, panel);
        }
    })
}

/// Packs `step` rows into each of `parts`; `(rows, width)` are the dimensions of what [`convert`](Tensor::convert)
/// returns.
#[allow(clippy::too_many_arguments)]
fn pack<P: Send>(
    tensor: &Tensor,
    origin: &str,
    dtype: DType,
    transpose: bool,
    (rows, width): (usize, usize),
    step: usize,
    parts: Vec<P>,
    pack: impl Fn(&[u8], &mut P) + Sync,
) -> Result<()> {
    let mut parts: Vec<_> = parts.into_iter().enumerate().map(|part| (part, Ok(()))).collect();
    pool::for_each(rows * width, &mut parts, |((i, part), outcome)| {
        let rows = (*i * step).min(rows)..((*i + 1) * step).min(rows);
        *outcome = rows_as(tensor, origin, dtype, transpose, rows, width, |bytes| pack(bytes, part));
    });
    tensor.bytes.release();
    parts.into_iter().try_for_each(|(_, outcome)| outcome)
}

/// Calls `f` with rows as [`convert`](Tensor::convert) returns them: in place if they are stored so.
fn rows_as(
    tensor: &Tensor,
    origin: &str,
    dtype: DType,
    transpose: bool,
    rows: Range<usize>,
    width: usize,
    f: impl FnOnce(&[u8]),
) -> Result<()> {
    let row_bytes = dtype.byte_len(&[width]).unwrap_or_default();
    if dtype == tensor.dtype && !transpose {
        let row_blocks = width / dtype.block_len();
        f(&tensor.blocks(rows.start * row_blocks..rows.end * row_blocks));
        if let Some(read) = tensor.bytes.slice(rows.start * row_bytes..rows.end * row_bytes) {
            read.release();
        }
        return Ok(());
    }
    // Kept between calls, so that the pages stay mapped.
    thread_local! {
        static CONVERTED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    CONVERTED.with_borrow_mut(|converted| {
        let len = rows.len() * row_bytes;
        if converted.len() < len {
            converted.resize(len, 0);
        }
        tensor.convert_rows(origin, dtype, transpose, rows, &mut converted[..len])?;
        f(&converted[..len]);
        Ok(())
    })
}
