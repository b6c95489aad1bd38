//! Bytes in pieces, and what can be done with a piece without a model.

use std::io::{ErrorKind, Read, Write};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

use super::format::SEGMENT;
use crate::model::Gpt2;
use crate::tokenizer::Tokenizer;

/// How far before its end a segment may be cut, to end with a line or before a word.
const SEARCHED: usize = 4096;

/// Reads bytes in segments.
pub struct Segments<R> {
    from: R,
    /// Bytes that were read and belong to later segments.
    ahead: Vec<u8>,
    is_over: bool,
}

impl<R: Read> Segments<R> {
    pub fn new(from: R) -> Self {
        Self { from, ahead: vec![], is_over: false }
    }

    /// The next segment; none at the end. All but the last are nearly [`SEGMENT`] bytes.
    pub fn next(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        // One byte more, to know whether it is the last.
        while self.ahead.len() <= SEGMENT && !self.is_over {
            let start = self.ahead.len();
            self.ahead.resize(SEGMENT + 1, 0);
            let read = self.from.read(&mut self.ahead[start..]);
            self.ahead.truncate(start + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => self.is_over = true,
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
        if self.ahead.is_empty() {
            return Ok(None);
        }
        let end = if self.ahead.len() <= SEGMENT { self.ahead.len() } else { cut(&self.ahead[..SEGMENT]) };
        let rest = self.ahead.split_off(end);
        Ok(Some(std::mem::replace(&mut self.ahead, rest)))
    }
}

/// Where to cut: after a line, before the space of a word, or between characters.
fn cut(bytes: &[u8]) -> usize {
    let from = bytes.len() - SEARCHED;
    let last = |byte: u8| bytes[from..].iter().rposition(|other| *other == byte).map(|at| from + at);
    if let Some(line) = last(b'\n') {
        return line + 1;
    }
    // The byte after the cut may begin a character, too.
    let is_start = |at: &usize| bytes[*at] & 0xc0 != 0x80;
    last(b' ').or_else(|| (bytes.len() - 4..bytes.len()).rev().find(is_start)).unwrap_or(bytes.len())
}

/// The shortest segment that is not left to deflate because of what deflate makes of it: less says little.
const SHORT: usize = 4096;

/// The bytes as deflate writes them, and whether the model should have a try.
///
/// It should where the bytes are text, at most one in eight of which is not UTF-8, unless deflate leaves less than a
/// tenth of them, or, of 4096 or more, over nine tenths: so the model never spends hours on what it cannot do much
/// better, the same bytes over and over or noise.
pub fn deflated(bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut encoder = DeflateEncoder::new(vec![], Compression::best());
    encoder.write_all(bytes).expect("memory has room");
    let deflated = encoder.finish().expect("memory has room");
    let is_repetitive = deflated.len() < bytes.len() / 10;
    let is_noise = bytes.len() >= SHORT && deflated.len() > bytes.len() / 10 * 9;
    let strange: usize = bytes.utf8_chunks().map(|chunk| chunk.invalid().len()).sum();
    let is_text = strange <= bytes.len() / 8;
    (deflated, is_text && !is_repetitive && !is_noise)
}

/// What was [`deflated`], if that is all there is and has this length.
pub fn inflated(deflated: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(len);
    let mut decoder = DeflateDecoder::new(deflated);
    // One more, to see whether there are more.
    (&mut decoder).take(len as u64 + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() == len && decoder.total_in() == deflated.len() as u64).then_some(bytes)
}

/// Bytes as tokens and back.
pub struct Tokens<'a> {
    tokenizer: &'a Tokenizer,
    /// The token of each byte that is not UTF-8; none if there is none.
    of_bytes: [Option<u32>; 256],
    /// Tokens that the model has.
    vocabulary: usize,
}

impl<'a> Tokens<'a> {
    pub fn new(tokenizer: &'a Tokenizer, model: &Gpt2) -> Self {
        let vocabulary = model.config().vocab_size;
        let mut of_bytes = [None; 256];
        for id in (0..vocabulary.min(tokenizer.vocab_size()) as u32).rev().filter(|id| !tokenizer.is_special(*id)) {
            if let Some([byte]) = tokenizer.bytes(id) {
                of_bytes[usize::from(*byte)] = Some(id);
            }
        }
        Self { tokenizer, of_bytes, vocabulary }
    }

    /// The tokens of bytes; none unless the model has them all and they give back the bytes.
    pub fn of(&self, bytes: &[u8]) -> Option<Vec<u32>> {
        let mut ids = vec![];
        for chunk in bytes.utf8_chunks() {
            // What looks like a special token is text.
            let tokens = self.tokenizer.encode(chunk.valid(), false).ok()?;
            ids.extend(tokens.iter().map(|token| token.id));
            for byte in chunk.invalid() {
                ids.push(self.of_bytes[usize::from(*byte)]?);
            }
        }
        let fits = ids.len() <= bytes.len() && ids.iter().all(|id| (*id as usize) < self.vocabulary);
        (fits && self.bytes(&ids)? == bytes).then_some(ids)
    }

    /// The bytes of tokens.
    pub fn bytes(&self, ids: &[u32]) -> Option<Vec<u8>> {
        self.tokenizer.decode_exactly(ids).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Gives what there is a few bytes at a time, like a pipe.
    struct Dripping<'a>(&'a [u8]);

    impl Read for Dripping<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            let len = out.len().min(9973);
            self.0.read(&mut out[..len])
        }
    }

    fn segments(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut segments = Segments::new(Dripping(bytes));
        std::iter::from_fn(|| segments.next().unwrap()).collect()
    }

    #[test]
    fn segments_are_all_of_the_bytes() {
        for len in [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT, 3 * SEGMENT + 5] {
            for unit in ["\n", " a", "a", "é", "\u{1f600}", "a line\n", "one-word-after-another "] {
                let bytes: Vec<u8> = unit.bytes().cycle().take(len).collect();
                let found = segments(&bytes);
                assert_eq!(found.concat(), bytes, "{len} {unit:?}");
                for segment in &found[..found.len().saturating_sub(1)] {
                    assert!((SEGMENT - SEARCHED..=SEGMENT).contains(&segment.len()), "{len} {unit:?}");
                    assert!(std::str::from_utf8(segment).is_ok(), "{len} {unit:?}");
                    assert!(!unit.ends_with('\n') || segment.ends_with(b"\n"));
                }
            }
        }
        let bytes = vec![0x80; 2 * SEGMENT];
        assert_eq!(segments(&bytes).concat(), bytes);
    }

    #[test]
    fn the_model_has_a_try_at_text() {
        let book: Vec<u8> =
            (0..9000u32).flat_map(|i| format!("{} ", i.wrapping_mul(2_654_435_761)).into_bytes()).collect();
        let noise: Vec<u8> =
            (0..9000u32).map(|i| ((i.wrapping_mul(2_654_435_761) >> 24) ^ ((i * i) >> 7)) as u8).collect();
        assert!(deflated(&book).1);
        assert!(deflated(b"Hello").1);
        assert!(deflated("caf\u{e9}".as_bytes()).1);
        assert!(deflated(b"a caf\xe9 au lait").1, "one byte of Latin-1");
        assert!(!deflated(&noise).1);
        assert!(!deflated(&noise[..100]).1, "no text");
        assert!(!deflated(&[0; 1000]).1);
        assert!(!deflated(&b"again and ".repeat(1000)).1);
    }

    proptest! {
        #[test]
        fn what_is_deflated_comes_back(bytes in proptest::collection::vec(0u8..4, 0..5000), other: Vec<u8>) {
            let (deflated, _) = deflated(&bytes);
            prop_assert_eq!(inflated(&deflated, bytes.len()), Some(bytes.clone()));
            prop_assert_eq!(inflated(&deflated, bytes.len() + 1), None);
            if let Some(shorter) = bytes.len().checked_sub(1) {
                prop_assert_eq!(inflated(&deflated, shorter), None);
            }
            prop_assert_eq!(inflated(&[&deflated[..], b"x"].concat(), bytes.len()), None);
            let _ = inflated(&other, bytes.len());
        }
    }
}
