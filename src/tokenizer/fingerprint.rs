//! Recognising tokenizers.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::load::{HuggingFaceFiles, TokenizerFiles};
use crate::json;

impl TokenizerFiles {
    /// Identifies the tokenizer by all that it is made from, wherever that lies.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        match self {
            Self::None => hash.update("none"),
            Self::BuiltIn => hash.update("gpt2"),
            Self::Foreign { path, problem } => hash.update(format!("{problem} {}", path.display())),
            Self::Gguf(gguf) => match gguf.vocabulary() {
                Ok(vocabulary) => hash.update(format!("{vocabulary:?}")),
                Err(fault) => hash.update(fault.to_string()),
            },
            Self::HuggingFace(files) => {
                for file in self.small_files() {
                    // A file that cannot be read makes a tokenizer that cannot be used.
                    let bytes = file.bytes().unwrap_or_default();
                    hash.update(format!("{:?} {}\0", file.path().file_name(), bytes.len()));
                    hash.update(bytes);
                }
                hash.update(class(files));
            }
        }
        hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What `config.json` says about the tokenizer.
fn class(files: &HuggingFaceFiles) -> String {
    let config = files.config.as_ref().and_then(|file| json::parse(file.bytes().ok()?).ok()).unwrap_or_default();
    let key = |key| config.get(key).unwrap_or(&Value::Null);
    format!("{} {}", key("tokenizer_class"), key("model_type"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_the_tokenizer_changes_its_fingerprint() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let print = || {
            let place = |name: &str| Ok(Some(folder.path().join(name)).filter(|path| path.is_file()));
            TokenizerFiles::find(&place).unwrap().fingerprint()
        };
        let mut seen = vec![TokenizerFiles::BuiltIn.fingerprint(), print()];
        let mut next = || {
            let now = print();
            assert!(!seen.contains(&now), "{seen:?}");
            assert_eq!(now, print());
            seen.push(now);
        };
        write("tokenizer.json", "{}");
        next();
        write("tokenizer.json", "{ }");
        next();
        write("tokenizer_config.json", "{\"add_prefix_space\": true}");
        next();
        write("config.json", "{\"tokenizer_class\": \"GPT2Tokenizer\"}");
        next();
        let before = print();
        write("config.json", "{\"tokenizer_class\": \"GPT2Tokenizer\", \"n_layer\": 3}");
        assert_eq!(before, print(), "no part of the tokenizer");
    }
}
