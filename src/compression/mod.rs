//! Compression by a language model, without loss: each token is coded with as many bits as its probability is worth.
//!
//! A text is cut into segments that are coded apart, so that many are read back side by side, a token of each in a
//! pass. The windows of a segment are those of [`Sliding`], as `gpt2 score --bos --stride` uses them, and its code is as
//! long as the sum of their surprisals but for a few bytes. Compression runs whole windows, several in a pass;
//! decompression goes token by token. Both see the same bits, as our CPU kernels promise: whatever the batch, the number
//! of threads and the processor. GPUs do not promise it.
//!
//! What is no text for the tokenizer goes byte by byte, and a segment that the model should not try, or does not make
//! shorter, is deflated: see [`mod@format`] for what a file holds.
//!
//! Reference for the idea: F. Bellard, gpt2tc; the coder is a range coder (G. Martin, 1979).

mod compress;
mod decompress;
mod distribution;
pub mod format;
mod text;

use std::path::Path;

use sha2::{Digest, Sha256};

use self::format::{Header, LOCAL, LONGEST_NAME, name_of};
use self::text::Tokens;
use crate::analysis::perplexity::Sliding;
use crate::error::{Error, Result};
use crate::model::{Gpt2, WeightType, identity, settled};
use crate::pipeline::Pipeline;
use crate::source::OpenedModel;
use crate::tokenizer::Tokenizer;

/// The most tokens in a pass, unless a window is longer.
const PASS_TOKENS: usize = 1024;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Bytes of the text.
    pub text: u64,
    /// Bytes of the file.
    pub file: u64,
    /// Segments of the file.
    pub segments: u64,
    /// Those that are coded by the model.
    pub coded: u64,
    /// Tokens in these.
    pub tokens: u64,
}

/// A model that codes, with its tokens and its windows.
pub struct Codec<'a> {
    model: &'a Gpt2,
    tokens: Tokens<'a>,
    windows: Sliding,
    header: Header,
}

impl<'a> Codec<'a> {
    /// For files of this model, which was loaded for the CPU's kernels with `weights`. A window sees at most `window`
    /// tokens, all of the context by default, and the next begins `stride` later, half of it by default.
    ///
    /// # Errors
    /// [`Error::Parameter`] unless `1 <= stride < window <= n_positions`, so that every token has one before it;
    /// [`Error::Tokenizer`] if the model has no usable tokenizer; those of [`identity`].
    pub fn new(
        opened: &OpenedModel,
        pipeline: &'a Pipeline,
        weights: WeightType,
        window: Option<usize>,
        stride: Option<usize>,
    ) -> Result<Self> {
        let config = pipeline.model.config();
        let window = window.unwrap_or(config.n_positions);
        let stride = stride.unwrap_or((window / 2).max(1));
        let windows = sliding(window, stride, config.n_positions)?;
        let tokenizer = pipeline.tokenizer()?;
        let header = Header {
            model: identity(&opened.config, &opened.checkpoint, weights)?,
            tokenizer: identity_of(tokenizer, opened),
            weights: name_of(settled(&opened.config, &opened.checkpoint, weights)?),
            window,
            stride,
            start: pipeline.start_token().unwrap_or(0),
            name: public_name(opened),
        };
        let tokens = Tokens::new(tokenizer, &pipeline.model);
        Ok(Self { model: &pipeline.model, tokens, windows, header })
    }

    /// For a file with this header, which `path` names in errors.
    ///
    /// # Errors
    /// [`Error::Format`] if the file was made with another model or type of weights, [`Error::Tokenizer`] if with another
    /// tokenizer; those of [`new`](Self::new).
    pub fn of_file(
        header: &Header,
        path: &Path,
        opened: &OpenedModel,
        pipeline: &'a Pipeline,
        weights: WeightType,
    ) -> Result<Self> {
        let found = Self::new(opened, pipeline, weights, None, None)?;
        let differs = |message: String| Err(Error::format(path, message));
        let (own, other) = (header, &found.header);
        if own.model != other.model {
            let given = Header { name: opened.name.clone(), ..other.clone() };
            let hint = if own.weights == other.weights { "; an adapter, too, makes another model" } else { "" };
            return differs(format!("made with the model {}, not with {}{hint}", described(own), described(&given)));
        }
        if own.tokenizer != other.tokenizer {
            let problem = format!("{}: made with another tokenizer than that of {}", path.display(), opened.name);
            return Err(Error::Tokenizer(problem));
        }
        let config = pipeline.model.config();
        let windows = sliding(own.window, own.stride, config.n_positions);
        let (Ok(windows), true) = (windows, (own.start as usize) < config.vocab_size) else {
            return differs("damaged: its windows are not those of its model".to_owned());
        };
        Ok(Self { windows, header: header.clone(), ..found })
    }

    /// What its files say about themselves.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }
}

/// Windows in which every token but the first of all has one before it.
fn sliding(window: usize, stride: usize, n_positions: usize) -> Result<Sliding> {
    let windows = Sliding::new(window, stride, n_positions)?;
    if window < 2 {
        return Err(Error::parameter("window", "is 1; a token is coded after another, so use at least 2"));
    }
    if stride == window {
        let most = window - 1;
        let problem =
            format!("is {stride}; with a window of {window}, use 1 to {most}, so that each begins with known text");
        return Err(Error::parameter("stride", problem));
    }
    Ok(windows)
}

/// A model as a message names it.
fn described(header: &Header) -> String {
    let hash: String = header.model[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{:?} ({}, {hash})", header.name, header.weights)
}

/// The model's name. Of a path there is only the last part, since the folders where it lies are nobody else's business,
/// after `./`, so that it is not taken for a model of the hub or the demo.
fn public_name(opened: &OpenedModel) -> String {
    let is_path = opened.revision.is_none() && opened.name != "demo";
    let path = is_path.then(|| std::path::absolute(&opened.name).ok()).flatten();
    let mut name = match path.as_ref().and_then(|path| path.file_name()) {
        Some(name) => format!("{LOCAL}{}", name.to_string_lossy()),
        None => opened.name.clone(),
    };
    let end = (0..=LONGEST_NAME.min(name.len())).rev().find(|end| name.is_char_boundary(*end));
    name.truncate(end.unwrap_or_default());
    name
}

/// Identifies what tokens stand for. Decompression needs no more of a byte-level BPE; another tokenizer is told by its
/// files.
fn identity_of(tokenizer: &Tokenizer, opened: &OpenedModel) -> [u8; 8] {
    let mut hash = Sha256::new();
    if tokenizer.merges().is_none() {
        hash.update(opened.tokenizer.fingerprint());
    }
    for id in 0..tokenizer.vocab_size() as u32 {
        let bytes = tokenizer.bytes(id).unwrap_or_default();
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
    *hash.finalize().first_chunk().expect("a SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests;
