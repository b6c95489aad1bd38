//! Sixteen numbers at a time: one vector interface over AVX-512, AVX2, NEON and plain Rust, chosen at run time.
//!
//! All levels have 16 lanes, so a kernel splits and sums its work in the same order everywhere.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
pub use amx::Amx;
#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
#[cfg(target_arch = "aarch64")]
pub use neon::Neon;
#[cfg(target_arch = "aarch64")]
pub(super) use neon::{each, widen};
pub use portable::Portable;

/// The vector instruction sets of an architecture, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Plain Rust, for any processor.
    Portable,
    /// AVX2 with FMA and F16C (x86-64-v3).
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, BW, DQ, VL (x86-64-v4).
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// The same with VNNI, products of bytes.
    #[cfg(target_arch = "x86_64")]
    Vnni,
    /// The same with AMX, products of tiles of bytes.
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// NEON.
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Level {
    /// The name that the environment variable `GPT2_SIMD` has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => "vnni",
            #[cfg(target_arch = "x86_64")]
            Self::Amx => "amx",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "neon",
        }
    }
}

/// The level in use: the best that the processor offers, or a lower one if the environment variable `GPT2_SIMD`
/// (`portable`, `avx2`, `avx512`, `vnni`, `amx`, `neon`) asks for it.
#[must_use]
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let best = detected();
        match std::env::var("GPT2_SIMD").as_deref() {
            Ok("portable") => Level::Portable,
            #[cfg(target_arch = "x86_64")]
            Ok("avx2") => best.min(Level::Avx2),
            #[cfg(target_arch = "x86_64")]
            Ok("avx512") => best.min(Level::Avx512),
            #[cfg(target_arch = "x86_64")]
            Ok("vnni") => best.min(Level::Vnni),
            // The best of its architecture, `amx` or `neon`, is the best there is.
            _ => best,
        }
    })
}

#[cfg(target_arch = "x86_64")]
fn detected() -> Level {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (avx2, avx512, is_x86_feature_detected!("avx512vnni")) {
        (true, true, true) if amx::allowed() => Level::Amx,
        (true, true, true) => Level::Vnni,
        (true, true, false) => Level::Avx512,
        (true, false, _) => Level::Avx2,
        _ => Level::Portable,
    }
}

#[cfg(target_arch = "aarch64")]
fn detected() -> Level {
    if std::arch::is_aarch64_feature_detected!("neon") { Level::Neon } else { Level::Portable }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
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
    /// Vectors of sums that attention keeps in registers.
    const SUMS: usize;

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
            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "neon")]
            unsafe fn neon($($arg: $ty),*) {
                // SAFETY: as above.
                unsafe { $kernel::<$crate::kernels::simd::Neon>($($arg),*) }
            }
            // SAFETY: `level` is at most what was detected, which has all that is enabled; the rest is the caller's
            // promise.
            unsafe {
                match $crate::kernels::simd::level() {
                    #[cfg(target_arch = "x86_64")]
                    $crate::kernels::simd::Level::Avx512
                    | $crate::kernels::simd::Level::Vnni
                    | $crate::kernels::simd::Level::Amx => avx512($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::kernels::simd::Level::Avx2 => avx2($($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    $crate::kernels::simd::Level::Neon => neon($($arg),*),
                    $crate::kernels::simd::Level::Portable => $kernel::<$crate::kernels::simd::Portable>($($arg),*),
                }
            }
        }
    };
}
pub(super) use dispatch;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::test_numbers;

    dispatch! { unsafe fn compare_dispatch = compare(numbers: &[f32; 256]) }

    /// The operations that levels do in their own ways, against plain Rust's.
    ///
    /// # Safety
    /// The processor has the instructions of `S`.
    #[inline(always)]
    unsafe fn compare<S: Simd>(numbers: &[f32; 256]) {
        let (rows, _) = numbers.as_chunks::<LANES>();
        // SAFETY: the caller promises the instructions; all memory is of rows of 16 numbers.
        unsafe {
            let mut vectors = [S::splat(0.0); LANES];
            for (v, row) in vectors.iter_mut().zip(rows) {
                *v = S::load(row.as_ptr());
                assert_eq!(S::sum(*v).to_bits(), Portable::sum(*row).to_bits());
                assert_eq!(S::largest(*v), Portable::largest(*row));
                let halves = S::mul(S::round(S::mul(*v, S::splat(20.0))), S::splat(0.5));
                assert_eq!(S::lanes(S::round(halves)), Portable::round(S::lanes(halves)));
                let whole = S::round(S::mul(*v, S::splat(126.0)));
                assert_eq!(S::lanes(S::exp2_whole(whole)), Portable::exp2_whole(S::lanes(whole)));
                for n in 0..LANES {
                    let first = S::load_first(row.as_ptr(), n);
                    let mut stored = [7.0; LANES];
                    S::store_first(stored.as_mut_ptr(), n, *v);
                    for i in 0..LANES {
                        assert_eq!((S::lanes(first)[i], stored[i]), if i < n { (row[i], row[i]) } else { (0.0, 7.0) });
                    }
                }
            }
            for (sum, v) in S::lanes(S::sums(vectors)).iter().zip(vectors) {
                assert_eq!(sum.to_bits(), S::sum(v).to_bits());
            }
        }
    }

    #[test]
    fn operations_are_those_of_plain_rust() {
        // SAFETY: the kernel asks for nothing but the level's instructions.
        unsafe { compare_dispatch(test_numbers(256, 1)[..].try_into().unwrap()) };
    }

    dispatch! { unsafe fn widen_dispatch = widen_all(numbers: &[u16; LANES], f16: &mut [f32], bf16: &mut [f32]) }

    /// # Safety
    /// The processor has the instructions of `S`; there is room for 16 numbers of each type.
    #[inline(always)]
    unsafe fn widen_all<S: Simd>(numbers: &[u16; LANES], f16: &mut [f32], bf16: &mut [f32]) {
        // SAFETY: just what the caller promises.
        unsafe {
            S::store(f16.as_mut_ptr(), S::load_f16(numbers.as_ptr()));
            S::store(bf16.as_mut_ptr(), S::load_bf16(numbers.as_ptr()));
        }
    }

    #[test]
    fn all_16_bit_numbers_are_widened_exactly() {
        for first in (0..=u16::MAX).step_by(LANES) {
            let numbers = std::array::from_fn(|i| first + i as u16);
            let (mut f16, mut bf16) = ([0.0; LANES], [0.0; LANES]);
            // SAFETY: both arrays have room for 16 numbers.
            unsafe { widen_dispatch(&numbers, &mut f16, &mut bf16) };
            for (i, x) in numbers.into_iter().enumerate() {
                assert_same(f16[i], half::f16::from_bits(x).to_f32());
                assert_same(bf16[i], half::bf16::from_bits(x).to_f32());
            }
        }
    }

    fn assert_same(a: f32, b: f32) {
        assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(), "{a} {b}");
    }
}
