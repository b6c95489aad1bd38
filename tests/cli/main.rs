//! The built binary: stdout, stderr, exit code, files.

mod batch;
mod browser;
mod checkpoint;
mod generate;
mod harness;
mod html;
mod info;
mod score;
mod tokenize;
mod topk;
mod trace;
