//! Checkpoints: the files in which people keep GPT-2's weights, read into GPT-2's tensors.
//!
//! Which kind a file is of is told by its content, never by its name. Reading takes two steps. A reader (`safetensors`,
//! `pytorch`, `gguf`, `tensorflow`, `llm_c`) finds the file's tensors; nothing is copied unless it must be, so a tensor is
//! a range of the mapped file with a type and a shape, checked against the file's length. Then `names` (or the reader
//! itself, where names say all) tells which of GPT-2's tensors each one is. [`Checkpoint::settle`] makes a configuration
//! follow the tensors, [`Checkpoint::check`] compares the two; what the numbers mean is the model's business.

mod check;
pub mod export;
mod file;
mod fingerprint;
#[cfg(test)]
mod fuzz;
pub mod gguf;
#[cfg(test)]
mod golden;
mod llm_c;
mod llms_from_scratch;
pub mod lora;
mod names;
mod numbers;
mod packed;
pub(crate) mod packing;
mod pytorch;
pub mod safetensors;
mod settle;
mod shards;
mod steering;
mod tensorflow;
mod write;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustc_hash::FxHashMap;

pub use settle::{Notice, PADDED_VOCABULARY};
pub use shards::ShardIndex;
pub use steering::SteeringVectors;
pub use write::TensorSpec;

use crate::base::{Bytes, DType};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::inventory::TensorId;
use file::File;
use gguf::Gguf;
use llm_c::LlmC;
pub(crate) use numbers::STEP;

/// One tensor of a checkpoint.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// Its name in the file.
    pub name: String,
    /// How the numbers are stored.
    pub dtype: DType,
    /// Hugging Face's shape, if it is one of GPT-2's: matrices of the blocks are (in, out), embeddings and
    /// `lm_head.weight` (V, C).
    pub shape: Vec<usize>,
    /// Whether the bytes follow the transposed shape: GGUF, nanoGPT and others store (out, in) where Hugging Face has
    /// (in, out).
    pub transposed: bool,
    /// Whether the numbers lie in [panels](crate::base::panels).
    pub packed: bool,
    /// The numbers, little-endian.
    pub bytes: Bytes,
}

impl Tensor {
    /// The tensor as its file lists it.
    fn spec(&self) -> TensorSpec {
        let mut shape = self.shape.clone();
        if self.transposed {
            shape.reverse();
        }
        TensorSpec { name: self.name.clone(), dtype: self.dtype, shape }
    }
}

/// The form of a checkpoint: what wrote it, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// safetensors with Hugging Face's names, in one file or sharded.
    Safetensors,
    /// PyTorch's, with Hugging Face's names, in one file or sharded.
    PyTorch,
    /// GGUF, in one file or split.
    Gguf,
    /// nanoGPT's `ckpt.pt`.
    NanoGpt,
    /// The state dict of `GPTModel` in Raschka's book "Build a Large Language Model (From Scratch)".
    LlmsFromScratch,
    /// llm.c's `.bin`.
    LlmC,
    /// TensorFlow, as OpenAI published GPT-2.
    TensorFlow,
    /// safetensors whose matrices are packed for this program's kernels.
    Packed,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::PyTorch => "pytorch",
            Self::Gguf => "gguf",
            Self::NanoGpt => "nanogpt",
            Self::LlmsFromScratch => "llms-from-scratch",
            Self::LlmC => "llm.c",
            Self::TensorFlow => "tensorflow",
            Self::Packed => "packed",
        })
    }
}

/// An opened checkpoint: GPT-2's tensors, and what else the file says.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    origin: String,
    format: Format,
    /// In the order of the file.
    tensors: Vec<(TensorId, Tensor)>,
    /// Indices into `tensors`.
    places: FxHashMap<TensorId, usize>,
    /// All tensors as the file lists them.
    listing: Vec<TensorSpec>,
    /// The names of tensors that GPT-2 does not have.
    unused: Vec<String>,
    /// A tensor that looks like part of a GPT-2, but not of this one.
    misfit: Option<TensorSpec>,
    config: Option<Config>,
    gguf: Option<Arc<Gguf>>,
}

/// Where a model's weights are.
#[derive(Debug, Clone)]
pub enum WeightFiles {
    /// A file of any form; for a split GGUF any of its parts, for TensorFlow the index.
    File(PathBuf),
    /// A `*.index.json` (of safetensors or `.bin` files), with its shards in the same folder.
    Sharded(ShardIndex),
    /// A safetensors file in memory, such as the built-in demo model.
    Static(&'static [u8]),
}

/// What a reader found in a file.
struct Contents {
    format: Format,
    tensors: Vec<Tensor>,
    /// The configuration, if the file has it.
    config: Option<Config>,
}

impl Checkpoint {
    /// Opens the weights: maps the files, reads their headers, checks every range. Only reads numbers that a `.bin`
    /// file compresses or stores out of order.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Format`], naming the file and what is wrong with it.
    pub fn open(files: &WeightFiles) -> Result<Self> {
        match files {
            WeightFiles::File(path) => Self::read(&File::open(path)?),
            WeightFiles::Sharded(index) => Self::of_contents(index.path(), index.open()?),
            WeightFiles::Static(bytes) => {
                Self::read(&File { path: "the built-in model".into(), bytes: Bytes::from(*bytes) })
            }
        }
    }

    /// Reads a file of any form.
    fn read(file: &File) -> Result<Self> {
        if gguf::is_gguf(&file.bytes) {
            return Self::from_gguf(Arc::new(Gguf::read(file)?));
        }
        if llm_c::is_llm_c(&file.bytes) {
            return Self::from_llm_c(file);
        }
        Self::of_contents(&file.path, contents(file)?)
    }

    /// The weights in a GGUF file.
    ///
    /// # Errors
    /// [`Error::Format`] or [`Error::Config`] if the file does not describe a GPT-2.
    pub fn from_gguf(gguf: Arc<Gguf>) -> Result<Self> {
        let mut checkpoint = Self::empty(gguf.path.display().to_string(), Format::Gguf);
        checkpoint.config = Some(Config::from_gguf(&gguf)?);
        checkpoint.listing = gguf.tensors.iter().map(Tensor::spec).collect();
        for tensor in &gguf.tensors {
            match TensorId::of_gguf(&tensor.name) {
                Some(id) => checkpoint.insert(id, tensor.clone())?,
                None => checkpoint.misfit = Some(tensor.spec()),
            }
        }
        checkpoint.gguf = Some(gguf);
        Ok(checkpoint)
    }

    fn from_llm_c(file: &File) -> Result<Self> {
        let LlmC { config, weights, arrays } = llm_c::read(file)?;
        let mut checkpoint = Self::empty(file.path.display().to_string(), Format::LlmC);
        (checkpoint.config, checkpoint.listing) = (Some(config), arrays);
        for (id, tensor) in weights {
            checkpoint.insert(id, tensor)?;
        }
        Ok(checkpoint)
    }

    /// Finds out which of GPT-2's tensors those of a file are.
    fn of_contents(path: &Path, contents: Contents) -> Result<Self> {
        let Contents { format, tensors, config } = contents;
        let mut checkpoint = Self::empty(path.display().to_string(), format);
        checkpoint.config = config;
        checkpoint.listing = tensors.iter().map(Tensor::spec).collect();
        names::identify(&mut checkpoint, tensors)?;
        Ok(checkpoint)
    }

    /// A checkpoint of the given tensors of GPT-2; `origin` tells where they come from in error messages.
    ///
    /// # Errors
    /// [`Error::Format`] if a tensor is given twice.
    pub fn new(origin: String, tensors: Vec<(TensorId, Tensor)>) -> Result<Self> {
        let mut checkpoint = Self::empty(origin, Format::Safetensors);
        checkpoint.listing = tensors.iter().map(|(_, tensor)| tensor.spec()).collect();
        for (id, tensor) in tensors {
            checkpoint.insert(id, tensor)?;
        }
        Ok(checkpoint)
    }

    fn empty(origin: String, format: Format) -> Self {
        let (tensors, places, listing, unused) = <(Vec<_>, FxHashMap<_, _>, Vec<_>, Vec<_>)>::default();
        Self { origin, format, tensors, places, listing, unused, misfit: None, config: None, gguf: None }
    }

    /// Adds a tensor, which must be new.
    fn insert(&mut self, id: TensorId, tensor: Tensor) -> Result<()> {
        match self.tensor(id) {
            Some(known) => {
                let message = format!("`{}` and `{}` are the same tensor of GPT-2, `{id}`", known.name, tensor.name);
                Err(Error::format(&self.origin, message))
            }
            None => {
                self.replace(id, tensor);
                Ok(())
            }
        }
    }

    /// Puts `tensor` in the place of the one with this id, if there is one.
    pub(crate) fn replace(&mut self, id: TensorId, tensor: Tensor) {
        match self.places.get(&id) {
            Some(&place) => self.tensors[place].1 = tensor,
            None => {
                self.places.insert(id, self.tensors.len());
                self.tensors.push((id, tensor));
            }
        }
    }

    /// Removes a tensor.
    fn remove(&mut self, id: TensorId) -> Option<Tensor> {
        let place = self.places.remove(&id)?;
        let (_, tensor) = self.tensors.remove(place);
        self.places = self.tensors.iter().zip(0..).map(|((id, _), place)| (*id, place)).collect();
        Some(tensor)
    }

    /// What was opened, for error messages.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The form of the files.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// GPT-2's tensors, in file order.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = (TensorId, &Tensor)> {
        self.tensors.iter().map(|(id, tensor)| (*id, tensor))
    }

    /// All tensors as the file lists them, also those that GPT-2 does not have.
    #[must_use]
    pub fn listing(&self) -> &[TensorSpec] {
        &self.listing
    }

    /// The tensor `id`, if present.
    #[must_use]
    pub fn tensor(&self, id: TensorId) -> Option<&Tensor> {
        self.places.get(&id).map(|&place| &self.tensors[place].1)
    }

    /// The name that a file of this form gives to a tensor.
    fn name_of(&self, id: TensorId) -> String {
        match self.format {
            Format::Gguf => id.gguf_name(),
            Format::LlmsFromScratch => llms_from_scratch::name(id),
            _ => id.to_string(),
        }
    }

    /// The GGUF file that the weights come from, which may hold a tokenizer.
    #[must_use]
    pub fn gguf(&self) -> Option<&Arc<Gguf>> {
        self.gguf.as_ref()
    }

    /// The configuration that the file itself gives; `None` if it gives none. `n_head` is the number of attention heads
    /// if the caller knows it: the book's `GPTModel` does not say, and has heads of width 64 by default.
    ///
    /// # Errors
    /// [`Error::Usage`] if a needed `n_head` is missing or one is given to a file that says it; [`Error::Config`] for
    /// impossible dimensions.
    pub fn config(&self, n_head: Option<usize>) -> Result<Option<Config>> {
        match (&self.config, self.format, n_head) {
            (_, Format::LlmsFromScratch, n_head) => llms_from_scratch::config(self, n_head).map(Some),
            (Some(config), _, Some(n_head)) if config.n_head != n_head => Err(Error::Usage(format!(
                "`n_head` is {n_head}, but {} says that the model has {} heads",
                self.origin, config.n_head
            ))),
            (config, ..) => Ok(config.clone()),
        }
    }
}

/// The tensors of a file that is not a GGUF.
fn contents(file: &File) -> Result<Contents> {
    let bytes = &*file.bytes;
    // The reader that its name asks for says best what is wrong with a file that has no form's mark.
    let is_called = |name: &str| file.path.extension().is_some_and(|extension| extension == name);
    if tensorflow::is_index(bytes) {
        tensorflow::read(file)
    } else if safetensors::is_safetensors(bytes) || is_called("safetensors") {
        let tensors = safetensors::read(file)?;
        Ok(match packed::is_packed(&tensors) {
            true => Contents { format: Format::Packed, tensors: packed::read(file, tensors)?, config: None },
            false => Contents { format: Format::Safetensors, tensors, config: None },
        })
    } else if pytorch::is_pytorch(bytes) {
        pytorch::read(file)
    } else if is_called("gguf") {
        Err(file.not_a("a GGUF file"))
    } else if file.path.extension().is_some() {
        // Pickles written as text have no mark.
        pytorch::read(file)
    } else {
        Err(file.not_a("a checkpoint of a known form"))
    }
}

/// Whether the file at `path` has tensors of GPT-2, by their names: activations, embeddings and control vectors come in
/// files of the same forms. One that cannot be read may have.
#[must_use]
pub fn has_weights(path: &Path) -> bool {
    let checkpoint = Checkpoint::open(&WeightFiles::File(path.to_owned()));
    checkpoint.map_or(true, |checkpoint| !checkpoint.tensors.is_empty() || checkpoint.misfit.is_some())
}

/// Whether a file is a checkpoint of a known form, by its first and last bytes, 64 or more.
#[must_use]
pub fn is_checkpoint(start: &[u8], end: &[u8]) -> bool {
    let by_start = [gguf::is_gguf, llm_c::is_llm_c, pytorch::is_pytorch, safetensors::is_safetensors];
    by_start.iter().any(|is| is(start)) || tensorflow::is_index(end)
}

/// Reads one file of a sharded checkpoint.
fn read_shard(path: &Path) -> Result<Contents> {
    contents(&File::open(path)?)
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
            (WeightFiles::File(tiny("base/model.safetensors")), 4 + 12 * 3, DType::F32, 211),
            (WeightFiles::Sharded(index), 5 + 12 * 3, DType::F16, 211),
            (WeightFiles::File(tiny("inverse/pytorch_model.bin")), 4 + 12 * 4, DType::F32, 211),
        ] {
            let checkpoint = Checkpoint::open(&files).unwrap();
            assert_eq!(checkpoint.tensors.len(), count, "{files:?}");
            let wte = checkpoint.tensor(TensorId::WTE).unwrap();
            assert_eq!((wte.dtype, wte.shape[0]), (dtype, vocab), "{files:?}");
            assert_eq!(wte.bytes.len(), dtype.byte_len(&wte.shape).unwrap());
            assert!(checkpoint.tensor(TensorId::FIRST_QKV_BIAS).is_some());
        }
    }
}
