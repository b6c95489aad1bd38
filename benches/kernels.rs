//! Each kernel at GPT-2's widths, next to candle's version of the same operation.
//!
//! `cargo bench --bench kernels` prints both; throughput is in multiply-adds. One row stands for decoding, 512 rows for a
//! prompt, 128 rows of the head for a text that is scored. `GPT2_SIMD=vnni` or another level shows what the levels above it gain.

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{Device, Module, Tensor};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use gpt2::base::ggml::quantize;
use gpt2::base::{Bytes, FloatType, QuantizedType};
use gpt2::config::Activation;
use gpt2::kernels::quantized::QuantizedMatrix;
use gpt2::kernels::{
    self, Batch, CacheMemory, CacheShape, Epilogue, Layout, Matrix, PAGE_POSITIONS, PageId, Weight, panels,
};

const WIDTH: usize = 768;
const HEADS: usize = 12;

fn main() {
    divan::main();
}

/// Pseudo-random numbers between -1 and 1.
fn numbers(n: usize) -> Vec<f32> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn tensor(dims: (usize, usize)) -> Tensor {
    Tensor::from_vec(numbers(dims.0 * dims.1), dims, &Device::Cpu).expect("a tensor")
}

/// A matrix to measure: weights of a block, or the tied head.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// `mlp.c_fc`.
    Mlp,
    /// `lm_head`.
    Head,
}

impl Shape {
    fn dims(self) -> (usize, usize) {
        match self {
            Self::Mlp => (WIDTH, 4 * WIDTH),
            Self::Head => (WIDTH, 50257),
        }
    }
}

/// The matrices and numbers of rows to measure.
const PRODUCTS: [(Shape, usize); 6] =
    [(Shape::Mlp, 1), (Shape::Mlp, 16), (Shape::Mlp, 512), (Shape::Head, 1), (Shape::Head, 16), (Shape::Head, 128)];

/// The product of `rows` rows with a weight.
fn product(bencher: Bencher<'_, '_>, w: &Weight, rows: usize) {
    let (x, mut y) = (numbers(rows * w.inputs()), vec![0.0; rows * w.outputs()]);
    bencher
        .counter(ItemsCount::new(x.len() * w.outputs()))
        .bench_local(|| w.matmul(black_box(&x), None, Epilogue::None, &mut y));
}

mod matmul {
    use super::*;

    fn floats(bencher: Bencher<'_, '_>, (weight, rows): (Shape, usize), dtype: FloatType) {
        let (inputs, outputs) = weight.dims();
        let number = |x: f32| match dtype {
            FloatType::F32 => x.to_le_bytes().to_vec(),
            FloatType::F16 => half::f16::from_f32(x).to_le_bytes().to_vec(),
            FloatType::BF16 => half::bf16::from_f32(x).to_le_bytes().to_vec(),
        };
        let bytes: Vec<u8> = numbers(inputs * outputs).into_iter().flat_map(number).collect();
        let w = match weight {
            Shape::Mlp => {
                let mut packed = vec![0; panels::packed_bytes(dtype, inputs, outputs).expect("a length")];
                for part in &mut panels::parts(dtype, inputs, inputs, &mut packed) {
                    panels::pack(dtype, outputs, &bytes, part);
                }
                Matrix::new(Bytes::from(packed), dtype, Layout::Panels, inputs, outputs)
            }
            Shape::Head => Matrix::new(Bytes::from(bytes), dtype, Layout::OutIn, inputs, outputs),
        };
        product(bencher, &Weight::Float(w), rows);
    }

    #[divan::bench(args = PRODUCTS)]
    fn f32(bencher: Bencher<'_, '_>, shape: (Shape, usize)) {
        floats(bencher, shape, FloatType::F32);
    }

    #[divan::bench(args = PRODUCTS)]
    fn f16(bencher: Bencher<'_, '_>, shape: (Shape, usize)) {
        floats(bencher, shape, FloatType::F16);
    }

    #[divan::bench(args = PRODUCTS)]
    fn bf16(bencher: Bencher<'_, '_>, shape: (Shape, usize)) {
        floats(bencher, shape, FloatType::BF16);
    }

    #[divan::bench(args = PRODUCTS)]
    fn candle_f32(bencher: Bencher<'_, '_>, (weight, rows): (Shape, usize)) {
        let (inputs, outputs) = weight.dims();
        let w = match weight {
            Shape::Mlp => tensor((inputs, outputs)),
            Shape::Head => tensor((outputs, inputs)).t().expect("a matrix"),
        };
        let x = tensor((rows, inputs));
        bencher.counter(ItemsCount::new(rows * inputs * outputs)).bench_local(|| black_box(&x).matmul(&w));
    }
}

mod quantized {
    use super::*;

    const FORMATS: [(QuantizedType, GgmlDType); 3] = [
        (QuantizedType::Q8_0, GgmlDType::Q8_0),
        (QuantizedType::Q6K, GgmlDType::Q6K),
        (QuantizedType::Q4K, GgmlDType::Q4K),
    ];
    const SHAPES: [(Shape, usize); 4] = [(Shape::Mlp, 1), (Shape::Mlp, 512), (Shape::Head, 1), (Shape::Head, 16)];

    fn cases() -> impl Iterator<Item = (QuantizedType, GgmlDType, Shape, usize)> {
        FORMATS.into_iter().flat_map(|(kind, theirs)| SHAPES.map(|(weight, rows)| (kind, theirs, weight, rows)))
    }

    #[divan::bench(args = cases())]
    fn ours(bencher: Bencher<'_, '_>, (kind, _, weight, rows): (QuantizedType, GgmlDType, Shape, usize)) {
        let (inputs, outputs) = weight.dims();
        let bytes = quantize(kind, &numbers(inputs * outputs)).expect("whole blocks");
        let w = QuantizedMatrix::new(&bytes, kind, inputs, outputs);
        product(bencher, &Weight::Quantized(w), rows);
    }

    #[divan::bench(args = cases())]
    fn candle(bencher: Bencher<'_, '_>, (_, kind, weight, rows): (QuantizedType, GgmlDType, Shape, usize)) {
        let (inputs, outputs) = weight.dims();
        let w = QTensor::quantize(&tensor((outputs, inputs)), kind).and_then(QMatMul::from_qtensor).expect("a matrix");
        let x = tensor((rows, inputs));
        bencher.counter(ItemsCount::new(rows * inputs * outputs)).bench_local(|| w.forward(black_box(&x)));
    }
}

/// Attention of new positions over themselves and the past.
mod attention {
    use super::*;

    /// Numbers of new and past positions.
    const CASES: [(usize, usize); 3] = [(1, 512), (1, 1023), (512, 0)];

    #[divan::bench(args = CASES)]
    fn f32(bencher: Bencher<'_, '_>, case: (usize, usize)) {
        ours(bencher, case, false);
    }

    #[divan::bench(args = CASES)]
    fn f16(bencher: Bencher<'_, '_>, case: (usize, usize)) {
        ours(bencher, case, true);
    }

    /// Attention over a cache in f16 or f32.
    fn ours(bencher: Bencher<'_, '_>, (new, past): (usize, usize), half: bool) {
        let shape = CacheShape { heads: HEADS, head_dim: WIDTH / HEADS, half };
        let pages: Vec<_> = (0..(new + past).div_ceil(PAGE_POSITIONS)).map(PageId).collect();
        let mut memory = CacheMemory::new(shape, 1, pages.len());
        let mut there = 0;
        while there < pages.len() {
            there += memory.grow().expect("memory");
        }
        let mut batch = Batch::default();
        batch.set([(0, new + past, &pages[..])]);
        kernels::append(&mut memory, 0, &batch, &numbers((new + past) * 3 * WIDTH));
        batch.set([(past, new, &pages[..])]);
        let (qkv, mut out) = (numbers(new * 3 * WIDTH), vec![0.0; new * WIDTH]);
        bencher
            .counter(ItemsCount::new(2 * new * (past + new) * WIDTH))
            .bench_local(|| kernels::attend(&memory, 0, &batch, 0.125, black_box(&qkv), None, &mut out));
    }

    #[divan::bench(args = CASES)]
    fn candle(bencher: Bencher<'_, '_>, (new, past): (usize, usize)) {
        let head_dim = WIDTH / HEADS;
        let heads = |n: usize| tensor((HEADS * n, head_dim)).reshape((HEADS, n, head_dim)).expect("heads");
        let (q, k, v) = (heads(new), heads(new + past), heads(new + past));
        let mask: Vec<f32> = (0..new)
            .flat_map(|i| (0..new + past).map(move |j| if j > past + i { f32::NEG_INFINITY } else { 0.0 }))
            .collect();
        let mask = Tensor::from_vec(mask, (1, new, new + past), &Device::Cpu).expect("a mask");
        bencher.counter(ItemsCount::new(2 * new * (past + new) * WIDTH)).bench_local(|| {
            let scores = (black_box(&q).matmul(&k.t()?)? * 0.125)?.broadcast_add(&mask)?;
            candle_nn::ops::softmax_last_dim(&scores)?.matmul(&v)
        });
    }
}

/// What is read from a row of logits.
mod logits {
    use super::*;
    use gpt2::logits::{LogNormalizer, rank, top_k};

    #[divan::bench]
    fn normalizer(bencher: Bencher<'_, '_>) {
        let row = numbers(50257);
        bencher.bench_local(|| LogNormalizer::of_finite(black_box(&row)));
    }

    #[divan::bench]
    fn token_rank(bencher: Bencher<'_, '_>) {
        let row = numbers(50257);
        bencher.bench_local(|| rank(black_box(&row), 1000));
    }

    #[divan::bench]
    fn best_10(bencher: Bencher<'_, '_>) {
        let row = numbers(50257);
        bencher.bench_local(|| top_k(black_box(&row), 10));
    }

    #[divan::bench]
    fn candle_log_softmax(bencher: Bencher<'_, '_>) {
        let row = tensor((1, 50257));
        bencher.bench_local(|| candle_nn::ops::log_softmax(black_box(&row), 1));
    }
}

/// The pointwise kernels, over the hidden states of 512 positions.
mod pointwise {
    use super::*;

    #[divan::bench]
    fn layer_norm(bencher: Bencher<'_, '_>) {
        let (x, weight, bias) = (numbers(512 * WIDTH), numbers(WIDTH), numbers(WIDTH));
        let mut y = vec![0.0; x.len()];
        bencher.bench_local(|| kernels::layer_norm(black_box(&x), &weight, &bias, 1e-5, &mut y));
    }

    #[divan::bench]
    fn candle_layer_norm(bencher: Bencher<'_, '_>) {
        let (x, weight, bias) = (tensor((512, WIDTH)), numbers(WIDTH), numbers(WIDTH));
        let weight = Tensor::new(weight, &Device::Cpu).expect("a vector");
        let bias = Tensor::new(bias, &Device::Cpu).expect("a vector");
        bencher.bench_local(|| candle_nn::ops::layer_norm(black_box(&x), &weight, &bias, 1e-5));
    }

    #[divan::bench]
    fn gelu_new(bencher: Bencher<'_, '_>) {
        let x = numbers(512 * 4 * WIDTH);
        bencher.with_inputs(|| x.clone()).bench_local_values(|mut x| {
            kernels::activate(Activation::GeluNew, &mut x);
            x
        });
    }

    #[divan::bench]
    fn candle_gelu_new(bencher: Bencher<'_, '_>) {
        let x = tensor((512, 4 * WIDTH));
        bencher.bench_local(|| black_box(&x).gelu());
    }
}
