//! The library against transformers' own numbers.

mod decode;
mod device;
mod forward;
mod golden;
mod real;
