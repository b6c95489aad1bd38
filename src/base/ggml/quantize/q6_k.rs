//! Q6_K: 256 numbers of six bits in 16 groups of 16, whose scales have eight bits and an f16 scale of their own.

use half::f16;

use super::{abs, by_group, nearest, nearest_within};
use crate::base::simd::{Kernel, LANES, Simd};

/// Numbers of a group.
const GROUP: usize = 16;
/// Numbers of a block: a group to each lane.
const BLOCK: usize = GROUP * LANES;
/// Bytes of a block.
const SIZE: usize = 210;
/// The whole numbers lie in -32..=31.
const MOST: f32 = 32.0;
/// A group of numbers below this counts as zeros (`GROUP_MAX_EPS`).
const SMALLEST: f32 = 1e-15;

/// `quantize_row_q6_K_ref`.
pub(super) struct Quantize<'a> {
    pub numbers: &'a [f32],
    pub blocks: &'a mut [u8],
}

impl Kernel for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let blocks = self.blocks.as_chunks_mut::<SIZE>().0;
        for (numbers, block) in self.numbers.as_chunks::<BLOCK>().0.iter().zip(blocks) {
            let x = by_group(numbers);
            let fit = Fit::search(simd, &x);
            let scales = simd.lanes(fit.scale);
            let mut largest = 0.0f32;
            for scale in scales {
                if scale.abs() > largest.abs() {
                    largest = scale;
                }
            }
            if largest.abs() < SMALLEST {
                block.fill(0);
                continue;
            }
            let inverse = -128.0 / largest;
            let d = f16::from_f32(1.0 / inverse);
            let bytes = scales.map(|scale| nearest(inverse * scale).min(127) as i8);
            let whole = fit.numbers(simd, &x, &bytes.map(|byte| d.to_f32() * f32::from(byte)));
            write_numbers(&whole, block);
            block[192..208].copy_from_slice(&bytes.map(|byte| byte as u8));
            block[208..].copy_from_slice(&d.to_le_bytes());
        }
    }
}

/// Scales of 16 groups.
struct Fit<V> {
    scale: V,
    /// The group's numbers were `inverse * x` when this fit was found, rounded.
    inverse: V,
    /// The largest size of a number.
    largest: V,
}

impl<V: Copy> Fit<V> {
    /// `make_qx_quants` with `rmse_type` 1, where each number's error weighs as much as its square.
    #[inline(always)]
    fn search<S: Simd<V = V>>(simd: S, x: &[[f32; LANES]; GROUP]) -> Self {
        let zero = simd.splat(0.0);
        // The first number of the largest size.
        let (mut largest, mut size) = (zero, zero);
        for x in x {
            let x = simd.load(x);
            let its_size = abs(simd, x);
            largest = simd.if_less(size, its_size, x, largest);
            size = simd.if_less(size, its_size, its_size, size);
        }
        let inverse = simd.div(simd.splat(-MOST), largest);
        let [product, squares] = sums(simd, x, inverse);
        let quotient = simd.div(product, squares);
        let scale = simd.if_less(squares, simd.splat(f32::from_bits(1)), zero, quotient);
        let mut best = Self { scale, inverse, largest: size };
        let mut most = simd.mul(scale, product);
        for step in (-9i8..=9).filter(|step| *step != 0) {
            let inverse = simd.div(simd.splat(-(MOST + 0.1 * f32::from(step))), largest);
            let [product, squares] = sums(simd, x, inverse);
            let quotient = simd.div(product, squares);
            let found = simd.if_less(zero, squares, simd.mul(product, product), simd.splat(f32::NAN));
            let than = simd.mul(most, squares);
            let better = |new, old| simd.if_less(than, found, new, old);
            best.scale = better(quotient, best.scale);
            best.inverse = better(inverse, best.inverse);
            most = better(simd.mul(quotient, product), most);
        }
        best.scale = simd.if_less(size, simd.splat(SMALLEST), zero, best.scale);
        best
    }

    /// The whole numbers plus 32, now that the scales are rounded; those of the search where a scale became 0.
    #[inline(always)]
    fn numbers<S: Simd<V = V>>(
        &self,
        simd: S,
        x: &[[f32; LANES]; GROUP],
        scales: &[f32; LANES],
    ) -> [[i8; LANES]; GROUP] {
        let mut out = [[0; LANES]; GROUP];
        let (scale, zero, offset) = (simd.load(scales), simd.splat(0.0), simd.splat(MOST));
        let is_scaled = simd.load(&scales.map(|scale| if scale == 0.0 { 0.0 } else { 1.0 }));
        let all_are = !scales.contains(&0.0);
        for (out, x) in out.iter_mut().zip(x) {
            let x = simd.load(x);
            let mut whole = simd.add(within(simd, simd.div(x, scale)), offset);
            if !all_are {
                let searched = simd.add(within(simd, simd.mul(self.inverse, x)), offset);
                let searched = simd.if_less(self.largest, simd.splat(SMALLEST), zero, searched);
                whole = simd.if_less(zero, is_scaled, whole, searched);
            }
            simd.store_bytes(out, whole);
        }
        out
    }
}

/// The nearest whole numbers that there are.
#[inline(always)]
fn within<S: Simd>(simd: S, v: S::V) -> S::V {
    nearest_within(simd, v, -MOST, MOST - 1.0)
}

/// The weighted sums of the numbers times their whole numbers, and of the squares of the latter.
#[inline(always)]
fn sums<S: Simd>(simd: S, x: &[[f32; LANES]; GROUP], inverse: S::V) -> [S::V; 2] {
    let (mut product, mut squares) = (simd.splat(0.0), simd.splat(0.0));
    for x in x {
        let x = simd.load(x);
        let (whole, weight) = (within(simd, simd.mul(inverse, x)), simd.mul(x, x));
        product = simd.add(product, simd.mul(simd.mul(weight, x), whole));
        squares = simd.add(squares, simd.mul(simd.mul(weight, whole), whole));
    }
    [product, squares]
}

/// Writes the lower four bits, then the upper two, of 128 numbers at a time: 32 of them at a distance of 32 share bytes.
#[inline(always)]
fn write_numbers(whole: &[[i8; LANES]; GROUP], block: &mut [u8; SIZE]) {
    let mut numbers = [0u8; BLOCK];
    for (i, whole) in whole.iter().enumerate() {
        for (lane, x) in whole.iter().enumerate() {
            numbers[GROUP * lane + i] = *x as u8;
        }
    }
    let (low, high) = block.split_at_mut(BLOCK / 2);
    let halves = low.as_chunks_mut::<64>().0.iter_mut().zip(high.as_chunks_mut::<32>().0);
    for (numbers, (low, high)) in numbers.as_chunks::<128>().0.iter().zip(halves) {
        for i in 0..32 {
            let [a, b, c, d] = [numbers[i], numbers[i + 32], numbers[i + 64], numbers[i + 96]];
            low[i] = a & 15 | c << 4;
            low[i + 32] = b & 15 | d << 4;
            high[i] = a >> 4 | b >> 4 << 2 | c >> 4 << 4 | d >> 4 << 6;
        }
    }
}
