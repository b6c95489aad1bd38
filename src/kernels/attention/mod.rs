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

use super::simd::{Kernel, LANES, Simd, dispatch, exp};
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
    let job = &Attend { memory, layer, shape, scale, qkv, weights, out: Shareable(out.as_mut_ptr()) };
    pool::run_costing(work, batch.tasks() * heads, |i| {
        // The scratch is fetched here: a closure inside the kernel would be compiled without its instructions.
        SCORES.with_borrow_mut(|scores| dispatch(AttendTask { job, task: &batch.task(i, heads), scores }));
    });
}

/// One call of [`attend`], whose lengths it has checked.
struct Attend<'a> {
    memory: &'a CacheMemory,
    layer: usize,
    shape: CacheShape,
    scale: f32,
    qkv: &'a [f32],
    weights: Option<Shareable<f32>>,
    out: Shareable<f32>,
}

thread_local! {
    /// Scores of the queries at work, kept between calls so that their pages stay mapped.
    static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Some queries of one row and head: the only ones that write their columns of the output, and their weights.
struct AttendTask<'a> {
    job: &'a Attend<'a>,
    task: &'a Task<'a>,
    scores: &'a mut Vec<f32>,
}

impl Kernel for AttendTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { job, task, scores } = self;
        let needed = TOGETHER * task.pages.len() * PAGE_POSITIONS;
        if scores.len() < needed {
            scores.resize(needed, 0.0);
        }
        if job.shape.half {
            attend_all::<S, F16>(simd, job, task, scores);
        } else {
            attend_all::<S, F32>(simd, job, task, scores);
        }
    }
}

/// All queries of a task, over keys and values that are stored as `T`.
#[inline(always)]
fn attend_all<S: Simd, T: Stored>(simd: S, job: &Attend<'_>, task: &Task<'_>, scores: &mut [f32]) {
    let mut t = task.queries.start;
    while t + TOGETHER <= task.queries.end {
        attend_queries::<S, T, TOGETHER>(simd, job, task, t, scores);
        t += TOGETHER;
    }
    while t < task.queries.end {
        attend_queries::<S, T, 1>(simd, job, task, t, scores);
        t += 1;
    }
}

/// `Q` queries of one row and head, and what they may look at.
struct Queries<'a, const Q: usize> {
    job: &'a Attend<'a>,
    /// (Q, D).
    q: [&'a [f32]; Q],
    head: usize,
    /// The pages of the positions up to the last query.
    pages: &'a [PageId],
    /// Positions up to the last query.
    seen: usize,
}

/// Queries `t..t + Q` of a task.
#[inline(always)]
fn attend_queries<S: Simd, T: Stored, const Q: usize>(
    simd: S,
    job: &Attend<'_>,
    task: &Task<'_>,
    t: usize,
    scores: &mut [f32],
) {
    let (shape, span, head) = (job.shape, &task.span, task.head);
    let (c, d) = (shape.width(), shape.head_dim);
    let seen = span.past + t + Q;
    let pages = &task.pages[..seen.div_ceil(PAGE_POSITIONS)];
    let mut q = [&[][..]; Q];
    for (i, q) in q.iter_mut().enumerate() {
        *q = &job.qkv[(span.first + t + i) * 3 * c + head * d..][..d];
    }
    let queries = &Queries { job, q, head, pages, seen };
    score::<S, T, Q>(simd, queries, scores);
    for (i, row) in scores.chunks_exact_mut(pages.len() * PAGE_POSITIONS).take(Q).enumerate() {
        let visible = span.past + t + i + 1;
        row[visible..].fill(f32::NEG_INFINITY);
        softmax(simd, row);
        if let Some(weights) = job.weights {
            let total = span.total();
            let at = Batch::weights_of(span, head, shape.heads) + (t + i) * total;
            // SAFETY: `attend` has checked the length for all rows, heads and queries, and these weights are the task's own.
            let out = unsafe { std::slice::from_raw_parts_mut(weights.get().add(at), total) };
            out[..visible].copy_from_slice(&row[..visible]);
            out[visible..].fill(0.0);
        }
    }
    let out = std::array::from_fn(|i| {
        let at = (span.first + t + i) * c + head * d;
        // SAFETY: `attend` has checked the length for all positions, and this head's part of them is the task's own.
        unsafe { std::slice::from_raw_parts_mut(job.out.get().add(at), d) }
    });
    mix::<S, T, Q>(simd, queries, scores, out);
}

/// Scaled scores of the queries against every position of the pages, (Q, positions).
#[inline(always)]
fn score<S: Simd, T: Stored, const Q: usize>(simd: S, queries: &Queries<'_, Q>, scores: &mut [f32]) {
    let mut at = 0;
    while 4 * Q <= S::SUMS && at + 4 <= queries.pages.len() {
        score_pages::<S, T, Q, 4>(simd, queries, at, scores);
        at += 4;
    }
    while at < queries.pages.len() {
        score_pages::<S, T, Q, 1>(simd, queries, at, scores);
        at += 1;
    }
}

/// Scores against `B` pages from `at` on.
#[inline(always)]
fn score_pages<S: Simd, T: Stored, const Q: usize, const B: usize>(
    simd: S,
    queries: &Queries<'_, Q>,
    at: usize,
    scores: &mut [f32],
) {
    let Queries { job, q, head, pages, .. } = queries;
    let (pages, ahead) = pages[at..].split_at(B);
    let mut keys = [&[][..]; B];
    for (keys, id) in keys.iter_mut().zip(pages) {
        *keys = head_keys::<T>(job, *id, *head);
    }
    let mut next = [std::ptr::null::<[T::Number; LANES]>(); B];
    if Q == 1 {
        // A single query waits for memory, and pages lie apart.
        for (next, id) in next.iter_mut().zip(ahead) {
            *next = head_keys::<T>(job, *id, *head).as_ptr();
        }
    }
    let mut sums = [[simd.splat(0.0); B]; Q];
    for i in 0..job.shape.head_dim {
        let mut k = [simd.splat(0.0); B];
        for (k, keys) in k.iter_mut().zip(&keys) {
            // SAFETY: `head_keys` gives `D` vectors of each page. (Checked, here and in `mix_vectors`: attention of a prompt
            // takes 50% longer with AVX2 on Zen 5.)
            *k = T::load(simd, unsafe { keys.get_unchecked(i) });
        }
        if Q == 1 {
            for next in next.iter().take(ahead.len()) {
                simd.prefetch(next.wrapping_add(i).cast());
            }
        }
        for (q, sums) in q.iter().zip(&mut sums) {
            // SAFETY: a query has `D` numbers.
            let x = simd.splat(unsafe { *q.get_unchecked(i) });
            for (sum, k) in sums.iter_mut().zip(k) {
                *sum = simd.fma(x, k, *sum);
            }
        }
    }
    let width = queries.pages.len() * PAGE_POSITIONS;
    for (t, sums) in sums.iter().enumerate() {
        for (b, sum) in sums.iter().enumerate() {
            let scores = &mut scores[t * width + (at + b) * LANES..];
            simd.store_up_to(scores, simd.mul(*sum, simd.splat(job.scale)));
        }
    }
}

/// A head's keys in a page, (D, 16).
#[inline(always)]
fn head_keys<'a, T: Stored>(job: &Attend<'a>, id: PageId, head: usize) -> &'a [[T::Number; LANES]] {
    let d = job.shape.head_dim;
    &T::numbers(job.memory.layer(id, job.layer)).as_chunks().0[head * d..][..d]
}

/// A head's values in a page, (16, D) in whole vectors.
#[inline(always)]
fn head_values<'a, T: Stored>(job: &Attend<'a>, id: PageId, head: usize) -> &'a [[T::Number; LANES]] {
    let vectors = PAGE_POSITIONS * job.shape.value_dim() / LANES;
    let page = T::numbers(job.memory.layer(id, job.layer)).as_chunks().0;
    &page[job.shape.width() + head * vectors..][..vectors]
}

/// Softmax of a row whose length is a whole number of vectors.
#[inline(always)]
fn softmax<S: Simd>(simd: S, row: &mut [f32]) {
    let (row, _) = row.as_chunks_mut();
    let mut largest = simd.splat(f32::NEG_INFINITY);
    for x in &*row {
        largest = simd.max(largest, simd.load(x));
    }
    let largest = simd.splat(simd.largest(largest));
    let mut sum = simd.splat(0.0);
    for x in &mut *row {
        let e = exp(simd, simd.sub(simd.load(x), largest));
        sum = simd.add(sum, e);
        simd.store(x, e);
    }
    let scale = simd.splat(1.0 / simd.sum(sum));
    for x in row {
        simd.store(x, simd.mul(simd.load(x), scale));
    }
}

/// The values of the positions, weighted, into the output (Q, D).
#[inline(always)]
fn mix<S: Simd, T: Stored, const Q: usize>(
    simd: S,
    queries: &Queries<'_, Q>,
    scores: &[f32],
    mut out: [&mut [f32]; Q],
) {
    let vectors = queries.job.shape.value_dim() / LANES;
    let mut v = 0;
    while 4 * Q <= S::SUMS && v + 4 <= vectors {
        mix_vectors::<S, T, Q, 4>(simd, queries, scores, v, &mut out);
        v += 4;
    }
    while v < vectors {
        mix_vectors::<S, T, Q, 1>(simd, queries, scores, v, &mut out);
        v += 1;
    }
}

/// `V` vectors of the values from `v` on.
#[inline(always)]
fn mix_vectors<S: Simd, T: Stored, const Q: usize, const V: usize>(
    simd: S,
    queries: &Queries<'_, Q>,
    scores: &[f32],
    v: usize,
    out: &mut [&mut [f32]; Q],
) {
    let Queries { job, head, pages, seen, .. } = queries;
    let vectors = job.shape.value_dim() / LANES;
    let mut weights = [&[][..]; Q];
    for (weights, scores) in weights.iter_mut().zip(scores.chunks_exact(pages.len() * PAGE_POSITIONS)) {
        *weights = &scores[..*seen];
    }
    let mut sums = [[simd.splat(0.0); V]; Q];
    for (b, id) in pages.iter().enumerate() {
        let values = head_values::<T>(job, *id, *head);
        let ahead = head_values::<T>(job, *pages.get(b + 2).unwrap_or(id), *head).as_ptr();
        let first = b * PAGE_POSITIONS;
        for s in 0..PAGE_POSITIONS.min(seen - first) {
            let mut x = [simd.splat(0.0); V];
            for (i, x) in x.iter_mut().enumerate() {
                // SAFETY: `head_values` gives `vectors` vectors of each of 16 positions, and `v + V <= vectors`.
                *x = T::load(simd, unsafe { values.get_unchecked(s * vectors + v + i) });
                if Q == 1 {
                    simd.prefetch(ahead.wrapping_add(s * vectors + v + i).cast());
                }
            }
            for (weights, sums) in weights.iter().zip(&mut sums) {
                // SAFETY: there are weights for `seen` positions, which the page's are among.
                let weight = simd.splat(unsafe { *weights.get_unchecked(first + s) });
                for (sum, x) in sums.iter_mut().zip(x) {
                    *sum = simd.fma(weight, x, *sum);
                }
            }
        }
    }
    for (out, sums) in out.iter_mut().zip(&sums) {
        for (i, sum) in sums.iter().enumerate() {
            simd.store_up_to(&mut out[(v + i) * LANES..], *sum);
        }
    }
}

#[cfg(test)]
mod tests;
