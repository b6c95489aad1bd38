//! Writes a model for other programs: as GGUF for llama.cpp, as safetensors for transformers.

use std::borrow::Cow;
use std::path::Path;

use super::gguf::{self, Metadata, Value, Vocabulary};
use super::{Checkpoint, Tensor, TensorSpec, packed, packing, safetensors};
use crate::base::{DType, FloatType, QuantizedType, panels};
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

/// A tensor of a packed file.
struct PackedPart<'a> {
    spec: TensorSpec,
    source: Option<&'a Tensor>,
    /// The type of its numbers, if they lie in panels.
    panels: Option<DType>,
    is_conv1d: bool,
}

/// Where the data of a packed file begin: a page of memory.
const PAGE: usize = 4096;

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

    /// Writes a packed safetensors file: matrices as the CPU's kernels read them, in any type (`packed.rs`).
    ///
    /// # Errors
    /// Errors of writing and converting.
    pub fn to_packed(&self, path: &Path) -> Result<()> {
        let parts: Vec<PackedPart<'_>> = self.tensors().map(|(id, source)| self.packed_part(id, source)).collect();
        let specs: Vec<TensorSpec> = parts.iter().map(|part| part.spec.clone()).collect();
        let mut order: Vec<usize> = (0..parts.len()).collect();
        // Matrices first, each at a multiple of a cache line.
        order.sort_by_key(|&place| specs[place].shape.len() == 1);
        let metadata = [("format", "gpt2 panels")];
        let written = safetensors::write_in_order(path, &metadata, &specs, &order, PAGE, |place| {
            let bytes = self.packed_bytes(&parts[place])?;
            parts[place].source.map_or(Ok(()), |tensor| tensor.bytes.check_unchanged())?;
            Ok(bytes.into())
        });
        written.map_err(|error| self.cause(error))
    }

    fn packed_part(&self, id: TensorId, source: Option<&'a Tensor>) -> PackedPart<'a> {
        let shape = id.shape(self.config);
        let rows = |dtype| TensorSpec { name: packed::name_of_rows(id), dtype, shape: shape.clone() };
        let (spec, panels) = match shape[..] {
            [first, second] if id != TensorId::WPE => {
                let (inputs, outputs) = if id.is_conv1d() { (first, second) } else { (second, first) };
                let dtype = QuantizedType::of(self.dtype).map_or(self.dtype, |kind| kind.fitting(inputs));
                // Floating-point embeddings and heads are read where rows lie.
                match panels::array(dtype, inputs, outputs).filter(|_| id.is_conv1d() || dtype.is_quantized()) {
                    Some((stored, array)) => {
                        let name = packed::name_of_panels(id, dtype, [first, second]);
                        (TensorSpec { name, dtype: stored, shape: array.to_vec() }, Some(dtype))
                    }
                    None => (rows(dtype), None),
                }
            }
            _ => (rows(DType::F32), None),
        };
        PackedPart { spec, source, panels, is_conv1d: id.is_conv1d() }
    }

    fn packed_bytes(&self, part: &PackedPart<'_>) -> Result<Vec<u8>> {
        let (origin, spec) = (self.checkpoint.origin(), &part.spec);
        let (Some(tensor), Some(dtype)) = (part.source, part.panels) else {
            return match part.source {
                Some(tensor) => tensor.convert(origin, spec.dtype, tensor.transposed),
                None => Ok(vec![0; spec.dtype.byte_len(&spec.shape).unwrap_or_default()]),
            };
        };
        let mut out = vec![0; spec.dtype.byte_len(&spec.shape).unwrap_or_default()];
        match (QuantizedType::of(dtype), FloatType::of(dtype)) {
            (Some(kind), _) => {
                packing::pack_quantized(tensor, origin, kind, part.is_conv1d && !tensor.transposed, &mut out)?;
            }
            (_, Some(float)) => packing::pack_floats(tensor, origin, float, tensor.transposed, &mut out)?,
            _ => return Err(Error::Unsupported(format!("{dtype} cannot be packed"))),
        }
        Ok(out)
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
        let bytes = match tensor.dtype == dtype && !part.transpose && !tensor.packed {
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
