//! The ground floor: number types, bytes, memory and threads. Checkpoints, kernels and the network stand on it; it
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
pub mod pool;

pub use bytes::Bytes;
pub use dtype::{DType, FloatType, QuantizedType};
