//! From a checkpoint's tensors to a model: every tensor is found and checked against the configuration.

use super::block::{Attention, Block, Mlp};
#[cfg(cuda_kernels)]
use super::cuda;
use super::device::Place;
use super::layered::{Layered, Stored};
use super::layers::{Embedding, LayerNorm, Linear, MatrixData};
use super::weights::{WeightType, Weights};
use super::{Gpt2, Network};
use crate::base::DType;
#[cfg(cuda_kernels)]
use crate::base::{FloatType, QuantizedType};
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::device::Backend;
use crate::error::{Error, Result};
use crate::inventory::{Kind, Part, TensorId};
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
        checkpoint.check(&config)?;
        let weights = Weights::place(checkpoint, &config, options.weights, place.is_none())?;
        let loader = Loader { checkpoint, config: &config, weights, place: place.as_ref() };
        let table = loader.matrix(TensorId::WTE)?;
        let wte = Embedding::new(&table, loader.place)?;
        let wpe = Embedding::new(&loader.matrix(TensorId::WPE)?, loader.place)?;
        let h = (0..config.n_layer).map(|i| loader.block(i)).collect::<Result<_>>()?;
        let ln_f = loader.norm(None, Part::LnF)?;
        let lm_head = if config.tie_word_embeddings {
            wte.tied_head(&table, loader.place)?
        } else {
            Linear::new(&loader.matrix(TensorId::LM_HEAD)?, None, loader.place)?
        };
        let cache_type =
            options.weights.cache_type(checkpoint.tensor(TensorId::FIRST_MATRIX).map(|tensor| tensor.dtype));
        let layered = Layered { cache_type, wte, wpe, h, ln_f, lm_head, place };
        Ok(Self { config, network: Network::Layered(layered) })
    }
}

/// The GPU that runs the network, and the type of its numbers; none where candle or the CPU does: there are no kernels for
/// quantised weights.
#[cfg(cuda_kernels)]
fn gpu(options: &LoadOptions, checkpoint: &Checkpoint) -> Result<Option<(cuda::Gpu, FloatType)>> {
    let quantized = checkpoint.tensors.iter().any(|tensor| QuantizedType::of(tensor.dtype).is_some());
    let Some(numbers) = options.weights.on_gpu(quantized) else { return Ok(None) };
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
    checkpoint.check(config)?;
    let weights = Weights::place(checkpoint, config, WeightType::F32, false)?;
    let loader = Loader { checkpoint, config, weights, place: None };
    let table = |id| builder.matrix(&loader.matrix(id)?);
    let norm = |layer, part| {
        let [weight, bias] = loader.norm_vectors(layer, part)?;
        builder.norm(&weight, &bias, config.layer_norm_epsilon as f32)
    };
    let linear = |layer, part| {
        let (weight, bias) = loader.linear_data(layer, part)?;
        let bias = bias.map(|bias| builder.vector(&bias)).transpose()?;
        Ok::<_, Error>(cuda::Linear { weight: builder.matrix(&weight)?, bias })
    };
    let layer = |i: usize| {
        Ok(cuda::Layer {
            ln_1: norm(Some(i), Part::Ln1)?,
            c_attn: linear(i, Part::CAttn)?,
            c_proj: linear(i, Part::AttnCProj)?,
            ln_2: norm(Some(i), Part::Ln2)?,
            c_fc: linear(i, Part::CFc)?,
            mlp_c_proj: linear(i, Part::MlpCProj)?,
            scale: config.attention_scale(i),
        })
    };
    let embeddings = [table(TensorId::WTE)?, table(TensorId::WPE)?];
    let layers = (0..config.n_layer).map(layer).collect::<Result<_>>()?;
    let ln_f = norm(None, Part::LnF)?;
    let lm_head = (!config.tie_word_embeddings).then(|| table(TensorId::LM_HEAD)).transpose()?;
    builder.finish(config, embeddings, layers, ln_f, lm_head)
}

impl Gpt2 {
    /// The bytes of the weight matrices in memory, or in the mapped file, by type; a tied head counts once.
    #[must_use]
    pub fn weight_bytes(&self) -> Vec<(DType, usize)> {
        let Stored { blocks, embeddings, head } = self.stored();
        let head = (!self.config.tie_word_embeddings).then_some(head);
        let mut bytes: Vec<(DType, usize)> = vec![];
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

/// Hands out the tensors of a checkpoint that fits its configuration.
struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a Config,
    weights: Weights,
    place: Option<&'a Place>,
}

impl Loader<'_> {
    fn block(&self, i: usize) -> Result<Block> {
        Ok(Block {
            ln_1: self.norm(Some(i), Part::Ln1)?,
            attn: Attention {
                c_attn: self.linear(i, Part::CAttn)?,
                c_proj: self.linear(i, Part::AttnCProj)?,
                scale: self.config.attention_scale(i),
            },
            ln_2: self.norm(Some(i), Part::Ln2)?,
            mlp: Mlp {
                c_fc: self.linear(i, Part::CFc)?,
                c_proj: self.linear(i, Part::MlpCProj)?,
                act: self.config.activation_function,
            },
        })
    }

    fn norm(&self, layer: Option<usize>, part: Part) -> Result<LayerNorm> {
        let [weight, bias] = self.norm_vectors(layer, part)?;
        LayerNorm::new(weight, bias, self.config.layer_norm_epsilon as f32, self.place)
    }

    /// Weight and bias of a layer norm, (C).
    fn norm_vectors(&self, layer: Option<usize>, part: Part) -> Result<[Vec<f32>; 2]> {
        let vector = |kind| self.vector(TensorId { layer, part, kind });
        Ok([vector(Kind::Weight)?, vector(Kind::Bias)?])
    }

    fn linear(&self, layer: usize, part: Part) -> Result<Linear> {
        let (weight, bias) = self.linear_data(layer, part)?;
        Linear::new(&weight, bias, self.place)
    }

    /// Weight and, if it has one, bias of a `Conv1D`.
    fn linear_data(&self, layer: usize, part: Part) -> Result<(MatrixData, Option<Vec<f32>>)> {
        let bias = TensorId::in_block(layer, part, Kind::Bias);
        let has_bias = !bias.is_optional() || self.checkpoint.tensor(bias).is_some();
        let bias = has_bias.then(|| self.vector(bias)).transpose()?;
        Ok((self.matrix(TensorId::in_block(layer, part, Kind::Weight))?, bias))
    }

    fn matrix(&self, id: TensorId) -> Result<MatrixData> {
        let tensor = self.checkpoint.expect(id, self.config)?;
        let (bytes, placement) = self.weights.get(id).cloned().ok_or_else(|| Error::MissingTensor {
            origin: self.checkpoint.origin.clone(),
            name: tensor.name.clone(),
            expected: tensor.shape.clone(),
        })?;
        let (rows, columns) = (tensor.shape[0], tensor.shape[1]);
        let (inputs, outputs) = if id.is_conv1d() { (rows, columns) } else { (columns, rows) };
        Ok(MatrixData { bytes, dtype: placement.dtype, layout: placement.layout, inputs, outputs })
    }

    fn vector(&self, id: TensorId) -> Result<Vec<f32>> {
        let tensor = self.checkpoint.expect(id, self.config)?;
        let mut out = vec![0.0; tensor.shape[0]];
        tensor.read(&self.checkpoint.origin, 0, &mut out)?;
        Ok(out)
    }
}
