//! (out, in) weights: every output is a dot product over 16 running sums, whatever tile it falls into.

use std::ops::Range;

use super::{Product, SCRATCH};
use crate::base::{FloatType, pool};
use crate::kernels::share::{Columns, for_each_columns};
use crate::kernels::simd::{Kernel, LANES, Simd, dispatch};
use crate::kernels::stored::{BF16, F16, F32, Stored, widen, widened};

/// Outputs that one thread takes at a time, at most.
const COLUMNS: usize = 256;

/// Shares of the work for each thread, at least.
const SHARES: usize = 8;

/// Numbers of the rows that one pass covers, so that they stay in the L2 cache: 128 rows of GPT-2's width.
const ROWS: usize = 128 * 768;

/// Bytes of a cache line.
const LINE: usize = 64;

/// The product of any number of rows with an (out, in) weight.
pub(super) fn multiply(job: &Product<'_>, y: &mut [f32]) {
    let n = job.w.outputs();
    let width = n.div_ceil(SHARES * pool::threads()).next_multiple_of(LANES).min(COLUMNS);
    for_each_columns(job.rows * job.w.inputs() * n, y, job.rows, width, |columns| {
        // The scratch is fetched here: a closure inside the kernel would be compiled without its instructions.
        SCRATCH.with_borrow_mut(|widened| dispatch(Dots { job, columns, widened }));
    });
}

/// Some outputs of all rows.
struct Dots<'a> {
    job: &'a Product<'a>,
    columns: Columns<'a>,
    widened: &'a mut Vec<f32>,
}

impl Kernel for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        match self.job.w.dtype() {
            FloatType::F32 => self.multiply::<S, F32>(simd),
            FloatType::F16 => self.multiply::<S, F16>(simd),
            FloatType::BF16 => self.multiply::<S, BF16>(simd),
        }
        self.job.finish(&mut self.columns);
    }
}

impl Dots<'_> {
    /// The outputs, the weights being stored as `T`.
    #[inline(always)]
    fn multiply<S: Simd, T: Stored>(&mut self, simd: S) {
        let Range { start, end } = self.columns.range();
        let step = (ROWS / self.job.w.inputs()).max(1).next_multiple_of(S::DOT_TILE.0);
        for first in (0..self.job.rows).step_by(step) {
            let rows = first..self.job.rows.min(first + step);
            let mut column = start;
            while column < end && rows.len() < S::DOT_TILE.0 {
                let next = end.min(column + LANES);
                for m in rows.clone() {
                    self.one_row::<S, T>(simd, m, column..next);
                }
                column = next;
            }
            while column < end {
                // No arm takes more columns than are left.
                column += match (S::DOT_TILE, end - column) {
                    ((4, 6), 6..) => self.some_columns::<S, T, 4, 6>(simd, &rows, column),
                    ((2, 2), 2..) => self.some_columns::<S, T, 2, 2>(simd, &rows, column),
                    _ => self.some_columns::<S, T, 1, 1>(simd, &rows, column),
                };
            }
        }
    }

    /// Outputs of one row, at most 16, one after the other: their weights are one run of memory, which the processor
    /// follows best by itself.
    #[inline(always)]
    fn one_row<S: Simd, T: Stored>(&mut self, simd: S, m: usize, outputs: Range<usize>) {
        let k = self.job.w.inputs();
        let (x, x_rest) = self.job.x[m * k..][..k].as_chunks();
        let numbers = &T::numbers(&self.job.w.bytes)[outputs.start * k..outputs.end * k];
        let mut sums = [simd.splat(0.0); LANES];
        for (w, sum) in numbers.chunks_exact(k).zip(&mut sums) {
            let (w, w_rest) = w.as_chunks();
            for (x, w) in x.iter().zip(w) {
                *sum = simd.fma(simd.load(x), T::load(simd, w), *sum);
            }
            if !w_rest.is_empty() {
                *sum = simd.fma(simd.load_first(x_rest), T::load_up_to(simd, w_rest), *sum);
            }
        }
        let start = self.columns.range().start;
        let y = &mut self.columns.row(m)[outputs.start - start..outputs.end - start];
        simd.store_up_to(y, simd.sums(sums));
    }

    /// `N` outputs from `column` on of some rows, `R` rows at a time; returns `N`.
    #[inline(always)]
    fn some_columns<S: Simd, T: Stored, const R: usize, const N: usize>(
        &mut self,
        simd: S,
        rows: &Range<usize>,
        column: usize,
    ) -> usize {
        let Self { job, columns, widened: scratch } = self;
        let k = job.w.inputs();
        let (w, next) = T::numbers(&job.w.bytes)[column * k..].split_at(N * k);
        let mut next = Next::new(&next[..next.len().min(N * k)], rows.len() / R);
        if T::IS_F32 {
            let m = rows_of_tiles::<S, T, T, R, N>(simd, job, columns, w, &mut next, rows.clone(), column);
            rows_of_tiles::<S, T, T, 1, N>(simd, job, columns, w, &mut next, m..rows.end, column);
        } else {
            // Widened once for all rows.
            widen::<S, T>(simd, w, scratch);
            let w = widened(&scratch[..w.len()]);
            let m = rows_of_tiles::<S, F32, T, R, N>(simd, job, columns, w, &mut next, rows.clone(), column);
            rows_of_tiles::<S, F32, T, 1, N>(simd, job, columns, w, &mut next, m..rows.end, column);
        }
        N
    }
}

/// The weights that come next. They are asked for while others are multiplied: so few outputs at a time are too short a
/// run of memory for the processor to foresee.
struct Next<'a, T: Stored> {
    numbers: &'a [T::Number],
    /// How many to ask for at a time.
    step: usize,
}

impl<'a, T: Stored> Next<'a, T> {
    fn new(numbers: &'a [T::Number], steps: usize) -> Self {
        let line = LINE / size_of::<T::Number>();
        Self { numbers, step: numbers.len().div_ceil(steps.max(1)).next_multiple_of(line) }
    }

    #[inline(always)]
    fn ask<S: Simd>(&mut self, simd: S) {
        let (step, rest) = self.numbers.split_at(self.step.min(self.numbers.len()));
        self.numbers = rest;
        for line in step.chunks(LINE / size_of::<T::Number>()) {
            simd.prefetch(line.as_ptr().cast());
        }
    }
}

/// `N` outputs of as many whole tiles of `R` rows as there are in `rows`; `w` are the outputs' weights, `next` those of the
/// next outputs. Returns the first row that is left.
#[inline(always)]
fn rows_of_tiles<S: Simd, T: Stored, U: Stored, const R: usize, const N: usize>(
    simd: S,
    job: &Product<'_>,
    columns: &mut Columns<'_>,
    w: &[T::Number],
    next: &mut Next<'_, U>,
    rows: Range<usize>,
    column: usize,
) -> usize {
    let mut m = rows.start;
    while m + R <= rows.end {
        next.ask(simd);
        tile::<S, T, R, N>(simd, job, columns, w, m, column);
        m += R;
    }
    m
}

/// `N` outputs from `column` on of `R` rows from `m` on.
#[inline(always)]
fn tile<S: Simd, T: Stored, const R: usize, const N: usize>(
    simd: S,
    job: &Product<'_>,
    columns: &mut Columns<'_>,
    w: &[T::Number],
    m: usize,
    column: usize,
) {
    let k = job.w.inputs();
    let (x, whole) = (&job.x[m * k..][..R * k], k - k % LANES);
    let w = &w[..N * k];
    let mut sums = [[simd.splat(0.0); R]; N];
    for i in (0..whole).step_by(LANES) {
        let mut inputs = [simd.splat(0.0); R];
        for (r, input) in inputs.iter_mut().enumerate() {
            // SAFETY: `x` has `R` rows of `k` numbers, and `w` `N`; `i + 16 <= whole <= k`. (Checked, here and below: products
            // of four or more rows of f32 take 15% longer with AVX-512 on Zen 5.)
            *input = simd.load(unsafe { &*x.as_ptr().add(r * k + i).cast() });
        }
        for (c, sums) in sums.iter_mut().enumerate() {
            // SAFETY: as above.
            let w = T::load(simd, unsafe { &*w.as_ptr().add(c * k + i).cast() });
            add_products(simd, inputs, w, sums);
        }
    }
    if whole < k {
        let mut inputs = [simd.splat(0.0); R];
        for (input, x) in inputs.iter_mut().zip(x.chunks_exact(k)) {
            *input = simd.load_first(&x[whole..]);
        }
        for (sums, w) in sums.iter_mut().zip(w.chunks_exact(k)) {
            add_products(simd, inputs, T::load_up_to(simd, &w[whole..]), sums);
        }
    }
    // Row by row, as many as there are registers of sums at most.
    let mut totals = [0.0; 2 * LANES];
    for (first, totals) in (0..R * N).step_by(LANES).zip(totals.chunks_mut(LANES)) {
        let mut whole = [simd.splat(0.0); LANES];
        for (i, whole) in (first..R * N).zip(&mut whole) {
            *whole = sums[i % N][i / N];
        }
        totals.copy_from_slice(&simd.lanes(simd.sums(whole)));
    }
    let skip = column - columns.range().start;
    for (r, totals) in totals.chunks_exact(N).take(R).enumerate() {
        columns.row(m + r)[skip..][..N].copy_from_slice(totals);
    }
}

#[inline(always)]
fn add_products<S: Simd, const R: usize>(simd: S, x: [S::V; R], w: S::V, sums: &mut [S::V; R]) {
    for (sum, x) in sums.iter_mut().zip(x) {
        *sum = simd.fma(x, w, *sum);
    }
}
