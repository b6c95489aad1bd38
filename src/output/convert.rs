//! The record of `gpt2 convert`.

use serde::Serialize;

/// The file that was written.
#[derive(Debug, Serialize)]
pub struct ConvertRecord {
    /// The model's name.
    pub model: String,
    /// The file that was written.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// `gguf`, `safetensors` or `packed safetensors`.
    pub format: &'static str,
    /// The type of the matrices.
    pub dtype: String,
}
