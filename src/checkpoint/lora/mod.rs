//! LoRA adapters, as PEFT saves them, merged into the weights of their base.
//!
//! An adapter holds two narrow matrices for a layer, A with `r` rows and B with `r` columns; `scale · B A` is added to
//! the layer's weight. It may also hold whole tensors that take the place of the base's (`modules_to_save`, biases), rows
//! of the embeddings (`trainable_token_indices`), and a magnitude for each output (DoRA). Nothing in it is executed.
//!
//! Reference: PEFT 0.21.2, `tuners/lora/layer.py` (`merge`, `get_delta_weight`), `tuners/lora/variants.py` (DoRA),
//! `utils/save_and_load.py` (names).

#[cfg(test)]
mod fuzz;
mod merge;
mod names;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::Tensor;
use super::file::File;
use crate::error::{Error, Result};
use crate::files::SmallFile;
use crate::inventory::{Part, TensorId};
use names::Piece;
use settings::{Scale, Settings};

/// A LoRA adapter.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// The file with the numbers.
    path: PathBuf,
    /// The name or path of the base, as the adapter tells it.
    base: Option<String>,
    /// Tensors that take the place of the base's.
    saved: Vec<Saved>,
    /// Rows that take the place of the base's.
    rows: Vec<Rows>,
    /// Changes of weights.
    layers: Vec<Layer>,
    /// Whether the head has the embedding's change where the two are tied (`ensure_weight_tying`).
    one_change: bool,
}

/// A whole tensor.
#[derive(Debug, Clone)]
struct Saved {
    id: TensorId,
    /// Whether the module was copied for training (`modules_to_save`). A head or embedding that was is no longer tied.
    is_copy: bool,
    tensor: Tensor,
}

/// Some rows of an embedding or of the head.
#[derive(Debug, Clone)]
struct Rows {
    id: TensorId,
    indices: Vec<usize>,
    /// The rows, (indices, C).
    tensor: Tensor,
}

/// The change of one layer's weight.
#[derive(Debug, Clone)]
struct Layer {
    id: TensorId,
    /// `r`, and the factor of B A.
    scale: Scale,
    /// A, (r, inputs).
    a: Tensor,
    /// B, (outputs, r).
    b: Tensor,
    /// The bias of B, which is scaled too.
    bias: Option<Tensor>,
    /// DoRA's length of the weights of each output.
    magnitude: Option<Tensor>,
}

/// The tensors of one layer, as they are found.
type Pieces = HashMap<Piece, Tensor>;

impl Adapter {
    /// The file with the settings.
    pub const CONFIG: &str = "adapter_config.json";

    /// The files that may hold the weights; the first one that exists counts.
    pub const WEIGHTS: [&str; 2] = ["adapter_model.safetensors", "adapter_model.bin"];

    /// The largest [`CONFIG`](Self::CONFIG) that is read, in bytes.
    pub const LARGEST_CONFIG: u64 = 1 << 20;

    /// Opens the adapter in `folder`.
    ///
    /// # Errors
    /// [`Error::Source`] if the folder lacks a file; otherwise as for [`open`](Self::open).
    pub fn in_folder(folder: &Path) -> Result<Self> {
        let lacks = |what: &str| Error::Source(format!("{} is no PEFT adapter: it has no {what}", folder.display()));
        let config = folder.join(Self::CONFIG);
        if !config.is_file() {
            return Err(lacks(Self::CONFIG));
        }
        let weights = Self::WEIGHTS.iter().map(|name| folder.join(name)).find(|path| path.is_file());
        let weights = weights.ok_or_else(|| lacks(&Self::WEIGHTS.join(" or ")))?;
        Self::open(&SmallFile::new(config, Self::LARGEST_CONFIG), &weights)
    }

    /// Opens an adapter: reads its settings, maps its weights and finds the place of each tensor.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Format`], naming the file, and the key or the tensor.
    pub fn open(config: &SmallFile, weights: &Path) -> Result<Self> {
        let settings = Settings::read(config)?;
        let file = File::open(weights)?;
        let mut adapter = Self {
            path: weights.into(),
            base: settings.base.clone(),
            saved: vec![],
            rows: vec![],
            layers: vec![],
            one_change: settings.one_change,
        };
        let mut spare = vec![];
        let mut layers: Vec<(TensorId, String, Pieces)> = vec![];
        let (mut places, mut names) = (HashMap::new(), HashMap::new());
        for tensor in tensors(&file)? {
            file.check_name(&tensor.name)?;
            let Some((id, module, piece)) = names::place(&tensor.name) else {
                return Err(file.error(format!("tensor `{}` has no place in a GPT-2", tensor.name)));
            };
            if let Some(other) = names.insert((id, piece), tensor.name.clone()) {
                return Err(file.error(format!("tensors `{other}` and `{}` have the same place", tensor.name)));
            }
            match piece {
                Piece::Whole => adapter.saved.push(Saved { id, is_copy: settings.is_saved(&module), tensor }),
                Piece::Copy | Piece::Original => {
                    spare.push((piece, Saved { id, is_copy: settings.is_saved(&module), tensor }));
                }
                Piece::Rows => match settings.token_indices(&module) {
                    Some(indices) => adapter.rows.push(Rows { id, indices, tensor }),
                    // PEFT ties the rows of a tied head to the embedding's; with new embeddings, it saves both.
                    None if id == TensorId::LM_HEAD && settings.token_indices("transformer.wte").is_some() => {}
                    None => {
                        let problem = "holds rows of tokens that `trainable_token_indices` does not list";
                        return Err(file.error(format!("tensor `{}` {problem}", tensor.name)));
                    }
                },
                _ => {
                    let place = *places.entry(id).or_insert(layers.len());
                    if place == layers.len() {
                        layers.push((id, module, Pieces::new()));
                    }
                    layers[place].2.insert(piece, tensor);
                }
            }
        }
        // A change that the head shares with the embedding has the embedding's rank.
        let shared = layers.iter().find(|(id, ..)| settings.one_change && *id == TensorId::WTE);
        let scaled_as = |(id, module, _): &(TensorId, String, Pieces)| match shared {
            Some((_, embedding, _)) if *id == TensorId::LM_HEAD => embedding.clone(),
            _ => module.clone(),
        };
        let modules: Vec<String> = layers.iter().map(scaled_as).collect();
        let scales = settings.scales(&modules)?;
        for ((id, module, pieces), scale) in layers.into_iter().zip(scales) {
            adapter.layers.push(Layer::new(&file, &module, settings.dora, id, scale, pieces)?);
        }
        // Of a module that it copied, PEFT loads the tensor under the module's own name. The others count without it.
        spare.sort_by_key(|(piece, _)| *piece == Piece::Original);
        for (_, saved) in spare {
            if adapter.saved.iter().all(|other| other.id != saved.id) {
                adapter.saved.push(saved);
            }
        }
        if adapter.saved.is_empty() && adapter.rows.is_empty() && adapter.layers.is_empty() {
            return Err(file.error("it holds no weights of an adapter"));
        }
        // The order in which PEFT visits a model: the head is last.
        adapter.saved.sort_by_key(|saved| saved.id.part == Part::LmHead);
        Ok(adapter)
    }

    /// An error about the adapter, which names the base that it was made for.
    fn error(&self, message: &str) -> Error {
        let base = self.base.as_ref().map_or(String::new(), |base| format!("; it was made for {base:?}"));
        Error::format(&self.path, format!("{message}{base}"))
    }
}

/// All tensors in the file.
fn tensors(file: &File) -> Result<Vec<Tensor>> {
    Ok(super::contents(file)?.tensors)
}

impl Layer {
    /// The change of `module`, whose pieces must be complete.
    fn new(file: &File, module: &str, dora: bool, id: TensorId, scale: Scale, mut pieces: Pieces) -> Result<Self> {
        let (Some(a), Some(b)) = (pieces.remove(&Piece::A), pieces.remove(&Piece::B)) else {
            return Err(file.error(format!("of the two matrices of `{module}`, one is missing")));
        };
        let (bias, magnitude) = (pieces.remove(&Piece::BiasOfB), pieces.remove(&Piece::Magnitude));
        match &magnitude {
            None if dora => {
                return Err(file.error(format!("`use_dora` is true, but `{module}` has no lora_magnitude_vector")));
            }
            Some(magnitude) if !dora => {
                return Err(file.error(format!("`use_dora` is not true, but there is a `{}`", magnitude.name)));
            }
            _ => {}
        }
        let rank = scale.rank;
        for (tensor, found) in [(&a, a.shape.first()), (&b, b.shape.get(1))] {
            if tensor.shape.len() != 2 || found != Some(&rank) {
                return Err(file.error(format!(
                    "tensor `{}` has shape {:?}, but {} gives `{module}` the rank {rank}",
                    tensor.name,
                    tensor.shape,
                    Adapter::CONFIG
                )));
            }
        }
        Ok(Self { id, scale, a, b, bias, magnitude })
    }
}
