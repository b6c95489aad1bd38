//! Integers sixteen lanes at a time: products of bytes over AVX-512 VNNI, AVX2 and plain Rust, chosen at run time.
//!
//! Sums of integers are exact, so every level gives the same ones.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use crate::kernels::simd::Simd;
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::{Level, level};

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
