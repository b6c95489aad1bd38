//! AVX-512 F, BW, DQ and VL, with VNNI or without: 16 lanes in a register.

use std::arch::x86_64::*;

use super::amx::Amx;
use super::{Kernel, LANES, Simd, instructions};

/// AVX-512, and with `VNNI` its products of bytes.
#[derive(Clone, Copy)]
pub struct Avx512<const VNNI: bool>(());

/// Runs a kernel.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512::<false>(()))
}

/// Runs a kernel, with VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn run_with_vnni<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512::<true>(()))
}

impl<const VNNI: bool> Simd for Avx512<VNNI> {
    type V = __m512;
    type I = __m512i;
    type Unit = Amx;
    const TILE_ROWS: usize = 8;
    const TILE_VECTORS: usize = 3;
    const DOT_TILE: (usize, usize) = (4, 6);
    const QUANTIZED_TILE_ROWS: usize = 6;
    const SUMS: usize = 16;
    const FLIP: u8 = if VNNI { 0x80 } else { 0 };

    instructions! {
        fn prefetch(self, p: *const u8) { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
        fn splat(self, x: f32) -> __m512 { _mm512_set1_ps(x) }
        fn load(self, p: &[f32; LANES]) -> __m512 { _mm512_loadu_ps(p.as_ptr()) }
        fn load_first(self, p: &[f32]) -> __m512 { _mm512_maskz_loadu_ps(first(p.len()), p.as_ptr()) }
        fn load_f32(self, p: &[[u8; 4]; LANES]) -> __m512 { _mm512_loadu_ps(p.as_ptr().cast()) }
        fn load_f16(self, p: &[[u8; 2]; LANES]) -> __m512 { _mm512_cvtph_ps(_mm256_loadu_si256(p.as_ptr().cast())) }
        fn load_bf16(self, p: &[[u8; 2]; LANES]) -> __m512 {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
        fn store(self, p: &mut [f32; LANES], v: __m512) { _mm512_storeu_ps(p.as_mut_ptr(), v) }
        fn store_first(self, p: &mut [f32], v: __m512) { _mm512_mask_storeu_ps(p.as_mut_ptr(), first(p.len()), v) }
        fn add(self, a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn sub(self, a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn mul(self, a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn div(self, a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        fn sqrt(self, a: __m512) -> __m512 { _mm512_sqrt_ps(a) }
        fn max(self, a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        fn min(self, a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) }
        fn if_less(self, a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 {
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes)
        }
        fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn round(self, a: __m512) -> __m512 { _mm512_roundscale_ps::<0>(a) }
        fn exp2_whole(self, n: __m512) -> __m512 {
            let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
        }
        fn sums(self, v: [__m512; LANES]) -> __m512 {
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
        fn largest(self, v: __m512) -> f32 { _mm512_reduce_max_ps(v) }
        fn store_bytes(self, p: &mut [i8; LANES], v: __m512) {
            _mm_storeu_si128(p.as_mut_ptr().cast(), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v)))
        }
        fn sum_whole(self, v: __m512) -> i32 { _mm512_reduce_add_epi32(_mm512_cvtps_epi32(v)) }

        fn splat_i(self, x: i32) -> __m512i { _mm512_set1_epi32(x) }
        fn load_i(self, p: &[i32; LANES]) -> __m512i { _mm512_loadu_si512(p.as_ptr().cast()) }
        fn load_fours(self, p: &[[u8; 4]; LANES]) -> __m512i { _mm512_loadu_si512(p.as_ptr().cast()) }
        fn store_i(self, p: &mut [i32; LANES], v: __m512i) { _mm512_storeu_si512(p.as_mut_ptr().cast(), v) }
        fn and(self, a: __m512i, b: __m512i) -> __m512i { _mm512_and_si512(a, b) }
        fn or(self, a: __m512i, b: __m512i) -> __m512i { _mm512_or_si512(a, b) }
        fn xor(self, a: __m512i, b: __m512i) -> __m512i { _mm512_xor_si512(a, b) }
        fn shl<const N: u32>(self, a: __m512i) -> __m512i { _mm512_slli_epi32::<N>(a) }
        fn shr<const N: u32>(self, a: __m512i) -> __m512i { _mm512_srli_epi32::<N>(a) }
        fn sar<const N: u32>(self, a: __m512i) -> __m512i { _mm512_srai_epi32::<N>(a) }
        fn dot(self, sums: __m512i, weights: __m512i, x: __m512i) -> __m512i {
            if VNNI {
                return _mm512_dpbusd_epi32(sums, weights, x);
            }
            // Pairs stay below 2 * 127 * 127 and so within 16 bits.
            let pairs = _mm512_maddubs_epi16(weights, x);
            _mm512_add_epi32(sums, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
        }
        fn dot_signed(self, sums: __m512i, weights: __m512i, x: __m512i) -> __m512i {
            if VNNI {
                return _mm512_dpbusd_epi32(sums, weights, x);
            }
            // |w| * (x with the sign of w); |-128| is 128 without a sign, and 2 * 128 * 127 fits into 16 bits.
            let signed = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(weights), _mm512_setzero_si512(), x);
            self.dot(sums, _mm512_abs_epi8(weights), signed)
        }
        fn to_float(self, a: __m512i) -> __m512 { _mm512_cvtepi32_ps(a) }
        fn bits(self, a: __m512) -> __m512i { _mm512_castps_si512(a) }
        fn of_bits(self, a: __m512i) -> __m512 { _mm512_castsi512_ps(a) }
        fn half_to_float(self, a: __m512i) -> __m512 { _mm512_cvtph_ps(_mm512_cvtepi32_epi16(a)) }
    }
}

/// A mask of the first `n` lanes, or of all where there are no more.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    ((1u32 << n.min(LANES)) - 1) as __mmask16
}
