//! Writes a model for other programs: as GGUF for llama.cpp, as safetensors for transformers.

use std::borrow::Cow;
use std::path::Path;

use super::gguf::{self, Metadata, Value, Vocabulary};
use super::{Checkpoint, Tensor, TensorSpec, safetensors};
use crate::base::{DType, QuantizedType};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::inventory::TensorId;

/// A model to write: a checkpoint that [fits](Checkpoint::check) its configuration. The file gets all biases; those that
/// the model lacks are zeros.
#[derive(Debug, Clone, Copy)]
pub struct Export<'a> {
    /// The weights.
    pub checkpoint: &'a Checkpoint,
    /// Their configuration.
    pub config: &'a Config,
    /// The type of the matrices in the file.
    pub dtype: DType,
}

/// A tensor of the file: a stored one, or the zeros of a bias that the model lacks and other programs demand.
struct Part<'a> {
    spec: TensorSpec,
    source: Option<&'a Tensor>,
    /// Whether the matrix must be transposed.
    transpose: bool,
}

impl<'a> Export<'a> {
    /// Writes a GGUF file, including the tokenizer if there is one. Matrices that `dtype` does not fit get another type
    /// ([`QuantizedType::fitting`]); vectors and position embeddings are f32, as llama.cpp wants them.
    ///
    /// # Errors
    /// [`crate::Error::Unsupported`] for a model that llama.cpp would compute differently; errors of writing and
    /// converting.
    pub fn to_gguf(&self, path: &Path, name: &str, vocabulary: Option<&Vocabulary<'_>>) -> Result<()> {
        let mut metadata = Metadata::from_config(self.config)?;
        metadata.push("general.name", Value::String(name.to_owned()));
        if let Some(code) = self.dtype.llama_file_type() {
            metadata.push("general.file_type", Value::U32(code));
        }
        if self.dtype.is_quantized() {
            metadata.push("general.quantization_version", Value::U32(2));
        }
        if let Some(vocabulary) = vocabulary {
            metadata.push_vocabulary(vocabulary);
        }
        let parts = self.gguf_parts();
        let specs: Vec<TensorSpec> = parts.iter().map(|part| part.spec.clone()).collect();
        let written = gguf::write(path, &metadata, &specs, |place| self.bytes(&parts[place]));
        written.map_err(|error| self.cause(error))
    }

    /// Writes a safetensors file: tensors under `GPT2LMHeadModel`'s names, all of the same type.
    ///
    /// # Errors
    /// [`crate::Error::Unsupported`] for quantised types; errors of writing and converting.
    pub fn to_safetensors(&self, path: &Path) -> Result<()> {
        let parts: Vec<Part<'_>> = self
            .tensors()
            .map(|(id, source)| Part {
                spec: TensorSpec {
                    name: if id == TensorId::LM_HEAD { id.to_string() } else { format!("transformer.{id}") },
                    dtype: self.dtype,
                    shape: id.shape(self.config),
                },
                source,
                transpose: source.is_some_and(|tensor| tensor.transposed),
            })
            .collect();
        let specs: Vec<TensorSpec> = parts.iter().map(|part| part.spec.clone()).collect();
        let written = safetensors::write(path, &[("format", "pt")], &specs, |place| self.bytes(&parts[place]));
        written.map_err(|error| self.cause(error))
    }

    /// The most memory that writing takes, in bytes: tensors are read and converted one at a time.
    #[must_use]
    pub fn working_bytes(&self) -> u64 {
        let converted = |tensor: &Tensor| {
            let numbers: u64 = tensor.shape.iter().map(|n| *n as u64).product();
            // A matrix that the type does not fit gets another type, of at most 4 bytes a number.
            self.dtype.byte_len(&tensor.shape).map_or(4 * numbers, |bytes| bytes as u64)
        };
        let tensors = self.checkpoint.tensors();
        tensors.map(|(_, tensor)| tensor.bytes.len() as u64 + converted(tensor)).max().unwrap_or_default()
    }

    /// The tensors of the file: the stored ones, and those of biases that the model lacks.
    fn tensors(&self) -> impl Iterator<Item = (TensorId, Option<&'a Tensor>)> {
        let all = Config { bias: true, qkv_bias: true, ..self.config.clone() };
        let missing: Vec<_> = all.tensors().filter(|id| !self.config.has(*id)).map(|id| (id, None)).collect();
        self.checkpoint.tensors().map(|(id, tensor)| (id, Some(tensor))).chain(missing)
    }

    fn gguf_parts(&self) -> Vec<Part<'a>> {
        let part = |(id, source): (TensorId, Option<&'a Tensor>)| {
            let mut shape = id.shape(self.config);
            if id.is_conv1d() {
                shape.reverse();
            }
            let dtype = match shape.as_slice() {
                [_, inputs] if id != TensorId::WPE => {
                    QuantizedType::of(self.dtype).map_or(self.dtype, |kind| kind.fitting(*inputs))
                }
                _ => DType::F32,
            };
            let transpose = id.is_conv1d() && source.is_some_and(|tensor| !tensor.transposed);
            Part { spec: TensorSpec { name: id.gguf_name(), dtype, shape }, source, transpose }
        };
        self.tensors().map(part).collect()
    }

    fn bytes(&self, part: &Part<'a>) -> Result<Cow<'a, [u8]>> {
        let dtype = part.spec.dtype;
        let Some(tensor) = part.source else {
            return Ok(Cow::Owned(vec![0; dtype.byte_len(&part.spec.shape).unwrap_or_default()]));
        };
        let bytes = match tensor.dtype == dtype && !part.transpose {
            true => Cow::Borrowed(&*tensor.bytes),
            false => Cow::Owned(tensor.convert(&self.checkpoint.origin, dtype, part.transpose)?),
        };
        tensor.bytes.check_unchanged()?;
        Ok(bytes)
    }

    /// The cause of an error of writing: bytes of a file that was cut short cannot be written.
    fn cause(&self, error: Error) -> Error {
        let changed = self.checkpoint.tensors().find_map(|(_, tensor)| tensor.bytes.check_unchanged().err());
        changed.unwrap_or(error)
    }
}
