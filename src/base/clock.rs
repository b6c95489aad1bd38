//! The processor time of a thread, which others that use the processor do not lengthen.

use std::time::Duration;

/// How long this thread has been running. Where the system does not say: how long ago the first call was.
#[must_use]
pub fn thread_time() -> Duration {
    #[cfg(target_os = "linux")]
    {
        use rustix::time::{ClockId, clock_gettime};
        Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
    }
    #[cfg(not(target_os = "linux"))]
    {
        static START: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
        START.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_time() {
        let start = thread_time();
        let mut hash = 1_u64;
        while thread_time() == start {
            hash = std::hint::black_box(hash.wrapping_mul(31));
        }
        assert!(thread_time() > start);
    }
}
