//! Writing a file.

use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{CODED, Content, DEFLATED, END, Header, MAGIC, STORED, VERSION};
use crate::error::{Error, Result};

/// Writes a file, part by part.
pub struct Writer<W> {
    out: W,
    path: PathBuf,
    /// Bytes of text, and their hash.
    len: u64,
    hash: Sha256,
    written: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the header. `path` names the output in errors.
    pub fn new(out: W, path: &Path, header: &Header) -> Result<Self> {
        let mut writer = Self { out, path: path.to_owned(), len: 0, hash: Sha256::new(), written: 0 };
        let mut body = vec![];
        body.extend(header.model);
        body.extend(header.tokenizer);
        put_text(&mut body, &header.weights);
        for number in [header.window as u64, header.stride as u64, header.start.into()] {
            put(&mut body, number);
        }
        put_text(&mut body, &header.name);
        let mut part = [&MAGIC[..], &[VERSION]].concat();
        put(&mut part, body.len() as u64);
        part.extend(body);
        writer.write(part)?;
        Ok(writer)
    }

    /// Writes a segment and the text that it stands for.
    pub fn segment(&mut self, text: &[u8], content: &Content) -> Result<()> {
        self.len += text.len() as u64;
        self.hash.update(text);
        let (kind, bytes) = match content {
            Content::Coded { code, .. } => (CODED, code),
            Content::Deflated(bytes) => (DEFLATED, bytes),
            Content::Stored(bytes) => (STORED, bytes),
        };
        let mut part = vec![kind];
        put(&mut part, text.len() as u64);
        if let Content::Coded { tokens, .. } = content {
            put(&mut part, *tokens as u64);
        }
        if kind != STORED {
            put(&mut part, bytes.len() as u64);
        }
        part.extend(bytes);
        part.extend(crc32fast::hash(text).to_le_bytes());
        self.write(part)
    }

    /// Writes the end and returns the bytes of the text and of the file.
    pub fn finish(mut self) -> Result<(u64, u64)> {
        let mut part = vec![END];
        put(&mut part, self.len);
        part.extend(&self.hash.finalize_reset()[..8]);
        self.write(part)?;
        self.out.flush().map_err(Error::io("write", &self.path))?;
        Ok((self.len, self.written))
    }

    /// Writes a part with its checksum.
    fn write(&mut self, mut part: Vec<u8>) -> Result<()> {
        let checksum = crc32fast::hash(&part);
        part.extend(checksum.to_le_bytes());
        self.written += part.len() as u64;
        self.out.write_all(&part).map_err(Error::io("write", &self.path))
    }
}

/// Appends a number.
pub(super) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u64);
    out.extend(text.as_bytes());
}
