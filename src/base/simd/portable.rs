//! Plain Rust, for any processor: with its fused multiply-add, or with one of our own.

use std::convert::Infallible;

use half::slice::HalfFloatSliceExt;

use super::{Kernel, LANES, Simd};

/// Plain Rust; `FUSED` if the processor has fused multiply-add.
#[derive(Clone, Copy)]
pub struct Portable<const FUSED: bool>(());

/// Without fused multiply-add, for tests of the other levels.
#[cfg(test)]
pub(super) const BASELINE: Portable<false> = Portable(());

/// Runs a kernel without fused multiply-add.
pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Portable::<false>(()))
}

/// Runs a kernel with the processor's fused multiply-add.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "fma"))]
pub(super) fn run_fused<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Portable::<true>(()))
}

/// `a * b + c`, rounded once.
///
/// The product is exact in f64, and the sum rounded to f64 is nearly always good enough to round again to f32. It is not if
/// it may lie exactly between two f32 (of which its low bits tell) although the true sum does not.
#[inline(always)]
fn fused(a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
    /// The bits of an f64 below half a unit of an f32. Where that is not a normal number, half a unit is a higher bit, and
    /// these are 0 as well.
    const LOW: u32 = (1 << 28) - 1;
    let mut sums = [0.0; LANES];
    // Its highest bit: a form that compilers find vectors for.
    let mut doubts = 0;
    for i in 0..LANES {
        let sum = f64::from(a[i]) * f64::from(b[i]) + f64::from(c[i]);
        sums[i] = sum as f32;
        doubts |= (sum.to_bits() as u32 & LOW).wrapping_sub(1);
    }
    if doubts >> 31 == 1 { rounded_once(a, b, c) } else { sums }
}

/// As [`fused`], for any numbers.
#[cold]
#[inline(never)]
fn rounded_once(a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
    std::array::from_fn(|i| {
        let (product, c) = (f64::from(a[i]) * f64::from(b[i]), f64::from(c[i]));
        // Knuth's exact sum: `sum + error` is what it should be.
        let sum = product + c;
        let other = sum - product;
        let error = (product - (sum - other)) + (c - other);
        // Rounded to odd (Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded sums"): of the two f64 beside an
        // inexact sum the one whose last bit is 1, which the next rounding cannot take for a tie.
        // Where the sum is not finite, the error is NaN.
        let is_inexact = error.abs() > 0.0;
        let step = u64::from(is_inexact) & !sum.to_bits() & 1;
        let is_larger = (error > 0.0) == (sum > 0.0);
        let odd = if is_larger { sum.to_bits() + step } else { sum.to_bits() - step };
        f64::from_bits(odd) as f32
    })
}

impl<const FUSED: bool> Simd for Portable<FUSED> {
    type V = [f32; LANES];
    type I = [i32; LANES];
    type Unit = Infallible;
    const TILE_ROWS: usize = 4;
    const TILE_VECTORS: usize = 1;
    const DOT_TILE: (usize, usize) = (2, 2);
    const QUANTIZED_TILE_ROWS: usize = 1;
    const SUMS: usize = 4;
    const FLIP: u8 = 0;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, p: &[f32; LANES]) -> Self::V {
        *p
    }
    #[inline(always)]
    fn load_first(self, p: &[f32]) -> Self::V {
        std::array::from_fn(|i| p.get(i).copied().unwrap_or(0.0))
    }
    #[inline(always)]
    fn load_f32(self, p: &[[u8; 4]; LANES]) -> Self::V {
        std::array::from_fn(|i| f32::from_ne_bytes(p[i]))
    }
    #[inline(always)]
    fn load_f16(self, p: &[[u8; 2]; LANES]) -> Self::V {
        let mut wide = [0.0; LANES];
        p.map(half::f16::from_ne_bytes).convert_to_f32_slice(&mut wide);
        wide
    }
    #[inline(always)]
    fn load_bf16(self, p: &[[u8; 2]; LANES]) -> Self::V {
        std::array::from_fn(|i| f32::from_bits(u32::from(u16::from_ne_bytes(p[i])) << 16))
    }
    #[inline(always)]
    fn store(self, p: &mut [f32; LANES], v: Self::V) {
        *p = v;
    }
    #[inline(always)]
    fn store_first(self, p: &mut [f32], v: Self::V) {
        for (p, x) in p.iter_mut().zip(v) {
            *p = x;
        }
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn sqrt(self, a: Self::V) -> Self::V {
        a.map(f32::sqrt)
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn if_less(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V {
        std::array::from_fn(|i| if a[i] < b[i] { yes[i] } else { no[i] })
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        if FUSED {
            std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
        } else {
            // Not `mul_add`: without the instruction that is a call into the platform's library for every lane.
            fused(a, b, c)
        }
    }
    #[inline(always)]
    fn round(self, a: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i].round_ties_even())
    }
    #[inline(always)]
    fn exp2_whole(self, n: Self::V) -> Self::V {
        std::array::from_fn(|i| f32::from_bits(((n[i] as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    fn largest(self, v: Self::V) -> f32 {
        v.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    fn store_bytes(self, p: &mut [i8; LANES], v: Self::V) {
        *p = v.map(|x| x as i8);
    }
    #[inline(always)]
    fn sum_whole(self, v: Self::V) -> i32 {
        v.into_iter().map(|x| x as i32).sum()
    }

    #[inline(always)]
    fn splat_i(self, x: i32) -> Self::I {
        [x; LANES]
    }
    #[inline(always)]
    fn load_i(self, p: &[i32; LANES]) -> Self::I {
        *p
    }
    #[inline(always)]
    fn load_fours(self, p: &[[u8; 4]; LANES]) -> Self::I {
        std::array::from_fn(|i| i32::from_ne_bytes(p[i]))
    }
    #[inline(always)]
    fn store_i(self, p: &mut [i32; LANES], v: Self::I) {
        *p = v;
    }
    #[inline(always)]
    fn and(self, a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|i| a[i] & b[i])
    }
    #[inline(always)]
    fn or(self, a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    fn xor(self, a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|i| a[i] ^ b[i])
    }
    #[inline(always)]
    fn shl<const N: u32>(self, a: Self::I) -> Self::I {
        a.map(|x| x << N)
    }
    #[inline(always)]
    fn shr<const N: u32>(self, a: Self::I) -> Self::I {
        a.map(|x| (x as u32 >> N) as i32)
    }
    #[inline(always)]
    fn sar<const N: u32>(self, a: Self::I) -> Self::I {
        a.map(|x| x >> N)
    }
    #[inline(always)]
    fn dot(self, sums: Self::I, weights: Self::I, x: Self::I) -> Self::I {
        // Weights in 0..=127 are the same with and without a sign.
        self.dot_signed(sums, weights, x)
    }
    #[inline(always)]
    fn dot_signed(self, mut sums: Self::I, weights: Self::I, x: Self::I) -> Self::I {
        for i in 0..LANES {
            let (w, x) = (weights[i], x[i]);
            // As four products of lanes, which every compiler finds vectors for.
            sums[i] += (w << 24 >> 24) * (x << 24 >> 24);
            sums[i] += (w << 16 >> 24) * (x << 16 >> 24);
            sums[i] += (w << 8 >> 24) * (x << 8 >> 24);
            sums[i] += (w >> 24) * (x >> 24);
        }
        sums
    }
    #[inline(always)]
    fn to_float(self, a: Self::I) -> Self::V {
        a.map(|x| x as f32)
    }
    #[inline(always)]
    fn bits(self, a: Self::V) -> Self::I {
        a.map(|x| x.to_bits() as i32)
    }
    #[inline(always)]
    fn of_bits(self, a: Self::I) -> Self::V {
        a.map(|x| f32::from_bits(x as u32))
    }
    #[inline(always)]
    fn half_to_float(self, a: Self::I) -> Self::V {
        a.map(|x| half::f16::from_bits(x as u16).to_f32())
    }
}
