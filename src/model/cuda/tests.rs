//! Each kernel against plain loops in f64 over the same numbers, and against those that promise the same bits: on the CPU in
//! builds with `emulator`, on the first GPU in builds with `cuda`.
//!
//! Tolerances are bounds of what rounding does, not of what was seen:
//! - A sum of n numbers in f32, in any order, is off by at most n [`EPSILON`] of the sum of their absolute values; so is one
//!   of n products.
//! - A number that is stored in 16 bits is off by [`unit`] of itself, or in f16 by half of the smallest number.
//! - tanh, erf and exp are off by two units in the last place.

use std::mem::ManuallyDrop;

use half::{bf16, f16};

use super::arguments::{
    Arguments, AttentionArgs, BestArgs, EmbedArgs, Into, MatmulArgs, NormArgs, NormaliseArgs, PlaceArgs, Queries,
    TopArgs,
};
use super::cache::Cache;
use super::gpu::{Gpu, Memory};
use super::kernel::{
    BLOCK_POSITIONS, Kernel, MIXED_NUMBERS, MOST_NORMED_SHARED, NORM_WARPS, NumberType, TILE_OUTPUTS, TILE_ROWS,
};
use super::shape::{NetworkShape, WIDE, padded};
use super::{PLACE_THREADS, pass};
use crate::config::Config;
use crate::decode::Top;
use crate::model::Segment;
use NumberType::{BF16, F16, F32};

const TYPES: [NumberType; 3] = [F32, F16, BF16];

/// Products of few rows that are normed already.
const NARROW: [Kernel; 4] = [Kernel::Matmul8, Kernel::Matmul8Deep, Kernel::Matmul16, Kernel::Matmul32];

/// What an operation in f32 is off by: twice what rounding to nearest is, as tensor cores cut off.
const EPSILON: f64 = 1.0 / (1 << 23) as f64;

/// Fills memory that kernels write to, and is still there where they must not.
const UNTOUCHED: u8 = 0x55;

// ---- The device ----

thread_local! {
    /// A test has a thread, and so a device, of its own, which ends with the process: a thread's last moments are no time
    /// to call a driver.
    static GPU: ManuallyDrop<Gpu> = ManuallyDrop::new(open());
}

#[cfg(not(feature = "cuda"))]
fn open() -> Gpu {
    Gpu
}

#[cfg(feature = "cuda")]
fn open() -> Gpu {
    use crate::device::{Backend, DeviceChoice};
    let Backend::Candle(device) = DeviceChoice::Cuda(0).open().expect("a GPU") else { unreachable!("it is a GPU") };
    Gpu::of(&device).expect("one that can run the kernels").expect("one of NVIDIA's")
}

fn launch(kernel: Kernel, numbers: NumberType, grid: [usize; 3], shared: usize, arguments: &impl Arguments) {
    GPU.with(|gpu| gpu.launch(kernel, numbers, grid.map(|n| n as u32), shared, arguments, false)).unwrap();
}

fn upload(bytes: &[u8]) -> Memory {
    GPU.with(|gpu| {
        let memory = gpu.zeros(bytes.len()).unwrap();
        gpu.upload(bytes, &memory, 0).unwrap();
        memory
    })
}

fn untouched(bytes: usize) -> Memory {
    upload(&vec![UNTOUCHED; bytes])
}

fn download(memory: &Memory) -> Vec<u8> {
    let mut bytes = vec![0; memory.len()];
    GPU.with(|gpu| gpu.download(memory, 0, &mut bytes)).unwrap();
    bytes
}

// ---- Numbers ----

/// Numbers spread evenly over -1..1, different for each `seed`.
fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(n).collect()
}

fn bytes(numbers: NumberType, from: &[f32]) -> Vec<u8> {
    match numbers {
        F32 => from.iter().flat_map(|x| x.to_ne_bytes()).collect(),
        F16 => from.iter().flat_map(|x| f16::from_f32(*x).to_ne_bytes()).collect(),
        BF16 => from.iter().flat_map(|x| bf16::from_f32(*x).to_ne_bytes()).collect(),
    }
}

fn floats(numbers: NumberType, from: &[u8]) -> Vec<f32> {
    match numbers {
        F32 => from.as_chunks().0.iter().map(|x| f32::from_ne_bytes(*x)).collect(),
        F16 => from.as_chunks().0.iter().map(|x| f16::from_ne_bytes(*x).to_f32()).collect(),
        BF16 => from.as_chunks().0.iter().map(|x| bf16::from_ne_bytes(*x).to_f32()).collect(),
    }
}

/// Noise that the type holds exactly.
fn noise_of(numbers: NumberType, n: usize, seed: u64) -> Vec<f32> {
    floats(numbers, &bytes(numbers, &noise(n, seed)))
}

fn words<const N: usize, W>(from: &[W], to_bytes: impl Fn(&W) -> [u8; N]) -> Memory {
    upload(&from.iter().flat_map(to_bytes).collect::<Vec<u8>>())
}

/// What storing a number changes, as a part of it.
fn unit(numbers: NumberType) -> f64 {
    match numbers {
        F32 => 0.0,
        F16 => 1.0 / 2048.0,
        BF16 => 1.0 / 256.0,
    }
}

/// Half of the smallest number where that is one that counts.
fn least(numbers: NumberType) -> f64 {
    if numbers == F16 { 2f64.powi(-25) } else { 0.0 }
}

#[track_caller]
fn near(numbers: NumberType, ours: f32, exact: f64, off: f64, what: impl FnOnce() -> String) {
    let tolerance = off + unit(numbers) * (exact.abs() + off) + least(numbers);
    assert!((f64::from(ours) - exact).abs() <= tolerance, "{}: {ours}, not {exact} ± {tolerance:e}", what());
}

/// Rows of `width` numbers as rows of `stride`.
fn spread(from: &[f32], width: usize, stride: usize, fill: f32) -> Vec<f32> {
    let mut to = vec![fill; from.len() / width * stride];
    for (to, from) in to.chunks_mut(stride).zip(from.chunks(width)) {
        to[..width].copy_from_slice(from);
    }
    to
}

// ---- Products ----

/// `y = x W^T + b`, with rows of NaN after those of x: no row sees another.
struct Product {
    numbers: NumberType,
    inputs: usize,
    outputs: usize,
    w: Vec<f32>,
    x: Vec<f32>,
    b: Vec<f32>,
    weight: Memory,
    activations: Memory,
    bias: Option<Memory>,
}

impl Product {
    fn new(numbers: NumberType, rows: usize, inputs: usize, outputs: usize, bias: bool) -> Self {
        let w = noise_of(numbers, outputs * inputs, 1);
        let x = noise_of(numbers, rows * inputs, 2);
        let b = noise(outputs, 3).iter().map(|b| if bias { 6.0 * b } else { 0.0 }).collect::<Vec<_>>();
        let stride = padded(inputs);
        let mut padded_w = spread(&w, inputs, stride, 0.0);
        padded_w.resize(outputs.next_multiple_of(WIDE) * stride, 0.0);
        let mut padded_x = spread(&x, inputs, stride, 0.0);
        // Tiles are whole, that of the last row alone, too.
        padded_x.resize((rows + WIDE) * stride, f32::NAN);
        let weight = upload(&bytes(numbers, &padded_w));
        let activations = upload(&bytes(numbers, &padded_x));
        let memory = bias.then(|| upload(&bytes(F32, &b)));
        Self { numbers, inputs, outputs, w, x, b, weight, activations, bias: memory }
    }

    /// Runs a kernel over rows from the `first` on.
    fn run(&self, kernel: Kernel, first: usize, rows: usize, to: MatmulArgs) {
        let row_bytes = padded(self.inputs) * self.numbers.size();
        let arguments = MatmulArgs {
            weight: self.weight.address(),
            bias: self.bias.as_ref().map_or(0, Memory::address),
            x: self.activations.address() + (first * row_bytes) as u64,
            row_bytes: row_bytes as i32,
            rows: rows as i32,
            outputs: self.outputs as i32,
            ..to
        };
        multiply(kernel, self.numbers, &arguments);
    }

    /// The outputs in f32 of rows from the `first` on.
    fn outputs(&self, kernel: Kernel, first: usize, rows: usize) -> Vec<f32> {
        let stride = self.outputs + 3;
        let to = untouched(rows * stride * 4);
        let into = Into::Logits as i32;
        self.run(
            kernel,
            first,
            rows,
            MatmulArgs { y: to.address(), y_stride: stride as i32, into, ..Default::default() },
        );
        within(&to, self.outputs, stride)
    }
}

/// Rows of f32, around which nothing was written.
#[track_caller]
fn within(memory: &Memory, width: usize, stride: usize) -> Vec<f32> {
    let all = download(memory);
    let mut rows = vec![];
    for row in all.chunks(stride * 4) {
        let (inside, outside) = row.split_at(width * 4);
        rows.extend(floats(F32, inside));
        assert!(outside.iter().all(|byte| *byte == UNTOUCHED), "written beyond a row of {width}");
    }
    rows
}

/// The products of rows that are normed already.
fn products() -> impl Iterator<Item = Kernel> {
    NARROW.into_iter().chain([Kernel::Matmul64x64])
}

/// Launches a product.
fn multiply(kernel: Kernel, numbers: NumberType, arguments: &MatmulArgs) {
    let row_bytes = arguments.row_bytes as usize;
    let [rows, outputs] = [arguments.rows, arguments.outputs].map(|n| n as usize);
    // Blocks that go through all outputs share them, whatever their number.
    let tiles = outputs.div_ceil(TILE_OUTPUTS);
    let (tile_rows, down, shared) = match kernel {
        Kernel::Matmul8 | Kernel::Matmul8Deep => (TILE_ROWS, tiles, 0),
        Kernel::Matmul8Normed => (TILE_ROWS, tiles.min(3), normed_shared(row_bytes, arguments.norm_stride as usize)),
        Kernel::Matmul16 => (2 * TILE_ROWS, tiles, 0),
        Kernel::Matmul32 => (4 * TILE_ROWS, tiles, 0),
        Kernel::Matmul64x64 => (64, outputs.div_ceil(64), kernel.most_shared()),
        _ => unreachable!("no product"),
    };
    launch(kernel, numbers, [rows.div_ceil(tile_rows), down, 1], shared, arguments);
}

/// Rows that are normed, and weights and biases of the norm.
fn normed_shared(row_bytes: usize, norm_stride: usize) -> usize {
    TILE_ROWS * (row_bytes + 16) + 2 * norm_stride * 4
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

#[test]
#[cfg_attr(feature = "cuda", ignore = "needs a GPU: --include-ignored")]
fn products_are_right_and_the_same_bits_in_every_kernel_and_for_a_row_alone() {
    // Inputs, outputs, rows. The wide ones have slices of more steps than are loaded ahead.
    let shapes = [
        (1, 1, 1),
        (5, 17, 7),
        (33, 50, 8),
        (100, 70, 9),
        (200, 3, 33),
        (31, 16, 64),
        (65, 65, 65),
        (96, 129, 130),
        (600, 20, 12),
        (1400, 18, 9),
    ];
    for numbers in TYPES {
        for (inputs, outputs, rows) in shapes {
            let product = Product::new(numbers, rows, inputs, outputs, rows % 2 == 0);
            let first = product.outputs(Kernel::Matmul8, 0, rows);
            for (i, y) in first.iter().enumerate() {
                let (row, output) = (i / outputs, i % outputs);
                let (x, w) = (&product.x[row * inputs..][..inputs], &product.w[output * inputs..][..inputs]);
                let terms = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                let b = f64::from(product.b[output]);
                // The slices and the bias are added, too.
                let off = (inputs + 9) as f64 * EPSILON * (terms.clone().map(f64::abs).sum::<f64>() + b.abs());
                near(F32, *y, terms.sum::<f64>() + b, off, || format!("{numbers:?}, {rows} x {inputs}, output {i}"));
            }
            for kernel in products() {
                let what = format!("{kernel:?}, {numbers:?}, {inputs} -> {outputs}");
                assert_eq!(bits(&product.outputs(kernel, 0, rows)), bits(&first), "{what}, {rows} rows");
                for row in (0..rows).step_by(rows.div_ceil(5)) {
                    let alone = product.outputs(kernel, row, 1);
                    assert_eq!(bits(&alone), bits(&first[row * outputs..][..outputs]), "{what}, row {row} alone");
                }
            }
        }
    }
}

#[test]
#[cfg_attr(feature = "cuda", ignore = "needs a GPU: --include-ignored")]
fn outputs_are_added_to_the_residual_stream_or_activated() {
    let (rows, inputs, outputs, stride) = (67, 40, 70, 96);
    for numbers in TYPES {
        let product = Product::new(numbers, rows, inputs, outputs, true);
        let plain = product.outputs(Kernel::Matmul8, 0, rows);
        for kernel in products() {
            let stream = noise(rows * outputs, 4);
            let untouched_f32 = f32::from_ne_bytes([UNTOUCHED; 4]);
            let to = upload(&bytes(F32, &spread(&stream, outputs, stride, untouched_f32)));
            let into = |to: &Memory, into: Into, activation| MatmulArgs {
                y: to.address(),
                y_stride: stride as i32,
                into: into as i32,
                activation,
                ..MatmulArgs::default()
            };
            product.run(kernel, 0, rows, into(&to, Into::Residual, 0));
            let sums: Vec<f32> = stream.iter().zip(&plain).map(|(x, y)| x + y).collect();
            assert_eq!(bits(&within(&to, outputs, stride)), bits(&sums), "{kernel:?}, {numbers:?}");

            for (activation, exact) in ACTIVATIONS.into_iter().enumerate() {
                let to = untouched(rows * stride * numbers.size());
                product.run(kernel, 0, rows, into(&to, Into::Activated, activation as i32));
                let all = download(&to);
                for (row, x) in all.chunks(stride * numbers.size()).zip(plain.chunks(outputs)) {
                    let (inside, outside) = row.split_at(outputs * numbers.size());
                    assert!(outside.iter().all(|byte| *byte == UNTOUCHED), "{kernel:?}, {numbers:?}");
                    for (y, x) in floats(numbers, inside).iter().zip(x) {
                        // Some four operations, of results that are at most 1 and are multiplied by x in the end.
                        let x = f64::from(*x);
                        let what = || format!("{kernel:?}, {numbers:?}, activation {activation} of {x}");
                        near(numbers, *y, exact(x), 8.0 * EPSILON * x.abs(), what);
                    }
                }
            }
        }
    }
}

/// In the order of their numbers in `kernels.cu`.
const ACTIVATIONS: [fn(f64) -> f64; 4] = [
    |x| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()),
    |x| 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
    |x| x.max(0.0),
    |x| x / (1.0 + (-x).exp()),
];

/// By the series whose terms all have one sign.
fn erf(x: f64) -> f64 {
    let next = |term: &f64, n: usize| term * 2.0 * x * x / (2 * n + 1) as f64;
    let terms = (1..200).scan(x, |term, n| Some(std::mem::replace(term, next(term, n))));
    (terms.sum::<f64>() * std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp()).clamp(-1.0, 1.0)
}

/// Where keys, values and queries go, compared byte by byte with all that lies around them.
#[test]
#[cfg_attr(feature = "cuda", ignore = "needs a GPU: --include-ignored")]
fn queries_keys_and_values_go_to_their_places_and_nothing_else_is_written() {
    for numbers in TYPES {
        for ((heads, head_dim), rows) in [((1, 2), 1), ((3, 24), 9), ((1, 64), 65), ((2, 80), 7)] {
            let shape = shape(numbers, heads, head_dim, 100);
            let width = heads * head_dim;
            let product = Product::new(numbers, rows, width, 3 * width, true);
            let plain = bytes(numbers, &product.outputs(Kernel::Matmul8, 0, rows));
            // Any block, any position, no two the same.
            let places: Vec<(usize, usize)> = (0..rows).map(|i| (i * 5 % 3, i * 7 % BLOCK_POSITIONS)).collect();
            let (keys_at, values_at) = shape.layer_at(1);
            let (block_bytes, size) = (shape.block_bytes(), numbers.size());
            let q_stride = heads * shape.key_dim + 8;
            let mut q = vec![UNTOUCHED; rows * q_stride * size];
            let mut blocks = vec![UNTOUCHED; 3 * block_bytes];
            for (i, y) in plain.chunks(size).enumerate() {
                let (row, part, head, d) =
                    (i / (3 * width), i % (3 * width) / width, i % width / head_dim, i % head_dim);
                let (block, position) = places[row];
                let key = keys_at + (head * BLOCK_POSITIONS + position) * shape.key_dim + d;
                let value = values_at + (head * shape.value_dim + d) * BLOCK_POSITIONS + position;
                match part {
                    0 => q[(row * q_stride + head * shape.key_dim + d) * size..][..size].copy_from_slice(y),
                    1 => blocks[block * block_bytes + key * size..][..size].copy_from_slice(y),
                    _ => blocks[block * block_bytes + value * size..][..size].copy_from_slice(y),
                }
            }
            for kernel in products() {
                let [our_q, our_blocks] = [untouched(q.len()), untouched(blocks.len())];
                let address = |block: usize| our_blocks.address() + (block * block_bytes) as u64;
                let block_of_row = words(&places, |place| address(place.0).to_ne_bytes());
                let positions = words(&places, |place| (place.1 as u32).to_ne_bytes());
                let to = cached(&shape, 1, (&our_q, q_stride), &block_of_row, &positions);
                product.run(kernel, 0, rows, to);
                assert!(download(&our_q) == q, "{kernel:?}, {numbers:?}: queries of {heads} x {head_dim}");
                assert!(download(&our_blocks) == blocks, "{kernel:?}, {numbers:?}: cache of {heads} x {head_dim}");
            }
        }
    }
}

/// Two layers of a network.
fn shape(numbers: NumberType, heads: usize, head_dim: usize, positions: usize) -> NetworkShape {
    let config = Config {
        n_embd: heads * head_dim,
        n_head: heads,
        n_layer: 2,
        n_positions: positions,
        ..Config::named("gpt2").unwrap()
    };
    NetworkShape::new(&config, numbers)
}

/// A product to queries and the cache of a layer.
fn cached(
    shape: &NetworkShape,
    layer: usize,
    (q, q_stride): (&Memory, usize),
    blocks: &Memory,
    positions: &Memory,
) -> MatmulArgs {
    let (keys_at, values_at) = shape.layer_at(layer);
    MatmulArgs {
        y: q.address(),
        y_stride: q_stride as i32,
        into: Into::Qkv as i32,
        blocks: blocks.address(),
        positions: positions.address(),
        keys_at: keys_at as i32,
        values_at: values_at as i32,
        heads: shape.heads as i32,
        head_dim: shape.head_dim as i32,
        key_dim: shape.key_dim as i32,
        value_dim: shape.value_dim as i32,
        ..MatmulArgs::default()
    }
}

// ---- Layer norm ----

/// Rows of f32 and a norm.
struct NormedRows {
    width: usize,
    stride: usize,
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    memory: [Memory; 3],
}

/// So large that it tells.
const NORM_EPSILON: f32 = 0.1;

impl NormedRows {
    fn new(rows: usize, width: usize) -> Self {
        let x: Vec<f32> = noise(rows * width, 5).iter().map(|x| 3.0 * x + 0.7).collect();
        let [weight, bias] = [noise(width, 6), noise(width, 7)];
        let stride = padded(width);
        let memory = [&x, &weight, &bias].map(|x| upload(&bytes(F32, &spread(x, width, stride, 0.0))));
        Self { width, stride, x, weight, bias, memory }
    }

    fn norm(&self) -> NormArgs {
        let [_, weight, bias] = self.memory.each_ref().map(Memory::address);
        NormArgs { weight, bias, epsilon: NORM_EPSILON, width: self.width as i32 }
    }

    fn run(
        &self,
        numbers: NumberType,
        norm: NormArgs,
        picked: Option<&[u32]>,
        y: Option<&Memory>,
        exact: Option<&Memory>,
    ) {
        let picks = picked.map(|rows| words(rows, |row| row.to_ne_bytes()));
        let count = picked.map_or(self.x.len() / self.width, <[_]>::len);
        let arguments = NormaliseArgs {
            x: self.memory[0].address(),
            rows: picks.as_ref().map_or(0, Memory::address),
            y: y.map_or(0, Memory::address),
            exact: exact.map_or(0, Memory::address),
            norm,
            x_stride: self.stride as i32,
            y_stride: self.stride as i32,
            exact_stride: self.width as i32,
            count: count as i32,
        };
        launch(Kernel::Normalise, numbers, [count.div_ceil(NORM_WARPS), 1, 1], 0, &arguments);
    }
}

#[test]
#[cfg_attr(feature = "cuda", ignore = "needs a GPU: --include-ignored")]
fn a_layer_norm_of_some_rows_or_all_is_right_in_both_its_results() {
    for numbers in TYPES {
        for (rows, width) in [(1, 1), (2, 2), (7, 33), (9, 100), (4, 129), (5, 333), (3, 1600)] {
            let normed = NormedRows::new(rows, width);
            let backwards: Vec<u32> = (0..rows as u32 + 1).rev().map(|row| row / 2).collect();
            for picked in [None, Some(backwards.as_slice())] {
                let all: Vec<u32> = (0..rows as u32).collect();
                let from = picked.unwrap_or(&all);
                let [y, exact] = [normed.stride * numbers.size(), width * 4].map(|bytes| untouched(from.len() * bytes));
                normed.run(numbers, normed.norm(), picked, Some(&y), Some(&exact));
                let exact = floats(F32, &download(&exact));
                for (i, row) in from.iter().enumerate() {
                    let x = &normed.x[*row as usize * width..][..width];
                    let (expected, off) = norm_in_f64(x, &normed.weight, &normed.bias);
                    for c in 0..width {
                        let what = || format!("{numbers:?}, row {row} of {rows} x {width}, number {c}");
                        near(F32, exact[i * width + c], expected[c], off[c], what);
                    }
                }
                // What is stored is that, rounded and padded with zeros.
                let stored = bytes(numbers, &spread(&exact, width, normed.stride, 0.0));
                assert!(download(&y) == stored, "{numbers:?}, {rows} x {width}");
                // Each result alone, and rows as they are.
                let [y, alone] = [untouched(stored.len()), untouched(from.len() * width * 4)];
                normed.run(numbers, normed.norm(), picked, Some(&y), None);
                normed.run(numbers, normed.norm(), picked, None, Some(&alone));
                assert!(download(&y) == stored && floats(F32, &download(&alone)) == exact);
                let as_they_are = NormArgs { width: width as i32, ..NormArgs::default() };
                let y = untouched(stored.len());
                normed.run(numbers, as_they_are, picked, Some(&y), Some(&alone));
                let x: Vec<f32> =
                    from.iter().flat_map(|row| &normed.x[*row as usize * width..][..width]).copied().collect();
                assert!(download(&y) == spread_untouched(numbers, &x, width, normed.stride));
                assert_eq!(floats(F32, &download(&alone)), x);
            }
        }
    }
}

/// A row's norm, and what sums of `width` numbers and some ten operations may be off by.
fn norm_in_f64(x: &[f32], weight: &[f32], bias: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let n = x.len() as f64;
    let of = |f: &dyn Fn(f64) -> f64| x.iter().map(|x| f(f64::from(*x))).sum::<f64>() / n;
    let (mean, size) = (of(&|x| x), of(&f64::abs));
    let scale = 1.0 / (of(&|x| (x - mean).powi(2)) + f64::from(NORM_EPSILON)).sqrt();
    let numbers = x.iter().zip(weight.iter().zip(bias)).map(|(x, (weight, bias))| {
        let [x, weight, bias] = [*x, *weight, *bias].map(f64::from);
        let normed = (x - mean) * scale * weight;
        // The mean is off by a part of `size`, the scale by a part of itself.
        let off = (n + 10.0) * EPSILON * (normed.abs() + (size * scale * weight).abs() + bias.abs());
        (normed + bias, off)
    });
    numbers.unzip()
}

/// Rows as `numbers` in rows of `stride`, with what was there before between them.
fn spread_untouched(numbers: NumberType, from: &[f32], width: usize, stride: usize) -> Vec<u8> {
    let mut to = vec![UNTOUCHED; from.len() / width * stride * numbers.size()];
    let rows = bytes(numbers, from);
    for (to, from) in to.chunks_mut(stride * numbers.size()).zip(rows.chunks(width * numbers.size())) {
        to[..from.len()].copy_from_slice(from);
    }
    to
}

#[test]
#[cfg_attr(feature = "cuda", ignore = "needs a GPU: --include-ignored")]
fn a_norm_within_a_product_gives_the_bits_of_the_two_apart() {
    for numbers in TYPES {
        for (rows, width, outputs) in
            [(1, 1, 3), (3, 24, 50), (8, 33, 16), (7, 100, 17), (2, 320, 70), (5, 900, 9), (5, 2100, 9)]
        {
            if normed_shared(padded(width) * numbers.size(), padded(width)) > MOST_NORMED_SHARED {
                continue;
            }
            let mut product = Product::new(numbers, rows, width, outputs, true);
            let normed = NormedRows::new(rows, width);
            let row_bytes = normed.stride * numbers.size();
            let y = upload(&vec![0; WIDE * row_bytes]);
            normed.run(numbers, normed.norm(), None, Some(&y), None);
            product.activations = y;
            let apart = product.outputs(Kernel::Matmul8, 0, rows);
            let together = untouched(rows * outputs * 4);
            let arguments = MatmulArgs {
                weight: product.weight.address(),
                bias: product.bias.as_ref().map_or(0, Memory::address),
                x: normed.memory[0].address(),
                y: together.address(),
                norm: normed.norm(),
                norm_stride: normed.stride as i32,
                row_bytes: row_bytes as i32,
                rows: rows as i32,
                outputs: outputs as i32,
                y_stride: outputs as i32,
                into: Into::Logits as i32,
                ..MatmulArgs::default()
            };
            multiply(Kernel::Matmul8Normed, numbers, &arguments);
            assert_eq!(bits(&within(&together, outputs, outputs)), bits(&apart), "{numbers:?}, {rows} x {width}");
        }
    }
}

// ---- Attention ----

/// Attention of layer 1 over blocks.
struct Attend<'a> {
    shape: NetworkShape,
    q: &'a Memory,
    tokens: usize,
    table: &'a Memory,
    /// Blocks of positions that are gone through side by side.
    blocks: usize,
}

const SCALE: f32 = 0.3;

impl Attend<'_> {
    fn run(&self, kernel: Kernel, queries: &[Queries], weights: Option<&Memory>) -> Vec<u8> {
        let shape = &self.shape;
        let (width, most_blocks) = (shape.width, shape.most_blocks());
        let partials = self.tokens * shape.heads * most_blocks;
        // What is read before it is written is NaN.
        let [partial, totals] = [partials * shape.value_dim * 4, partials * 8].map(|bytes| upload(&vec![0xff; bytes]));
        let done = upload(&vec![0; queries.len() * shape.heads * 4]);
        let y = untouched(self.tokens * shape.padded * shape.numbers.size());
        let fields = queries.iter().flat_map(|tile| {
            let Queries { first, count, position, table, weights_at, weights_stride, weights_head, past } = *tile;
            [first, count, position, table, weights_at, weights_stride, weights_head, past]
        });
        let queries_memory = words(&fields.collect::<Vec<_>>(), |field| field.to_ne_bytes());
        let (keys_at, values_at) = shape.layer_at(1);
        let arguments = AttentionArgs {
            q: self.q.address(),
            blocks: self.table.address(),
            queries: queries_memory.address(),
            y: y.address(),
            partial: partial.address(),
            totals: totals.address(),
            done: done.address(),
            weights: weights.map_or(0, Memory::address),
            scale: SCALE,
            q_stride: (shape.heads * shape.key_dim) as i32,
            y_stride: shape.padded as i32,
            most_blocks: most_blocks as i32,
            keys_at: keys_at as i32,
            values_at: values_at as i32,
            heads: shape.heads as i32,
            head_dim: shape.head_dim as i32,
            key_dim: shape.key_dim as i32,
            value_dim: shape.value_dim as i32,
        };
        let deep = match kernel {
            Kernel::AttentionSplit => self.blocks,
            _ => shape.value_dim.div_ceil(MIXED_NUMBERS),
        };
        launch(kernel, shape.numbers, [queries.len(), shape.heads, deep], 0, &arguments);
        assert!(download(&done).iter().all(|byte| *byte == 0), "counters are as they were");
        let mut rows = vec![];
        for row in download(&y).chunks(shape.padded * shape.numbers.size()) {
            let (inside, outside) = row.split_at(width * shape.numbers.size());
            assert!(outside.iter().all(|byte| *byte == UNTOUCHED), "written beyond a row");
            rows.extend_from_slice(inside);
        }
        rows
    }
}

/// New positions of rows: what each had before, and how many come.
type Parts = [(usize, usize)];

/// Tiles of up to so many queries.
fn tiles(shape: &NetworkShape, parts: &Parts, most: usize) -> Vec<Queries> {
    let (mut first, mut weights_at) = (0, 0);
    let mut tiles = vec![];
    for (i, (past, len)) in parts.iter().copied().enumerate() {
        let total = past + len;
        for from in (0..len).step_by(most) {
            tiles.push(Queries {
                first: (first + from) as i32,
                count: most.min(len - from) as i32,
                position: (past + from) as i32,
                table: (i * shape.most_blocks()) as i32,
                weights_at: (weights_at + from * total) as i32,
                weights_stride: total as i32,
                weights_head: (len * total) as i32,
                past: past as i32,
            });
        }
        first += len;
        weights_at += shape.heads * len * total;
    }
    tiles
}

#[test]
#[cfg_attr(feature = "cuda", ignore = "needs a GPU: --include-ignored")]
fn attention_is_right_and_the_same_bits_in_every_kernel_and_for_a_query_alone() {
    let parts = [(0, 1), (0, 7), (3, 8), (60, 9), (63, 1), (64, 1), (126, 3), (150, 33), (0, 65), (198, 5)];
    for numbers in TYPES {
        for (heads, head_dim) in [(3, 2), (2, 24), (1, 64), (2, 80)] {
            attention_is_right(shape(numbers, heads, head_dim, 4 * BLOCK_POSITIONS + 9), &parts);
        }
        // More blocks than are mixed at a time.
        let blocks = 64 * BLOCK_POSITIONS;
        attention_is_right(shape(numbers, 1, 5, blocks + 200), &[(blocks + 130, 3), (blocks - 2, 9), (70, 1)]);
    }
}

fn attention_is_right(shape: NetworkShape, parts: &Parts) {
    let NetworkShape { numbers, heads, head_dim, key_dim, value_dim, .. } = shape;
    let width = heads * head_dim;
    let tokens: usize = parts.iter().map(|(_, len)| len).sum();
    // Large scores, so that blocks weigh differently.
    let q: Vec<f32> = noise_of(numbers, tokens * width, 8).iter().map(|q| 4.0 * q).collect();
    let mut padded_q = spread(&q, head_dim, key_dim, 0.0);
    // Tiles are whole; no query sees what is there.
    padded_q.resize((tokens + 32) * heads * key_dim, f32::NAN);
    let most_blocks = shape.most_blocks();
    let block_numbers = shape.block_bytes() / numbers.size();
    let (keys_at, values_at) = shape.layer_at(1);
    // Each row's blocks, in an order of their own, with the numbers of somebody else where the row has no positions.
    let mut memory = noise_of(numbers, parts.len() * most_blocks * block_numbers, 9);
    let place = |row: usize, block: usize| (row * most_blocks + block) * 7 % (parts.len() * most_blocks);
    let key_at = |row: usize, head: usize, position: usize| {
        let block = place(row, position / BLOCK_POSITIONS) * block_numbers;
        block + keys_at + (head * BLOCK_POSITIONS + position % BLOCK_POSITIONS) * key_dim
    };
    let value_at = |row: usize, head: usize, position: usize, d: usize| {
        let block = place(row, position / BLOCK_POSITIONS) * block_numbers;
        block + values_at + (head * value_dim + d) * BLOCK_POSITIONS + position % BLOCK_POSITIONS
    };
    for (row, head) in (0..parts.len()).flat_map(|row| (0..heads).map(move |head| (row, head))) {
        for position in 0..most_blocks * BLOCK_POSITIONS {
            memory[key_at(row, head, position)..][head_dim..key_dim].fill(0.0);
            (head_dim..value_dim).for_each(|d| memory[value_at(row, head, position, d)] = 0.0);
        }
    }
    let [q_memory, blocks_memory] = [&padded_q, &memory].map(|x| upload(&bytes(numbers, x)));
    let places: Vec<usize> = (0..parts.len() * most_blocks).map(|i| place(i / most_blocks, i % most_blocks)).collect();
    let table =
        words(&places, |i| (blocks_memory.address() + (i * block_numbers * numbers.size()) as u64).to_ne_bytes());
    let needed = parts.iter().map(|(past, len)| (past + len).div_ceil(BLOCK_POSITIONS)).max().unwrap();
    let attend = Attend { shape, q: &q_memory, tokens, table: &table, blocks: needed };
    let probabilities: usize = parts.iter().map(|(past, len)| heads * len * (past + len)).sum();

    let weights = untouched(probabilities * 4);
    let y = attend.run(Kernel::AttentionSplit, &tiles(&shape, parts, 8), Some(&weights));
    let weights = download(&weights);
    for (kernel, most, blocks, traced) in [
        (Kernel::AttentionSplit, 8, needed, false),
        (Kernel::AttentionSplit, 1, needed, true),
        (Kernel::AttentionSplit, 5, most_blocks, true),
        (Kernel::Attention8, 8, 0, false),
        (Kernel::Attention8, 1, 0, false),
        (Kernel::Attention32, 32, 0, false),
        (Kernel::Attention32, 19, 0, false),
        (Kernel::Attention32, 1, 0, false),
    ] {
        let attend = Attend { blocks, ..attend };
        let other = untouched(weights.len());
        let what = format!("{kernel:?}, {numbers:?}, {heads} x {head_dim}, {most} at a time");
        assert!(attend.run(kernel, &tiles(&shape, parts, most), traced.then_some(&other)) == y, "{what}");
        assert!(!traced || download(&other) == weights, "{what}: probabilities");
    }

    let (y, weights) = (floats(numbers, &y), floats(F32, &weights));
    let rows = parts.iter().zip(tiles(&shape, parts, usize::MAX)).enumerate();
    for (row, ((past, len), tile)) in rows {
        for (query, head) in (0..*len).flat_map(|query| (0..heads).map(move |head| (query, head))) {
            let token = tile.first as usize + query;
            let q = &q[(token * heads + head) * head_dim..][..head_dim];
            let (mut scores, mut largest) = (vec![], 0f64);
            for position in 0..=past + query {
                let key = &memory[key_at(row, head, position)..][..head_dim];
                let terms = q.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k) * f64::from(SCALE));
                scores.push(terms.clone().sum::<f64>());
                largest = largest.max(terms.map(f64::abs).sum());
            }
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|score| (score - most).exp()).sum();
            let p: Vec<f64> = scores.iter().map(|score| (score - most).exp() / total).collect();
            // A score is a sum of `head_dim` products, scaled, less the largest, which is one, too. Its exponential is off
            // by as large a part of itself, and so is the sum of them all; both are mixed twice, within a block and of
            // blocks, over all positions.
            let part = EPSILON * (4.0 * (head_dim + 4) as f64 * largest + (2 * p.len() + 32) as f64);
            let what = || format!("{numbers:?}, {heads} x {head_dim}, row {row}, query {query}, head {head}");
            let at = tile.weights_at + head as i32 * tile.weights_head + query as i32 * tile.weights_stride;
            let (ours, later) = weights[at as usize..][..past + len].split_at(p.len());
            for (ours, p) in ours.iter().zip(&p) {
                near(F32, *ours, *p, p * part + f64::from(f32::MIN_POSITIVE), what);
            }
            assert!(later.iter().all(|x| x.to_ne_bytes() == [UNTOUCHED; 4]), "{}: written beyond", what());
            for d in 0..head_dim {
                let values = (0..p.len()).map(|position| f64::from(memory[value_at(row, head, position, d)]));
                let size = |p: f64, value: f64| (p * value).abs();
                let (mut exact, mut sizes, mut all) = (0.0, 0.0, 0.0);
                for (p, value) in p.iter().zip(values) {
                    exact += p * value;
                    sizes += size(*p, value);
                    all += value.abs();
                }
                // Probabilities are stored to be multiplied, before they are divided by a total of at least 1.
                let off = (part + unit(numbers)) * sizes + least(numbers) * all;
                near(numbers, y[token * width + head * head_dim + d], exact, off, || format!("{}, {d}", what()));
            }
        }
    }
}

/// What beams are: row 1 is row 0 with a block of its own at its end, and row 2 read the same by itself.
#[test]
#[cfg_attr(feature = "cuda", ignore = "needs a GPU: --include-ignored")]
fn a_row_with_a_copied_block_attends_to_what_it_holds_and_leaves_the_other_row_alone() {
    for numbers in TYPES {
        let shape = shape(numbers, 3, 4, 100);
        let mut cache = GPU.with(|gpu| Cache::new(gpu, shape));
        let (len, past) = (71, 70);
        let product = Product::new(numbers, len + 1, shape.width, 3 * shape.width, false);
        let q_stride = shape.heads * shape.key_dim;
        let q = upload(&vec![0; (len + 1 + 32) * q_stride * numbers.size()]);
        // Puts tokens from the `first` on into a row.
        let read = |cache: &mut Cache, row, first: usize, len: usize, past: usize| {
            let segment = [Segment { row, first: 0, len, past }];
            cache.rows.reserve(&segment).unwrap();
            let places: Vec<usize> = (past..past + len).collect();
            let address = |at: &usize| cache.rows.memory.address(cache.rows.blocks(row)[at / BLOCK_POSITIONS]);
            let blocks = words(&places, |at| address(at).to_ne_bytes());
            let positions = words(&places, |at| ((at % BLOCK_POSITIONS) as u32).to_ne_bytes());
            let mut to = cached(&shape, 1, (&q, q_stride), &blocks, &positions);
            to.y += (first * q_stride * numbers.size()) as u64;
            product.run(if len > 1 { Kernel::Matmul64x64 } else { Kernel::Matmul8 }, first, len, to);
            cache.rows.commit(&segment);
        };
        // What the query of a token sees from a position of a row on.
        let attend = |cache: &Cache, row, token: usize, position: usize| {
            let table = words(cache.rows.blocks(row), |id| cache.rows.memory.address(*id).to_ne_bytes());
            let attend = Attend { shape, q: &q, tokens: len + 1, table: &table, blocks: 2 };
            let tile = Queries {
                first: token as i32,
                count: 1,
                position: position as i32,
                past: position as i32,
                ..Queries::default()
            };
            let row_bytes = shape.width * numbers.size();
            attend.run(Kernel::AttentionSplit, &[tile], None)[token * row_bytes..][..row_bytes].to_vec()
        };
        read(&mut cache, 0, 0, past, 0);
        let before = attend(&cache, 0, past - 1, past - 1);
        cache.assign(&[(1, 0)]);
        read(&mut cache, 1, past, 1, past);
        assert_eq!(cache.rows.blocks(0)[0], cache.rows.blocks(1)[0]);
        assert_ne!(cache.rows.blocks(0)[1], cache.rows.blocks(1)[1]);
        // Row 0 goes another way.
        read(&mut cache, 0, past + 1, 1, past);
        assert_eq!(attend(&cache, 0, past - 1, past - 1), before, "{numbers:?}");
        assert_eq!(attend(&cache, 1, past - 1, past - 1), before, "{numbers:?}");
        let [other, copied] = [0, 1].map(|row| attend(&cache, row, past, past));
        read(&mut cache, 2, 0, len, 0);
        assert_eq!(copied, attend(&cache, 2, past, past), "{numbers:?}");
        assert_ne!(copied, other, "{numbers:?}: they do not hold the same");
    }
}

// ---- The ends of the network ----

#[test]
#[cfg_attr(feature = "cuda", ignore = "needs a GPU: --include-ignored")]
fn an_embedding_is_the_sum_of_two_rows_and_ranks_begin_at_0() {
    for numbers in TYPES {
        for (width, tokens) in [(1, 1), (33, 7), (300, 9)] {
            let stride = padded(width);
            let tables = [noise_of(numbers, 11 * width, 10), noise_of(numbers, 8 * width, 11)];
            let rows = [(5, 11), (3, 8)].map(|(step, of)| (0..tokens as u32).map(move |i| i * step % of));
            let [wte, wpe] = tables.each_ref().map(|table| upload(&bytes(numbers, &spread(table, width, stride, 0.0))));
            let [ids, positions] = rows.clone().map(|rows| words(&rows.collect::<Vec<_>>(), |id| id.to_ne_bytes()));
            let [x, best] = [tokens * stride * 4, 5 * 8].map(untouched);
            let arguments = EmbedArgs {
                wte: wte.address(),
                wpe: wpe.address(),
                ids: ids.address(),
                positions: positions.address(),
                x: x.address(),
                best: best.address(),
                stride: stride as i32,
                width: width as i32,
                best_count: 3,
                unused: 0,
            };
            launch(Kernel::Embed, numbers, [tokens, 1, 1], 0, &arguments);
            let [ids, positions] = rows;
            let expected = ids.zip(positions).flat_map(|(id, position)| {
                let row = |table: usize, row: u32| &tables[table][row as usize * width..][..width];
                row(0, id).iter().zip(row(1, position)).map(|(a, b)| a + b)
            });
            assert_eq!(within(&x, width, stride), expected.collect::<Vec<_>>(), "{numbers:?}, {width}");
            assert_eq!(download(&best), [[0; 24].as_slice(), &[UNTOUCHED; 16]].concat());
        }
    }
}

#[test]
#[cfg_attr(feature = "cuda", ignore = "needs a GPU: --include-ignored")]
fn a_matrix_of_any_file_is_placed_as_rounding_to_nearest_says() {
    // Ties, what is too large for f16, what is hardly a number, and what is none.
    let special = [
        0.0,
        -0.0,
        1.0 + 1.0 / 2048.0,
        1.0 + 3.0 / 2048.0,
        1.0 + 1.0 / 256.0,
        -1.0 - 3.0 / 256.0,
        65504.0,
        65519.9,
        65520.0,
        -1e30,
        3.4e38,
        6e-8,
        2.98e-8,
        -2.99e-8,
        9.1e-5,
        1e-40,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
    ];
    for (numbers, stored) in TYPES.into_iter().flat_map(|numbers| TYPES.map(|stored| (numbers, stored))) {
        for (outputs, inputs) in [(1, 1), (17, 5), (3, 100), (70, 33)] {
            let mut from = noise(outputs * inputs, 12);
            from.iter_mut().zip(special).for_each(|(x, special)| *x = special);
            let file = bytes(stored, &from);
            let from = floats(stored, &file);
            for transposed in [false, true] {
                let stride = padded(inputs);
                let memory = upload(&file);
                let to = untouched((outputs + 1) * stride * numbers.size());
                let arguments = PlaceArgs {
                    from: memory.address(),
                    to: to.address(),
                    outputs: outputs as i32,
                    inputs: inputs as i32,
                    stride: stride as i32,
                    stored: stored as i32,
                    transposed: i32::from(transposed),
                    unused: 0,
                };
                launch(Kernel::Place, numbers, [(outputs * inputs).div_ceil(PLACE_THREADS), 1, 1], 0, &arguments);
                let all = download(&to);
                let what = format!("{stored:?} to {numbers:?}, {outputs} x {inputs}, transposed: {transposed}");
                for (output, row) in all.chunks(stride * numbers.size()).enumerate() {
                    let (inside, outside) = row.split_at(if output < outputs { inputs * numbers.size() } else { 0 });
                    assert!(outside.iter().all(|byte| *byte == UNTOUCHED), "{what}: written beyond");
                    for (input, ours) in floats(numbers, inside).into_iter().enumerate() {
                        let x = from[if transposed { input * outputs + output } else { output * inputs + input }];
                        let expected = floats(numbers, &bytes(numbers, &[x]))[0];
                        // NaN of any kind.
                        let same = ours.to_bits() == expected.to_bits() || ours.is_nan() && expected.is_nan();
                        assert!(same, "{what}: {x} is {ours}, not {expected}");
                    }
                }
            }
        }
    }
}

#[test]
#[cfg_attr(feature = "cuda", ignore = "needs a GPU: --include-ignored")]
fn the_best_token_is_the_first_of_the_largest_and_none_where_a_logit_is_not_finite() {
    for vocabulary in [1, 2, 31, 33, 1023, 1024, 1025, 5000] {
        let last = vocabulary - 1;
        // Few different numbers: ties between lanes, warps and rounds.
        let few = |seed| noise(vocabulary, seed).iter().map(|x| (3.0 * x).round()).collect::<Vec<f32>>();
        let mut rows: Vec<Vec<f32>> = (0..4).map(|seed| noise(vocabulary, 20 + seed)).collect();
        rows.extend((0..8).map(|seed| few(30 + seed)));
        rows.extend([0.0, -0.0, f32::MIN, f32::MAX, -1e-42].map(|x| vec![x; vocabulary]));
        for at in [0, last / 2, last] {
            for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN] {
                let mut row = few(40 + at as u64);
                row[at] = x;
                rows.push(row.clone());
                // The largest number beside it.
                row[last / 3] = f32::MAX;
                rows.push(row);
            }
        }
        // Zeros of both signs are equal.
        let mut zeros = vec![-1.0; vocabulary];
        (zeros[last], zeros[last / 2]) = (0.0, -0.0);
        rows.extend([zeros, vec![f32::NEG_INFINITY; vocabulary], vec![f32::NAN; vocabulary]]);

        let logits = upload(&bytes(F32, &rows.concat()));
        for blocks in [1, 3, 16] {
            let best = upload(&vec![0; (rows.len() + 1) * 8]);
            let arguments =
                BestArgs { logits: logits.address(), best: best.address(), vocabulary: vocabulary as i32, unused: 0 };
            launch(Kernel::BestTokens, F32, [rows.len(), blocks, 1], 0, &arguments);
            let bytes = download(&best);
            let (ours, beyond) = bytes.split_at(rows.len() * 8);
            assert_eq!(beyond, [0; 8]);
            for (i, (ours, row)) in pass::ids(ours).zip(&rows).enumerate() {
                assert_eq!(ours, best_token(row), "row {i} of {vocabulary}");
            }
        }
    }
}

/// The first of the largest; none if one is not finite.
fn best_token(logits: &[f32]) -> Option<u32> {
    let larger = |best, i: usize| if logits[i] > logits[best] { i } else { best };
    logits.iter().all(|x| x.is_finite()).then(|| (0..logits.len()).fold(0, larger) as u32)
}

/// To the bit: what decoding takes from here is what it would find in the row.
#[test]
#[cfg_attr(feature = "cuda", ignore = "needs a GPU: --include-ignored")]
fn the_most_probable_tokens_and_the_sum_are_those_of_the_host() {
    for (vocabulary, count) in [(1, 1), (7, 7), (90, 64), (1024, 16), (1030, 3), (50257, 18)] {
        let mut rows: Vec<Vec<f32>> =
            (0..3).map(|seed| noise(vocabulary, 60 + seed).iter().map(|x| 9.0 * x - 40.0).collect()).collect();
        // Ties, an outlier beyond which e^x is 0, numbers of one sign and of both zeros.
        rows.push(noise(vocabulary, 70).iter().map(|x| (4.0 * x).round()).collect());
        rows.push(rows[0].clone());
        rows[4][vocabulary / 2] = 200.0;
        rows.push((0..vocabulary).map(|i| if i % 3 == 0 { -0.0 } else { 0.0 }).collect());
        rows.push(rows[1].clone());
        rows[6][vocabulary - 1] = f32::NAN;
        rows.push(rows[1].clone());
        rows[7][0] = f32::NEG_INFINITY;

        let logits = upload(&bytes(F32, &rows.concat()));
        let top_bytes = (1 + count) * 8;
        let top = untouched((rows.len() + 1) * top_bytes);
        let arguments = TopArgs {
            logits: logits.address(),
            top: top.address(),
            vocabulary: vocabulary as i32,
            count: count as i32,
        };
        launch(Kernel::TopTokens, F32, [rows.len(), 1, 1], 0, &arguments);
        let bytes = download(&top);
        let (ours, beyond) = bytes.split_at(rows.len() * top_bytes);
        assert_eq!(beyond, vec![UNTOUCHED; top_bytes]);
        for (i, (ours, row)) in ours.chunks(top_bytes).zip(&rows).enumerate() {
            let (ours, host) = (pass::read_top(ours), Top::of(row, count));
            assert_eq!(ours.is_some(), i < 6, "row {i} of {vocabulary}");
            // -0 comes back as 0, which is equal.
            assert_eq!(ours, host, "row {i} of {vocabulary}");
        }
    }
}

/// In short rows with a peak an exponential that is off by one unit shows in the sum.
#[test]
#[cfg_attr(feature = "cuda", ignore = "needs a GPU: --include-ignored")]
fn the_sums_of_short_rows_are_those_of_the_host() {
    const ROWS: usize = 4000;
    const VOCABULARY: usize = 10;
    let rows: Vec<f32> = noise(ROWS * VOCABULARY, 90).iter().map(|x| 12.0 * x).collect();
    let (logits, top) = (upload(&bytes(F32, &rows)), untouched(ROWS * 16));
    let arguments = TopArgs { logits: logits.address(), top: top.address(), vocabulary: VOCABULARY as i32, count: 1 };
    launch(Kernel::TopTokens, F32, [ROWS, 1, 1], 0, &arguments);
    for (ours, row) in download(&top).chunks(16).zip(rows.chunks(VOCABULARY)) {
        assert_eq!(pass::read_top(ours), Top::of(row, 1), "{row:?}");
    }
}

/// With ties, and a row of NaN.
#[test]
#[cfg_attr(feature = "cuda", ignore = "needs a GPU: --include-ignored")]
fn a_product_of_few_rows_ranks_the_best_tokens_of_the_rows_from_one_on() {
    let (rows, inputs, outputs, from) = (33, 40, 210, 5);
    for numbers in TYPES {
        let mut product = Product::new(numbers, rows, inputs, outputs, false);
        // The same rows again and again.
        let mut w = noise_of(numbers, 30 * inputs, 13).repeat(outputs / 30);
        w.resize(outputs.next_multiple_of(WIDE) * inputs, 0.0);
        product.weight = upload(&bytes(numbers, &spread(&w, inputs, padded(inputs), 0.0)));
        product.x[20 * inputs] = f32::NAN;
        let mut x = spread(&product.x, inputs, padded(inputs), 0.0);
        x.resize(WIDE * padded(inputs), f32::NAN);
        product.activations = upload(&bytes(numbers, &x));
        for kernel in NARROW {
            let [logits, best] = [rows * outputs * 4, (rows - from + 1) * 8].map(|bytes| upload(&vec![0; bytes]));
            let to = MatmulArgs {
                y: logits.address(),
                y_stride: outputs as i32,
                into: Into::Logits as i32,
                best: best.address(),
                best_from: from as i32,
                ..MatmulArgs::default()
            };
            product.run(kernel, 0, rows, to);
            let bytes = download(&best);
            let (ours, beyond) = bytes.split_at((rows - from) * 8);
            assert_eq!(beyond, [0; 8]);
            let logits = floats(F32, &download(&logits));
            let expected = logits.chunks(outputs).skip(from).map(best_token);
            assert!(pass::ids(ours).eq(expected), "{kernel:?}, {numbers:?}");
        }
    }
}
