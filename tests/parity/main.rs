//! The library against transformers' own numbers.

#![allow(clippy::disallowed_methods, reason = "tests compare with the platform's mathematics")]

mod attribution;
mod bits;
mod compressed;
mod decode;
mod decode_more;
mod device;
mod forward;
mod golden;
mod inside;
mod interventions;
mod real;
