//! The ground floor: number types, bytes, memory and threads. It knows nothing of checkpoints, kernels or the network, which
//! all stand on it.

mod bytes;
mod dtype;
pub mod ggml;
pub(crate) mod pages;
pub mod pool;

pub use bytes::Bytes;
pub use dtype::{DType, FloatType, QuantizedType};
