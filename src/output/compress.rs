//! The record of `gpt2 compress` and `gpt2 decompress`.

use serde::Serialize;

/// A text and its compressed file.
#[derive(Debug, Serialize)]
pub struct CompressRecord {
    /// The model's name.
    pub model: String,
    /// The type of the weights: `f32`, `q8_0`; `as stored` if the model's file has several quantised ones.
    pub weights: String,
    /// The most tokens that the model sees.
    pub window: usize,
    /// Tokens from one window's start to the next.
    pub stride: usize,
    /// The file that was written.
    pub file: String,
    /// Bytes of the text.
    pub text_bytes: u64,
    /// Bytes of the compressed file.
    pub compressed_bytes: u64,
    /// Bits of the compressed file for each byte of the text; null if there is none.
    pub bits_per_byte: Option<f64>,
    /// Pieces of the text that are compressed apart.
    pub segments: u64,
    /// Those that the model codes; the others are deflated or stored.
    pub coded_segments: u64,
    /// Tokens in these.
    pub tokens: u64,
    /// Seconds without the time to load the model.
    pub seconds: f64,
    /// Bytes of the text a second.
    pub bytes_per_s: f64,
}
