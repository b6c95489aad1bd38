//! Causal attention over a cache that is kept in blocks of 16 positions.
//!
//! Within a block keys are stored as (H, D, 16), so that the scores of 16 positions are one vector and need no
//! horizontal sums; values are stored as (H, 16, D rounded up to 16). Reference: transformers,
//! `modeling_gpt2.py::eager_attention_forward`.

mod blocks;

use std::cell::RefCell;

pub use blocks::{BLOCK_POSITIONS, CacheShape, HeadBlock};

use super::simd::{LANES, Simd, dispatch, exp};
use super::stored::{BF16, F16, F32, Stored};
use crate::base::{
    FloatType,
    pool::{self, Shareable},
};

/// Queries that one task covers.
const TASK_QUERIES: usize = 32;

/// Queries that share a pass over the keys.
const TOGETHER: usize = 4;

/// What reading a cached number costs, in multiplications.
const READING: usize = 8;

/// The queries of one row and the past that they look at.
#[derive(Debug)]
pub struct Query<'a> {
    /// The first of the row's new positions in the batch, and how many there are (`T`).
    pub first: usize,
    /// `T`.
    pub len: usize,
    /// Positions that the row held before them.
    pub past: usize,
    /// One layer's part of each of the row's blocks, which hold the new positions too.
    pub blocks: Vec<&'a [u8]>,
    /// Where the attention probabilities go, (H, T, past + T), if they are wanted.
    pub weights: Option<&'a mut [f32]>,
}

/// Attention of every query over its row's past and itself: `q` is (N, stride) with the queries in the first H * D
/// columns, `out` (N, H * D). Scores are multiplied by `scale`.
///
/// # Panics
/// If a query lies outside the batch, begins before the end of the one before, or lacks blocks; if a length is 0.
pub fn attend(shape: CacheShape, scale: f32, q: &[f32], stride: usize, queries: &mut [Query<'_>], out: &mut [f32]) {
    let c = shape.heads.saturating_mul(shape.head_dim);
    assert!(c <= stride, "width of the queries");
    let rows = (q.len() / stride).min(out.len() / c);
    let work = queries.iter().map(|query| 2 * (query.len + READING) * (query.past + query.len) * c).sum();
    let mut tasks = Vec::new();
    let mut end = 0;
    for query in queries.iter_mut() {
        let total = query.past + query.len;
        assert!((end..=rows).contains(&query.first) && query.len <= rows - query.first, "rows of a query");
        end = query.first + query.len;
        assert!(query.blocks.len() * BLOCK_POSITIONS >= total, "blocks of a row");
        assert!(query.blocks.iter().all(|block| block.len() == shape.block_bytes()), "length of a block");
        assert!(query.weights.as_ref().is_none_or(|w| w.len() == shape.heads * query.len * total));
        let weights = query.weights.as_mut().map(|w| Shareable(w.as_mut_ptr()));
        for head in 0..shape.heads {
            for from in (0..query.len).step_by(TASK_QUERIES) {
                let to = query.len.min(from + TASK_QUERIES);
                tasks.push(Task {
                    query: Past { first: query.first, past: query.past, len: query.len, blocks: &query.blocks },
                    weights,
                    head,
                    from,
                    to,
                });
            }
        }
    }
    let job = Attend { shape, scale, q, stride, out: Shareable(out.as_mut_ptr()) };
    pool::run_costing(work, tasks.len(), |i| {
        // The scratch is fetched here: a closure inside the kernel would be compiled without its instructions.
        // SAFETY: the lengths were checked above; a task writes its own head's columns of its own rows, as no row is in
        // two queries, and its own rows of the weights, which no two queries share.
        SCORES.with_borrow_mut(|scores| unsafe { attend_dispatch(&job, &tasks[i], scores) });
    });
}

struct Past<'a> {
    first: usize,
    past: usize,
    len: usize,
    blocks: &'a [&'a [u8]],
}

/// Queries `from..to` of a row, of one head.
struct Task<'a> {
    query: Past<'a>,
    weights: Option<Shareable<f32>>,
    head: usize,
    from: usize,
    to: usize,
}

struct Attend<'a> {
    shape: CacheShape,
    scale: f32,
    q: &'a [f32],
    stride: usize,
    out: Shareable<f32>,
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
    let needed = TOGETHER * task.query.blocks.len() * BLOCK_POSITIONS;
    if scores.len() < needed {
        scores.resize(needed, 0.0);
    }
    // SAFETY: the caller's promises; the type is that of the cached numbers.
    unsafe {
        match job.shape.dtype {
            FloatType::F32 => attend_all::<S, F32>(job, task, scores),
            FloatType::F16 => attend_all::<S, F16>(job, task, scores),
            FloatType::BF16 => attend_all::<S, BF16>(job, task, scores),
        }
    }
}

/// All queries of a task, over keys and values that are stored as `T`.
#[inline(always)]
unsafe fn attend_all<S: Simd, T: Stored>(job: &Attend<'_>, task: &Task<'_>, scores: &mut [f32]) {
    let mut t = task.from;
    // SAFETY: the caller's promises; the queries lie in `from..to`.
    unsafe {
        while t + TOGETHER <= task.to {
            attend_queries::<S, T, TOGETHER>(job, task, t, scores);
            t += TOGETHER;
        }
        while t < task.to {
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
    let (d, past) = (job.shape.head_dim, &task.query);
    let seen = past.past + t + Q;
    let blocks = &past.blocks[..seen.div_ceil(BLOCK_POSITIONS)];
    let width = blocks.len() * BLOCK_POSITIONS;
    // SAFETY: `attend` checked the lengths of `q` and the weights, and `t + Q <= len`; `width` was made room for.
    unsafe {
        let q = job.q.as_ptr().add((past.first + t) * job.stride + task.head * d);
        score::<S, T, Q>(job, task.head, blocks, q, scores);
        for i in 0..Q {
            let row = &mut scores[i * width..(i + 1) * width];
            let visible = past.past + t + i + 1;
            row[visible..].fill(f32::NEG_INFINITY);
            softmax::<S>(row);
            if let Some(weights) = task.weights {
                let total = past.past + past.len;
                let out = weights.get().add((task.head * past.len + t + i) * total);
                let out = std::slice::from_raw_parts_mut(out, total);
                out.fill(0.0);
                out[..visible].copy_from_slice(&row[..visible]);
            }
        }
        mix::<S, T, Q>(job, task, blocks, seen, t, scores);
    }
}

/// Scaled scores of the queries against every position of the blocks, (Q, positions).
#[inline(always)]
unsafe fn score<S: Simd, T: Stored, const Q: usize>(
    job: &Attend<'_>,
    head: usize,
    blocks: &[&[u8]],
    q: *const f32,
    scores: &mut [f32],
) {
    let width = blocks.len() * BLOCK_POSITIONS;
    // SAFETY: `B` blocks are left; the caller's promises.
    unsafe {
        let mut b = 0;
        while 4 * Q <= S::SUMS && b + 4 <= blocks.len() {
            score_blocks::<S, T, Q, 4>(job, head, &blocks[b..], q, &mut scores[b * LANES..], width);
            b += 4;
        }
        while b < blocks.len() {
            score_blocks::<S, T, Q, 1>(job, head, &blocks[b..], q, &mut scores[b * LANES..], width);
            b += 1;
        }
    }
}

/// Scores against the first `B` blocks.
#[inline(always)]
unsafe fn score_blocks<S: Simd, T: Stored, const Q: usize, const B: usize>(
    job: &Attend<'_>,
    head: usize,
    blocks: &[&[u8]],
    q: *const f32,
    scores: &mut [f32],
    width: usize,
) {
    let d = job.shape.head_dim;
    let (blocks, ahead) = blocks.split_at(B);
    // SAFETY: every block begins with (H, D, 16) keys, as `attend` checked; `q` points to `Q` rows of `D` numbers, each
    // `stride` after the one before.
    unsafe {
        let mut sums = [[S::splat(0.0); B]; Q];
        for i in 0..d {
            let at = (head * d + i) * LANES;
            let mut k = [S::splat(0.0); B];
            for (k, block) in k.iter_mut().zip(blocks) {
                *k = T::load::<S>(block.as_ptr().cast::<T::Number>().add(at));
            }
            if Q == 1 {
                // A single query waits for memory, and blocks lie apart.
                for block in ahead.iter().take(B) {
                    S::prefetch(block.as_ptr().cast::<T::Number>().add(at).cast());
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
    blocks: &[&[u8]],
    seen: usize,
    t: usize,
    scores: &[f32],
) {
    let vectors = job.shape.value_dim() / LANES;
    // SAFETY: a value has the vectors `v..v + V`; the caller's promises.
    unsafe {
        let mut v = 0;
        while 4 * Q <= S::SUMS && v + 4 <= vectors {
            mix_vectors::<S, T, Q, 4>(job, task, blocks, seen, t, scores, v);
            v += 4;
        }
        while v < vectors {
            mix_vectors::<S, T, Q, 1>(job, task, blocks, seen, t, scores, v);
            v += 1;
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn mix_vectors<S: Simd, T: Stored, const Q: usize, const V: usize>(
    job: &Attend<'_>,
    task: &Task<'_>,
    blocks: &[&[u8]],
    seen: usize,
    t: usize,
    scores: &[f32],
    v: usize,
) {
    let (shape, width) = (job.shape, blocks.len() * BLOCK_POSITIONS);
    let value_dim = shape.value_dim();
    let head = shape.keys_len() + task.head * BLOCK_POSITIONS * value_dim + v * LANES;
    // SAFETY: every block holds (H, 16, value_dim) values behind its keys, as `attend` checked; `scores` has `Q` rows
    // of `width`; the output's rows and columns are the task's own, and what is stored of a value ends with the head.
    unsafe {
        let mut sums = [[S::splat(0.0); V]; Q];
        for (b, block) in blocks.iter().enumerate() {
            let values = block.as_ptr().cast::<T::Number>().add(head);
            let ahead = blocks.get(b + 2).unwrap_or(block).as_ptr().cast::<T::Number>().add(head);
            let first = b * BLOCK_POSITIONS;
            for s in 0..BLOCK_POSITIONS.min(seen - first) {
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
            let row = job.out.get().add((task.query.first + t + i) * c + task.head * shape.head_dim);
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
