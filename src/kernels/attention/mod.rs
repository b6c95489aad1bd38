//! Causal attention over a cache that is kept in [pages](memory) of 16 positions.
//!
//! Reference: transformers, `modeling_gpt2.py::eager_attention_forward`.

mod append;
mod batch;
mod memory;

use std::cell::RefCell;

pub use append::append;
pub use batch::Batch;
use batch::Task;
pub use memory::{CacheMemory, CacheShape, PAGE_POSITIONS, PageId};

use super::simd::{LANES, Simd, dispatch, exp};
use super::stored::{F16, F32, Stored};
use crate::base::pool::{self, Shareable};

/// Queries that share a pass over the keys.
const TOGETHER: usize = 4;

/// What reading a cached number costs, in multiplications.
const READING: usize = 8;

/// Attention of every new position over its row's past and itself, in layer `layer` of the cache, which holds the new
/// positions' keys and values already: `qkv` is (N, 3C) with the queries in the first C columns, `out` (N, C). Scores are
/// multiplied by `scale`. `weights`, if wanted, is filled with the attention probabilities as [`Batch::weights`] says.
///
/// # Panics
/// If a length is another, or if the memory lacks the layer or a page.
pub fn attend(
    memory: &CacheMemory,
    layer: usize,
    batch: &Batch,
    scale: f32,
    qkv: &[f32],
    weights: Option<&mut [f32]>,
    out: &mut [f32],
) {
    let shape = memory.shape();
    let (c, n, heads) = (shape.width(), batch.positions(), shape.heads);
    assert_eq!((qkv.len(), out.len()), (3 * c * n, c * n), "lengths of attention");
    let all_weights = batch.weights(heads).last().map_or(0, |last| last.end);
    assert!(weights.as_ref().is_none_or(|weights| weights.len() == all_weights), "length of the attention weights");
    let work = batch.spans().iter().map(|span| 2 * (span.len + READING) * span.total() * c).sum();
    let weights = weights.map(|weights| Shareable(weights.as_mut_ptr()));
    let job = Attend { memory, layer, shape, scale, q: qkv, stride: 3 * c, weights, out: Shareable(out.as_mut_ptr()) };
    pool::run_costing(work, batch.tasks() * heads, |i| {
        // The scratch is fetched here: a closure inside the kernel would be compiled without its instructions.
        // SAFETY: the lengths were checked above; a task writes its own head's columns of its own rows, and its own rows of
        // the weights.
        SCORES.with_borrow_mut(|scores| unsafe { attend_dispatch(&job, &batch.task(i, heads), scores) });
    });
}

struct Attend<'a> {
    memory: &'a CacheMemory,
    layer: usize,
    shape: CacheShape,
    scale: f32,
    q: &'a [f32],
    stride: usize,
    weights: Option<Shareable<f32>>,
    out: Shareable<f32>,
}

impl<'a> Attend<'a> {
    #[inline(always)]
    fn page(&self, id: PageId) -> &'a [u8] {
        self.memory.layer(id, self.layer)
    }
}

dispatch! { unsafe fn attend_dispatch = attend_task(job: &Attend<'_>, task: &Task<'_>, scores: &mut Vec<f32>) }

thread_local! {
    /// Scores of the queries at work, kept between calls so that their pages stay mapped.
    static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// # Safety
/// The processor has the instructions of `S`; `job` and `task` are what [`attend`] has checked and made, and this
/// thread is the only one at this task. The functions below rest on this, too.
#[inline(always)]
unsafe fn attend_task<S: Simd>(job: &Attend<'_>, task: &Task<'_>, scores: &mut Vec<f32>) {
    let needed = TOGETHER * task.pages.len() * PAGE_POSITIONS;
    if scores.len() < needed {
        scores.resize(needed, 0.0);
    }
    // SAFETY: the caller's promises; the type is that of the cached numbers.
    unsafe {
        if job.shape.half {
            attend_all::<S, F16>(job, task, scores);
        } else {
            attend_all::<S, F32>(job, task, scores);
        }
    }
}

/// All queries of a task, over keys and values that are stored as `T`.
#[inline(always)]
unsafe fn attend_all<S: Simd, T: Stored>(job: &Attend<'_>, task: &Task<'_>, scores: &mut [f32]) {
    let mut t = task.queries.start;
    // SAFETY: the caller's promises; the queries are the task's.
    unsafe {
        while t + TOGETHER <= task.queries.end {
            attend_queries::<S, T, TOGETHER>(job, task, t, scores);
            t += TOGETHER;
        }
        while t < task.queries.end {
            attend_queries::<S, T, 1>(job, task, t, scores);
            t += 1;
        }
    }
}

/// Queries `t..t + Q` of a task.
#[inline(always)]
unsafe fn attend_queries<S: Simd, T: Stored, const Q: usize>(
    job: &Attend<'_>,
    task: &Task<'_>,
    t: usize,
    scores: &mut [f32],
) {
    let (d, span) = (job.shape.head_dim, &task.span);
    let seen = span.past + t + Q;
    let pages = &task.pages[..seen.div_ceil(PAGE_POSITIONS)];
    let width = pages.len() * PAGE_POSITIONS;
    // SAFETY: `attend` checked the lengths of `q` and the weights, and `t + Q <= len`; `width` was made room for.
    unsafe {
        let q = job.q.as_ptr().add((span.first + t) * job.stride + task.head * d);
        score::<S, T, Q>(job, task.head, pages, q, scores);
        for i in 0..Q {
            let row = &mut scores[i * width..(i + 1) * width];
            let visible = span.past + t + i + 1;
            row[visible..].fill(f32::NEG_INFINITY);
            softmax::<S>(row);
            if let Some(weights) = job.weights {
                let total = span.total();
                let at = Batch::weights_of(span, task.head, job.shape.heads) + (t + i) * total;
                let out = weights.get().add(at);
                let out = std::slice::from_raw_parts_mut(out, total);
                out.fill(0.0);
                out[..visible].copy_from_slice(&row[..visible]);
            }
        }
        mix::<S, T, Q>(job, task, pages, seen, t, scores);
    }
}

/// Scaled scores of the queries against every position of the pages, (Q, positions).
#[inline(always)]
unsafe fn score<S: Simd, T: Stored, const Q: usize>(
    job: &Attend<'_>,
    head: usize,
    pages: &[PageId],
    q: *const f32,
    scores: &mut [f32],
) {
    let width = pages.len() * PAGE_POSITIONS;
    // SAFETY: `B` pages are left; the caller's promises.
    unsafe {
        let mut b = 0;
        while 4 * Q <= S::SUMS && b + 4 <= pages.len() {
            score_pages::<S, T, Q, 4>(job, head, &pages[b..], q, &mut scores[b * LANES..], width);
            b += 4;
        }
        while b < pages.len() {
            score_pages::<S, T, Q, 1>(job, head, &pages[b..], q, &mut scores[b * LANES..], width);
            b += 1;
        }
    }
}

/// Scores against the first `B` pages.
#[inline(always)]
unsafe fn score_pages<S: Simd, T: Stored, const Q: usize, const B: usize>(
    job: &Attend<'_>,
    head: usize,
    pages: &[PageId],
    q: *const f32,
    scores: &mut [f32],
    width: usize,
) {
    let d = job.shape.head_dim;
    let (pages, ahead) = pages.split_at(B);
    let mut keys = [&[][..]; B];
    for (keys, id) in keys.iter_mut().zip(pages) {
        *keys = job.page(*id);
    }
    // SAFETY: every page begins with (H, D, 16) keys; `q` points to `Q` rows of `D` numbers, each
    // `stride` after the one before.
    unsafe {
        let mut sums = [[S::splat(0.0); B]; Q];
        for i in 0..d {
            let at = (head * d + i) * LANES;
            let mut k = [S::splat(0.0); B];
            for (k, page) in k.iter_mut().zip(keys) {
                *k = T::load::<S>(page.as_ptr().cast::<T::Number>().add(at));
            }
            if Q == 1 {
                // A single query waits for memory, and pages lie apart.
                for page in ahead.iter().take(B) {
                    S::prefetch(job.page(*page).as_ptr().cast::<T::Number>().add(at).cast());
                }
            }
            for (t, sums) in sums.iter_mut().enumerate() {
                let x = S::splat(*q.add(t * job.stride + i));
                for (sum, k) in sums.iter_mut().zip(k) {
                    *sum = S::fma(x, k, *sum);
                }
            }
        }
        for (t, sums) in sums.iter().enumerate() {
            for (b, sum) in sums.iter().enumerate() {
                let at = t * width + b * LANES;
                S::store(scores[at..at + LANES].as_mut_ptr(), S::mul(*sum, S::splat(job.scale)));
            }
        }
    }
}

/// Softmax of a row whose length is a whole number of vectors.
#[inline(always)]
unsafe fn softmax<S: Simd>(row: &mut [f32]) {
    let p = row.as_mut_ptr();
    // SAFETY: the caller promises the instructions, and a row of whole vectors.
    unsafe {
        let mut largest = S::splat(f32::NEG_INFINITY);
        for i in (0..row.len()).step_by(LANES) {
            largest = S::max(largest, S::load(p.add(i)));
        }
        let largest = S::splat(S::largest(largest));
        let mut sum = S::splat(0.0);
        for i in (0..row.len()).step_by(LANES) {
            let e = exp::<S>(S::sub(S::load(p.add(i)), largest));
            sum = S::add(sum, e);
            S::store(p.add(i), e);
        }
        let scale = S::splat(1.0 / S::sum(sum));
        for i in (0..row.len()).step_by(LANES) {
            S::store(p.add(i), S::mul(S::load(p.add(i)), scale));
        }
    }
}

/// The values of the first `seen` positions, weighted, into the output.
#[inline(always)]
unsafe fn mix<S: Simd, T: Stored, const Q: usize>(
    job: &Attend<'_>,
    task: &Task<'_>,
    pages: &[PageId],
    seen: usize,
    t: usize,
    scores: &[f32],
) {
    let vectors = job.shape.value_dim() / LANES;
    // SAFETY: a value has the vectors `v..v + V`; the caller's promises.
    unsafe {
        let mut v = 0;
        while 4 * Q <= S::SUMS && v + 4 <= vectors {
            mix_vectors::<S, T, Q, 4>(job, task, pages, seen, t, scores, v);
            v += 4;
        }
        while v < vectors {
            mix_vectors::<S, T, Q, 1>(job, task, pages, seen, t, scores, v);
            v += 1;
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn mix_vectors<S: Simd, T: Stored, const Q: usize, const V: usize>(
    job: &Attend<'_>,
    task: &Task<'_>,
    pages: &[PageId],
    seen: usize,
    t: usize,
    scores: &[f32],
    v: usize,
) {
    let (shape, width) = (job.shape, pages.len() * PAGE_POSITIONS);
    let value_dim = shape.value_dim();
    let head = shape.heads * shape.head_dim * PAGE_POSITIONS + task.head * PAGE_POSITIONS * value_dim + v * LANES;
    // SAFETY: every page holds (H, 16, value_dim) values behind its keys; `scores` has `Q` rows
    // of `width`; the output's rows and columns are the task's own, and what is stored of a value ends with the head.
    unsafe {
        let mut sums = [[S::splat(0.0); V]; Q];
        for (b, page) in pages.iter().enumerate() {
            let values = job.page(*page).as_ptr().cast::<T::Number>().add(head);
            let ahead = job.page(*pages.get(b + 2).unwrap_or(page)).as_ptr().cast::<T::Number>().add(head);
            let first = b * PAGE_POSITIONS;
            for s in 0..PAGE_POSITIONS.min(seen - first) {
                let mut x = [S::splat(0.0); V];
                for (i, x) in x.iter_mut().enumerate() {
                    let at = s * value_dim + i * LANES;
                    *x = T::load::<S>(values.add(at));
                    if Q == 1 {
                        S::prefetch(ahead.add(at).cast());
                    }
                }
                for (i, sums) in sums.iter_mut().enumerate() {
                    let weight = S::splat(*scores.as_ptr().add(i * width + first + s));
                    for (sum, x) in sums.iter_mut().zip(x) {
                        *sum = S::fma(weight, x, *sum);
                    }
                }
            }
        }
        let c = shape.heads * shape.head_dim;
        for (i, sums) in sums.iter().enumerate() {
            let row = job.out.get().add((task.span.first + t + i) * c + task.head * shape.head_dim);
            for (j, sum) in sums.iter().enumerate() {
                let at = (v + j) * LANES;
                match shape.head_dim - at {
                    LANES.. => S::store(row.add(at), *sum),
                    left => S::store_first(row.add(at), left, *sum),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
