//! The thread pool (`src/base/pool/workers.rs`), built from loom's threads, locks and atomics. loom runs each model in
//! every interleaving of its threads, and with every value that the memory model lets a load see. Deadlocks, such as a
//! sleeper that nobody wakes, and unordered accesses to an `UnsafeCell` are failures.
#![cfg(test)]

#[path = "../../../src/base/pool/workers.rs"]
mod workers;

mod sync {
    pub use loom::hint::spin_loop;
    pub use loom::sync::atomic::{AtomicBool, AtomicU64};
    pub use loom::sync::{Condvar, Mutex};
    pub use loom::thread::{Builder, JoinHandle, yield_now};

    /// Makes a worker sleep after looking for a job once.
    pub struct Watch;

    impl Watch {
        pub fn begin() -> Self {
            Self
        }

        pub fn is_over(&mut self) -> bool {
            true
        }
    }
}

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::sync::{Condvar, Mutex};
use loom::thread;
use workers::Workers;

/// Results of steps, each in its own cell.
struct Places(Vec<UnsafeCell<usize>>);

// SAFETY: loom fails if two threads access a cell at the same time, or one after the other without a happens-before.
unsafe impl Sync for Places {}

impl Places {
    fn new(n: usize) -> Self {
        Self((0..n).map(|_| UnsafeCell::new(0)).collect())
    }

    fn add(&self, i: usize) {
        // SAFETY: as above.
        self.0[i].with_mut(|place| unsafe { *place += 1 });
    }

    fn counts(&self) -> Vec<usize> {
        // SAFETY: as above.
        self.0.iter().map(|place| place.with(|place| unsafe { *place })).collect()
    }
}

/// Runs a model in all interleavings with at most `preemptions` preemptions. Switches where a thread waits for another do
/// not count.
fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// When `run` returns, every step of the job has run exactly once and no thread is still in the job, so the results and
/// the job itself belong to the caller again. The next job follows at once.
fn jobs(threads: usize, steps: &[usize]) {
    let pool = Workers::start(threads, || ());
    for n in steps {
        let places = Places::new(*n);
        pool.run(*n, usize::MAX, &|i| places.add(i));
        assert_eq!(places.counts(), vec![1; *n]);
    }
}

#[test]
fn two_threads_share_a_job() {
    check(5, || jobs(2, &[3]));
}

#[test]
fn two_threads_share_one_job_after_the_other() {
    check(3, || jobs(2, &[2, 2, 2]));
}

#[test]
fn three_threads_share_a_job() {
    check(2, || jobs(3, &[3]));
}

#[test]
fn three_threads_share_one_job_after_the_other() {
    check(1, || jobs(3, &[2, 3]));
}

/// A job whose steps wait until all have begun, so that each needs its own thread: no worker may miss the job, asleep or
/// not.
fn meet(pool: &Workers) {
    let threads = pool.threads();
    let (begun, all) = (Mutex::new(0), Condvar::new());
    pool.run(threads, usize::MAX, &|_| {
        let mut begun = begun.lock().unwrap();
        *begun += 1;
        all.notify_all();
        while *begun < threads {
            begun = all.wait(begun).unwrap();
        }
    });
}

#[test]
fn a_worker_joins_every_job() {
    check(3, || {
        let pool = Workers::start(2, || ());
        meet(&pool);
        meet(&pool);
    });
}

#[test]
fn two_workers_join_a_job() {
    check(1, || meet(&Workers::start(3, || ())));
}

/// A caller that finds the pool busy runs its job alone.
#[test]
fn two_callers_do_not_disturb_each_other() {
    check(3, || {
        let pool = Arc::new(Workers::start(2, || ()));
        let other = thread::spawn({
            let pool = Arc::clone(&pool);
            move || {
                let places = Places::new(2);
                pool.run(2, usize::MAX, &|i| places.add(i));
                assert_eq!(places.counts(), [1, 1]);
            }
        });
        let places = Places::new(2);
        pool.run(2, usize::MAX, &|i| places.add(i));
        assert_eq!(places.counts(), [1, 1]);
        other.join().unwrap();
    });
}

/// A panic in a step, on any thread, reaches the caller once no thread is in the job any more; the next job runs.
#[test]
fn a_panic_reaches_the_caller_and_the_pool_keeps_working() {
    const STEP: &str = "a step fails";
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload_as_str() != Some(STEP) {
            report(info);
        }
    }));
    check(3, || {
        let pool = Workers::start(2, || ());
        let places = Places::new(3);
        let step = |i| {
            places.add(i);
            if i == 1 {
                std::panic::panic_any(STEP);
            }
        };
        let panic = catch_unwind(AssertUnwindSafe(|| pool.run(3, usize::MAX, &step))).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&STEP));
        let counts = places.counts();
        assert!(counts[1] == 1 && counts.iter().all(|count| *count <= 1), "{counts:?}");
        meet(&pool);
    });
}

/// A job for fewer threads than there are: the others stay away, and return for the next one.
#[test]
fn a_job_may_be_for_some_threads_only() {
    check(1, || {
        let pool = Workers::start(2, || ());
        for threads in [1, 2, 1] {
            let places = Places::new(2);
            pool.run(2, threads, &|i| places.add(i));
            assert_eq!(places.counts(), [1, 1]);
        }
        meet(&pool);
    });
    check(1, || {
        let pool = Workers::start(3, || ());
        let places = Places::new(3);
        pool.run(3, 2, &|i| places.add(i));
        assert_eq!(places.counts(), [1; 3]);
        meet(&pool);
    });
}
