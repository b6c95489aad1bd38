//! The library against transformers' own numbers.

mod forward;
mod golden;
