//! How fast memory can be read: the limit of decoding, which reads every weight once a token.

use std::hint::black_box;
use std::time::Instant;

use super::pool;

/// Bytes that are read: more than any cache of this size of machine holds.
const SIZE: usize = 256 << 20;

/// Bytes that one thread takes at a time.
const STEP: usize = 1 << 20;

/// Bytes a second that all threads together read from main memory: the best of `repeat` passes over a buffer that no
/// cache holds.
#[must_use]
pub fn memory_bandwidth(repeat: usize) -> f64 {
    // Written, so that the pages exist.
    let buffer = vec![1u64; SIZE / size_of::<u64>()];
    let steps = buffer.chunks(STEP / size_of::<u64>()).collect::<Vec<_>>();
    let mut best = f64::INFINITY;
    for _ in 0..repeat.max(1) {
        let start = Instant::now();
        pool::run(steps.len(), |i| {
            black_box(steps[i].iter().fold(0u64, |sum, x| sum.wrapping_add(*x)));
        });
        best = best.min(start.elapsed().as_secs_f64());
    }
    SIZE as f64 / best
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_bandwidth_is_a_positive_number() {
        let bandwidth = super::memory_bandwidth(1);
        assert!(bandwidth.is_finite() && bandwidth > 1e6, "{bandwidth}");
    }
}
