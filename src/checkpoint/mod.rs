//! Checkpoints: safetensors (one file or sharded), PyTorch `.bin` (one file or sharded) and GGUF, read into named tensors.
//!
//! Nothing is copied that need not be: a tensor is a range of the mapped file with a type and a shape. What the numbers
//! mean is the model's business; this module knows names, types, shapes and bytes, and trusts none of them before it
//! has checked them against the file's length.

mod check;
pub mod export;
mod file;
#[cfg(test)]
mod fuzz;
pub mod gguf;
mod numbers;
mod pytorch;
pub mod safetensors;
mod shards;
mod write;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

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
    /// The name without the `transformer.` prefix, in Hugging Face's terms also for GGUF: `h.0.attn.c_attn.weight`.
    pub name: String,
    /// How the numbers are stored.
    pub dtype: DType,
    /// The shape in Hugging Face's terms: matrices of the blocks are (in, out), embeddings and `lm_head.weight` (V, C).
    pub shape: Vec<usize>,
    /// Whether the bytes of a matrix run over the transposed shape: GGUF stores (out, in) where Hugging Face has (in, out).
    pub transposed: bool,
    /// The numbers, little-endian.
    pub bytes: Bytes,
}

/// An opened checkpoint: its tensors by name. The causal-mask buffers `attn.bias` and `attn.masked_bias` are left out.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    origin: String,
    tensors: Vec<Tensor>,
    /// Places in `tensors`.
    by_name: HashMap<String, usize>,
}

/// Where the weights of a model lie, if not in a GGUF file ([`gguf::Gguf`]), which also holds configuration and tokenizer.
#[derive(Debug, Clone)]
pub enum WeightFiles {
    /// `model.safetensors`.
    Safetensors(PathBuf),
    /// A `*.index.json` (of safetensors or `.bin` files), whose shards lie beside it.
    Sharded(ShardIndex),
    /// `pytorch_model.bin`.
    PyTorch(PathBuf),
    /// A safetensors file in memory, such as the demo model built into the program.
    Static(&'static [u8]),
}

impl Checkpoint {
    /// Opens the weights: maps the files, reads their headers, checks every range. The numbers stay unread, but for
    /// what a `.bin` file compresses or stores out of order.
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

    /// A checkpoint of the given tensors; `origin` says in error messages where they come from.
    ///
    /// # Errors
    /// [`Error::Format`] if two tensors share a name.
    pub fn new(origin: String, tensors: Vec<Tensor>) -> Result<Self> {
        let mut by_name = HashMap::with_capacity(tensors.len());
        for (place, tensor) in tensors.iter().enumerate() {
            if by_name.insert(tensor.name.clone(), place).is_some() {
                let message = format!("tensor `{}` is there twice, under two names", tensor.name);
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

    /// The tensors in the order of the files.
    #[must_use]
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensor called `name` (without the `transformer.` prefix).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.by_name.get(name).and_then(|&place| self.tensors.get(place))
    }

    /// The tensor `id`, if it is there.
    #[must_use]
    pub fn tensor(&self, id: TensorId) -> Option<&Tensor> {
        self.get(&id.to_string())
    }
}

/// Reads one file of a sharded checkpoint; the ending of its name says what it is.
fn read_weights(path: &Path) -> Result<Vec<Tensor>> {
    let file = File::open(path)?;
    if path.extension().is_some_and(|extension| extension == "safetensors") {
        safetensors::read(&file)
    } else {
        pytorch::read(&file)
    }
}

/// The name of a tensor without the `transformer.` prefix, which `GPT2LMHeadModel` has and `GPT2Model` has not.
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
