//! GPT-2: load a checkpoint, tokenize, run the network, decode, and look inside.
//!
//! The binary `gpt2` is a thin shell around this library.
//!
//! | module | holds |
//! |---|---|
//! | [`pipeline`] | a model with everything it needs: text in, text out |
//! | [`source`] | hub id, folder, GGUF or demo → an opened model; the only code that uses the network |
//! | [`analysis`] | scores, perplexity, next-token distributions, logit lens, parameter counts, speed |
//! | [`compression`] | a text as a code of its tokens' probabilities, and back |
//! | [`decode`] | parameters, logits processors, every decoding strategy, stop rules |
//! | [`language_model`] | what decoding and analysis need from a model |
//! | [`logits`] | arithmetic over one row of logits: softmax, ranks, the best tokens |
//! | [`model`] | the network: embeddings, blocks, head, key-value cache, traces |
//! | [`memory`] | how much memory a model takes, and how much is available |
//! | [`device`] | where the network runs: CPU, CUDA or Metal |
//! | [`tokenizer`] | GPT-2's byte-level BPE, `tokenizer.json`, byte-exact streaming decode |
//! | [`checkpoint`] | the files people have (safetensors, PyTorch, GGUF, nanoGPT, ...) → GPT-2's tensors, in place in the mapped file |
//! | [`config`] | `config.json` as a validated [`Config`](config::Config), named sizes |
//! | [`inventory`] | GPT-2's tensors: name in each format, shape, role |
//! | [`kernels`] | the CPU's arithmetic under the model |
//! | [`base`] | number types, bytes, the thread pool |
//! | [`files`] | reading with a limit, writing whole or not at all |
//! | [`printable`] | others' text for people, with what drives a terminal escaped |
//! | [`json`] | JSON as Python writes it, and its faults in plain words |
//! | [`error`] | typed errors |
//!
//! Shapes in the documentation: `B` rows of a batch, `T` new positions, `S` positions in the cache, `C` the model's
//! width (`n_embd`), `H` heads, `D` a head's width (`C / H`), `V` the vocabulary.

// Tests compare with the platform's mathematics.
#![cfg_attr(test, allow(clippy::disallowed_methods))]
#![deny(missing_docs)]
// docs.rs says which feature an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod analysis;
pub mod base;
pub mod checkpoint;
pub mod compression;
pub mod config;
#[cfg(all(feature = "cuda", target_os = "linux"))]
mod cuda_libraries;
pub mod decode;
pub mod device;
pub mod error;
pub mod files;
pub mod inventory;
pub mod json;
pub mod kernels;
pub mod language_model;
pub mod logits;
pub mod memory;
pub mod model;
pub mod pipeline;
pub mod printable;
pub mod source;
pub mod tokenizer;

pub use error::{Error, Result};

// The README's example is tested along with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
