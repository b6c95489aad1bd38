//! The library against transformers' own numbers.

mod decode;
mod forward;
mod golden;
mod real;
