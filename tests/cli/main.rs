//! The built binary: stdout, stderr, exit code, files.

mod batch;
mod bench;
mod browser;
mod checkpoint;
mod convert;
#[cfg(feature = "hub")]
mod fake_hub;
mod generate;
mod harness;
mod html;
#[cfg(feature = "hub")]
mod hub;
mod info;
mod score;
mod tokenize;
mod topk;
mod trace;
