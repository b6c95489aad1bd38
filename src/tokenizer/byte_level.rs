//! Byte-level BPE, GPT-2's way to encode text: special tokens are cut out, the rest is split into words, and the bytes of
//! each word merge.

use regex::Regex;
use rustc_hash::FxHashMap;

use super::bpe::{Merges, Word};
use super::vocabulary::Vocabulary;
use super::words::words;
use super::{END_OF_TEXT, Token, alphabet};

/// GPT-2's merges, in the order in which they were learned.
const GPT2_MERGES: &str = include_str!("../../assets/merges.txt");

/// How many they are.
const GPT2_MERGE_COUNT: usize = 50_000;

/// The most words whose tokens a call remembers.
const MOST_REMEMBERED: usize = 1 << 16;

/// What encodes text into a byte-level vocabulary.
pub(super) struct ByteLevel {
    merges: Merges,
    /// The token of each byte; none where the vocabulary lacks it.
    bytes: [Option<u32>; 256],
    /// Matches special tokens; none if there are none.
    special: Option<Regex>,
}

impl ByteLevel {
    /// GPT-2's: the byte alphabet, a token for each merge, and `<|endoftext|>`.
    pub fn gpt2() -> (Vocabulary, Self) {
        const VALID: &str = "the merges inside the program are valid";
        let mut vocabulary = Vocabulary::with_capacity(256 + GPT2_MERGE_COUNT + 1);
        let mut merges = Merges::with_capacity(GPT2_MERGE_COUNT);
        let mut piece = String::new();
        for letter in alphabet::in_vocabulary_order() {
            vocabulary.push(letter.encode_utf8(&mut [0; 4])).expect(VALID);
        }
        for line in GPT2_MERGES.lines().skip(1) {
            let (left, right) = line.split_once(' ').expect(VALID);
            piece.clear();
            piece.extend([left, right]);
            let made = vocabulary.push(&piece).expect(VALID);
            merges.push(vocabulary.id(left).expect(VALID), vocabulary.id(right).expect(VALID), made);
        }
        vocabulary.push_special(END_OF_TEXT).expect(VALID);
        let encoder = Self::new(&vocabulary, merges).expect(VALID);
        (vocabulary, encoder)
    }

    /// An encoder for any byte-level vocabulary. `merges` are the pairs of pieces, in the order in which they were learned.
    pub fn with_merges(vocabulary: &Vocabulary, pairs: &[(&str, &str)]) -> Result<Self, String> {
        let mut merges = Merges::with_capacity(pairs.len());
        for (left, right) in pairs {
            let id = |piece: &str| {
                let unknown = || format!("the merge `{left} {right}` calls for `{piece}`, which the vocabulary lacks");
                vocabulary.id(piece).filter(|_| !piece.is_empty()).ok_or_else(unknown)
            };
            merges.push(id(left)?, id(right)?, id(&format!("{left}{right}"))?);
        }
        Self::new(vocabulary, merges)
    }

    fn new(vocabulary: &Vocabulary, merges: Merges) -> Result<Self, String> {
        let bytes = std::array::from_fn(|byte| vocabulary.id(alphabet::letter(byte as u8).encode_utf8(&mut [0; 4])));
        Ok(Self { merges, bytes, special: matching_any(vocabulary)? })
    }

    /// Splits `text` into tokens; see [`super::Tokenizer::encode`].
    pub fn encode(&self, vocabulary: &Vocabulary, text: &str, special: bool) -> Result<Vec<Token>, String> {
        let mut run = Run { encoder: self, tokens: Vec::new(), words: FxHashMap::default(), word: Word::default() };
        let mut start = 0;
        for found in self.special.iter().filter(|_| special).flat_map(|special| special.find_iter(text)) {
            run.encode(text, start, found.start())?;
            let id = vocabulary.id(found.as_str()).ok_or("a special token is missing")?;
            run.tokens.push(Token { id, start: found.start(), end: found.end() });
            start = found.end();
        }
        run.encode(text, start, text.len())?;
        Ok(run.tokens)
    }
}

/// Matches any special token, of several that begin at the same place the longest.
fn matching_any(vocabulary: &Vocabulary) -> Result<Option<Regex>, String> {
    let pieces = vocabulary.special().iter().filter_map(|&id| vocabulary.piece(id));
    let mut pieces: Vec<_> = pieces.filter(|piece| !piece.is_empty()).map(regex::escape).collect();
    pieces.sort_by_key(|piece| std::cmp::Reverse(piece.len()));
    if pieces.is_empty() {
        return Ok(None);
    }
    Regex::new(&pieces.join("|")).map(Some).map_err(|_| format!("{} special tokens are too many", pieces.len()))
}

/// One call of [`ByteLevel::encode`].
struct Run<'a> {
    encoder: &'a ByteLevel,
    tokens: Vec<Token>,
    /// Where in `tokens` the tokens of a word are that was met before: its first token and their number.
    words: FxHashMap<&'a str, (usize, usize)>,
    word: Word,
}

impl<'a> Run<'a> {
    /// Encodes `text[start..end]`, without special tokens.
    fn encode(&mut self, text: &'a str, mut start: usize, end: usize) -> Result<(), String> {
        for word in words(&text[start..end]) {
            match self.words.get(word) {
                Some(&(first, count)) => {
                    let offset = self.tokens[first].start;
                    for i in first..first + count {
                        let Token { id, start: from, end: to } = self.tokens[i];
                        self.tokens.push(Token { id, start: start + (from - offset), end: start + (to - offset) });
                    }
                }
                None => {
                    let first = self.tokens.len();
                    self.merge(word, start)?;
                    if self.words.len() < MOST_REMEMBERED {
                        self.words.insert(word, (first, self.tokens.len() - first));
                    }
                }
            }
            start += word.len();
        }
        Ok(())
    }

    /// Encodes a word that starts at `start`, by merging its bytes.
    fn merge(&mut self, word: &str, mut start: usize) -> Result<(), String> {
        if u32::try_from(word.len()).is_err() {
            return Err(format!("the word at byte {start} is longer than 4 GiB"));
        }
        let id = |&byte: &u8| self.encoder.bytes[byte as usize];
        if let Some(at) = word.bytes().position(|byte| id(&byte).is_none()) {
            let byte = word.as_bytes()[at];
            return Err(format!("the vocabulary has no token for the byte 0x{byte:02x}, found at byte {}", start + at));
        }
        self.word.merge(word.as_bytes().iter().filter_map(id), &self.encoder.merges);
        let word_start = start;
        for (id, end) in self.word.tokens() {
            let end = word_start + end;
            self.tokens.push(Token { id, start, end });
            start = end;
        }
        Ok(())
    }
}
