//! Threads that share the steps of one job at a time.
//!
//! The steps of a job are laid out in memory one after the other. So each thread works through its own range from front
//! to back, and steals from the end of another's only when its own is done.
//!
//! `tests/loom` also compiles this file and checks it under every thread interleaving.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::sync::{AtomicBool, AtomicU64, Builder, Condvar, JoinHandle, Mutex, Watch, spin_loop, yield_now};

/// A step of a job, called with indices from 0.
type Job = *const (dyn Fn(usize) + Sync);

/// `state` is `epoch << 32 | open << 31 | closed << 30 | workers inside`.
const EPOCH: u64 = 1 << 32;
/// Workers may enter this epoch's job.
const OPEN: u64 = 1 << 31;
/// Workers are to exit.
const CLOSED: u64 = 1 << 30;
/// Workers in the job.
const INSIDE: u64 = CLOSED - 1;

/// A pool of threads. Dropping it ends the threads.
pub struct Workers {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
}

struct Shared {
    state: AtomicU64,
    /// The current job; valid while `state` is open or workers are inside.
    job: Mutex<Option<JobRef>>,
    /// The steps that each thread has left.
    left: Vec<Range>,
    panicked: Mutex<Option<Box<dyn Any + Send>>>,
    sleepers: Mutex<usize>,
    wake: Condvar,
    /// Held by whoever runs a job; everyone else runs theirs alone.
    busy: AtomicBool,
    threads: usize,
    /// How many threads the current job is for, including the caller's.
    invited: AtomicU64,
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

impl Workers {
    /// A pool of `threads` (at least 1): the caller of [`run`](Self::run) and the others, which start now and first
    /// call `hello`.
    pub fn start(threads: usize, hello: impl Fn() + Clone + Send + 'static) -> Self {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: Mutex::new(None),
            left: (0..threads).map(|_| Range(AtomicU64::new(0))).collect(),
            panicked: Mutex::new(None),
            sleepers: Mutex::new(0),
            wake: Condvar::new(),
            busy: AtomicBool::new(false),
            threads,
            invited: AtomicU64::new(threads as u64),
        });
        let start = |i| {
            let (shared, hello) = (Arc::clone(&shared), hello.clone());
            let work = move || {
                hello();
                shared.work(i);
            };
            // If a thread cannot be started, the others do its share.
            Builder::new().name(format!("kernel-{i}")).spawn(work).ok()
        };
        let handles = (1..threads).filter_map(start).collect();
        Self { shared, handles }
    }

    /// The number of threads, including the caller of [`run`](Self::run).
    pub fn threads(&self) -> usize {
        self.shared.threads
    }

    /// Calls `f(0), ..., f(n - 1)`, in any order, on the first `threads` of the pool, and returns when all are done. Runs
    /// on the calling thread alone if the pool is busy with another job. A panic in `f` is passed on to the caller; some
    /// steps may then not run.
    pub fn run(&self, n: usize, threads: usize, f: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        // A range holds its steps in 32 bits.
        let alone = n <= 1 || threads <= 1 || shared.threads == 1 || u32::try_from(n).is_err();
        if alone || shared.busy.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            (0..n).for_each(f);
            return;
        }
        let outcome = shared.run(n, threads.min(shared.threads), f);
        shared.busy.store(false, Ordering::Release);
        if let Err(panic) = outcome {
            resume_unwind(panic);
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // No job can be running, as it would borrow the pool: nobody else changes the state.
        self.shared.state.store(CLOSED, Ordering::Release);
        self.shared.wake_sleepers(0);
        for handle in self.handles.drain(..) {
            let _ = handle.join();
        }
    }
}

impl Shared {
    fn run(&self, n: usize, threads: usize, f: &(dyn Fn(usize) + Sync)) -> Result<(), Box<dyn Any + Send>> {
        // SAFETY: only the lifetime is extended; the pointer is not used after this function returns.
        let job: Job = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Job>(f) };
        *self.job.lock().unwrap_or_else(PoisonError::into_inner) = Some(JobRef(job));
        for (i, range) in self.left.iter().enumerate() {
            range.set((i * n / threads).min(n), ((i + 1) * n / threads).min(n));
        }
        self.invited.store(threads as u64, Ordering::Relaxed);
        let epoch = self.state.load(Ordering::Relaxed) & !(EPOCH - 1);
        self.state.store(epoch.wrapping_add(EPOCH) | OPEN, Ordering::Release);
        // Should an uninvited one still be awake, one that is invited may sleep on: the job gets done all the same.
        self.wake_sleepers(self.threads - threads);
        self.take_steps(0, f);
        self.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0u32;
        while self.state.load(Ordering::Acquire) & INSIDE != 0 {
            spins += 1;
            // A worker that lost its CPU may need ours.
            if spins.is_multiple_of(4096) { yield_now() } else { spin_loop() }
        }
        match self.panicked.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(panic) => Err(panic),
            None => Ok(()),
        }
    }

    /// Wakes the workers that went to sleep before the state changed, if there are more than `uninvited`. Any that take
    /// the lock later see the change.
    fn wake_sleepers(&self, uninvited: usize) {
        if *self.sleepers.lock().unwrap_or_else(PoisonError::into_inner) > uninvited {
            self.wake.notify_all();
        }
    }

    /// Takes steps of the current job, thread `me`'s own first, until none are left. A panic is kept for the caller of
    /// [`run`](Self::run).
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
            *self.panicked.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
    }

    /// The loop of worker `me`: wait for an open job, enter it, take steps, leave.
    fn work(&self, me: usize) {
        let mut seen = 0;
        while let Some(epoch) = self.wait_for_job(me, seen) {
            seen = epoch;
            let entered = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
                (now & OPEN != 0 && now & !(EPOCH - 1) == seen).then_some(now + 1)
            });
            if entered.is_err() {
                continue;
            }
            let job = *self.job.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(JobRef(job)) = job {
                // SAFETY: this worker has entered the job, so the job's `run` does not return before it leaves.
                self.take_steps(me, unsafe { &*job });
            }
            self.state.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Waits until worker `me` is invited to an open job other than `seen` and returns its epoch; `None` once the pool is
    /// closed.
    fn wait_for_job(&self, me: usize, seen: u64) -> Option<u64> {
        let is_news = |state: u64| {
            let is_open = state & OPEN != 0 && state & !(EPOCH - 1) != seen;
            state & CLOSED != 0 || is_open && (me as u64) < self.invited.load(Ordering::Relaxed)
        };
        let mut watch = Watch::begin();
        loop {
            let state = self.state.load(Ordering::Acquire);
            if is_news(state) {
                return (state & CLOSED == 0).then_some(state & !(EPOCH - 1));
            }
            spin_loop();
            if watch.is_over() {
                let mut sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
                *sleepers += 1;
                while !is_news(self.state.load(Ordering::Acquire)) {
                    sleepers = self.wake.wait(sleepers).unwrap_or_else(PoisonError::into_inner);
                }
                *sleepers -= 1;
            }
        }
    }
}
