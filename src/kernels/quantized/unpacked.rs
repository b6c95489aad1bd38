//! Where unpacked weights go: plain bytes with a scale to each group, kept for many rows of activations, or whatever else
//! takes them.

use std::marker::PhantomData;

use super::activations::CHUNK;
use super::format::{Format, Sink};
use crate::kernels::simd::{LANES, Simd};

/// Most inputs of a part, whole blocks of every format; so it stays in the L1 cache.
pub(super) const DEPTH: usize = 512;

/// Numbers of two panels, which lie side by side.
type Pair<T> = [[T; LANES]; 2];

/// A part of a pair of panels, made for one pass over the activations.
pub(super) type Unpacked = [UnpackedChunk; DEPTH / CHUNK];

/// 32 inputs of a pair of panels. A weight is `byte * scale - minimum`.
#[repr(align(64))]
pub(super) struct UnpackedChunk {
    /// Four inputs of each output, a byte each, then the next four.
    pub bytes: [Pair<i32>; CHUNK / 4],
    /// The scale of each output for each group of inputs, of which there are one or two.
    pub scales: [Pair<f32>; 2],
    /// What is subtracted; unused in formats without minima.
    pub minima: Pair<f32>,
}

/// Nothing unpacked.
pub(super) const fn empty() -> Unpacked {
    const EMPTY: UnpackedChunk = UnpackedChunk {
        bytes: [[[0; LANES]; 2]; CHUNK / 4],
        scales: [[[0.0; LANES]; 2]; 2],
        minima: [[0.0; LANES]; 2],
    };
    [EMPTY; DEPTH / CHUNK]
}

/// The place of a block of `F` among unpacked weights.
pub(super) struct Place<'a, F> {
    chunks: &'a mut [UnpackedChunk],
    /// Which of the two panels it is of, 0 or 1.
    side: usize,
    format: PhantomData<F>,
}

impl<'a, F: Format> Place<'a, F> {
    /// The place of block `i` of the first or the second panel.
    #[inline(always)]
    pub fn new(unpacked: &'a mut Unpacked, i: usize, second: bool) -> Self {
        let chunks = &mut unpacked[i * (F::LEN / CHUNK)..][..F::LEN / CHUNK];
        Self { chunks, side: usize::from(second), format: PhantomData }
    }
}

impl<S: Simd, F: Format> Sink<S> for Place<'_, F> {
    #[inline(always)]
    fn bytes(&mut self, simd: S, i: usize, v: S::I) {
        simd.store_i(&mut self.chunks[i / (CHUNK / 4)].bytes[i % (CHUNK / 4)][self.side], v);
    }
    #[inline(always)]
    fn scales(&mut self, simd: S, group: usize, v: S::V) {
        let groups = CHUNK / F::GROUP;
        simd.store(&mut self.chunks[group / groups].scales[group % groups][self.side], v);
    }
    #[inline(always)]
    fn minima(&mut self, simd: S, chunk: usize, v: S::V) {
        simd.store(&mut self.chunks[chunk].minima[self.side], v);
    }
}
