//! Causal attention over a cache that is kept in blocks of 16 positions.
//!
//! Within a block keys are stored as (H, D, 16), so that the scores of 16 positions are one vector and need no
//! horizontal sums; values are stored as (H, 16, D rounded up to 16). Reference: transformers,
//! `modeling_gpt2.py::eager_attention_forward`.

use std::cell::RefCell;

use super::pool::{self, Shareable};
use super::simd::{LANES, Simd, dispatch, exp};

/// Positions in a block of the cache.
pub const BLOCK_POSITIONS: usize = LANES;

/// Queries that one task covers.
const TASK_QUERIES: usize = 32;

/// Queries that share a pass over the keys.
const TOGETHER: usize = 4;

/// The shape of one layer's part of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// `H`.
    pub heads: usize,
    /// `D`.
    pub head_dim: usize,
}

impl AttentionShape {
    /// The width of a stored value: `D` rounded up to whole vectors.
    fn value_dim(self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    fn keys_len(self) -> usize {
        self.heads * self.head_dim * BLOCK_POSITIONS
    }

    /// Numbers that one layer takes in a block.
    #[must_use]
    pub fn block_len(self) -> usize {
        self.keys_len() + self.heads * BLOCK_POSITIONS * self.value_dim()
    }
}

/// Writes the key and value of one position, both (H * D), into place `slot` of a layer's part of a block.
///
/// # Panics
/// If the lengths do not fit the shape.
pub fn append(shape: AttentionShape, key: &[f32], value: &[f32], slot: usize, block: &mut [f32]) {
    let (keys, values) = block.split_at_mut(shape.keys_len());
    for (lane, x) in keys.chunks_exact_mut(BLOCK_POSITIONS).zip(key) {
        lane[slot] = *x;
    }
    let width = shape.value_dim();
    let heads = values.chunks_exact_mut(BLOCK_POSITIONS * width).zip(value.chunks_exact(shape.head_dim));
    for (head, value) in heads {
        head[slot * width..][..shape.head_dim].copy_from_slice(value);
    }
}

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
    pub blocks: Vec<&'a [f32]>,
    /// Where the attention probabilities go, (H, T, past + T), if they are wanted.
    pub weights: Option<&'a mut [f32]>,
}

/// Attention of every query over its row's past and itself: `q` is (N, stride) with the queries in the first H * D
/// columns, `out` (N, H * D). Scores are multiplied by `scale`.
///
/// # Panics
/// If a query lies outside the batch, begins before the end of the one before, or lacks blocks; if a length is 0.
pub fn attend(shape: AttentionShape, scale: f32, q: &[f32], stride: usize, queries: &mut [Query<'_>], out: &mut [f32]) {
    let c = shape.heads.saturating_mul(shape.head_dim);
    assert!(c <= stride, "width of the queries");
    let rows = (q.len() / stride).min(out.len() / c);
    let work = queries.iter().map(|query| 2 * query.len * (query.past + query.len) * c).sum();
    let mut tasks = Vec::new();
    let mut end = 0;
    for query in queries.iter_mut() {
        let total = query.past + query.len;
        assert!((end..=rows).contains(&query.first) && query.len <= rows - query.first, "rows of a query");
        end = query.first + query.len;
        assert!(query.blocks.len() * BLOCK_POSITIONS >= total, "blocks of a row");
        assert!(query.blocks.iter().all(|block| block.len() == shape.block_len()), "length of a block");
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
    blocks: &'a [&'a [f32]],
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
    shape: AttentionShape,
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
    let mut t = task.from;
    // SAFETY: the caller's promises; the queries lie in `from..to`.
    unsafe {
        while t + TOGETHER <= task.to {
            attend_queries::<S, TOGETHER>(job, task, t, scores);
            t += TOGETHER;
        }
        while t < task.to {
            attend_queries::<S, 1>(job, task, t, scores);
            t += 1;
        }
    }
}

/// Queries `t..t + Q` of a task.
#[inline(always)]
unsafe fn attend_queries<S: Simd, const Q: usize>(job: &Attend<'_>, task: &Task<'_>, t: usize, scores: &mut [f32]) {
    let (d, past) = (job.shape.head_dim, &task.query);
    let seen = past.past + t + Q;
    let blocks = &past.blocks[..seen.div_ceil(BLOCK_POSITIONS)];
    let width = blocks.len() * BLOCK_POSITIONS;
    // SAFETY: `attend` checked the lengths of `q` and the weights, and `t + Q <= len`; `width` was made room for.
    unsafe {
        let q = job.q.as_ptr().add((past.first + t) * job.stride + task.head * d);
        score::<S, Q>(job, task.head, blocks, q, scores);
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
        mix::<S, Q>(job, task, blocks, seen, t, scores);
    }
}

/// Scaled scores of the queries against every position of the blocks, (Q, positions).
#[inline(always)]
unsafe fn score<S: Simd, const Q: usize>(
    job: &Attend<'_>,
    head: usize,
    blocks: &[&[f32]],
    q: *const f32,
    scores: &mut [f32],
) {
    let width = blocks.len() * BLOCK_POSITIONS;
    // SAFETY: `B` blocks are left; the caller's promises.
    unsafe {
        let mut b = 0;
        while b + 4 <= blocks.len() {
            score_blocks::<S, Q, 4>(job, head, &blocks[b..], q, &mut scores[b * LANES..], width);
            b += 4;
        }
        while b < blocks.len() {
            score_blocks::<S, Q, 1>(job, head, &blocks[b..], q, &mut scores[b * LANES..], width);
            b += 1;
        }
    }
}

/// Scores against the first `B` blocks.
#[inline(always)]
unsafe fn score_blocks<S: Simd, const Q: usize, const B: usize>(
    job: &Attend<'_>,
    head: usize,
    blocks: &[&[f32]],
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
                *k = S::load(block.as_ptr().add(at));
            }
            if Q == 1 {
                // A single query waits for memory, and blocks lie apart.
                for block in ahead.iter().take(B) {
                    S::prefetch(block.as_ptr().add(at).cast());
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
unsafe fn mix<S: Simd, const Q: usize>(
    job: &Attend<'_>,
    task: &Task<'_>,
    blocks: &[&[f32]],
    seen: usize,
    t: usize,
    scores: &[f32],
) {
    let vectors = job.shape.value_dim() / LANES;
    // SAFETY: a value has the vectors `v..v + V`; the caller's promises.
    unsafe {
        let mut v = 0;
        while v + 4 <= vectors {
            mix_vectors::<S, Q, 4>(job, task, blocks, seen, t, scores, v);
            v += 4;
        }
        while v < vectors {
            mix_vectors::<S, Q, 1>(job, task, blocks, seen, t, scores, v);
            v += 1;
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn mix_vectors<S: Simd, const Q: usize, const V: usize>(
    job: &Attend<'_>,
    task: &Task<'_>,
    blocks: &[&[f32]],
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
            let values = block.as_ptr().add(head);
            let ahead = blocks.get(b + 2).unwrap_or(block).as_ptr().add(head);
            let first = b * BLOCK_POSITIONS;
            for s in 0..BLOCK_POSITIONS.min(seen - first) {
                let mut x = [S::splat(0.0); V];
                for (i, x) in x.iter_mut().enumerate() {
                    let at = s * value_dim + i * LANES;
                    *x = S::load(values.add(at));
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
mod tests {
    use candle_core::{D, Device, Tensor};

    use super::super::test_numbers;
    use super::*;

    /// A row's keys and values in blocks.
    fn blocks(shape: AttentionShape, keys: &[f32], values: &[f32]) -> Vec<Vec<f32>> {
        let c = shape.heads * shape.head_dim;
        let positions = keys.len() / c;
        let mut blocks = vec![vec![0.0; shape.block_len()]; positions.div_ceil(BLOCK_POSITIONS)];
        for (p, (key, value)) in keys.chunks(c).zip(values.chunks(c)).enumerate() {
            append(shape, key, value, p % BLOCK_POSITIONS, &mut blocks[p / BLOCK_POSITIONS]);
        }
        blocks
    }

    /// (T, H * D) -> (H, T, D).
    fn heads(x: &[f32], shape: AttentionShape) -> Tensor {
        let (h, d) = (shape.heads, shape.head_dim);
        let x = Tensor::from_vec(x.to_vec(), (x.len() / (h * d), h, d), &Device::Cpu).unwrap();
        x.transpose(0, 1).unwrap().contiguous().unwrap()
    }

    /// Against softmax(q kᵀ · scale + mask) v in candle: odd head widths, with and without a past, weights included.
    #[test]
    fn attention_agrees_with_candle() {
        for (heads_n, d, past, len) in [
            (1, 1, 0, 1),
            (2, 8, 0, 5),
            (3, 64, 0, 37),
            (2, 64, 570, 1),
            (4, 20, 15, 3),
            (1, 80, 33, 50),
            (8, 1, 3, 20),
            (5, 16, 16, 16),
        ] {
            let shape = AttentionShape { heads: heads_n, head_dim: d };
            let (c, total) = (heads_n * d, past + len);
            let (q, k, v) = (test_numbers(len * c, 1), test_numbers(total * c, 2), test_numbers(total * c, 3));
            let stored = blocks(shape, &k, &v);
            let mut out = vec![0f32; len * c];
            let mut weights = vec![0f32; heads_n * len * total];
            let blocks = stored.iter().map(Vec::as_slice).collect();
            let query = Query { first: 0, len, past, blocks, weights: Some(&mut weights) };
            attend(shape, 0.3, &q, c, &mut [query], &mut out);

            let scores = (heads(&q, shape).matmul(&heads(&k, shape).transpose(1, 2).unwrap()).unwrap() * 0.3).unwrap();
            let mask: Vec<f32> = (0..len)
                .flat_map(|t| (0..total).map(move |s| if s <= past + t { 0.0 } else { f32::NEG_INFINITY }))
                .collect();
            let mask = Tensor::from_vec(mask, (1, len, total), &Device::Cpu).unwrap();
            let p = candle_nn::ops::softmax(&scores.broadcast_add(&mask).unwrap(), D::Minus1).unwrap();
            let mixed = p.matmul(&heads(&v, shape)).unwrap().transpose(0, 1).unwrap();
            let close = |ours: &[f32], reference: Tensor, what: &str| {
                let reference: Vec<f32> = reference.flatten_all().unwrap().to_vec1().unwrap();
                assert_eq!(ours.len(), reference.len());
                for (a, b) in ours.iter().zip(reference) {
                    assert!((a - b).abs() < 2e-6, "{what}, {heads_n} heads of {d}, {past}+{len}: {a} {b}");
                }
            };
            close(&out, mixed.contiguous().unwrap(), "output");
            close(&weights, p, "weights");
        }
    }

    /// A query gives the same bits however its row is split into passes, and whatever rows are beside it.
    #[test]
    fn a_query_does_not_depend_on_the_split() {
        let shape = AttentionShape { heads: 2, head_dim: 24 };
        let (c, total) = (48, 75);
        let (q, k, v) = (test_numbers(total * c, 1), test_numbers(total * c, 2), test_numbers(total * c, 3));
        let stored = blocks(shape, &k, &v);
        let views = || stored.iter().map(Vec::as_slice).collect::<Vec<_>>();
        let mut whole = vec![0f32; total * c];
        attend(
            shape,
            0.2,
            &q,
            c,
            &mut [Query { first: 0, len: total, past: 0, blocks: views(), weights: None }],
            &mut whole,
        );
        for split in [1, 7, 16, 40, 74] {
            let mut out = vec![0f32; total * c];
            let mut halves = [
                Query { first: 0, len: split, past: 0, blocks: views(), weights: None },
                Query { first: split, len: total - split, past: split, blocks: views(), weights: None },
            ];
            attend(shape, 0.2, &q, c, &mut halves, &mut out);
            assert_eq!(out, whole, "split at {split}");
        }
    }

    /// Two threads would write the same row.
    #[test]
    #[should_panic(expected = "rows of a query")]
    fn queries_that_overlap_are_refused() {
        let shape = AttentionShape { heads: 1, head_dim: 4 };
        let block = vec![0.0; shape.block_len()];
        let query = |first| Query { first, len: 2, past: 0, blocks: vec![&block[..]], weights: None };
        attend(shape, 1.0, &[0.0; 16], 4, &mut [query(0), query(1)], &mut [0.0; 16]);
    }
}
