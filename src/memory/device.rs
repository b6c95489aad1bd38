//! How much of an NVIDIA GPU's memory a model takes, computed without a GPU, and how much is free.

use serde::Serialize;

use super::{numbers, readable};
use crate::base::{DType, FloatType, QuantizedType};
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::device::Backend;
use crate::error::{Error, Result};
use crate::inventory::TensorId;
use crate::model::cuda_shape::{NetworkShape, PassBytes, PassRoom, matrix_bytes, vector_bytes};
use crate::model::{Placement, WeightType};

/// What CUDA, its libraries and the kernels take besides the model: measured as 563 to 642 MiB on an H200 (driver 580,
/// CUDA 13.0).
const CONTEXT_BYTES: u64 = 600 << 20;

/// How much of a GPU's memory a model takes. With quantised weights, candle does the allocating, and some parts are
/// unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceFootprint {
    /// The kind of device: `cuda`.
    pub device: &'static str,
    /// The type of the weight matrices: `f32`, `f16`, `bf16`, or the most common one if they are quantised.
    pub dtype: String,
    /// Matrices (padded for the kernels), norms and biases.
    pub weight_bytes: u64,
    /// Bytes of one position of one row in the key-value cache.
    pub kv_cache_bytes_per_token: u64,
    /// The cache of one row that fills the context, in whole allocations.
    pub kv_cache_bytes: u64,
    /// Buffers of a pass over a prompt of one row that fills the context.
    pub scratch_bytes: Option<u64>,
    /// What CUDA, its libraries and the kernels take besides the model.
    pub context_bytes: u64,
    /// The peak while loading: the weights so far, and one matrix as stored in the file.
    pub load_peak_bytes: Option<u64>,
    /// The peak of a run with one row whose prompt fills the context.
    pub peak_bytes: Option<u64>,
    /// The least free memory that it takes to load the model and run one token.
    #[serde(skip)]
    least_bytes: u64,
}

impl DeviceFootprint {
    /// The footprint of a checkpoint whose matrices are loaded as `weights`.
    #[must_use]
    pub fn of_checkpoint(config: &Config, checkpoint: &Checkpoint, weights: WeightType) -> Self {
        let stored = |id| checkpoint.tensor(id).map_or(DType::F32, |tensor| tensor.dtype);
        let quantized = checkpoint.tensors().any(|(_, tensor)| QuantizedType::of(tensor.dtype).is_some());
        match weights.on_gpu(quantized) {
            Some(numbers) => Self::of_kernels(config, stored, numbers),
            None => Self::of_candle(config, stored, weights),
        }
    }

    /// The footprint of an f32 checkpoint of this configuration.
    #[must_use]
    pub fn of_config(config: &Config, weights: WeightType) -> Self {
        let stored = |_| DType::F32;
        match weights.on_gpu(false) {
            Some(numbers) => Self::of_kernels(config, stored, numbers),
            None => Self::of_candle(config, stored, weights),
        }
    }

    fn of_kernels(config: &Config, stored: impl Fn(TensorId) -> DType, dtype: FloatType) -> Self {
        let (mut weight_bytes, mut load_peak) = (0, 0);
        for (id, shape) in config.tensors().map(|id| (id, id.shape(config))) {
            let [rows, columns] = *shape else {
                weight_bytes += vector_bytes(shape[0]) as u64;
                continue;
            };
            let (outputs, inputs) = if id.is_conv1d() { (columns, rows) } else { (rows, columns) };
            weight_bytes += matrix_bytes(outputs, inputs, dtype) as u64;
            // Sent as stored (except types that are widened on the way), and freed once converted.
            let sent = Placement::of(id, [rows, columns], stored(id), (false, false), WeightType::F32).dtype;
            load_peak = load_peak.max(weight_bytes + bytes(sent, &shape));
        }
        let shape = NetworkShape::new(config, dtype);
        let scratch = |tokens| PassBytes::new(&shape, PassRoom::of_prompt(&shape, tokens)).total() as u64;
        let (kv_cache_bytes, scratch_bytes) = (shape.full_cache_bytes() as u64, scratch(config.n_positions));
        let running = weight_bytes + kv_cache_bytes + scratch_bytes;
        Self {
            device: "cuda",
            dtype: dtype.name().to_owned(),
            weight_bytes,
            kv_cache_bytes_per_token: shape.position_bytes() as u64,
            kv_cache_bytes,
            scratch_bytes: Some(scratch_bytes),
            context_bytes: CONTEXT_BYTES,
            load_peak_bytes: Some(CONTEXT_BYTES + load_peak),
            peak_bytes: Some(CONTEXT_BYTES + running.max(load_peak)),
            least_bytes: load_peak.max(weight_bytes + shape.slab_bytes() as u64 + scratch(1)),
        }
    }

    /// With quantised weights, which only candle has kernels for.
    fn of_candle(config: &Config, stored: impl Fn(TensorId) -> DType, weights: WeightType) -> Self {
        let mut weight_bytes = 0;
        let mut first_matrix = DType::F32;
        for (id, shape) in config.tensors().map(|id| (id, id.shape(config))) {
            let [rows, columns] = *shape else {
                weight_bytes += 4 * numbers(&shape);
                continue;
            };
            let dtype = Placement::of(id, [rows, columns], stored(id), (false, false), weights).dtype;
            if id == TensorId::FIRST_MATRIX {
                first_matrix = dtype;
            }
            let is_head = id == TensorId::WTE && config.tie_word_embeddings;
            weight_bytes += match QuantizedType::of(dtype) {
                // The host looks up the rows of quantised embeddings.
                Some(_) if matches!(id, TensorId::WTE | TensorId::WPE) && !is_head => 0,
                Some(_) => bytes(dtype, &shape),
                None => 4 * numbers(&shape),
            };
        }
        let kv_cache_bytes_per_token = (config.n_layer * 2 * config.n_embd * size_of::<f32>()) as u64;
        Self {
            device: "cuda",
            dtype: first_matrix.to_string().to_lowercase(),
            weight_bytes,
            kv_cache_bytes_per_token,
            kv_cache_bytes: config.n_positions as u64 * kv_cache_bytes_per_token,
            scratch_bytes: None,
            context_bytes: CONTEXT_BYTES,
            load_peak_bytes: None,
            peak_bytes: None,
            least_bytes: weight_bytes,
        }
    }
}

/// Free bytes of the GPU's memory; `None` if main memory is used or the driver does not tell.
#[must_use]
pub fn free_on(backend: &Backend) -> Option<u64> {
    match backend {
        #[cfg(feature = "cuda")]
        Backend::Candle(candle_core::Device::Cuda(device)) => {
            let (free, _) = device.cuda_stream().context().mem_get_info().ok()?;
            Some(free as u64)
        }
        _ => None,
    }
}

/// Rejects a model that cannot fit the free memory of a GPU and names the types that would fit; `footprint` gives the
/// memory for a type.
///
/// # Errors
/// [`Error::Memory`], with what is needed and what is free.
pub fn require_on(
    backend: &Backend,
    name: &str,
    weights: WeightType,
    footprint: impl Fn(WeightType) -> DeviceFootprint,
) -> Result<()> {
    match free_on(backend) {
        Some(free) => check(name, weights, footprint, free),
        None => Ok(()),
    }
}

fn check(name: &str, weights: WeightType, footprint: impl Fn(WeightType) -> DeviceFootprint, free: u64) -> Result<()> {
    let needed = footprint(weights).least_bytes;
    if needed <= free {
        return Ok(());
    }
    let types = [("f16", WeightType::F16), ("bf16", WeightType::BF16)];
    let fitting = types.into_iter().filter_map(|(dtype, weights)| {
        let other = footprint(weights).least_bytes;
        (other <= free).then_some((dtype, other))
    });
    let (needed, free) = (readable(needed), readable(free));
    Err(Error::Memory {
        message: format!("{name} takes {needed} of GPU memory and {free} are free"),
        gpu: true,
        fitting: fitting.collect(),
    })
}

/// Bytes of a matrix, in either orientation.
fn bytes(dtype: DType, shape: &[usize]) -> u64 {
    numbers(shape) / dtype.block_len() as u64 * dtype.block_bytes() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Gpt2, LoadOptions};

    /// Widths and a vocabulary that need padding.
    fn config(tied: bool) -> Config {
        Config {
            vocab_size: 301,
            n_positions: 70,
            n_embd: 72,
            n_inner: 100,
            n_layer: 2,
            n_head: 3,
            tie_word_embeddings: tied,
            ..Config::named("gpt2").unwrap()
        }
    }

    /// The loaded model's own count of its matrices and vectors, padded to multiples of `padding`.
    fn loaded(config: &Config, weights: WeightType, backend: Backend, padding: usize) -> u64 {
        let checkpoint = Checkpoint::random(config, WeightType::F32, 0).unwrap();
        let model = Gpt2::load(config.clone(), &checkpoint, LoadOptions { weights, backend, ..LoadOptions::default() })
            .unwrap();
        let matrices: usize = model.weight_bytes().iter().map(|(_, bytes)| bytes).sum();
        let vectors = checkpoint.tensors().map(|(_, t)| t).filter(|t| t.shape.len() == 1);
        let vectors: usize = vectors.map(|t| 4 * t.shape[0].next_multiple_of(padding)).sum();
        (matrices + vectors) as u64
    }

    #[cfg(all(feature = "emulator", not(feature = "cuda")))]
    #[test]
    fn weights_take_what_was_predicted() {
        for tied in [true, false] {
            let config = config(tied);
            for weights in [WeightType::Stored, WeightType::F32, WeightType::F16, WeightType::BF16] {
                let predicted = DeviceFootprint::of_config(&config, weights).weight_bytes;
                assert_eq!(predicted, loaded(&config, weights, Backend::Emulator, 32), "{weights:?}");
            }
        }
    }

    /// On candle's CPU backend, which is loaded like a GPU.
    #[test]
    fn quantised_weights_take_what_was_predicted_and_the_rest_is_not_known() {
        for kind in [QuantizedType::Q8_0, QuantizedType::Q4K] {
            let config = Config { n_embd: 256, n_head: 4, ..config(true) };
            let weights = WeightType::Quantized(kind);
            let predicted = DeviceFootprint::of_config(&config, weights);
            assert_eq!(predicted.weight_bytes, loaded(&config, weights, Backend::Candle(candle_core::Device::Cpu), 1));
            assert_eq!(predicted.dtype, kind.dtype().to_string().to_lowercase());
            assert_eq!((predicted.scratch_bytes, predicted.peak_bytes), (None, None));
            // An embedding that is not also the head stays with the host.
            let untied = Config { tie_word_embeddings: false, ..config };
            assert_eq!(DeviceFootprint::of_config(&untied, weights).weight_bytes, predicted.weight_bytes);
        }
    }

    /// Counted by hand.
    #[test]
    fn gpt2_takes_its_weights_its_cache_and_its_buffers() {
        let config = Config::named("gpt2").unwrap();
        let predicted = DeviceFootprint::of_config(&config, WeightType::F16);
        let (c, layers, vectors) = (768, 12, 13 * 768);
        assert_eq!(
            predicted.weight_bytes,
            2 * ((50304 + 1024) * c + layers * 12 * c * c) + 4 * (layers * vectors + 2 * c)
        );
        assert_eq!(predicted.kv_cache_bytes_per_token, 2 * layers * 2 * c);
        // Blocks of 64 positions, as many as fit a slab of 64 MiB: the context has 16 of them.
        let block = 64 * predicted.kv_cache_bytes_per_token;
        assert_eq!(predicted.kv_cache_bytes, 16 * block);
        let running = predicted.weight_bytes + predicted.kv_cache_bytes + predicted.scratch_bytes.unwrap();
        assert_eq!(predicted.peak_bytes, Some(predicted.context_bytes + running));
        // While a matrix is converted, its copy from the file is there too; the largest comes first.
        assert!(predicted.load_peak_bytes.unwrap() - predicted.context_bytes > predicted.weight_bytes);
        let in_f32 = DeviceFootprint::of_config(&config, WeightType::Stored);
        assert_eq!((&*in_f32.dtype, in_f32.kv_cache_bytes), ("f32", 28 * 2 * block));
    }

    #[test]
    fn a_model_that_cannot_fit_is_refused_and_types_that_fit_are_named() {
        let config = Config::named("gpt2-xl").unwrap();
        let refusal = |megabytes: u64| {
            let footprint = |weights| DeviceFootprint::of_config(&config, weights);
            match check("gpt2-xl", WeightType::F32, footprint, megabytes * 1_000_000) {
                Err(Error::Memory { message, gpu: true, fitting }) => Some((message, fitting)),
                other => other.map(|()| None).expect("no other error"),
            }
        };
        assert_eq!(refusal(7000), None);
        let [f32, f16] =
            [WeightType::F32, WeightType::F16].map(|weights| DeviceFootprint::of_config(&config, weights).least_bytes);
        let megabytes = |bytes| bytes / 1_000_000;
        assert!((6200..6500).contains(&megabytes(f32)) && (3100..3300).contains(&megabytes(f16)), "{f32} {f16}");
        let message = format!("gpt2-xl takes {} of GPU memory and 4.00 GB are free", readable(f32));
        assert_eq!(refusal(4000).unwrap(), (message, vec![("f16", f16), ("bf16", f16)]));
        assert_eq!(refusal(1000).unwrap().1, []);
        // A device without a limit rejects nothing.
        let footprint = |weights| DeviceFootprint::of_config(&config, weights);
        assert!(require_on(&Backend::Kernels, "gpt2-xl", WeightType::F32, footprint).is_ok());
    }
}
