//! Rows of activations by the sixteen: their products with a panel come from a unit that multiplies tiles, group by
//! group of inputs, and vectors scale and add them.
//!
//! The unit works a few groups ahead, so that neither waits for the other. It takes signed bytes as they are; otherwise
//! the sums are those of registers, in the same order.

use super::format::{Format, offset};
use super::level::{Integers, Tiles};
use super::packed::WIDTH;
use super::panel::{BLOCK, Panel};
use super::product::{Part, Product};
use crate::kernels::simd::LANES;

/// Rows of a tile, and its columns.
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

/// Multiplies all rows, of which there are at least [`SIDE`], with a panel. The last tile goes over rows of the one
/// before where it must, and leaves them as they are.
///
/// # Safety
/// The processor has the instructions of `S`; `tiles` are for the groups of `F`; `part` lies in the matrix and fits the
/// panel, which [`center`] has been at; the columns of `y` belong to the calling thread.
#[inline(always)]
pub(super) unsafe fn multiply<S: Integers, F: Format, T: Tiles>(
    job: &Product<'_>,
    tiles: &T,
    panel: &Panel,
    part: Part,
    ring: &mut Ring,
) {
    for m in (0..job.rows).step_by(SIDE) {
        let from = m.min(job.rows - SIDE);
        for half in 0..WIDTH / SIDE {
            // SAFETY: the caller's promises; `from + SIDE <= rows` as there are so many.
            unsafe { tile::<S, F, T>(job, tiles, panel, part, from..m, half, ring) };
        }
    }
}

/// Makes the bytes of a panel, which may be too large, the signed weights that they stand for.
#[inline(always)]
pub(super) fn center<S: Integers, F: Format>(panel: &mut Panel) {
    if offset::<S, F>() != 0 {
        for four in &mut panel.bytes {
            *four = i32::from_ne_bytes(four.to_ne_bytes().map(|byte| byte.wrapping_sub(offset::<S, F>() as u8)));
        }
    }
}

/// Multiplies the rows from `skip.start` on with half a panel, and keeps what is not of the rows `skip`.
///
/// # Safety
/// As for [`multiply`]; `skip.start + SIDE <= rows`, `half < 2`.
#[inline(always)]
unsafe fn tile<S: Integers, F: Format, T: Tiles>(
    job: &Product<'_>,
    tiles: &T,
    panel: &Panel,
    part: Part,
    skip: std::ops::Range<usize>,
    half: usize,
    ring: &mut Ring,
) {
    let (inputs, m, column) = (job.w.inputs, skip.start, part.column + half * SIDE);
    let groups = part.blocks * (BLOCK / F::GROUP);
    // SAFETY: the caller promises the instructions and the rows. `inputs` is whole blocks of 32, so that `x` has
    // `inputs` numbers, and `inputs / 32` scales and totals a row, of which the part's are read; the panel holds its
    // weights, and the groups of the ring are below `RING`.
    unsafe {
        // Between memory and registers they go through this: loops over registers must be short enough to be unrolled.
        let mut kept = [[0.0; LANES]; SIDE];
        if part.first > 0 {
            for (r, kept) in kept.iter_mut().enumerate() {
                S::store(kept.as_mut_ptr(), job.load::<S>(m + r, column));
            }
        }
        let mut sums = [S::splat(0.0); SIDE];
        for (sums, kept) in sums.iter_mut().zip(&kept) {
            *sums = S::load(kept.as_ptr());
        }
        let x = job.x.numbers.as_ptr().add(m * inputs + part.first);
        let x_scales = job.x.scales.as_ptr().add((m * inputs + part.first) / BLOCK);
        let x_totals = job.x.totals.as_ptr().add((m * inputs + part.first) / BLOCK);
        let w = panel.bytes.as_ptr().add(half * SIDE);
        let w_scales = panel.scales.as_ptr().add(half * SIDE);
        let minima = panel.minima.as_ptr().add(half * SIDE);
        let start = |group: usize, ring: &mut Ring| {
            let (x, w) = (x.add(group * F::GROUP), w.add(group * (F::GROUP / 4) * WIDTH));
            tiles.multiply(x, inputs, w, 4 * WIDTH, ring[group % RING].0.as_flattened_mut().as_mut_ptr());
        };
        for group in 0..groups.min(AHEAD) {
            start(group, ring);
        }
        for group in 0..groups {
            // First, so that what follows is one block of instructions and stays in registers.
            if group + AHEAD < groups {
                start(group + AHEAD, ring);
            }
            let block = group / (BLOCK / F::GROUP);
            let scales = S::load(w_scales.add(group * WIDTH));
            for (r, (sums, whole)) in sums.iter_mut().zip(&ring[group % RING].0).enumerate() {
                let scale = S::splat(*x_scales.add(r * (inputs / BLOCK) + block));
                *sums = S::fma(S::to_float(S::load_i(whole.as_ptr())), S::mul(scales, scale), *sums);
            }
            if F::MINIMA {
                let minima = S::load(minima.add(block * WIDTH));
                for (r, sums) in sums.iter_mut().enumerate() {
                    *sums = S::fma(S::splat(*x_totals.add(r * (inputs / BLOCK) + block)), minima, *sums);
                }
            }
        }
        for (sums, kept) in sums.iter().zip(&mut kept) {
            S::store(kept.as_mut_ptr(), *sums);
        }
        for (r, kept) in kept.iter().enumerate().skip(skip.len()) {
            job.store::<S>(m + r, column, S::load(kept.as_ptr()));
        }
    }
}
