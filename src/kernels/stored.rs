//! How kernels read stored numbers, whatever their type.

use super::simd::{LANES, Simd};

/// A type of stored numbers.
pub trait Stored {
    type Number: Copy;
    /// Whether the numbers need no widening.
    const IS_F32: bool = false;
    /// Loads 16 numbers.
    ///
    /// # Safety
    /// The processor has the instructions of `S`, and 16 numbers can be read; they need no alignment.
    unsafe fn load<S: Simd>(p: *const Self::Number) -> S::V;
    /// One number.
    fn to_f32(number: Self::Number) -> f32;
}

pub struct F32;
pub struct F16;
pub struct BF16;

impl Stored for F32 {
    type Number = f32;
    const IS_F32: bool = true;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const f32) -> S::V {
        // SAFETY: just what the caller promises.
        unsafe { S::load(p) }
    }
    #[inline(always)]
    fn to_f32(number: f32) -> f32 {
        number
    }
}

impl Stored for F16 {
    type Number = u16;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u16) -> S::V {
        // SAFETY: just what the caller promises.
        unsafe { S::load_f16(p) }
    }
    #[inline(always)]
    fn to_f32(number: u16) -> f32 {
        half::f16::from_bits(number).to_f32()
    }
}

impl Stored for BF16 {
    type Number = u16;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u16) -> S::V {
        // SAFETY: just what the caller promises.
        unsafe { S::load_bf16(p) }
    }
    #[inline(always)]
    fn to_f32(number: u16) -> f32 {
        half::bf16::from_bits(number).to_f32()
    }
}

/// Loads `n` numbers (up to 16); the other lanes are 0.
///
/// # Safety
/// The processor has the instructions of `S`, and `n` or 16 numbers can be read.
#[inline(always)]
pub unsafe fn load_up_to<S: Simd, T: Stored>(p: *const T::Number, n: usize) -> S::V {
    // SAFETY: the caller promises the instructions and `n` numbers, of which no more are read; `lanes` holds 16.
    unsafe {
        if n >= LANES {
            return T::load::<S>(p);
        }
        let mut lanes = [0.0f32; LANES];
        for (i, lane) in lanes.iter_mut().enumerate().take(n) {
            *lane = T::to_f32(p.add(i).read_unaligned());
        }
        S::load(lanes.as_ptr())
    }
}

/// Stores the first `n` lanes (up to 16).
///
/// # Safety
/// The processor has the instructions of `S`, and `n` or 16 numbers can be written.
#[inline(always)]
pub unsafe fn store_up_to<S: Simd>(p: *mut f32, n: usize, v: S::V) {
    // SAFETY: the caller promises the instructions and room for `n` numbers, of which no more are written.
    unsafe { if n >= LANES { S::store(p, v) } else { S::store_first(p, n, v) } }
}

/// As [`load_up_to`], of `f32`.
///
/// # Safety
/// The processor has the instructions of `S`, and `n` or 16 numbers can be read.
#[inline(always)]
pub unsafe fn read_up_to<S: Simd>(p: *const f32, n: usize) -> S::V {
    // SAFETY: the caller promises the instructions and `n` numbers, of which no more are read.
    unsafe { if n >= LANES { S::load(p) } else { S::load_first(p, n) } }
}
