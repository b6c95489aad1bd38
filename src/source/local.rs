//! Which files make up a model, wherever they are; and local folders.
//!
//! Reference for names and their order: transformers 5.23.0, `modeling_utils.py` (`_get_resolved_checkpoint_files`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{OpenedModel, SourceOptions};
use crate::checkpoint::gguf::Gguf;
use crate::checkpoint::{Checkpoint, ShardIndex, WeightFiles};
use crate::config::{Config, LARGEST_CONFIG};
use crate::error::{Error, Result};
use crate::files::SmallFile;
use crate::tokenizer::TokenizerFiles;

/// A place that may have the files of one model.
pub(super) trait Place {
    /// The local path of the file called `name`, fetched if necessary; `None` if the place has no such file.
    fn file(&self, name: &str) -> Result<Option<PathBuf>>;

    /// The names of the GGUF files, except those in subfolders.
    fn gguf_files(&self) -> Result<Vec<String>>;

    /// The place's name in errors.
    fn describe(&self) -> String;
}

/// Which tokenizer a model gets.
#[derive(Debug, Clone)]
pub(super) enum TokenizerChoice {
    /// This one.
    Given(TokenizerFiles),
    /// GPT-2's: the model is known to use it, so no other copy needs to be fetched or read.
    BuiltIn,
    /// The one beside the weights.
    Own,
}

impl TokenizerChoice {
    /// The one named in the options, else the model's own.
    pub(super) fn of(options: &SourceOptions<'_>) -> Result<Self> {
        Ok(options.tokenizer.as_deref().map(tokenizer_at).transpose()?.map_or(Self::Own, Self::Given))
    }
}

/// The files of a model. Only small files that tell where the others are have been read; the weights are not opened
/// yet.
#[derive(Debug)]
pub(super) struct Found {
    name: String,
    parts: Parts,
    /// The files of the place that are read as a whole.
    pub(super) small: Vec<SmallFile>,
}

#[derive(Debug)]
enum Parts {
    /// Each part has one or more files.
    Separate { config: Config, weights: WeightFiles, tokenizer: TokenizerFiles, generation_config: Option<SmallFile> },
    /// Everything is in one GGUF file, unless another tokenizer was given.
    Gguf { path: PathBuf, tokenizer: Option<TokenizerFiles> },
}

impl Found {
    /// Opens the weights.
    pub(super) fn open(&self) -> Result<OpenedModel> {
        match &self.parts {
            Parts::Separate { config, weights, tokenizer, generation_config } => {
                let checkpoint = Checkpoint::open(weights)?;
                let (config, tokenizer) = (config.clone(), tokenizer.clone());
                Ok(OpenedModel::new(&self.name, config, checkpoint, tokenizer, generation_config.clone()))
            }
            Parts::Gguf { path, tokenizer } => {
                let gguf = Gguf::open(path)?;
                let (config, checkpoint) = (Config::from_gguf(&gguf)?, Checkpoint::from_gguf(&gguf)?);
                let own = || TokenizerFiles::Gguf(Arc::new(gguf));
                Ok(OpenedModel::new(&self.name, config, checkpoint, tokenizer.clone().unwrap_or_else(own), None))
            }
        }
    }

    /// The files that hold the weights.
    pub(super) fn weight_files(&self) -> Vec<PathBuf> {
        match &self.parts {
            Parts::Gguf { path, .. } => vec![path.clone()],
            Parts::Separate { weights, .. } => match weights {
                WeightFiles::Safetensors(path) | WeightFiles::PyTorch(path) => vec![path.clone()],
                WeightFiles::Sharded(index) => {
                    index.shards().iter().map(|shard| index.path().with_file_name(shard)).collect()
                }
                WeightFiles::Static(_) => vec![],
            },
        }
    }
}

pub(super) const CONFIG: &str = "config.json";
const SAFETENSORS: &str = "model.safetensors";
const SAFETENSORS_INDEX: &str = "model.safetensors.index.json";
const PYTORCH: &str = "pytorch_model.bin";
const PYTORCH_INDEX: &str = "pytorch_model.bin.index.json";

/// The largest index of shards in bytes; those of the largest models have about 100 kB.
const LARGEST_INDEX: u64 = 64 << 20;

pub(super) const TOKENIZER: &str = "tokenizer.json";

/// Finds the files of the model called `name` in `place`. The configuration comes first and is checked, so that a model
/// of another architecture is rejected before its gigabytes are fetched.
pub(super) fn find(place: &dyn Place, name: &str, tokenizer: &TokenizerChoice) -> Result<Found> {
    let config = config(place)?;
    let has_config = config.is_some();
    if let Some((config_file, config)) = config
        && let Some((weights, index)) = weights(place)?
    {
        let (tokenizer, tokenizer_files) = match tokenizer {
            TokenizerChoice::Given(tokenizer) => (tokenizer.clone(), vec![]),
            TokenizerChoice::BuiltIn => (TokenizerFiles::BuiltIn, vec![]),
            TokenizerChoice::Own => {
                let tokenizer = own_tokenizer(place, config.vocab_size)?;
                let files = tokenizer.small_files();
                (tokenizer, files)
            }
        };
        let generation_config = place.file("generation_config.json")?;
        let generation_config = generation_config.map(|path| SmallFile::new(path, LARGEST_CONFIG));
        let small = [config_file].into_iter().chain(generation_config.clone()).chain(tokenizer_files).chain(index);
        let small = small.collect();
        let parts = Parts::Separate { config, weights, tokenizer, generation_config };
        return Ok(Found { name: name.to_owned(), parts, small });
    }
    if let Some(path) = gguf(place)? {
        return Ok(gguf_model(name, path, tokenizer));
    }
    let place = place.describe();
    Err(Error::Source(match has_config {
        true => format!(
            "{place} has no weights: looked for {SAFETENSORS}, {SAFETENSORS_INDEX}, {PYTORCH}, {PYTORCH_INDEX} and *.gguf"
        ),
        false => format!("{place} is not a model: looked for {CONFIG} (beside the weights) and for *.gguf"),
    }))
}

/// The model in a GGUF file.
pub(super) fn gguf_model(name: &str, path: PathBuf, tokenizer: &TokenizerChoice) -> Found {
    let tokenizer = match tokenizer {
        TokenizerChoice::Given(tokenizer) => Some(tokenizer.clone()),
        TokenizerChoice::BuiltIn | TokenizerChoice::Own => None,
    };
    Found { name: name.to_owned(), parts: Parts::Gguf { path, tokenizer }, small: vec![] }
}

/// The configuration in `place`, if any.
fn config(place: &dyn Place) -> Result<Option<(SmallFile, Config)>> {
    let Some(path) = place.file(CONFIG)? else { return Ok(None) };
    let file = SmallFile::new(path, LARGEST_CONFIG);
    let config = Config::from_json(file.bytes()?, &file.path().display().to_string())?;
    Ok(Some((file, config)))
}

/// The weights in `place`, if any, and the index of their shards, if any.
fn weights(place: &dyn Place) -> Result<Option<(WeightFiles, Option<SmallFile>)>> {
    if let Some(path) = place.file(SAFETENSORS)? {
        return Ok(Some((WeightFiles::Safetensors(path), None)));
    }
    if let Some(index) = place.file(SAFETENSORS_INDEX)? {
        return sharded(place, index).map(Some);
    }
    if let Some(path) = place.file(PYTORCH)? {
        return Ok(Some((WeightFiles::PyTorch(path), None)));
    }
    place.file(PYTORCH_INDEX)?.map(|index| sharded(place, index)).transpose()
}

/// The weights in the shards that `index` names, which must all be in `place`.
fn sharded(place: &dyn Place, index: PathBuf) -> Result<(WeightFiles, Option<SmallFile>)> {
    let file = SmallFile::new(index, LARGEST_INDEX);
    let index = ShardIndex::parse(file.path(), file.bytes()?)?;
    for shard in index.shards() {
        if place.file(shard)?.is_none() {
            let problem = format!("names the shard `{shard}`, which {} lacks", place.describe());
            return Err(Error::format(index.path(), problem));
        }
    }
    Ok((WeightFiles::Sharded(index), Some(file)))
}

fn gguf(place: &dyn Place) -> Result<Option<PathBuf>> {
    match place.gguf_files()?.as_slice() {
        [] => Ok(None),
        [name] => place.file(name),
        [first, ..] => Err(Error::Source(format!(
            "{} has several GGUF files, `{first}` among them: name the one you want by its local path",
            place.describe()
        ))),
    }
}

/// The tokenizer of the model in `place`, whether or not its weights are there.
pub(super) fn tokenizer_of(place: &dyn Place) -> Result<TokenizerFiles> {
    let vocab_size = config(place)?.map_or(0, |(_, config)| config.vocab_size);
    match own_tokenizer(place, vocab_size)? {
        TokenizerFiles::None => gguf(place)?.map_or(Ok(TokenizerFiles::None), |path| tokenizer_in_gguf(&path)),
        found => Ok(found),
    }
}

fn own_tokenizer(place: &dyn Place, vocab_size: usize) -> Result<TokenizerFiles> {
    const GPT2_VOCABULARY: usize = 50257;
    Ok(match TokenizerFiles::find(&|name| place.file(name))? {
        TokenizerFiles::None if vocab_size == GPT2_VOCABULARY => TokenizerFiles::BuiltIn,
        found => found,
    })
}

/// The tokenizer at `path`: a `tokenizer.json` under any name, a GGUF file, or a folder with `tokenizer.json` or
/// `vocab.json` and `merges.txt`.
pub(super) fn tokenizer_at(path: &Path) -> Result<TokenizerFiles> {
    if path.is_file() {
        let is_gguf = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
        return if is_gguf { tokenizer_in_gguf(path) } else { Ok(TokenizerFiles::tokenizer_json(path)) };
    }
    match own_tokenizer(&Folder(path.to_owned()), 0)? {
        TokenizerFiles::None => Err(Error::Source(format!(
            "tokenizer `{}`: looked for a file of that name, and for {TOKENIZER} or vocab.json and merges.txt in it",
            path.display()
        ))),
        found => Ok(found),
    }
}

pub(super) fn tokenizer_in_gguf(path: &Path) -> Result<TokenizerFiles> {
    Ok(TokenizerFiles::Gguf(Arc::new(Gguf::open(path)?)))
}

/// A local folder.
pub(super) struct Folder(pub(super) PathBuf);

impl Place for Folder {
    fn file(&self, name: &str) -> Result<Option<PathBuf>> {
        let path = self.0.join(name);
        Ok(path.is_file().then_some(path))
    }

    fn gguf_files(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in self.0.read_dir().map_err(Error::io("read", &self.0))? {
            let name = entry.map_err(Error::io("read", &self.0))?.file_name();
            names.extend(name.into_string().ok().filter(|name| name.ends_with(".gguf")));
        }
        names.sort();
        Ok(names)
    }

    fn describe(&self) -> String {
        format!("the folder `{}`", self.0.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG_JSON: &str = r#"{"vocab_size": 50257}"#;

    /// A folder with these files.
    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).expect("a file");
        }
        folder
    }

    fn found(files: &[(&str, &str)]) -> Result<Found> {
        let folder = folder(files);
        find(&Folder(folder.path().to_owned()), "m", &TokenizerChoice::Own)
    }

    #[track_caller]
    fn fails<T: std::fmt::Debug>(result: Result<T>, words: &[&str]) {
        let message = result.expect_err("an error").to_string();
        assert!(!message.contains('\n'), "{message}");
        for word in words {
            assert!(message.contains(word), "`{word}` is not in {message}");
        }
    }

    #[test]
    fn weights_are_looked_for_in_order_of_preference() {
        let index = r#"{"weight_map": {"wte.weight": "a.safetensors"}}"#;
        let mut files = vec![
            ("config.json", CONFIG_JSON),
            ("model.safetensors", ""),
            ("model.safetensors.index.json", index),
            ("pytorch_model.bin", ""),
            ("pytorch_model.bin.index.json", index),
            ("x.gguf", ""),
            ("a.safetensors", ""),
        ];
        let mut kinds = Vec::new();
        while files.len() > 2 {
            let model = found(&files).expect("a model");
            let index = model.small.get(1).map(|index| index.path().to_owned());
            kinds.push(index.unwrap_or_else(|| model.weight_files().remove(0)));
            files.remove(1);
        }
        let names: Vec<_> = kinds.iter().map(|path| path.file_name().expect("a name")).collect();
        let order = ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"];
        assert_eq!(names[..3], order);
        assert_eq!(names[3..], ["pytorch_model.bin.index.json", "x.gguf"]);
    }

    #[test]
    fn a_gguf_file_brings_configuration_and_tokenizer() {
        let model = found(&[("x.gguf", "")]).expect("a model");
        assert!(matches!(model.parts, Parts::Gguf { tokenizer: None, .. }));
        fails(found(&[("x.gguf", ""), ("y.gguf", "")]), &["several GGUF files", "x.gguf"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        fails(found(&[]), &["not a model", "config.json", "*.gguf"]);
        fails(found(&[("model.safetensors", "")]), &["not a model", "config.json"]);
        let looked_for = ["model.safetensors,", "model.safetensors.index.json,", "pytorch_model.bin,", "*.gguf"];
        fails(found(&[("config.json", CONFIG_JSON)]), &looked_for);
        let index = r#"{"weight_map": {"wte.weight": "a.safetensors"}}"#;
        let files = [("config.json", CONFIG_JSON), ("model.safetensors.index.json", index)];
        fails(found(&files), &["index.json", "`a.safetensors`"]);
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
        let files = [("config.json", CONFIG_JSON), ("model.safetensors", pointer)];
        let folder = folder(&files);
        let found_pointer = find(&Folder(folder.path().to_owned()), "m", &TokenizerChoice::Own).expect("a model");
        fails(found_pointer.open(), &["model.safetensors", "git lfs pull"]);
        let large = " ".repeat(LARGEST_CONFIG as usize + 1);
        fails(found(&[("config.json", &large)]), &["config.json", "larger"]);
    }

    #[test]
    fn the_tokenizer_is_the_folders_own_or_gpt2s_if_the_vocabulary_has_its_size() {
        let of = |config: &str, names: &[&str]| {
            let mut files = vec![("config.json", config), ("model.safetensors", "")];
            files.extend(names.iter().map(|name| (*name, "")));
            match found(&files).expect("a model").parts {
                Parts::Separate { tokenizer, .. } => tokenizer,
                Parts::Gguf { .. } => panic!("there are weights"),
            }
        };
        let all = &["tokenizer.json", "vocab.json", "merges.txt"];
        let names = |files: TokenizerFiles| -> Vec<String> {
            let name = |file: &SmallFile| file.path().file_name().expect("a name").to_str().expect("UTF-8").to_owned();
            files.small_files().iter().map(name).collect()
        };
        assert_eq!(names(of(CONFIG_JSON, all)), ["tokenizer.json"]);
        assert_eq!(names(of(CONFIG_JSON, &all[1..])), ["vocab.json", "merges.txt"]);
        // Half a tokenizer may be half of another one.
        assert!(matches!(of(CONFIG_JSON, &all[1..2]), TokenizerFiles::Foreign { .. }));
        assert!(matches!(of(CONFIG_JSON, &["vocab.txt"]), TokenizerFiles::Foreign { .. }));
        assert!(matches!(of(CONFIG_JSON, &[]), TokenizerFiles::BuiltIn));
        assert!(matches!(of(r#"{"vocab_size": 50258}"#, &[]), TokenizerFiles::None));
    }

    #[test]
    fn a_given_tokenizer_is_a_file_or_a_folder() {
        let folder = folder(&[("vocab.json", ""), ("merges.txt", ""), ("mine.json", "")]);
        let at = |name: &str| tokenizer_at(&folder.path().join(name));
        let files = |name: &str| at(name).expect("a tokenizer").small_files();
        assert_eq!(files("").len(), 2);
        assert!(files("mine.json")[0].path().ends_with("mine.json"));
        let gguf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoint/tiny.gguf");
        assert!(matches!(tokenizer_at(&gguf), Ok(TokenizerFiles::Gguf(_))));
        fails(at("nothing"), &["nothing", "tokenizer.json", "vocab.json and merges.txt"]);
    }
}
