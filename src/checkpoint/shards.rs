//! Sharded checkpoints: an index (`model.safetensors.index.json`, `pytorch_model.bin.index.json`) that says which file
//! holds which tensor.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::file::File;
use super::{Tensor, is_causal_mask, plain_name, read_weights};
use crate::error::{Error, Result};

/// A checked index: which shard holds which tensor.
#[derive(Debug, Clone)]
pub struct ShardIndex {
    path: PathBuf,
    /// Pairs of a tensor's name and the number of its shard.
    tensors: Vec<(String, usize)>,
    shards: Vec<String>,
}

#[derive(Deserialize)]
struct Raw {
    /// `serde_json::Map` keeps the order of the text.
    weight_map: serde_json::Map<String, serde_json::Value>,
}

impl ShardIndex {
    /// Reads an index file and checks its names.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read; [`Error::Format`] if it is no index, or names a file outside of its folder.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        let raw: Raw = serde_json::from_slice(&file.bytes)
            .map_err(|e| file.error(format!("not an index of a sharded checkpoint: {e}")))?;
        let mut index = Self { path: path.to_owned(), tensors: Vec::new(), shards: Vec::new() };
        let mut numbers = HashMap::new();
        for (name, shard) in &raw.weight_map {
            file.check_name(name)?;
            let Some(shard) = shard.as_str() else {
                return Err(file.error(format!("the shard of tensor `{name}` is {shard}, not a file name")));
            };
            if !is_inside(shard) {
                return Err(file.error(format!(
                    "tensor `{name}` is said to be in {shard:?}; shards must lie in the folder of the index"
                )));
            }
            let number = *numbers.entry(shard).or_insert(index.shards.len());
            if number == index.shards.len() {
                index.shards.push(shard.to_owned());
            }
            index.tensors.push((name.clone(), number));
        }
        if index.shards.is_empty() {
            return Err(file.error("its weight_map is empty"));
        }
        Ok(index)
    }

    /// The names of the shards, relative to the folder of the index, in the order in which it first names them.
    #[must_use]
    pub fn shards(&self) -> &[String] {
        &self.shards
    }

    /// Reads the tensors of all shards.
    pub(super) fn open(&self) -> Result<Vec<Tensor>> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        if let Some(missing) = self.shards.iter().find(|shard| !folder.join(shard).exists()) {
            return Err(Error::format(
                &self.path,
                format!("shard `{missing}` is missing from the folder; download it again"),
            ));
        }
        let mut tensors = Vec::new();
        let mut holder = HashMap::new();
        for (number, shard) in self.shards.iter().enumerate() {
            for tensor in read_weights(&folder.join(shard))? {
                let other = holder.insert(tensor.name.clone(), number).filter(|&other| other != number);
                if let Some(other) = other {
                    let message =
                        format!("tensor `{}` is in two shards, `{}` and `{shard}`", tensor.name, self.shards[other]);
                    return Err(Error::format(&self.path, message));
                }
                tensors.push(tensor);
            }
        }
        for (name, number) in &self.tensors {
            let plain = plain_name(name);
            if !is_causal_mask(plain) && holder.get(plain) != Some(number) {
                let message =
                    format!("tensor `{name}` is not in shard `{}`, where the index has it", self.shards[*number]);
                return Err(Error::format(&self.path, message));
            }
        }
        Ok(tensors)
    }
}

/// Whether the path of a shard stays inside the folder that it is relative to.
fn is_inside(shard: &str) -> bool {
    let mut components = Path::new(shard).components().peekable();
    components.peek().is_some() && components.all(|part| matches!(part, Component::Normal(_)))
}
