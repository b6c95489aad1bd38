//! Activations as 8-bit integers, 32 with one scale.

use super::super::simd::LANES;
use super::level::{Integers, dispatch};
use super::panel::BLOCK;
use crate::base::pool::{self, Shareable};

/// Rows of `K` activations, `K` a multiple of 32: `x ≈ scale * number`.
#[derive(Default)]
pub(super) struct Activations {
    /// (M, K).
    pub numbers: Vec<i8>,
    /// (M, K / 32).
    pub scales: Vec<f32>,
    /// Sums of 16 numbers each, (M, K / 16).
    pub sums: Vec<i32>,
    /// What 32 numbers stand for, added up, negated: the factor of the weights' minima, (M, K / 32).
    pub totals: Vec<f32>,
}

/// Rows that one thread takes at a time.
const ROWS: usize = 8;

impl Activations {
    /// Quantises the rows of `x` (M, K), `K` a multiple of 32. Rows do not depend on each other.
    pub fn set(&mut self, x: &[f32], inputs: usize) {
        self.numbers.resize(x.len(), 0);
        self.scales.resize(x.len() / BLOCK, 0.0);
        self.sums.resize(x.len() / LANES, 0);
        self.totals.resize(x.len() / BLOCK, 0.0);
        let numbers = Shareable(self.numbers.as_mut_ptr());
        let scales = Shareable(self.scales.as_mut_ptr());
        let sums = Shareable(self.sums.as_mut_ptr());
        let totals = Shareable(self.totals.as_mut_ptr());
        let rows = x.len() / inputs;
        pool::run_costing(x.len(), rows.div_ceil(ROWS), |i| {
            for row in i * ROWS..rows.min((i + 1) * ROWS) {
                let at = row * inputs;
                // SAFETY: the buffers were sized above for all of `x`; each row is whole blocks, written by one call.
                unsafe {
                    quantize_dispatch(
                        &x[at..at + inputs],
                        numbers.get().add(at),
                        scales.get().add(at / BLOCK),
                        sums.get().add(at / LANES),
                        totals.get().add(at / BLOCK),
                    );
                }
            }
        });
    }
}

dispatch! {
    unsafe fn quantize_dispatch =
        quantize(x: &[f32], numbers: *mut i8, scales: *mut f32, sums: *mut i32, totals: *mut f32)
}

/// Below this a block counts as zeros: the inverse of its scale might not be finite.
const SMALLEST: f32 = 1e-30;

/// One row.
///
/// # Safety
/// The processor has the instructions of `S`; there is room for `K` numbers, `K / 32` scales and totals, and `K / 16`
/// sums, which belong to the calling thread.
#[inline(always)]
unsafe fn quantize<S: Integers>(x: &[f32], numbers: *mut i8, scales: *mut f32, sums: *mut i32, totals: *mut f32) {
    let blocks = x.len() / BLOCK;
    // SAFETY: the caller promises the instructions and the room; block `i` is 32 numbers of `x`, one scale, two sums and
    // one total.
    unsafe {
        let zero = S::splat(0.0);
        let mut faults = zero;
        for block in 0..blocks {
            let p = x.as_ptr().add(block * BLOCK);
            let halves = [S::load(p), S::load(p.add(LANES))];
            let [a, b] = halves;
            let largest = S::largest_of(S::max(S::max(a, S::sub(zero, a)), S::max(b, S::sub(zero, b))));
            let (scale, inverse) = if largest > SMALLEST { (largest / 127.0, 127.0 / largest) } else { (0.0, 0.0) };
            *scales.add(block) = scale;
            for (i, v) in halves.iter().enumerate() {
                let whole = S::round(S::mul(*v, S::splat(inverse)));
                S::store_bytes(numbers.add(block * BLOCK + i * LANES), whole);
                *sums.add(2 * block + i) = S::sum_whole(whole);
            }
            *totals.add(block) = -((*sums.add(2 * block) + *sums.add(2 * block + 1)) as f32) * scale;
            faults = S::fma(S::add(a, b), zero, faults);
        }
        // What is not finite has no place among integers, but must not get lost either.
        if !S::sum(faults).is_finite() {
            std::slice::from_raw_parts_mut(scales, blocks).fill(f32::NAN);
            std::slice::from_raw_parts_mut(totals, blocks).fill(f32::NAN);
        }
    }
}
