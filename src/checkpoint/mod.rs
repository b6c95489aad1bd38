//! Checkpoints: safetensors (one file or sharded), PyTorch `.bin` (one file or sharded) and GGUF, read into named tensors.
//!
//! Nothing is copied unless it must be: a tensor is a range of the mapped file with a type and a shape. This module
//! knows names, types, shapes and bytes, and checks them all against the file's length; what the numbers mean is the
//! model's business.

mod check;
pub mod export;
mod file;
#[cfg(test)]
mod fuzz;
pub mod gguf;
#[cfg(test)]
mod golden;
#[cfg_attr(not(test), expect(dead_code, reason = "opening does not choose it yet"))]
mod llm_c;
mod lora;
mod numbers;
mod pytorch;
pub mod safetensors;
mod shards;
#[cfg_attr(not(test), expect(dead_code, unused_imports, reason = "opening does not choose it yet"))]
mod tensorflow;
mod write;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

pub use lora::Adapter;
pub use shards::ShardIndex;
pub use write::TensorSpec;

use crate::base::{Bytes, DType};
use crate::error::{Error, Result};
use crate::inventory::TensorId;
use file::File;
pub(crate) use numbers::STEP;

/// One tensor of a checkpoint.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// Hugging Face's name without the `transformer.` prefix, also for GGUF: `h.0.attn.c_attn.weight`.
    pub name: String,
    /// How the numbers are stored.
    pub dtype: DType,
    /// Hugging Face's shape: matrices of the blocks are (in, out), embeddings and `lm_head.weight` (V, C).
    pub shape: Vec<usize>,
    /// Whether the bytes follow the transposed shape: GGUF stores (out, in) where Hugging Face has (in, out).
    pub transposed: bool,
    /// The numbers, little-endian.
    pub bytes: Bytes,
}

/// An opened checkpoint: its tensors by name. The causal-mask buffers `attn.bias` and `attn.masked_bias` are left out.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    origin: String,
    tensors: Vec<Tensor>,
    /// Indices into `tensors`.
    by_name: HashMap<String, usize>,
}

/// Where a model's weights are, unless in a GGUF file ([`gguf::Gguf`]), which also holds configuration and tokenizer.
#[derive(Debug, Clone)]
pub enum WeightFiles {
    /// `model.safetensors`.
    Safetensors(PathBuf),
    /// A `*.index.json` (of safetensors or `.bin` files), with its shards in the same folder.
    Sharded(ShardIndex),
    /// `pytorch_model.bin`.
    PyTorch(PathBuf),
    /// A safetensors file in memory, such as the built-in demo model.
    Static(&'static [u8]),
}

impl Checkpoint {
    /// Opens the weights: maps the files, reads their headers, checks every range. Only reads numbers that a `.bin`
    /// file compresses or stores out of order.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Format`], naming the file and what is wrong with it.
    pub fn open(files: &WeightFiles) -> Result<Self> {
        let (path, tensors) = match files {
            WeightFiles::Safetensors(path) => (path.as_path(), safetensors::read(&File::open(path)?)?),
            WeightFiles::PyTorch(path) => (path.as_path(), pytorch::read(&File::open(path)?)?),
            WeightFiles::Sharded(index) => (index.path(), index.open()?),
            WeightFiles::Static(bytes) => {
                let path = Path::new("the built-in model");
                (path, safetensors::read(&File { path: path.to_owned(), bytes: Bytes::from(*bytes) })?)
            }
        };
        Self::new(path.display().to_string(), tensors)
    }

    /// The weights in a GGUF file.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn from_gguf(gguf: &gguf::Gguf) -> Result<Self> {
        Self::new(gguf.path.display().to_string(), gguf.tensors.clone())
    }

    /// A checkpoint of the given tensors; `origin` tells where they come from in error messages.
    ///
    /// # Errors
    /// [`Error::Format`] if two tensors share a name.
    pub fn new(origin: String, tensors: Vec<Tensor>) -> Result<Self> {
        let mut by_name = HashMap::with_capacity(tensors.len());
        for (place, tensor) in tensors.iter().enumerate() {
            if by_name.insert(tensor.name.clone(), place).is_some() {
                let message = format!("tensor `{}` occurs twice, under two names", tensor.name);
                return Err(Error::format(origin, message));
            }
        }
        Ok(Self { origin, tensors, by_name })
    }

    /// What was opened, for error messages.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The tensors in file order.
    #[must_use]
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensor called `name` (without the `transformer.` prefix).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.by_name.get(name).and_then(|&place| self.tensors.get(place))
    }

    /// The tensor `id`, if present.
    #[must_use]
    pub fn tensor(&self, id: TensorId) -> Option<&Tensor> {
        self.get(&id.to_string())
    }

    /// Puts `tensor` in the place of the one with this id, if there is one.
    pub(crate) fn replace(&mut self, id: TensorId, tensor: Tensor) {
        let tensor = Tensor { name: id.to_string(), ..tensor };
        match self.by_name.get(&tensor.name) {
            Some(&place) => self.tensors[place] = tensor,
            None => {
                self.by_name.insert(tensor.name.clone(), self.tensors.len());
                self.tensors.push(tensor);
            }
        }
    }
}

/// Reads one file of a sharded checkpoint; its extension tells the format.
fn read_weights(path: &Path) -> Result<Vec<Tensor>> {
    let file = File::open(path)?;
    if path.extension().is_some_and(|extension| extension == "safetensors") {
        safetensors::read(&file)
    } else {
        pytorch::read(&file)
    }
}

/// A tensor's name without the `transformer.` prefix, which `GPT2LMHeadModel` adds and `GPT2Model` does not.
fn plain_name(name: &str) -> &str {
    name.strip_prefix("transformer.").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny(file: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny").join(file)
    }

    #[test]
    fn opens_every_format_of_the_fixtures() {
        let index = ShardIndex::read(&tiny("untied_f16/model.safetensors.index.json")).unwrap();
        // Embeddings and final norm are 4 tensors, a block has 12, an untied head is one more.
        for (files, count, dtype, vocab) in [
            (WeightFiles::Safetensors(tiny("base/model.safetensors")), 4 + 12 * 3, DType::F32, 211),
            (WeightFiles::Sharded(index), 5 + 12 * 3, DType::F16, 211),
            (WeightFiles::PyTorch(tiny("inverse/pytorch_model.bin")), 4 + 12 * 4, DType::F32, 211),
        ] {
            let checkpoint = Checkpoint::open(&files).unwrap();
            assert_eq!(checkpoint.tensors.len(), count, "{files:?}");
            let wte = checkpoint.get("wte.weight").unwrap();
            assert_eq!((wte.dtype, wte.shape[0]), (dtype, vocab), "{files:?}");
            assert_eq!(wte.bytes.len(), dtype.byte_len(&wte.shape).unwrap());
            assert!(checkpoint.get("h.0.attn.c_attn.bias").is_some());
        }
    }
}
