//! What tells models apart that compute different numbers.

use std::ops::Range;

use half::{bf16, f16};
use sha2::{Digest, Sha256};

use super::weights::{Layout, Packing, Placement, Target, WeightType};
use crate::base::{DType, QuantizedType, pool};
use crate::checkpoint::{Checkpoint, Tensor};
use crate::config::Config;
use crate::error::Result;
use crate::inventory::{Kind, TensorId};

/// Roughly how many numbers are hashed in one step. It is a part of what identities are: another would change them all.
const STEP: usize = 1 << 16;

/// Steps are a multiple of this many rows: the longest block of a quantised format, which may lie across rows.
const ROWS: usize = 256;

/// Identifies what a model computes on the CPU: the first half of a SHA-256 over its configuration and every weight as
/// it is multiplied.
///
/// It is the same however the weights are stored, as long as they are the same numbers: in whichever form of checkpoint,
/// as f16 or widened to f32, quantised when loaded or by `gpt2 convert`, with biases of zeros or without. Unlike
/// [`Checkpoint::fingerprint`], which samples the stored bytes so that a run over rows starts at once, it reads them
/// all: another weight anywhere makes another model.
///
/// # Errors
/// Those of [`Gpt2::load`](super::Gpt2::load).
pub fn identity(config: &Config, checkpoint: &Checkpoint, weights: WeightType) -> Result<[u8; 16]> {
    checkpoint.check(config)?;
    let cache = weights.cache_type(checkpoint.tensor(TensorId::FIRST_MATRIX).map(|tensor| tensor.dtype));
    let mut hash = Sha256::new();
    // The other dimensions are those of tensors.
    hash.update(format!(
        "{} {} {} {:08x} {} {} {} {}\0",
        config.n_layer,
        config.n_head,
        config.activation_function.name(),
        (config.layer_norm_epsilon as f32).to_bits(),
        config.scale_attn_weights,
        config.scale_attn_by_inverse_layer_idx,
        config.tie_word_embeddings,
        cache.name(),
    ));
    for id in config.tensors() {
        let tensor = checkpoint.expect(id, config)?;
        let numbers = Numbers::new(id, tensor, checkpoint.origin(), weights);
        if let Some(digest) = numbers.digest(id.kind == Kind::Bias)? {
            hash.update(format!("{id} {:?} {}\0", id.shape(config), numbers.kind()));
            hash.update(digest);
        }
    }
    Ok(*hash.finalize().first_chunk().expect("a SHA-256 has 32 bytes"))
}

/// The type that the weights of a checkpoint have when they are loaded as [`WeightType::Stored`]: one that gives the same
/// [`identity`], from other forms of the model as well. They stay `Stored` if they are of several quantised types.
///
/// # Errors
/// Those of [`identity`].
pub fn settled(config: &Config, checkpoint: &Checkpoint, weights: WeightType) -> Result<WeightType> {
    checkpoint.check(config)?;
    let stored = checkpoint.tensor(TensorId::FIRST_MATRIX).and_then(|tensor| QuantizedType::of(tensor.dtype));
    let settled = match (weights, stored) {
        (WeightType::Stored, None) => return Ok(WeightType::F32),
        (WeightType::Stored, Some(kind)) => WeightType::Quantized(kind),
        (weights, _) => return Ok(weights),
    };
    for id in config.tensors() {
        let tensor = checkpoint.expect(id, config)?;
        let kind = |weights| Numbers::new(id, tensor, checkpoint.origin(), weights).kind();
        if kind(settled) != kind(WeightType::Stored) {
            return Ok(WeightType::Stored);
        }
    }
    Ok(settled)
}

/// The numbers of a tensor as they are multiplied, in an order that does not depend on how they are stored: row by row,
/// those of a `Conv1D` (in, out), or (out, in) if quantised.
struct Numbers<'a> {
    tensor: &'a Tensor,
    origin: &'a str,
    dtype: DType,
    transpose: bool,
    rows: usize,
    width: usize,
}

impl<'a> Numbers<'a> {
    fn new(id: TensorId, tensor: &'a Tensor, origin: &'a str, weights: WeightType) -> Self {
        let (rows, width) = tensor.stored_dims();
        let (dtype, transpose) = match Placement::of_tensor(id, tensor, weights, Target::Kernels(Packing::AtOnce)) {
            None => (DType::F32, false),
            Some(placement) => {
                let by_output = QuantizedType::of(placement.dtype).is_some();
                let is_by_output = placement.stored_layout == Layout::OutIn;
                (placement.dtype, id.is_conv1d() && by_output != is_by_output)
            }
        };
        let (rows, width) = if transpose { (width, rows) } else { (rows, width) };
        Self { tensor, origin, dtype, transpose, rows, width }
    }

    /// How they are multiplied: 16-bit numbers become f32 on the way.
    fn kind(&self) -> DType {
        if QuantizedType::of(self.dtype).is_some() { self.dtype } else { DType::F32 }
    }

    /// The hash of all numbers; none if they are zeros that `may_be_missing`.
    fn digest(&self, may_be_missing: bool) -> Result<Option<[u8; 32]>> {
        let step = (STEP / self.width.max(1)).max(1).next_multiple_of(ROWS);
        let starts = (0..self.rows).step_by(step);
        let mut steps: Vec<_> = starts.map(|start| (start..self.rows.min(start + step), Ok(None))).collect();
        pool::for_each(self.rows * self.width, &mut steps, |(rows, digest)| {
            *digest = self.bytes(rows.clone()).map(|bytes| {
                let is_zero = may_be_missing && bytes.iter().all(|byte| *byte == 0);
                (!is_zero).then(|| Sha256::digest(&bytes))
            });
        });
        self.tensor.bytes.release();
        let (mut all, mut some) = (Sha256::new(), !may_be_missing);
        for (_, digest) in steps {
            let digest = digest?;
            some |= digest.is_some();
            all.update(digest.unwrap_or_default());
        }
        Ok(some.then(|| all.finalize().into()))
    }

    /// Some rows: f32, or blocks.
    fn bytes(&self, rows: Range<usize>) -> Result<Vec<u8>> {
        let dtype = self.dtype;
        let bytes = if dtype == self.tensor.dtype && !self.transpose {
            let len = dtype.block_len();
            self.tensor.blocks(rows.start * self.width / len..rows.end * self.width / len).into_owned()
        } else {
            let mut bytes = vec![0; dtype.byte_len(&[rows.len(), self.width]).unwrap_or_default()];
            self.tensor.convert_rows(self.origin, dtype, self.transpose, rows, &mut bytes)?;
            bytes
        };
        let widen = |f: fn([u8; 2]) -> f32| {
            bytes.as_chunks().0.iter().flat_map(|number: &[u8; 2]| f(*number).to_le_bytes()).collect()
        };
        Ok(match dtype {
            DType::F16 => widen(|number| f16::from_le_bytes(number).to_f32()),
            DType::BF16 => widen(|number| bf16::from_le_bytes(number).to_f32()),
            _ => bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::base::FloatType;
    use crate::checkpoint::export::Export;
    use crate::source::{OpenedModel, SourceOptions, open};

    fn tiny(name: &str) -> OpenedModel {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny").join(name);
        opened(&folder)
    }

    fn opened(path: &Path) -> OpenedModel {
        open(path.to_str().unwrap(), &SourceOptions::default()).unwrap()
    }

    fn of(model: &OpenedModel, weights: WeightType) -> [u8; 16] {
        identity(&model.config, &model.checkpoint, weights).unwrap()
    }

    const TYPES: [WeightType; 6] = [
        WeightType::F32,
        WeightType::F16,
        WeightType::BF16,
        WeightType::Quantized(QuantizedType::Q8_0),
        WeightType::Quantized(QuantizedType::Q6K),
        WeightType::Quantized(QuantizedType::Q4K),
    ];

    /// Wide enough for every quantised format, with each weight different.
    fn random() -> (Config, Checkpoint) {
        let config = Config {
            vocab_size: 700,
            n_positions: 16,
            n_embd: 256,
            n_layer: 1,
            n_head: 4,
            n_inner: 512,
            ..Config::named("gpt2").unwrap()
        };
        let checkpoint = Checkpoint::random(&config, WeightType::F32, 3).unwrap();
        (config, checkpoint)
    }

    #[test]
    fn a_conversion_keeps_what_is_computed() {
        let (config, checkpoint) = random();
        let folder = tempfile::tempdir().unwrap();
        let mut seen = vec![];
        for weights in TYPES {
            let loaded = identity(&config, &checkpoint, weights).unwrap();
            assert!(!seen.contains(&loaded), "{weights:?}");
            seen.push(loaded);
            let (dtype, again) = match weights {
                WeightType::Quantized(kind) => (kind.dtype(), WeightType::Stored),
                WeightType::Float(float) => (float.dtype(), weights),
                WeightType::Stored => continue,
            };
            let export = Export { checkpoint: &checkpoint, config: &config, dtype };
            let gguf = folder.path().join(format!("{dtype}.gguf"));
            export.to_gguf(&gguf, "random", None).unwrap();
            assert_eq!(of(&opened(&gguf), again), loaded, "{weights:?} from GGUF");
            // Whoever asks for what it is gets the same.
            assert_eq!(of(&opened(&gguf), weights), loaded, "{weights:?} from GGUF");
            let mut stored = opened(&gguf).checkpoint;
            assert_eq!(settled(&config, &stored, again).unwrap(), weights, "{weights:?} from GGUF");
            if again == WeightType::Stored {
                // No type does the same as several.
                stored.replace(TensorId::WTE, checkpoint.expect(TensorId::WTE, &config).unwrap().clone());
                assert_eq!(settled(&config, &stored, again).unwrap(), WeightType::Stored);
            }
            if FloatType::of(dtype).is_some() {
                let own = folder.path().join(dtype.to_string());
                std::fs::create_dir(&own).unwrap();
                let path = own.join("model.safetensors");
                export.to_safetensors(&path).unwrap();
                std::fs::write(own.join("config.json"), config.to_json().unwrap()).unwrap();
                assert_eq!(of(&opened(&own), again), loaded, "{weights:?} from safetensors");
            }
            let own = folder.path().join(format!("packed-{dtype}"));
            std::fs::create_dir(&own).unwrap();
            let path = own.join("model.safetensors");
            export.to_packed(&path).unwrap();
            std::fs::write(own.join("config.json"), config.to_json().unwrap()).unwrap();
            assert_eq!(of(&opened(&own), again), loaded, "{weights:?} from a packed file");
        }
    }

    #[test]
    fn what_is_stored_in_16_bits_is_the_same_model_in_32() {
        let model = tiny("untied_f16");
        assert_eq!(of(&model, WeightType::Stored), of(&model, WeightType::F32));
        // Keys and values are f16 then.
        assert_ne!(of(&model, WeightType::F16), of(&model, WeightType::F32));
    }

    #[test]
    fn any_weight_and_any_part_of_the_configuration_counts() {
        let OpenedModel { config, checkpoint, .. } = tiny("base");
        let plain = identity(&config, &checkpoint, WeightType::F32).unwrap();
        for config in [
            Config { n_head: if config.n_head == 1 { 2 } else { 1 }, ..config.clone() },
            Config { layer_norm_epsilon: 2e-5, ..config.clone() },
            Config { scale_attn_by_inverse_layer_idx: !config.scale_attn_by_inverse_layer_idx, ..config.clone() },
        ] {
            assert_ne!(identity(&config, &checkpoint, WeightType::F32).unwrap(), plain);
        }
        for id in config.tensors() {
            let tensor = checkpoint.expect(id, &config).unwrap();
            let mut bytes = tensor.bytes.to_vec();
            // The lowest bit of a number in the middle.
            let middle = bytes.len() / 8 * 4;
            bytes[middle] ^= 1;
            let mut changed = checkpoint.clone();
            changed.replace(id, Tensor { bytes: bytes.into(), ..tensor.clone() });
            assert_ne!(identity(&config, &changed, WeightType::F32).unwrap(), plain, "{id}");
        }
    }
}
