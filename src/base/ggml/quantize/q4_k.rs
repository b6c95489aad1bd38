//! Q4_K and Q5_K: 256 numbers in 8 groups of 32, each with a scale and a minimum, which have six bits and f16 scales of
//! their own.

use half::f16;

use super::{abs, by_group, nearest, nearest_within};
use crate::base::simd::{Kernel, LANES, Simd};

/// Numbers of a group.
const GROUP: usize = 32;
/// Groups of a block.
const GROUPS: usize = 8;
/// Numbers of a block.
const BLOCK: usize = GROUP * GROUPS;
/// Blocks that are searched side by side: a group to each lane.
const AT_ONCE: usize = LANES / GROUPS;
/// Bytes of a block before its numbers: two f16 and 16 times six bits.
const HEAD: usize = 16;
/// The largest scale or minimum.
const MOST: f32 = 63.0;

/// What sets the two formats apart.
pub(super) struct Rule {
    /// The largest number.
    most: f32,
    /// What the first scale that is tried adds to it, and how many more are tried.
    first: f32,
    steps: u8,
    /// Bytes of a block.
    size: usize,
}

pub(super) const FOUR_BITS: Rule = Rule { most: 15.0, first: -1.0, steps: 20, size: 144 };
pub(super) const FIVE_BITS: Rule = Rule { most: 31.0, first: -0.5, steps: 15, size: 176 };

/// `quantize_row_q4_K_ref` and `quantize_row_q5_K_ref`.
pub(super) struct Quantize<'a> {
    pub rule: &'a Rule,
    pub numbers: &'a [f32],
    pub blocks: &'a mut [u8],
}

impl Kernel for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let blocks = self.blocks.chunks_mut(AT_ONCE * self.rule.size);
        for (numbers, blocks) in self.numbers.chunks(AT_ONCE * BLOCK).zip(blocks) {
            let x = by_group(numbers);
            let fit = Fit::search(simd, &x, self.rule);
            let scales = fit.write_heads(simd, blocks, self.rule.size);
            let whole = fit.numbers(simd, &x, &scales, self.rule.most);
            for (i, block) in blocks.chunks_exact_mut(self.rule.size).enumerate() {
                write_numbers(&whole, GROUPS * i, &mut block[HEAD..]);
            }
        }
    }
}

/// Scales and minima of 16 groups.
struct Fit<V> {
    scale: V,
    /// At most 0; what the block stores is the opposite.
    minimum: V,
    /// The group's numbers were `inverse * (x - shift)` when this fit was found, rounded.
    inverse: V,
    shift: V,
}

/// The six-bit scales and minima of 16 groups, times those of their block.
struct Scales {
    scale: [f32; LANES],
    minimum: [f32; LANES],
}

impl<V: Copy> Fit<V> {
    /// `make_qkx2_quants`, where each number's error weighs as much as the number and the root of the mean square together.
    #[inline(always)]
    fn search<S: Simd<V = V>>(simd: S, x: &[[f32; LANES]; GROUP], rule: &Rule) -> Self {
        let zero = simd.splat(0.0);
        let mut squares = zero;
        for x in x {
            let x = simd.load(x);
            squares = simd.add(squares, simd.mul(x, x));
        }
        let mean = simd.sqrt(simd.div(squares, simd.splat(GROUP as f32)));
        let mut weights = [zero; GROUP];
        let first = simd.load(&x[0]);
        weights[0] = simd.add(mean, abs(simd, first));
        let (mut minimum, mut maximum) = (first, first);
        let (mut sum_w, mut sum_x) = (weights[0], simd.mul(weights[0], first));
        for (x, weight) in x.iter().zip(&mut weights).skip(1) {
            let x = simd.load(x);
            *weight = simd.add(mean, abs(simd, x));
            minimum = simd.if_less(x, minimum, x, minimum);
            maximum = simd.if_less(maximum, x, x, maximum);
            sum_w = simd.add(sum_w, *weight);
            sum_x = simd.add(sum_x, simd.mul(*weight, x));
        }
        minimum = simd.if_less(zero, minimum, zero, minimum);
        let inverse = simd.div(simd.splat(rule.most), simd.sub(maximum, minimum));
        let mut best = Self { scale: simd.div(simd.splat(1.0), inverse), minimum, inverse, shift: minimum };
        let mut whole = [zero; GROUP];
        for (whole, x) in whole.iter_mut().zip(x) {
            *whole = best.number(simd, simd.load(x), rule.most);
        }
        let mut least = error(simd, x, &weights, &whole, best.scale, best.minimum);
        for step in 0..=rule.steps {
            let range = rule.first + 0.1 * f32::from(step) + rule.most;
            let inverse = simd.div(simd.splat(range), simd.sub(maximum, best.minimum));
            let mut next = Self { inverse, shift: best.minimum, ..best };
            let (mut sum_l, mut sum_l2, mut sum_xl) = (zero, zero, zero);
            for ((whole, x), weight) in whole.iter_mut().zip(x).zip(&weights) {
                let x = simd.load(x);
                *whole = next.number(simd, x, rule.most);
                let product = simd.mul(*weight, *whole);
                sum_l = simd.add(sum_l, product);
                sum_l2 = simd.add(sum_l2, simd.mul(product, *whole));
                sum_xl = simd.add(sum_xl, simd.mul(product, x));
            }
            // The scale and minimum of least squares for these numbers.
            let determinant = simd.sub(simd.mul(sum_w, sum_l2), simd.mul(sum_l, sum_l));
            let scale = simd.sub(simd.mul(sum_w, sum_xl), simd.mul(sum_x, sum_l));
            let minimum = simd.sub(simd.mul(sum_l2, sum_x), simd.mul(sum_l, sum_xl));
            let minimum = simd.div(minimum, determinant);
            next.scale = simd.if_less(zero, minimum, simd.div(sum_xl, sum_l2), simd.div(scale, determinant));
            next.minimum = simd.if_less(zero, minimum, zero, minimum);
            let found = error(simd, x, &weights, &whole, next.scale, next.minimum);
            // No fit where there is no determinant.
            let found = simd.if_less(zero, determinant, found, simd.splat(f32::INFINITY));
            let better = |new, old| simd.if_less(found, least, new, old);
            best = Self {
                scale: better(next.scale, best.scale),
                minimum: better(next.minimum, best.minimum),
                inverse: better(next.inverse, best.inverse),
                shift: better(next.shift, best.shift),
            };
            least = better(found, least);
        }
        best
    }

    /// The whole number for `x` of this fit.
    #[inline(always)]
    fn number<S: Simd<V = V>>(&self, simd: S, x: V, most: f32) -> V {
        nearest_within(simd, simd.mul(self.inverse, simd.sub(x, self.shift)), 0.0, most)
    }

    /// Writes the scales and minima of the blocks.
    #[inline(always)]
    fn write_heads<S: Simd<V = V>>(&self, simd: S, blocks: &mut [u8], size: usize) -> Scales {
        let (scales, minima) = (simd.lanes(self.scale), simd.lanes(self.minimum).map(|x| -x));
        let mut rounded = Scales { scale: [0.0; LANES], minimum: [0.0; LANES] };
        for (i, block) in blocks.chunks_exact_mut(size).enumerate() {
            let lanes = GROUPS * i..GROUPS * (i + 1);
            let (d, scales) = six_bits(&scales[lanes.clone()]);
            let (dmin, minima) = six_bits(&minima[lanes.clone()]);
            block[..2].copy_from_slice(&d.to_le_bytes());
            block[2..4].copy_from_slice(&dmin.to_le_bytes());
            for j in 0..4 {
                let (scale, minimum) = (scales[j + 4], minima[j + 4]);
                block[4 + j] = scales[j] | scale >> 4 << 6;
                block[8 + j] = minima[j] | minimum >> 4 << 6;
                block[12 + j] = scale & 15 | minimum << 4;
            }
            for (lane, (scale, minimum)) in lanes.zip(scales.into_iter().zip(minima)) {
                rounded.scale[lane] = d.to_f32() * f32::from(scale);
                rounded.minimum[lane] = dmin.to_f32() * f32::from(minimum);
            }
        }
        rounded
    }

    /// The whole numbers, now that the scales are rounded; those of the search where a scale became 0.
    #[inline(always)]
    fn numbers<S: Simd<V = V>>(
        &self,
        simd: S,
        x: &[[f32; LANES]; GROUP],
        scales: &Scales,
        most: f32,
    ) -> [[i8; LANES]; GROUP] {
        let mut out = [[0; LANES]; GROUP];
        let (scale, minimum) = (simd.load(&scales.scale), simd.load(&scales.minimum));
        let is_scaled = simd.load(&scales.scale.map(|scale| if scale == 0.0 { 0.0 } else { 1.0 }));
        let all_are = !scales.scale.contains(&0.0);
        for (out, x) in out.iter_mut().zip(x) {
            let x = simd.load(x);
            let mut whole = nearest_within(simd, simd.div(simd.add(x, minimum), scale), 0.0, most);
            if !all_are {
                whole = simd.if_less(simd.splat(0.0), is_scaled, whole, self.number(simd, x, most));
            }
            simd.store_bytes(out, whole);
        }
        out
    }
}

/// The weighted squares of what is left of the numbers.
#[inline(always)]
fn error<S: Simd>(
    simd: S,
    x: &[[f32; LANES]; GROUP],
    weights: &[S::V; GROUP],
    whole: &[S::V; GROUP],
    scale: S::V,
    minimum: S::V,
) -> S::V {
    let mut sum = simd.splat(0.0);
    for ((x, weight), whole) in x.iter().zip(weights).zip(whole) {
        let left = simd.sub(simd.add(simd.mul(scale, *whole), minimum), simd.load(x));
        sum = simd.add(sum, simd.mul(*weight, simd.mul(left, left)));
    }
    sum
}

/// Scales of a block's groups as six bits and their own scale.
fn six_bits(scales: &[f32]) -> (f16, [u8; GROUPS]) {
    let largest = scales.iter().fold(0.0, |largest, x| if *x > largest { *x } else { largest });
    let inverse = if largest > 0.0 { MOST / largest } else { 0.0 };
    let mut bits = [0; GROUPS];
    for (bits, scale) in bits.iter_mut().zip(scales) {
        *bits = (nearest(inverse * scale) as u8).min(MOST as u8);
    }
    (f16::from_f32(largest / MOST), bits)
}

/// Writes the numbers of the block whose groups are the lanes from `first` on: the fifth bits, if there are any, then four
/// bits of every two groups together.
#[inline(always)]
fn write_numbers(whole: &[[i8; LANES]; GROUP], first: usize, out: &mut [u8]) {
    let (fifths, fours) = out.split_at_mut(out.len() - BLOCK / 2);
    fifths.fill(0);
    for (i, whole) in whole.iter().enumerate() {
        for (pair, two) in whole[first..first + GROUPS].as_chunks::<2>().0.iter().enumerate() {
            let [a, b] = two.map(|x| x as u8);
            fours[GROUP * pair + i] = a & 15 | b << 4;
            if let Some(fifths) = fifths.get_mut(i) {
                *fifths |= (a >> 4 | b >> 4 << 1) << (2 * pair);
            }
        }
    }
}
