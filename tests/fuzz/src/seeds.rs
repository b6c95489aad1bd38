//! The valid files that cases are made from.

use std::path::PathBuf;

/// A file of `tests/fixtures`.
///
/// # Panics
/// If it is not there.
pub fn read(path: &str) -> Vec<u8> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures")).join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
