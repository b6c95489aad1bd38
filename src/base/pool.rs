//! A thread pool for work that lasts microseconds: workers spin for a moment before they sleep, so that the many small
//! parallel steps of one decoded token cost no wake-ups.
//!
//! The steps of a job are laid out in memory one after the other. So each thread goes through a range of its own from
//! front to back, and takes from the end of another's only when its own is done.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// A step of a job, called with indices from 0.
type Job = *const (dyn Fn(usize) + Sync);

/// `state` is `epoch << 32 | open << 31 | workers inside`.
const OPEN: u64 = 1 << 31;
const EPOCH: u64 = 1 << 32;

/// How long an idle worker watches for the next job before it sleeps. Longer than the serial parts between two kernels
/// of a token, far shorter than anything a user would notice as load.
const WATCH: Duration = Duration::from_micros(500);

struct Shared {
    state: AtomicU64,
    /// The current job; valid while `state` is open or workers are inside.
    job: Mutex<Option<JobRef>>,
    /// For each thread, the steps that it has left.
    left: Vec<Range>,
    panicked: Mutex<Option<Box<dyn Any + Send>>>,
    sleepers: Mutex<usize>,
    wake: Condvar,
    /// Taken by whoever runs a job; others run theirs alone.
    busy: AtomicBool,
    threads: usize,
}

/// Steps `from..to`, as `to << 32 | from`, on a cache line of its own.
#[repr(align(128))]
struct Range(AtomicU64);

impl Range {
    fn set(&self, from: usize, to: usize) {
        self.0.store((to as u64) << 32 | from as u64, Ordering::Relaxed);
    }

    /// Takes the first step.
    fn first(&self) -> Option<usize> {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
            let (from, to) = (now as u32, now >> 32);
            (u64::from(from) < to).then_some(now + 1)
        });
        taken.ok().map(|was| was as u32 as usize)
    }

    /// Takes the last step.
    fn last(&self) -> Option<usize> {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
            let (from, to) = (now as u32, now >> 32);
            (u64::from(from) < to).then(|| now - (1 << 32))
        });
        taken.ok().map(|was| (was >> 32) as usize - 1)
    }
}

#[derive(Clone, Copy)]
struct JobRef(Job);

// SAFETY: the closure behind the pointer is `Sync`, and `run` does not return before every worker has left it.
unsafe impl Send for JobRef {}

static POOL: OnceLock<&'static Shared> = OnceLock::new();

/// Sets the number of threads, the caller's included. Takes effect only before the first parallel kernel; returns
/// whether it did.
pub fn set_threads(threads: usize) -> bool {
    let mut first = false;
    POOL.get_or_init(|| {
        first = true;
        Shared::start(threads.max(1))
    });
    first
}

/// The threads that kernels run on, the caller's included.
pub fn threads() -> usize {
    shared().threads
}

fn shared() -> &'static Shared {
    POOL.get_or_init(|| Shared::start(std::thread::available_parallelism().map_or(1, usize::from)))
}

/// Calls `f(0), ..., f(n - 1)`, in any order, on all threads, and returns when all are done.
pub fn run(n: usize, f: impl Fn(usize) + Sync) {
    let pool = shared();
    // A range counts its steps in 32 bits.
    let alone = n <= 1 || pool.threads == 1 || u32::try_from(n).is_err();
    if alone || pool.busy.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
        (0..n).for_each(f);
        return;
    }
    let outcome = pool.run(n, &f);
    pool.busy.store(false, Ordering::Release);
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

/// As [`run`], but on the calling thread alone where all of the work, in multiplications, costs less than handing it
/// out.
pub(crate) fn run_costing(work: usize, n: usize, f: impl Fn(usize) + Sync) {
    /// About three microseconds' worth.
    const WORTH_SHARING: usize = 1 << 17;
    if work < WORTH_SHARING {
        (0..n).for_each(f);
    } else {
        run(n, f);
    }
}

/// Calls `f` on each item, in any order, on all threads; `work` is what all of it costs, in multiplications or copied
/// numbers.
pub fn for_each<T: Send>(work: usize, items: &mut [T], f: impl Fn(&mut T) + Sync) {
    let start = Shareable(items.as_mut_ptr());
    run_costing(work, items.len(), |i| {
        // SAFETY: each index below `len` goes to one call, and the slice outlives them.
        f(unsafe { &mut *start.get().add(i) });
    });
}

/// A pointer to an output that several threads write in disjoint parts.
pub(crate) struct Shareable<T>(pub *mut T);

impl<T> Clone for Shareable<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shareable<T> {}

// SAFETY: it gives out a raw pointer alone; whoever writes through it promises that the part is its thread's own.
unsafe impl<T: Send> Send for Shareable<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shareable<T> {}

impl<T> Shareable<T> {
    pub fn get(self) -> *mut T {
        self.0
    }
}

impl Shared {
    fn start(threads: usize) -> &'static Self {
        let shared: &'static Self = Box::leak(Box::new(Self {
            state: AtomicU64::new(0),
            job: Mutex::new(None),
            left: (0..threads).map(|_| Range(AtomicU64::new(0))).collect(),
            panicked: Mutex::new(None),
            sleepers: Mutex::new(0),
            wake: Condvar::new(),
            busy: AtomicBool::new(false),
            threads,
        }));
        for i in 1..threads {
            let worker = std::thread::Builder::new().name(format!("kernel-{i}"));
            // A thread that cannot be had leaves its share to the others.
            let _ = worker.spawn(move || shared.work(i));
        }
        shared
    }

    fn run(&self, n: usize, f: &(dyn Fn(usize) + Sync)) -> Result<(), Box<dyn Any + Send>> {
        // SAFETY: only the lifetime is widened; the pointer is not used after this function has returned.
        let job: Job = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Job>(f) };
        *self.job.lock().unwrap_or_else(|e| e.into_inner()) = Some(JobRef(job));
        for (i, range) in self.left.iter().enumerate() {
            range.set(i * n / self.threads, (i + 1) * n / self.threads);
        }
        let epoch = self.state.load(Ordering::Relaxed) & !(EPOCH - 1);
        self.state.store(epoch.wrapping_add(EPOCH) | OPEN, Ordering::SeqCst);
        if *self.sleepers.lock().unwrap_or_else(|e| e.into_inner()) > 0 {
            self.wake.notify_all();
        }
        self.take_steps(0, f);
        self.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0u32;
        while self.state.load(Ordering::Acquire) & (OPEN - 1) != 0 {
            spins += 1;
            // A worker that lost its processor needs ours.
            if spins.is_multiple_of(4096) { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        match self.panicked.lock().unwrap_or_else(|e| e.into_inner()).take() {
            Some(panic) => Err(panic),
            None => Ok(()),
        }
    }

    /// Takes steps of the current job, thread `me`'s own first, until none is left. A panic is kept for the caller of
    /// [`run`].
    fn take_steps(&self, me: usize, f: &(dyn Fn(usize) + Sync)) {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            while let Some(i) = self.left[me].first() {
                f(i);
            }
            for other in self.left.iter().cycle().skip(me + 1).take(self.threads - 1) {
                while let Some(i) = other.last() {
                    f(i);
                }
            }
        }));
        if let Err(panic) = outcome {
            self.left.iter().for_each(|range| range.set(0, 0));
            *self.panicked.lock().unwrap_or_else(|e| e.into_inner()) = Some(panic);
        }
    }

    /// The life of worker `me`: watch for an open job, enter it, take steps, leave.
    fn work(&self, me: usize) {
        let mut seen = 0;
        loop {
            let state = self.wait_for_job(seen);
            seen = state & !(EPOCH - 1);
            let entered = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
                (now & OPEN != 0 && now & !(EPOCH - 1) == seen).then_some(now + 1)
            });
            if entered.is_err() {
                continue;
            }
            let job = *self.job.lock().unwrap_or_else(|e| e.into_inner());
            if let Some(JobRef(job)) = job {
                // SAFETY: having entered, this worker holds the job's `run` inside its function.
                self.take_steps(me, unsafe { &*job });
            }
            self.state.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Returns the state once it shows an open job newer than `seen`.
    fn wait_for_job(&self, seen: u64) -> u64 {
        let fresh = |state: u64| state & OPEN != 0 && state & !(EPOCH - 1) != seen;
        let since = Instant::now();
        let mut spins = 0u32;
        loop {
            let state = self.state.load(Ordering::SeqCst);
            if fresh(state) {
                return state;
            }
            spins += 1;
            std::hint::spin_loop();
            if spins.is_multiple_of(256) && since.elapsed() > WATCH {
                let mut sleepers = self.sleepers.lock().unwrap_or_else(|e| e.into_inner());
                *sleepers += 1;
                while !fresh(self.state.load(Ordering::SeqCst)) {
                    sleepers = self.wake.wait(sleepers).unwrap_or_else(|e| e.into_inner());
                }
                *sleepers -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

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
            std::thread::sleep(4 * WATCH);
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
