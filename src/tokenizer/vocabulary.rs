//! The vocabulary: every token as its file writes it and as the bytes that it stands for, in two flat buffers.

use std::hash::BuildHasher;

use hashbrown::hash_table::{Entry, HashTable};
use rustc_hash::FxBuildHasher;

use super::alphabet;

/// Tokens by id, and ids by piece.
#[derive(Default)]
pub(super) struct Vocabulary {
    pieces: Strings,
    bytes: Strings,
    ids: HashTable<u32>,
    /// Ascending.
    special: Vec<u32>,
}

impl Vocabulary {
    /// An empty vocabulary with room for `tokens`.
    pub fn with_capacity(tokens: usize) -> Self {
        Self {
            pieces: Strings::with_capacity(tokens),
            bytes: Strings::with_capacity(tokens),
            ids: HashTable::with_capacity(tokens),
            special: Vec::new(),
        }
    }

    /// Adds a token of a byte-level vocabulary. A piece with a character outside the byte alphabet stands for its text.
    pub fn push(&mut self, piece: &str) -> Result<u32, String> {
        if piece.chars().all(|letter| alphabet::byte(letter).is_some()) {
            self.push_as(piece, piece.chars().filter_map(alphabet::byte))
        } else {
            self.push_as(piece, piece.bytes())
        }
    }

    /// Adds an added token of a byte-level vocabulary. Like transformers, which decodes all pieces alike, it stands for
    /// the bytes of its letters; for its text if those are not text.
    pub fn push_added(&mut self, piece: &str, special: bool) -> Result<u32, String> {
        let bytes: Option<Vec<u8>> = piece.chars().map(alphabet::byte).collect();
        match bytes.filter(|bytes| std::str::from_utf8(bytes).is_ok()) {
            Some(bytes) => self.push_added_as(piece, special, bytes),
            None => self.push_added_as(piece, special, piece.bytes()),
        }
    }

    /// Adds an added token that stands for `bytes`; if it is special, decoding may leave it out.
    pub fn push_added_as(
        &mut self,
        piece: &str,
        special: bool,
        bytes: impl IntoIterator<Item = u8>,
    ) -> Result<u32, String> {
        let id = self.push_as(piece, bytes)?;
        self.special.extend(special.then_some(id));
        Ok(id)
    }

    /// Adds a token that stands for `bytes`.
    pub fn push_as(&mut self, piece: &str, bytes: impl IntoIterator<Item = u8>) -> Result<u32, String> {
        // A text may have many of it.
        const LONGEST: usize = 1 << 14;
        if piece.len() > LONGEST {
            let (piece, length) = (shown(piece), piece.len());
            return Err(format!("the vocabulary's piece {piece} has {length} bytes, more than {LONGEST}"));
        }
        let Self { pieces, ids, .. } = self;
        let same = |&id: &u32| pieces.get(id) == Some(piece.as_bytes());
        let rehash = |&id: &u32| hash(pieces.get(id).unwrap_or_default());
        let Entry::Vacant(entry) = ids.entry(hash(piece.as_bytes()), same, rehash) else {
            return Err(format!("the vocabulary has {} twice", shown(piece)));
        };
        entry.insert(self.bytes.push(bytes)?);
        self.pieces.push(piece.bytes())
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// The id of `piece`.
    pub fn id(&self, piece: &str) -> Option<u32> {
        let same = |&id: &u32| self.pieces.get(id) == Some(piece.as_bytes());
        self.ids.find(hash(piece.as_bytes()), same).copied()
    }

    /// Token `id` as the vocabulary writes it.
    pub fn piece(&self, id: u32) -> Option<&str> {
        std::str::from_utf8(self.pieces.get(id)?).ok()
    }

    /// The bytes that token `id` stands for.
    pub fn bytes(&self, id: u32) -> Option<&[u8]> {
        self.bytes.get(id)
    }

    /// The special tokens, ascending.
    pub fn special(&self) -> &[u32] {
        &self.special
    }
}

/// The pieces in the order of their ids, which must be 0, 1, 2, and so on.
pub(super) fn in_order<S: AsRef<str>>(mut entries: Vec<(S, u64)>) -> Result<Vec<S>, String> {
    entries.sort_by_key(|(_, id)| *id);
    if let Some((expected, (piece, id))) = (0..).zip(&entries).find(|(expected, (_, id))| expected != id) {
        let piece = shown(piece.as_ref());
        return Err(if *id < expected {
            format!("the vocabulary gives the id {id} twice, once to {piece}")
        } else {
            format!("the vocabulary has no piece with the id {expected}; the next one is {piece} with {id}")
        });
    }
    Ok(entries.into_iter().map(|(piece, _)| piece).collect())
}

/// A piece for error messages: on one line, and shortened if long.
pub(super) fn shown(piece: &str) -> String {
    const LONGEST: usize = 40;
    match piece.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}...", &piece[..end]),
        None => format!("{piece:?}"),
    }
}

/// The two pieces of a merge written as `left right`.
pub(super) fn merge(line: &str) -> Result<(&str, &str), String> {
    let pair =
        line.split_once(' ').filter(|(left, right)| !left.is_empty() && !right.is_empty() && !right.contains(' '));
    pair.ok_or_else(|| format!("{} is not a merge, which is two pieces with a space between", shown(line)))
}

fn hash(piece: &[u8]) -> u64 {
    FxBuildHasher.hash_one(piece)
}

/// Many short strings in one buffer: 50,000 of them cost two allocations.
#[derive(Default)]
struct Strings {
    buffer: Vec<u8>,
    /// Where each string ends and the next one starts.
    ends: Vec<u32>,
}

impl Strings {
    fn with_capacity(strings: usize) -> Self {
        const TYPICAL_LENGTH: usize = 7;
        Self { buffer: Vec::with_capacity(strings * TYPICAL_LENGTH), ends: Vec::with_capacity(strings) }
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn push(&mut self, string: impl IntoIterator<Item = u8>) -> Result<u32, String> {
        let index = u32::try_from(self.ends.len()).map_err(|_| "the vocabulary has too many pieces")?;
        self.buffer.extend(string);
        let end = u32::try_from(self.buffer.len()).map_err(|_| "the vocabulary is larger than 4 GiB")?;
        self.ends.push(end);
        Ok(index)
    }

    fn get(&self, index: u32) -> Option<&[u8]> {
        let index = index as usize;
        let end = *self.ends.get(index)? as usize;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        Some(&self.buffer[start..end])
    }
}
