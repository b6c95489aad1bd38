//! Notices that threads wait for a core, because other processes want the cores too, and says how many threads are
//! worth using. All threads of a job wait for its last step, so one thread without a core stops the others, and fewer
//! threads are faster.

use std::fs::File;
use std::time::{Duration, Instant};

/// How often to look. A scheduler lets threads take turns of a few milliseconds, and may need some turns to move a thread
/// to a core where less important work runs.
const WINDOW: Duration = Duration::from_millis(50);
/// The mean number of waiting threads that is tolerated: other processes run for moments on every machine.
const TOLERATED: f64 = 0.4;
/// How long to do with fewer threads before one more is tried; twice as long after each attempt that fails.
const FIRST_PAUSE: Duration = WINDOW;
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// How many threads to use.
pub struct Cores {
    threads: usize,
    worth_using: usize,
    /// When the current window began, and how long the threads had waited by then.
    since: Instant,
    waited: Duration,
    /// Whether threads waited in the window before: only the second in a row counts.
    crowded: bool,
    /// When one more thread may be tried, and how long the pause before that is.
    resume: Instant,
    pause: Duration,
}

impl Cores {
    /// For a pool of `threads`.
    pub fn new(threads: usize, now: Instant) -> Self {
        Self {
            threads,
            worth_using: threads,
            since: now,
            waited: Duration::ZERO,
            crowded: false,
            resume: now,
            pause: FIRST_PAUSE,
        }
    }

    /// The threads that are worth using, at least 1.
    pub fn worth_using(&self) -> usize {
        self.worth_using
    }

    /// Looks at how long the threads have `waited` for a core since they began, all together, if it is time to look.
    pub fn look(&mut self, now: Instant, waited: impl FnOnce() -> Duration) {
        // Asking the system about a thread takes a microsecond.
        let window = WINDOW.max(Duration::from_micros(100) * self.threads as u32);
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < window {
            return;
        }
        let waited = waited();
        let waiting = waited.saturating_sub(self.waited).as_secs_f64() / elapsed.as_secs_f64();
        (self.since, self.waited) = (now, waited);
        let was_crowded = std::mem::replace(&mut self.crowded, waiting > TOLERATED);
        if self.crowded && was_crowded && self.worth_using > 1 {
            self.worth_using = self.worth_using.saturating_sub(waiting.round().max(1.0) as usize).max(1);
            // An attempt begins and ends at a look.
            let was_attempt = now.saturating_duration_since(self.resume) < self.pause + 4 * window;
            self.pause = if was_attempt { (2 * self.pause).min(LONGEST_PAUSE) } else { FIRST_PAUSE };
            self.resume = now + self.pause;
            self.crowded = false;
        } else if !self.crowded && self.worth_using < self.threads && now >= self.resume {
            self.worth_using += 1;
        }
    }
}

/// How long one thread has waited for a core, as Linux tells it; other systems do not.
pub struct Waited(Option<File>);

impl Waited {
    /// Of the calling thread.
    pub fn of_this_thread() -> Self {
        Self(File::open("/proc/thread-self/schedstat").ok())
    }

    /// Since the thread began; zero if the system does not tell.
    pub fn so_far(&self) -> Duration {
        self.0.as_ref().and_then(waited).unwrap_or_default()
    }
}

/// The second number of a thread's `schedstat`: nanoseconds spent waiting on a run queue (the kernel's
/// `scheduler/sched-stats.rst`).
#[cfg(unix)]
fn waited(schedstat: &File) -> Option<Duration> {
    use std::os::unix::fs::FileExt;
    let mut text = [0; 64];
    let len = schedstat.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(&text[..len]).ok()?;
    Some(Duration::from_nanos(text.split_whitespace().nth(1)?.parse().ok()?))
}

#[cfg(not(unix))]
fn waited(_: &File) -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of threads in use after each of `windows` looks, if at each a number of threads given by `waiting`
    /// have waited for a core all the time.
    fn in_use(threads: usize, windows: usize, waiting: impl Fn(usize, usize) -> f64) -> Vec<usize> {
        let start = Instant::now();
        let (mut cores, mut waited) = (Cores::new(threads, start), Duration::ZERO);
        let look = |window: usize| {
            waited += WINDOW.mul_f64(waiting(window, cores.worth_using()));
            cores.look(start + WINDOW * (window as u32 + 1), || waited);
            cores.worth_using()
        };
        (0..windows).map(look).collect()
    }

    #[test]
    fn a_machine_without_other_work_keeps_all_threads() {
        assert_eq!(in_use(4, 50, |_, _| 0.0), [4; 50]);
        // Other processes run for a moment now and then.
        assert_eq!(in_use(4, 50, |window, _| if window % 5 == 0 { 1.0 } else { 0.1 }), [4; 50]);
    }

    #[test]
    fn beside_a_busy_process_one_core_is_left_to_it() {
        let used = in_use(2, 10_000, |_, threads| if threads == 2 { 0.7 } else { 0.0 });
        assert_eq!(used[..3], [2, 1, 1]);
        // Attempts become rare.
        let attempts = |used: &[usize]| used.iter().filter(|threads| **threads == 2).count();
        assert!(attempts(&used[..200]) <= 14, "{}", attempts(&used[..200]));
        assert!(attempts(&used[1000..]) <= 300, "{}", attempts(&used[1000..]));
    }

    #[test]
    fn far_too_many_threads_become_few_at_once() {
        assert_eq!(in_use(64, 2, |_, threads| threads as f64 - 2.0), [64, 2]);
        assert_eq!(in_use(3, 100, |_, _| 3.0)[99], 1);
    }

    #[test]
    fn threads_return_when_the_other_process_has_ended() {
        let used = in_use(4, 1000, |window, threads| if window < 500 && threads > 1 { 1.0 } else { 0.0 });
        assert_eq!(used[499], 1);
        assert_eq!(used[999], 4);
        let back = used.iter().rposition(|threads| *threads < 4).unwrap() + 1 - 500;
        assert!(back <= 110, "{back} windows");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernel_tells_how_long_a_thread_has_waited() {
        let waited = Waited::of_this_thread();
        assert!(waited.0.is_some());
        let before = waited.so_far();
        std::thread::yield_now();
        assert!(waited.so_far() >= before);
    }
}
