//! The network's parts on the CPU, over this library's kernels. Tensors hold f32, contiguous, in main memory.

mod arena;
mod attention;
mod cache;
mod layers;

pub(super) use cache::Cache;
pub(super) use layers::{Embedding, LayerNorm, Linear};
