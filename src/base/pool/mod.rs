//! A thread pool for work that lasts microseconds: workers spin for a moment before they sleep, so the many small
//! parallel steps of one decoded token need no wake-ups.
//!
//! `workers` is the pool itself, and `cores` says how many of its threads are worth using; this module holds the pool
//! that the process shares.

mod cores;
mod workers;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use cores::{Cores, Waited};
use workers::Workers;

/// What the pool is built from. `tests/loom` replaces it with loom's versions, which try every thread interleaving.
mod sync {
    pub use std::hint::spin_loop;
    pub use std::sync::atomic::{AtomicBool, AtomicU64};
    pub use std::sync::{Condvar, Mutex};
    pub use std::thread::{Builder, JoinHandle, yield_now};
    use std::time::{Duration, Instant};

    /// How long an idle worker spins before it sleeps. Longer than the serial parts between two kernels of a token, far
    /// too short for a user to notice the load.
    pub const WATCH: Duration = Duration::from_micros(500);

    /// How long a worker has been watching.
    pub struct Watch {
        since: Instant,
        looks: u32,
    }

    impl Watch {
        pub fn begin() -> Self {
            Self { since: Instant::now(), looks: 0 }
        }

        /// Counts one look and says whether the worker should sleep now.
        pub fn is_over(&mut self) -> bool {
            self.looks += 1;
            self.looks.is_multiple_of(256) && self.since.elapsed() > WATCH
        }
    }
}

/// The pool of the process.
struct Pool {
    workers: Workers,
    /// How long each worker has waited for a core.
    waited: Arc<Mutex<Vec<Waited>>>,
    cores: Mutex<Cores>,
    worth_using: AtomicUsize,
}

impl Pool {
    fn start(threads: usize) -> Self {
        let waited = Arc::new(Mutex::new(vec![]));
        let hello = {
            let waited = Arc::clone(&waited);
            move || waited.lock().unwrap_or_else(PoisonError::into_inner).push(Waited::of_this_thread())
        };
        Self {
            workers: Workers::start(threads, hello),
            waited,
            cores: Mutex::new(Cores::new(threads, Instant::now())),
            worth_using: AtomicUsize::new(threads),
        }
    }

    fn run(&self, n: usize, f: &(dyn Fn(usize) + Sync)) {
        self.workers.run(n, self.worth_using.load(Ordering::Relaxed), f);
        if self.workers.threads() > 1
            && let Ok(mut cores) = self.cores.try_lock()
        {
            cores.look(Instant::now(), || self.waited());
            self.worth_using.store(cores.worth_using(), Ordering::Relaxed);
        }
    }

    /// How long the workers and the calling thread have waited for a core.
    fn waited(&self) -> Duration {
        thread_local! {
            static CALLER: Waited = Waited::of_this_thread();
        }
        let workers = self.waited.lock().unwrap_or_else(PoisonError::into_inner);
        CALLER.with(Waited::so_far) + workers.iter().map(Waited::so_far).sum::<Duration>()
    }
}

static POOL: OnceLock<Pool> = OnceLock::new();

/// Sets the number of threads, including the caller's. Only works before the first parallel kernel; returns whether it
/// did.
pub fn set_threads(threads: usize) -> bool {
    let mut first = false;
    POOL.get_or_init(|| {
        first = true;
        Pool::start(threads.max(1))
    });
    first
}

/// The number of threads that kernels run on, including the caller's.
pub fn threads() -> usize {
    pool().workers.threads()
}

/// The number of threads that can run at the same time: the cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn pool() -> &'static Pool {
    POOL.get_or_init(|| Pool::start(cores()))
}

/// Calls `f(0), ..., f(n - 1)`, in any order, on all threads that get a core, and returns when all are done.
pub fn run(n: usize, f: impl Fn(usize) + Sync) {
    pool().run(n, &f);
}

/// As [`run`], but stays on the calling thread if `work`, in multiplications, costs less than handing it out.
pub(crate) fn run_costing(work: usize, n: usize, f: impl Fn(usize) + Sync) {
    /// About three microseconds of work.
    const WORTH_SHARING: usize = 1 << 17;
    if work < WORTH_SHARING {
        (0..n).for_each(f);
    } else {
        run(n, f);
    }
}

/// Calls `f` on each item, in any order, on all threads; `work` is the total cost, in multiplications or copied
/// numbers.
pub fn for_each<T: Send>(work: usize, items: &mut [T], f: impl Fn(&mut T) + Sync) {
    let start = Shareable(items.as_mut_ptr());
    run_costing(work, items.len(), |i| {
        // SAFETY: each index below `len` goes to exactly one call, and the slice outlives them all.
        f(unsafe { &mut *start.get().add(i) });
    });
}

/// A pointer to an output whose disjoint parts are written by several threads.
pub(crate) struct Shareable<T>(pub *mut T);

impl<T> Clone for Shareable<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shareable<T> {}

// SAFETY: it only hands out a raw pointer; whoever writes through it guarantees that no other thread touches that part.
unsafe impl<T: Send> Send for Shareable<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shareable<T> {}

impl<T> Shareable<T> {
    pub fn get(self) -> *mut T {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn every_index_runs_once() {
        for n in [0, 1, 2, 3, 100, 1000] {
            let counts: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
            for _ in 0..50 {
                run(n, |i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
            }
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 50), "{n}");
        }
    }

    #[test]
    fn sleeping_workers_wake() {
        for _ in 0..5 {
            std::thread::sleep(4 * sync::WATCH);
            let mut items = vec![0usize; 64];
            for_each(usize::MAX, &mut items, |item| *item += 1);
            assert_eq!(items, vec![1; 64]);
        }
    }

    #[test]
    fn jobs_from_many_threads_do_not_disturb_each_other() {
        std::thread::scope(|scope| {
            for t in 0..4 {
                scope.spawn(move || {
                    for n in 1..200 {
                        let sum = AtomicUsize::new(0);
                        run(n, |i| {
                            sum.fetch_add(i + t, Ordering::Relaxed);
                        });
                        assert_eq!(sum.into_inner(), n * (n - 1) / 2 + n * t);
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        let caught = catch_unwind(|| run(8, |i| assert!(i != 5, "step five")));
        assert!(caught.is_err());
        run(8, |_| {});
    }
}
