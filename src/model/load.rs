//! From a checkpoint's tensors, checked against the configuration, to a model.

use super::block::{Attention, Block, Mlp};
#[cfg(cuda_kernels)]
use super::cuda;
use super::device::Place;
use super::layered::{Layered, Stored};
use super::layers::{Embedding, LayerNorm, Linear, MatrixData};
use super::weights::{FIRST_MATRIX, WeightType, Weights};
use super::{Gpt2, Network};
use crate::checkpoint::{Checkpoint, StorageType, Tensor};
use crate::config::Config;
use crate::device::Backend;
use crate::error::{Error, Result};
#[cfg(cuda_kernels)]
use crate::kernels::quantized::QuantizedType;
#[cfg(cuda_kernels)]
use crate::memory::{self, DeviceFootprint};

/// How a model is loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The type of the weight matrices. With the kernels of the CPU norms and biases are f32, and so are all activations
    /// and sums, but for products with quantised weights: there activations are rounded to 8 bits, 32 with one scale. Keys
    /// and values are kept as f16 where weights are quantised or rounded to 16 bits, else as f32.
    ///
    /// On an NVIDIA GPU [`F16`](WeightType::F16) and [`BF16`](WeightType::BF16) are the type of weights, keys, values and the
    /// factors of products; the residual stream, norms, biases and sums are f32. On another device of candle's they are the
    /// type of everything, as in transformers. Else everything but quantised matrices is f32.
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
    /// disagree; [`Error::Format`] for a tensor that is not stored as floating-point numbers; [`Error::Unsupported`] for a
    /// model that cannot fit the GPU's free memory.
    pub fn load(config: Config, checkpoint: &Checkpoint, options: LoadOptions) -> Result<Self> {
        config.check(checkpoint)?;
        #[cfg(cuda_kernels)]
        if let Some((gpu, numbers)) = gpu(&options, checkpoint)? {
            memory::require_on(&options.backend, &checkpoint.origin, options.weights, |weights| {
                DeviceFootprint::of_checkpoint(&config, checkpoint, weights)
            })?;
            let network = on_gpu(&config, checkpoint, cuda::Builder::new(gpu, numbers))?;
            return Ok(Self { config, network: Network::Cuda(network) });
        }
        let place = match &options.backend {
            Backend::Kernels => None,
            Backend::Candle(device) => Some(Place::new(device, options.weights, config.vocab_size)?),
            #[cfg(feature = "emulator")]
            Backend::Emulator => Some(Place::new(&candle_core::Device::Cpu, options.weights, config.vocab_size)?),
        };
        let weights = Weights::place(checkpoint, &config, options.weights, place.is_none())?;
        let loader = Loader { checkpoint, weights, place: place.as_ref() };
        let (c, v) = (config.n_embd, config.vocab_size);
        let table = loader.table("wte.weight", v, c)?;
        let wte = Embedding::new(&table, loader.place)?;
        let wpe = Embedding::new(&loader.table("wpe.weight", config.n_positions, c)?, loader.place)?;
        let h = (0..config.n_layer).map(|i| loader.block(&config, i)).collect::<Result<_>>()?;
        let ln_f = loader.norm("ln_f", &config)?;
        let lm_head = if config.tie_word_embeddings {
            wte.tied_head(&table, loader.place)?
        } else {
            Linear::new(&loader.table("lm_head.weight", v, c)?, None, loader.place)?
        };
        let cache_type = options.weights.cache_type(checkpoint.get(FIRST_MATRIX).map(|tensor| tensor.dtype));
        let layered = Layered { cache_type, wte, wpe, h, ln_f, lm_head, place };
        Ok(Self { config, network: Network::Layered(layered) })
    }
}

/// The GPU that runs the network, and the type of its numbers; none where candle or the CPU does: there are no kernels for
/// quantised weights.
#[cfg(cuda_kernels)]
fn gpu(options: &LoadOptions, checkpoint: &Checkpoint) -> Result<Option<(cuda::Gpu, cuda::NumberType)>> {
    let quantized = |tensor: &Tensor| QuantizedType::of(tensor.dtype).is_some();
    let quantized = checkpoint.tensors.iter().any(quantized);
    let Some(numbers) = cuda::NumberType::of(options.weights, quantized) else { return Ok(None) };
    let gpu = match &options.backend {
        Backend::Kernels => None,
        #[cfg(feature = "cuda")]
        Backend::Candle(device) => cuda::Gpu::of(device)?,
        #[cfg(not(feature = "cuda"))]
        Backend::Candle(_) => None,
        #[cfg(all(feature = "emulator", not(feature = "cuda")))]
        Backend::Emulator => Some(cuda::Gpu),
        #[cfg(all(feature = "emulator", feature = "cuda"))]
        Backend::Emulator => None,
    };
    Ok(gpu.map(|gpu| (gpu, numbers)))
}

/// Puts a checkpoint on a GPU, where its numbers are converted.
#[cfg(cuda_kernels)]
fn on_gpu(config: &Config, checkpoint: &Checkpoint, builder: cuda::Builder) -> Result<cuda::Network> {
    let weights = Weights::place(checkpoint, config, WeightType::F32, false)?;
    let loader = Loader { checkpoint, weights, place: None };
    let (c, v, inner) = (config.n_embd, config.vocab_size, config.n_inner);
    let table = |name: &str, entries| builder.matrix(&loader.table(name, entries, c)?);
    let norm = |name: &str| {
        let [weight, bias] = loader.norm_vectors(name, config)?;
        builder.norm(&weight, &bias, config.layer_norm_epsilon as f32)
    };
    let linear = |name: &str, inputs, outputs, has_bias| {
        let (weight, bias) = loader.linear_data(name, inputs, outputs, has_bias)?;
        let bias = bias.map(|bias| builder.vector(&bias)).transpose()?;
        Ok::<_, Error>(cuda::Linear { weight: builder.matrix(&weight)?, bias })
    };
    let layer = |i: usize| {
        let name = |part: &str| format!("h.{i}.{part}");
        Ok(cuda::Layer {
            ln_1: norm(&name("ln_1"))?,
            c_attn: linear(&name("attn.c_attn"), c, 3 * c, loader.has(&name("attn.c_attn.bias")))?,
            c_proj: linear(&name("attn.c_proj"), c, c, true)?,
            ln_2: norm(&name("ln_2"))?,
            c_fc: linear(&name("mlp.c_fc"), c, inner, true)?,
            mlp_c_proj: linear(&name("mlp.c_proj"), inner, c, true)?,
            scale: config.attention_scale(i),
        })
    };
    let embeddings = [table("wte.weight", v)?, table("wpe.weight", config.n_positions)?];
    let layers = (0..config.n_layer).map(layer).collect::<Result<_>>()?;
    let ln_f = norm("ln_f")?;
    let lm_head = if config.tie_word_embeddings { None } else { Some(table("lm_head.weight", v)?) };
    builder.finish(config, embeddings, layers, ln_f, lm_head)
}

impl Gpt2 {
    /// The bytes of the weight matrices in memory, or in the mapped file, by type; a tied head counts once.
    #[must_use]
    pub fn weight_bytes(&self) -> Vec<(StorageType, usize)> {
        let Stored { blocks, embeddings, head } = self.stored();
        let head = (!self.config.tie_word_embeddings).then_some(head);
        let mut bytes: Vec<(StorageType, usize)> = vec![];
        for (dtype, size) in blocks.into_iter().chain(embeddings).chain(head) {
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
        let Stored { blocks, head, .. } = self.stored();
        blocks.into_iter().chain([head]).map(|(_, size)| size).sum()
    }

    fn stored(&self) -> Stored {
        match &self.network {
            Network::Layered(layered) => layered.stored(),
            #[cfg(cuda_kernels)]
            Network::Cuda(network) => network.stored(),
        }
    }
}

struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    weights: Weights,
    place: Option<&'a Place>,
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
        let [weight, bias] = self.norm_vectors(name, config)?;
        LayerNorm::new(weight, bias, config.layer_norm_epsilon as f32, self.place)
    }

    /// Weight and bias of a layer norm, (C).
    fn norm_vectors(&self, name: &str, config: &Config) -> Result<[Vec<f32>; 2]> {
        let vector = |part: &str| self.vector(&format!("{name}.{part}"), config.n_embd);
        Ok([vector("weight")?, vector("bias")?])
    }

    /// A `Conv1D`: weight (in, out), bias (out).
    fn linear(&self, name: &str, inputs: usize, outputs: usize, bias: bool) -> Result<Linear> {
        let (weight, bias) = self.linear_data(name, inputs, outputs, bias)?;
        Linear::new(&weight, bias, self.place)
    }

    /// Weight and, if it has one, bias of a `Conv1D`.
    fn linear_data(
        &self,
        name: &str,
        inputs: usize,
        outputs: usize,
        bias: bool,
    ) -> Result<(MatrixData, Option<Vec<f32>>)> {
        let tensor = self.tensor(&format!("{name}.weight"), &[inputs, outputs])?;
        let weight = self.matrix(tensor, inputs, outputs)?;
        let bias = bias.then(|| self.vector(&format!("{name}.bias"), outputs)).transpose()?;
        Ok((weight, bias))
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

    /// The tensor `name`, which has the shape `expected`, as was checked.
    fn tensor(&self, name: &str, expected: &[usize]) -> Result<&Tensor> {
        self.checkpoint.get(name).ok_or_else(|| Error::MissingTensor {
            origin: self.checkpoint.origin.clone(),
            name: name.to_owned(),
            expected: expected.to_vec(),
        })
    }
}
