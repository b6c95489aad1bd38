//! How kernels read stored numbers, whatever their type. They lie anywhere: files align nothing.

use super::simd::{LANES, Simd};

/// A type of stored numbers.
pub trait Stored {
    /// The bytes of a number.
    type Number: Copy;
    /// Whether the numbers need no widening.
    const IS_F32: bool = false;
    /// The numbers that bytes are.
    fn numbers(bytes: &[u8]) -> &[Self::Number];
    /// Loads 16 numbers.
    fn load<S: Simd>(simd: S, numbers: &[Self::Number; LANES]) -> S::V;
    /// One number.
    fn to_f32(number: Self::Number) -> f32;

    /// Loads the first 16 numbers, or all where there are fewer; the other lanes are 0.
    #[inline(always)]
    fn load_up_to<S: Simd>(simd: S, numbers: &[Self::Number]) -> S::V {
        if let Some(numbers) = numbers.first_chunk() {
            return Self::load(simd, numbers);
        }
        let mut lanes = [0.0f32; LANES];
        for (lane, number) in lanes.iter_mut().zip(numbers) {
            *lane = Self::to_f32(*number);
        }
        simd.load(&lanes)
    }
}

pub struct F32;
pub struct F16;
pub struct BF16;

impl Stored for F32 {
    type Number = [u8; 4];
    const IS_F32: bool = true;
    #[inline(always)]
    fn numbers(bytes: &[u8]) -> &[[u8; 4]] {
        bytes.as_chunks().0
    }
    #[inline(always)]
    fn load<S: Simd>(simd: S, numbers: &[[u8; 4]; LANES]) -> S::V {
        simd.load_f32(numbers)
    }
    #[inline(always)]
    fn to_f32(number: [u8; 4]) -> f32 {
        f32::from_ne_bytes(number)
    }
}

impl Stored for F16 {
    type Number = [u8; 2];
    #[inline(always)]
    fn numbers(bytes: &[u8]) -> &[[u8; 2]] {
        bytes.as_chunks().0
    }
    #[inline(always)]
    fn load<S: Simd>(simd: S, numbers: &[[u8; 2]; LANES]) -> S::V {
        simd.load_f16(numbers)
    }
    #[inline(always)]
    fn to_f32(number: [u8; 2]) -> f32 {
        half::f16::from_ne_bytes(number).to_f32()
    }
}

impl Stored for BF16 {
    type Number = [u8; 2];
    #[inline(always)]
    fn numbers(bytes: &[u8]) -> &[[u8; 2]] {
        bytes.as_chunks().0
    }
    #[inline(always)]
    fn load<S: Simd>(simd: S, numbers: &[[u8; 2]; LANES]) -> S::V {
        simd.load_bf16(numbers)
    }
    #[inline(always)]
    fn to_f32(number: [u8; 2]) -> f32 {
        half::bf16::from_ne_bytes(number).to_f32()
    }
}

/// Numbers that were widened, as [`F32`] wants them.
pub fn widened(numbers: &[f32]) -> &[[u8; 4]] {
    // SAFETY: an f32 is four bytes without padding, and bytes may lie anywhere.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), numbers.len()) }
}

/// Copies numbers into the beginning of `out`, as f32.
#[inline(always)]
pub fn widen<S: Simd, T: Stored>(simd: S, numbers: &[T::Number], out: &mut Vec<f32>) {
    if out.len() < numbers.len() {
        out.resize(numbers.len(), 0.0);
    }
    let (whole, rest) = numbers.as_chunks();
    let (wide, wide_rest) = out[..numbers.len()].as_chunks_mut();
    for (numbers, wide) in whole.iter().zip(wide) {
        simd.store(wide, T::load(simd, numbers));
    }
    for (number, wide) in rest.iter().zip(wide_rest) {
        *wide = T::to_f32(*number);
    }
}
