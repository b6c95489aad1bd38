//! The network's parts on the CPU, over this library's kernels. Tensors hold f32, contiguous, in main memory.

mod attention;
mod cache;
mod layers;
mod memory;

pub(super) use cache::Cache;
pub(super) use layers::{Embedding, LayerNorm, Linear};
