//! Reading a file, of which nothing is believed.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{
    CODED, Content, DEFLATED, END, Header, LONGEST_HEADER, LONGEST_NAME, MAGIC, SEGMENT, STORED, Segment, VERSION,
};
use crate::error::{Error, Result};

/// Reads a file, part by part, each of which is whole: its checksum is right.
#[derive(Debug)]
pub struct Reader<R> {
    input: Input<R>,
    header: Header,
    segments: u64,
    /// What the end says: the length of the text, and its hash.
    end: Option<(u64, [u8; 8])>,
    /// Of the text that was given to [`hash`](Self::hash).
    len: u64,
    hash: Sha256,
}

/// The bytes of a file, with the checksum of the part that is being read.
#[derive(Debug)]
struct Input<R> {
    from: R,
    path: PathBuf,
    at: u64,
    checksum: crc32fast::Hasher,
}

impl<R: Read> Reader<R> {
    /// Reads the header. `path` names the input in errors.
    ///
    /// # Errors
    /// [`Error::Format`] if it is another file, of a version that this program does not know, or damaged.
    pub fn new(from: R, path: &Path) -> Result<Self> {
        let mut input = Input { from, path: path.to_owned(), at: 0, checksum: crc32fast::Hasher::new() };
        for expected in MAGIC {
            if input.byte()? != expected {
                return Err(input.fault("not a file of gpt2 compress"));
            }
        }
        let version = input.byte()?;
        if version != VERSION {
            return Err(input
                .fault(&format!("written in version {version} of the format; this program reads version {VERSION}")));
        }
        let len = input.number("the length of the header", 0..=LONGEST_HEADER)?;
        let body = input.bytes(len as usize)?;
        input.check()?;
        let header = header(&body).ok_or_else(|| input.fault("the header is damaged"))?;
        Ok(Self { input, header, segments: 0, end: None, len: 0, hash: Sha256::new() })
    }

    /// What the file says about itself.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How many bytes have been read.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.input.at
    }

    /// The next segment; none at the end of the file, after which there is nothing else.
    ///
    /// # Errors
    /// [`Error::Format`] if the file is damaged, [`Error::Io`] if it cannot be read.
    #[expect(clippy::should_implement_trait, reason = "an iterator goes on after an error")]
    pub fn next(&mut self) -> Result<Option<Segment>> {
        if self.end.is_some() {
            return Ok(None);
        }
        let input = &mut self.input;
        let kind = input.byte()?;
        if kind == END {
            let len = input.number("the length of the text", 0..=u64::MAX)?;
            let hash = input.array()?;
            input.check()?;
            input.nothing()?;
            self.end = Some((len, hash));
            return Ok(None);
        }
        let most = SEGMENT as u64;
        if ![CODED, DEFLATED, STORED].contains(&kind) {
            return Err(input.fault(&format!("damaged before byte {}: no segment is of kind {kind}", input.at)));
        }
        let len = input.number("the length of a segment", 1..=most)?;
        // Neither has more parts than the text has bytes: it would have been stored.
        let content = match kind {
            CODED => {
                let tokens = input.number("the number of tokens", 1..=len)? as usize;
                let bytes = input.number("the length of a code", 0..=len)?;
                Content::Coded { tokens, code: input.bytes(bytes as usize)? }
            }
            DEFLATED => {
                let bytes = input.number("the length of a deflated segment", 1..=len)?;
                Content::Deflated(input.bytes(bytes as usize)?)
            }
            _ => Content::Stored(input.bytes(len as usize)?),
        };
        let checksum = u32::from_le_bytes(input.array()?);
        input.check()?;
        self.segments += 1;
        Ok(Some(Segment { len: len as usize, checksum, content }))
    }

    /// Takes note of the text of the next segment in turn, for [`finish`](Self::finish).
    pub fn hash(&mut self, text: &[u8]) {
        self.len += text.len() as u64;
        self.hash.update(text);
    }

    /// Checks that the texts were all of the file's. Returns their length.
    ///
    /// # Errors
    /// [`Error::Format`] if they were not.
    pub fn finish(&mut self) -> Result<u64> {
        let found = self.hash.finalize_reset();
        match self.end {
            Some((len, hash)) if len == self.len && found.starts_with(&hash) => Ok(len),
            _ => Err(self.fault("damaged: the checksum of the whole text is another")),
        }
    }

    /// An error about the file.
    pub fn fault(&self, problem: &str) -> Error {
        self.input.fault(problem)
    }
}

impl<R: Read> Input<R> {
    fn fault(&self, problem: &str) -> Error {
        Error::format(&self.path, problem)
    }

    fn read(&mut self, out: &mut [u8]) -> Result<()> {
        self.from.read_exact(out).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof if self.at == 0 => self.fault("empty: not a file of gpt2 compress"),
            ErrorKind::UnexpectedEof => self.fault("truncated: it ends before its end"),
            _ => Error::io("read", &self.path)(error),
        })?;
        self.at += out.len() as u64;
        self.checksum.update(out);
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8> {
        self.array().map(|[byte]| byte)
    }

    /// Bytes, whose number was checked.
    fn bytes(&mut self, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    /// A number in a range.
    fn number(&mut self, what: &str, range: std::ops::RangeInclusive<u64>) -> Result<u64> {
        let (mut number, mut shift) = (0u64, 0);
        loop {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            // More than 64 bits.
            if shift > 63 || part << shift >> shift != part {
                break;
            }
            number |= part << shift;
            if byte < 0x80 {
                if range.contains(&number) {
                    return Ok(number);
                }
                break;
            }
            shift += 7;
        }
        let (from, to) = range.into_inner();
        Err(self.fault(&format!("damaged before byte {}: {what} is not from {from} to {to}", self.at)))
    }

    /// Reads and compares the checksum of what was read since the last one.
    fn check(&mut self) -> Result<()> {
        let computed = std::mem::take(&mut self.checksum).finalize();
        let stored = u32::from_le_bytes(self.array()?);
        self.checksum = crc32fast::Hasher::new();
        if computed == stored {
            return Ok(());
        }
        Err(self.fault(&format!("damaged before byte {}: the checksum is another", self.at)))
    }

    /// Checks that nothing follows.
    fn nothing(&mut self) -> Result<()> {
        let mut byte = [0];
        loop {
            match self.from.read(&mut byte) {
                Ok(0) => return Ok(()),
                Ok(_) => return Err(self.fault("damaged: there are bytes after its end")),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read", &self.path)(error)),
            }
        }
    }
}

/// The header in its bytes; none if they are not one.
fn header(body: &[u8]) -> Option<Header> {
    let mut input = Input { from: body, path: PathBuf::new(), at: 0, checksum: crc32fast::Hasher::new() };
    let (model, tokenizer) = (input.array().ok()?, input.array().ok()?);
    let weights = text(&mut input)?;
    let mut number = || input.number("", 0..=u32::MAX.into()).ok();
    let (window, stride, start) = (number()? as usize, number()? as usize, number()? as u32);
    let name = text(&mut input)?;
    input.from.is_empty().then_some(Header { model, tokenizer, weights, window, stride, start, name })
}

fn text(input: &mut Input<&[u8]>) -> Option<String> {
    let len = input.number("", 0..=LONGEST_NAME as u64).ok()?;
    String::from_utf8(input.bytes(len as usize).ok()?).ok()
}
