//! AVX-512 F, BW, DQ and VL: 16 lanes in a register.

#![allow(
    unsafe_op_in_unsafe_fn,
    reason = "every body is intrinsics of the level's instruction set, on the lanes that the caller gives: \
              what they ask for is what the function asks for"
)]

use std::arch::x86_64::*;

use super::{LANES, Simd};

/// AVX-512.
#[derive(Clone, Copy)]
pub struct Avx512;

// SAFETY: all intrinsics are of AVX-512 F, BW, DQ and VL or less; loads and stores are of the 16 lanes, or under a
// mask of the first `n`.
unsafe impl Simd for Avx512 {
    type V = __m512;
    const TILE_ROWS: usize = 8;
    const TILE_VECTORS: usize = 3;
    const DOT_TILE: (usize, usize) = (4, 6);
    const SUMS: usize = 16;

    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        _mm_prefetch::<_MM_HINT_T1>(p.cast())
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        _mm512_set1_ps(x)
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        _mm512_loadu_ps(p)
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> __m512 {
        _mm512_maskz_loadu_ps((1 << n) - 1, p)
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> __m512 {
        _mm512_cvtph_ps(_mm256_loadu_si256(p.cast()))
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> __m512 {
        let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m512) {
        _mm512_storeu_ps(p, v)
    }
    #[inline(always)]
    unsafe fn store_first(p: *mut f32, n: usize, v: __m512) {
        _mm512_mask_storeu_ps(p, (1 << n) - 1, v)
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        _mm512_add_ps(a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        _mm512_sub_ps(a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        _mm512_mul_ps(a, b)
    }
    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        _mm512_div_ps(a, b)
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        _mm512_max_ps(a, b)
    }
    #[inline(always)]
    unsafe fn min(a: __m512, b: __m512) -> __m512 {
        _mm512_min_ps(a, b)
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        _mm512_fmadd_ps(a, b, c)
    }
    #[inline(always)]
    unsafe fn sums(v: [__m512; LANES]) -> __m512 {
        // Each step adds the upper half of every vector's lanes to the lower, and packs two vectors into one.
        let mut eight = [_mm512_setzero_ps(); 8];
        for (i, e) in eight.iter_mut().enumerate() {
            let (a, b) = (v[2 * i], v[2 * i + 1]);
            let low = _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b);
            *e = _mm512_add_ps(low, _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b));
        }
        let mut four = [_mm512_setzero_ps(); 4];
        for (i, f) in four.iter_mut().enumerate() {
            let (a, b) = (eight[2 * i], eight[2 * i + 1]);
            let low = _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b);
            *f = _mm512_add_ps(low, _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b));
        }
        let mut two = [_mm512_setzero_ps(); 2];
        for (i, t) in two.iter_mut().enumerate() {
            let (a, b) = (four[2 * i], four[2 * i + 1]);
            let low = _mm512_shuffle_ps::<0b01_00_01_00>(a, b);
            *t = _mm512_add_ps(low, _mm512_shuffle_ps::<0b11_10_11_10>(a, b));
        }
        let low = _mm512_shuffle_ps::<0b10_00_10_00>(two[0], two[1]);
        let sums = _mm512_add_ps(low, _mm512_shuffle_ps::<0b11_01_11_01>(two[0], two[1]));
        // Lane 4i + j now has the sum of vector 4j + i.
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        _mm512_permutexvar_ps(order, sums)
    }
    #[inline(always)]
    unsafe fn round(a: __m512) -> __m512 {
        _mm512_roundscale_ps::<0>(a)
    }
    #[inline(always)]
    unsafe fn exp2_whole(n: __m512) -> __m512 {
        let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
        _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
    }
}
