//! Files of `gpt2 compress`: parts, each with a CRC-32 of it. See src/compression/format/mod.rs.

use fastrand::Rng;

use crate::case::Case;
use crate::random::{damage, few, one_in, pick, poison};
use crate::seeds;
use crate::zip::crc;

/// More tokens than this would take the processor's time for honest work.
const MOST_TOKENS: usize = 1000;

/// Takes a number off the beginning.
fn number(bytes: &mut &[u8]) -> Option<usize> {
    let mut number = 0usize;
    for shift in (0..63).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// The parts of a valid file, without their checksums: the start, segments, the end.
fn parts(file: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (mut found, mut rest) = (vec![], file);
    while !rest.is_empty() {
        let mut inner = rest;
        let len = match (found.len(), rest[0]) {
            (0, _) => {
                inner = &inner[5..];
                number(&mut inner)?
            }
            (_, 0) => {
                inner = &inner[1..];
                number(&mut inner)?;
                8
            }
            (_, kind) => {
                inner = &inner[1..];
                let text = number(&mut inner)?;
                if kind == 1 {
                    number(&mut inner)?;
                }
                4 + if kind == 3 { text } else { number(&mut inner)? }
            }
        };
        let len = rest.len() - inner.len() + len;
        found.push(rest.get(..len)?.to_vec());
        rest = rest.get(len + 4..)?;
    }
    Some(found)
}

fn is_long(part: &[u8]) -> bool {
    let Some((1, mut rest)) = part.split_first() else { return false };
    number(&mut rest).and_then(|_| number(&mut rest)).is_some_and(|tokens| tokens > MOST_TOKENS)
}

/// Damages, repeats, removes or swaps parts, whose checksums are right nevertheless.
fn mutate(rng: &mut Rng, file: &[u8]) -> Vec<u8> {
    let mut parts = parts(file).expect("a valid file");
    for _ in 0..few(rng) {
        let (at, other) = (rng.usize(..parts.len()), rng.usize(..parts.len()));
        match rng.u32(..8) {
            0 if parts.len() > 1 => drop(parts.remove(at)),
            1 => parts.insert(other, parts[at].clone()),
            2 => parts.swap(at, other),
            3 => poison(rng, &mut parts[at]),
            _ => damage(rng, &mut parts[at]),
        }
    }
    let with_checksum = |part: Vec<u8>| {
        let checksum = if is_long(&part) { 0 } else { crc(0xedb8_8320, &part) };
        [part, checksum.to_le_bytes().to_vec()].concat()
    };
    let mut bytes: Vec<u8> = parts.into_iter().flat_map(with_checksum).collect();
    if one_in(rng, 4) {
        damage(rng, &mut bytes);
    }
    bytes
}

/// Files to decompress, and bytes to compress.
pub fn compressed(rng: &mut Rng) -> Case {
    let mut case = Case::default();
    if one_in(rng, 4) {
        case.stdin = seeds::read("compress/text.bin");
        damage(rng, &mut case.stdin);
        case.stdin.truncate(5000);
        let flags = ["", "--quantize q4_k", "--window 16 --stride 15", "--window 2 --stride 1", "--dtype f16"];
        case.args("compress --model demo").args(pick(rng, &flags));
    } else {
        let seed = pick(rng, &["compress/demo.gpt2z", "compress/demo-q8_0.gpt2z"]);
        case.file("text.gpt2z", mutate(rng, &seeds::read(seed))).args("decompress text.gpt2z");
        case.args(pick(rng, &["", "", "--model demo", "--dtype bf16", "--quantize q8_0"]));
    }
    if one_in(rng, 3) {
        case.args("-o out --format json");
    }
    case
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_file_are_all_of_it() {
        for seed in ["compress/demo.gpt2z", "compress/demo-q8_0.gpt2z"] {
            let file = seeds::read(seed);
            let parts = parts(&file).unwrap();
            assert!(parts.len() >= 3);
            let whole: Vec<u8> = parts
                .into_iter()
                .flat_map(|part| [part.clone(), crc(0xedb8_8320, &part).to_le_bytes().to_vec()].concat())
                .collect();
            assert_eq!(whole, file);
        }
    }
}
