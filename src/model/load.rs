//! From a checkpoint to a model: chooses the backend, which gets its tensors from a [`Loader`].

use std::sync::Arc;

use super::Gpt2;
use super::candle::CandleNetwork;
#[cfg(cuda_kernels)]
use super::cuda;
use super::edits::Edits;
use super::host::HostNetwork;
use super::loader::Loader;
use super::network::{Network, Stored};
use super::weights::{Packing, Target, WeightType};
use crate::base::DType;
#[cfg(cuda_kernels)]
use crate::base::{FloatType, QuantizedType};
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::device::Backend;
use crate::error::Result;

/// How to load a model.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The type of the weight matrices. On the CPU, norms, biases, activations and sums are f32, except that products
    /// with quantised weights round activations to 8 bits, with a scale for each 32. Keys and values are f16 if weights
    /// are quantised or rounded to 16 bits, else f32.
    ///
    /// On an NVIDIA GPU, [`F16`](WeightType::F16) and [`BF16`](WeightType::BF16) are the type of weights, keys, values
    /// and the factors of products; the residual stream, norms, biases and sums are f32. On candle's other devices they
    /// are the type of everything, as in transformers. With other choices, everything but quantised matrices is f32.
    pub weights: WeightType,
    /// What computes.
    pub backend: Backend,
    /// When matrices are packed for the CPU's kernels.
    pub packing: Packing,
    /// Whether activations inside the blocks are to be changed or recorded ([`Edits`], [`Trace`](super::Trace)). On an
    /// NVIDIA GPU candle's operations then take the place of our kernels, which do not let anyone in between.
    pub hooks: bool,
}

impl Gpt2 {
    /// Builds the model that `config` describes from a checkpoint.
    ///
    /// For the CPU's kernels, matrices are packed into panels, in large pages if the system has them, now or later
    /// ([`Packing`]); for other devices, they are sent straight from the mapped file.
    ///
    /// # Errors
    /// Those of [`Checkpoint::check`]; [`Error::Format`](crate::Error::Format) for a tensor that is not stored as
    /// floating-point numbers, and for a file that changes meanwhile. The caller should check that there is enough memory ([`memory`](crate::memory)).
    pub fn load(config: Config, checkpoint: &Checkpoint, options: LoadOptions) -> Result<Self> {
        checkpoint.check(&config)?;
        let network = network(&config, checkpoint, &options)?;
        checkpoint.tensors().try_for_each(|(_, tensor)| tensor.bytes.check_unchanged())?;
        Ok(Self { config, network, edits: Edits::default() })
    }

    /// The bytes of the weight matrices, in memory or in the mapped file, by type; a tied head counts once.
    #[must_use]
    pub fn weight_bytes(&self) -> Vec<(DType, usize)> {
        let Stored { blocks, embeddings, head } = self.network.stored();
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

    /// The bytes of weights read to decode a token: the matrices of the blocks and the head.
    #[must_use]
    pub fn bytes_per_token(&self) -> usize {
        let Stored { blocks, head, .. } = self.network.stored();
        blocks.into_iter().chain([head]).map(|(_, size)| size).sum()
    }
}

fn network(config: &Config, checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Arc<dyn Network>> {
    #[cfg(cuda_kernels)]
    if let Some((gpu, numbers)) = gpu(options, checkpoint)? {
        let loader = Loader::new(checkpoint, config, WeightType::F32, Target::Device)?;
        return Ok(Arc::new(cuda::Network::load(&loader, gpu, numbers)?));
    }
    let device = match &options.backend {
        Backend::Kernels => {
            return Ok(Arc::new(HostNetwork::load(checkpoint, config, options.weights, options.packing)?));
        }
        Backend::Candle(device) => device,
        #[cfg(feature = "emulator")]
        Backend::Emulator => &candle_core::Device::Cpu,
    };
    let loader = Loader::new(checkpoint, config, options.weights, Target::Device)?;
    Ok(Arc::new(CandleNetwork::load(&loader, device, options.weights)?))
}

/// The GPU that runs the network, and its number type; `None` if candle or the CPU does. Quantised weights have no
/// kernels.
#[cfg(cuda_kernels)]
fn gpu(options: &LoadOptions, checkpoint: &Checkpoint) -> Result<Option<(cuda::Gpu, FloatType)>> {
    let quantized = checkpoint.tensors().any(|(_, tensor)| QuantizedType::of(tensor.dtype).is_some());
    let Some(numbers) = options.weights.on_gpu(quantized).filter(|_| !options.hooks) else { return Ok(None) };
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
