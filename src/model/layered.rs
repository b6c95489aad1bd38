//! The network as layers that hide where they compute: on the kernels of the CPU, or on one of candle's devices.

use candle_core::Tensor;

use super::block::Block;
use super::cache::{KvCache, Segment};
use super::device::Place;
use super::layers::{Embedding, LayerNorm, Linear};
use super::{Trace, with_slice};
use crate::base::{DType, FloatType};
use crate::config::Config;
use crate::error::Result;
use crate::logits;

/// Embeddings, blocks and head. Field names are the checkpoint's.
#[derive(Debug)]
pub(super) struct Layered {
    /// None: the CPU's kernels.
    pub place: Option<Place>,
    /// The type of keys and values in the cache of the CPU.
    pub cache_type: FloatType,
    pub wte: Embedding,
    pub wpe: Embedding,
    pub h: Vec<Block>,
    pub ln_f: LayerNorm,
    pub lm_head: Linear,
}

impl Layered {
    /// An empty cache.
    pub fn new_cache(&self, config: &Config) -> KvCache {
        KvCache::new(config, self.cache_type, self.place.as_ref())
    }

    /// Bytes of a number in the cache.
    pub fn cached_size(&self) -> usize {
        self.place.as_ref().map_or(self.cache_type.size(), |place| place.dtype.size_in_bytes())
    }

    /// What [`super::Gpt2::forward`] says, of inputs that it has checked.
    pub fn forward(
        &self,
        inputs: &[(usize, &[u32])],
        cache: &mut KvCache,
        mut trace: Option<&mut Trace>,
    ) -> Result<Tensor> {
        let segments = cache.reserve(inputs)?;
        let mut x = self.embed(inputs, &segments)?;
        if let Some(trace) = trace.as_deref_mut() {
            trace.embed = Some(x.clone());
        }
        for (layer, block) in self.h.iter().enumerate() {
            x = block.forward(&x, layer, &segments, cache, trace.as_deref_mut())?;
        }
        cache.commit(&segments);
        Ok(x)
    }

    /// Token plus position embeddings, (N, C).
    fn embed(&self, inputs: &[(usize, &[u32])], segments: &[Segment]) -> Result<Tensor> {
        let ids: Vec<u32> = inputs.iter().flat_map(|(_, ids)| *ids).copied().collect();
        let positions: Vec<u32> = segments.iter().flat_map(|s| s.past..s.total()).map(|at| at as u32).collect();
        Ok((self.wte.forward(&ids)? + self.wpe.forward(&positions)?)?)
    }

    /// Normed hidden states (N, C) -> logits (N, V), in f32.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(self.lm_head.forward(hidden)?.to_dtype(FloatType::F32.candle())?)
    }

    /// What [`super::Gpt2::best_tokens`] says.
    pub fn best_tokens(&self, logits: &Tensor) -> Result<Vec<Option<u32>>> {
        if let Some(place) = &self.place {
            return place.best_tokens(logits);
        }
        let vocabulary = logits.dim(1)?;
        let best = |row: &[f32]| logits::check_finite(row).is_ok().then(|| logits::argmax(row) as u32);
        with_slice(logits, |logits| logits.chunks_exact(vocabulary).map(best).collect())
    }

    /// Type and bytes of each matrix: those of the blocks, the embeddings, and the head, which may be an embedding.
    pub fn stored(&self) -> Stored {
        let blocks = self.h.iter().flat_map(|block| {
            [&block.attn.c_attn, &block.attn.c_proj, &block.mlp.c_fc, &block.mlp.c_proj].map(Linear::stored)
        });
        Stored {
            blocks: blocks.collect(),
            embeddings: vec![self.wte.stored(), self.wpe.stored()],
            head: self.lm_head.stored(),
        }
    }
}

/// Type and bytes of the matrices.
pub(super) struct Stored {
    pub blocks: Vec<(DType, usize)>,
    pub embeddings: Vec<(DType, usize)>,
    pub head: (DType, usize),
}
