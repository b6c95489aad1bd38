//! GPT-2: load a checkpoint, tokenize, run the network, decode, and look inside.
//!
//! The binary `gpt2` is a thin shell around this library.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | `config.json` as a validated [`Config`](config::Config), named sizes |
//! | [`pipeline`] | a model with everything it needs: text in, text out |
//! | [`source`] | hub id, folder, GGUF or demo → an opened model; the only code that uses the network |
//! | [`checkpoint`] | safetensors, PyTorch `.bin` and GGUF → named tensors, in place in the mapped file |
//! | [`tokenizer`] | GPT-2's byte-level BPE, `tokenizer.json`, byte-exact streaming decode |
//! | [`model`] | the neural network: embeddings, blocks, head, key-value cache, probe |
//! | [`kernels`] | CPU kernels under the model |
//! | [`logits`] | arithmetic over one row of logits: softmax, ranks, the best tokens |
//! | [`language_model`] | what decoding needs from a model |
//! | [`decode`] | logits processors, greedy, sampling, beam, contrastive and assisted decoding, stop rules |
//! | [`analysis`] | scores, perplexity, logit lens, parameter and memory arithmetic |
//! | [`memory`] | how much memory a model takes, and how much is available |
//! | [`device`] | CPU, CUDA or Metal, number types, threads |
//! | [`files`] | reading with a limit, writing whole or not at all |
//! | [`error`] | typed errors |
//!
//! Shapes in the documentation: `B` rows of a batch, `T` new positions, `S` positions in the cache, `C` the model's
//! width (`n_embd`), `H` heads, `D` a head's width (`C / H`), `V` the vocabulary.

#![deny(missing_docs)]

pub mod analysis;
pub mod base;
pub mod checkpoint;
pub mod config;
#[cfg(all(feature = "cuda", target_os = "linux"))]
mod cuda_libraries;
pub mod decode;
pub mod device;
pub mod error;
pub mod files;
pub mod inventory;
pub mod kernels;
pub mod language_model;
pub mod logits;
pub mod memory;
pub mod model;
pub mod pipeline;
pub mod source;
pub mod tokenizer;

pub use error::{Error, Result};

// The README's example is tested along with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
