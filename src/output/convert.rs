//! The record of `gpt2 convert`.

use anyhow::Result;
use gpt2::printable::line;
use serde::Serialize;

use super::Stdout;

/// The file that was written.
#[derive(Debug, Serialize)]
pub struct ConvertRecord {
    /// The model's name.
    pub model: String,
    /// The file that was written.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// `gguf` or `safetensors`.
    pub format: &'static str,
    /// The type of the matrices.
    pub dtype: String,
}

impl ConvertRecord {
    /// One line.
    pub fn write_text(&self, out: &mut Stdout) -> Result<()> {
        Ok(writeln!(out, "{}: {} bytes, {} {}", line(&self.file), self.bytes, self.format, self.dtype)?)
    }
}
