//! The network: GPT-2 as in `modeling_gpt2.py`, from ids to logits.
//!
//! [`Gpt2`] holds the weights and never changes; the state of a run is in its [`KvCache`]. There is one
//! [`forward`](Gpt2::forward), for one row or many, for a prompt or a single token, traced or not. It takes a ragged
//! batch: the new tokens of all rows concatenated, (N, C), so no row is padded.
//!
//! | module | holds |
//! |---|---|
//! | `network` | the seam: what a backend provides |
//! | `host` | the network on this library's CPU kernels |
//! | `candle` | the network as candle operations, for candle's devices |
//! | `cuda` | the network on an NVIDIA GPU, with its own kernels |
//! | `edits`, `trace` | changes of activations on the way, and records of them |
//! | `load`, `loader`, `weights` | from a checkpoint to a model |
//! | `identity` | what tells models apart that compute different numbers |
//! | `paging` | rows in pages, for the caches of `host` and `cuda` |
//!
//! Reference: transformers 5.23.0, `models/gpt2/modeling_gpt2.py`.

mod candle;
#[cfg(cuda_kernels)]
mod cuda;
#[cfg_attr(not(cuda_kernels), expect(dead_code, reason = "only the kernels need these addresses"))]
pub(crate) mod cuda_shape;
mod edits;
mod host;
mod identity;
mod load;
mod loader;
mod network;
mod paging;
mod random;
mod session;
mod trace;
mod weights;

use std::sync::Arc;

use candle_core::{DType, Tensor};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::language_model::{Input, MOST_TOP, Output, Room};
pub use edits::{Change, Edit, Edits};
use edits::{Hooks, Start};
pub use identity::{identity, settled};
pub use load::LoadOptions;
use network::Network;
pub use network::{KvCache, Segment};
pub use session::Session;
pub use trace::{Hook, HookPoint, Recorder, Trace};
pub(crate) use weights::Placement;
pub use weights::{Packing, WeightType};

/// GPT-2 with its weights, which clones share.
#[derive(Debug, Clone)]
pub struct Gpt2 {
    config: Config,
    network: Arc<dyn Network>,
    edits: Edits,
}

impl Gpt2 {
    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// An empty cache for this model.
    #[must_use]
    pub fn new_cache(&self) -> KvCache {
        KvCache::new(self.network.new_cache())
    }

    /// Bytes of one position's keys and values.
    #[must_use]
    pub fn cache_bytes_per_position(&self) -> usize {
        self.network.cache_bytes_per_position()
    }

    /// What runs take of the memory, and how much is left of it now.
    #[must_use]
    pub fn room(&self) -> Room {
        self.network.room()
    }

    /// Runs the blocks over new tokens. `inputs` are `(row, ids)`; the ids of a row follow its positions in the cache.
    /// Returns the residual stream after the last block, (N, C), where N is the number of ids of all inputs, in their
    /// order.
    ///
    /// Afterwards the cache holds the new positions; after an error it is unchanged.
    ///
    /// # Errors
    /// [`Error::Context`] if a row would outgrow the context; [`Error::Usage`] if an id is outside the vocabulary, an
    /// input is empty, or a row is named twice.
    pub fn forward(
        &self,
        inputs: &[(usize, &[u32])],
        cache: &mut KvCache,
        trace: Option<&mut dyn Recorder>,
    ) -> Result<Tensor> {
        self.check(inputs.iter().copied(), cache)?;
        let trace = trace.map(|trace| trace as &mut dyn Recorder);
        self.network.forward(inputs, cache, Hooks { edits: &self.edits, trace }, None)
    }

    /// Runs the blocks from `layer` on over new tokens, given the residual stream before that block, `residual` (N, C),
    /// instead of their embeddings: what changes of that layer and later ones lead to, without the layers below. The
    /// `edits` take the place of the model's own. Returns what [`forward`](Self::forward) does; the rows stay as they
    /// were.
    ///
    /// # Errors
    /// Those of [`forward`](Self::forward); [`Error::Usage`] for a layer or a residual stream that does not fit.
    pub fn forward_from(
        &self,
        (layer, residual): (usize, &Tensor),
        inputs: &[(usize, &[u32])],
        cache: &mut KvCache,
        edits: &Edits,
    ) -> Result<Tensor> {
        self.check(inputs.iter().copied(), cache)?;
        let positions: usize = inputs.iter().map(|(_, ids)| ids.len()).sum();
        if layer >= self.config.n_layer || residual.dims() != [positions, self.config.n_embd] {
            return Err(Error::Usage(format!(
                "{:?} numbers cannot be the residual stream of {positions} positions before layer {layer}",
                residual.dims()
            )));
        }
        let before: Vec<(usize, usize)> = inputs.iter().map(|(row, _)| (*row, cache.len(*row))).collect();
        let x = self.network.forward(inputs, cache, Hooks { edits, trace: None }, Some(Start { layer, residual }))?;
        before.into_iter().for_each(|(row, len)| cache.truncate(row, len));
        Ok(x)
    }

    /// The same model with its activations changed as it runs; these changes replace earlier ones.
    #[must_use]
    pub fn with_edits(&self, edits: Edits) -> Self {
        Self { edits, ..self.clone() }
    }

    /// The embeddings of tokens and of their positions, from `first` on: (N, C) each. Their sum is where the residual
    /// stream begins.
    ///
    /// # Errors
    /// If the device fails, or has kernels that do not keep the two apart.
    pub fn embeddings(&self, ids: &[u32], first: usize) -> Result<[Tensor; 2]> {
        self.check(std::iter::once((0, ids)), &self.new_cache())?;
        self.network.embeddings(ids, first)
    }

    /// What attention adds to the residual stream for values `z` mixed by its heads: `c_proj` of a layer, (N, C) -> (N, C),
    /// bias included.
    ///
    /// # Errors
    /// If the device fails, or has kernels that do not do this alone.
    pub fn attention_output(&self, layer: usize, z: &Tensor) -> Result<Tensor> {
        self.network.attention_output(layer, z)
    }

    /// Weight and bias of the final norm, (C) each.
    ///
    /// # Errors
    /// If they cannot be copied from the device.
    pub fn final_norm_weights(&self) -> Result<[Vec<f32>; 2]> {
        self.network.final_norm_weights()
    }

    /// The rows of the output head: what a normed hidden state is multiplied with for the logits of these tokens, (N, C).
    ///
    /// # Errors
    /// [`Error::Usage`] if an id is outside the vocabulary; if the device fails, or has kernels that do not give them out.
    pub fn head_rows(&self, ids: &[u32]) -> Result<Tensor> {
        ids.iter().try_for_each(|id| self.check_id(*id))?;
        self.network.head_rows(ids)
    }

    /// Whether the activations at a point are changed.
    pub(crate) fn is_edited(&self, point: HookPoint) -> bool {
        self.edits.at(point.layer, point.hook).next().is_some()
    }

    /// Runs the whole network over new tokens and returns the outputs that each input asks for.
    ///
    /// # Errors
    /// Those of [`forward`](Self::forward).
    fn run(&self, inputs: &[Input<'_>], cache: &mut KvCache) -> Result<Output> {
        if let Some(input) = inputs.iter().find(|input| input.top > MOST_TOP) {
            return Err(Error::Usage(format!(
                "{} most probable tokens are too many; at most {MOST_TOP} can be asked for",
                input.top
            )));
        }
        self.check(inputs.iter().map(|input| (input.row, input.ids)), cache)?;
        self.network.run(inputs, cache, &self.edits)
    }

    /// The final norm: (N, C) -> (N, C).
    ///
    /// # Errors
    /// If the device fails.
    pub fn final_norm(&self, x: &Tensor) -> Result<Tensor> {
        self.network.final_norm(x)
    }

    /// The output head: normed hidden states (N, C) -> logits (N, V), in f32.
    ///
    /// # Errors
    /// If the device fails.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.network.logits(hidden)
    }

    /// The same into `logits`, which takes that length: many positions are read a few at a time, and new memory for each
    /// few costs as much as a tenth of their products.
    ///
    /// # Errors
    /// If the device fails, or the memory is not there.
    pub fn logits_into(&self, hidden: &Tensor, logits: &mut Vec<f32>) -> Result<()> {
        self.network.logits_into(hidden, logits)
    }

    /// The most probable token of each row of logits (N, V), the first of equals; `None` for a row that is not finite.
    /// Computed where the logits are.
    ///
    /// # Errors
    /// If the device fails.
    pub fn best_tokens(&self, logits: &Tensor) -> Result<Vec<Option<u32>>> {
        self.network.best_tokens(logits)
    }

    fn check<'i>(&self, inputs: impl Iterator<Item = (usize, &'i [u32])> + Clone, cache: &KvCache) -> Result<()> {
        let context = self.config.n_positions;
        for (i, (row, ids)) in inputs.clone().enumerate() {
            if ids.is_empty() {
                return Err(Error::Usage(format!("row {row} has no tokens to run")));
            }
            if inputs.clone().take(i).any(|(other, _)| other == row) {
                return Err(Error::Usage(format!("row {row} is named twice in one pass")));
            }
            ids.iter().try_for_each(|id| self.check_id(*id))?;
            let length = cache.len(row) + ids.len();
            if length > context {
                return Err(Error::Context { tokens: length, context });
            }
        }
        Ok(())
    }

    fn check_id(&self, id: u32) -> Result<()> {
        let vocabulary = self.config.vocab_size;
        if id as usize >= vocabulary {
            return Err(Error::Usage(format!(
                "token id {id} is outside the vocabulary of {vocabulary} (0 to {})",
                vocabulary - 1
            )));
        }
        Ok(())
    }
}

/// Calls `f` on the numbers of a tensor in row-major order: in place, or on a copy if they are not f32 in main memory.
pub(crate) fn with_slice<R>(x: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    if !x.device().is_cpu() || x.dtype() != DType::F32 || !x.is_contiguous() {
        return Ok(f(&to_host(x)?));
    }
    let (storage, layout) = x.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (candle_core::Storage::Cpu(storage), Some((from, to))) => Ok(f(&storage.as_slice::<f32>()?[from..to])),
        _ => Err(candle_core::Error::msg("expected a contiguous tensor in main memory").into()),
    }
}

/// The numbers of a tensor on the host, in row-major order.
///
/// # Errors
/// If they cannot be copied from the device.
pub fn to_host(x: &Tensor) -> Result<Vec<f32>> {
    Ok(x.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

/// Rows of `x` (N, C) by index.
///
/// # Errors
/// If the device fails.
pub fn select_rows(x: &Tensor, rows: &[u32]) -> Result<Tensor> {
    Ok(x.index_select(&Tensor::new(rows, x.device())?, 0)?)
}
