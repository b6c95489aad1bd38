//! The built binary: stdout, stderr, exit code, files.

mod batch;
mod checkpoint;
mod generate;
mod harness;
mod info;
mod tokenize;
mod topk;
