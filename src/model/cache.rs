//! The keys and values of past positions, by row, and the attention over them. How they are kept is the device's matter.

use candle_core::Tensor;

#[cfg(cuda_kernels)]
use super::cuda;
use super::device::{self, Place};
use super::host;
use crate::base::FloatType;
use crate::config::Config;
use crate::error::Result;

/// A cache for any number of rows; a row comes into being, empty, when it is first named.
#[derive(Debug)]
pub struct KvCache(Store);

#[derive(Debug)]
enum Store {
    Host(host::Cache),
    Device(device::Cache),
    #[cfg(cuda_kernels)]
    Cuda(Box<cuda::Cache>),
}

/// The new positions of one row in a batch.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    /// The row.
    pub row: usize,
    /// The first of its new positions among those of the batch.
    pub first: usize,
    /// `T`, its new positions.
    pub len: usize,
    /// Positions that the row held before.
    pub past: usize,
}

impl Segment {
    /// `S`, positions after the pass.
    #[must_use]
    pub fn total(&self) -> usize {
        self.past + self.len
    }
}

impl KvCache {
    /// An empty cache, which the CPU keeps as `dtype`, a device as it has activations.
    pub(super) fn new(config: &Config, dtype: FloatType, place: Option<&Place>) -> Self {
        Self(match place {
            None => Store::Host(host::Cache::new(config, dtype)),
            Some(place) => Store::Device(device::Cache::new(config, place)),
        })
    }

    /// The cache of a GPU.
    #[cfg(cuda_kernels)]
    pub(super) fn of_cuda(cache: cuda::Cache) -> Self {
        Self(Store::Cuda(Box::new(cache)))
    }

    /// The cache of a GPU; an error if another model made this one.
    #[cfg(cuda_kernels)]
    pub(super) fn as_cuda(&mut self) -> Result<&mut cuda::Cache> {
        match &mut self.0 {
            Store::Cuda(cache) => Ok(cache),
            _ => Err(crate::Error::Usage("the cache belongs to a model on another device".into())),
        }
    }

    /// Positions that `row` holds.
    #[must_use]
    pub fn len(&self, row: usize) -> usize {
        match &self.0 {
            Store::Host(cache) => cache.len(row),
            Store::Device(cache) => cache.len(row),
            #[cfg(cuda_kernels)]
            Store::Cuda(cache) => cache.len(row),
        }
    }

    /// Drops the positions of `row` from `len` on.
    pub fn truncate(&mut self, row: usize, len: usize) {
        match &mut self.0 {
            Store::Host(cache) => cache.truncate(row, len),
            Store::Device(cache) => cache.truncate(row, len),
            #[cfg(cuda_kernels)]
            Store::Cuda(cache) => cache.truncate(row, len),
        }
    }

    /// Makes each `to` hold what `from` held before the call; `moves` are `(to, from)`.
    pub fn assign(&mut self, moves: &[(usize, usize)]) {
        match &mut self.0 {
            Store::Host(cache) => cache.assign(moves),
            Store::Device(cache) => cache.assign(moves),
            #[cfg(cuda_kernels)]
            Store::Cuda(cache) => cache.assign(moves),
        }
    }

    /// Makes room for the new positions of `inputs`, `(row, ids)`; lengths change only with [`commit`](Self::commit).
    pub(super) fn reserve(&mut self, inputs: &[(usize, &[u32])]) -> Result<Vec<Segment>> {
        let mut first = 0;
        let segments = inputs.iter().map(|(row, ids)| {
            let segment = Segment { row: *row, first, len: ids.len(), past: self.len(*row) };
            first += ids.len();
            segment
        });
        let segments: Vec<Segment> = segments.collect();
        match &mut self.0 {
            Store::Host(cache) => cache.reserve(&segments)?,
            Store::Device(cache) => cache.reserve(&segments)?,
            #[cfg(cuda_kernels)]
            Store::Cuda(cache) => cache.rows.reserve(&segments)?,
        }
        Ok(segments)
    }

    /// The new positions are there, in every layer.
    pub(super) fn commit(&mut self, segments: &[Segment]) {
        match &mut self.0 {
            Store::Host(cache) => cache.commit(segments),
            Store::Device(cache) => cache.commit(segments),
            #[cfg(cuda_kernels)]
            Store::Cuda(cache) => cache.rows.commit(segments),
        }
    }

    /// Causal attention of layer `layer`: queries, keys and values (N, 3C) of the reserved positions -> mixed values
    /// (N, C), scores multiplied by `scale`. If `traced`, also the weights (H, T, S) of each segment.
    pub(super) fn attend(
        &mut self,
        layer: usize,
        scale: f32,
        qkv: &Tensor,
        segments: &[Segment],
        traced: bool,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        match &mut self.0 {
            Store::Host(cache) => cache.attend(layer, scale, qkv, segments, traced),
            Store::Device(cache) => cache.attend(layer, scale, qkv, traced),
            #[cfg(cuda_kernels)]
            Store::Cuda(_) => Err(crate::Error::Usage("the cache belongs to a model on another device".into())),
        }
    }
}
