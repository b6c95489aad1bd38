//! Integers sixteen lanes at a time: products of bytes over AVX-512 VNNI, AVX2 and plain Rust, chosen at run time.
//!
//! Sums of integers are exact, so every level gives the same ones.

use super::super::simd::{LANES, Portable, Simd};
#[cfg(target_arch = "x86_64")]
use super::super::simd::{Level, level};

/// Whether the level in use has the products of bytes of AVX-512; without them AVX2 is as fast.
#[cfg(target_arch = "x86_64")]
pub(super) fn has_vnni() -> bool {
    level() == Level::Avx512 && is_x86_feature_detected!("avx512vnni")
}

/// Whether the level in use has the products of bytes of AVX2.
#[cfg(target_arch = "x86_64")]
pub(super) fn has_avx2() -> bool {
    level() >= Level::Avx2
}

/// Operations on 16 lanes of `i32`, each of which may hold four bytes.
///
/// # Safety
/// As for [`Simd`]; AVX-512's instructions are VNNI's too here. Memory is asked for 16 `i32` in `load_i` and `store_i`,
/// and 16 bytes in `store_bytes`.
pub(super) unsafe trait Integers: Simd {
    /// Sixteen integers.
    type I: Copy;
    /// What a signed byte of a weight is xored with before [`dot_signed`](Self::dot_signed) takes it: 0x80 where the
    /// product wants one factor without a sign, which then is 128 too large.
    const FLIP: u8;
    /// Rows of activations in a register tile.
    const ROWS: usize;

    unsafe fn splat_i(x: i32) -> Self::I;
    unsafe fn load_i(p: *const i32) -> Self::I;
    unsafe fn store_i(p: *mut i32, v: Self::I);
    unsafe fn and(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn or(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn xor(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn shl<const N: u32>(a: Self::I) -> Self::I;
    /// Shifts zeros in.
    unsafe fn shr<const N: u32>(a: Self::I) -> Self::I;
    /// Shifts the sign in.
    unsafe fn sar<const N: u32>(a: Self::I) -> Self::I;
    /// `sums[i] += Σ weights[i][j] * x[i][j]` over the four bytes of each lane; `x` is signed, in -127..=127, the
    /// weights lie in 0..=127.
    unsafe fn dot(sums: Self::I, weights: Self::I, x: Self::I) -> Self::I;
    /// The same for signed weights that were xored with [`FLIP`](Self::FLIP).
    unsafe fn dot_signed(sums: Self::I, weights: Self::I, x: Self::I) -> Self::I;
    unsafe fn to_float(a: Self::I) -> Self::V;
    /// The lower half of each lane, an f16, as f32.
    unsafe fn half_to_float(a: Self::I) -> Self::V;
    /// Stores lanes, which are whole numbers in -128..=127, as bytes.
    unsafe fn store_bytes(p: *mut i8, v: Self::V);
    /// The sum of lanes that are small whole numbers.
    unsafe fn sum_whole(v: Self::V) -> i32;
    /// The largest lane, where none is NaN.
    unsafe fn largest_of(v: Self::V) -> f32;
}

// SAFETY: no instructions beyond the target's own are used; `I` is the 16 lanes that are read or written.
unsafe impl Integers for Portable {
    type I = [i32; LANES];
    const FLIP: u8 = 0;
    const ROWS: usize = 1;

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

#[cfg(target_arch = "x86_64")]
#[allow(
    unsafe_op_in_unsafe_fn,
    reason = "every body is intrinsics of the level's instruction set, on the lanes or rows that the caller gives: \
              what they ask for is what the function asks for"
)]
mod x86 {
    use std::arch::x86_64::*;

    use super::super::super::simd::{Avx2, Avx512};
    use super::Integers;

    // SAFETY: all intrinsics are of AVX-512 F, BW, DQ, VL and VNNI or less; loads and stores are of the 16 lanes or
    // bytes that the trait names.
    unsafe impl Integers for Avx512 {
        type I = __m512i;
        const FLIP: u8 = 0x80;
        const ROWS: usize = 6;

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

    // SAFETY: all intrinsics are of AVX2, FMA and F16C or less; loads and stores are of the 16 lanes or bytes that the
    // trait names.
    unsafe impl Integers for Avx2 {
        type I = [__m256i; 2];
        const FLIP: u8 = 0;
        const ROWS: usize = 2;

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
}

/// Defines a function that picks the level at run time and calls `$kernel::<S>(arguments)`, or `$kernel::<S, F>` for
/// any `F`, with that level's instructions enabled: the kernel may rely on those of `S`, and must be promised by the
/// caller whatever else it asks.
macro_rules! dispatch {
    (unsafe fn $name:ident $(<$f:ident: $bound:ident>)? = $kernel:ident($($arg:ident: $ty:ty),* $(,)?)) => {
        unsafe fn $name $(<$f: $bound>)? ($($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
            unsafe fn vnni $(<$f: $bound>)? ($($arg: $ty),*) {
                // SAFETY: the instructions are enabled here; the rest is the caller's promise.
                unsafe { $kernel::<$crate::kernels::simd::Avx512 $(, $f)?>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn avx2 $(<$f: $bound>)? ($($arg: $ty),*) {
                // SAFETY: as above.
                unsafe { $kernel::<$crate::kernels::simd::Avx2 $(, $f)?>($($arg),*) }
            }
            // SAFETY: only what was detected is called; the rest is the caller's promise.
            unsafe {
                #[cfg(target_arch = "x86_64")]
                if $crate::kernels::quantized::level::has_vnni() {
                    return vnni $(::<$f>)? ($($arg),*);
                } else if $crate::kernels::quantized::level::has_avx2() {
                    return avx2 $(::<$f>)? ($($arg),*);
                }
                $kernel::<$crate::kernels::simd::Portable $(, $f)?>($($arg),*);
            }
        }
    };
}
pub(super) use dispatch;
