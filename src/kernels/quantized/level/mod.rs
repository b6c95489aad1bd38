//! Integers sixteen lanes at a time: products of bytes over AVX-512 VNNI, AVX2, NEON and plain Rust, chosen at run time.
//!
//! Sums of integers are exact, so every level gives the same ones.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use std::convert::Infallible;

use crate::kernels::simd::Simd;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::kernels::simd::{Level, level};

/// Whether the level in use has the products of bytes of AVX-512; without them AVX2 is as fast.
#[cfg(target_arch = "x86_64")]
pub(super) fn has_vnni() -> bool {
    level() >= Level::Vnni
}

/// Whether the level in use has the products of bytes of AVX2.
#[cfg(target_arch = "x86_64")]
pub(super) fn has_avx2() -> bool {
    level() >= Level::Avx2
}

/// Whether the level in use is NEON.
#[cfg(target_arch = "aarch64")]
pub(super) fn has_neon() -> bool {
    level() == Level::Neon
}

/// Whether the level in use has NEON's products of bytes.
#[cfg(target_arch = "aarch64")]
pub(super) fn has_dotprod() -> bool {
    has_neon() && std::arch::is_aarch64_feature_detected!("dotprod")
}

/// Operations on 16 lanes of `i32`, each of which may hold four bytes.
///
/// # Safety
/// As for [`Simd`]; AVX-512's instructions are VNNI's too here, `Neon<true>`'s those of FEAT_DotProd. Memory is asked for
/// 16 `i32` in `load_i` and `store_i`, and 16 bytes in `store_bytes`.
pub(super) unsafe trait Integers: Simd {
    /// Sixteen integers.
    type I: Copy;
    /// What a signed byte of a weight is xored with before [`dot_signed`](Self::dot_signed) takes it: 0x80 where the
    /// product wants one factor without a sign, which then is 128 too large.
    const FLIP: u8;
    /// Rows of activations in a register tile.
    const ROWS: usize;
    /// What may be there to multiply tiles.
    type Tiles: Tiles;

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

/// A unit that multiplies tiles of 16 rows of bytes, set up for the calling thread.
///
/// # Safety
/// Implementations touch no other memory than `multiply` names.
pub(super) unsafe trait Tiles: Sized {
    /// Sets the unit up for products over `depth` inputs, 16 or 32, where the level in use has it. A thread may have one
    /// at a time.
    fn configure(depth: usize) -> Option<Self>;
    /// `sums[m][n] = Σ x[m][k] * weights[k / 4][n][k % 4]` over `depth` signed bytes `k`, with 16 `m` and `n`. Rows of
    /// `x` are `x_stride` bytes apart, those of the weights `weights_stride` bytes.
    ///
    /// # Safety
    /// `x` has 16 rows of `depth` bytes, the weights `depth / 4` rows of 64, and `sums` room for 16 rows of 16 numbers.
    unsafe fn multiply(
        &self,
        x: *const i8,
        x_stride: usize,
        weights: *const i32,
        weights_stride: usize,
        sums: *mut i32,
    );
}

// SAFETY: there is none.
unsafe impl Tiles for Infallible {
    fn configure(_: usize) -> Option<Self> {
        None
    }
    unsafe fn multiply(&self, _: *const i8, _: usize, _: *const i32, _: usize, _: *mut i32) {
        match *self {}
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
            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "neon,dotprod")]
            unsafe fn dotprod $(<$f: $bound>)? ($($arg: $ty),*) {
                // SAFETY: as above.
                unsafe { $kernel::<$crate::kernels::simd::Neon<true> $(, $f)?>($($arg),*) }
            }
            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "neon")]
            unsafe fn neon $(<$f: $bound>)? ($($arg: $ty),*) {
                // SAFETY: as above.
                unsafe { $kernel::<$crate::kernels::simd::Neon<false> $(, $f)?>($($arg),*) }
            }
            // SAFETY: only what was detected is called; the rest is the caller's promise.
            unsafe {
                #[cfg(target_arch = "x86_64")]
                if $crate::kernels::quantized::level::has_vnni() {
                    return vnni $(::<$f>)? ($($arg),*);
                } else if $crate::kernels::quantized::level::has_avx2() {
                    return avx2 $(::<$f>)? ($($arg),*);
                }
                #[cfg(target_arch = "aarch64")]
                if $crate::kernels::quantized::level::has_dotprod() {
                    return dotprod $(::<$f>)? ($($arg),*);
                } else if $crate::kernels::quantized::level::has_neon() {
                    return neon $(::<$f>)? ($($arg),*);
                }
                $kernel::<$crate::kernels::simd::Portable $(, $f)?>($($arg),*);
            }
        }
    };
}
pub(super) use dispatch;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd::{LANES, Portable};
    use crate::kernels::test_numbers;

    dispatch! { unsafe fn compare_dispatch = compare(weights: &[i32; LANES], x: &[i32; LANES], numbers: &[f32; LANES]) }

    /// The operations that levels do in their own ways, against plain Rust's.
    ///
    /// # Safety
    /// The processor has the instructions of `S`.
    #[inline(always)]
    unsafe fn compare<S: Integers>(weights: &[i32; LANES], x: &[i32; LANES], numbers: &[f32; LANES]) {
        // SAFETY: the caller promises the instructions; memory is of 16 lanes or bytes.
        unsafe {
            let (v, factors) = (S::load_i(weights.as_ptr()), S::load_i(x.as_ptr()));
            assert_eq!(lanes::<S>(v), *weights);
            assert_eq!(lanes::<S>(S::shl::<3>(v)), Portable::shl::<3>(*weights));
            assert_eq!(lanes::<S>(S::shr::<4>(v)), Portable::shr::<4>(*weights));
            assert_eq!(lanes::<S>(S::sar::<24>(v)), Portable::sar::<24>(*weights));
            assert_eq!(S::lanes(S::to_float(v)), Portable::to_float(*weights));
            let mut halves = S::lanes(S::half_to_float(v)).into_iter().zip(Portable::half_to_float(*weights));
            assert!(halves.all(|(a, b)| a == b || a.is_nan() && b.is_nan()));
            let (sums, small) = (S::splat_i(5), S::and(v, S::splat_i(0x7f7f_7f7f)));
            let products = S::dot(sums, small, factors);
            assert_eq!(lanes::<S>(products), Portable::dot([5; LANES], lanes::<S>(small), *x));
            let flip = i32::from_ne_bytes([S::FLIP; 4]);
            let products = lanes::<S>(S::dot_signed(sums, S::xor(v, S::splat_i(flip)), factors));
            let excess = Portable::dot([0; LANES], [0x0101_0101; LANES], *x).map(|sum| i32::from(S::FLIP) * sum);
            let expected = Portable::dot_signed([5; LANES], *weights, *x);
            assert_eq!(products, std::array::from_fn(|i| expected[i] + excess[i]));
            let v = S::round(S::load(numbers.as_ptr()));
            let mut stored = [0i8; LANES];
            S::store_bytes(stored.as_mut_ptr(), v);
            assert_eq!(stored.map(f32::from), S::lanes(v));
            assert_eq!(S::sum_whole(v), Portable::sum_whole(S::lanes(v)));
            assert_eq!(S::largest_of(v), Portable::largest_of(S::lanes(v)));
        }
    }

    /// # Safety
    /// The processor has the instructions of `S`.
    #[inline(always)]
    unsafe fn lanes<S: Integers>(v: S::I) -> [i32; LANES] {
        let mut lanes = [0; LANES];
        // SAFETY: the caller promises the instructions; `lanes` has room for 16 numbers.
        unsafe { S::store_i(lanes.as_mut_ptr(), v) };
        lanes
    }

    #[test]
    fn operations_are_those_of_plain_rust() {
        for seed in 0..50 {
            let numbers = |n, seed| test_numbers(n, seed).into_iter().map(|x| (x * 140.0).round());
            // Signed bytes up to their extremes, -128 among the weights alone.
            let lanes = |least: f32, seed| -> [i32; LANES] {
                let mut bytes = numbers(4 * LANES, seed).map(|x| x.clamp(least, 127.0) as i8 as u8);
                std::array::from_fn(|_| i32::from_le_bytes(std::array::from_fn(|_| bytes.next().unwrap())))
            };
            let (mut weights, mut x) = (lanes(-128.0, seed), lanes(-127.0, seed + 100));
            if seed == 0 {
                (weights, x) = ([0x8080_8080u32 as i32; LANES], [0x8181_8181u32 as i32; LANES]);
            }
            let floats: Vec<f32> = numbers(LANES, seed + 200).map(|x| x.clamp(-128.0, 127.0)).collect();
            // SAFETY: the kernel asks for nothing but the level's instructions.
            unsafe { compare_dispatch(&weights, &x, floats[..].try_into().unwrap()) };
        }
    }
}
