//! AVX2, FMA and F16C: 16 lanes in two registers.

use std::arch::x86_64::*;
use std::convert::Infallible;

use super::{Kernel, LANES, Simd, instructions};

/// AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub struct Avx2(());

/// Runs a kernel.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
}

/// An intrinsic on each of the two registers.
macro_rules! each {
    ($intrinsic:ident, $($v:expr),+) => {
        [$intrinsic($($v[0]),+), $intrinsic($($v[1]),+)]
    };
}

impl Simd for Avx2 {
    type V = [__m256; 2];
    type I = [__m256i; 2];
    type Unit = Infallible;
    const TILE_ROWS: usize = 6;
    const TILE_VECTORS: usize = 1;
    const DOT_TILE: (usize, usize) = (2, 2);
    const QUANTIZED_TILE_ROWS: usize = 2;
    const SUMS: usize = 4;
    const FLIP: u8 = 0;

    #[inline(always)]
    fn load_first(self, p: &[f32]) -> Self::V {
        let mut lanes = [0.0; LANES];
        lanes[..p.len()].copy_from_slice(p);
        self.load(&lanes)
    }
    #[inline(always)]
    fn store_first(self, p: &mut [f32], v: Self::V) {
        let lanes = self.lanes(v);
        p.copy_from_slice(&lanes[..p.len()]);
    }

    instructions! {
        fn prefetch(self, p: *const u8) { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
        fn splat(self, x: f32) -> Self::V { [_mm256_set1_ps(x); 2] }
        fn load(self, p: &[f32; LANES]) -> Self::V {
            [_mm256_loadu_ps(p.as_ptr()), _mm256_loadu_ps(p.as_ptr().add(8))]
        }
        fn load_f32(self, p: &[[u8; 4]; LANES]) -> Self::V {
            [_mm256_loadu_ps(p.as_ptr().cast()), _mm256_loadu_ps(p.as_ptr().add(8).cast())]
        }
        fn load_f16(self, p: &[[u8; 2]; LANES]) -> Self::V {
            let [a, b] = [_mm_loadu_si128(p.as_ptr().cast()), _mm_loadu_si128(p.as_ptr().add(8).cast())];
            [_mm256_cvtph_ps(a), _mm256_cvtph_ps(b)]
        }
        fn load_bf16(self, p: &[[u8; 2]; LANES]) -> Self::V {
            let [a, b] = [_mm_loadu_si128(p.as_ptr().cast()), _mm_loadu_si128(p.as_ptr().add(8).cast())];
            let [a, b] = [_mm256_cvtepu16_epi32(a), _mm256_cvtepu16_epi32(b)];
            [_mm256_castsi256_ps(_mm256_slli_epi32::<16>(a)), _mm256_castsi256_ps(_mm256_slli_epi32::<16>(b))]
        }
        fn store(self, p: &mut [f32; LANES], v: Self::V) {
            _mm256_storeu_ps(p.as_mut_ptr(), v[0]);
            _mm256_storeu_ps(p.as_mut_ptr().add(8), v[1]);
        }
        fn add(self, a: Self::V, b: Self::V) -> Self::V { each!(_mm256_add_ps, a, b) }
        fn sub(self, a: Self::V, b: Self::V) -> Self::V { each!(_mm256_sub_ps, a, b) }
        fn mul(self, a: Self::V, b: Self::V) -> Self::V { each!(_mm256_mul_ps, a, b) }
        fn div(self, a: Self::V, b: Self::V) -> Self::V { each!(_mm256_div_ps, a, b) }
        fn sqrt(self, a: Self::V) -> Self::V { each!(_mm256_sqrt_ps, a) }
        fn max(self, a: Self::V, b: Self::V) -> Self::V { each!(_mm256_max_ps, a, b) }
        fn min(self, a: Self::V, b: Self::V) -> Self::V { each!(_mm256_min_ps, a, b) }
        fn if_less(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V {
            let less = [_mm256_cmp_ps::<_CMP_LT_OQ>(a[0], b[0]), _mm256_cmp_ps::<_CMP_LT_OQ>(a[1], b[1])];
            each!(_mm256_blendv_ps, no, yes, less)
        }
        fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V { each!(_mm256_fmadd_ps, a, b, c) }
        fn round(self, a: Self::V) -> Self::V { [_mm256_round_ps::<8>(a[0]), _mm256_round_ps::<8>(a[1])] }
        fn exp2_whole(self, n: Self::V) -> Self::V {
            let bias = [_mm256_set1_epi32(127); 2];
            let [a, b] = each!(_mm256_add_epi32, each!(_mm256_cvtps_epi32, n), bias);
            [_mm256_castsi256_ps(_mm256_slli_epi32::<23>(a)), _mm256_castsi256_ps(_mm256_slli_epi32::<23>(b))]
        }
        fn largest(self, v: Self::V) -> f32 {
            let eight = _mm256_max_ps(v[0], v[1]);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
        fn store_bytes(self, p: &mut [i8; LANES], v: Self::V) {
            let words = _mm256_packs_epi32(_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1]));
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(p.as_mut_ptr().cast(), bytes);
        }
        fn sum_whole(self, v: Self::V) -> i32 {
            let eight = _mm256_add_epi32(_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1]));
            let four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256::<1>(eight));
            let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
            _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
        }

        fn splat_i(self, x: i32) -> Self::I { [_mm256_set1_epi32(x); 2] }
        fn load_i(self, p: &[i32; LANES]) -> Self::I {
            [_mm256_loadu_si256(p.as_ptr().cast()), _mm256_loadu_si256(p.as_ptr().add(8).cast())]
        }
        fn load_fours(self, p: &[[u8; 4]; LANES]) -> Self::I {
            [_mm256_loadu_si256(p.as_ptr().cast()), _mm256_loadu_si256(p.as_ptr().add(8).cast())]
        }
        fn store_i(self, p: &mut [i32; LANES], v: Self::I) {
            _mm256_storeu_si256(p.as_mut_ptr().cast(), v[0]);
            _mm256_storeu_si256(p.as_mut_ptr().add(8).cast(), v[1]);
        }
        fn and(self, a: Self::I, b: Self::I) -> Self::I { each!(_mm256_and_si256, a, b) }
        fn or(self, a: Self::I, b: Self::I) -> Self::I { each!(_mm256_or_si256, a, b) }
        fn xor(self, a: Self::I, b: Self::I) -> Self::I { each!(_mm256_xor_si256, a, b) }
        fn shl<const N: u32>(self, a: Self::I) -> Self::I {
            let n = [_mm_cvtsi32_si128(N as i32); 2];
            each!(_mm256_sll_epi32, a, n)
        }
        fn shr<const N: u32>(self, a: Self::I) -> Self::I {
            let n = [_mm_cvtsi32_si128(N as i32); 2];
            each!(_mm256_srl_epi32, a, n)
        }
        fn sar<const N: u32>(self, a: Self::I) -> Self::I {
            let n = [_mm_cvtsi32_si128(N as i32); 2];
            each!(_mm256_sra_epi32, a, n)
        }
        fn dot(self, sums: Self::I, weights: Self::I, x: Self::I) -> Self::I {
            let ones = [_mm256_set1_epi16(1); 2];
            // Pairs stay below 2 * 127 * 127 and so within 16 bits.
            let pairs = each!(_mm256_maddubs_epi16, weights, x);
            each!(_mm256_add_epi32, sums, each!(_mm256_madd_epi16, pairs, ones))
        }
        fn dot_signed(self, sums: Self::I, weights: Self::I, x: Self::I) -> Self::I {
            // |w| * (x with the sign of w); |-128| is 128 without a sign, and 2 * 128 * 127 fits into 16 bits.
            self.dot(sums, each!(_mm256_abs_epi8, weights), each!(_mm256_sign_epi8, x, weights))
        }
        fn to_float(self, a: Self::I) -> Self::V { each!(_mm256_cvtepi32_ps, a) }
        fn bits(self, a: Self::V) -> Self::I { each!(_mm256_castps_si256, a) }
        fn of_bits(self, a: Self::I) -> Self::V { each!(_mm256_castsi256_ps, a) }
        fn half_to_float(self, a: Self::I) -> Self::V {
            let low = _mm256_set1_epi32(0xffff);
            let packed = _mm256_packus_epi32(_mm256_and_si256(a[0], low), _mm256_and_si256(a[1], low));
            let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
            [_mm256_cvtph_ps(_mm256_castsi256_si128(packed)), _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(packed))]
        }
    }
}
