//! One row of activations: the weights are multiplied as they are unpacked.

use std::marker::PhantomData;

use super::activations::Activations;
use super::format::{Format, Rows, dot, group_sum, offset};
use super::level::Integers;
use super::panel::{BLOCK, Sink};
use super::product::{Ahead, Product};
use crate::kernels::simd::LANES;

/// Multiplies the only row of activations with 16 rows of weights, those of the outputs from `column` on.
///
/// # Safety
/// The processor has the instructions of `S`; `rows` are whole rows of a matrix stored as `F`; the columns of `y`
/// belong to the calling thread.
#[inline(always)]
pub(super) unsafe fn multiply_row<S: Integers, F: Format>(
    job: &Product<'_>,
    rows: Rows,
    column: usize,
    ahead: &mut Ahead,
) {
    // SAFETY: the caller promises the instructions and the rows, which are `inputs / LEN` stored blocks, as `x` is.
    unsafe {
        let mut sums = S::splat(0.0);
        for i in 0..job.w.inputs / F::LEN {
            ahead.prefetch::<S>(LANES * F::SIZE);
            let mut block = Block::<S, F>::new(job.x, i * (F::LEN / BLOCK));
            F::unpack::<S>(rows.skip::<F>(i), 0, &mut block);
            sums = block.add_to(sums);
        }
        job.store::<S>(0, column, sums);
    }
}

/// The products of a row with a stored block of 16 rows of weights.
struct Block<'a, S: Integers, F: Format> {
    x: &'a Activations,
    /// The first of the blocks of activations.
    first: usize,
    /// Sums of integers, by group of inputs.
    whole: [S::I; 16],
    scales: [S::V; 16],
    minima: [S::V; 8],
    format: PhantomData<F>,
}

impl<'a, S: Integers, F: Format> Block<'a, S, F> {
    /// # Safety
    /// The processor has the instructions of `S`; `x` has `F::LEN` inputs from block `first` on. All functions of a
    /// block rest on this.
    #[inline(always)]
    unsafe fn new(x: &'a Activations, first: usize) -> Self {
        // SAFETY: the caller promises the instructions and the inputs, which have two sums for each block of 32.
        unsafe {
            let mut whole = [S::splat_i(0); 16];
            for (group, whole) in whole.iter_mut().enumerate().take(F::LEN / F::GROUP) {
                let sum = group_sum::<F>(x.sums.as_ptr().add(2 * first), group);
                *whole = S::splat_i(-offset::<S, F>() * sum);
            }
            let zero = S::splat(0.0);
            Self { x, first, whole, scales: [zero; 16], minima: [zero; 8], format: PhantomData }
        }
    }

    /// Adds the products, scaled, to `sums`, in the order of the inputs.
    ///
    /// # Safety
    /// As for [`new`](Self::new).
    #[inline(always)]
    unsafe fn add_to(&self, mut sums: S::V) -> S::V {
        // SAFETY: `new` was promised the instructions and the activations of `LEN` inputs.
        unsafe {
            for block in 0..F::LEN / BLOCK {
                let scale = *self.x.scales.as_ptr().add(self.first + block);
                for i in 0..BLOCK / F::GROUP {
                    let i = block * (BLOCK / F::GROUP) + i;
                    sums = S::fma(S::to_float(self.whole[i]), S::mul(self.scales[i], S::splat(scale)), sums);
                }
                if F::MINIMA {
                    let total = *self.x.totals.as_ptr().add(self.first + block);
                    sums = S::fma(S::splat(total), self.minima[block], sums);
                }
            }
            sums
        }
    }
}

impl<S: Integers, F: Format> Sink<S> for Block<'_, S, F> {
    #[inline(always)]
    unsafe fn bytes(&mut self, i: usize, v: S::I) {
        // SAFETY: `new` was promised the instructions and `LEN` activations, and the caller promises `4 * i < LEN`.
        unsafe {
            let x = self.x.numbers.as_ptr().add(self.first * BLOCK + 4 * i).cast::<i32>().read_unaligned();
            let whole = &mut self.whole[4 * i / F::GROUP];
            *whole = dot::<S, F>(*whole, v, S::splat_i(x));
        }
    }

    #[inline(always)]
    unsafe fn scales(&mut self, group: usize, v: S::V) {
        self.scales[group] = v;
    }

    #[inline(always)]
    unsafe fn minima(&mut self, block: usize, v: S::V) {
        self.minima[block] = v;
    }
}
