//! How fast memory can be read: the limit of decoding, which reads every weight once a token.

use std::hint::black_box;
use std::time::Instant;

use super::simd::{Kernel, LANES, Simd, dispatch};
use crate::base::pages::large_pages;
use crate::base::pool;
use crate::error::Result;

/// Bytes that are read: more than any cache of this size of machine holds.
const SIZE: usize = 256 << 20;

/// Bytes that one thread takes at a time.
const STEP: usize = 1 << 20;

/// Bytes a second that all threads together read from main memory: the best of `repeat` passes over a buffer that no
/// cache holds.
///
/// # Errors
/// [`Error::OutOfMemory`](crate::Error::OutOfMemory) if there is no memory for the buffer.
pub fn memory_bandwidth(repeat: usize) -> Result<f64> {
    // The kind of memory that weights lie in.
    let mut buffer = large_pages(SIZE)?;
    // Written, so that the pages exist.
    buffer.fill(1);
    let steps = buffer.chunks(STEP).collect::<Vec<_>>();
    let mut best = f64::INFINITY;
    for _ in 0..repeat.max(1) {
        let start = Instant::now();
        pool::run(steps.len(), |i| dispatch(Read(steps[i])));
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(SIZE as f64 / best)
}

/// Reads bytes as the kernels do.
struct Read<'a>(&'a [u8]);

impl Kernel for Read<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (numbers, _) = self.0.as_chunks();
        let mut sum = simd.splat(0.0);
        for numbers in numbers.as_chunks::<LANES>().0 {
            sum = simd.add(sum, simd.load_f32(numbers));
        }
        black_box(simd.sum(sum));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_bandwidth_is_a_positive_number() {
        let bandwidth = super::memory_bandwidth(1).unwrap();
        assert!(bandwidth.is_finite() && bandwidth > 1e6, "{bandwidth}");
    }
}
