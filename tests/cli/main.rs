//! The built binary: stdout, stderr, exit code, files.

mod harness;
