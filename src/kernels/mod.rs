//! CPU kernels: what the model does on slices of `f32`, in parallel, with the widest vectors the processor has.
//!
//! Every kernel computes an output number by one fixed chain of operations that depends on that output's own inputs
//! alone: not on the number of rows in the batch, on how the work is split over threads, or on where a prompt was
//! split. So a row gives the same bits alone, in a batch, and with or without the cache.
//!
//! The reference of each kernel is the plain candle expression, kept in its test.
//!
//! A kernel is written once and runs at the instruction set in use (`base::simd`); arithmetic and loads are safe there. `unsafe`
//! is left where several threads write parts of one output (`share`, `attention`), where the cache's memory is cut into
//! pages, where a level's instructions are, and where a bound check was measured to cost: those say how much.
//!
//! # Glossary
//! Each word means one thing in these modules.
//!
//! - *Level*: an instruction set that kernels may use, in the order of `base::simd::Level`.
//! - *Vector*: 16 lanes, at every level. *Tile*: some rows of activations times some outputs, whose sums stay in vector
//!   registers while inputs go past. (Intel's own word for the registers of AMX is the same; here it is a *matrix unit*.)
//! - *Panel*: outputs whose weights are packed together, input by input: 48 of a float matrix, 16 of a quantised one, of
//!   which a *pair* is multiplied together.
//! - *Part*: some inputs of a panel, few enough for the L1 cache: 128 of floats, 512 quantised.
//! - *Block*: what a quantised format stores as a unit, 32 or 256 weights of one output with their scales (ggml's word).
//! - *Group*: inputs of a quantised matrix that share one scale, 16 or 32. *Chunk*: 32 inputs, of which the activations
//!   share one scale.
//! - *Page*: 16 positions of the cache, of all layers.
//! - *Share*: what one thread takes at a time.
//!
//! Valgrind finds nothing in their tests (it knows no AVX-512): `GPT2_SIMD=avx2 valgrind -q --error-exitcode=1
//! target/release/deps/gpt2-HASH kernels --test-threads 1`, the program being what `cargo test --release --lib
//! --no-run` names; `GPT2_SIMD=baseline` likewise.

mod activation;
mod attention;
mod bandwidth;
mod float;
mod norm;
mod product;
pub mod quantized;
mod scores;
mod share;
mod stored;
mod weight;

use crate::base::simd;
#[cfg(test)]
use crate::base::test_numbers;

pub use activation::{activate, add};
pub use attention::{Batch, CacheMemory, CacheShape, PAGE_POSITIONS, PageId, append, attend};
pub use bandwidth::memory_bandwidth;
pub use float::{Layout, Matrix, panels};
pub use norm::layer_norm;
pub use product::Epilogue;
pub use scores::scores;
pub use simd::{asked_level, level};
pub use weight::Weight;
