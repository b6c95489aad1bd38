//! Looking at models and at what they make of a text: the next token, scores, perplexity, activations, the logit lens,
//! speed, and the arithmetic of parameters and memory. Nothing here changes what the network computes.

pub mod activations;
pub mod bench;
pub mod lens;
pub mod next_token;
pub mod parameters;
pub mod perplexity;
pub mod score;
