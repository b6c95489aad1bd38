//! Writes a model for other programs: as GGUF for llama.cpp, as safetensors for transformers.

use std::borrow::Cow;
use std::path::Path;

use super::gguf::{self, Metadata, Value, Vocabulary};
use super::{Checkpoint, Tensor, TensorSpec, safetensors};
use crate::base::{DType, QuantizedType};
use crate::config::Config;
use crate::error::Result;
use crate::inventory::{self, Kind, TensorId};

/// A model to write: a checkpoint that [fits](Checkpoint::check) its configuration.
#[derive(Debug, Clone, Copy)]
pub struct Export<'a> {
    /// The weights.
    pub checkpoint: &'a Checkpoint,
    /// Their configuration.
    pub config: &'a Config,
    /// The type of the matrices in the file.
    pub dtype: DType,
}

/// A tensor of the file: a stored one, or zero biases that the format demands and the model lacks.
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
        let parts = self.gguf_parts()?;
        let specs: Vec<TensorSpec> = parts.iter().map(|part| part.spec.clone()).collect();
        gguf::write(path, &metadata, &specs, |place| self.bytes(&parts[place]))
    }

    /// Writes a safetensors file: tensors under `GPT2LMHeadModel`'s names, all of the same type.
    ///
    /// # Errors
    /// [`crate::Error::Unsupported`] for quantised types; errors of writing and converting.
    pub fn to_safetensors(&self, path: &Path) -> Result<()> {
        let parts: Vec<Part<'_>> = self
            .tensors()
            .map(|(id, tensor)| Part {
                spec: TensorSpec {
                    name: if id == TensorId::LM_HEAD { id.to_string() } else { format!("transformer.{id}") },
                    dtype: self.dtype,
                    shape: tensor.shape.clone(),
                },
                source: Some(tensor),
                transpose: tensor.transposed,
            })
            .collect();
        let specs: Vec<TensorSpec> = parts.iter().map(|part| part.spec.clone()).collect();
        safetensors::write(path, &[("format", "pt")], &specs, |place| self.bytes(&parts[place]))
    }

    /// The most memory that writing takes, in bytes: tensors are read and converted one at a time.
    #[must_use]
    pub fn working_bytes(&self) -> u64 {
        let converted = |tensor: &Tensor| {
            let numbers: u64 = tensor.shape.iter().map(|n| *n as u64).product();
            // A matrix that the type does not fit gets another type, of at most 4 bytes a number.
            self.dtype.byte_len(&tensor.shape).map_or(4 * numbers, |bytes| bytes as u64)
        };
        self.tensors().map(|(_, tensor)| tensor.bytes.len() as u64 + converted(tensor)).max().unwrap_or_default()
    }

    /// The tensors of the model, without a tied head.
    fn tensors(&self) -> impl Iterator<Item = (TensorId, &'a Tensor)> {
        let tied = self.config.tie_word_embeddings;
        let known = self.checkpoint.tensors.iter().filter_map(|tensor| Some((TensorId::named(&tensor.name)?, tensor)));
        known.filter(move |(id, _)| !(tied && *id == TensorId::LM_HEAD))
    }

    fn gguf_parts(&self) -> Result<Vec<Part<'a>>> {
        let mut parts = vec![];
        for (id, tensor) in self.tensors() {
            let mut shape = tensor.shape.clone();
            if id.is_conv1d() {
                shape.reverse();
            }
            let dtype = match shape.as_slice() {
                [_, inputs] if id != TensorId::WPE => {
                    QuantizedType::of(self.dtype).map_or(self.dtype, |kind| kind.fitting(*inputs))
                }
                _ => DType::F32,
            };
            let transpose = id.is_conv1d() && !tensor.transposed;
            parts.push(Part {
                spec: TensorSpec { name: id.gguf_name(), dtype, shape },
                source: Some(tensor),
                transpose,
            });
        }
        // llama.cpp requires biases on queries, keys and values.
        let qkv_biases = (0..self.config.n_layer).map(|i| TensorId::in_block(i, inventory::Part::CAttn, Kind::Bias));
        for id in qkv_biases.filter(|id| self.checkpoint.tensor(*id).is_none()) {
            let spec = TensorSpec { name: id.gguf_name(), dtype: DType::F32, shape: vec![3 * self.config.n_embd] };
            parts.push(Part { spec, source: None, transpose: false });
        }
        Ok(parts)
    }

    fn bytes(&self, part: &Part<'a>) -> Result<Cow<'a, [u8]>> {
        let dtype = part.spec.dtype;
        Ok(match part.source {
            None => Cow::Owned(vec![0; dtype.byte_len(&part.spec.shape).unwrap_or_default()]),
            Some(tensor) if tensor.dtype == dtype && !part.transpose => Cow::Borrowed(&tensor.bytes),
            Some(tensor) => Cow::Owned(tensor.convert(&self.checkpoint.origin, dtype, part.transpose)?),
        })
    }
}
