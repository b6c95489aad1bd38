//! Products of activations (M, K) with a weight matrix of small integers in blocks with a scale, as ggml defines them.
//!
//! Activations are rounded to 8 bits, 32 with one scale, so that the products are of integers, which processors
//! multiply four times as fast as floating-point numbers; and 4 or 8 bits a weight are read in a fraction of the time
//! of 32. Matrices are packed into `panels` when they are loaded.
//!
//! A single row is multiplied with the weights as they are unpacked (`row`); for more rows a part of two panels at a
//! time is unpacked into the L1 cache, and multiplied in registers (`tiles`) or, where the processor has a matrix
//! unit and there are rows enough, there (`unit`). In each way an output is one chain of sums over its groups of inputs,
//! so it has the same bits whatever the batch.
//!
//! Reference: ggml, `ggml-common.h` and `ggml-quants.c`.

mod activations;
mod format;
mod matrix;
mod panels;
mod row;
mod tiles;
mod unit;
mod unpacked;

use std::cell::RefCell;
use std::marker::PhantomData;

pub use matrix::QuantizedMatrix;
pub use panels::{PANEL, pack};

use super::product::{self, Epilogue};
use super::share::{Columns, for_each_columns};
use super::simd::{Kernel, MatrixUnit, Simd, dispatch};
use crate::base::{QuantizedType, pool};
use activations::{Activations, CHUNK};
use format::{Format, Q4K, Q5K, Q6K, Q8_0};
use panels::{Ahead, PAIR};
use unpacked::{DEPTH, Place, Unpacked};

/// Pairs of panels that one thread takes at a time, at most.
const PAIRS: usize = 16;

/// Shares of the work for each thread, at least.
const SHARES: usize = 8;

/// A product with a quantised matrix.
type Product<'a> = product::Product<'a, Activations, QuantizedMatrix>;

thread_local! {
    static ACTIVATIONS: RefCell<Activations> = RefCell::default();
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch { unpacked: unpacked::empty(), ring: unit::EMPTY }) };
}

/// What a thread keeps between calls.
struct Scratch {
    unpacked: Unpacked,
    /// Sums that come from a matrix unit.
    ring: unit::Ring,
}

/// `y = epilogue(x W + bias)`: `x` is (M, K), `y` (M, N), both row-major; `bias` (N).
///
/// # Panics
/// If the lengths do not fit the matrix.
pub fn matmul(x: &[f32], w: &QuantizedMatrix, bias: Option<&[f32]>, epilogue: Epilogue<'_>, y: &mut [f32]) {
    let (rows, outputs) = (product::rows_of(x, w.inputs()), w.outputs());
    ACTIVATIONS.with_borrow_mut(|activations| {
        activations.set(x, w.inputs());
        let job = &Product::new((activations, w), (rows, outputs), bias, epilogue, y);
        // Shares small enough that no thread waits long for another.
        let width = outputs.div_ceil(PAIR).div_ceil(SHARES * pool::threads()).clamp(1, PAIRS) * PAIR;
        for_each_columns(rows * w.inputs() * outputs, y, rows, width, |columns| {
            // The scratch is fetched here: a closure inside the kernel would be compiled without its instructions.
            SCRATCH.with_borrow_mut(|scratch| match w.dtype() {
                QuantizedType::Q8_0 => dispatch(MultiplyColumns::<Q8_0>::new(job, columns, scratch)),
                QuantizedType::Q4K => dispatch(MultiplyColumns::<Q4K>::new(job, columns, scratch)),
                QuantizedType::Q5K => dispatch(MultiplyColumns::<Q5K>::new(job, columns, scratch)),
                QuantizedType::Q6K => dispatch(MultiplyColumns::<Q6K>::new(job, columns, scratch)),
            });
        });
    });
}

/// Some outputs of all rows, from a multiple of [`PAIR`] on, the weights being stored as `F`.
struct MultiplyColumns<'a, F> {
    job: &'a Product<'a>,
    columns: Columns<'a>,
    scratch: &'a mut Scratch,
    format: PhantomData<F>,
}

impl<F: Format> Kernel for MultiplyColumns<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let unit = if self.job.rows < unit::SIDE { None } else { S::Unit::configure(F::GROUP) };
        self.multiply(simd, unit.as_ref());
        self.job.finish(&mut self.columns);
    }
}

/// Part of the inputs of a pair of panels.
#[derive(Clone, Copy)]
struct Part {
    /// The first of the outputs.
    column: usize,
    /// The first of the chunks of inputs.
    first: usize,
    chunks: usize,
}

impl<'a, F: Format> MultiplyColumns<'a, F> {
    fn new(job: &'a Product<'a>, columns: Columns<'a>, scratch: &'a mut Scratch) -> Self {
        Self { job, columns, scratch, format: PhantomData }
    }

    /// The outputs, by `unit` where there is one for the groups of `F`, and 16 rows.
    #[inline(always)]
    fn multiply<S: Simd, U: MatrixUnit>(&mut self, simd: S, unit: Option<&U>) {
        let Self { job, columns, scratch: Scratch { unpacked, ring }, .. } = self;
        let (w, range) = (job.w, columns.range());
        let mut ahead = Ahead::of(w.panel(range.start / PANEL));
        for column in range.step_by(PAIR) {
            let pair = [w.panel(column / PANEL), w.panel(column / PANEL + 1)];
            if job.rows == 1 {
                for (side, panel) in pair.iter().enumerate() {
                    let sums = row::multiply::<S, F>(simd, job.x.row(0), panel, &mut ahead);
                    columns.store(simd, 0, column + side * PANEL, sums);
                }
                continue;
            }
            for first in (0..w.inputs()).step_by(DEPTH) {
                let inputs = DEPTH.min(w.inputs() - first);
                for (side, panel) in pair.iter().enumerate() {
                    for i in 0..inputs / F::LEN {
                        ahead.prefetch(simd, F::SIZE * PANEL);
                        let block = &panel[(first / F::LEN + i) * F::SIZE * PANEL..][..F::SIZE * PANEL];
                        F::unpack(simd, block, &mut Place::<F>::new(unpacked, i, side == 1));
                    }
                }
                let part = Part { column, first: first / CHUNK, chunks: inputs / CHUNK };
                match unit {
                    Some(unit) => {
                        unit::center::<S, F>(unpacked);
                        unit::multiply::<S, F, U>(simd, unit, job.x, job.rows, columns, unpacked, part, ring);
                    }
                    None => tiles::multiply::<S, F>(simd, job.x, job.rows, columns, unpacked, part),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
