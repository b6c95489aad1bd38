//! The library against transformers' own numbers.

mod decode;
mod decode_more;
mod device;
mod forward;
mod golden;
mod real;
