//! The ground floor: number types, bytes, vectors, memory and threads. Checkpoints, kernels and the network stand on it; it
//! knows nothing of them.

mod bytes;
#[cfg(feature = "tokenizers")]
pub(crate) mod clock;
mod dtype;
pub(crate) mod foreign;
pub mod ggml;
pub mod math;
pub(crate) mod memory;
pub(crate) mod pages;
pub mod panels;
pub mod pool;
pub(crate) mod simd;

pub use bytes::Bytes;
pub use dtype::{DType, FloatType, QuantizedType};

/// Numbers for tests, spread evenly over -1..1: a multiplicative congruence, different for each `seed`.
#[cfg(test)]
pub(crate) fn test_numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    })
    .take(n)
    .collect()
}
