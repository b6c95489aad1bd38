//! Sharded checkpoints: an index (`model.safetensors.index.json`, `pytorch_model.bin.index.json`) tells which file
//! holds which tensor.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::file::File;
use super::{Tensor, plain_name, read_weights};
use crate::error::{Error, Result};
use crate::files::{json_fault, without_byte_order_mark};
use crate::inventory::is_causal_mask;

/// A checked index: which shard holds which tensor.
#[derive(Debug, Clone)]
pub struct ShardIndex {
    path: PathBuf,
    /// Pairs of a tensor's name and its shard's index.
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
    /// [`Error::Io`] if it cannot be read; otherwise as [`parse`](Self::parse).
    pub fn read(path: &Path) -> Result<Self> {
        Self::of(&File::open(path)?)
    }

    /// Parses the content of the index file at `path` and checks its names.
    ///
    /// # Errors
    /// [`Error::Format`] if it is not an index, or names a file outside its folder.
    pub fn parse(path: &Path, content: &[u8]) -> Result<Self> {
        Self::of(&File { path: path.to_owned(), bytes: content.to_vec().into() })
    }

    fn of(file: &File) -> Result<Self> {
        let bytes = without_byte_order_mark(&file.bytes);
        let raw: Raw = serde_json::from_slice(bytes).map_err(|e| {
            file.error(match e.is_data() {
                true => "not an index of a sharded checkpoint: it has no object `weight_map`".to_owned(),
                false => json_fault(bytes, &e),
            })
        })?;
        let mut index = Self { path: file.path.clone(), tensors: Vec::new(), shards: Vec::new() };
        let mut numbers = HashMap::new();
        for (name, shard) in &raw.weight_map {
            file.check_name(name)?;
            let Some(shard) = shard.as_str() else {
                return Err(file.error(format!("the shard of tensor `{name}` is {shard}, not a file name")));
            };
            if !is_inside(shard) {
                return Err(file.error(format!(
                    "tensor `{name}` is listed in {shard:?}; shards must be in the folder of the index"
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

    /// The index file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the shards, relative to the index's folder, in the order in which it first names them.
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
                    format!("tensor `{name}` is not in shard `{}`, where the index lists it", self.shards[*number]);
                return Err(Error::format(&self.path, message));
            }
        }
        Ok(tensors)
    }
}

/// Whether a shard's path stays inside the folder that it is relative to.
fn is_inside(shard: &str) -> bool {
    let mut components = Path::new(shard).components().peekable();
    components.peek().is_some() && components.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::DType;
    use crate::checkpoint::{TensorSpec, safetensors};

    /// A folder with two shards, holding `a` and `b`, and this weight map.
    fn folder(weight_map: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (shard, names) in
            [("1.safetensors", &["a"][..]), ("2.safetensors", &["transformer.b"]), ("both.safetensors", &["a", "c"])]
        {
            let spec = |name: &&str| TensorSpec { name: (*name).into(), dtype: DType::U8, shape: vec![1] };
            let specs: Vec<_> = names.iter().map(spec).collect();
            safetensors::write(&folder.path().join(shard), &[], &specs, |_| Ok(vec![7].into())).unwrap();
        }
        std::fs::write(folder.path().join("index.json"), format!("{{\"weight_map\":{weight_map}}}")).unwrap();
        folder
    }

    fn open(weight_map: &str) -> Result<Vec<Tensor>> {
        ShardIndex::read(&folder(weight_map).path().join("index.json"))?.open()
    }

    #[test]
    fn shards_are_joined_in_the_order_of_the_index() {
        let tensors = open(r#"{"transformer.b": "2.safetensors", "a": "1.safetensors"}"#).unwrap();
        assert_eq!(tensors.iter().map(|tensor| tensor.name.as_str()).collect::<Vec<_>>(), ["b", "a"]);
    }

    #[test]
    fn each_fault_is_named() {
        for (weight_map, expected) in [
            (r#"{"a": "1.safetensors", "b": "3.safetensors"}"#, "shard `3.safetensors` is missing"),
            (r#"{"a": "1.safetensors", "x": "2.safetensors"}"#, "tensor `x` is not in shard `2.safetensors`"),
            (r#"{"a": "2.safetensors", "b": "1.safetensors"}"#, "tensor `a` is not in shard `2.safetensors`"),
            (r#"{"a": "1.safetensors", "c": "both.safetensors"}"#, "`a` is in two shards, `1.safetensors` and `both"),
            (r#"{"a": 1}"#, "the shard of tensor `a` is 1"),
            ("{}", "weight_map is empty"),
            ("[]", "not an index"),
        ] {
            let error = open(weight_map).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        }
    }

    #[test]
    fn shards_outside_the_folder_are_refused() {
        for shard in ["/etc/passwd", "../1.safetensors", "x/../../1.safetensors", "./1.safetensors", ".", "..", "", "/"]
        {
            let error = open(&format!(r#"{{"a": "{shard}"}}"#)).unwrap_err().to_string();
            assert!(error.contains("shards must be in the folder"), "{shard}: {error}");
        }
    }
}
