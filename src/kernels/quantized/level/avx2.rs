//! Products of bytes by AVX2.

#![allow(
    unsafe_op_in_unsafe_fn,
    reason = "every body is intrinsics of the level's instruction set, on the lanes that the caller gives: \
              what they ask for is what the function asks for"
)]

use std::arch::x86_64::*;
use std::convert::Infallible;

use super::Integers;
use crate::kernels::simd::Avx2;

// SAFETY: all intrinsics are of AVX2, FMA and F16C or less; loads and stores are of the 16 lanes or bytes that the
// trait names.
unsafe impl Integers for Avx2 {
    type I = [__m256i; 2];
    const FLIP: u8 = 0;
    const ROWS: usize = 2;
    type Tiles = Infallible;

    #[inline(always)]
    unsafe fn splat_i(x: i32) -> Self::I {
        [_mm256_set1_epi32(x); 2]
    }
    #[inline(always)]
    unsafe fn load_i(p: *const i32) -> Self::I {
        [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(8).cast())]
    }
    #[inline(always)]
    unsafe fn store_i(p: *mut i32, v: Self::I) {
        _mm256_storeu_si256(p.cast(), v[0]);
        _mm256_storeu_si256(p.add(8).cast(), v[1]);
    }
    #[inline(always)]
    unsafe fn and(a: Self::I, b: Self::I) -> Self::I {
        [_mm256_and_si256(a[0], b[0]), _mm256_and_si256(a[1], b[1])]
    }
    #[inline(always)]
    unsafe fn or(a: Self::I, b: Self::I) -> Self::I {
        [_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])]
    }
    #[inline(always)]
    unsafe fn xor(a: Self::I, b: Self::I) -> Self::I {
        [_mm256_xor_si256(a[0], b[0]), _mm256_xor_si256(a[1], b[1])]
    }
    #[inline(always)]
    unsafe fn shl<const N: u32>(a: Self::I) -> Self::I {
        let n = _mm_cvtsi32_si128(N as i32);
        [_mm256_sll_epi32(a[0], n), _mm256_sll_epi32(a[1], n)]
    }
    #[inline(always)]
    unsafe fn shr<const N: u32>(a: Self::I) -> Self::I {
        let n = _mm_cvtsi32_si128(N as i32);
        [_mm256_srl_epi32(a[0], n), _mm256_srl_epi32(a[1], n)]
    }
    #[inline(always)]
    unsafe fn sar<const N: u32>(a: Self::I) -> Self::I {
        let n = _mm_cvtsi32_si128(N as i32);
        [_mm256_sra_epi32(a[0], n), _mm256_sra_epi32(a[1], n)]
    }
    #[inline(always)]
    unsafe fn dot(sums: Self::I, weights: Self::I, x: Self::I) -> Self::I {
        let ones = _mm256_set1_epi16(1);
        // Pairs stay below 2 * 127 * 127 and so within 16 bits.
        let a = _mm256_madd_epi16(_mm256_maddubs_epi16(weights[0], x[0]), ones);
        let b = _mm256_madd_epi16(_mm256_maddubs_epi16(weights[1], x[1]), ones);
        [_mm256_add_epi32(sums[0], a), _mm256_add_epi32(sums[1], b)]
    }
    #[inline(always)]
    unsafe fn dot_signed(sums: Self::I, weights: Self::I, x: Self::I) -> Self::I {
        // |w| * (x with the sign of w); |-128| is 128 without a sign, and 2 * 128 * 127 fits into 16 bits.
        let size = [_mm256_abs_epi8(weights[0]), _mm256_abs_epi8(weights[1])];
        Self::dot(sums, size, [_mm256_sign_epi8(x[0], weights[0]), _mm256_sign_epi8(x[1], weights[1])])
    }
    #[inline(always)]
    unsafe fn to_float(a: Self::I) -> Self::V {
        [_mm256_cvtepi32_ps(a[0]), _mm256_cvtepi32_ps(a[1])]
    }
    #[inline(always)]
    unsafe fn half_to_float(a: Self::I) -> Self::V {
        let low = _mm256_set1_epi32(0xffff);
        let packed = _mm256_packus_epi32(_mm256_and_si256(a[0], low), _mm256_and_si256(a[1], low));
        let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
        [_mm256_cvtph_ps(_mm256_castsi256_si128(packed)), _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(packed))]
    }
    #[inline(always)]
    unsafe fn store_bytes(p: *mut i8, v: Self::V) {
        let words = _mm256_packs_epi32(_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1]));
        let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
        let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
        _mm_storeu_si128(p.cast(), bytes);
    }
    #[inline(always)]
    unsafe fn sum_whole(v: Self::V) -> i32 {
        let eight = _mm256_add_epi32(_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1]));
        let four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256::<1>(eight));
        let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
        _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
    }
    #[inline(always)]
    unsafe fn largest_of(v: Self::V) -> f32 {
        let eight = _mm256_max_ps(v[0], v[1]);
        let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
        let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }
}
