//! The thread pool (`src/base/pool/workers.rs`), built from loom's threads, locks and atomics. loom runs each model in
//! every order in which its threads can meet, and with every value that the memory model lets a load see; a deadlock, such
//! as that of a sleeper whom nobody wakes, and unordered accesses to an `UnsafeCell` are failures.
#![cfg(test)]

#[path = "../../../src/base/pool/workers.rs"]
mod workers;

mod sync {
    pub use loom::hint::spin_loop;
    pub use loom::sync::atomic::{AtomicBool, AtomicU64};
    pub use loom::sync::{Condvar, Mutex};
    pub use loom::thread::{Builder, JoinHandle, yield_now};

    /// A worker sleeps once it has looked for a job in vain.
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

/// Where steps leave something, each in its own place.
struct Places(Vec<UnsafeCell<usize>>);

// SAFETY: loom fails if two threads are in one place at a time, or one after the other without a happens-before.
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

/// Runs a model in all orders in which threads are preempted at most `preemptions` times; where they wait for each other
/// does not count.
fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// All steps of a job have run, once each, when `run` returns, and no thread is in it any more: what they left, and the
/// job itself, belong to the caller again. Then the next job, at once.
fn jobs(threads: usize, steps: &[usize]) {
    let pool = Workers::start(threads);
    for n in steps {
        let places = Places::new(*n);
        pool.run(*n, &|i| places.add(i));
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

/// A job whose steps wait until all have begun, so that each needs a thread of its own: no worker may miss it, asleep or
/// not.
fn meet(pool: &Workers) {
    let threads = pool.threads();
    let (begun, all) = (Mutex::new(0), Condvar::new());
    pool.run(threads, &|_| {
        let mut begun = begun.lock().unwrap();
        *begun += 1;
        all.notify_all();
        while *begun < threads {
            begun = all.wait(begun).unwrap();
        }
    });
}

#[test]
fn a_worker_comes_to_every_job() {
    check(3, || {
        let pool = Workers::start(2);
        meet(&pool);
        meet(&pool);
    });
}

#[test]
fn two_workers_come_to_a_job() {
    check(1, || meet(&Workers::start(3)));
}

/// Whoever finds the pool busy runs the job alone.
#[test]
fn two_callers_do_not_disturb_each_other() {
    check(3, || {
        let pool = Arc::new(Workers::start(2));
        let other = thread::spawn({
            let pool = Arc::clone(&pool);
            move || {
                let places = Places::new(2);
                pool.run(2, &|i| places.add(i));
                assert_eq!(places.counts(), [1, 1]);
            }
        });
        let places = Places::new(2);
        pool.run(2, &|i| places.add(i));
        assert_eq!(places.counts(), [1, 1]);
        other.join().unwrap();
    });
}

/// A panic in a step, whoever takes it, ends in the caller, when no thread is in the job any more; the next job runs.
#[test]
fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
    const STEP: &str = "a step fails";
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload_as_str() != Some(STEP) {
            report(info);
        }
    }));
    check(3, || {
        let pool = Workers::start(2);
        let places = Places::new(3);
        let step = |i| {
            places.add(i);
            if i == 1 {
                std::panic::panic_any(STEP);
            }
        };
        let panic = catch_unwind(AssertUnwindSafe(|| pool.run(3, &step))).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&STEP));
        let counts = places.counts();
        assert!(counts[1] == 1 && counts.iter().all(|count| *count <= 1), "{counts:?}");
        meet(&pool);
    });
}
