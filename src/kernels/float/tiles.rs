//! (in, out) weights: a panel goes past the rows part by part, in tiles of sums in registers.

use std::ops::Range;

use super::panels::PANEL;
use super::{Layout, Product, SCRATCH};
use crate::base::FloatType;
use crate::kernels::share::{Columns, for_each_columns};
use crate::kernels::simd::{Kernel, LANES, Simd, dispatch};
use crate::kernels::stored::{BF16, F16, F32, Stored, widen, widened};

/// Inputs of a part, which are summed on their own: few enough that they stay in the L1 cache.
const DEPTH: usize = 128;

/// Rows from which numbers are widened once for all; fewer widen them as they go.
const MANY_ROWS: usize = 16;

/// Vectors across a panel.
const VECTORS: usize = PANEL / LANES;

/// An input's weights in a panel.
type Row<T> = [[<T as Stored>::Number; LANES]; VECTORS];

/// The product of any number of rows with an (in, out) weight, packed or not.
pub(super) fn multiply(job: &Product<'_>, y: &mut [f32]) {
    let work = job.rows * job.w.inputs() * job.w.outputs();
    for_each_columns(work, y, job.rows, PANEL, |columns| {
        // The scratch is fetched here: a closure inside the kernel would be compiled without its instructions.
        SCRATCH.with_borrow_mut(|widened| dispatch(MultiplyPanel { job, columns, widened }));
    });
}

/// The product with one panel, to which the columns belong.
struct MultiplyPanel<'a> {
    job: &'a Product<'a>,
    columns: Columns<'a>,
    widened: &'a mut Vec<f32>,
}

impl Kernel for MultiplyPanel<'_> {
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

impl MultiplyPanel<'_> {
    /// The product, the weights being stored as `T`.
    #[inline(always)]
    fn multiply<S: Simd, T: Stored>(&mut self, simd: S) {
        let Self { job, columns, widened: scratch } = self;
        let k = job.w.inputs();
        if job.w.layout == Layout::InOut {
            let n = job.w.outputs();
            for (i, rows) in T::numbers(&job.w.bytes).chunks(DEPTH * n).enumerate() {
                let numbers = gather::<S, T>(simd, rows.chunks_exact(n), columns.range(), scratch);
                all_rows::<S, F32>(simd, job, columns, i * DEPTH, rows_of::<F32>(widened(numbers)));
            }
            return;
        }
        let panel = &T::numbers(&job.w.bytes)[columns.range().start * k..][..PANEL * k];
        for (i, numbers) in panel.chunks(DEPTH * PANEL).enumerate() {
            let first = i * DEPTH;
            if T::IS_F32 || job.rows < MANY_ROWS {
                all_rows::<S, T>(simd, job, columns, first, rows_of::<T>(numbers));
            } else {
                widen::<S, T>(simd, numbers, scratch);
                let numbers = widened(&scratch[..numbers.len()]);
                all_rows::<S, F32>(simd, job, columns, first, rows_of::<F32>(numbers));
            }
        }
    }
}

/// Some columns of rows of an (in, out) matrix as a part of a panel, widened, with zeros beyond the last.
#[inline(always)]
fn gather<'a, 'b, S: Simd, T: Stored>(
    simd: S,
    rows: impl ExactSizeIterator<Item = &'a [T::Number]>,
    columns: Range<usize>,
    scratch: &'b mut Vec<f32>,
) -> &'b [f32]
where
    T::Number: 'a,
{
    let len = rows.len() * PANEL;
    if scratch.len() < len {
        scratch.resize(len, 0.0);
    }
    for (row, out) in rows.zip(scratch.as_chunks_mut::<PANEL>().0) {
        let mut numbers = &row[columns.clone()];
        for out in out.as_chunks_mut().0 {
            let (vector, rest) = numbers.split_at(numbers.len().min(LANES));
            simd.store(out, T::load_up_to(simd, vector));
            numbers = rest;
        }
    }
    &scratch[..len]
}

/// A part of a panel, input by input.
#[inline(always)]
fn rows_of<T: Stored>(numbers: &[T::Number]) -> &[Row<T>] {
    numbers.as_chunks().0.as_chunks().0
}

/// Adds the products of a part, whose inputs begin with `first`, to the sums of all rows, which are kept in the output.
#[inline(always)]
fn all_rows<S: Simd, T: Stored>(simd: S, job: &Product<'_>, columns: &mut Columns<'_>, first: usize, w: &[Row<T>]) {
    let mut m = 0;
    while m < job.rows {
        // No arm takes more rows than are left.
        let left = job.rows - m;
        m += match (S::TILE_ROWS, S::TILE_VECTORS) {
            (8, VECTORS) if left >= 8 => row_of_tiles::<S, T, 8, VECTORS>(simd, job, columns, m, first, w),
            (_, VECTORS) if left >= 4 => row_of_tiles::<S, T, 4, VECTORS>(simd, job, columns, m, first, w),
            (_, VECTORS) if left >= 2 => row_of_tiles::<S, T, 2, VECTORS>(simd, job, columns, m, first, w),
            (6, _) if left >= 6 => row_of_tiles::<S, T, 6, 1>(simd, job, columns, m, first, w),
            (_, 1) if left >= 4 => row_of_tiles::<S, T, 4, 1>(simd, job, columns, m, first, w),
            // A single row takes all of a panel's vectors together, in the order in which they lie in memory.
            _ => row_of_tiles::<S, T, 1, VECTORS>(simd, job, columns, m, first, w),
        };
    }
}

/// `R` rows from `m` on, `V` vectors at a time; returns `R`.
#[inline(always)]
fn row_of_tiles<S: Simd, T: Stored, const R: usize, const V: usize>(
    simd: S,
    job: &Product<'_>,
    columns: &mut Columns<'_>,
    m: usize,
    first: usize,
    w: &[Row<T>],
) -> usize {
    let k = job.w.inputs();
    let mut x = [&[][..]; R];
    for (r, x) in x.iter_mut().enumerate() {
        *x = &job.x[(m + r) * k + first..][..w.len()];
    }
    for v in (0..VECTORS).step_by(V) {
        let mut sums = [[simd.splat(0.0); V]; R];
        for (i, w) in w.iter().enumerate() {
            let mut numbers = [simd.splat(0.0); V];
            for (j, number) in numbers.iter_mut().enumerate() {
                *number = T::load(simd, &w[v + j]);
            }
            for (x, sums) in x.iter().zip(&mut sums) {
                let x = simd.splat(x[i]);
                for (sum, number) in sums.iter_mut().zip(numbers) {
                    *sum = simd.fma(x, number, *sum);
                }
            }
        }
        if columns.range().len() == PANEL {
            for (r, sums) in sums.iter().enumerate() {
                let y = &mut columns.row(m + r).as_chunks_mut().0[v..][..V];
                for (y, sum) in y.iter_mut().zip(sums) {
                    let sum = if first == 0 { *sum } else { simd.add(simd.load(y), *sum) };
                    simd.store(y, sum);
                }
            }
        } else {
            // From a copy, for they stay in registers only where all loops over them are unrolled.
            let sums = sums;
            for (r, sums) in sums.iter().enumerate() {
                for (y, sum) in columns.row(m + r).chunks_mut(LANES).skip(v).zip(sums) {
                    let sum = if first == 0 { *sum } else { simd.add(simd.load_up_to(y), *sum) };
                    simd.store_up_to(y, sum);
                }
            }
        }
    }
    R
}
