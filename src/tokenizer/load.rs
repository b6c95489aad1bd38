//! From tokenizer files to a [`Tokenizer`].

use std::io::Read;
use std::path::Path;

use super::tokenizer_json::Entries;
use super::vocabulary::in_order;
use super::{END_OF_TEXT, Tokenizer, tokenizer_json};
use crate::checkpoint::gguf::{Gguf, Vocabulary};
use crate::error::{Error, Result};
use crate::source::TokenizerFiles;

/// The largest tokenizer file that is read. Those of the largest vocabularies have some 30 MB.
const LARGEST_FILE: u64 = 256 << 20;

impl Tokenizer {
    /// Loads the tokenizer of a model.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`] or [`Error::Tokenizer`], naming the file and what is wrong with it.
    pub fn load(files: &TokenizerFiles) -> Result<Self> {
        match files {
            TokenizerFiles::BuiltIn => Ok(Self::gpt2()),
            TokenizerFiles::TokenizerJson(path) => {
                tokenizer_json::parse(&read(path)?).map_err(|message| Error::format(path, message))
            }
            TokenizerFiles::VocabAndMerges(vocab, merges) => from_vocab_and_merges(vocab, merges),
            TokenizerFiles::Gguf(path) => from_gguf(path),
            TokenizerFiles::None => Err(Error::Tokenizer(
                "the model comes without a tokenizer: give token ids (--ids), or a tokenizer (--tokenizer PATH)".into(),
            )),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let file = std::fs::File::open(path).map_err(Error::io("read", path))?;
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(Error::format(path, format!("larger than {} MiB; this is no tokenizer file", LARGEST_FILE >> 20)));
    }
    Ok(bytes)
}

fn from_vocab_and_merges(vocab: &Path, merges: &Path) -> Result<Tokenizer> {
    let json = read(vocab)?;
    let entries: Entries<'_> = serde_json::from_slice(&json)
        .map_err(|e| Error::format(vocab, format!("not a vocabulary, an object of pieces and ids: {e}")))?;
    let pieces = in_order(entries.0).map_err(|message| Error::format(vocab, message))?;
    let text = read(merges)?;
    let text = std::str::from_utf8(&text).map_err(|e| Error::format(merges, format!("not UTF-8: {e}")))?;
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with("#version"));
    from_lines(&pieces, lines, &end_of_text(&pieces)).map_err(|message| Error::format(merges, message))
}

fn from_gguf(path: &Path) -> Result<Tokenizer> {
    let gguf = Gguf::open(path)?;
    let Vocabulary { tokens, merges, mut special } = gguf.vocabulary()?;
    if special.is_empty() {
        special = end_of_text(&tokens);
    }
    from_lines(&tokens, merges, &special).map_err(|message| Error::format(path, message))
}

/// A tokenizer with merges written as lines of `merges.txt`.
fn from_lines<'a, S: AsRef<str>>(
    pieces: &[S],
    merges: impl IntoIterator<Item = &'a str>,
    special: &[u32],
) -> Result<Tokenizer, String> {
    let pairs = merges.into_iter().map(merge).collect::<Result<Vec<_>, _>>()?;
    Tokenizer::byte_level(pieces, &pairs, special)
}

/// The special tokens of a vocabulary that does not say which they are.
fn end_of_text<S: AsRef<str>>(pieces: &[S]) -> Vec<u32> {
    (0..).zip(pieces).filter(|(_, piece)| piece.as_ref() == END_OF_TEXT).map(|(id, _)| id).collect()
}

/// The two pieces of a merge written as `left right`.
pub(super) fn merge(line: &str) -> Result<(&str, &str), String> {
    let pair =
        line.split_once(' ').filter(|(left, right)| !left.is_empty() && !right.is_empty() && !right.contains(' '));
    pair.ok_or_else(|| format!("`{line}` is no merge, which is two pieces with a space between"))
}
