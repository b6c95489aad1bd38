//! What an output was made with, in a file beside it: `F.jsonl.gpt2` for `F.jsonl`.
//!
//! The first line holds the settings of the run. Each further line stands for a result: the hashes of the row's identity
//! and of what the row says. It is written before the result, so a result without a line here is not of this program, and
//! a line without a result means nothing. The file stays locked while a run writes.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use gpt2::Error;
use gpt2::decode::{GenerationConfig, PARAMETERS, Parameter};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Hash, hash};

/// Decoding parameters by name, for [`Settings`].
pub fn parameters(config: &GenerationConfig) -> impl Iterator<Item = (String, Value)> {
    PARAMETERS.iter().map(|parameter| (parameter.name.to_owned(), parameter.json(config)))
}

/// What the results of a run depend on, besides the rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The subcommand.
    pub subcommand: String,
    /// The model's name, for people: the same model may have several.
    pub model: String,
    /// The model's configuration.
    pub config: String,
    /// Identifies the weights.
    pub weights: String,
    /// Identifies the tokenizer.
    pub tokenizer: String,
    /// The seed that was drawn if none was given; a later run continues with it.
    pub seed: u64,
    /// Parameters and flags by name.
    pub parameters: Map<String, Value>,
}

impl Settings {
    /// What differs from those of an earlier run; none if results may be mixed.
    fn difference(&self, earlier: &Self) -> Option<String> {
        if self.subcommand != earlier.subcommand {
            return Some(format!("gpt2 {}, not gpt2 {}", earlier.subcommand, self.subcommand));
        }
        if self.weights != earlier.weights {
            return Some(match self.model == earlier.model {
                true => format!("other weights of the model {}", self.model),
                false => format!("the model {}, not {}", earlier.model, self.model),
            });
        }
        if self.config != earlier.config {
            return Some(format!("another configuration of the model {}", self.model));
        }
        if self.tokenizer != earlier.tokenizer {
            return Some("another tokenizer".to_owned());
        }
        let names = earlier
            .parameters
            .keys()
            .chain(self.parameters.keys().filter(|key| !earlier.parameters.contains_key(*key)));
        // An earlier version may not have had the parameter.
        let default = |name: &str| Parameter::named(name).map(|parameter| parameter.json(&GenerationConfig::default()));
        let shown = |settings: &Self, name: &str| match settings.parameters.get(name).cloned().or_else(|| default(name))
        {
            None | Some(Value::Null) => "not set".to_owned(),
            Some(value) => value.to_string(),
        };
        let differs = names.filter(|name| shown(self, name) != shown(earlier, name));
        let differences: Vec<String> =
            differs.map(|name| format!("`{name}` {} (now {})", shown(earlier, name), shown(self, name))).collect();
        (!differences.is_empty()).then(|| differences.join(", "))
    }
}

/// Identifies a run: its model, its parameters, and its rows by their hash.
pub fn fingerprint(settings: &Settings, rows: Hash) -> String {
    let Settings { subcommand, model: _, config, weights, tokenizer, seed: _, parameters } = settings;
    let parameters = Value::Object(parameters.clone()).to_string();
    hex(hash([subcommand, config, weights, tokenizer, &parameters, &hex(rows)].map(String::as_str)))
}

/// The open file, which only this process may write.
pub struct Ledger {
    file: File,
    path: PathBuf,
    /// How many results of an earlier run the output had when it was opened, and how many of them are replaced.
    found: usize,
    replaced: usize,
}

/// What a ledger says about an earlier run.
pub struct Earlier {
    settings: Settings,
    /// What each row said, by its key, when its result was written.
    pub contents: HashMap<Hash, Hash>,
}

impl Ledger {
    fn path(output: &Path) -> PathBuf {
        let mut path = output.as_os_str().to_owned();
        path.push(".gpt2");
        path.into()
    }

    /// Whether the output has one.
    pub fn exists(output: &Path) -> bool {
        Self::path(output).exists()
    }

    /// Opens and locks the ledger of an output.
    pub fn open(output: &Path) -> Result<Self> {
        let path = Self::path(output);
        gpt2::files::check_output(&path)?;
        let check = |is_ours: bool| match is_ours {
            true => Ok(()),
            false => {
                let path = path.display();
                let what = "would say what the output was made with, but is no file of this program; move it away";
                Err(Error::Usage(format!("{path} {what}")))
            }
        };
        check(path.symlink_metadata().map_or(true, |found| found.is_file()))?;
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        lock(&file, output)?;
        // Not before it is locked: on Windows, only who holds the lock can read it.
        check(begins_as_ours(&file))?;
        let mut ledger = Self { file, path, found: 0, replaced: 0 };
        if std::fs::metadata(output).is_ok_and(|output| output.len() > 0) {
            ledger.found = read(&ledger.text()?).map_or(0, |earlier| earlier.contents.len());
        }
        Ok(ledger)
    }

    fn text(&mut self) -> Result<Vec<u8>> {
        let mut text = vec![];
        let read = self.file.rewind().and_then(|()| self.file.read_to_end(&mut text));
        read.with_context(|| format!("cannot read {}", self.path.display()))?;
        Ok(text)
    }

    /// How many results of an earlier run this one replaces.
    pub fn replaced(&self) -> usize {
        self.replaced
    }

    /// Begins anew.
    pub fn begin(&mut self, settings: &Settings) -> Result<()> {
        self.replaced = self.found;
        let begin = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all((serde_json::to_string(settings)? + "\n").as_bytes())
        };
        begin(&mut self.file).with_context(|| self.fault())
    }

    /// Reads what an earlier run has written, and drops a line that it has not completed; none if there is nothing.
    ///
    /// # Errors
    /// [`Error::Usage`] if it was made with other settings.
    pub fn resume(&mut self, output: &Path, settings: &mut Settings) -> Result<Option<Earlier>> {
        let mut text = self.text()?;
        text.truncate(text.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1));
        let end = |file: &mut File| {
            file.set_len(text.len() as u64)?;
            file.seek(SeekFrom::End(0))
        };
        end(&mut self.file).with_context(|| self.fault())?;
        let Some(earlier) = read(&text) else { return Ok(None) };
        if let Some(difference) = settings.difference(&earlier.settings) {
            bail!(Error::Usage(format!(
                "{} was made with {difference}; use the same to continue it, or give another --output",
                output.display()
            )));
        }
        settings.seed = earlier.settings.seed;
        Ok(Some(earlier))
    }

    /// Notes that the result of a row follows.
    pub fn note(&mut self, key: Hash, content: Hash) -> Result<()> {
        let line = format!("{} {}\n", hex(key), hex(content));
        self.file.write_all(line.as_bytes()).with_context(|| self.fault())
    }

    fn fault(&self) -> String {
        format!("cannot write {}", self.path.display())
    }
}

/// Locks a file of an output until it is closed.
pub fn lock(file: &File, output: &Path) -> Result<()> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            bail!("another run is writing {}; wait for it, or give another --output", output.display())
        }
        // Some file systems have no locks.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
    }
}

/// Whether a file is a ledger, which may be incomplete.
fn begins_as_ours(file: &File) -> bool {
    const BEGINNING: &[u8] = b"{\"subcommand\":";
    let mut start = vec![];
    file.take(BEGINNING.len() as u64).read_to_end(&mut start).is_ok() && BEGINNING.starts_with(&start)
}

fn read(text: &[u8]) -> Option<Earlier> {
    let mut lines = text.split(|b| *b == b'\n');
    let settings = serde_json::from_slice(lines.next()?).ok()?;
    let pair = |line: &[u8]| {
        let (key, content) = std::str::from_utf8(line).ok()?.split_once(' ')?;
        Some((from_hex(key)?, from_hex(content)?))
    };
    // A row that was run again has a later line, which counts.
    Some(Earlier { settings, contents: lines.filter_map(pair).collect() })
}

fn hex(hash: Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Hash> {
    let number = u128::from_str_radix(text, 16).ok()?;
    (text.len() == 2 * size_of::<Hash>()).then(|| number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(parameters: Value) -> Settings {
        let Value::Object(parameters) = parameters else { panic!("an object") };
        let [subcommand, model, config, weights, tokenizer] = ["generate", "m", "c", "w", "t"].map(str::to_owned);
        Settings { subcommand, model, config, weights, tokenizer, seed: 1, parameters }
    }

    #[test]
    fn what_differs_is_named() {
        use serde_json::json;
        let one = settings(json!({"max_new_tokens": 5, "temperature": null, "bos": false}));
        assert_eq!(one.difference(&Settings { seed: 2, model: "./m".into(), ..one.clone() }), None);
        let other = settings(json!({"max_new_tokens": 7, "bos": false, "top_p": 0.5}));
        assert_eq!(one.difference(&other).unwrap(), "`max_new_tokens` 7 (now 5), `top_p` 0.5 (now not set)");
        let newer = settings(json!({"max_new_tokens": 5, "bos": false, "presence_penalty": 0.0, "logit_bias": {}}));
        assert_eq!(newer.difference(&one), None, "a parameter that an earlier version did not have");
        let newer = settings(json!({"max_new_tokens": 5, "bos": false, "presence_penalty": 0.5}));
        assert_eq!(newer.difference(&one).unwrap(), "`presence_penalty` 0.0 (now 0.5)");
        let other = Settings { weights: "v".into(), model: "n".into(), ..one.clone() };
        assert_eq!(one.difference(&other).unwrap(), "the model n, not m");
        let other = Settings { weights: "v".into(), ..one.clone() };
        assert_eq!(one.difference(&other).unwrap(), "other weights of the model m");
        let other = Settings { config: "d".into(), ..one.clone() };
        assert_eq!(one.difference(&other).unwrap(), "another configuration of the model m");
        let other = Settings { tokenizer: "u".into(), ..one.clone() };
        assert_eq!(one.difference(&other).unwrap(), "another tokenizer");
        let other = Settings { subcommand: "score".into(), ..one.clone() };
        assert_eq!(one.difference(&other).unwrap(), "gpt2 score, not gpt2 generate");
    }

    #[test]
    fn one_process_writes_and_what_it_wrote_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out.jsonl");
        let mut settings = settings(serde_json::json!({"n": 1}));
        let mut ledger = Ledger::open(&output).unwrap();
        assert!(Ledger::open(&output).is_err_and(|e| e.to_string().contains("another run is writing")));
        ledger.begin(&settings).unwrap();
        ledger.note([1; 16], [2; 16]).unwrap();
        ledger.note([1; 16], [3; 16]).unwrap();
        ledger.file.write_all(b"0101").unwrap();
        drop(ledger);
        settings.seed = 9;
        let mut ledger = Ledger::open(&output).unwrap();
        let earlier = ledger.resume(&output, &mut settings).unwrap().unwrap();
        assert_eq!((earlier.contents, settings.seed), (HashMap::from([([1; 16], [3; 16])]), 1));
        ledger.note([4; 16], [5; 16]).unwrap();
        drop(ledger);
        let earlier = Ledger::open(&output).unwrap().resume(&output, &mut settings).unwrap().unwrap();
        assert_eq!(earlier.contents.len(), 2, "the line that was cut off is gone");
    }
}
