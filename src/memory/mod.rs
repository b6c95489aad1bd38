//! How much memory a model takes, computed before anything is loaded, and how much is available.

mod device;

pub use device::{DeviceFootprint, free_on, require_on};
use serde::Serialize;

pub use crate::base::memory::{Available, available, peak, readable, require_bytes};
use crate::base::{DType, QuantizedType};
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::inventory::TensorId;
use crate::model::{Placement, WeightType};

/// What the program itself takes: code, the tokenizer's tables, buffers that do not grow with the model. Measured.
const PROGRAM_BYTES: u64 = 11 << 20;

/// How much memory a model takes on the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Footprint {
    /// Weights as stored in the file, either used in place in the mapped file or copied into large pages: one copy
    /// either way. Every token reads all of them, so they count in full.
    pub mapped_bytes: u64,
    /// Weights in the process's memory: norms, biases, and what is converted at load or built into the program.
    pub loaded_bytes: u64,
    /// The program without the model.
    pub program_bytes: u64,
    /// Bytes of one position in the key-value cache.
    pub kv_cache_bytes_per_token: u64,
    /// Bytes of activations for each prompt token while the prompt is processed.
    pub activation_bytes_per_token: u64,
    /// The peak while loading: what is loaded, and the tensor being read.
    pub load_peak_bytes: u64,
    /// The peak of a run whose prompt fills the context.
    pub peak_bytes: u64,
}

/// A tensor as stored.
struct Stored {
    id: TensorId,
    dtype: DType,
    shape: Vec<usize>,
    transposed: bool,
    packed: bool,
    bytes: u64,
    /// Whether it is in a mapped file, whose memory can be released after reading.
    mapped: bool,
}

impl Footprint {
    /// The footprint of a checkpoint whose matrices are loaded as `weights`.
    #[must_use]
    pub fn of_checkpoint(config: &Config, checkpoint: &Checkpoint, weights: WeightType) -> Self {
        let stored = checkpoint.tensors().map(|(id, tensor)| Stored {
            id,
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
            transposed: tensor.transposed,
            packed: tensor.packed,
            bytes: tensor.bytes.len() as u64,
            mapped: tensor.bytes.is_mapped(),
        });
        Self::new(config, stored, weights)
    }

    /// The footprint of an f32 checkpoint of this configuration.
    #[must_use]
    pub fn of_config(config: &Config, weights: WeightType) -> Self {
        let stored = config.tensors().map(|id| {
            let shape = id.shape(config);
            let bytes = 4 * numbers(&shape);
            Stored { id, dtype: DType::F32, shape, transposed: false, packed: false, bytes, mapped: true }
        });
        Self::new(config, stored, weights)
    }

    fn new(config: &Config, tensors: impl Iterator<Item = Stored>, weights: WeightType) -> Self {
        let [c, inner, layers, positions] =
            [config.n_embd, config.n_inner, config.n_layer, config.n_positions].map(|n| n as u64);
        let (mut mapped, mut loaded, mut load_peak) = (0, 0, 0);
        let mut first_matrix = None;
        for tensor in tensors.filter(|t| !(config.tie_word_embeddings && t.id == TensorId::LM_HEAD)) {
            let [outer, width] = tensor.shape[..] else {
                loaded += 4 * numbers(&tensor.shape);
                continue;
            };
            if tensor.id == TensorId::FIRST_MATRIX {
                first_matrix = Some(tensor.dtype);
            }
            let place =
                Placement::of(tensor.id, [outer, width], tensor.dtype, (tensor.transposed, tensor.packed), weights);
            match (place.as_stored, tensor.mapped) {
                (true, true) => mapped += tensor.bytes,
                (true, false) => loaded += tensor.bytes,
                (false, mapped) => {
                    loaded += place.bytes as u64 + tensor.bytes;
                    load_peak = load_peak.max(loaded);
                    loaded -= if mapped { tensor.bytes } else { 0 };
                }
            }
        }
        // What a block holds at once: the residual stream before and after attention, queries, keys, values, their mix,
        // the MLP's inner layer and its result.
        let widened = 4 * (7 * c + inner);
        // Rounded to 8 bits for products with quantised weights, with a scale and a total for each 32, and sums of 16.
        let rounded = if matches!(weights, WeightType::Quantized(_)) { inner * 3 / 2 } else { 0 };
        let activation_bytes_per_token = widened + rounded;
        let kv_cache_bytes_per_token = layers * 2 * c * weights.cache_type(first_matrix).size() as u64;
        let running = mapped + loaded + positions * (kv_cache_bytes_per_token + activation_bytes_per_token);
        Self {
            mapped_bytes: mapped,
            loaded_bytes: loaded,
            program_bytes: PROGRAM_BYTES,
            kv_cache_bytes_per_token,
            activation_bytes_per_token,
            load_peak_bytes: PROGRAM_BYTES + load_peak.max(loaded),
            peak_bytes: PROGRAM_BYTES + running.max(load_peak),
        }
    }

    /// The least memory for a run: everything except cache and activations, which depend on the prompt.
    #[must_use]
    pub fn least_bytes(&self) -> u64 {
        (self.program_bytes + self.mapped_bytes + self.loaded_bytes).max(self.load_peak_bytes)
    }

    /// The address space needed besides the mapped file.
    fn unmapped_bytes(&self) -> u64 {
        self.load_peak_bytes + self.mapped_bytes
    }

    fn fits(&self, available: &Available) -> bool {
        self.least_bytes() <= available.bytes
            && available.address_space.is_none_or(|left| self.unmapped_bytes() <= left)
    }
}

/// Rejects a model that cannot fit and names the types that would; `footprint` gives the memory for a type.
///
/// # Errors
/// [`Error::Memory`], with what is needed and what is available.
pub fn require(name: &str, weights: WeightType, footprint: impl Fn(WeightType) -> Footprint) -> Result<()> {
    match available() {
        Some(available) => check(name, weights, footprint, &available),
        None => Ok(()),
    }
}

fn check(
    name: &str,
    weights: WeightType,
    footprint: impl Fn(WeightType) -> Footprint,
    available: &Available,
) -> Result<()> {
    let own = footprint(weights);
    if own.fits(available) {
        return Ok(());
    }
    let (needed, left, limit) = match available.address_space {
        Some(left) if own.unmapped_bytes() > left => (own.unmapped_bytes(), left, "address space (ulimit -v)"),
        _ => (own.least_bytes(), available.bytes, available.limit),
    };
    let types = [
        ("f32", WeightType::F32),
        ("f16", WeightType::F16),
        ("q8_0", WeightType::Quantized(QuantizedType::Q8_0)),
        ("q6_k", WeightType::Quantized(QuantizedType::Q6K)),
        ("q4_k", WeightType::Quantized(QuantizedType::Q4K)),
    ];
    let fitting = types.into_iter().filter_map(|(dtype, weights)| {
        let other = footprint(weights);
        other.fits(available).then(|| (dtype, other.least_bytes()))
    });
    let (needed, left) = (readable(needed), readable(left));
    Err(Error::Memory {
        message: format!("{name} takes {needed} of memory and {left} are available ({limit})"),
        gpu: false,
        fitting: fitting.collect(),
    })
}

fn numbers(shape: &[usize]) -> u64 {
    shape.iter().map(|n| *n as u64).product()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Gpt2, LoadOptions};

    const TYPES: [WeightType; 7] = [
        WeightType::Stored,
        WeightType::F32,
        WeightType::F16,
        WeightType::BF16,
        WeightType::Quantized(QuantizedType::Q8_0),
        WeightType::Quantized(QuantizedType::Q6K),
        WeightType::Quantized(QuantizedType::Q4K),
    ];

    /// The loaded model's weights take what was predicted.
    #[test]
    fn weights_take_what_was_predicted() {
        let config = Config {
            vocab_size: 301,
            n_embd: 256,
            n_inner: 96,
            n_layer: 2,
            n_head: 4,
            ..Config::named("gpt2").unwrap()
        };
        for tied in [true, false] {
            let config = Config { tie_word_embeddings: tied, ..config.clone() };
            let checkpoint = Checkpoint::random(&config, WeightType::F32, 0).unwrap();
            let stored: u64 = checkpoint.tensors().map(|(_, t)| t.bytes.len() as u64).sum();
            let vectors: u64 =
                checkpoint.tensors().map(|(_, t)| t).filter(|t| t.shape.len() == 1).map(|t| t.bytes.len() as u64).sum();
            for weights in TYPES {
                let model =
                    Gpt2::load(config.clone(), &checkpoint, LoadOptions { weights, ..LoadOptions::default() }).unwrap();
                let matrices: usize = model.weight_bytes().iter().map(|(_, bytes)| bytes).sum();
                let predicted = Footprint::of_config(&config, weights);
                assert_eq!(predicted.mapped_bytes + predicted.loaded_bytes, matrices as u64 + vectors, "{weights:?}");
                // Random weights are in memory: those that are converted stay there beside the result.
                let in_memory = Footprint::of_checkpoint(&config, &checkpoint, weights);
                assert_eq!(in_memory.mapped_bytes, 0);
                assert!(in_memory.loaded_bytes <= stored + matrices as u64, "{weights:?}");
            }
        }
    }

    #[test]
    fn a_model_that_cannot_fit_is_refused_and_types_that_fit_are_named() {
        let config = Config::named("gpt2").unwrap();
        let refusal = |megabytes: u64, address_space: Option<u64>| {
            let address_space = address_space.map(|n| n * 1_000_000);
            let available = Available { bytes: megabytes * 1_000_000, limit: "machine", address_space };
            let footprint = |weights| Footprint::of_config(&config, weights);
            match check("m", WeightType::F32, footprint, &available) {
                Err(Error::Memory { message, gpu: false, fitting }) => Some((message, fitting)),
                other => other.map(|()| None).expect("no other error"),
            }
        };
        assert_eq!(refusal(520, None), None);
        let (message, fitting) = refusal(505, None).unwrap();
        assert_eq!(message, "m takes 509.29 MB of memory and 505.00 MB are available (machine)");
        let megabytes: Vec<_> = fitting.iter().map(|(dtype, bytes)| (*dtype, bytes.div_ceil(1_000_000))).collect();
        assert_eq!(megabytes, [("f16", 271), ("q8_0", 207), ("q6_k", 198), ("q4_k", 188)]);
        assert_eq!(refusal(30, None).unwrap().1, []);
        assert_eq!(refusal(9000, Some(520)), None);
        let (message, _) = refusal(9000, Some(500)).unwrap();
        assert!(message.contains("500.00 MB are available (address space (ulimit -v))"), "{message}");
    }
}
