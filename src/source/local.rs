//! Which files make a model, wherever they lie; and the folders of this machine.
//!
//! Reference for names and their order: transformers 5.23.0, `modeling_utils.py` (`_get_resolved_checkpoint_files`).

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{ConfigSource, ModelFiles, SourceOptions, TokenizerFiles};
use crate::checkpoint::{ShardIndex, WeightFiles};
use crate::config::{Config, LARGEST_CONFIG};
use crate::error::{Error, Result};
use crate::files::read_at_most;

/// Something that may hold the files of one model.
pub(super) trait Place {
    /// The local path of the file called `name`, fetched if need be; none if the place has no such file.
    fn file(&self, name: &str) -> Result<Option<PathBuf>>;

    /// The names of the GGUF files, those in subfolders left out.
    fn gguf_files(&self) -> Result<Vec<String>>;

    /// What errors call the place.
    fn describe(&self) -> String;
}

/// Which tokenizer a model shall have.
#[derive(Debug)]
pub(super) enum TokenizerChoice {
    /// The one at this path.
    Given(PathBuf),
    /// GPT-2's: the model is known to use it, so there is no need to fetch or read another copy.
    BuiltIn,
    /// The one that lies beside the weights.
    Own,
}

impl TokenizerChoice {
    /// The one that the options name, else the model's own.
    pub(super) fn of(options: &SourceOptions) -> Self {
        options.tokenizer.clone().map_or(Self::Own, Self::Given)
    }
}

pub(super) const CONFIG: &str = "config.json";
const SAFETENSORS: &str = "model.safetensors";
const SAFETENSORS_INDEX: &str = "model.safetensors.index.json";
const PYTORCH: &str = "pytorch_model.bin";
const PYTORCH_INDEX: &str = "pytorch_model.bin.index.json";
pub(super) const TOKENIZER: &str = "tokenizer.json";

/// Finds the files of the model called `name` in `place`. The configuration comes first and is checked, so that a model
/// of another architecture is refused before its gigabytes are fetched.
pub(super) fn find(place: &dyn Place, name: &str, tokenizer: &TokenizerChoice) -> Result<ModelFiles> {
    let config = place.file(CONFIG)?;
    if let Some(config) = &config {
        let json = read_at_most(config, LARGEST_CONFIG)?;
        let vocab_size = Config::from_json(&json, &config.display().to_string())?.vocab_size;
        if let Some(weights) = weights(place)? {
            return Ok(ModelFiles {
                name: name.to_owned(),
                config: ConfigSource::File(config.clone()),
                weights,
                tokenizer: match tokenizer {
                    TokenizerChoice::Given(path) => tokenizer_at(path)?,
                    TokenizerChoice::BuiltIn => TokenizerFiles::BuiltIn,
                    TokenizerChoice::Own => own_tokenizer(place, vocab_size)?,
                },
                generation_config: place.file("generation_config.json")?,
            });
        }
    }
    if let Some(path) = gguf(place)? {
        let given = if let TokenizerChoice::Given(path) = tokenizer { Some(path.as_path()) } else { None };
        return gguf_model(name, path, given);
    }
    let place = place.describe();
    Err(Error::Source(match config {
        Some(_) => format!(
            "{place} has no weights: looked for {SAFETENSORS}, {SAFETENSORS_INDEX}, {PYTORCH}, {PYTORCH_INDEX} and *.gguf"
        ),
        None => format!("{place} is no model: looked for {CONFIG} (beside the weights) and for *.gguf"),
    }))
}

/// The model in a GGUF file, with its own tokenizer or the one at `tokenizer`.
pub(super) fn gguf_model(name: &str, path: PathBuf, tokenizer: Option<&Path>) -> Result<ModelFiles> {
    Ok(ModelFiles {
        name: name.to_owned(),
        config: ConfigSource::Gguf(path.clone()),
        tokenizer: tokenizer.map_or_else(|| Ok(TokenizerFiles::Gguf(path.clone())), tokenizer_at)?,
        weights: WeightFiles::Gguf(path),
        generation_config: None,
    })
}

fn weights(place: &dyn Place) -> Result<Option<WeightFiles>> {
    if let Some(path) = place.file(SAFETENSORS)? {
        return Ok(Some(WeightFiles::Safetensors(path)));
    }
    if let Some(index) = place.file(SAFETENSORS_INDEX)? {
        return sharded(place, index).map(Some);
    }
    if let Some(path) = place.file(PYTORCH)? {
        return Ok(Some(WeightFiles::PyTorch(path)));
    }
    place.file(PYTORCH_INDEX)?.map(|index| sharded(place, index)).transpose()
}

/// The weights in the shards that `index` names, all of which `place` must have.
fn sharded(place: &dyn Place, index: PathBuf) -> Result<WeightFiles> {
    for shard in ShardIndex::read(&index)?.shards() {
        if place.file(shard)?.is_none() {
            let problem = format!("names the shard `{shard}`, which {} lacks", place.describe());
            return Err(Error::format(index, problem));
        }
    }
    Ok(WeightFiles::Sharded(index))
}

fn gguf(place: &dyn Place) -> Result<Option<PathBuf>> {
    match place.gguf_files()?.as_slice() {
        [] => Ok(None),
        [name] => place.file(name),
        [first, ..] => Err(Error::Source(format!(
            "{} holds several GGUF files, `{first}` among them: name the file that you want by its path on this machine",
            place.describe()
        ))),
    }
}

/// The tokenizer of the model in `place`, whether or not its weights are there.
pub(super) fn tokenizer_of(place: &dyn Place) -> Result<TokenizerFiles> {
    let vocab_size = match place.file(CONFIG)? {
        Some(config) => {
            Config::from_json(&read_at_most(&config, LARGEST_CONFIG)?, &config.display().to_string())?.vocab_size
        }
        None => 0,
    };
    match own_tokenizer(place, vocab_size)? {
        TokenizerFiles::None => Ok(gguf(place)?.map_or(TokenizerFiles::None, TokenizerFiles::Gguf)),
        found => Ok(found),
    }
}

fn own_tokenizer(place: &dyn Place, vocab_size: usize) -> Result<TokenizerFiles> {
    if let Some(path) = place.file(TOKENIZER)? {
        return Ok(TokenizerFiles::TokenizerJson(path));
    }
    if let Some(vocab) = place.file("vocab.json")?
        && let Some(merges) = place.file("merges.txt")?
    {
        return Ok(TokenizerFiles::VocabAndMerges(vocab, merges));
    }
    const GPT2_VOCABULARY: usize = 50257;
    Ok(if vocab_size == GPT2_VOCABULARY { TokenizerFiles::BuiltIn } else { TokenizerFiles::None })
}

/// The tokenizer at `path`: a `tokenizer.json` under any name, a GGUF file, or a folder that holds `tokenizer.json` or
/// `vocab.json` and `merges.txt`.
pub(super) fn tokenizer_at(path: &Path) -> Result<TokenizerFiles> {
    if path.is_file() {
        let is_gguf = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
        return Ok(if is_gguf {
            TokenizerFiles::Gguf(path.to_owned())
        } else {
            TokenizerFiles::TokenizerJson(path.to_owned())
        });
    }
    match own_tokenizer(&Folder(path.to_owned()), 0)? {
        TokenizerFiles::None => Err(Error::Source(format!(
            "tokenizer `{}`: looked for a file of that name, and for {TOKENIZER} or vocab.json and merges.txt in it",
            path.display()
        ))),
        found => Ok(found),
    }
}

/// A folder of this machine.
pub(super) struct Folder(pub(super) PathBuf);

impl Place for Folder {
    fn file(&self, name: &str) -> Result<Option<PathBuf>> {
        let path = self.0.join(name);
        if !path.is_file() {
            return Ok(None);
        }
        refuse_pointer(&path)?;
        Ok(Some(path))
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

/// Refuses what `git clone` leaves in place of large files where Git LFS is not installed.
fn refuse_pointer(path: &Path) -> Result<()> {
    const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";
    let mut start = Vec::new();
    let file = File::open(path).map_err(Error::io("read", path))?;
    file.take(POINTER.len() as u64).read_to_end(&mut start).map_err(Error::io("read", path))?;
    if start == POINTER {
        let problem = "a Git LFS pointer in place of the file; run `git lfs pull` in its folder";
        return Err(Error::format(path, problem));
    }
    Ok(())
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

    fn found(files: &[(&str, &str)]) -> Result<ModelFiles> {
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
            kinds.push(match found(&files).expect("a model").weights {
                WeightFiles::Safetensors(path) | WeightFiles::Sharded(path) | WeightFiles::PyTorch(path) => path,
                WeightFiles::Gguf(path) => path,
                WeightFiles::Static(_) => panic!("not on disk"),
            });
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
        assert!(matches!(model.config, ConfigSource::Gguf(_)));
        assert!(matches!(model.tokenizer, TokenizerFiles::Gguf(_)));
        fails(found(&[("x.gguf", ""), ("y.gguf", "")]), &["several GGUF files", "x.gguf"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        fails(found(&[]), &["no model", "config.json", "*.gguf"]);
        fails(found(&[("model.safetensors", "")]), &["no model", "config.json"]);
        let looked_for = ["model.safetensors,", "model.safetensors.index.json,", "pytorch_model.bin,", "*.gguf"];
        fails(found(&[("config.json", CONFIG_JSON)]), &looked_for);
        let index = r#"{"weight_map": {"wte.weight": "a.safetensors"}}"#;
        let files = [("config.json", CONFIG_JSON), ("model.safetensors.index.json", index)];
        fails(found(&files), &["index.json", "`a.safetensors`"]);
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
        let files = [("config.json", CONFIG_JSON), ("model.safetensors", pointer)];
        fails(found(&files), &["model.safetensors", "git lfs pull"]);
        let large = " ".repeat(LARGEST_CONFIG as usize + 1);
        fails(found(&[("config.json", &large)]), &["config.json", "larger"]);
    }

    #[test]
    fn the_tokenizer_is_the_folders_own_or_gpt2s_if_the_vocabulary_has_its_size() {
        let of = |config: &str, names: &[&str]| {
            let mut files = vec![("config.json", config), ("model.safetensors", "")];
            files.extend(names.iter().map(|name| (*name, "")));
            found(&files).expect("a model").tokenizer
        };
        let all = &["tokenizer.json", "vocab.json", "merges.txt"];
        assert!(matches!(of(CONFIG_JSON, all), TokenizerFiles::TokenizerJson(_)));
        assert!(matches!(of(CONFIG_JSON, &all[1..]), TokenizerFiles::VocabAndMerges(_, _)));
        assert_eq!(of(CONFIG_JSON, &all[1..2]), TokenizerFiles::BuiltIn);
        assert_eq!(of(r#"{"vocab_size": 50258}"#, &[]), TokenizerFiles::None);
    }

    #[test]
    fn a_given_tokenizer_is_a_file_or_a_folder() {
        let folder = folder(&[("vocab.json", ""), ("merges.txt", ""), ("mine.json", ""), ("x.gguf", "")]);
        let at = |name: &str| tokenizer_at(&folder.path().join(name));
        assert!(matches!(at(""), Ok(TokenizerFiles::VocabAndMerges(_, _))));
        assert_eq!(at("mine.json").expect("a file"), TokenizerFiles::TokenizerJson(folder.path().join("mine.json")));
        assert!(matches!(at("x.gguf"), Ok(TokenizerFiles::Gguf(_))));
        fails(at("nothing"), &["nothing", "tokenizer.json", "vocab.json and merges.txt"]);
    }
}
