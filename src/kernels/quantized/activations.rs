//! Activations as 8-bit integers, 32 with one scale.

use crate::kernels::share::for_each_chunk;
use crate::kernels::simd::{Kernel, LANES, Simd, dispatch};

/// Inputs of a chunk.
pub(super) const CHUNK: usize = 32;

/// 32 activations: `x ≈ scale * number`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Chunk {
    /// The numbers, four signed bytes each.
    pub fours: [i32; CHUNK / 4],
    /// The sums of the first and the last 16 numbers.
    pub sums: [i32; 2],
    pub scale: f32,
    /// What the numbers stand for, added up, negated: the factor of the weights' minima.
    pub total: f32,
}

/// Rows of `K` activations, `K` a multiple of 32.
#[derive(Default)]
pub(super) struct Activations {
    /// (M, K / 32).
    chunks: Vec<Chunk>,
    /// `K / 32`.
    row_chunks: usize,
}

/// Rows that one thread takes at a time.
const ROWS: usize = 8;

impl Activations {
    /// Quantises the rows of `x` (M, K), `K` a multiple of 32. Rows do not depend on each other.
    pub fn set(&mut self, x: &[f32], inputs: usize) {
        let row_chunks = inputs / CHUNK;
        self.row_chunks = row_chunks;
        self.chunks.resize(x.len() / CHUNK, Chunk::default());
        for_each_chunk(x.len(), &mut self.chunks, ROWS * row_chunks, |i, chunks| {
            let rows = x[i * ROWS * inputs..].chunks_exact(inputs).zip(chunks.chunks_exact_mut(row_chunks));
            rows.for_each(|(x, chunks)| dispatch(QuantizeRow { x, chunks }));
        });
    }

    /// Row `m`.
    #[inline(always)]
    pub fn row(&self, m: usize) -> &[Chunk] {
        &self.chunks[m * self.row_chunks..][..self.row_chunks]
    }

    /// From row `m` on.
    #[inline(always)]
    pub fn rows(&self, m: usize) -> &[Chunk] {
        &self.chunks[m * self.row_chunks..]
    }
}

/// Below this a chunk counts as zeros: the inverse of its scale might not be finite.
const SMALLEST: f32 = 1e-30;

struct QuantizeRow<'a> {
    x: &'a [f32],
    chunks: &'a mut [Chunk],
}

impl Kernel for QuantizeRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let zero = simd.splat(0.0);
        let mut faults = zero;
        let (halves, _) = self.x.as_chunks::<LANES>().0.as_chunks::<2>();
        for (x, chunk) in halves.iter().zip(&mut *self.chunks) {
            let halves = [simd.load(&x[0]), simd.load(&x[1])];
            let [a, b] = halves;
            let (size_a, size_b) = (simd.max(a, simd.sub(zero, a)), simd.max(b, simd.sub(zero, b)));
            let largest = simd.largest(simd.max(size_a, size_b));
            let (scale, inverse) = if largest > SMALLEST { (largest / 127.0, 127.0 / largest) } else { (0.0, 0.0) };
            chunk.scale = scale;
            for (i, v) in halves.iter().enumerate() {
                let whole = simd.round(simd.mul(*v, simd.splat(inverse)));
                let mut bytes = [0; LANES];
                simd.store_bytes(&mut bytes, whole);
                for (four, bytes) in chunk.fours[4 * i..].iter_mut().zip(bytes.as_chunks().0) {
                    *four = i32::from_ne_bytes(bytes.map(|byte: i8| byte as u8));
                }
                chunk.sums[i] = simd.sum_whole(whole);
            }
            chunk.total = -((chunk.sums[0] + chunk.sums[1]) as f32) * scale;
            faults = simd.fma(simd.add(a, b), zero, faults);
        }
        // What is not finite has no place among integers, but must not get lost either.
        if !simd.sum(faults).is_finite() {
            for chunk in self.chunks {
                (chunk.scale, chunk.total) = (f32::NAN, f32::NAN);
            }
        }
    }
}
