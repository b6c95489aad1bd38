//! Analysis of models and texts: next-token distributions, scores, perplexity, activations, vectors, the logit lens, what a
//! logit is made of, heads that do something known, speed, parameter and memory counts, how PyTorch shows a model. Nothing
//! here changes what the network computes, unless asked to: [`interventions`].

pub mod activations;
pub mod alternatives;
pub mod attribution;
pub mod bench;
pub mod embedding;
pub mod heads;
pub mod interventions;
pub mod lens;
pub mod next_token;
mod npz;
pub mod parameters;
pub mod patching;
pub mod perplexity;
pub mod pytorch;
pub mod saved;
pub mod score;
pub mod tensor_file;
pub mod words;
