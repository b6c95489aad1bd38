//! Products of bytes by AVX-512 VNNI, and of tiles of them by AMX.

#![allow(
    unsafe_op_in_unsafe_fn,
    reason = "every body is intrinsics of the level's instruction set, on the lanes that the caller gives: \
              what they ask for is what the function asks for"
)]

use std::arch::x86_64::*;

use super::{Integers, Tiles};
use crate::kernels::simd::{Amx, Avx512, Level, level};

// SAFETY: tiles are read and written at the addresses and with the strides given, in the shapes that were configured.
unsafe impl Tiles for Amx {
    fn configure(depth: usize) -> Option<Self> {
        // SAFETY: the level is what `allowed` said; the trait asks for one at a time.
        (level() == Level::Amx).then(|| unsafe { Amx::configure(depth) })
    }
    #[inline(always)]
    unsafe fn multiply(
        &self,
        x: *const i8,
        x_stride: usize,
        weights: *const i32,
        weights_stride: usize,
        sums: *mut i32,
    ) {
        self.multiply(x, x_stride, weights, weights_stride, sums);
    }
}

// SAFETY: all intrinsics are of AVX-512 F, BW, DQ, VL and VNNI or less; loads and stores are of the 16 lanes or
// bytes that the trait names.
unsafe impl Integers for Avx512 {
    type I = __m512i;
    const FLIP: u8 = 0x80;
    const ROWS: usize = 6;
    type Tiles = Amx;

    #[inline(always)]
    unsafe fn splat_i(x: i32) -> __m512i {
        _mm512_set1_epi32(x)
    }
    #[inline(always)]
    unsafe fn load_i(p: *const i32) -> __m512i {
        _mm512_loadu_si512(p.cast())
    }
    #[inline(always)]
    unsafe fn store_i(p: *mut i32, v: __m512i) {
        _mm512_storeu_si512(p.cast(), v)
    }
    #[inline(always)]
    unsafe fn and(a: __m512i, b: __m512i) -> __m512i {
        _mm512_and_si512(a, b)
    }
    #[inline(always)]
    unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
        _mm512_or_si512(a, b)
    }
    #[inline(always)]
    unsafe fn xor(a: __m512i, b: __m512i) -> __m512i {
        _mm512_xor_si512(a, b)
    }
    #[inline(always)]
    unsafe fn shl<const N: u32>(a: __m512i) -> __m512i {
        _mm512_slli_epi32::<N>(a)
    }
    #[inline(always)]
    unsafe fn shr<const N: u32>(a: __m512i) -> __m512i {
        _mm512_srli_epi32::<N>(a)
    }
    #[inline(always)]
    unsafe fn sar<const N: u32>(a: __m512i) -> __m512i {
        _mm512_srai_epi32::<N>(a)
    }
    #[inline(always)]
    unsafe fn dot(sums: __m512i, weights: __m512i, x: __m512i) -> __m512i {
        _mm512_dpbusd_epi32(sums, weights, x)
    }
    #[inline(always)]
    unsafe fn dot_signed(sums: __m512i, weights: __m512i, x: __m512i) -> __m512i {
        _mm512_dpbusd_epi32(sums, weights, x)
    }
    #[inline(always)]
    unsafe fn to_float(a: __m512i) -> __m512 {
        _mm512_cvtepi32_ps(a)
    }
    #[inline(always)]
    unsafe fn half_to_float(a: __m512i) -> __m512 {
        _mm512_cvtph_ps(_mm512_cvtepi32_epi16(a))
    }
    #[inline(always)]
    unsafe fn store_bytes(p: *mut i8, v: __m512) {
        _mm_storeu_si128(p.cast(), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v)))
    }
    #[inline(always)]
    unsafe fn sum_whole(v: __m512) -> i32 {
        _mm512_reduce_add_epi32(_mm512_cvtps_epi32(v))
    }
    #[inline(always)]
    unsafe fn largest_of(v: __m512) -> f32 {
        _mm512_reduce_max_ps(v)
    }
}
