use candle_core::{D, DType, Device, Tensor};

use super::*;
use crate::kernels::test_numbers;

/// A row's keys and values in blocks.
fn blocks(shape: CacheShape, keys: &[f32], values: &[f32]) -> Vec<Vec<u8>> {
    let c = shape.heads * shape.head_dim;
    let positions = keys.len() / c;
    let mut blocks = vec![vec![0; shape.block_bytes()]; positions.div_ceil(BLOCK_POSITIONS)];
    for (p, (key, value)) in keys.chunks(c).zip(values.chunks(c)).enumerate() {
        let heads = shape.heads_mut(&mut blocks[p / BLOCK_POSITIONS]);
        for (mut head, (key, value)) in heads.zip(key.chunks(shape.head_dim).zip(value.chunks(shape.head_dim))) {
            head.write(key, value, p % BLOCK_POSITIONS);
        }
    }
    blocks
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
    for (dtype, theirs) in [(FloatType::F32, DType::F32), (FloatType::F16, DType::F16), (FloatType::BF16, DType::BF16)]
    {
        agrees_with_candle(dtype, theirs);
    }
}

fn agrees_with_candle(dtype: FloatType, theirs: DType) {
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
        let shape = CacheShape { heads: heads_n, head_dim: d, dtype };
        let (c, total) = (heads_n * d, past + len);
        let (q, k, v) = (test_numbers(len * c, 1), test_numbers(total * c, 2), test_numbers(total * c, 3));
        let stored = blocks(shape, &k, &v);
        let mut out = vec![0f32; len * c];
        let mut weights = vec![0f32; heads_n * len * total];
        let blocks = stored.iter().map(Vec::as_slice).collect();
        let query = Query { first: 0, len, past, blocks, weights: Some(&mut weights) };
        attend(shape, 0.3, &q, c, &mut [query], &mut out);

        let cached = |x: &[f32]| heads(x, shape).to_dtype(theirs).unwrap().to_dtype(DType::F32).unwrap();
        let scores = (heads(&q, shape).matmul(&cached(&k).transpose(1, 2).unwrap()).unwrap() * 0.3).unwrap();
        let mask: Vec<f32> = (0..len)
            .flat_map(|t| (0..total).map(move |s| if s <= past + t { 0.0 } else { f32::NEG_INFINITY }))
            .collect();
        let mask = Tensor::from_vec(mask, (1, len, total), &Device::Cpu).unwrap();
        let p = candle_nn::ops::softmax(&scores.broadcast_add(&mask).unwrap(), D::Minus1).unwrap();
        let mixed = p.matmul(&cached(&v)).unwrap().transpose(0, 1).unwrap();
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
    let shape = CacheShape { heads: 2, head_dim: 24, dtype: FloatType::F16 };
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

/// Numbers that f16 does not have become its largest, not infinities that would make a softmax undefined.
#[test]
fn large_numbers_stay_finite() {
    let shape = CacheShape { heads: 1, head_dim: 2, dtype: FloatType::F16 };
    let mut block = vec![0; shape.block_bytes()];
    shape.heads_mut(&mut block).for_each(|mut head| head.write(&[1e6, -1e6], &[1e30, 1.0], 0));
    let query = Query { first: 0, len: 1, past: 0, blocks: vec![&block[..]], weights: None };
    let mut out = [0.0; 2];
    attend(shape, 1.0, &[1.0, 1.0], 2, &mut [query], &mut out);
    assert_eq!(out, [65504.0, 1.0]);
}

/// Two threads would write the same row.
#[test]
#[should_panic(expected = "rows of a query")]
fn queries_that_overlap_are_refused() {
    let shape = CacheShape { heads: 1, head_dim: 4, dtype: FloatType::F32 };
    let block = vec![0; shape.block_bytes()];
    let query = |first| Query { first, len: 2, past: 0, blocks: vec![&block[..]], weights: None };
    attend(shape, 1.0, &[0.0; 16], 4, &mut [query(0), query(1)], &mut [0.0; 16]);
}
