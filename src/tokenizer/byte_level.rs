//! Byte-level BPE, as in GPT-2: added tokens are cut out, the rest is split into words, and the bytes of each word are
//! merged.

use rustc_hash::FxHashMap;

use super::added::{AddedToken, AddedTokens, Matching};
use super::bpe::{Merges, Word};
use super::merging::{MergedWord, steps};
use super::vocabulary::{Vocabulary, shown};
use super::words::words;
use super::{END_OF_TEXT, Token, alphabet};

/// GPT-2's merges, in the order in which they were learned.
const GPT2_MERGES: &str = include_str!("../../assets/merges.txt");

/// The number of merges.
const GPT2_MERGE_COUNT: usize = 50_000;

/// The most words whose tokens one call remembers.
const MOST_REMEMBERED: usize = 1 << 16;

/// Encodes text with a byte-level vocabulary.
pub(super) struct ByteLevel {
    merges: Merges,
    /// The token of each byte; `None` if the vocabulary lacks it.
    bytes: [Option<u32>; 256],
    added: AddedTokens,
    /// Whether each part of the text between added tokens gets a space in front, unless it has one.
    prefix_space: bool,
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
        let mut pieces = GPT2_MERGES.split_ascii_whitespace().skip(2); // #version: 0.2
        while let (Some(left), Some(right)) = (pieces.next(), pieces.next()) {
            piece.clear();
            piece.extend([left, right]);
            let made = vocabulary.push(&piece).expect(VALID);
            merges.push(vocabulary.id(left).expect(VALID), vocabulary.id(right).expect(VALID), made);
        }
        let id = vocabulary.push_added(END_OF_TEXT, true).expect(VALID);
        let added = vec![(id, AddedToken::new(END_OF_TEXT, true))];
        let added = AddedTokens::new(added, Matching::HuggingFace).expect(VALID);
        let encoder = Self::new(&vocabulary, merges, added, false);
        (vocabulary, encoder)
    }

    /// An encoder for any byte-level vocabulary. `pairs` are the merges, in the order in which they were learned.
    pub fn with_merges(
        vocabulary: &Vocabulary,
        pairs: &[(&str, &str)],
        added: AddedTokens,
        prefix_space: bool,
    ) -> Result<Self, String> {
        let mut merges = Merges::with_capacity(pairs.len());
        for (left, right) in pairs {
            let id = |piece: &str| {
                vocabulary.id(piece).filter(|_| !piece.is_empty()).ok_or_else(|| {
                    let [left, right, piece] = [left, right, piece].map(shown);
                    format!("the merge {left} {right} makes {piece}, which the vocabulary lacks")
                })
            };
            merges.push(id(left)?, id(right)?, id(&format!("{left}{right}"))?);
        }
        Ok(Self::new(vocabulary, merges, added, prefix_space))
    }

    fn new(vocabulary: &Vocabulary, merges: Merges, added: AddedTokens, prefix_space: bool) -> Self {
        let bytes = std::array::from_fn(|byte| vocabulary.id(alphabet::letter(byte as u8).encode_utf8(&mut [0; 4])));
        Self { merges, bytes, added, prefix_space }
    }

    /// The added tokens.
    pub fn added(&self) -> &AddedTokens {
        &self.added
    }

    /// Whether a text gets a space in front, unless it has one.
    pub fn prefix_space(&self) -> bool {
        self.prefix_space
    }

    /// The pairs of tokens that merge, in the order in which they were learned.
    pub fn merges(&self) -> Vec<(u32, u32)> {
        self.merges.pairs()
    }

    /// Splits `text` into words of at most `longest` bytes, with their merges; see [`super::Tokenizer::merged_words`].
    pub fn merged_words(&self, text: &str, special: bool, longest: usize) -> Result<Vec<MergedWord>, String> {
        let mut merged = vec![];
        for part in self.added.split(text, special) {
            let (mut start, end) = (part.start, part.end);
            if let Some(id) = part.token {
                merged.push(MergedWord { start, end, bytes: vec![id], steps: vec![] });
                continue;
            }
            let is_spaced = self.prefix_space && !text[start..].starts_with(' ');
            let spaced = format!("{}{}", if is_spaced { " " } else { "" }, &text[start..end]);
            for (i, word) in words(&spaced).enumerate() {
                if word.len() > longest {
                    return Err(format!("the word at byte {start} is longer than {longest} bytes"));
                }
                let bytes = self.byte_tokens(word, start, usize::from(is_spaced && i == 0))?;
                let end = start + word.len() - usize::from(is_spaced && i == 0);
                merged.push(MergedWord { start, end, steps: steps(&bytes, &self.merges), bytes });
                start = end;
            }
        }
        Ok(merged)
    }

    /// The tokens of a word's bytes. It starts at `start`, where its first `added` bytes are not in the text.
    fn byte_tokens(&self, word: &str, start: usize, added: usize) -> Result<Vec<u32>, String> {
        let id = |(at, byte): (usize, u8)| {
            let fault = || {
                let at = start + at.saturating_sub(added);
                format!("the vocabulary has no token for the byte 0x{byte:02x}, found at byte {at}")
            };
            self.bytes[byte as usize].ok_or_else(fault)
        };
        word.bytes().enumerate().map(id).collect()
    }

    /// Splits `text` into tokens; see [`super::Tokenizer::encode`].
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<Token>, String> {
        let mut run = Run { encoder: self, tokens: Vec::new(), words: FxHashMap::default(), word: Word::default() };
        for part in self.added.split(text, special) {
            match part.token {
                Some(id) => run.tokens.push(Token { id, start: part.start, end: part.end }),
                None if self.prefix_space && !text[part.start..].starts_with(' ') => {
                    let rest = run.encode_first(text, part.start, part.end)?;
                    run.encode(text, rest, part.end)?;
                }
                None => run.encode(text, part.start, part.end)?,
            }
        }
        Ok(run.tokens)
    }
}

/// One call of [`ByteLevel::encode`].
struct Run<'a> {
    encoder: &'a ByteLevel,
    tokens: Vec<Token>,
    /// For each word seen before, where its tokens are in `tokens`: the first one and their number.
    words: FxHashMap<&'a str, (usize, usize)>,
    word: Word,
}

impl<'a> Run<'a> {
    /// Encodes the first word of `text[start..end]` as if a space were before it; returns where it ends.
    fn encode_first(&mut self, text: &str, start: usize, end: usize) -> Result<usize, String> {
        let spaced = format!(" {}", &text[start..end]);
        let word = words(&spaced).next().unwrap_or_default();
        self.merge(word, start, 1)?;
        Ok(start + word.len().saturating_sub(1))
    }

    /// Encodes `text[start..end]`, without added tokens.
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
                    self.merge(word, start, 0)?;
                    if self.words.len() < MOST_REMEMBERED {
                        self.words.insert(word, (first, self.tokens.len() - first));
                    }
                }
            }
            start += word.len();
        }
        Ok(())
    }

    /// Encodes a word by merging its bytes. It starts at `start`, where its first `added` bytes are not in the text.
    fn merge(&mut self, word: &str, mut start: usize, added: usize) -> Result<(), String> {
        if u32::try_from(word.len()).is_err() {
            return Err(format!("the word at byte {start} is longer than 4 GiB"));
        }
        let id = |&byte: &u8| self.encoder.bytes[byte as usize];
        if let Some(at) = word.bytes().position(|byte| id(&byte).is_none()) {
            let byte = word.as_bytes()[at];
            let at = start + at.saturating_sub(added);
            return Err(format!("the vocabulary has no token for the byte 0x{byte:02x}, found at byte {at}"));
        }
        self.word.merge(word.as_bytes().iter().filter_map(id), &self.encoder.merges);
        let word_start = start;
        for (id, end) in self.word.tokens() {
            let end = word_start + end.saturating_sub(added);
            self.tokens.push(Token { id, start, end });
            start = end;
        }
        Ok(())
    }
}
