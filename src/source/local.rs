//! Which files make up a model, wherever they are; and local folders.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::weights::{self, Weights, holds_weights};
use super::{OpenedModel, SourceOptions};
use crate::checkpoint::gguf::{Gguf, is_gguf};
use crate::checkpoint::{self, Checkpoint};
use crate::config::{Config, GPT2_VOCABULARY, LARGEST_CONFIG};
use crate::error::{Error, Result};
use crate::files::SmallFile;
use crate::tokenizer::TokenizerFiles;

/// A place that may have the files of one model.
pub(super) trait Place {
    /// The local path of the file called `name`, fetched if necessary; `None` if the place has no such file.
    fn file(&self, name: &str) -> Result<Option<PathBuf>>;

    /// The names of all files, except those in subfolders.
    fn names(&self) -> Result<Vec<String>>;

    /// Whether the file called `name` may hold weights.
    fn may_hold_weights(&self, name: &str) -> bool {
        weights::has_extension_of_weights(name)
    }

    /// Whether the file called `name`, which may hold weights, holds GPT-2's, as far as that is known without downloading it.
    fn has_weights(&self, _name: &str) -> bool {
        true
    }

    /// Whether asking for a file downloads it.
    fn downloads(&self) -> bool {
        false
    }

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
    /// The one beside the weights, once these are found.
    Own(TokenizerFiles),
}

impl TokenizerChoice {
    /// The one named in the options, else the model's own.
    pub(super) fn of(options: &SourceOptions<'_>) -> Result<Self> {
        let given = options.tokenizer.as_deref().map(tokenizer_at).transpose()?;
        Ok(given.map_or(Self::Own(TokenizerFiles::None), Self::Given))
    }
}

/// The files of a model. Only small files that tell where the others are have been read; the weights are not opened
/// yet.
#[derive(Debug)]
pub(super) struct Found {
    name: String,
    weights: Weights,
    /// `config.json`, or the one that was asked for.
    config: Option<Config>,
    tokenizer: TokenizerChoice,
    generation_config: Option<SmallFile>,
    /// The files of the place that are read as a whole.
    pub(super) small: Vec<SmallFile>,
}

impl Found {
    /// Opens the weights.
    pub(super) fn open(&self, options: &SourceOptions<'_>) -> Result<OpenedModel> {
        let checkpoint = Checkpoint::open(&self.weights.files)?;
        let tokenizer = match (&self.tokenizer, checkpoint.gguf()) {
            (TokenizerChoice::Given(tokenizer), _) => tokenizer.clone(),
            (TokenizerChoice::BuiltIn, _) => TokenizerFiles::BuiltIn,
            (TokenizerChoice::Own(_), Some(gguf)) if gguf.has_tokenizer() => TokenizerFiles::Gguf(Arc::clone(gguf)),
            (TokenizerChoice::Own(files), _) => files.clone(),
        };
        let generation_config = self.generation_config.clone();
        OpenedModel::new(&self.name, self.config.clone(), checkpoint, tokenizer, generation_config, options)
    }

    /// The files that hold the weights.
    pub(super) fn weight_files(&self) -> &[PathBuf] {
        &self.weights.paths
    }
}

pub(super) const CONFIG: &str = "config.json";

pub(super) const GENERATION_CONFIG: &str = "generation_config.json";

pub(super) const TOKENIZER: &str = "tokenizer.json";

/// Finds the files of the model called `name` in `place`. The configuration comes first and is checked, so that a model
/// of another architecture is rejected before its gigabytes are fetched.
pub(super) fn find(
    place: &dyn Place,
    name: &str,
    tokenizer: &TokenizerChoice,
    options: &SourceOptions<'_>,
) -> Result<Found> {
    let config = config(place, options)?;
    if config.is_none()
        && place.downloads()
        && let Some(name) = place.names()?.into_iter().find(|name| weights::NEEDS_CONFIG.contains(&name.as_str()))
    {
        return Err(Error::Source(format!("{} is not a model: it has {name}, but no {CONFIG}", place.describe())));
    }
    if let Some(weights) = weights::find(place)? {
        return with_weights(place, name, config, weights, tokenizer);
    }
    Err(without_weights(place, config.is_some())?)
}

/// Why nothing was found in `place`.
fn without_weights(place: &dyn Place, has_config: bool) -> Result<Error> {
    let (names, described) = (place.names()?, place.describe());
    if place.file(ADAPTER_CONFIG)?.is_some() {
        return Ok(Error::Usage(format!(
            "{described} has a LoRA adapter ({ADAPTER_CONFIG}), not a model: give its base model as `model` and this as `adapter`"
        )));
    }
    if let Some((name, what)) = OTHER_PROGRAMS.into_iter().find(|(name, _)| names.iter().any(|other| other == name)) {
        return Ok(Error::Source(format!(
            "{described} has {name}, the weights for {what}, which cannot be read; save the model as safetensors with transformers"
        )));
    }
    if let Some(data) = names.iter().find(|name| name.contains(".data-00000-of-")) {
        let problem = format!("has {data}, but not the index (*.index) of that TensorFlow checkpoint");
        return Ok(Error::Source(format!("{described} {problem}")));
    }
    Ok(match has_config {
        true => Error::Source(format!(
            "{described} has no weights: looked for {}, *.gguf and other checkpoints",
            weights::NEEDS_CONFIG.join(", ")
        )),
        false => {
            Error::NotFound(format!("{described} is not a model: looked for {CONFIG}, *.gguf and other checkpoints"))
        }
    })
}

/// Weights for other programs.
const OTHER_PROGRAMS: [(&str, &str); 3] =
    [("tf_model.h5", "Keras"), ("flax_model.msgpack", "Flax"), ("rust_model.ot", "rust-bert")];

pub(super) const ADAPTER_CONFIG: &str = "adapter_config.json";

/// The model whose weights are in the file at `path`, with what lies beside it.
pub(super) fn find_file(
    path: &Path,
    name: &str,
    tokenizer: &TokenizerChoice,
    options: &SourceOptions<'_>,
) -> Result<Found> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (place, weights) = (Folder(folder.to_owned()), Weights::at(path)?);
    with_weights(&place, name, config(&place, options)?, weights, tokenizer)
}

fn with_weights(
    place: &dyn Place,
    name: &str,
    config: Option<(SmallFile, Config)>,
    weights: Weights,
    tokenizer: &TokenizerChoice,
) -> Result<Found> {
    let tokenizer = match tokenizer {
        TokenizerChoice::Own(_) => TokenizerChoice::Own(own_tokenizer(place)?),
        choice => choice.clone(),
    };
    let tokenizer_files = match &tokenizer {
        TokenizerChoice::Own(files) => files.small_files(),
        TokenizerChoice::Given(_) | TokenizerChoice::BuiltIn => vec![],
    };
    let generation_config = place.file(GENERATION_CONFIG)?;
    let generation_config = generation_config.map(|path| SmallFile::new(path, LARGEST_CONFIG));
    let (config_file, config) = config.unzip();
    let small = config_file.into_iter().chain(generation_config.clone()).chain(tokenizer_files);
    let small = small.chain(weights.index.clone()).collect();
    Ok(Found { name: name.to_owned(), weights, config, tokenizer, generation_config, small })
}

/// The configuration that was asked for, else the one in `place`, if any.
fn config(place: &dyn Place, options: &SourceOptions<'_>) -> Result<Option<(SmallFile, Config)>> {
    let path = match &options.config {
        Some(path) => Some(path.clone()),
        None => place.file(CONFIG)?,
    };
    let Some(path) = path else { return Ok(None) };
    let file = SmallFile::new(path, LARGEST_CONFIG);
    let config = Config::from_json(file.bytes()?, &file.path().display().to_string())?;
    Ok(Some((file, config)))
}

/// The tokenizer beside the weights.
pub(super) fn own_tokenizer(place: &dyn Place) -> Result<TokenizerFiles> {
    TokenizerFiles::find(&|name| place.file(name))
}

/// The tokenizer of a folder without tokenizer files or weights: GPT-2's if its `config.json` has a vocabulary of that
/// size.
pub(super) fn tokenizer_by_config(folder: &Path) -> Result<TokenizerFiles> {
    let config = config(&Folder(folder.to_owned()), &SourceOptions::default())?;
    let is_gpt2s = config.is_some_and(|(_, config)| config.vocab_size == GPT2_VOCABULARY);
    Ok(if is_gpt2s { TokenizerFiles::BuiltIn } else { TokenizerFiles::None })
}

/// The tokenizer at `path`: GPT-2's (`gpt2`), a `tokenizer.json` under any name, a GGUF file, or a folder with
/// `tokenizer.json` or `vocab.json` and `merges.txt`.
pub(super) fn tokenizer_at(path: &Path) -> Result<TokenizerFiles> {
    if path == Path::new("gpt2") {
        return Ok(TokenizerFiles::BuiltIn);
    }
    if path.is_file() {
        let gguf = file_starts(path, is_gguf)?;
        return if gguf { tokenizer_in_gguf(path) } else { TokenizerFiles::file(path) };
    }
    match own_tokenizer(&Folder(path.to_owned()))? {
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

/// Whether the first bytes of a file are as `expected`.
pub(super) fn file_starts(path: &Path, expected: impl Fn(&[u8]) -> bool) -> Result<bool> {
    use std::io::Read;
    let mut start = vec![];
    let file = std::fs::File::open(path).map_err(Error::io("read", path))?;
    file.take(16).read_to_end(&mut start).map_err(Error::io("read", path))?;
    Ok(expected(&start))
}

/// A local folder.
pub(super) struct Folder(pub(super) PathBuf);

impl Place for Folder {
    fn file(&self, name: &str) -> Result<Option<PathBuf>> {
        let path = self.0.join(name);
        Ok(path.is_file().then_some(path))
    }

    fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in self.0.read_dir().map_err(Error::io("read", &self.0))? {
            let name = entry.map_err(Error::io("read", &self.0))?.file_name();
            names.extend(name.into_string().ok());
        }
        Ok(names)
    }

    fn may_hold_weights(&self, name: &str) -> bool {
        holds_weights(&self.0.join(name))
    }

    fn has_weights(&self, name: &str) -> bool {
        checkpoint::has_weights(&self.0.join(name))
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
        let own = TokenizerChoice::Own(TokenizerFiles::None);
        find(&Folder(folder.path().to_owned()), "m", &own, &SourceOptions::default())
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
            ("x.gguf", "GGUF"),
            ("a.safetensors", ""),
        ];
        let mut kinds = Vec::new();
        while files.len() > 2 {
            let model = found(&files).expect("a model");
            let index = model.small.get(1).map(|index| index.path().to_owned());
            kinds.push(index.unwrap_or_else(|| model.weight_files()[0].clone()));
            files.remove(1);
        }
        let names: Vec<_> = kinds.iter().map(|path| path.file_name().expect("a name")).collect();
        let order = ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"];
        assert_eq!(names[..3], order);
        assert_eq!(names[3..], ["pytorch_model.bin.index.json", "x.gguf"]);
    }

    #[test]
    fn content_tells_which_file_holds_the_weights() {
        let zip = "PK\x03\x04";
        for name in ["x.gguf", "x", "x.txt"] {
            let model = found(&[(name, "GGUF"), ("notes.gguf", "of another kind"), ("optimizer.pt", zip)]);
            assert_eq!(model.expect("a model").weight_files()[0].file_name().unwrap(), name);
        }
        assert_eq!(found(&[("ckpt.pt", zip)]).expect("a model").weight_files().len(), 1);
        fails(found(&[("x.gguf", "GGUF"), ("y.pt", zip)]), &["several files with weights", "`x.gguf` and `y.pt`"]);
        let parts = [("m-00001-of-00002.gguf", "GGUF"), ("m-00002-of-00002.gguf", "GGUF")];
        assert_eq!(found(&parts).expect("a model").weight_files().len(), 2);
        fails(found(&[("adapter_config.json", "{}"), ("adapter_model.bin", zip)]), &["LoRA adapter", "`adapter`"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        fails(found(&[]), &["not a model", "config.json", "*.gguf"]);
        let looked_for = ["model.safetensors,", "model.safetensors.index.json,", "pytorch_model.bin,", "*.gguf"];
        fails(found(&[("config.json", CONFIG_JSON)]), &looked_for);
        let index = r#"{"weight_map": {"wte.weight": "a.safetensors"}}"#;
        let files = [("config.json", CONFIG_JSON), ("model.safetensors.index.json", index)];
        fails(found(&files), &["index.json", "`a.safetensors`"]);
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
        let files = [("config.json", CONFIG_JSON), ("model.safetensors", pointer)];
        let folder = folder(&files);
        let (own, options) = (TokenizerChoice::Own(TokenizerFiles::None), SourceOptions::default());
        let found_pointer = find(&Folder(folder.path().to_owned()), "m", &own, &options).expect("a model");
        fails(found_pointer.open(&options), &["model.safetensors", "git lfs pull"]);
        let large = " ".repeat(LARGEST_CONFIG as usize + 1);
        fails(found(&[("config.json", &large)]), &["config.json", "larger"]);
    }

    #[test]
    fn the_tokenizer_is_the_one_beside_the_weights() {
        let of = |names: &[&str]| {
            let mut files = vec![("config.json", CONFIG_JSON), ("model.safetensors", "")];
            files.extend(names.iter().map(|name| (*name, "")));
            match found(&files).expect("a model").tokenizer {
                TokenizerChoice::Own(files) => files,
                other => panic!("{other:?}"),
            }
        };
        let all = &["tokenizer.json", "vocab.json", "merges.txt"];
        let names = |files: TokenizerFiles| -> Vec<String> {
            let name = |file: &SmallFile| file.path().file_name().expect("a name").to_str().expect("UTF-8").to_owned();
            files.small_files().iter().map(name).collect()
        };
        assert_eq!(names(of(all)), ["tokenizer.json"]);
        assert_eq!(names(of(&all[1..])), ["vocab.json", "merges.txt"]);
        // Half a tokenizer may be half of another one.
        assert!(matches!(of(&all[1..2]), TokenizerFiles::Foreign { .. }));
        assert!(matches!(of(&["vocab.txt"]), TokenizerFiles::Foreign { .. }));
        assert!(matches!(of(&[]), TokenizerFiles::None));
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
