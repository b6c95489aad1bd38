//! Where unpacked weights go: plain bytes with a scale to each group, kept for many rows of activations, or whatever else
//! takes them.

use super::format::Format;
use crate::kernels::simd::{LANES, Simd};

/// Inputs of a chunk.
pub(super) const CHUNK: usize = 32;

/// Most inputs of a part, whole blocks of every format; so it stays in the first-level cache.
pub(super) const DEPTH: usize = 512;

/// Numbers of two panels, which lie side by side.
type Pair<T> = [[T; LANES]; 2];

/// A part of a pair of panels, made for one pass over the activations. A weight is `byte * scale - minimum`.
#[repr(align(64))]
pub(super) struct Unpacked {
    /// Four inputs of each output, a byte each, then the next four.
    pub bytes: [Pair<i32>; DEPTH / 4],
    /// The scale of each output for each group of inputs.
    pub scales: [Pair<f32>; DEPTH / 16],
    /// What is subtracted, for each chunk of inputs; unused in formats without minima.
    pub minima: [Pair<f32>; DEPTH / CHUNK],
}

impl Unpacked {
    pub const fn new() -> Self {
        Self {
            bytes: [[[0; LANES]; 2]; DEPTH / 4],
            scales: [[[0.0; LANES]; 2]; DEPTH / 16],
            minima: [[[0.0; LANES]; 2]; DEPTH / CHUNK],
        }
    }

    /// Where the block goes that is the `i`th of panel `side`, 0 or 1.
    #[inline(always)]
    pub fn block<F: Format>(&mut self, i: usize, side: usize) -> BlockOf<'_> {
        let (fours, groups, chunks) = (F::LEN / 4, F::LEN / F::GROUP, F::LEN / CHUNK);
        BlockOf {
            bytes: &mut self.bytes[i * fours..][..fours],
            scales: &mut self.scales[i * groups..][..groups],
            minima: &mut self.minima[i * chunks..][..chunks],
            side,
        }
    }
}

/// What takes a block's unpacked weights of 16 outputs. Groups and chunks are counted from the start of the block.
pub(super) trait Sink<S: Simd> {
    /// The weights of inputs `4 * i..4 * i + 4` of each output, a byte each.
    fn bytes(&mut self, simd: S, i: usize, v: S::I);
    /// The scales of the inputs of group `group`.
    fn scales(&mut self, simd: S, group: usize, v: S::V);
    /// The minima of the inputs of chunk `chunk`.
    fn minima(&mut self, simd: S, chunk: usize, v: S::V);
}

/// A block's place in [`Unpacked`].
pub(super) struct BlockOf<'a> {
    bytes: &'a mut [Pair<i32>],
    scales: &'a mut [Pair<f32>],
    minima: &'a mut [Pair<f32>],
    side: usize,
}

impl<S: Simd> Sink<S> for BlockOf<'_> {
    #[inline(always)]
    fn bytes(&mut self, simd: S, i: usize, v: S::I) {
        simd.store_i(&mut self.bytes[i][self.side], v);
    }
    #[inline(always)]
    fn scales(&mut self, simd: S, group: usize, v: S::V) {
        simd.store(&mut self.scales[group][self.side], v);
    }
    #[inline(always)]
    fn minima(&mut self, simd: S, chunk: usize, v: S::V) {
        simd.store(&mut self.minima[chunk][self.side], v);
    }
}
