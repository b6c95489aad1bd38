use candle_core::{D, DType, Device, Tensor};

use super::*;
use crate::kernels::test_numbers;

/// Memory of one layer with `pages` pages.
fn memory(shape: CacheShape, pages: usize) -> CacheMemory {
    let mut memory = CacheMemory::new(shape, 1, pages);
    let mut there = 0;
    while there < pages {
        there += memory.grow().unwrap();
    }
    memory
}

/// Pages that do not lie in order.
fn pages(n: usize) -> Vec<PageId> {
    (0..n).rev().map(PageId).collect()
}

/// (T, C) each -> (T, 3C).
fn side_by_side(q: &[f32], k: &[f32], v: &[f32], c: usize) -> Vec<f32> {
    let rows = q.chunks(c).zip(k.chunks(c)).zip(v.chunks(c));
    rows.flat_map(|((q, k), v)| [q, k, v].concat()).collect()
}

/// (T, H * D) -> (H, T, D).
fn heads(x: &[f32], shape: CacheShape) -> Tensor {
    let (h, d) = (shape.heads, shape.head_dim);
    let x = Tensor::from_vec(x.to_vec(), (x.len() / (h * d), h, d), &Device::Cpu).unwrap();
    x.transpose(0, 1).unwrap().contiguous().unwrap()
}

/// Against softmax(q kᵀ · scale + mask) v in candle, keys and values rounded as the cache rounds them: odd head widths,
/// with and without a past, weights included.
#[test]
fn attention_agrees_with_candle() {
    for half in [false, true] {
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
            agrees_with_candle(CacheShape { heads: heads_n, head_dim: d, half }, past, len);
        }
    }
}

fn agrees_with_candle(shape: CacheShape, past: usize, len: usize) {
    let (c, total) = (shape.width(), past + len);
    let (q, k, v) = (test_numbers(total * c, 1), test_numbers(total * c, 2), test_numbers(total * c, 3));
    let qkv = side_by_side(&q, &k, &v, c);
    let pages = pages(total.div_ceil(PAGE_POSITIONS));
    let (mut memory, mut batch) = (memory(shape, pages.len()), Batch::default());
    // The past is written by a pass of its own.
    batch.set([(0, past, &pages[..])]);
    append(&mut memory, 0, &batch, &qkv[..past * 3 * c]);
    batch.set([(past, len, &pages[..])]);
    append(&mut memory, 0, &batch, &qkv[past * 3 * c..]);
    let mut out = vec![0f32; len * c];
    let mut weights = vec![f32::NAN; shape.heads * len * total];
    attend(&memory, 0, &batch, 0.3, &qkv[past * 3 * c..], Some(&mut weights), &mut out);

    let theirs = if shape.half { DType::F16 } else { DType::F32 };
    let cached = |x: &[f32]| heads(x, shape).to_dtype(theirs).unwrap().to_dtype(DType::F32).unwrap();
    let scores = heads(&q[past * c..], shape).matmul(&cached(&k).transpose(1, 2).unwrap()).unwrap();
    let scores = (scores * 0.3).unwrap();
    let mask: Vec<f32> =
        (0..len).flat_map(|t| (0..total).map(move |s| if s <= past + t { 0.0 } else { f32::NEG_INFINITY })).collect();
    let mask = Tensor::from_vec(mask, (1, len, total), &Device::Cpu).unwrap();
    let p = candle_nn::ops::softmax(&scores.broadcast_add(&mask).unwrap(), D::Minus1).unwrap();
    let mixed = p.matmul(&cached(&v)).unwrap().transpose(0, 1).unwrap();
    let close = |ours: &[f32], reference: Tensor, what: &str| {
        let reference: Vec<f32> = reference.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(ours.len(), reference.len());
        for (a, b) in ours.iter().zip(reference) {
            assert!((a - b).abs() < 2e-6, "{what}, {shape:?}, {past}+{len}: {a} {b}");
        }
    };
    close(&out, mixed.contiguous().unwrap(), "output");
    close(&weights, p, "weights");
}

/// A query gives the same bits however its row is split into passes, and whatever rows are beside it.
#[test]
fn a_query_does_not_depend_on_the_split() {
    let shape = CacheShape { heads: 2, head_dim: 24, half: true };
    let (c, total) = (48, 75);
    let (q, k, v) = (test_numbers(total * c, 1), test_numbers(total * c, 2), test_numbers(total * c, 3));
    let qkv = side_by_side(&q, &k, &v, c);
    let pages = pages(10);
    let (one, other) = pages.split_at(5);
    let mut batch = Batch::default();
    let mut run = |memory: &mut CacheMemory, rows: &[(usize, usize, &[PageId])], qkv: &[f32]| {
        batch.set(rows.iter().copied());
        let mut out = vec![0f32; qkv.len() / 3];
        append(memory, 0, &batch, qkv);
        attend(memory, 0, &batch, 0.2, qkv, None, &mut out);
        out
    };
    let memory = &mut memory(shape, 10);
    let whole = run(memory, &[(0, total, one)], &qkv);
    for split in [1, 7, 16, 40, 74] {
        let (first, second) = qkv.split_at(split * 3 * c);
        let mut out = run(memory, &[(0, split, one)], first);
        // The second row begins anew, and sees nothing of the first.
        let rows = [(split, total - split, one), (0, total, other)];
        let both = run(memory, &rows, &[second, &qkv].concat());
        let (rest, anew) = both.split_at((total - split) * c);
        out.extend(rest);
        assert_eq!((&out[..], anew), (&whole[..], &whole[..]), "split at {split}");
    }
}

/// Numbers that f16 does not have become its largest, not infinities that would make a softmax undefined.
#[test]
fn large_numbers_stay_finite() {
    let shape = CacheShape { heads: 1, head_dim: 2, half: true };
    let (mut memory, mut batch) = (memory(shape, 1), Batch::default());
    batch.set([(0, 1, &pages(1)[..])]);
    let qkv = [1.0, 1.0, 1e6, -1e6, 1e30, 1.0];
    append(&mut memory, 0, &batch, &qkv);
    let mut out = [0.0; 2];
    attend(&memory, 0, &batch, 1.0, &qkv, None, &mut out);
    assert_eq!(out, [65504.0, 1.0]);
}
