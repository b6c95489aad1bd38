//! Rows: many inputs from a file or a stream, one JSON object a line, and one result a line for each.
//!
//! Every subcommand that takes rows reads them with [`Input`] and writes results with [`Sink`], so that keys, ids, errors
//! and `--resume` work the same everywhere; [`Batch`] is the loop between them. `row` knows what the keys of a row mean,
//! `meant` which key a misspelt one was, `equal` which ids are the same, `lines` what a line is, `ledger` what an output was
//! made with.

mod batch;
mod equal;
mod input;
mod ledger;
mod lines;
mod meant;
mod progress;
mod row;
mod sink;

pub use batch::{Batch, Results, of_those_that_can, together};
pub use input::{Input, Next};
pub use ledger::{Settings, parameters};
pub use lines::Lines;
pub use progress::{outcome, progress, show_tokens};
pub use row::{Refused, Row, quoted, text, token_ids};
pub use sink::Sink;

use sha2::{Digest, Sha256};

/// A hash to recognise a row by, of 128 bits: files of any length have no two that are equal by chance.
type Hash = [u8; 16];

/// The hash of these parts, which cannot run into each other.
fn hash<'a>(parts: impl IntoIterator<Item = &'a str>) -> Hash {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut short = Hash::default();
    short.copy_from_slice(&hash.finalize()[..size_of::<Hash>()]);
    short
}
