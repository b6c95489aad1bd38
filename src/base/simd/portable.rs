//! Plain Rust, for any processor.

use std::convert::Infallible;

use half::slice::HalfFloatSliceExt;

use super::{Kernel, LANES, Simd};

/// Plain Rust.
#[derive(Clone, Copy)]
pub struct Portable;

/// Runs a kernel.
pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Portable)
}

impl Simd for Portable {
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
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // Not `mul_add`: without the instruction that is a call into libm for every lane.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
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
    fn half_to_float(self, a: Self::I) -> Self::V {
        a.map(|x| half::f16::from_bits(x as u16).to_f32())
    }
}
