//! The ground floor: number types, bytes, memory and threads. Checkpoints, kernels and the network stand on it; it
//! knows nothing of them.

mod bytes;
mod dtype;
pub mod ggml;
pub(crate) mod pages;
pub mod pool;

pub use bytes::Bytes;
pub use dtype::{DType, FloatType, QuantizedType};
