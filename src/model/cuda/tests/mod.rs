//! Each kernel against plain loops in f64 over the same numbers, and against other kernels that promise the same bits:
//! on the CPU in builds with `emulator`, on the first GPU in builds with `cuda`.
//!
//! Tolerances are derived bounds on rounding errors, not observations:
//! - A sum of n numbers in f32, in any order, is off by at most n [`EPSILON`] of the sum of their absolute values; so is one
//!   of n products.
//! - A number that is stored in 16 bits is off by [`unit`] of itself, or in f16 by half of the smallest number.
//! - tanh, erf and exp are off by two units in the last place.

mod attention;
mod ends;
mod norm;
mod products;

use std::mem::ManuallyDrop;

use half::{bf16, f16};

use super::arguments::{
    Arguments, AttentionArgs, BestArgs, CachedArgs, EmbedArgs, Into, MatmulArgs, NormArgs, NormaliseArgs, PlaceArgs,
    Queries, TopArgs,
};
use super::cache::Cache;
use super::gpu::{Gpu, Memory};
use super::kernel::{
    Kernel, MIXED_NUMBERS, MOST_NORMED_SHARED, NORM_WARPS, PAGE_POSITIONS, TILE_OUTPUTS, TILE_ROWS, prompt_queries,
};
use super::shape::{NetworkShape, WIDE, padded};
use super::{PLACE_THREADS, pass};
use crate::base::FloatType;
use crate::config::Config;
use crate::logits::Top;
use crate::model::Segment;
use FloatType::{BF16, F16, F32};

const TYPES: [FloatType; 3] = [F32, F16, BF16];

/// Products of few rows that are already normed.
const NARROW: [Kernel; 4] = [Kernel::Matmul8, Kernel::Matmul8Deep, Kernel::Matmul16, Kernel::Matmul32];

/// The error of an f32 operation: twice that of rounding to nearest, as tensor cores truncate.
const EPSILON: f64 = 1.0 / (1 << 23) as f64;

/// Fills memory that kernels write to, and must still be there everywhere else.
const UNTOUCHED: u8 = 0x55;

// ---- The device ----

thread_local! {
    /// Each test has its own thread and so its own device, which lives until the process ends: a thread's destructors
    /// must not call a driver.
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

fn launch(kernel: Kernel, numbers: FloatType, grid: [usize; 3], shared: usize, arguments: &impl Arguments) {
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

fn bytes(numbers: FloatType, from: &[f32]) -> Vec<u8> {
    match numbers {
        F32 => from.iter().flat_map(|x| x.to_ne_bytes()).collect(),
        F16 => from.iter().flat_map(|x| f16::from_f32(*x).to_ne_bytes()).collect(),
        BF16 => from.iter().flat_map(|x| bf16::from_f32(*x).to_ne_bytes()).collect(),
    }
}

fn floats(numbers: FloatType, from: &[u8]) -> Vec<f32> {
    match numbers {
        F32 => from.as_chunks().0.iter().map(|x| f32::from_ne_bytes(*x)).collect(),
        F16 => from.as_chunks().0.iter().map(|x| f16::from_ne_bytes(*x).to_f32()).collect(),
        BF16 => from.as_chunks().0.iter().map(|x| bf16::from_ne_bytes(*x).to_f32()).collect(),
    }
}

/// Noise that the type represents exactly.
fn noise_of(numbers: FloatType, n: usize, seed: u64) -> Vec<f32> {
    floats(numbers, &bytes(numbers, &noise(n, seed)))
}

fn words<const N: usize, W>(from: &[W], to_bytes: impl Fn(&W) -> [u8; N]) -> Memory {
    upload(&from.iter().flat_map(to_bytes).collect::<Vec<u8>>())
}

/// Where an input of an output is in a matrix in fragments, in numbers, as its format is described in `kernels`: for
/// each 16 outputs, for each 64 bytes of inputs, two fragments of 16 bytes for each of 32 lanes. Lane 4g + t has, of the
/// 64 bytes, the 16 at 16t of outputs g and g + 8: in f32 one after the other, in 16 bits in turns, two numbers at a time.
fn fragment_at(numbers: FloatType, output: usize, input: usize, stride: usize) -> usize {
    let (step, own) = (64 / numbers.size(), 16 / numbers.size());
    let (g, lower) = (output % 8, output % 16 / 8);
    let (t, i) = (input % step / own, input % own);
    let of_lane = match numbers {
        F32 => lower * own + i,
        F16 | BF16 => [[0, 1, 4, 5, 8, 9, 12, 13], [2, 3, 6, 7, 10, 11, 14, 15]][lower][i],
    };
    let (fragment, at) = (of_lane / own, of_lane % own);
    output / 16 * 16 * stride + input / step * 16 * step + fragment * 32 * own + (4 * g + t) * own + at
}

/// Rows of `inputs` numbers as a matrix in fragments, with zero padding.
fn in_fragments(numbers: FloatType, from: &[f32], inputs: usize) -> Vec<u8> {
    let (outputs, stride) = (from.len() / inputs, padded(inputs));
    let mut to = vec![0.0; outputs.next_multiple_of(WIDE) * stride];
    for (i, x) in from.iter().enumerate() {
        to[fragment_at(numbers, i / inputs, i % inputs, stride)] = *x;
    }
    bytes(numbers, &to)
}

/// The relative error of storing a number.
fn unit(numbers: FloatType) -> f64 {
    match numbers {
        F32 => 0.0,
        F16 => 1.0 / 2048.0,
        BF16 => 1.0 / 256.0,
    }
}

/// Half of the smallest number, where that matters.
fn least(numbers: FloatType) -> f64 {
    if numbers == F16 { 2f64.powi(-25) } else { 0.0 }
}

#[track_caller]
fn near(numbers: FloatType, ours: f32, exact: f64, off: f64, what: impl FnOnce() -> String) {
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
