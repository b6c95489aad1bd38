//! What a block of the cache holds, and how positions get into it.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::kernels::FloatType;
use crate::kernels::simd::LANES;

/// Positions in a block of the cache.
pub const BLOCK_POSITIONS: usize = LANES;

/// The shape of one layer's part of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheShape {
    /// `H`.
    pub heads: usize,
    /// `D`.
    pub head_dim: usize,
    /// The type of cached keys and values.
    pub dtype: FloatType,
}

impl CacheShape {
    /// The width of a stored value: `D` rounded up to whole vectors.
    pub(super) fn value_dim(self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    /// Keys that one layer has in a block, as numbers.
    pub(super) fn keys_len(self) -> usize {
        self.heads * self.head_dim * BLOCK_POSITIONS
    }

    /// Bytes that one layer takes in a block.
    #[must_use]
    pub fn block_bytes(self) -> usize {
        (self.keys_len() + self.heads * BLOCK_POSITIONS * self.value_dim()) * self.dtype.size()
    }
}

/// Writes the key and value of one position, both (H * D), into place `slot` of a layer's part of a block. Numbers that
/// are too large for the block's type become the largest it has.
///
/// # Panics
/// If the lengths do not fit the shape.
pub fn append(shape: CacheShape, key: &[f32], value: &[f32], slot: usize, block: &mut [u8]) {
    match shape.dtype {
        FloatType::F32 => append_numbers(shape, key, value, f32::to_le_bytes, slot, block),
        FloatType::F16 => {
            let (key, value) = (to_f16(key), to_f16(value));
            append_numbers(shape, &key, &value, f16::to_le_bytes, slot, block);
        }
        FloatType::BF16 => {
            let round = |numbers: &[f32]| numbers.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>();
            append_numbers(shape, &round(key), &round(value), bf16::to_le_bytes, slot, block);
        }
    }
}

fn to_f16(numbers: &[f32]) -> Vec<f16> {
    let largest = f16::MAX.to_f32();
    // What is not finite stays so and is found later.
    let within = |x: &f32| if x.is_finite() { x.clamp(-largest, largest) } else { *x };
    let within: Vec<f32> = numbers.iter().map(within).collect();
    let mut rounded = vec![f16::ZERO; within.len()];
    rounded.convert_from_f32_slice(&within);
    rounded
}

fn append_numbers<T: Copy, const SIZE: usize>(
    shape: CacheShape,
    key: &[T],
    value: &[T],
    bytes: fn(T) -> [u8; SIZE],
    slot: usize,
    block: &mut [u8],
) {
    let (block, _) = block.as_chunks_mut::<SIZE>();
    let (keys, values) = block.split_at_mut(shape.keys_len());
    for (lane, x) in keys.chunks_exact_mut(BLOCK_POSITIONS).zip(key) {
        lane[slot] = bytes(*x);
    }
    let width = shape.value_dim();
    let heads = values.chunks_exact_mut(BLOCK_POSITIONS * width).zip(value.chunks_exact(shape.head_dim));
    for (head, value) in heads {
        for (place, x) in head[slot * width..].iter_mut().zip(value) {
            *place = bytes(*x);
        }
    }
}
