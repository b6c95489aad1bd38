//! Checkpoints: safetensors (one file or sharded), PyTorch `.bin` (one file or sharded) and GGUF, read into named tensors.
//!
//! Nothing is copied that need not be: a tensor is a range of the mapped file with a type and a shape. What the numbers
//! mean is the model's business; this module knows names, types, shapes and bytes, and trusts none of them before it
//! has checked them against the file's length.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Result;

/// The type in which a tensor's numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StorageType {
    /// 32-bit IEEE floating point.
    F32,
    /// 16-bit IEEE floating point.
    F16,
    /// The upper half of an `F32`.
    BF16,
    /// 64-bit IEEE floating point.
    F64,
    /// Bytes (causal masks).
    U8,
    /// Truth values, a byte each (causal masks).
    Bool,
    /// 64-bit integers.
    I64,
    /// 32 numbers as 8-bit integers with one f16 scale (GGUF).
    Q8_0,
    /// 256 numbers as 6-bit integers in 16 scaled groups (GGUF).
    Q6K,
    /// 256 numbers as 5-bit integers in 8 scaled and shifted groups (GGUF).
    Q5K,
    /// 256 numbers as 4-bit integers in 8 scaled and shifted groups (GGUF).
    Q4K,
}

/// The bytes of a tensor: part of a mapped file, of the program itself, or of an owned buffer. Cheap to clone.
#[derive(Clone)]
pub struct Bytes {
    owner: Owner,
    start: usize,
    end: usize,
}

#[derive(Clone)]
enum Owner {
    Mapped(Arc<memmap2::Mmap>),
    Static(&'static [u8]),
    Owned(Arc<Vec<u8>>),
}

/// One tensor of a checkpoint.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// The name without the `transformer.` prefix, in Hugging Face's terms also for GGUF: `h.0.attn.c_attn.weight`.
    pub name: String,
    /// How the numbers are stored.
    pub dtype: StorageType,
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
    /// What was opened, for error messages.
    pub origin: String,
    /// The tensors in the order of the files.
    pub tensors: Vec<Tensor>,
}

/// Where the weights of a model lie.
#[derive(Debug, Clone)]
pub enum WeightFiles {
    /// `model.safetensors`.
    Safetensors(PathBuf),
    /// A `*.index.json` (of safetensors or `.bin` files) and the folder-relative shards that it names.
    Sharded {
        /// The index file.
        index: PathBuf,
        /// The shards, in the order of the index.
        shards: Vec<PathBuf>,
    },
    /// `pytorch_model.bin`.
    PyTorch(PathBuf),
    /// A GGUF file, which also holds configuration and tokenizer.
    Gguf(PathBuf),
    /// A safetensors file in memory, such as the demo model built into the program.
    Static(&'static [u8]),
}

impl Checkpoint {
    /// Opens the weights: maps the files, reads their headers, checks every range.
    ///
    /// # Errors
    /// [`crate::Error::Io`] or [`crate::Error::Format`], naming the file and what is wrong with it.
    pub fn open(files: &WeightFiles) -> Result<Self> {
        let _ = files;
        todo!()
    }

    /// The tensor called `name` (without the `transformer.` prefix).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let all: &[u8] = match &self.owner {
            Owner::Mapped(map) => map,
            Owner::Static(bytes) => bytes,
            Owner::Owned(bytes) => bytes,
        };
        &all[self.start..self.end]
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        let end = bytes.len();
        Self { owner: Owner::Owned(Arc::new(bytes)), start: 0, end }
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}
