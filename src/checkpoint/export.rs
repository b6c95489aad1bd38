//! A model written for other programs: GGUF, as llama.cpp loads it, and safetensors, as transformers does.

use std::borrow::Cow;
use std::path::Path;

use super::gguf::{self, Metadata, Value, Vocabulary, gguf_name};
use super::{Checkpoint, StorageType, Tensor, TensorSpec, safetensors};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::kernels::quantized::QuantizedType;

/// A model to be written: a checkpoint that fits its configuration ([`Config::check`]).
#[derive(Debug, Clone, Copy)]
pub struct Export<'a> {
    /// The weights.
    pub checkpoint: &'a Checkpoint,
    /// Their configuration.
    pub config: &'a Config,
    /// The type of the matrices in the file.
    pub dtype: StorageType,
}

/// A tensor of the file: what is stored, or biases of zero that the format demands and the model lacks.
struct Part<'a> {
    spec: TensorSpec,
    source: Option<&'a Tensor>,
    /// Whether the matrix must be turned.
    transpose: bool,
}

impl<'a> Export<'a> {
    /// Writes a GGUF file with the tokenizer, if there is one, inside. Matrices that the type does not fit
    /// ([`QuantizedType::fitting`]) have another; vectors and position embeddings are f32, as llama.cpp wants them.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a model that llama.cpp would compute otherwise, and what writing and converting return.
    pub fn to_gguf(&self, path: &Path, name: &str, vocabulary: Option<&Vocabulary<'_>>) -> Result<()> {
        let mut metadata = Metadata::from_config(self.config)?;
        metadata.push("general.name", Value::String(name.to_owned()));
        if let Some(code) = file_type(self.dtype) {
            metadata.push("general.file_type", Value::U32(code));
        }
        if self.dtype.block_len() > 1 {
            metadata.push("general.quantization_version", Value::U32(2));
        }
        if let Some(vocabulary) = vocabulary {
            metadata.push_vocabulary(vocabulary);
        }
        let parts = self.gguf_parts()?;
        let specs: Vec<TensorSpec> = parts.iter().map(|part| part.spec.clone()).collect();
        gguf::write(path, &metadata, &specs, |place| self.bytes(&parts[place]))
    }

    /// Writes a safetensors file: tensors under the names of `GPT2LMHeadModel`, all of the same type.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for quantised types, and what writing and converting return.
    pub fn to_safetensors(&self, path: &Path) -> Result<()> {
        let parts: Vec<Part<'_>> = self
            .tensors()
            .map(|tensor| Part {
                spec: TensorSpec {
                    name: match tensor.name.as_str() {
                        name @ "lm_head.weight" => name.to_owned(),
                        name => format!("transformer.{name}"),
                    },
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

    /// The most memory that writing takes: one tensor after the other is converted, and of the file only that one is read.
    #[must_use]
    pub fn working_bytes(&self) -> u64 {
        let converted = |tensor: &Tensor| {
            let numbers: u64 = tensor.shape.iter().map(|n| *n as u64).product();
            // What the type does not fit becomes another one, of at most 4 bytes a number.
            self.dtype.byte_len(&tensor.shape).map_or(4 * numbers, |bytes| bytes as u64)
        };
        self.tensors().map(|tensor| tensor.bytes.len() as u64 + converted(tensor)).max().unwrap_or_default()
    }

    /// The tensors of the model; a tied head is not one of them.
    fn tensors(&self) -> impl Iterator<Item = &'a Tensor> {
        let tied = self.config.tie_word_embeddings;
        self.checkpoint.tensors.iter().filter(move |tensor| !(tied && tensor.name == "lm_head.weight"))
    }

    fn gguf_parts(&self) -> Result<Vec<Part<'a>>> {
        let mut parts = vec![];
        for tensor in self.tensors() {
            let name = gguf_name(&tensor.name).ok_or_else(|| {
                Error::Unsupported(format!(
                    "tensor `{}` has no name in GGUF; convert to safetensors instead",
                    tensor.name
                ))
            })?;
            let mut shape = tensor.shape.clone();
            let in_block = tensor.name.starts_with("h.") && shape.len() == 2;
            if in_block {
                shape.reverse();
            }
            let dtype = match shape.as_slice() {
                [_, inputs] if tensor.name != "wpe.weight" => {
                    QuantizedType::of(self.dtype).map_or(self.dtype, |kind| kind.fitting(*inputs))
                }
                _ => StorageType::F32,
            };
            let transpose = in_block && !tensor.transposed;
            parts.push(Part { spec: TensorSpec { name, dtype, shape }, source: Some(tensor), transpose });
        }
        // llama.cpp knows no model without a bias on queries, keys and values.
        for i in (0..self.config.n_layer).filter(|i| self.checkpoint.get(&format!("h.{i}.attn.c_attn.bias")).is_none())
        {
            let name = format!("blk.{i}.attn_qkv.bias");
            let spec = TensorSpec { name, dtype: StorageType::F32, shape: vec![3 * self.config.n_embd] };
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

/// llama.cpp's `general.file_type` (`enum llama_ftype`).
fn file_type(dtype: StorageType) -> Option<u32> {
    match dtype {
        StorageType::F32 => Some(0),
        StorageType::F16 => Some(1),
        StorageType::Q8_0 => Some(7),
        StorageType::Q4K => Some(14),
        StorageType::Q6K => Some(18),
        StorageType::BF16 => Some(32),
        _ => None,
    }
}
