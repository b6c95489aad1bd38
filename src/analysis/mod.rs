//! Looking at models and at what they make of a text: scores, perplexity, activations, the logit lens, and the
//! arithmetic of parameters and memory. Nothing here changes what the network computes.

pub mod activations;
pub mod lens;
pub mod parameters;
pub mod perplexity;
pub mod score;
