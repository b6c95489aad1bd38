//! The network as candle operations, for the devices that candle has kernels for: CUDA and Metal. It also runs on
//! candle's CPU backend, which is how it is tested; on the CPU, users get `host`.
//!
//! Activations, norms, biases, the cache and matrices that are not quantised all have one number type.

mod block;
mod cache;
mod layers;
mod pass;
mod view;

use candle_core::{DType, Device, Tensor};

use self::block::{Attention, Block, Mlp};
use self::cache::Cache;
use self::layers::{Embedding, LayerNorm, Linear};
use self::pass::Pass;
use super::WeightType;
use super::edits::{Hooks, Start};
use super::loader::Loader;
use super::network::{self, KvCache, Network, Stored};
use crate::base::{self, FloatType};
use crate::config::Config;
use crate::error::Result;
use crate::inventory::{Part, TensorId};

/// Embeddings, blocks and head. Field names are the checkpoint's.
#[derive(Debug)]
pub(super) struct CandleNetwork {
    config: Config,
    place: Place,
    wte: Embedding,
    wpe: Embedding,
    h: Vec<Block>,
    ln_f: LayerNorm,
    lm_head: Linear,
}

impl CandleNetwork {
    /// Loads the network of a checkpoint onto `device`, in the type that `weights` calls for.
    ///
    /// # Errors
    /// If the device fails.
    pub fn load(loader: &Loader<'_>, device: &Device, weights: WeightType) -> Result<Self> {
        let config = loader.config.clone();
        let place = &Place::new(device, weights, config.vocab_size)?;
        let linear = |layer, part| {
            let (weight, bias) = loader.linear(layer, part)?;
            Linear::new(&weight, bias, place)
        };
        let norm = |layer, part| {
            let [weight, bias] = loader.norm(layer, part)?;
            LayerNorm::new(weight, bias, config.layer_norm_epsilon as f32, place)
        };
        let block = |i| {
            Ok(Block {
                ln_1: norm(Some(i), Part::Ln1)?,
                attn: Attention {
                    c_attn: linear(i, Part::CAttn)?,
                    c_proj: linear(i, Part::AttnCProj)?,
                    scale: config.attention_scale(i),
                },
                ln_2: norm(Some(i), Part::Ln2)?,
                mlp: Mlp {
                    c_fc: linear(i, Part::CFc)?,
                    c_proj: linear(i, Part::MlpCProj)?,
                    act: config.activation_function,
                },
            })
        };
        let table = loader.matrix(TensorId::WTE)?;
        let wte = Embedding::new(&table, place)?;
        let wpe = Embedding::new(&loader.matrix(TensorId::WPE)?, place)?;
        let h = (0..config.n_layer).map(block).collect::<Result<_>>()?;
        let ln_f = norm(None, Part::LnF)?;
        let lm_head = match (&wte, config.tie_word_embeddings) {
            (Embedding::Table(table), true) => Linear::tied(table)?,
            (Embedding::Quantized { .. }, true) => Linear::new(&table, None, place)?,
            (_, false) => Linear::new(&loader.matrix(TensorId::LM_HEAD)?, None, place)?,
        };
        Ok(Self { place: place.clone(), wte, wpe, h, ln_f, lm_head, config })
    }
}

impl Network for CandleNetwork {
    fn new_cache(&self) -> Box<dyn network::Cache> {
        Box::new(Cache::new(&self.config, &self.place))
    }

    fn cache_bytes_per_position(&self) -> usize {
        self.config.n_layer * 2 * self.config.n_embd * self.place.dtype.size_in_bytes()
    }

    fn stored(&self) -> Stored {
        let matrices = self.h.iter().flat_map(|b| [&b.attn.c_attn, &b.attn.c_proj, &b.mlp.c_fc, &b.mlp.c_proj]);
        Stored {
            blocks: matrices.map(|linear| linear.stored).collect(),
            embeddings: vec![self.wte.stored(), self.wpe.stored()],
            head: self.lm_head.stored,
        }
    }

    fn forward(
        &self,
        inputs: &[(usize, &[u32])],
        cache: &mut KvCache,
        mut hooks: Hooks<'_>,
        start: Option<Start<'_>>,
    ) -> Result<Tensor> {
        let mut pass = Pass::begin(cache.own()?, inputs)?;
        let mut x = match start {
            Some(start) => start.residual.to_device(&self.place.device)?.to_dtype(self.place.dtype)?,
            None => {
                let ids: Vec<u32> = inputs.iter().flat_map(|(_, ids)| *ids).copied().collect();
                let positions = pass.segments().iter().flat_map(|s| s.past..s.total()).map(|at| at as u32);
                (self.wte.forward(&ids)? + self.wpe.forward(&positions.collect::<Vec<_>>())?)?
            }
        };
        for (layer, block) in self.h.iter().enumerate().skip(start.map_or(0, |start| start.layer)) {
            x = block.forward(&x, layer, &mut pass, &mut hooks)?;
        }
        pass.commit();
        Ok(x)
    }

    fn embeddings(&self, ids: &[u32], first: usize) -> Result<[Tensor; 2]> {
        let positions: Vec<u32> = (first..first + ids.len()).map(|at| at as u32).collect();
        Ok([self.wte.forward(ids)?, self.wpe.forward(&positions)?])
    }

    fn attention_output(&self, layer: usize, z: &Tensor) -> Result<Tensor> {
        self.h[layer].attn.c_proj.forward(z)
    }

    fn final_norm_weights(&self) -> Result<[Vec<f32>; 2]> {
        self.ln_f.weights()
    }

    fn final_norm(&self, x: &Tensor) -> Result<Tensor> {
        self.ln_f.forward(x)
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(self.lm_head.forward(hidden)?.to_dtype(DType::F32)?)
    }

    fn head_rows(&self, ids: &[u32]) -> Result<Tensor> {
        self.lm_head.rows(ids)
    }

    fn best_tokens(&self, logits: &Tensor) -> Result<Vec<Option<u32>>> {
        self.place.best_tokens(logits)
    }
}

/// Where tensors are, and the type of their numbers.
#[derive(Debug, Clone)]
struct Place {
    pub device: Device,
    pub dtype: DType,
    /// Every token id, (V).
    ids: Tensor,
}

impl Place {
    /// On `device`, in the type that `weights` calls for, for a vocabulary of this size.
    pub fn new(device: &Device, weights: WeightType, vocab_size: usize) -> Result<Self> {
        let dtype = match weights {
            WeightType::Float(float) => float.candle(),
            WeightType::Stored | WeightType::Quantized(_) => DType::F32,
        };
        Ok(Self { device: device.clone(), dtype, ids: Tensor::arange(0, vocab_size as u32, device)? })
    }

    /// A vector of numbers from the host, (N).
    fn vector(&self, numbers: Vec<f32>) -> Result<Tensor> {
        let len = numbers.len();
        Ok(Tensor::from_vec(numbers, len, &self.device)?.to_dtype(self.dtype)?)
    }

    /// The first id with the largest logit in each row of (N, V); `None` for a row that is not finite.
    pub fn best_tokens(&self, logits: &Tensor) -> Result<Vec<Option<u32>>> {
        // candle's `argmax` finds any of several maxima on a GPU, and in 16 bits there often are several.
        let is_largest = logits.broadcast_eq(&logits.max_keepdim(1)?)?;
        let beyond = Tensor::new(u32::MAX, &self.device)?.broadcast_as(logits.shape())?;
        let ids = is_largest.where_cond(&self.ids.broadcast_as(logits.shape())?, &beyond)?.min(1)?;
        // The sum is 0, but NaN for a row with an infinity or NaN.
        let sums = logits.affine(0.0, 0.0)?.sum(1)?;
        let rows = ids.to_vec1::<u32>()?.into_iter().zip(sums.to_vec1::<f32>()?);
        Ok(rows.map(|(id, sum)| (sum == 0.0).then_some(id)).collect())
    }
}

/// The type of a tensor's numbers and its size in bytes.
fn stored(tensor: &Tensor) -> (base::DType, usize) {
    let float = FloatType::ALL.into_iter().find(|float| float.candle() == tensor.dtype()).unwrap_or(FloatType::F32);
    (float.dtype(), tensor.elem_count() * float.size())
}
