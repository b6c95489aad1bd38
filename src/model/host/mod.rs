//! The network on the CPU, using this library's kernels: slices of `f32` in buffers that are kept from pass to pass, so
//! that decoding a token allocates nothing here. Tensors are only made at the boundary, on request.

mod activations;
mod block;
mod cache;
mod hooked;
mod layers;
mod packable;

use candle_core::{Device, Tensor};

use self::activations::Activations;
use self::cache::{Cache, Pass};
use self::layers::Layers;
use self::packable::Packable;
use super::edits::{Edits, Hooks, Start};
use super::network::{self, KvCache, Network, Stored, last_if_top, tops, wanted};
use super::weights::{Packing, WeightType};
use super::with_slice;
use crate::base::{FloatType, memory};
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::error::Result;
use crate::inventory::TensorId;
use crate::kernels::{Epilogue, PAGE_POSITIONS, Weight};
use crate::language_model::{Input, Output, Room};
use crate::logits::{self, Top};

/// What takes the memory for logits.
const LOGITS: &str = "the logits of the next tokens";

/// Embeddings, blocks and head.
#[derive(Debug)]
pub(super) struct HostNetwork {
    config: Config,
    /// The type of cached keys and values.
    cache_type: FloatType,
    layers: Packable,
}

impl HostNetwork {
    /// The network of a checkpoint, its matrices packed for the kernels at once or later.
    pub fn load(checkpoint: &Checkpoint, config: &Config, weights: WeightType, packing: Packing) -> Result<Self> {
        let stored = checkpoint.tensor(TensorId::FIRST_MATRIX).map(|tensor| tensor.dtype);
        let layers = Packable::load(checkpoint, config, weights, packing)?;
        Ok(Self { config: config.clone(), cache_type: weights.cache_type(stored), layers })
    }

    /// Runs new positions from ids to the residual stream after the last block, which is left in the cache's
    /// activations.
    fn pass(
        &self,
        inputs: &[(usize, &[u32])],
        cache: &mut Cache,
        mut hooks: Hooks<'_>,
        start: Option<Start<'_>>,
    ) -> Result<()> {
        let layers = self.layers.for_pass(&self.config)?;
        let mut pass = cache.begin(inputs)?;
        match start {
            None => self.embed(layers, inputs, &mut pass),
            Some(start) => with_slice(start.residual, |x| pass.cache.activations.x.copy_from_slice(x))?,
        }
        for (layer, block) in layers.h.iter().enumerate().skip(start.map_or(0, |start| start.layer)) {
            match hooks.touch(layer) {
                false => block.forward(&mut pass, layer),
                true => block.forward_hooked(&mut pass, layer, self.config.n_head, &mut hooks)?,
            }
        }
        self.layers.check_unchanged()?;
        pass.commit();
        Ok(())
    }

    /// Token plus position embeddings, (N, C).
    fn embed(&self, layers: &Layers, inputs: &[(usize, &[u32])], pass: &mut Pass<'_>) {
        let width = self.config.n_embd;
        let Cache { segments, activations: a, .. } = &mut *pass.cache;
        let ids = inputs.iter().flat_map(|(_, ids)| *ids);
        let positions = segments.iter().flat_map(|s| s.past..s.total());
        let rows = a.x.chunks_exact_mut(width).zip(a.next_x.chunks_exact_mut(width));
        for (((x, p), id), position) in rows.zip(ids).zip(positions) {
            layers.wte.row(*id as usize, x);
            layers.wpe.row(position, p);
            x.iter_mut().zip(p).for_each(|(x, p)| *x += *p);
        }
    }

    /// Activations, (N, C), as a tensor.
    fn tensor(&self, x: &[f32]) -> Result<Tensor> {
        Ok(Tensor::from_slice(x, (x.len() / self.config.n_embd, self.config.n_embd), &Device::Cpu)?)
    }
}

/// The first of the most probable tokens; `None` if the logits are not finite.
fn best_token(logits: &[f32]) -> Option<u32> {
    logits::check_finite(logits).is_ok().then(|| logits::argmax(logits) as u32)
}

impl Network for HostNetwork {
    fn new_cache(&self) -> Box<dyn network::Cache> {
        Box::new(Cache::new(&self.config, self.cache_type))
    }

    fn cache_bytes_per_position(&self) -> usize {
        self.config.n_layer * 2 * self.config.n_embd * self.cache_type.size()
    }

    fn room(&self) -> Room {
        let shape = cache::shape(&self.config, self.cache_type);
        let left = memory::room();
        Room {
            left: left.map(|(bytes, _)| bytes),
            limit: left.map_or("", |(_, limit)| limit),
            page_bytes: (self.config.n_layer * shape.layer_bytes()) as u64,
            page_positions: PAGE_POSITIONS,
            position_bytes: Activations::position_bytes(&self.config) as u64,
        }
    }

    fn stored(&self) -> Stored {
        let stored = |weight: &Weight| (weight.dtype(), weight.size());
        let layers = self.layers.get();
        let matrices = layers.h.iter().flat_map(|b| [&b.attn.c_attn, &b.attn.c_proj, &b.mlp.c_fc, &b.mlp.c_proj]);
        Stored {
            blocks: matrices.map(|linear| stored(&linear.weight)).collect(),
            embeddings: vec![stored(&layers.wte), stored(&layers.wpe)],
            head: stored(&layers.lm_head),
        }
    }

    fn forward(
        &self,
        inputs: &[(usize, &[u32])],
        cache: &mut KvCache,
        hooks: Hooks<'_>,
        start: Option<Start<'_>>,
    ) -> Result<Tensor> {
        let cache = cache.own::<Cache>()?;
        self.pass(inputs, cache, hooks, start)?;
        self.tensor(&cache.activations.x)
    }

    fn embeddings(&self, ids: &[u32], first: usize) -> Result<[Tensor; 2]> {
        let (layers, width) = (self.layers.get(), self.config.n_embd);
        let [mut tokens, mut positions] = [vec![0.0; ids.len() * width], vec![0.0; ids.len() * width]];
        let rows = tokens.chunks_exact_mut(width).zip(positions.chunks_exact_mut(width));
        for ((at, id), (token, position)) in (first..).zip(ids).zip(rows) {
            layers.wte.row(*id as usize, token);
            layers.wpe.row(at, position);
        }
        Ok([self.tensor(&tokens)?, self.tensor(&positions)?])
    }

    fn attention_output(&self, layer: usize, z: &Tensor) -> Result<Tensor> {
        let mut y = vec![0.0; z.elem_count()];
        with_slice(z, |z| self.layers.get().h[layer].attn.c_proj.forward(z, &mut y))?;
        self.tensor(&y)
    }

    fn final_norm_weights(&self) -> Result<[Vec<f32>; 2]> {
        let norm = &self.layers.get().ln_f;
        Ok([norm.weight.clone(), norm.bias.clone()])
    }

    fn head_rows(&self, ids: &[u32]) -> Result<Tensor> {
        let (head, width) = (&self.layers.get().lm_head, self.config.n_embd);
        let mut rows = vec![0.0; ids.len() * width];
        ids.iter().zip(rows.chunks_exact_mut(width)).for_each(|(id, row)| head.row(*id as usize, row));
        self.tensor(&rows)
    }

    fn run(&self, inputs: &[Input<'_>], cache: &mut KvCache, edits: &Edits) -> Result<Output> {
        let cache = cache.own::<Cache>()?;
        let rows: Vec<(usize, &[u32])> = inputs.iter().map(|input| (input.row, input.ids)).collect();
        self.pass(&rows, cache, Hooks { edits, trace: None }, None)?;
        let (layers, width, vocabulary) = (self.layers.get(), self.config.n_embd, self.config.vocab_size);
        let a = &mut cache.activations;
        let mut output = Output::default();
        // Norm and head only run over the wanted positions: most of a prompt's logits are never needed.
        let [logits, best] = [wanted(inputs, |i| i.logits).count(), wanted(inputs, |i| i.best).count()];
        let best_and_top = wanted(inputs, |i| i.best).chain(wanted(inputs, last_if_top));
        a.pick(wanted(inputs, |i| i.logits).chain(best_and_top));
        if !a.next_x.is_empty() {
            a.normed.resize(a.next_x.len(), 0.0);
            layers.ln_f.forward(&a.next_x, &mut a.normed);
            // Wanted logits are moved to the output.
            let mut all = std::mem::take(&mut a.logits);
            memory::resize(LOGITS, &mut all, a.normed.len() / width * vocabulary)?;
            layers.lm_head.matmul(&a.normed, None, Epilogue::None, &mut all);
            let mut others = all.chunks_exact(vocabulary).skip(logits);
            output.best = others.by_ref().take(best).map(best_token).collect();
            output.top = others.zip(tops(inputs)).map(|(row, k)| Top::of(row, k)).collect();
            if logits > 0 {
                all.truncate(logits * vocabulary);
                output.logits = all;
            } else {
                a.logits = all;
            }
        }
        a.pick(wanted(inputs, |i| i.hidden));
        if !a.next_x.is_empty() {
            output.hidden.resize(a.next_x.len(), 0.0);
            layers.ln_f.forward(&a.next_x, &mut output.hidden);
        }
        Ok(output)
    }

    fn final_norm(&self, x: &Tensor) -> Result<Tensor> {
        let mut y = vec![0.0; x.elem_count()];
        with_slice(x, |x| self.layers.get().ln_f.forward(x, &mut y))?;
        self.tensor(&y)
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let mut logits = vec![];
        self.logits_into(hidden, &mut logits)?;
        Ok(Tensor::from_vec(logits, (hidden.dim(0)?, self.config.vocab_size), &Device::Cpu)?)
    }

    fn logits_into(&self, hidden: &Tensor, logits: &mut Vec<f32>) -> Result<()> {
        memory::resize(LOGITS, logits, hidden.dim(0)? * self.config.vocab_size)?;
        with_slice(hidden, |x| self.layers.get().lm_head.matmul(x, None, Epilogue::None, logits))
    }

    fn best_tokens(&self, logits: &Tensor) -> Result<Vec<Option<u32>>> {
        let vocabulary = logits.dim(1)?;
        with_slice(logits, |logits| logits.chunks_exact(vocabulary).map(best_token).collect())
    }
}
