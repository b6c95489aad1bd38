//! Sixteen lanes at a time: one vector interface over AVX-512, AVX2, NEON and plain Rust, chosen at run time.
//!
//! A [`Kernel`] is written once, for any [`Simd`], and [`dispatch`] runs it at the [`Level`] in use. The value of a type
//! that is `Simd` stands for instructions that the processor has: only `dispatch` makes one, after it has looked. So
//! arithmetic on lanes is safe, as are loads and stores, which take references to as many numbers as there are lanes.
//!
//! All levels have 16 lanes, so a kernel splits and sums its work in the same order everywhere, and each operation rounds as
//! IEEE 754 says. So all levels give the same bits, on every processor.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::sync::OnceLock;

pub use math::{exp, tanh};

use crate::error::{Error, Result};

/// The vector instruction sets of an architecture, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Plain Rust, for any processor.
    Baseline,
    /// Plain Rust, with the processor's fused multiply-add.
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
    /// The same with AMX, a unit that multiplies matrices of bytes.
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// NEON, with products of bytes (FEAT_DotProd) where the processor has them.
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Level {
    /// The name that the environment variable `GPT2_SIMD` has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
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

/// Every name that `GPT2_SIMD` may have, on any processor.
const NAMES: [&str; 7] = ["baseline", "portable", "avx2", "avx512", "vnni", "amx", "neon"];

/// The level that the environment variable `GPT2_SIMD` asks for, if it is set, by its name.
///
/// # Errors
/// [`Error::Usage`] that names the levels.
pub fn asked_level() -> Result<Option<&'static str>> {
    let Some(name) = std::env::var_os("GPT2_SIMD").filter(|name| !name.is_empty()) else { return Ok(None) };
    let known = NAMES.into_iter().find(|known| name == *known);
    known.map(Some).ok_or_else(|| {
        let names = NAMES.join(", ");
        Error::Usage(format!("the environment variable GPT2_SIMD is {name:?}; it takes {names}"))
    })
}

/// The level in use: the best that the processor offers, or a lower one if the environment variable `GPT2_SIMD`
/// (`baseline`, `portable`, `avx2`, `avx512`, `vnni`, `amx`, `neon`) asks for it.
#[must_use]
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let best = detected();
        match std::env::var("GPT2_SIMD").as_deref() {
            Ok("baseline") => Level::Baseline,
            Ok("portable") => best.min(Level::Portable),
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
        _ if is_x86_feature_detected!("fma") => Level::Portable,
        _ => Level::Baseline,
    }
}

#[cfg(target_arch = "aarch64")]
fn detected() -> Level {
    if std::arch::is_aarch64_feature_detected!("neon") { Level::Neon } else { Level::Portable }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detected() -> Level {
    // Their baseline has fused multiply-add, or none of them has.
    let is_fused = cfg!(any(target_arch = "riscv64", target_arch = "powerpc64", target_arch = "s390x"));
    if is_fused { Level::Portable } else { Level::Baseline }
}

/// Work that is done with the instructions of a level.
pub trait Kernel {
    /// What comes of it.
    type Output;

    /// Does the work. Implementations are `#[inline(always)]`, as is all that they call with `simd`: only so is it compiled
    /// with the level's instructions. (A closure is not, unless it is inlined too.)
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs a kernel at the [`level`] in use.
#[inline]
pub fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    match level() {
        Level::Baseline => portable::run(kernel),
        // SAFETY: `level` is at most what was detected, here and below.
        #[cfg(target_arch = "x86_64")]
        Level::Portable => unsafe { portable::run_fused(kernel) },
        #[cfg(not(target_arch = "x86_64"))]
        Level::Portable => portable::run_fused(kernel),
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { avx2::run(kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx512 => unsafe { avx512::run(kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above; AMX is not there without VNNI.
        Level::Vnni | Level::Amx => unsafe { avx512::run_with_vnni(kernel) },
        #[cfg(target_arch = "aarch64")]
        Level::Neon if std::arch::is_aarch64_feature_detected!("dotprod") => {
            // SAFETY: both were detected.
            unsafe { neon::run_with_dotprod(kernel) }
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Level::Neon => unsafe { neon::run(kernel) },
    }
}

/// Lanes of a vector.
pub const LANES: usize = 16;

/// Operations on 16 lanes of `f32` or `i32`, by instructions that the processor has, as the value shows.
pub trait Simd: Copy + Send + Sync + 'static {
    /// Sixteen numbers.
    type V: Copy;
    /// Sixteen integers, each of which may hold four bytes.
    type I: Copy;
    /// What may be there to multiply matrices of bytes.
    type Unit: MatrixUnit;

    /// Rows of the tile of a product of floating-point numbers in panels.
    const TILE_ROWS: usize;
    /// Vectors across that tile.
    const TILE_VECTORS: usize;
    /// Rows and columns of the tile of dot products.
    const DOT_TILE: (usize, usize);
    /// Rows of the tile of a product of quantised numbers.
    const QUANTIZED_TILE_ROWS: usize;
    /// Vectors of sums that attention keeps in registers.
    const SUMS: usize;
    /// What a signed byte of a weight is xored with before [`dot_signed`](Self::dot_signed) takes it: 0x80 where the
    /// product wants one factor without a sign, which then is 128 too large.
    const FLIP: u8;

    fn splat(self, x: f32) -> Self::V;
    fn load(self, p: &[f32; LANES]) -> Self::V;
    /// Loads the first lanes from fewer than 16 numbers; the others are 0.
    fn load_first(self, p: &[f32]) -> Self::V;
    /// Loads `f32` from bytes in memory order.
    fn load_f32(self, p: &[[u8; 4]; LANES]) -> Self::V;
    fn load_f16(self, p: &[[u8; 2]; LANES]) -> Self::V;
    fn load_bf16(self, p: &[[u8; 2]; LANES]) -> Self::V;
    fn store(self, p: &mut [f32; LANES], v: Self::V);
    /// Stores the first lanes into fewer than 16 places.
    fn store_first(self, p: &mut [f32], v: Self::V);
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    fn sqrt(self, a: Self::V) -> Self::V;
    /// Where one of the two is NaN: `b`, or NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The same for NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `yes` where `a < b`, else `no`; so `no` where one of the two is NaN.
    fn if_less(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// To whole numbers, ties to even.
    fn round(self, a: Self::V) -> Self::V;
    /// `2^n` for whole `n` in -126..=127.
    fn exp2_whole(self, n: Self::V) -> Self::V;
    /// The largest lane, where none is NaN.
    fn largest(self, v: Self::V) -> f32;
    /// Lanes, which are whole numbers in -128..=127, as bytes.
    fn store_bytes(self, p: &mut [i8; LANES], v: Self::V);
    /// The sum of lanes that are small whole numbers.
    fn sum_whole(self, v: Self::V) -> i32;

    fn splat_i(self, x: i32) -> Self::I;
    fn load_i(self, p: &[i32; LANES]) -> Self::I;
    /// Loads integers from bytes in memory order.
    fn load_fours(self, p: &[[u8; 4]; LANES]) -> Self::I;
    fn store_i(self, p: &mut [i32; LANES], v: Self::I);
    fn and(self, a: Self::I, b: Self::I) -> Self::I;
    fn or(self, a: Self::I, b: Self::I) -> Self::I;
    fn xor(self, a: Self::I, b: Self::I) -> Self::I;
    fn shl<const N: u32>(self, a: Self::I) -> Self::I;
    /// Shifts zeros in.
    fn shr<const N: u32>(self, a: Self::I) -> Self::I;
    /// Shifts the sign in.
    fn sar<const N: u32>(self, a: Self::I) -> Self::I;
    /// `sums[i] += Σ weights[i][j] * x[i][j]` over the four bytes of each lane; `x` is signed, in -127..=127, the
    /// weights lie in 0..=127.
    fn dot(self, sums: Self::I, weights: Self::I, x: Self::I) -> Self::I;
    /// The same for signed weights that were xored with [`FLIP`](Self::FLIP).
    fn dot_signed(self, sums: Self::I, weights: Self::I, x: Self::I) -> Self::I;
    fn to_float(self, a: Self::I) -> Self::V;
    /// The bits of numbers.
    fn bits(self, a: Self::V) -> Self::I;
    /// The numbers that have these bits.
    fn of_bits(self, a: Self::I) -> Self::V;
    /// The lower half of each lane, an f16, as f32.
    fn half_to_float(self, a: Self::I) -> Self::V;

    /// Asks for the cache line at `p`, which need not be valid, into the L2 cache.
    #[inline(always)]
    fn prefetch(self, _p: *const u8) {}

    /// Loads the first 16 numbers, or all where there are fewer; the other lanes are 0.
    #[inline(always)]
    fn load_up_to(self, p: &[f32]) -> Self::V {
        match p.first_chunk() {
            Some(p) => self.load(p),
            None => self.load_first(p),
        }
    }

    /// Stores into the first 16 places, or all where there are fewer.
    #[inline(always)]
    fn store_up_to(self, p: &mut [f32], v: Self::V) {
        match p.first_chunk_mut() {
            Some(p) => self.store(p, v),
            None => self.store_first(p, v),
        }
    }

    /// All lanes, in memory order.
    #[inline(always)]
    fn lanes(self, v: Self::V) -> [f32; LANES] {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes, v);
        lanes
    }

    /// The sum of the lanes, pairwise in a fixed order.
    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        let mut lanes = self.lanes(v);
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
    fn sums(self, v: [Self::V; LANES]) -> Self::V {
        let mut sums = [0.0; LANES];
        for (sum, v) in sums.iter_mut().zip(v) {
            *sum = self.sum(v);
        }
        self.load(&sums)
    }
}

/// A unit that multiplies matrices of bytes, set up for the calling thread.
pub trait MatrixUnit: Sized {
    /// Sets the unit up for products over `depth` inputs, 16 or 32, where the level in use has it. None if it has not, or
    /// if the thread has set it up already.
    fn configure(depth: usize) -> Option<Self>;

    /// `sums[m][n] = Σ x[m][k] * weights[k / 4][n][k % 4]` over `depth` signed bytes `k`, with 16 `m` and `n`. Rows of
    /// `x` are `x_stride` bytes apart, those of the weights `weights_stride` bytes.
    ///
    /// # Safety
    /// `x` has 16 rows of `depth` bytes, and the weights `depth / 4` rows of 64.
    unsafe fn multiply(
        &self,
        x: *const i8,
        x_stride: usize,
        weights: *const i32,
        weights_stride: usize,
        sums: &mut [[i32; LANES]; LANES],
    );
}

/// No unit.
impl MatrixUnit for Infallible {
    fn configure(_: usize) -> Option<Self> {
        None
    }
    unsafe fn multiply(&self, _: *const i8, _: usize, _: *const i32, _: usize, _: &mut [[i32; LANES]; LANES]) {
        match *self {}
    }
}

/// Methods whose bodies are instructions of the level that `self` stands for.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! instructions {
    ($(
        fn $name:ident $(<const $n:ident: u32>)? ($self:ident $(, $arg:ident: $ty:ty)* $(,)?) $(-> $out:ty)? { $($body:tt)* }
    )*) => {$(
        // On ARM, most are safe to call: every aarch64 processor that Rust knows has NEON.
        #[cfg_attr(target_arch = "aarch64", allow(unused_unsafe))]
        #[inline(always)]
        fn $name $(<const $n: u32>)? ($self $(, $arg: $ty)*) $(-> $out)? {
            // SAFETY: the processor has the instructions: no `self` is made elsewhere than where they are enabled. What
            // they read and write of memory is the lanes of the array, or so many of the slice's as there are.
            unsafe { $($body)* }
        }
    )*};
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use instructions;
