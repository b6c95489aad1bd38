//! Few rows: the weights stream past the sums once.
//!
//! Threads take blocks of inputs, not ranges of outputs: a block of an (in, out) weight is one run of memory, read from
//! front to back, and runs are what memory is fast at (ranges of outputs reach two thirds of the speed).

use super::{BLOCK_INPUTS, FloatType, Product, SCRATCH, split};
use crate::kernels::activation::add_slice;
use crate::kernels::pool::{self, Shareable};
use crate::kernels::simd::{LANES, Simd, dispatch};
use crate::kernels::stored::{BF16, F16, F32, Stored, load_up_to, read_up_to, store_up_to};

/// Inputs that pass the sums together.
const STEP: usize = 8;

/// Parts of the work for each thread, at least.
const PARTS: usize = 4;

/// Outputs that a thread takes at a time, at least.
const SHORTEST_RUN: usize = 512;

/// The product of at most [`super::FEW_ROWS`] rows with an (in, out) weight.
pub(super) fn run(job: &Product<'_>) {
    let (rows, k, n) = (job.rows, job.w.inputs, job.w.outputs);
    let blocks = k.div_ceil(BLOCK_INPUTS);
    // Enough parts that no thread waits long for another, in runs as long as that allows.
    let parts = (PARTS * pool::threads()).div_ceil(blocks);
    let width = n.div_ceil(parts).max(SHORTEST_RUN).next_multiple_of(LANES);
    let parts = n.div_ceil(width);
    SCRATCH.with_borrow_mut(|sums| {
        if sums.len() < blocks * rows * n {
            sums.resize(blocks * rows * n, 0.0);
        }
        let out = Shareable(sums.as_mut_ptr());
        pool::run_costing(rows * k * n, blocks * parts, |i| {
            let (first, from) = (i / parts * BLOCK_INPUTS, i % parts * width);
            let block = Block { first, end: k.min(first + BLOCK_INPUTS), from, to: n.min(from + width) };
            // SAFETY: `matmul` and `Matrix::new` checked the lengths; the sums have (rows, N) for each block of inputs,
            // of which each call gets its own columns.
            unsafe { stream_dispatch(job, block, out.get().add(i / parts * rows * n)) };
        });
        let sums = &sums[..blocks * rows * n];
        split(job, blocks * rows * n, width, |from, to| {
            for m in 0..rows {
                // SAFETY: `m < rows` and `to <= N`, and each call gets its own columns of `y`.
                let y = unsafe { std::slice::from_raw_parts_mut(job.y.add(m * n + from), to - from) };
                y.copy_from_slice(&sums[m * n..][from..to]);
                for block in 1..blocks {
                    add_slice(y, &sums[(block * rows + m) * n..][from..to]);
                }
                // SAFETY: as above; the slice is not used any more.
                unsafe { job.finish(m, from, to) };
            }
        });
    });
}

/// Inputs `first..end` of the outputs `from..to`.
#[derive(Clone, Copy)]
struct Block {
    first: usize,
    end: usize,
    from: usize,
    to: usize,
}

dispatch! { unsafe fn stream_dispatch = stream(job: &Product<'_>, block: Block, sums: *mut f32) }

/// # Safety
/// The processor has the instructions of `S`; the block lies in the matrix; `sums` points to (rows, N), of which the
/// block's columns belong to the calling thread.
#[inline(always)]
unsafe fn stream<S: Simd>(job: &Product<'_>, block: Block, sums: *mut f32) {
    // SAFETY: the caller's promises; the type is that of the numbers.
    unsafe {
        match job.w.dtype {
            FloatType::F32 => stream_as::<S, F32>(job, block, sums),
            FloatType::F16 => stream_as::<S, F16>(job, block, sums),
            FloatType::BF16 => stream_as::<S, BF16>(job, block, sums),
        }
    }
}

/// The sums over a block of inputs, (rows, N).
///
/// # Safety
/// As for [`stream`]; the weights are stored as `T`.
#[inline(always)]
unsafe fn stream_as<S: Simd, T: Stored>(job: &Product<'_>, block: Block, sums: *mut f32) {
    let (k, n) = (job.w.inputs, job.w.outputs);
    // SAFETY: the caller promises the instructions, the block and the sums; inputs `row..row + I` end with the block.
    unsafe {
        let w = job.w.bytes.as_ptr().cast::<T::Number>();
        for m in 0..job.rows {
            std::slice::from_raw_parts_mut(sums.add(m * n + block.from), block.to - block.from).fill(0.0);
        }
        let mut row = block.first;
        while row < block.end {
            let w = w.add(row * n);
            for m in 0..job.rows {
                let (x, sums) = (job.x.add(m * k + row), sums.add(m * n));
                if row + STEP <= block.end {
                    add_products::<S, T, STEP>(x, w, n, block, sums);
                } else {
                    for i in 0..block.end - row {
                        add_products::<S, T, 1>(x.add(i), w.add(i * n), n, block, sums);
                    }
                }
            }
            row += STEP;
        }
    }
}

/// Adds the products of `I` inputs, one after the other, to the sums.
///
/// # Safety
/// The processor has the instructions of `S`; `x` points to `I` numbers, `w` to as many rows of the matrix, `sums` to
/// `N` numbers, of which the block's columns belong to the calling thread.
#[inline(always)]
unsafe fn add_products<S: Simd, T: Stored, const I: usize>(
    x: *const f32,
    w: *const T::Number,
    n: usize,
    block: Block,
    sums: *mut f32,
) {
    // SAFETY: the caller promises the instructions, the rows and the sums; vectors and the rest end with the block's
    // columns.
    unsafe {
        let mut s = [S::splat(0.0); I];
        for (i, s) in s.iter_mut().enumerate() {
            *s = S::splat(*x.add(i));
        }
        let mut column = block.from;
        while column + LANES <= block.to {
            add_vector::<S, T, I, true>(&s, w.add(column), n, LANES, sums.add(column));
            column += LANES;
        }
        if column < block.to {
            add_vector::<S, T, I, false>(&s, w.add(column), n, block.to - column, sums.add(column));
        }
    }
}

/// Adds the products of `I` inputs to the sums of 16 outputs, or of the first `width` where they are not `WHOLE`.
///
/// # Safety
/// The processor has the instructions of `S`; so many sums can be read and written, and so many weights read in each of
/// `I` rows, `n` apart.
#[inline(always)]
unsafe fn add_vector<S: Simd, T: Stored, const I: usize, const WHOLE: bool>(
    s: &[S::V; I],
    w: *const T::Number,
    n: usize,
    width: usize,
    sums: *mut f32,
) {
    // SAFETY: the caller promises the instructions, sums and weights; what is asked for ahead need not be valid.
    unsafe {
        let mut sum = if WHOLE { S::load(sums) } else { read_up_to::<S>(sums, width) };
        for (i, s) in s.iter().enumerate() {
            let weights = w.add(i * n);
            let numbers = if WHOLE { T::load::<S>(weights) } else { load_up_to::<S, T>(weights, width) };
            sum = S::fma(*s, numbers, sum);
            // So many runs side by side are more than the processor follows by itself.
            S::prefetch(weights.wrapping_add(I * n).cast());
        }
        if WHOLE { S::store(sums, sum) } else { store_up_to::<S>(sums, width, sum) }
    }
}
