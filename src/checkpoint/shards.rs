//! Sharded checkpoints: an index (`model.safetensors.index.json`, `pytorch_model.bin.index.json`) tells which file
//! holds which tensor.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::file::File;
use super::{Contents, Format, read_shard};
use crate::error::{Error, Result};

/// A checked index: which shard holds which tensor.
#[derive(Debug, Clone)]
pub struct ShardIndex {
    path: PathBuf,
    /// Pairs of a tensor's name and its shard's index.
    tensors: Vec<(String, usize)>,
    shards: Vec<String>,
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
        let wrong = |problem: String| file.error(format!("not an index of a sharded checkpoint: {problem}"));
        let json = crate::json::parse(&file.bytes).map_err(wrong)?;
        let Some(weight_map) = json.get("weight_map").and_then(serde_json::Value::as_object) else {
            return Err(wrong("it has no `weight_map`, an object of tensors and their files".to_owned()));
        };
        let mut index = Self { path: file.path.clone(), tensors: Vec::new(), shards: Vec::new() };
        let mut numbers = HashMap::new();
        for (name, shard) in weight_map {
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
    pub(super) fn open(&self) -> Result<Contents> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        if let Some(missing) = self.shards.iter().find(|shard| !folder.join(shard).exists()) {
            return Err(Error::format(
                &self.path,
                format!("shard `{missing}` is missing from the folder; download it again"),
            ));
        }
        let (mut format, mut tensors) = (Format::Safetensors, Vec::new());
        let mut holder = HashMap::new();
        for (number, shard) in self.shards.iter().enumerate() {
            let contents = read_shard(&folder.join(shard))?;
            format = contents.format;
            for tensor in contents.tensors {
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
            if holder.get(name) != Some(number) {
                let message =
                    format!("tensor `{name}` is not in shard `{}`, where the index lists it", self.shards[*number]);
                return Err(Error::format(&self.path, message));
            }
        }
        Ok(Contents { format, tensors, config: None })
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

    fn open(weight_map: &str) -> Result<Contents> {
        ShardIndex::read(&folder(weight_map).path().join("index.json"))?.open()
    }

    #[test]
    fn shards_are_joined_in_the_order_of_the_index() {
        let contents = open(r#"{"transformer.b": "2.safetensors", "a": "1.safetensors"}"#).unwrap();
        let names: Vec<_> = contents.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(names, ["transformer.b", "a"]);
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
            let error = open(weight_map).err().unwrap().to_string();
            assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        }
    }

    #[test]
    fn shards_outside_the_folder_are_refused() {
        for shard in ["/etc/passwd", "../1.safetensors", "x/../../1.safetensors", "./1.safetensors", ".", "..", "", "/"]
        {
            let error = open(&format!(r#"{{"a": "{shard}"}}"#)).err().unwrap().to_string();
            assert!(error.contains("shards must be in the folder"), "{shard}: {error}");
        }
    }
}
