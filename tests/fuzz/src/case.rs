//! One run of the program: its files, arguments and input.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// A run of the program in a folder of its own.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Case {
    /// Files of the folder, by their relative paths.
    pub files: BTreeMap<String, Vec<u8>>,
    pub arguments: Vec<String>,
    pub stdin: Vec<u8>,
}

impl Case {
    pub fn file(&mut self, path: &str, bytes: Vec<u8>) -> &mut Self {
        self.files.insert(path.to_owned(), bytes);
        self
    }

    /// Adds arguments, split at spaces.
    pub fn args(&mut self, arguments: &str) -> &mut Self {
        self.arguments.extend(arguments.split_whitespace().map(str::to_owned));
        self
    }

    /// Adds one argument.
    pub fn arg(&mut self, argument: impl Into<String>) -> &mut Self {
        // No argument can hold a NUL or be longer than 128 KiB.
        let mut argument = argument.into().replace('\0', "");
        while argument.len() > 100_000 {
            argument.pop();
        }
        self.arguments.push(argument);
        self
    }

    /// Writes it into `folder`: `files/` is where the program runs; `arguments` has them with a NUL after each; `stdin`;
    /// `command` is the same for people and their shell.
    pub fn save(&self, folder: &Path, program: &Path) -> io::Result<()> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        let files = folder.join("files");
        fs::create_dir_all(&files)?;
        for (name, bytes) in &self.files {
            let path = files.join(name);
            fs::create_dir_all(path.parent().expect("a file is in a folder"))?;
            fs::write(path, bytes)?;
        }
        fs::write(folder.join("stdin"), &self.stdin)?;
        fs::write(folder.join("arguments"), self.arguments.iter().flat_map(|a| [a, "\0"]).collect::<String>())?;
        let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
        let words: Vec<String> = self.arguments.iter().map(|argument| quoted(argument)).collect();
        let program = quoted(&program.display().to_string());
        let command = format!(
            "#!/bin/sh\ncd \"$(dirname \"$0\")/files\" && HF_HUB_OFFLINE=1 HF_HOME=hf {program} {} < ../stdin\n",
            words.join(" ")
        );
        fs::write(folder.join("command"), command)
    }

    /// Reads what [`Self::save`] wrote.
    pub fn load(folder: &Path) -> io::Result<Self> {
        let mut case = Self { stdin: fs::read(folder.join("stdin"))?, ..Self::default() };
        let arguments = fs::read_to_string(folder.join("arguments"))?;
        case.arguments = arguments.split_terminator('\0').map(str::to_owned).collect();
        let files = folder.join("files");
        for path in list(&files)? {
            let name = path.strip_prefix(&files).expect("it was found there").to_string_lossy().into_owned();
            case.files.insert(name, fs::read(path)?);
        }
        Ok(case)
    }
}

/// All files in a folder and its folders.
pub fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![];
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(list(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_comes_back_as_it_was_saved() {
        let folder = std::env::temp_dir().join(format!("fuzz-case-{}", std::process::id()));
        let mut case = Case { stdin: b"\xff".into(), ..Case::default() };
        case.file("model/config.json", b"{}".into()).args("generate --model model").arg("it's\n").arg("");
        case.save(&folder, Path::new("gpt2")).unwrap();
        assert_eq!(Case::load(&folder).unwrap(), case);
        fs::remove_dir_all(folder).unwrap();
    }
}
