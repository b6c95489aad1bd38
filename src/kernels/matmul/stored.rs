//! How kernels read stored numbers, whatever their type.

use crate::kernels::simd::{LANES, Simd};

/// A type of stored numbers.
pub(super) trait Stored {
    type Number: Copy;
    /// Whether the numbers need no widening.
    const IS_F32: bool = false;
    unsafe fn load<S: Simd>(p: *const Self::Number) -> S::V;
    unsafe fn scalar(p: *const Self::Number) -> f32;
}

pub(super) struct F32;
pub(super) struct F16;
pub(super) struct BF16;

impl Stored for F32 {
    type Number = f32;
    const IS_F32: bool = true;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const f32) -> S::V {
        unsafe { S::load(p) }
    }
    #[inline(always)]
    unsafe fn scalar(p: *const f32) -> f32 {
        unsafe { p.read_unaligned() }
    }
}

impl Stored for F16 {
    type Number = u16;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u16) -> S::V {
        unsafe { S::load_f16(p) }
    }
    #[inline(always)]
    unsafe fn scalar(p: *const u16) -> f32 {
        half::f16::from_bits(unsafe { p.read_unaligned() }).to_f32()
    }
}

impl Stored for BF16 {
    type Number = u16;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u16) -> S::V {
        unsafe { S::load_bf16(p) }
    }
    #[inline(always)]
    unsafe fn scalar(p: *const u16) -> f32 {
        half::bf16::from_bits(unsafe { p.read_unaligned() }).to_f32()
    }
}

/// Loads `n` numbers (up to 16); the other lanes are 0.
#[inline(always)]
pub(super) unsafe fn load_up_to<S: Simd, T: Stored>(p: *const T::Number, n: usize) -> S::V {
    unsafe {
        if n >= LANES {
            return T::load::<S>(p);
        }
        let mut lanes = [0.0f32; LANES];
        for (i, lane) in lanes.iter_mut().enumerate().take(n) {
            *lane = T::scalar(p.add(i));
        }
        S::load(lanes.as_ptr())
    }
}

#[inline(always)]
pub(super) unsafe fn store_up_to<S: Simd>(p: *mut f32, n: usize, v: S::V) {
    unsafe { if n >= LANES { S::store(p, v) } else { S::store_first(p, n, v) } }
}

#[inline(always)]
pub(super) unsafe fn read_up_to<S: Simd>(p: *const f32, n: usize) -> S::V {
    unsafe { if n >= LANES { S::load(p) } else { S::load_first(p, n) } }
}
