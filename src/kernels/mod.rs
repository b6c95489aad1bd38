//! CPU kernels: what the model does on slices of `f32`, in parallel, with the widest vectors the processor has.
//!
//! Every kernel computes an output number by one fixed chain of operations that depends on that output's own inputs
//! alone: not on the number of rows in the batch, on how the work is split over threads, or on where a prompt was split.
//! So a row gives the same bits alone, in a batch, and with or without the cache.
//!
//! The reference of each kernel is the plain candle expression, kept in its test. `unsafe` lives here: vector
//! instructions that were detected before use, and disjoint parts of one output written by several threads.

mod activation;
mod attention;
mod matmul;
mod norm;
pub mod pool;
mod simd;

pub use activation::activate;
pub use attention::{AttentionShape, BLOCK_POSITIONS, Query, append, attend};
pub use matmul::{Epilogue, FloatType, Layout, Matrix, matmul};
pub use norm::layer_norm;
pub use simd::level;
