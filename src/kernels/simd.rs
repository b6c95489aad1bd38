//! Sixteen numbers at a time: one vector interface over AVX-512, AVX2 and plain Rust, chosen at run time.
//!
//! All levels have 16 lanes, so a kernel splits and sums its work in the same order everywhere.

use std::sync::OnceLock;

/// A vector instruction set, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Plain Rust, for any processor.
    Portable,
    /// AVX2 with FMA and F16C (x86-64-v3).
    Avx2,
    /// AVX-512 F, BW, DQ, VL (x86-64-v4).
    Avx512,
}

/// The level in use: the best that the processor offers, or a lower one if the environment variable `GPT2_SIMD`
/// (`portable`, `avx2`, `avx512`) asks for it.
#[must_use]
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let wanted = match std::env::var("GPT2_SIMD").as_deref() {
            Ok("portable") => Level::Portable,
            Ok("avx2") => Level::Avx2,
            _ => Level::Avx512,
        };
        wanted.min(detected())
    })
}

#[cfg(target_arch = "x86_64")]
fn detected() -> Level {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (avx2, avx512) {
        (true, true) => Level::Avx512,
        (true, false) => Level::Avx2,
        _ => Level::Portable,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detected() -> Level {
    Level::Portable
}

/// Lanes of a vector.
pub const LANES: usize = 16;

/// Operations on 16 lanes of `f32`.
///
/// # Safety
/// All functions may be called only where the processor has the level's instructions, and pointers must be valid for
/// the lanes that are read or written. No alignment is needed. Implementations use no other instructions, and touch no
/// other memory.
pub unsafe trait Simd: Copy + 'static {
    /// Sixteen numbers.
    type V: Copy;
    /// Rows of the matrix product's register tile.
    const TILE_ROWS: usize;
    /// Vectors across the matrix product's register tile.
    const TILE_VECTORS: usize;
    /// Rows and columns of the register tile of dot products.
    const DOT_TILE: (usize, usize);

    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(p: *const f32) -> Self::V;
    /// Loads the first `n < 16` lanes, the others are 0.
    unsafe fn load_first(p: *const f32, n: usize) -> Self::V;
    unsafe fn load_f16(p: *const u16) -> Self::V;
    unsafe fn load_bf16(p: *const u16) -> Self::V;
    unsafe fn store(p: *mut f32, v: Self::V);
    /// Stores the first `n < 16` lanes.
    unsafe fn store_first(p: *mut f32, n: usize, v: Self::V);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once where the processor can.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    unsafe fn round(a: Self::V) -> Self::V;
    /// `2^n` for whole `n` in -126..=127.
    unsafe fn exp2_whole(n: Self::V) -> Self::V;
    /// Asks for the cache line at `p`, which need not be valid, into the second-level cache.
    #[inline(always)]
    unsafe fn prefetch(_p: *const u8) {}
    /// All lanes, in memory order.
    #[inline(always)]
    unsafe fn lanes(v: Self::V) -> [f32; LANES] {
        let mut lanes = [0.0; LANES];
        // SAFETY: the caller promises the instructions; `lanes` has room for 16 numbers.
        unsafe { Self::store(lanes.as_mut_ptr(), v) };
        lanes
    }
    /// The sum of the lanes, pairwise in a fixed order.
    #[inline(always)]
    unsafe fn sum(v: Self::V) -> f32 {
        // SAFETY: the caller promises the instructions; no pointer is given.
        let mut lanes = unsafe { Self::lanes(v) };
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                lanes[i] += lanes[i + half];
            }
            half /= 2;
        }
        lanes[0]
    }
    /// Lane `i` is the sum of the lanes of vector `i`, as [`sum`](Self::sum) has it.
    #[inline(always)]
    unsafe fn sums(v: [Self::V; LANES]) -> Self::V {
        let mut sums = [0.0; LANES];
        for (sum, v) in sums.iter_mut().zip(v) {
            // SAFETY: the caller promises the instructions; no pointer is given.
            *sum = unsafe { Self::sum(v) };
        }
        // SAFETY: the caller promises the instructions; `sums` holds 16 numbers.
        unsafe { Self::load(sums.as_ptr()) }
    }
    /// The largest lane.
    #[inline(always)]
    unsafe fn largest(v: Self::V) -> f32 {
        // SAFETY: the caller promises the instructions; no pointer is given.
        unsafe { Self::lanes(v) }.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}

/// `e^x` to about one unit in the last place; 0 below -87.3, clamped above 88.
///
/// Cephes' `expf`: range reduction by ln 2 in two parts, then a polynomial of degree 5.
///
/// # Safety
/// The processor has the instructions of `S`.
#[inline(always)]
pub unsafe fn exp<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller promises the instructions; no pointer is given.
    unsafe {
        let clamped = S::min(S::max(x, S::splat(-87.3)), S::splat(88.0));
        let n = S::round(S::mul(clamped, S::splat(std::f32::consts::LOG2_E)));
        let r = S::fma(n, S::splat(-0.693_359_4), clamped);
        let r = S::fma(n, S::splat(2.121_944_4e-4), r);
        let mut p = S::splat(1.987_569_2e-4);
        for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            p = S::fma(p, r, S::splat(c));
        }
        let p = S::add(S::fma(p, S::mul(r, r), r), S::splat(1.0));
        let e = S::mul(p, S::exp2_whole(n));
        // Below the clamp the answer is 0, not e^-87.3: masked scores must vanish.
        let below =
            S::max(S::min(S::mul(S::add(x, S::splat(87.3)), S::splat(f32::MAX)), S::splat(0.0)), S::splat(-1.0));
        S::fma(e, below, e)
    }
}

/// `tanh(x)`, from [`exp`].
///
/// # Safety
/// The processor has the instructions of `S`.
#[inline(always)]
pub unsafe fn tanh<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller promises the instructions; no pointer is given.
    unsafe {
        let one = S::splat(1.0);
        let e = exp::<S>(S::mul(x, S::splat(2.0)));
        S::sub(one, S::div(S::splat(2.0), S::add(e, one)))
    }
}

/// Plain Rust.
#[derive(Clone, Copy)]
pub struct Portable;

// SAFETY: no instructions beyond the target's own are used; `V` is the 16 lanes that are read or written.
unsafe impl Simd for Portable {
    type V = [f32; LANES];
    const TILE_ROWS: usize = 4;
    const TILE_VECTORS: usize = 1;
    const DOT_TILE: (usize, usize) = (2, 2);

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::V {
        // SAFETY: the caller gives 16 readable numbers; the type is valid for any bits.
        unsafe { p.cast::<Self::V>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> Self::V {
        // SAFETY: the caller gives `n` readable numbers.
        std::array::from_fn(|i| if i < n { unsafe { p.add(i).read_unaligned() } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self::V {
        // SAFETY: the caller gives 16 readable numbers.
        std::array::from_fn(|i| half::f16::from_bits(unsafe { p.add(i).read_unaligned() }).to_f32())
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self::V {
        // SAFETY: the caller gives 16 readable numbers.
        std::array::from_fn(|i| f32::from_bits(u32::from(unsafe { p.add(i).read_unaligned() }) << 16))
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::V) {
        // SAFETY: the caller gives room for 16 numbers.
        unsafe { p.cast::<Self::V>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn store_first(p: *mut f32, n: usize, v: Self::V) {
        for (i, x) in v.into_iter().enumerate().take(n) {
            // SAFETY: the caller gives room for `n` numbers.
            unsafe { p.add(i).write_unaligned(x) }
        }
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] / b[i])
    }
    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // Not `mul_add`: without the instruction that is a call into libm for every lane.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn round(a: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i].round_ties_even())
    }
    #[inline(always)]
    unsafe fn exp2_whole(n: Self::V) -> Self::V {
        std::array::from_fn(|i| f32::from_bits(((n[i] as i32 + 127) as u32) << 23))
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
#[allow(
    unsafe_op_in_unsafe_fn,
    reason = "every body is intrinsics of the level's instruction set, on the lanes that the caller gives: \
              what they ask for is what the function asks for"
)]
mod x86 {
    use std::arch::x86_64::*;

    use super::{LANES, Simd};

    /// AVX2, FMA and F16C: 16 lanes in two registers.
    #[derive(Clone, Copy)]
    pub struct Avx2;

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

    // SAFETY: all intrinsics are of AVX2, FMA and F16C or less; loads and stores are of twice 8 lanes, and the first
    // `n` alone are copied from and to an array of 16.
    unsafe impl Simd for Avx2 {
        type V = [__m256; 2];
        const TILE_ROWS: usize = 6;
        const TILE_VECTORS: usize = 1;
        const DOT_TILE: (usize, usize) = (2, 2);

        #[inline(always)]
        unsafe fn prefetch(p: *const u8) {
            _mm_prefetch::<_MM_HINT_T1>(p.cast())
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self::V {
            [_mm256_set1_ps(x); 2]
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self::V {
            [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))]
        }
        #[inline(always)]
        unsafe fn load_first(p: *const f32, n: usize) -> Self::V {
            let mut lanes = [0.0; LANES];
            std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
            Self::load(lanes.as_ptr())
        }
        #[inline(always)]
        unsafe fn load_f16(p: *const u16) -> Self::V {
            [_mm256_cvtph_ps(_mm_loadu_si128(p.cast())), _mm256_cvtph_ps(_mm_loadu_si128(p.add(8).cast()))]
        }
        #[inline(always)]
        unsafe fn load_bf16(p: *const u16) -> Self::V {
            let widen = |p: *const u16| {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            };
            [widen(p), widen(p.add(8))]
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: Self::V) {
            _mm256_storeu_ps(p, v[0]);
            _mm256_storeu_ps(p.add(8), v[1]);
        }
        #[inline(always)]
        unsafe fn store_first(p: *mut f32, n: usize, v: Self::V) {
            let lanes = Self::lanes(v);
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n);
        }
        #[inline(always)]
        unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
            [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])]
        }
        #[inline(always)]
        unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
            [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])]
        }
        #[inline(always)]
        unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
            [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])]
        }
        #[inline(always)]
        unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
            [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])]
        }
        #[inline(always)]
        unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
            [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])]
        }
        #[inline(always)]
        unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
            [_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])]
        }
        #[inline(always)]
        unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])]
        }
        #[inline(always)]
        unsafe fn round(a: Self::V) -> Self::V {
            [_mm256_round_ps::<8>(a[0]), _mm256_round_ps::<8>(a[1])]
        }
        #[inline(always)]
        unsafe fn exp2_whole(n: Self::V) -> Self::V {
            let power = |n: __m256| {
                let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
            };
            [power(n[0]), power(n[1])]
        }
    }
}

/// Defines a function that picks the level at run time and calls `$kernel::<S>(arguments)` with that level's
/// instructions enabled: the kernel may rely on those of `S`, and must be promised by the caller whatever else it asks.
macro_rules! dispatch {
    (unsafe fn $name:ident = $kernel:ident($($arg:ident: $ty:ty),* $(,)?)) => {
        unsafe fn $name($($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
            unsafe fn avx512($($arg: $ty),*) {
                // SAFETY: the instructions are enabled here; the rest is the caller's promise.
                unsafe { $kernel::<$crate::kernels::simd::Avx512>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn avx2($($arg: $ty),*) {
                // SAFETY: as above.
                unsafe { $kernel::<$crate::kernels::simd::Avx2>($($arg),*) }
            }
            // SAFETY: `level` is at most what was detected, which has all that is enabled; the rest is the caller's
            // promise.
            unsafe {
                match $crate::kernels::simd::level() {
                    #[cfg(target_arch = "x86_64")]
                    $crate::kernels::simd::Level::Avx512 => avx512($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::kernels::simd::Level::Avx2 => avx2($($arg),*),
                    _ => $kernel::<$crate::kernels::simd::Portable>($($arg),*),
                }
            }
        }
    };
}
pub(super) use dispatch;
