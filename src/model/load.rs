//! From a checkpoint's tensors to a model: every tensor is found and checked against the configuration.

use std::cell::RefCell;

use rustc_hash::FxHashSet;

use super::Gpt2;
use super::block::{Attention, Block, Mlp};
use super::device::Place;
use super::layers::{Embedding, LayerNorm, Linear, MatrixData};
use super::weights::{FIRST_MATRIX, WeightType, Weights};
use crate::checkpoint::{Checkpoint, StorageType, Tensor};
use crate::config::Config;
use crate::device::Backend;
use crate::error::{Error, Result};

/// How a model is loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The type of the weight matrices. With the kernels of the CPU norms and biases are f32, and so are all activations
    /// and sums, but for products with quantised weights: there activations are rounded to 8 bits, 32 with one scale. Keys
    /// and values are kept as f16 where weights are quantised or rounded to 16 bits, else as f32.
    ///
    /// On a candle device [`F16`](WeightType::F16) and [`BF16`](WeightType::BF16) are the type of everything, activations
    /// and cache included, as in transformers; else everything but quantised matrices is f32.
    pub weights: WeightType,
    /// What computes.
    pub backend: Backend,
}

impl Gpt2 {
    /// Builds the model that `config` describes from a checkpoint.
    ///
    /// For the CPU's kernels matrices are packed into panels, in large pages where the system has them; for other devices they
    /// are sent there from where the mapped file has them.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::TensorShape`] or [`Error::UnexpectedTensor`] where checkpoint and configuration
    /// disagree; [`Error::Format`] for a tensor that is not stored as floating-point numbers.
    pub fn load(config: Config, checkpoint: &Checkpoint, options: LoadOptions) -> Result<Self> {
        let place = match &options.backend {
            Backend::Kernels => None,
            Backend::Candle(device) => Some(Place::new(device, options.weights, config.vocab_size)?),
        };
        let weights = Weights::place(checkpoint, &config, options.weights, place.is_none())?;
        let loader = Loader { checkpoint, weights, place: place.as_ref(), used: RefCell::default() };
        let (c, v) = (config.n_embd, config.vocab_size);
        let table = loader.table("wte.weight", v, c)?;
        let wte = Embedding::new(&table, loader.place)?;
        let wpe = Embedding::new(&loader.table("wpe.weight", config.n_positions, c)?, loader.place)?;
        let h = (0..config.n_layer).map(|i| loader.block(&config, i)).collect::<Result<_>>()?;
        let ln_f = loader.norm("ln_f", &config)?;
        let lm_head = if config.tie_word_embeddings {
            loader.ignore("lm_head.weight");
            wte.tied_head(&table, loader.place)?
        } else {
            Linear::new(&loader.table("lm_head.weight", v, c)?, None, loader.place)?
        };
        loader.all_used()?;
        let cache_type = options.weights.cache_type(checkpoint.get(FIRST_MATRIX).map(|tensor| tensor.dtype));
        Ok(Self { cache_type, wte, wpe, h, ln_f, lm_head, config, place })
    }
}

impl Gpt2 {
    /// The bytes of the weight matrices in memory, or in the mapped file, by type; a tied head counts once.
    #[must_use]
    pub fn weight_bytes(&self) -> Vec<(StorageType, usize)> {
        let head = (!self.config.tie_word_embeddings).then(|| self.lm_head.stored());
        let mut bytes: Vec<(StorageType, usize)> = vec![];
        for (dtype, size) in self.block_weights().chain([self.wte.stored(), self.wpe.stored()]).chain(head) {
            match bytes.iter_mut().find(|(other, _)| *other == dtype) {
                Some((_, sum)) => *sum += size,
                None => bytes.push((dtype, size)),
            }
        }
        bytes
    }

    /// The bytes of weights that a decoded token reads: the matrices of the blocks and the head.
    #[must_use]
    pub fn bytes_per_token(&self) -> usize {
        self.block_weights().chain([self.lm_head.stored()]).map(|(_, size)| size).sum()
    }

    /// Type and bytes of each matrix in the blocks.
    fn block_weights(&self) -> impl Iterator<Item = (StorageType, usize)> {
        self.h.iter().flat_map(|block| {
            [&block.attn.c_attn, &block.attn.c_proj, &block.mlp.c_fc, &block.mlp.c_proj].map(Linear::stored)
        })
    }
}

struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    weights: Weights,
    place: Option<&'a Place>,
    used: RefCell<FxHashSet<String>>,
}

impl Loader<'_> {
    fn block(&self, config: &Config, i: usize) -> Result<Block> {
        let (c, inner) = (config.n_embd, config.n_inner);
        let name = |part: &str| format!("h.{i}.{part}");
        Ok(Block {
            ln_1: self.norm(&name("ln_1"), config)?,
            attn: Attention {
                // Some models have no bias on queries, keys and values.
                c_attn: self.linear(&name("attn.c_attn"), c, 3 * c, self.has(&name("attn.c_attn.bias")))?,
                c_proj: self.linear(&name("attn.c_proj"), c, c, true)?,
                scale: config.attention_scale(i),
            },
            ln_2: self.norm(&name("ln_2"), config)?,
            mlp: Mlp {
                c_fc: self.linear(&name("mlp.c_fc"), c, inner, true)?,
                c_proj: self.linear(&name("mlp.c_proj"), inner, c, true)?,
                act: config.activation_function,
            },
        })
    }

    fn norm(&self, name: &str, config: &Config) -> Result<LayerNorm> {
        let weight = self.vector(&format!("{name}.weight"), config.n_embd)?;
        let bias = self.vector(&format!("{name}.bias"), config.n_embd)?;
        LayerNorm::new(weight, bias, config.layer_norm_epsilon as f32, self.place)
    }

    /// A `Conv1D`: weight (in, out), bias (out).
    fn linear(&self, name: &str, inputs: usize, outputs: usize, bias: bool) -> Result<Linear> {
        let weight = format!("{name}.weight");
        let tensor = self.tensor(&weight, &[inputs, outputs])?;
        let weight = self.matrix(tensor, inputs, outputs)?;
        let bias = bias.then(|| self.vector(&format!("{name}.bias"), outputs)).transpose()?;
        Linear::new(&weight, bias, self.place)
    }

    /// A table of `entries` vectors, (entries, C): an embedding, or the head.
    fn table(&self, name: &str, entries: usize, width: usize) -> Result<MatrixData> {
        self.matrix(self.tensor(name, &[entries, width])?, width, entries)
    }

    fn matrix(&self, tensor: &Tensor, inputs: usize, outputs: usize) -> Result<MatrixData> {
        let (bytes, placement) = self.weights.get(&tensor.name).cloned().ok_or_else(|| Error::MissingTensor {
            origin: self.checkpoint.origin.clone(),
            name: tensor.name.clone(),
            expected: tensor.shape.clone(),
        })?;
        Ok(MatrixData { bytes, dtype: placement.dtype, layout: placement.layout, inputs, outputs })
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let tensor = self.tensor(name, &[len])?;
        let mut out = vec![0.0; len];
        tensor.read(&self.checkpoint.origin, 0, &mut out)?;
        Ok(out)
    }

    fn has(&self, name: &str) -> bool {
        self.checkpoint.get(name).is_some()
    }

    /// The tensor `name`, which must have the shape `expected`.
    fn tensor(&self, name: &str, expected: &[usize]) -> Result<&Tensor> {
        let (origin, name, expected) = (self.checkpoint.origin.clone(), name.to_owned(), expected.to_vec());
        let Some(tensor) = self.checkpoint.get(&name) else {
            return Err(Error::MissingTensor { origin, name, expected });
        };
        if tensor.shape != expected {
            return Err(Error::TensorShape { origin, name, expected, found: tensor.shape.clone() });
        }
        self.used.borrow_mut().insert(name);
        Ok(tensor)
    }

    /// Counts a tensor as used, if it is there.
    fn ignore(&self, name: &str) {
        self.used.borrow_mut().insert(name.to_owned());
    }

    fn all_used(&self) -> Result<()> {
        let used = self.used.borrow();
        match self.checkpoint.tensors.iter().find(|tensor| !used.contains(&tensor.name)) {
            None => Ok(()),
            Some(tensor) => Err(Error::UnexpectedTensor {
                origin: self.checkpoint.origin.clone(),
                name: tensor.name.clone(),
                found: tensor.shape.clone(),
            }),
        }
    }
}
