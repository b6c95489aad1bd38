//! Packed weights: panels go past the rows block by block, in tiles of sums in registers.

use super::panels::PANEL;
use super::{BLOCK_INPUTS, Product, SCRATCH, widen};
use crate::base::{FloatType, pool};
use crate::kernels::simd::{LANES, Simd, dispatch};
use crate::kernels::stored::{BF16, F16, F32, Stored, read_up_to, store_up_to};

/// Rows from which numbers are widened once for all; fewer widen them as they go.
const MANY_ROWS: usize = 16;

/// Vectors across a panel.
const VECTORS: usize = PANEL / LANES;

/// The product of any number of rows with a packed weight.
pub(super) fn run(job: &Product<'_>) {
    pool::run_costing(job.work(), job.w.outputs.div_ceil(PANEL), |panel| {
        // The scratch is fetched here: a closure inside the kernel would be compiled without its instructions.
        // SAFETY: `matmul` and `Matrix::new` checked the lengths; each call gets its own panel's columns of `y`.
        SCRATCH.with_borrow_mut(|widened| unsafe { panel_dispatch(job, panel, widened) });
    });
}

dispatch! { unsafe fn panel_dispatch = multiply_panel(job: &Product<'_>, panel: usize, widened: &mut Vec<f32>) }

/// # Safety
/// The processor has the instructions of `S`; the panel is one of the matrix; its columns of `y` belong to the calling
/// thread.
#[inline(always)]
unsafe fn multiply_panel<S: Simd>(job: &Product<'_>, panel: usize, widened: &mut Vec<f32>) {
    // SAFETY: the caller's promises; the type is that of the numbers.
    unsafe {
        match job.w.dtype {
            FloatType::F32 => multiply_panel_as::<S, F32>(job, panel, widened),
            FloatType::F16 => multiply_panel_as::<S, F16>(job, panel, widened),
            FloatType::BF16 => multiply_panel_as::<S, BF16>(job, panel, widened),
        }
    }
}

/// # Safety
/// As for [`multiply_panel`]; the weights are stored as `T`.
#[inline(always)]
unsafe fn multiply_panel_as<S: Simd, T: Stored>(job: &Product<'_>, panel: usize, widened: &mut Vec<f32>) {
    let k = job.w.inputs;
    let (from, to) = (panel * PANEL, job.w.outputs.min((panel + 1) * PANEL));
    // SAFETY: the caller's promises; a panel has `K` rows of 48 numbers, of which `w` points to those of the block.
    unsafe {
        let numbers = job.w.bytes.as_ptr().cast::<T::Number>().add(from * k);
        for first in (0..k).step_by(BLOCK_INPUTS) {
            let block = Block { first, inputs: BLOCK_INPUTS.min(k - first), from, to };
            let w = numbers.add(first * PANEL);
            if T::IS_F32 || job.rows < MANY_ROWS {
                all_rows::<S, T>(job, w, block);
            } else {
                widen::<S, T>(w, block.inputs * PANEL, widened);
                all_rows::<S, F32>(job, widened.as_ptr(), block);
            }
        }
        for m in 0..job.rows {
            job.finish(m, from, to);
        }
    }
}

/// What is multiplied at a time: `inputs` inputs from `first` on of the outputs `from..to`, those of a panel.
#[derive(Clone, Copy)]
struct Block {
    first: usize,
    inputs: usize,
    from: usize,
    to: usize,
}

/// Adds the products of a block to the sums of all rows, which are kept in `y`.
///
/// # Safety
/// The processor has the instructions of `S`; the block lies in the matrix, and `w` points to its `inputs` rows of 48
/// numbers, stored as `T`; the block's columns of `y` belong to the calling thread.
#[inline(always)]
unsafe fn all_rows<S: Simd, T: Stored>(job: &Product<'_>, w: *const T::Number, block: Block) {
    let mut m = 0;
    while m < job.rows {
        let left = job.rows - m;
        // SAFETY: the caller's promises; no arm takes more rows than are left, nor more vectors than a panel has.
        m += unsafe {
            match (S::TILE_ROWS, S::TILE_VECTORS) {
                (8, VECTORS) if left >= 8 => row_of_tiles::<S, T, 8, VECTORS>(job, w, m, block),
                (_, VECTORS) if left >= 4 => row_of_tiles::<S, T, 4, VECTORS>(job, w, m, block),
                (_, VECTORS) if left >= 2 => row_of_tiles::<S, T, 2, VECTORS>(job, w, m, block),
                (6, _) if left >= 6 => row_of_tiles::<S, T, 6, 1>(job, w, m, block),
                (_, 1) if left >= 4 => row_of_tiles::<S, T, 4, 1>(job, w, m, block),
                // A single row takes all of a panel's vectors together, in the order in which they lie in memory.
                _ => row_of_tiles::<S, T, 1, VECTORS>(job, w, m, block),
            }
        };
    }
}

/// `R` rows from `m` on, `V` vectors at a time; returns `R`.
///
/// # Safety
/// As for [`all_rows`]; `m + R <= rows`; `V` divides the vectors of a panel.
#[inline(always)]
unsafe fn row_of_tiles<S: Simd, T: Stored, const R: usize, const V: usize>(
    job: &Product<'_>,
    w: *const T::Number,
    m: usize,
    block: Block,
) -> usize {
    for v in (0..VECTORS).step_by(V) {
        // SAFETY: the caller's promises; the vectors `v..v + V` are of the panel.
        unsafe { tile::<S, T, R, V>(job, w.add(v * LANES), m, block.from + v * LANES, block) }
    }
    R
}

/// `R` rows times `V` vectors of a block.
///
/// # Safety
/// As for [`row_of_tiles`]; `w` points to the vectors of the outputs from `column` on.
#[inline(always)]
unsafe fn tile<S: Simd, T: Stored, const R: usize, const V: usize>(
    job: &Product<'_>,
    w: *const T::Number,
    m: usize,
    column: usize,
    block: Block,
) {
    let (k, n) = (job.w.inputs, job.w.outputs);
    // SAFETY: the caller promises the instructions, the rows and the numbers; no column from `to` on is read or written
    // in `y`.
    unsafe {
        let x = job.x.add(m * k + block.first);
        let mut sums = [[S::splat(0.0); V]; R];
        for i in 0..block.inputs {
            let mut numbers = [S::splat(0.0); V];
            for (v, number) in numbers.iter_mut().enumerate() {
                *number = T::load::<S>(w.add(i * PANEL + v * LANES));
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let s = S::splat(*x.add(r * k + i));
                for (sum, number) in sums.iter_mut().zip(numbers) {
                    *sum = S::fma(s, number, *sum);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                let at = column + v * LANES;
                if at < block.to {
                    let (y, width) = (job.y.add((m + r) * n + at), block.to - at);
                    let sum = if block.first == 0 { *sum } else { S::add(read_up_to::<S>(y, width), *sum) };
                    store_up_to::<S>(y, width, sum);
                }
            }
        }
    }
}
