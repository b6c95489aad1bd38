//! One row of activations: the weights are multiplied as they are unpacked.

use std::marker::PhantomData;

use super::activations::{CHUNK, Chunk};
use super::format::{Format, Sink, dot, group_sum, offset};
use super::panels::{Ahead, PANEL};
use crate::kernels::simd::Simd;

/// The products of a row of activations with the 16 outputs of a panel.
#[inline(always)]
pub(super) fn multiply<S: Simd, F: Format>(simd: S, x: &[Chunk], panel: &[u8], ahead: &mut Ahead) -> S::V {
    let mut sums = simd.splat(0.0);
    for (i, x) in x.chunks_exact(F::LEN / CHUNK).enumerate() {
        let block = &panel[i * F::SIZE * PANEL..][..F::SIZE * PANEL];
        ahead.prefetch(simd, F::SIZE * PANEL);
        let mut products = Products::<S, F>::new(simd, &x[..F::LEN / CHUNK]);
        F::unpack(simd, block, &mut products);
        sums = products.add_to(simd, sums);
    }
    sums
}

/// The products of a row with a block of 16 outputs.
struct Products<'a, S: Simd, F: Format> {
    x: &'a [Chunk],
    /// Sums of integers, by group of inputs.
    whole: [S::I; 16],
    scales: [S::V; 16],
    minima: [S::V; 8],
    format: PhantomData<F>,
}

impl<'a, S: Simd, F: Format> Products<'a, S, F> {
    /// With the activations of the block's inputs.
    #[inline(always)]
    fn new(simd: S, x: &'a [Chunk]) -> Self {
        let mut whole = [simd.splat_i(0); 16];
        for (group, whole) in whole.iter_mut().enumerate().take(F::LEN / F::GROUP) {
            *whole = simd.splat_i(-offset::<S, F>() * group_sum::<F>(x, group));
        }
        let zero = simd.splat(0.0);
        Self { x, whole, scales: [zero; 16], minima: [zero; 8], format: PhantomData }
    }

    /// Adds the products, scaled, to `sums`, in the order of the inputs.
    #[inline(always)]
    fn add_to(&self, simd: S, mut sums: S::V) -> S::V {
        for chunk in 0..F::LEN / CHUNK {
            let scale = simd.splat(self.x[chunk].scale);
            for i in 0..CHUNK / F::GROUP {
                let i = chunk * (CHUNK / F::GROUP) + i;
                sums = simd.fma(simd.to_float(self.whole[i]), simd.mul(self.scales[i], scale), sums);
            }
            if F::MINIMA {
                sums = simd.fma(simd.splat(self.x[chunk].total), self.minima[chunk], sums);
            }
        }
        sums
    }
}

impl<S: Simd, F: Format> Sink<S> for Products<'_, S, F> {
    #[inline(always)]
    fn bytes(&mut self, simd: S, i: usize, v: S::I) {
        let x = self.x[i / (CHUNK / 4)].fours[i % (CHUNK / 4)];
        let whole = &mut self.whole[4 * i / F::GROUP];
        *whole = dot::<S, F>(simd, *whole, v, simd.splat_i(x));
    }

    #[inline(always)]
    fn scales(&mut self, _: S, group: usize, v: S::V) {
        self.scales[group] = v;
    }

    #[inline(always)]
    fn minima(&mut self, _: S, chunk: usize, v: S::V) {
        self.minima[chunk] = v;
    }
}
