//! The file: a header, segments, an end. All in it is checked before it is believed.
//!
//! Numbers are LEB128 (7 bits a byte, the lowest first, the highest bit set in all bytes but the last) unless it says
//! otherwise. A CRC is CRC-32 as in gzip, 4 bytes, the lowest first.
//!
//! | part | bytes |
//! |---|---|
//! | magic | `89 47 5A 32` (a byte beyond ASCII, "GZ2") |
//! | version | one byte, 1 |
//! | header | its length, then: identity of the model (16 bytes); of the tokenizer (8); type of the weights, as text; window; stride; token that starts a text; name of the model, as text. A text is its length and UTF-8 |
//! | | CRC of all so far |
//! | segment, any number | kind, one byte: 1 coded, 2 deflated, 3 stored |
//! | | length of its text in bytes, 1 to 65536 |
//! | | if coded: number of tokens |
//! | | unless stored: length of what follows |
//! | | the code; or raw deflate; or the text |
//! | | CRC of the text |
//! | | CRC of the segment so far |
//! | end | kind, one byte: 0 |
//! | | length of the whole text |
//! | | the first 8 bytes of its SHA-256 |
//! | | CRC of the end so far |

mod read;
mod write;

pub use read::Reader;
pub(super) use write::Writer;

use crate::base::{DType, FloatType, QuantizedType};
use crate::model::WeightType;

/// What a file begins with. The first byte is no text, and none of UTF-8.
const MAGIC: [u8; 4] = *b"\x89GZ2";

/// The version of the format.
const VERSION: u8 = 1;

/// The most bytes of the text of a segment.
pub(super) const SEGMENT: usize = 1 << 16;

/// The longest header, in bytes.
const LONGEST_HEADER: u64 = 1 << 10;

/// The longest name of a model, in bytes.
pub(super) const LONGEST_NAME: usize = 256;

/// What the name of a model begins with that is neither on the hub nor built in.
pub(super) const LOCAL: &str = "./";

/// Kinds of segments.
const END: u8 = 0;
const CODED: u8 = 1;
const DEFLATED: u8 = 2;
const STORED: u8 = 3;

/// What a file says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Identifies the network: [`identity`](crate::model::identity()).
    pub model: [u8; 16],
    /// Identifies the tokens.
    pub tokenizer: [u8; 8],
    /// The type of the weights, by its name: see [`weights`](Self::weights).
    pub weights: String,
    /// The most tokens that a window sees.
    pub window: usize,
    /// The distance from one window's start to the next.
    pub stride: usize,
    /// The token before each segment.
    pub start: u32,
    /// The model's name, for people: the same model may have several. See [`is_local`](Self::is_local).
    pub name: String,
}

impl Header {
    /// Whether the model was a folder or file of the one who made this.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.name.starts_with(LOCAL)
    }

    /// The type of the weights as a choice for loading; none if this program does not know it.
    #[must_use]
    pub fn weights(&self) -> Option<WeightType> {
        if self.weights == AS_STORED {
            return Some(WeightType::Stored);
        }
        let dtype = DType::named(&self.weights)?;
        FloatType::of(dtype).map(WeightType::Float).or_else(|| QuantizedType::of(dtype).map(WeightType::Quantized))
    }
}

/// The type of weights that are quantised in the model's file, in several types.
const AS_STORED: &str = "as stored";

/// The name of a [settled](crate::model::settled) type of weights.
pub(super) fn name_of(weights: WeightType) -> String {
    match weights {
        WeightType::Stored => AS_STORED.to_owned(),
        WeightType::Float(float) => float.name().to_owned(),
        WeightType::Quantized(kind) => kind.dtype().to_string().to_lowercase(),
    }
}

/// A piece of a file's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Bytes of text, from 1.
    pub len: usize,
    /// CRC of the text.
    pub checksum: u32,
    /// How it is written.
    pub content: Content,
}

/// How a segment is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Tokens, coded by the model's distributions.
    Coded {
        /// How many, from 1.
        tokens: usize,
        /// The range coder's words.
        code: Vec<u8>,
    },
    /// Deflated, without a header.
    Deflated(Vec<u8>),
    /// As it is.
    Stored(Vec<u8>),
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::error::Result;

    fn header() -> Header {
        Header {
            model: [7; 16],
            tokenizer: [8; 8],
            weights: "q8_0".into(),
            window: 1024,
            stride: 512,
            start: 50256,
            name: "demo".into(),
        }
    }

    fn segments() -> Vec<(Vec<u8>, Content)> {
        vec![
            (b"some text".to_vec(), Content::Coded { tokens: 2, code: vec![1, 2, 3, 4] }),
            (b"other".to_vec(), Content::Stored(b"other".to_vec())),
            (vec![9; 300], Content::Deflated(vec![5; 10])),
        ]
    }

    fn file(segments: &[(Vec<u8>, Content)]) -> Vec<u8> {
        let mut file = vec![];
        let mut writer = Writer::new(&mut file, Path::new("f"), &header()).unwrap();
        for (text, content) in segments {
            writer.segment(text, content).unwrap();
        }
        writer.finish().unwrap();
        file
    }

    /// All of a file, whose segments give these texts.
    fn read(file: &[u8], texts: &[Vec<u8>]) -> Result<(Header, Vec<Segment>)> {
        let mut reader = Reader::new(file, Path::new("f"))?;
        let mut segments = vec![];
        while let Some(segment) = reader.next()? {
            if let Some(text) = texts.get(segments.len()) {
                reader.hash(text);
            }
            segments.push(segment);
        }
        reader.finish()?;
        Ok((reader.header().clone(), segments))
    }

    #[test]
    fn what_is_written_is_read() {
        for count in 0..=3 {
            let written = &segments()[..count];
            let texts: Vec<_> = written.iter().map(|(text, _)| text.clone()).collect();
            let (found, segments) = read(&file(written), &texts).unwrap();
            assert_eq!(found, header());
            for ((text, content), segment) in written.iter().zip(&segments) {
                assert_eq!((&segment.content, segment.len), (content, text.len()));
                assert_eq!(segment.checksum, crc32fast::hash(text));
            }
            assert_eq!(segments.len(), count);
        }
    }

    #[test]
    fn what_is_changed_cut_off_or_added_is_found() {
        let whole = file(&segments());
        let texts: Vec<_> = segments().into_iter().map(|(text, _)| text).collect();
        let fault = read(b"", &[]).unwrap_err().to_string();
        assert_eq!(fault, "f: empty: not a file of gpt2 compress");
        for end in 1..whole.len() {
            let fault = read(&whole[..end], &texts).unwrap_err().to_string();
            assert!(fault.starts_with("f: ") && fault.contains("truncated"), "{end}: {fault}");
        }
        for place in 0..whole.len() {
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[place] ^= 1 << bit;
                assert!(read(&changed, &texts).is_err(), "bit {bit} of byte {place}");
            }
        }
        let fault = read(&[&whole[..], b"\0"].concat(), &texts).unwrap_err().to_string();
        assert!(fault.contains("after its end"), "{fault}");
        // Segments that are whole, but not those of this file.
        let other = file(&segments()[1..]);
        assert!(read(&other, &texts[..2]).unwrap_err().to_string().contains("checksum"));
    }

    #[test]
    fn other_files_and_versions_are_told_apart() {
        for other in [&b"PK\x03\x04 and more"[..], b"\x1f\x8b\x08\x00\x00", b"Once upon a time"] {
            let fault = read(other, &[]).unwrap_err().to_string();
            assert!(fault.contains("not a file of gpt2 compress"), "{fault}");
        }
        let mut newer = file(&[]);
        newer[MAGIC.len()] = 2;
        assert!(read(&newer, &[]).unwrap_err().to_string().contains("version 2 of the format"));
    }

    #[test]
    fn types_of_weights_have_names() {
        for weights in ["f32", "f16", "bf16", "q8_0", "q6_k", "q4_k", "as stored"] {
            let known = Header { weights: weights.into(), ..header() }.weights().unwrap();
            assert_eq!(name_of(known), weights);
        }
        assert_eq!(Header { weights: "i8".into(), ..header() }.weights(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Whatever follows a valid header, with checksums that are right.
        #[test]
        fn no_bytes_make_the_reader_fail(parts in proptest::collection::vec((0u8..5, any::<u64>(), any::<u32>(), any::<Vec<u8>>()), 0..5)) {
            let mut bytes = file(&[]);
            bytes.truncate(bytes.len() - 14);
            for (kind, len, count, body) in parts {
                let start = bytes.len();
                bytes.push(kind);
                let short = len % 70_000;
                for number in [if count % 9 == 0 { len } else { short }, u64::from(count % 3000), body.len() as u64] {
                    write::put(&mut bytes, number);
                }
                bytes.extend(body);
                let checksum = crc32fast::hash(&bytes[start..]);
                bytes.extend(checksum.to_le_bytes());
            }
            if let Err(fault) = read(&bytes, &[]) {
                prop_assert!(!fault.to_string().contains('\n'));
            }
        }

        #[test]
        fn no_file_makes_the_reader_fail(bytes: Vec<u8>) {
            prop_assert!(read(&[&MAGIC[..], &[VERSION], &bytes].concat(), &[]).is_err());
        }
    }
}
