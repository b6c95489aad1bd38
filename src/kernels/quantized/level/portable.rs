//! Products of bytes in plain Rust.

use std::convert::Infallible;

use super::Integers;
use crate::kernels::simd::{LANES, Portable};

// SAFETY: no instructions beyond the target's own are used; `I` is the 16 lanes that are read or written.
unsafe impl Integers for Portable {
    type I = [i32; LANES];
    const FLIP: u8 = 0;
    const ROWS: usize = 1;
    type Tiles = Infallible;

    #[inline(always)]
    unsafe fn splat_i(x: i32) -> Self::I {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load_i(p: *const i32) -> Self::I {
        // SAFETY: the caller gives 16 readable numbers.
        unsafe { p.cast::<Self::I>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_i(p: *mut i32, v: Self::I) {
        // SAFETY: the caller gives room for 16 numbers.
        unsafe { p.cast::<Self::I>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn and(a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|i| a[i] & b[i])
    }
    #[inline(always)]
    unsafe fn or(a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    unsafe fn xor(a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|i| a[i] ^ b[i])
    }
    #[inline(always)]
    unsafe fn shl<const N: u32>(a: Self::I) -> Self::I {
        a.map(|x| x << N)
    }
    #[inline(always)]
    unsafe fn shr<const N: u32>(a: Self::I) -> Self::I {
        a.map(|x| (x as u32 >> N) as i32)
    }
    #[inline(always)]
    unsafe fn sar<const N: u32>(a: Self::I) -> Self::I {
        a.map(|x| x >> N)
    }
    #[inline(always)]
    unsafe fn dot(sums: Self::I, weights: Self::I, x: Self::I) -> Self::I {
        // Weights in 0..=127 are the same with and without a sign.
        // SAFETY: plain arithmetic asks for nothing.
        unsafe { Self::dot_signed(sums, weights, x) }
    }
    #[inline(always)]
    unsafe fn dot_signed(mut sums: Self::I, weights: Self::I, x: Self::I) -> Self::I {
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
    unsafe fn to_float(a: Self::I) -> Self::V {
        a.map(|x| x as f32)
    }
    #[inline(always)]
    unsafe fn half_to_float(a: Self::I) -> Self::V {
        a.map(|x| half::f16::from_bits(x as u16).to_f32())
    }
    #[inline(always)]
    unsafe fn store_bytes(p: *mut i8, v: Self::V) {
        for (i, x) in v.into_iter().enumerate() {
            // SAFETY: the caller gives room for 16 bytes.
            unsafe { p.add(i).write(x as i8) }
        }
    }
    #[inline(always)]
    unsafe fn sum_whole(v: Self::V) -> i32 {
        v.into_iter().map(|x| x as i32).sum()
    }
    #[inline(always)]
    unsafe fn largest_of(v: Self::V) -> f32 {
        v.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}
