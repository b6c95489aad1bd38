//! How fast memory can be read: the limit of decoding, which reads every weight once a token.

use std::hint::black_box;
use std::time::Instant;

use super::simd::{LANES, Simd, dispatch};
use crate::base::{pages::large_pages, pool};

/// Bytes that are read: more than any cache of this size of machine holds.
const SIZE: usize = 256 << 20;

/// Bytes that one thread takes at a time.
const STEP: usize = 1 << 20;

/// Bytes a second that all threads together read from main memory: the best of `repeat` passes over a buffer that no
/// cache holds.
#[must_use]
pub fn memory_bandwidth(repeat: usize) -> f64 {
    // The kind of memory that weights lie in.
    let Ok(mut buffer) = large_pages(SIZE) else { return f64::NAN };
    // Written, so that the pages exist.
    buffer.fill(1);
    let steps = buffer.chunks(STEP).collect::<Vec<_>>();
    let mut best = f64::INFINITY;
    for _ in 0..repeat.max(1) {
        let start = Instant::now();
        pool::run(steps.len(), |i| {
            // SAFETY: nothing but the instructions is asked for, and `dispatch` goes by what there is.
            unsafe { read_dispatch(steps[i]) };
        });
        best = best.min(start.elapsed().as_secs_f64());
    }
    SIZE as f64 / best
}

dispatch! { unsafe fn read_dispatch = read(bytes: &[u8]) }

/// Reads bytes as the kernels do.
///
/// # Safety
/// The processor has the instructions of `S`.
#[inline(always)]
unsafe fn read<S: Simd>(bytes: &[u8]) {
    // SAFETY: the caller promises the instructions; a chunk is 16 numbers.
    unsafe {
        let mut sum = S::splat(0.0);
        for chunk in bytes.chunks_exact(LANES * size_of::<f32>()) {
            sum = S::add(sum, S::load(chunk.as_ptr().cast()));
        }
        black_box(S::sum(sum));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_bandwidth_is_a_positive_number() {
        let bandwidth = super::memory_bandwidth(1);
        assert!(bandwidth.is_finite() && bandwidth > 1e6, "{bandwidth}");
    }
}
