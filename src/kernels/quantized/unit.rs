//! Rows of activations by the sixteen, where the processor has a matrix unit: their products with a part of a panel come
//! from the unit, group by group of inputs, and vectors scale and add them.
//!
//! The unit works a few groups ahead, so that neither waits for the other. It takes signed bytes as they are; otherwise
//! the sums are those of [`tiles`](super::tiles), in the same order.

use std::ops::Range;

use super::Part;
use super::activations::{Activations, CHUNK};
use super::format::{Format, offset};
use super::panels::PANEL;
use super::unpacked::Unpacked;
use crate::kernels::share::Columns;
use crate::kernels::simd::{LANES, MatrixUnit, Simd};

/// Rows that the unit takes, and outputs.
pub(super) const SIDE: usize = LANES;

/// Groups of inputs whose sums are under way.
const AHEAD: usize = 4;

/// Room for them and the group that is being added.
const RING: usize = (AHEAD + 1).next_power_of_two();

/// Sums of integers, by row, of a group of inputs.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Sums([[i32; SIDE]; SIDE]);

/// The sums under way.
pub(super) type Ring = [Sums; RING];

/// Nothing under way.
pub(super) const EMPTY: Ring = [Sums([[0; SIDE]; SIDE]); RING];

/// Multiplies `rows` rows, of which there are at least [`SIDE`], with a part that [`center`] has been at; `unit` is for the
/// groups of `F`. The last 16 rows go over rows of those before where they must, and leave them as they are.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) fn multiply<S: Simd, F: Format, U: MatrixUnit>(
    simd: S,
    unit: &U,
    x: &Activations,
    rows: usize,
    columns: &mut Columns<'_>,
    unpacked: &Unpacked,
    part: Part,
    ring: &mut Ring,
) {
    for m in (0..rows).step_by(SIDE) {
        let from = m.min(rows - SIDE);
        for side in 0..2 {
            sixteen_rows::<S, F, U>(simd, unit, x, columns, unpacked, part, from..m, side, ring);
        }
    }
}

/// Makes the bytes of a part, which may be too large, the signed weights that they stand for.
#[inline(always)]
pub(super) fn center<S: Simd, F: Format>(unpacked: &mut Unpacked) {
    if offset::<S, F>() != 0 {
        for four in unpacked.iter_mut().flat_map(|chunk| chunk.bytes.as_flattened_mut().as_flattened_mut()) {
            *four = i32::from_ne_bytes(four.to_ne_bytes().map(|byte| byte.wrapping_sub(offset::<S, F>() as u8)));
        }
    }
}

/// Multiplies the rows from `skip.start` on with one side of a part, and keeps what is not of the rows `skip`.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn sixteen_rows<S: Simd, F: Format, U: MatrixUnit>(
    simd: S,
    unit: &U,
    x: &Activations,
    columns: &mut Columns<'_>,
    unpacked: &Unpacked,
    part: Part,
    skip: Range<usize>,
    side: usize,
    ring: &mut Ring,
) {
    let (m, column) = (skip.start, part.column + side * PANEL);
    let groups = part.chunks * (CHUNK / F::GROUP);
    // Between memory and registers they go through this: loops over registers must be short enough to be unrolled.
    let mut kept = [[0.0; LANES]; SIDE];
    if part.first > 0 {
        for (r, kept) in kept.iter_mut().enumerate() {
            simd.store(kept, columns.load(simd, m + r, column));
        }
    }
    let mut sums = [simd.splat(0.0); SIDE];
    for (sums, kept) in sums.iter_mut().zip(&kept) {
        *sums = simd.load(kept);
    }
    let (row_chunks, row_bytes) = (x.row(m).len(), size_of_val(x.row(m)));
    assert!(part.first + part.chunks <= row_chunks, "chunks of a row");
    let (weights, rows) = (&unpacked[..part.chunks], &x.rows(m)[..SIDE * row_chunks]);
    let x = rows[part.first..].as_ptr();
    let start = |group: usize, ring: &mut Ring| {
        let (chunk, first) = (group / (CHUNK / F::GROUP), group % (CHUNK / F::GROUP) * (F::GROUP / 4));
        let w = weights[chunk].bytes[first..][..F::GROUP / 4].as_flattened().as_flattened()[side * LANES..].as_ptr();
        // SAFETY: `rows` has 16 rows of `row_chunks`, of which the part's are `part.chunks` from `x` on in the first; the
        // group's numbers are `GROUP` bytes of a chunk, and those of its weights `GROUP / 4` pairs of 64.
        unsafe {
            let x = (&raw const (*x.add(chunk)).fours).cast::<i32>().add(first).cast();
            unit.multiply(x, row_bytes, w, 2 * 4 * LANES, &mut ring[group % RING].0);
        }
    };
    // SAFETY: as above.
    let chunk = |r: usize, i: usize| unsafe { &*x.add(r * row_chunks + i) };
    for group in 0..groups.min(AHEAD) {
        start(group, ring);
    }
    for group in 0..groups {
        // First, so that what follows is one run of instructions and stays in registers.
        if group + AHEAD < groups {
            start(group + AHEAD, ring);
        }
        let at = group / (CHUNK / F::GROUP);
        let scales = simd.load(&weights[at].scales[group % (CHUNK / F::GROUP)][side]);
        for (r, (sums, whole)) in sums.iter_mut().zip(&ring[group % RING].0).enumerate() {
            let scale = simd.splat(chunk(r, at).scale);
            *sums = simd.fma(simd.to_float(simd.load_i(whole)), simd.mul(scales, scale), *sums);
        }
        if F::MINIMA {
            let minima = simd.load(&weights[at].minima[side]);
            for (r, sums) in sums.iter_mut().enumerate() {
                *sums = simd.fma(simd.splat(chunk(r, at).total), minima, *sums);
            }
        }
    }
    for (sums, kept) in sums.iter().zip(&mut kept) {
        simd.store(kept, *sums);
    }
    for (r, kept) in kept.iter().enumerate().skip(skip.len()) {
        columns.store(simd, m + r, column, simd.load(kept));
    }
}
