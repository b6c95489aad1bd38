//! The config file: where it is, and what its keys say.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use gpt2::files::{is_utf16, read_at_most, user_paths};
use gpt2::{Error, printable};
use toml::de::{DeTable, DeValue};

use super::unknown;

/// The environment variable that names another file; empty, it stands for none.
const VARIABLE: &str = "GPT2_CONFIG";

/// The keys that a file may have.
const KEYS: [&str; 5] = ["model", "device", "dtype", "threads", "color"];

/// More than a file of five keys and many comments has, in bytes.
const LARGEST: u64 = 1 << 16;

/// The config file, which need not exist.
#[derive(Debug, Clone, Default)]
pub struct ConfigFile {
    /// `None` if none is wanted, or if there is no home folder.
    pub path: Option<PathBuf>,
    /// The environment variable that names it, if one does.
    pub variable: Option<&'static str>,
    pub exists: bool,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    key: &'static str,
    /// The value as a flag would be given it.
    value: String,
    /// Counted from 1.
    line: usize,
}

impl ConfigFile {
    /// Finds the file and reads it, if it is there.
    ///
    /// # Errors
    /// In one line with the file's path, if it cannot be read, is no TOML, or has a key or a type of value that there is
    /// not.
    pub fn read() -> Result<Self, String> {
        let named = std::env::var_os(VARIABLE);
        let (path, variable) = match &named {
            Some(path) if path.is_empty() => return Ok(Self { variable: Some(VARIABLE), ..Self::default() }),
            Some(path) => (user_paths::expanded(path.clone()), Some(VARIABLE)),
            None => match default_path() {
                Some(path) => (path, None),
                None => return Ok(Self::default()),
            },
        };
        // Whoever names a file means one that exists.
        if variable.is_none() {
            // A link that leads nowhere is there.
            if path.symlink_metadata().is_err() {
                return Ok(Self { path: Some(path), ..Self::default() });
            }
            // A pipe that nobody writes to would stop every command. Who names one has a writer.
            if path.metadata().is_ok_and(|found| !found.is_file() && !found.is_dir()) {
                return Err(format!("{} is no regular file, and should be the config file", printable::path(&path)));
            }
        }
        let content = read_at_most(&path, LARGEST).map_err(|error| unreadable(&error, variable))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let entries = text(&content).and_then(|text| entries(text, folder));
        let entries = entries.map_err(|fault| format!("{}{fault}", printable::path(&path)))?;
        Ok(Self { path: Some(path), variable, exists: true, entries })
    }

    /// The value of a key, if it is there.
    ///
    /// # Errors
    /// In one line with the file's path, the line and the key, if `parse` refuses it.
    pub fn get<T>(&self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
        let Some(Entry { key, value, line }) = self.entries.iter().find(|entry| entry.key == key) else {
            return Ok(None);
        };
        let path = self.path.as_deref().map(printable::path).unwrap_or_default();
        let parsed = parse(value).map_err(|fault| format!("{path}, line {line}: {key} {}", printable::line(&fault)))?;
        Ok(Some(parsed))
    }
}

/// `gpt2/config.toml` in the folder of the user's config files.
fn default_path() -> Option<PathBuf> {
    let system = || if cfg!(windows) { user_paths::by_environment("APPDATA") } else { None };
    let folder = user_paths::by_environment("XDG_CONFIG_HOME").or_else(system);
    // As the XDG Base Directory Specification has it: a relative path would be another file in every folder.
    let folder = folder.filter(|folder| folder.is_absolute());
    let folder = folder.or_else(|| Some(user_paths::home()?.join(".config")).filter(|folder| folder.is_absolute()))?;
    Some(folder.join("gpt2").join("config.toml"))
}

fn unreadable(error: &Error, variable: Option<&str>) -> String {
    let Error::Io { path, source, .. } = error else { return error.to_string() };
    // Windows only denies access to a folder.
    let is_folder = path.is_dir();
    let path = printable::path(path);
    match variable {
        Some(variable) if source.kind() == ErrorKind::NotFound => {
            format!("{variable} names {path}, which does not exist: write it, or set {variable}= for no config file")
        }
        Some(variable) if is_folder => format!("{variable} names {path}, which is a folder: name the file in it"),
        None if is_folder => format!("{path} is a folder, and should be the config file"),
        _ => format!("cannot read the config file {path}: {source}"),
    }
}

/// The file's text; else what is wrong with it, to follow its path.
fn text(content: &[u8]) -> Result<&str, String> {
    if is_utf16(content) {
        return Err(": the file is UTF-16; save it as UTF-8".to_owned());
    }
    std::str::from_utf8(content).map_err(|error| {
        let line = content[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        format!(", line {line}: not UTF-8; save the file as UTF-8")
    })
}

/// The entries of a file in this folder; else what is wrong, to follow the file's path.
fn entries(text: &str, folder: &Path) -> Result<Vec<Entry>, String> {
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().unwrap_or_default().start.min(text.len());
        let before = text.get(..at).unwrap_or_default();
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let message = match (error.message(), error.span().and_then(|span| text.get(span))) {
            (message @ "duplicate key", Some(key)) => format!("{message} `{key}`"),
            (message, _) => message.to_owned(),
        };
        format!(", line {}, column {column}: not TOML: {}", line(text, at), printable::line(&message))
    })?;
    let table = table.into_inner();
    let mut found: Vec<_> = table.iter().collect();
    found.sort_by_key(|(key, _)| key.span().start);
    let entry = |key: &str, place: usize, value: &DeValue<'_>| {
        let line = line(text, place);
        let fault = |fault: String| format!(", line {line}: {fault}");
        let key = KEYS.into_iter().find(|known| *known == key).ok_or_else(|| fault(unknown_key(key)))?;
        let value = match (key, value) {
            ("threads", DeValue::Integer(number)) if number.radix() == 10 => number.as_str().to_owned(),
            ("threads", _) => return Err(fault("threads takes a whole number, such as threads = 4".to_owned())),
            ("model", DeValue::String(text)) => model(text, folder).map_err(fault)?,
            (_, DeValue::String(text)) => text.clone().into_owned(),
            (key, _) => {
                return Err(fault(format!("{key} takes a text in quotes, such as {key} = \"{}\"", example(key))));
            }
        };
        Ok(Entry { key, value, line })
    };
    found.into_iter().map(|(key, value)| entry(key.get_ref(), key.span().start, value.get_ref())).collect()
}

/// A model, whose path may begin with `~` and contain variables. One that begins with `./` or `../` counts from the folder.
fn model(given: &str, folder: &Path) -> Result<String, String> {
    if given.is_empty() {
        return Err("model is empty: name one, or leave it out".to_owned());
    }
    let path = user_paths::expanded(given.into());
    let is_beside = path.starts_with(".") || path.starts_with("..");
    let path = if is_beside { folder.join(path) } else { path };
    let not_unicode =
        |path: OsString| format!("model is a path that is not UTF-8: {}", printable::path(Path::new(&path)));
    path.into_os_string().into_string().map_err(not_unicode)
}

fn unknown_key(key: &str) -> String {
    let what = format!("there is no key `{}`", printable::line(key));
    match unknown::nearest(key, KEYS.into_iter()) {
        Some(meant) => format!("{what}; did you mean {meant}?"),
        None => format!("{what}; the keys are {} and {}", KEYS[..KEYS.len() - 1].join(", "), KEYS[KEYS.len() - 1]),
    }
}

/// A value that a key may have.
fn example(key: &str) -> &'static str {
    match key {
        "device" => "cpu",
        "dtype" => "bf16",
        "color" => "never",
        _ => "demo",
    }
}

/// The line of a place in the text, counted from 1.
fn line(text: &str, place: usize) -> usize {
    text.bytes().take(place).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_what_a_flag_would_be_given() {
        let text = "# mine\nmodel = 'demo'\nthreads = 1_0 # half\ncolor = \"never\"\n";
        let entries = entries(text, Path::new("/etc")).unwrap();
        let found: Vec<_> = entries.iter().map(|entry| (entry.key, &*entry.value, entry.line)).collect();
        assert_eq!(found, [("model", "demo", 2), ("threads", "10", 3), ("color", "never", 4)]);
    }

    #[test]
    fn a_model_beside_the_file_counts_from_there() {
        let of = |model: &str| super::model(model, Path::new("/etc/gpt2")).unwrap();
        assert_eq!(["demo", "owner/name", "/m", "m.gguf"].map(of), ["demo", "owner/name", "/m", "m.gguf"]);
        assert_eq!(Path::new(&of("./m")), Path::new("/etc/gpt2/m"));
        assert_eq!(Path::new(&of("../m")), Path::new("/etc/gpt2/../m"));
        assert_eq!(
            super::model("./gpt2", Path::new("")).unwrap(),
            "./gpt2",
            "a folder, and not the model of that name"
        );
        let home = user_paths::home().unwrap();
        assert_eq!(Path::new(&of("~/m")), home.join("m"));
    }

    #[test]
    fn the_first_fault_is_told_with_its_place() {
        for (text, fault) in [
            ("zzz = 1\n", ", line 1: there is no key `zzz`; the keys are model, device, dtype, threads and color"),
            ("\ncolour = 'never'\nmodle = 1\n", ", line 2: there is no key `colour`; did you mean color?"),
            ("[model]\nname = 'demo'\n", ", line 1: model takes a text in quotes, such as model = \"demo\""),
            ("[defaults]\nmodel = 'demo'\n", ", line 1: there is no key `defaults`"),
            ("dtype = 16", ", line 1: dtype takes a text in quotes, such as dtype = \"bf16\""),
            ("threads = 'all'", ", line 1: threads takes a whole number, such as threads = 4"),
            ("threads = 0x10", ", line 1: threads takes a whole number"),
            ("threads = 2.0", ", line 1: threads takes a whole number"),
            ("\"a\\u001bb\" = 1", ", line 1: there is no key `a\\u{1b}b`"),
        ] {
            let found = entries(text, Path::new("")).unwrap_err();
            assert!(found.starts_with(fault), "{text:?}: {found}");
        }
    }

    #[test]
    fn what_is_no_toml_is_told_in_one_line_with_its_place() {
        for (text, place) in [
            ("model = demo\n", ", line 1, column 9: not TOML: "),
            ("threads = 2\nmodel \"demo\"\n", ", line 2, column "),
            ("model = \"demo\n", ", line 1, column "),
            ("model = 'a'\nmodel = 'b'\n", ", line 2, column 1: not TOML: duplicate key `model`"),
            ("é = [", ", line 1, column "),
        ] {
            let found = entries(text, Path::new("")).unwrap_err();
            assert!(found.starts_with(place) && !found.contains('\n'), "{text:?}: {found}");
        }
        let deep = "model = ".to_owned() + &"[".repeat(60_000);
        assert!(entries(&deep, Path::new("")).is_err());
    }

    #[test]
    fn other_encodings_are_named() {
        assert_eq!(text(b"a\nb\n\xFF").unwrap_err(), ", line 3: not UTF-8; save the file as UTF-8");
        assert!(text(b"\xFF\xFEm\0").unwrap_err().contains("UTF-16"));
    }
}
