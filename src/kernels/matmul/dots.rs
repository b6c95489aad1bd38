//! (out, in) weights: every output is a dot product over 16 running sums, whatever tile it falls into.

use std::ops::Range;

use super::{Product, SCRATCH, widen};
use crate::base::{FloatType, pool};
use crate::kernels::simd::{LANES, Simd, dispatch};
use crate::kernels::stored::{BF16, F16, F32, Stored, load_up_to, read_up_to, store_up_to};

/// Outputs that one thread takes at a time, at most.
const COLUMNS: usize = 256;

/// Parts of the work for each thread, at least.
const PARTS: usize = 8;

/// Rows that one pass covers, so that they stay in the second-level cache.
const ROWS: usize = 64;

/// The product of any number of rows with an (out, in) weight.
pub(super) fn run(job: &Product<'_>) {
    let width = job.w.outputs.div_ceil(PARTS * pool::threads()).next_multiple_of(LANES).min(COLUMNS);
    let n = job.w.outputs;
    pool::run_costing(job.work(), n.div_ceil(width), |i| {
        let (from, to) = (i * width, n.min((i + 1) * width));
        // The scratch is fetched here: a closure inside the kernel would be compiled without its instructions.
        // SAFETY: `matmul` and `Matrix::new` checked the lengths; each call gets its own columns of `y`.
        SCRATCH.with_borrow_mut(|widened| unsafe { dots_dispatch(job, from, to, widened) });
    });
}

dispatch! { unsafe fn dots_dispatch = dots(job: &Product<'_>, from: usize, to: usize, widened: &mut Vec<f32>) }

/// # Safety
/// The processor has the instructions of `S`; `to <= N`; the columns of `y` belong to the calling thread.
#[inline(always)]
unsafe fn dots<S: Simd>(job: &Product<'_>, from: usize, to: usize, widened: &mut Vec<f32>) {
    // SAFETY: the caller's promises; the type is that of the numbers.
    unsafe {
        match job.w.dtype {
            FloatType::F32 => dots_as::<S, F32>(job, from, to, widened),
            FloatType::F16 => dots_as::<S, F16>(job, from, to, widened),
            FloatType::BF16 => dots_as::<S, BF16>(job, from, to, widened),
        }
    }
}

/// # Safety
/// As for [`dots`]; the weights are stored as `T`.
#[inline(always)]
unsafe fn dots_as<S: Simd, T: Stored>(job: &Product<'_>, from: usize, to: usize, widened: &mut Vec<f32>) {
    for block in (0..job.rows).step_by(ROWS) {
        let rows = block..job.rows.min(block + ROWS);
        let mut column = from;
        // SAFETY: the caller's promises; no arm takes more columns than are left, and the rows are the product's.
        unsafe {
            while column < to && rows.len() < S::DOT_TILE.0 {
                let end = to.min(column + LANES);
                for m in rows.clone() {
                    one_row::<S, T>(job, m, column, end);
                }
                column = end;
            }
            while column < to {
                column += match (S::DOT_TILE, to - column) {
                    ((4, 6), 6..) => columns::<S, T, 4, 6>(job, &rows, column, widened),
                    ((2, 2), 2..) => columns::<S, T, 2, 2>(job, &rows, column, widened),
                    _ => columns::<S, T, 1, 1>(job, &rows, column, widened),
                };
            }
            for m in rows {
                job.finish(m, from, to);
            }
        }
    }
}

/// The outputs `column..end`, at most 16, of one row, one after the other: their weights are one run of memory, which
/// the processor follows best by itself.
///
/// # Safety
/// As for [`dots_as`]; the row is the product's, and the columns the thread's.
#[inline(always)]
unsafe fn one_row<S: Simd, T: Stored>(job: &Product<'_>, m: usize, column: usize, end: usize) {
    let (k, n) = (job.w.inputs, job.w.outputs);
    // SAFETY: the caller promises the instructions, the row and the columns; inputs `i..` end with `K`.
    unsafe {
        let x = job.x.add(m * k);
        let mut sums = [S::splat(0.0); LANES];
        for (c, sum) in (column..end).zip(&mut sums) {
            let w = job.w.bytes.as_ptr().cast::<T::Number>().add(c * k);
            let mut i = 0;
            while i + LANES <= k {
                *sum = S::fma(S::load(x.add(i)), T::load::<S>(w.add(i)), *sum);
                i += LANES;
            }
            if i < k {
                *sum = S::fma(read_up_to::<S>(x.add(i), k - i), load_up_to::<S, T>(w.add(i), k - i), *sum);
            }
        }
        store_up_to::<S>(job.y.add(m * n + column), end - column, S::sums(sums));
    }
}

/// `N` outputs from `column` on of some rows, `R` rows at a time; returns `N`.
///
/// # Safety
/// As for [`dots_as`]; the rows are the product's, and the `N` columns the thread's.
#[inline(always)]
unsafe fn columns<S: Simd, T: Stored, const R: usize, const N: usize>(
    job: &Product<'_>,
    rows: &Range<usize>,
    column: usize,
    widened: &mut Vec<f32>,
) -> usize {
    let k = job.w.inputs;
    // SAFETY: the caller's promises; `w` points to the `N * K` weights of the columns, and so does `widened` to their
    // copies.
    unsafe {
        let w = job.w.bytes.as_ptr().cast::<T::Number>().add(column * k);
        if T::IS_F32 {
            let m = rows_of_tiles::<S, T, R, N>(job, w, rows.start, rows.end, column);
            rows_of_tiles::<S, T, 1, N>(job, w, m, rows.end, column);
        } else {
            // Widened once for all rows.
            widen::<S, T>(w, N * k, widened);
            let m = rows_of_tiles::<S, F32, R, N>(job, widened.as_ptr(), rows.start, rows.end, column);
            rows_of_tiles::<S, F32, 1, N>(job, widened.as_ptr(), m, rows.end, column);
        }
    }
    N
}

/// `N` outputs of as many whole tiles of `R` rows as fit into `m..end`; `w` are the outputs' weights. Returns the first
/// row that is left.
///
/// # Safety
/// The processor has the instructions of `S`; `w` points to `N * K` weights; `end <= rows`; the `N` columns of `y` from
/// `column` on belong to the calling thread.
#[inline(always)]
unsafe fn rows_of_tiles<S: Simd, T: Stored, const R: usize, const N: usize>(
    job: &Product<'_>,
    w: *const T::Number,
    mut m: usize,
    end: usize,
    column: usize,
) -> usize {
    while m + R <= end {
        // SAFETY: the caller's promises; the tile ends with `end`.
        unsafe { tile::<S, T, R, N>(job, w, m, column) };
        m += R;
    }
    m
}

/// # Safety
/// As for [`rows_of_tiles`]; `m + R <= rows`.
#[inline(always)]
unsafe fn tile<S: Simd, T: Stored, const R: usize, const N: usize>(
    job: &Product<'_>,
    w: *const T::Number,
    m: usize,
    column: usize,
) {
    let (k, n) = (job.w.inputs, job.w.outputs);
    // SAFETY: the caller promises the instructions, weights, rows and columns; inputs `i..` end with `K`.
    unsafe {
        let mut sums = [[S::splat(0.0); R]; N];
        let x = job.x.add(m * k);
        let mut i = 0;
        while i + LANES <= k {
            add_vectors::<S, T, R, N, true>(x.add(i), w.add(i), k, LANES, &mut sums);
            i += LANES;
        }
        if i < k {
            add_vectors::<S, T, R, N, false>(x.add(i), w.add(i), k, k - i, &mut sums);
        }
        let sums = sums.as_flattened();
        for (part, vectors) in sums.chunks(LANES).enumerate() {
            let mut whole = [S::splat(0.0); LANES];
            for (whole, v) in whole.iter_mut().zip(vectors) {
                *whole = *v;
            }
            let totals = S::lanes(S::sums(whole));
            for (i, total) in totals.iter().enumerate().take(vectors.len()) {
                let i = part * LANES + i;
                *job.y.add((m + i % R) * n + column + i / R) = *total;
            }
        }
    }
}

/// Adds the products of 16 inputs, or of the first `width` where they are not `WHOLE`.
///
/// # Safety
/// The processor has the instructions of `S`; so many numbers can be read in `R` rows of `x` and `N` rows of `w`, all
/// `k` apart.
#[inline(always)]
unsafe fn add_vectors<S: Simd, T: Stored, const R: usize, const N: usize, const WHOLE: bool>(
    x: *const f32,
    w: *const T::Number,
    k: usize,
    width: usize,
    sums: &mut [[S::V; R]; N],
) {
    // SAFETY: the caller promises the instructions and the numbers.
    unsafe {
        let mut inputs = [S::splat(0.0); R];
        for (r, input) in inputs.iter_mut().enumerate() {
            *input = if WHOLE { S::load(x.add(r * k)) } else { read_up_to::<S>(x.add(r * k), width) };
        }
        for (c, sums) in sums.iter_mut().enumerate() {
            let weights = w.add(c * k);
            let weights = if WHOLE { T::load::<S>(weights) } else { load_up_to::<S, T>(weights, width) };
            for (sum, x) in sums.iter_mut().zip(inputs) {
                *sum = S::fma(x, weights, *sum);
            }
        }
    }
}
