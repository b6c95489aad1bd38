//! From tokenizer files to a [`Tokenizer`].

use std::path::PathBuf;
use std::sync::Arc;

use super::tokenizer_json::Entries;
use super::vocabulary::{in_order, merge};
use super::{END_OF_TEXT, Tokenizer, tokenizer_json};
use crate::checkpoint::gguf::{Gguf, Vocabulary};
use crate::error::{Error, Result};
use crate::files::SmallFile;

/// The largest tokenizer file that is read, in bytes. Those of the largest vocabularies have about 30 MB.
const LARGEST_FILE: u64 = 256 << 20;

/// Where a tokenizer comes from.
#[derive(Debug, Clone)]
pub enum TokenizerFiles {
    /// GPT-2's, built into the program.
    BuiltIn,
    /// A `tokenizer.json`.
    TokenizerJson(SmallFile),
    /// `vocab.json` and `merges.txt`.
    VocabAndMerges(SmallFile, SmallFile),
    /// The metadata of a GGUF file.
    Gguf(Arc<Gguf>),
    /// There is no tokenizer: only ids can be used.
    None,
}

impl TokenizerFiles {
    /// The `tokenizer.json` at `path`, whatever its name.
    #[must_use]
    pub fn tokenizer_json(path: impl Into<PathBuf>) -> Self {
        Self::TokenizerJson(SmallFile::new(path, LARGEST_FILE))
    }

    /// `vocab.json` and `merges.txt` at these paths.
    #[must_use]
    pub fn vocab_and_merges(vocab: impl Into<PathBuf>, merges: impl Into<PathBuf>) -> Self {
        Self::VocabAndMerges(SmallFile::new(vocab, LARGEST_FILE), SmallFile::new(merges, LARGEST_FILE))
    }
}

impl Tokenizer {
    /// Loads the tokenizer of a model.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`] or [`Error::Tokenizer`], naming the file and what is wrong with it.
    pub fn load(files: &TokenizerFiles) -> Result<Self> {
        match files {
            TokenizerFiles::BuiltIn => Ok(Self::gpt2()),
            TokenizerFiles::TokenizerJson(file) => {
                tokenizer_json::parse(file.bytes()?).map_err(|message| Error::format(file.path(), message))
            }
            TokenizerFiles::VocabAndMerges(vocab, merges) => from_vocab_and_merges(vocab, merges),
            TokenizerFiles::Gguf(gguf) => from_gguf(gguf),
            TokenizerFiles::None => Err(Error::Tokenizer("the model comes without a tokenizer".into())),
        }
    }
}

fn from_vocab_and_merges(vocab: &SmallFile, merges: &SmallFile) -> Result<Tokenizer> {
    let of_vocab = |message: String| Error::format(vocab.path(), message);
    let of_merges = |message: String| Error::format(merges.path(), message);
    let entries: Entries<'_> = serde_json::from_slice(vocab.bytes()?)
        .map_err(|e| of_vocab(format!("not a vocabulary, an object of pieces and ids: {e}")))?;
    let pieces = in_order(entries.0).map_err(of_vocab)?;
    let text = std::str::from_utf8(merges.bytes()?).map_err(|e| of_merges(format!("not UTF-8: {e}")))?;
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with("#version"));
    from_lines(&pieces, lines, &end_of_text(&pieces)).map_err(of_merges)
}

fn from_gguf(gguf: &Gguf) -> Result<Tokenizer> {
    let Vocabulary { tokens, merges, mut special } = gguf.vocabulary()?;
    if special.is_empty() {
        special = end_of_text(&tokens);
    }
    from_lines(&tokens, merges, &special).map_err(|message| Error::format(&gguf.path, message))
}

/// A tokenizer whose merges are lines as in `merges.txt`.
fn from_lines<'a, S: AsRef<str>>(
    pieces: &[S],
    merges: impl IntoIterator<Item = &'a str>,
    special: &[u32],
) -> Result<Tokenizer, String> {
    let pairs = merges.into_iter().map(merge).collect::<Result<Vec<_>, _>>()?;
    Tokenizer::byte_level(pieces, &pairs, special)
}

/// The special tokens of a vocabulary that does not name them.
fn end_of_text<S: AsRef<str>>(pieces: &[S]) -> Vec<u32> {
    (0..).zip(pieces).filter(|(_, piece)| piece.as_ref() == END_OF_TEXT).map(|(id, _)| id).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::tokenizer::{Tokenizer, TokenizerFiles};

    /// A folder with these files.
    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    #[track_caller]
    fn assert_refused(files: &TokenizerFiles, words: &[&str]) {
        let error = Tokenizer::load(files).err().expect("the files are refused").to_string();
        for word in words {
            assert!(error.contains(word), "`{word}` is not in `{error}`");
        }
        assert!(!error.contains('\n'), "more than a line: {error}");
    }

    #[test]
    fn broken_vocabularies_are_refused() {
        for (vocab, words) in [
            ("", "not a vocabulary"),
            ("{\"a\": 0", "not a vocabulary"),
            ("[1, 2]", "an object of pieces and ids"),
            ("{}", "empty"),
            ("{\"a\": -1}", "-1"),
            ("{\"a\": 0.5}", "0.5"),
            ("{\"a\": 1e30}", "1e"),
            ("{\"a\": \"0\"}", "string \"0\""),
            ("{\"a\": 4294967295}", "no piece with the id 0"),
            ("{\"a\": 0, \"b\": 18446744073709551615}", "no piece with the id 1; the next one is \"b\""),
            ("{\"a\": 0, \"b\": 2}", "no piece with the id 1; the next one is \"b\" with 2"),
            ("{\"a\": 0, \"b\": 0}", "the id 0 twice"),
            ("{\"a\\nb\": 1}", "the next one is \"a\\nb\" with 1"),
        ] {
            let folder = folder(&[("vocab.json", vocab.as_bytes()), ("merges.txt", b"")]);
            let path = |name| folder.path().join(name);
            assert_refused(
                &TokenizerFiles::vocab_and_merges(path("vocab.json"), path("merges.txt")),
                &["vocab.json: ", words],
            );
        }
    }

    #[test]
    fn broken_merges_are_refused() {
        let vocab = b"{\"a\": 0, \"b\": 1, \"ab\": 2, \"aba\": 3}";
        for (merges, words) in [
            (&b"a b\nab"[..], "\"ab\" is not a merge"),
            (b"a b c", "\"a b c\" is not a merge"),
            (b"a ", "\"a \" is not a merge"),
            (b"a c", "the merge \"a\" \"c\" makes \"c\""),
            (b"c a", "the merge \"c\" \"a\" makes \"c\""),
            (b"b a", "the merge \"b\" \"a\" makes \"ba\""),
            (b"\xff a", "not UTF-8"),
        ] {
            let folder = folder(&[("vocab.json", vocab), ("merges.txt", merges)]);
            let path = |name| folder.path().join(name);
            assert_refused(
                &TokenizerFiles::vocab_and_merges(path("vocab.json"), path("merges.txt")),
                &["merges.txt: ", words],
            );
        }
    }

    #[cfg(feature = "tokenizers")]
    #[test]
    fn broken_tokenizer_json_is_refused() {
        let byte_level = |added: &str, vocab: &str, merges: &str| {
            format!(
                r#"{{"added_tokens": [{added}], "normalizer": null, "pre_tokenizer": {{"type": "ByteLevel", "add_prefix_space": false}},
                "decoder": {{"type": "ByteLevel"}}, "model": {{"vocab": {vocab}, "merges": {merges}}}}}"#
            )
        };
        let added = |id: &str| format!(r#"{{"id": {id}, "content": "<s>", "special": true}}"#);
        let model = |model: &str, more: &str| format!(r#"{{"version": "1.0", "model": {model}{more}}}"#);
        let (vocab, merges) = (r#"{"a": 0, "b": 1, "ab": 2}"#, r#"["a b"]"#);
        for (json, words) in [
            (String::new(), "not a tokenizer: EOF"),
            ("{".into(), "not a tokenizer: EOF"),
            ("{}".into(), "no model"),
            ("[".repeat(100_000), "not a tokenizer"),
            (byte_level("", vocab, r#"["a c"]"#), "the merge \"a\" \"c\" makes \"c\""),
            (byte_level("", vocab, r#"["ab"]"#), "\"ab\" is not a merge"),
            (byte_level("", vocab, r#"[["", "a"]]"#), "makes \"\""),
            (byte_level(&added("9"), vocab, merges), "no piece with the id 3; the next one is \"<s>\" with 9"),
            (byte_level(&added("4294967296"), vocab, merges), "with 4294967296"),
            (byte_level(&added("1"), vocab, merges), "the id 1 twice"),
            (byte_level("", r#"{"a": 0, "b": 5}"#, "[]"), "no piece with the id 1"),
            (model(r#"{"type": "Nonsense"}"#, ""), "a model of type \"Nonsense\""),
            (model(r#"{"type": "WordLevel", "vocab": {"a": 7}, "unk_token": "a"}"#, ""), "no piece with the id 0"),
            (
                model(
                    r#"{"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}"#,
                    r#", "normalizer": {"type": "Precompiled"}"#,
                ),
                "\"Precompiled\"",
            ),
            (
                model(
                    r#"{"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}"#,
                    r#", "decoder": {"type": "Sequence", "decoders": [{"type": "Strip", "content": " ", "start": 0, "stop": 1}]}"#,
                ),
                "strips",
            ),
            (
                model(
                    r#"{"type": "BPE", "vocab": {"a": 0, "é": 1}, "merges": ["a é"], "continuing_subword_prefix": "x"}"#,
                    "",
                ),
                "prefix",
            ),
        ] {
            let folder = folder(&[("tokenizer.json", json.as_bytes())]);
            let path = folder.path().join("tokenizer.json");
            assert_refused(&TokenizerFiles::tokenizer_json(path), &["tokenizer.json: ", words]);
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let missing = TokenizerFiles::tokenizer_json("/nonexistent/tokenizer.json");
        assert_refused(&missing, &["cannot read /nonexistent/tokenizer.json"]);
        assert_refused(&TokenizerFiles::None, &["without a tokenizer"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Whatever happened to a file: an error, or a tokenizer that works.
        #[test]
        fn damaged_files_do_no_harm(
            name in prop::sample::select(vec!["byte_level_json", "byte_level_stripping", "word_piece", "sentence_piece"]),
            damage in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..9, "[0-9a-z\\[\\]{}\",:]{0,3}|\\PC{0,3}"), 0..4),
        ) {
            let path = format!("{}/tests/fixtures/tokenizer/{name}/tokenizer.json", env!("CARGO_MANIFEST_DIR"));
            let mut json = std::fs::read(path).unwrap();
            for (place, removed, inserted) in damage {
                let start = place.index(json.len());
                let end = json.len().min(start + removed);
                json.splice(start..end, inserted.into_bytes());
            }
            if let Ok(tokenizer) = crate::tokenizer::tokenizer_json::parse(&json) {
                for special in [true, false] {
                    let tokens = tokenizer.encode("the theory, don't [SEP] <special> x<|endoftext|> é漢🙂", special);
                    let ids: Vec<u32> = tokens.iter().flatten().map(|token| token.id).collect();
                    drop(tokenizer.decode(&ids, special));
                    drop(tokenizer.decode_bytes(&ids, special));
                }
            }
        }
    }
}
