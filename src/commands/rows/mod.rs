//! Rows: many inputs from a file or a stream, one JSON object a line, and one result a line for each.
//!
//! Every subcommand that takes rows reads them with [`Input`] and writes [`Results`], so that keys, ids, errors and
//! `--resume` work the same everywhere; [`Batch`] is the loop between them. `row` knows what the keys of a row mean, `values`
//! what their values, `entries` how both are written, `meant` which key a misspelt one was, `equal` which ids are the same,
//! `lines` what a line is; `columns` gives all records the same keys, `sink` writes lines, `order` sorts them, `ledger` knows what
//! an output was made with.

mod batch;
mod columns;
mod entries;
mod equal;
mod input;
mod ledger;
mod lines;
mod meant;
mod order;
mod progress;
mod results;
mod row;
mod sink;
mod values;

pub use batch::{Batch, of_those_that_can, together};
#[cfg(feature = "serve")]
pub use entries::entries;
pub use entries::quoted;
pub use input::{Input, Next};
pub use ledger::{Settings, parameters};
pub use lines::Lines;
pub use results::{Results, RowsFailed, Written};
pub use row::{Allowed, Refused, Row};
pub use sink::Sink;
pub use values::{text, token_ids};

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
    short(hash)
}

/// The start of a hash.
fn short(hash: Sha256) -> Hash {
    let mut short = Hash::default();
    short.copy_from_slice(&hash.finalize()[..size_of::<Hash>()]);
    short
}
