//! CPU kernels: what the model does on slices of `f32`, in parallel, with the widest vectors the processor has.
//!
//! Every kernel computes an output number by one fixed chain of operations that depends on that output's own inputs
//! alone: not on the number of rows in the batch, on how the work is split over threads, or on where a prompt was
//! split. So a row gives the same bits alone, in a batch, and with or without the cache.
//!
//! The reference of each kernel is the plain candle expression, kept in its test. `unsafe` lives here: vector
//! instructions that were detected before use, and disjoint parts of one output written by several threads.
//!
//! Valgrind finds nothing in their tests (it knows no AVX-512): `GPT2_SIMD=avx2 valgrind -q --error-exitcode=1
//! target/release/deps/gpt2-HASH kernels --test-threads 1`, the program being what `cargo test --release --lib
//! --no-run` names; `GPT2_SIMD=portable` likewise.

mod activation;
mod attention;
mod bandwidth;
mod matmul;
mod norm;
pub mod quantized;
mod simd;
mod stored;
mod weight;

pub use activation::activate;
pub use attention::{Batch, CacheMemory, CacheShape, PAGE_POSITIONS, PageId, append, attend};
pub use bandwidth::memory_bandwidth;
pub use matmul::{Epilogue, Matrix, panels};
pub use norm::layer_norm;
pub use simd::level;
pub use weight::Weight;

/// Numbers for tests, spread evenly over -1..1: a multiplicative congruence, different for each `seed`.
#[cfg(test)]
fn test_numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    })
    .take(n)
    .collect()
}
