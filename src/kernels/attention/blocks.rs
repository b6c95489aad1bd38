//! What a block of the cache holds, and how positions get into it.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::base::FloatType;
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

/// The part of one head in a layer's part of a block.
#[derive(Debug)]
pub struct HeadBlock<'a> {
    shape: CacheShape,
    /// (D, 16).
    keys: &'a mut [u8],
    /// (16, D rounded up to whole vectors).
    values: &'a mut [u8],
}

impl CacheShape {
    /// The parts of all heads in a layer's part of a block, in order.
    pub fn heads_mut(self, block: &mut [u8]) -> impl Iterator<Item = HeadBlock<'_>> {
        let (keys, values) = block.split_at_mut(self.keys_len() * self.dtype.size());
        let (key, value) = (keys.len() / self.heads, values.len() / self.heads);
        let heads = keys.chunks_exact_mut(key).zip(values.chunks_exact_mut(value));
        heads.map(move |(keys, values)| HeadBlock { shape: self, keys, values })
    }
}

impl HeadBlock<'_> {
    /// Writes the key and value of one position, both (D), into place `slot`. Numbers that are too large for the block's
    /// type become the largest it has.
    ///
    /// # Panics
    /// If a length is not that of the head.
    pub fn write(&mut self, key: &[f32], value: &[f32], slot: usize) {
        match self.shape.dtype {
            FloatType::F32 => self.write_numbers(key, value, f32::to_le_bytes, slot),
            FloatType::F16 => self.write_numbers(&to_f16(key), &to_f16(value), f16::to_le_bytes, slot),
            FloatType::BF16 => {
                let round = |numbers: &[f32]| numbers.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>();
                self.write_numbers(&round(key), &round(value), bf16::to_le_bytes, slot);
            }
        }
    }

    fn write_numbers<T: Copy, const SIZE: usize>(
        &mut self,
        key: &[T],
        value: &[T],
        bytes: fn(T) -> [u8; SIZE],
        slot: usize,
    ) {
        let (d, width) = (self.shape.head_dim, self.shape.value_dim());
        assert_eq!((key.len(), value.len()), (d, d), "length of a key and a value");
        let (keys, _) = self.keys.as_chunks_mut::<SIZE>();
        for (lane, x) in keys.chunks_exact_mut(BLOCK_POSITIONS).zip(key) {
            lane[slot] = bytes(*x);
        }
        let (values, _) = self.values.as_chunks_mut::<SIZE>();
        for (place, x) in values[slot * width..].iter_mut().zip(value) {
            *place = bytes(*x);
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
