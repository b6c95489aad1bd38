//! Which files of a place hold the weights.
//!
//! transformers' names come first, in its order (5.23.0, `modeling_utils.py`, `_get_resolved_checkpoint_files`). Without
//! them, a file of any name will do: in a folder, content tells which one; on the hub, the extension.

use std::path::{Path, PathBuf};

use super::local::{Folder, Place};
use crate::checkpoint::gguf::split::PartName;
use crate::checkpoint::{ShardIndex, WeightFiles, is_checkpoint};
use crate::config::LARGEST_CONFIG;
use crate::error::{Error, Result};
use crate::files::SmallFile;

const SAFETENSORS: &str = "model.safetensors";
const SAFETENSORS_INDEX: &str = "model.safetensors.index.json";
const PYTORCH: &str = "pytorch_model.bin";
const PYTORCH_INDEX: &str = "pytorch_model.bin.index.json";

/// transformers' names, beside which there is a `config.json`.
pub(super) const NEEDS_CONFIG: [&str; 4] = [SAFETENSORS, SAFETENSORS_INDEX, PYTORCH, PYTORCH_INDEX];

/// The configuration beside a TensorFlow checkpoint.
pub(super) const HPARAMS: &str = "hparams.json";

/// What names the latest of several TensorFlow checkpoints.
pub(super) const LATEST: &str = "checkpoint";

/// The largest index of shards in bytes; those of the largest models have about 100 kB.
pub(super) const LARGEST_INDEX: u64 = 64 << 20;

/// Extensions of files that may hold weights.
const EXTENSIONS: [&str; 7] = ["safetensors", "gguf", "bin", "pt", "pth", "ckpt", "index"];

/// What trainers put beside the weights in files of the same kind.
const NOT_WEIGHTS: [&str; 8] = [
    "adapter_model.safetensors",
    "adapter_model.bin",
    "optimizer.pt",
    "optimizer.bin",
    "scheduler.pt",
    "scaler.pt",
    "training_args.bin",
    "rng_state.pth",
];

/// The weights found in a place.
#[derive(Debug)]
pub(super) struct Weights {
    /// How to open them.
    pub files: WeightFiles,
    /// All files that hold numbers.
    pub paths: Vec<PathBuf>,
    /// The index of their shards, if there is one.
    pub index: Option<SmallFile>,
}

impl Weights {
    /// The weights in one file, with what belongs to it.
    fn of(place: &dyn Place, name: &str) -> Result<Option<Self>> {
        let Some(path) = place.file(name)? else { return Ok(None) };
        let mut paths = vec![path.clone()];
        let others: Vec<String> = match (PartName::parse(name), name.strip_suffix(".index")) {
            (Some(part), _) => part.all().filter(|other| other != name).collect(),
            (None, Some(stem)) => {
                let is_data = |other: &String| other.strip_prefix(stem).is_some_and(|rest| rest.starts_with(".data-"));
                let data = place.names()?.into_iter().filter(is_data);
                data.chain([HPARAMS.to_owned()]).collect()
            }
            (None, None) => vec![],
        };
        for other in others {
            paths.extend(place.file(&other)?);
        }
        Ok(Some(Self { files: WeightFiles::File(path), paths, index: None }))
    }

    /// The weights at `path`: a checkpoint of any form, or the index of a sharded one.
    pub fn at(path: &Path) -> Result<Self> {
        let (folder, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().and_then(|name| name.to_str()));
        let place = Folder(if folder.as_os_str().is_empty() { ".".into() } else { folder.to_owned() });
        match name {
            Some(name) if name.ends_with(".index.json") => sharded(&place, path.to_owned()),
            Some(name) if index_of_shard(name).is_some_and(|index| path.with_file_name(index).is_file()) => {
                sharded(&place, path.with_file_name(index_of_shard(name).unwrap_or_default()))
            }
            // TensorFlow's other files.
            Some(name) if index_of_data(name).is_some_and(|index| path.with_file_name(index).is_file()) => {
                Self::at(&path.with_file_name(index_of_data(name).unwrap_or_default()))
            }
            Some(name) => {
                // A relative path stays as the user wrote it.
                let found = Self::of(&place, name)?.map(|found| found.paths).unwrap_or_default();
                let paths = std::iter::once(path.to_owned()).chain(found.into_iter().skip(1)).collect();
                Ok(Self { files: WeightFiles::File(path.to_owned()), paths, index: None })
            }
            None => Ok(Self { files: WeightFiles::File(path.to_owned()), paths: vec![path.to_owned()], index: None }),
        }
    }
}

/// The index of the shards among which a file called `name` would be.
fn index_of_shard(name: &str) -> Option<String> {
    let part = PartName::parse(name).filter(|part| matches!(part.extension, ".safetensors" | ".bin"))?;
    Some(format!("{}{}.index.json", part.stem, part.extension))
}

/// The index of the TensorFlow checkpoint to which a file called `name` would belong.
fn index_of_data(name: &str) -> Option<String> {
    let stem = name.strip_suffix(".meta").or_else(|| name.split_once(".data-0").map(|(stem, _)| stem))?;
    Some(format!("{stem}.index"))
}

/// The weights in `place`, if any.
///
/// # Errors
/// [`Error::Source`] if several files could be meant.
pub(super) fn find(place: &dyn Place) -> Result<Option<Weights>> {
    if let Some(found) = Weights::of(place, SAFETENSORS)? {
        return Ok(Some(found));
    }
    if let Some(index) = place.file(SAFETENSORS_INDEX)? {
        return sharded(place, index).map(Some);
    }
    if let Some(found) = Weights::of(place, PYTORCH)? {
        return Ok(Some(found));
    }
    if let Some(index) = place.file(PYTORCH_INDEX)? {
        return sharded(place, index).map(Some);
    }
    let candidates = candidates(place)?;
    let chosen = match candidates.as_slice() {
        [] => return Ok(None),
        [name] => name.clone(),
        [first, second, ..] => match latest(place, &candidates)? {
            Some(name) => name,
            None => {
                return Err(Error::Source(format!(
                    "{} has several files with weights, `{first}` and `{second}` among them: name the one you want by its path",
                    place.describe()
                )));
            }
        },
    };
    Weights::of(place, &chosen)
}

/// The names of files that may hold a model's weights, sorted; of a split one, the first part.
fn candidates(place: &dyn Place) -> Result<Vec<String>> {
    let mut names = place.names()?;
    names.retain(|name| {
        let is_other = NOT_WEIGHTS.contains(&name.as_str()) || name.starts_with("rng_state_");
        !is_other && place.may_hold_weights(name)
    });
    names.sort();
    // One part stands for all: the first, or, if that is missing, one that will say so.
    names.dedup_by(|name, before| match (PartName::parse(name), PartName::parse(before)) {
        (Some(part), Some(before)) => (part.stem, part.count) == (before.stem, before.count),
        _ => false,
    });
    if names.len() > 1 {
        names.retain(|name| place.has_weights(name));
    }
    Ok(names)
}

/// The one of several TensorFlow checkpoints that its `checkpoint` file names as the latest.
fn latest(place: &dyn Place, candidates: &[String]) -> Result<Option<String>> {
    if !candidates.iter().all(|name| name.ends_with(".index")) {
        return Ok(None);
    }
    let Some(path) = place.file(LATEST)? else { return Ok(None) };
    let file = SmallFile::new(path, LARGEST_CONFIG);
    let text = String::from_utf8_lossy(file.bytes()?).into_owned();
    let line = text.lines().find_map(|line| line.trim().strip_prefix("model_checkpoint_path:"));
    let named = line.map(|name| format!("{}.index", name.trim().trim_matches('"')));
    Ok(named.filter(|name| candidates.contains(name)))
}

/// Whether a file's name is one that weights have.
pub(super) fn has_extension_of_weights(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// Whether the file at `path` is a checkpoint, by its content.
pub(super) fn holds_weights(path: &Path) -> bool {
    use std::io::{Read, Seek, SeekFrom};
    /// With room for the name of an archive's first file.
    const ENDS: u64 = 512;
    let read = || -> std::io::Result<bool> {
        let mut file = std::fs::File::open(path)?;
        let (mut start, mut end) = (vec![], vec![]);
        (&mut file).take(ENDS).read_to_end(&mut start)?;
        let len = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(len.saturating_sub(ENDS)))?;
        file.take(ENDS).read_to_end(&mut end)?;
        Ok(is_checkpoint(&start, &end))
    };
    // Named pipes and devices would block.
    path.metadata().is_ok_and(|metadata| metadata.is_file()) && read().unwrap_or(false)
}

/// The weights in the shards that `index` names, which must all be in `place`.
fn sharded(place: &dyn Place, index: PathBuf) -> Result<Weights> {
    let file = SmallFile::new(index, LARGEST_INDEX);
    let index = ShardIndex::parse(file.path(), file.bytes()?)?;
    let mut paths = vec![];
    for shard in index.shards() {
        match place.file(shard)? {
            Some(path) => paths.push(path),
            None => {
                let problem = format!("names the shard `{shard}`, which {} lacks", place.describe());
                return Err(Error::format(index.path(), problem));
            }
        }
    }
    Ok(Weights { files: WeightFiles::Sharded(index), paths, index: Some(file) })
}
