//! From a checkpoint's tensors to a model: every tensor is found, checked against the configuration, and used where it lies.

use std::cell::RefCell;

use half::{bf16, f16};
use rustc_hash::FxHashSet;

use super::Gpt2;
use super::block::{Attention, Block, Mlp};
use super::linear::{Embedding, LayerNorm, Linear};
use crate::checkpoint::{Bytes, Checkpoint, StorageType, Tensor};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::kernels::{FloatType, Layout, Matrix, pool};

/// The type in which weight matrices are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightType {
    /// As exact as f32: f32 weights stay f32, and 16-bit weights stay as they are, since every one of their numbers is
    /// an f32 and is widened on the way into the sum.
    #[default]
    F32,
    /// Rounded to 16-bit IEEE.
    F16,
    /// Rounded to the upper half of an f32.
    BF16,
}

/// How a model is loaded.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadOptions {
    /// The type of the weight matrices. Norms and biases are f32, and so are all activations and sums.
    pub weights: WeightType,
}

impl Gpt2 {
    /// Builds the model that `config` describes from a checkpoint.
    ///
    /// Weights that can be used where they lie in the mapped file are not copied.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::TensorShape`] or [`Error::UnexpectedTensor`] where checkpoint and configuration
    /// disagree; [`Error::Format`] for a tensor that is not stored as floating-point numbers.
    pub fn load(config: Config, checkpoint: &Checkpoint, options: LoadOptions) -> Result<Self> {
        let loader = Loader { checkpoint, options, used: RefCell::default() };
        let (c, v) = (config.n_embd, config.vocab_size);
        let wte = loader.table("wte.weight", v, c)?;
        let wpe = loader.table("wpe.weight", config.n_positions, c)?;
        let h = (0..config.n_layer).map(|i| loader.block(&config, i)).collect::<Result<_>>()?;
        let ln_f = loader.norm("ln_f", &config)?;
        let head = if config.tie_word_embeddings {
            loader.ignore("lm_head.weight");
            wte.clone()
        } else {
            loader.table("lm_head.weight", v, c)?
        };
        loader.all_used()?;
        Ok(Self {
            wte: Embedding { weight: wte },
            wpe: Embedding { weight: wpe },
            h,
            ln_f,
            lm_head: Linear { weight: head, bias: None },
            config,
        })
    }
}

struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    options: LoadOptions,
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
        Ok(LayerNorm {
            weight: self.vector(&format!("{name}.weight"), config.n_embd)?,
            bias: self.vector(&format!("{name}.bias"), config.n_embd)?,
            epsilon: config.layer_norm_epsilon as f32,
        })
    }

    /// A `Conv1D`: weight (in, out), bias (out).
    fn linear(&self, name: &str, inputs: usize, outputs: usize, bias: bool) -> Result<Linear> {
        let weight = format!("{name}.weight");
        let tensor = self.tensor(&weight, &[inputs, outputs])?;
        let layout = if tensor.transposed { Layout::OutIn } else { Layout::InOut };
        let weight = self.matrix(tensor, layout, inputs, outputs)?;
        let bias = bias.then(|| self.vector(&format!("{name}.bias"), outputs)).transpose()?;
        Ok(Linear { weight, bias })
    }

    /// A table of `entries` vectors, (entries, C): an embedding, or the head.
    fn table(&self, name: &str, entries: usize, width: usize) -> Result<Matrix> {
        self.matrix(self.tensor(name, &[entries, width])?, Layout::OutIn, width, entries)
    }

    fn matrix(&self, tensor: &Tensor, layout: Layout, inputs: usize, outputs: usize) -> Result<Matrix> {
        let stored = match tensor.dtype {
            StorageType::F32 => Some(FloatType::F32),
            StorageType::F16 => Some(FloatType::F16),
            StorageType::BF16 => Some(FloatType::BF16),
            _ => None,
        };
        let dtype = match (self.options.weights, stored) {
            (WeightType::F32, stored) => stored.unwrap_or(FloatType::F32),
            (WeightType::F16, _) => FloatType::F16,
            (WeightType::BF16, _) => FloatType::BF16,
        };
        let bytes = if stored == Some(dtype) { tensor.bytes.clone() } else { self.converted(tensor, dtype)? };
        Ok(Matrix::new(bytes, dtype, layout, inputs, outputs))
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let tensor = self.tensor(name, &[len])?;
        let mut out = vec![0.0; len];
        widen(&self.checkpoint.origin, tensor, 0, &mut out)?;
        Ok(out)
    }

    /// The numbers of a tensor in another type.
    fn converted(&self, tensor: &Tensor, dtype: FloatType) -> Result<Bytes> {
        /// Numbers that one step converts.
        const STEP: usize = 1 << 16;
        let origin = self.checkpoint.origin.as_str();
        let len: usize = tensor.shape.iter().product();
        let mut out = vec![0u8; len * dtype.size()];
        let mut parts: Vec<(usize, &mut [u8], Result<()>)> =
            out.chunks_mut(STEP * dtype.size()).enumerate().map(|(i, part)| (i * STEP, part, Ok(()))).collect();
        pool::for_each(&mut parts, |(first, part, outcome)| {
            let mut numbers = vec![0f32; part.len() / dtype.size()];
            *outcome = widen(origin, tensor, *first, &mut numbers);
            let part = part.chunks_exact_mut(dtype.size()).zip(numbers);
            match dtype {
                FloatType::F32 => part.for_each(|(b, x)| b.copy_from_slice(&x.to_le_bytes())),
                FloatType::F16 => part.for_each(|(b, x)| b.copy_from_slice(&f16::from_f32(x).to_le_bytes())),
                FloatType::BF16 => part.for_each(|(b, x)| b.copy_from_slice(&bf16::from_f32(x).to_le_bytes())),
            }
        });
        parts.into_iter().try_for_each(|(_, _, outcome)| outcome)?;
        Ok(out.into())
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

/// Numbers of a tensor from `first` on, as f32; `origin` names the checkpoint in errors.
fn widen(origin: &str, tensor: &Tensor, first: usize, out: &mut [f32]) -> Result<()> {
    fn each<const SIZE: usize>(bytes: &[u8], first: usize, out: &mut [f32], f: impl Fn([u8; SIZE]) -> f32) {
        for (y, x) in out.iter_mut().zip(bytes[first * SIZE..].chunks_exact(SIZE)) {
            *y = f(std::array::from_fn(|i| x[i]));
        }
    }
    let bytes = &tensor.bytes;
    match tensor.dtype {
        StorageType::F32 => each(bytes, first, out, f32::from_le_bytes),
        StorageType::F16 => each(bytes, first, out, |b| f16::from_le_bytes(b).to_f32()),
        StorageType::BF16 => each(bytes, first, out, |b| bf16::from_le_bytes(b).to_f32()),
        StorageType::F64 => each(bytes, first, out, |b| f64::from_le_bytes(b) as f32),
        other => {
            return Err(Error::format(
                origin,
                format!("tensor `{}` is stored as {other:?}; weights are F32, F16, BF16 or F64", tensor.name),
            ));
        }
    }
    Ok(())
}
