//! The index of a TensorFlow checkpoint: a table of LevelDB with a protocol buffer for each tensor.

use fastrand::Rng;

use crate::random::{damage, number, one_in, pick, text};
use crate::zip::crc;

/// A key and its value.
type Entry = (Vec<u8>, Vec<u8>);

const MAGIC: u64 = 0xdb47_7524_8b80_fb57;

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().expect("a seed has whole numbers");
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    number
}

fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// The entries of a block, which share the starts of their keys.
fn read_block(block: &[u8]) -> Vec<Entry> {
    let (body, restarts) = block.split_at(block.len() - 4);
    let restarts = u32::from_le_bytes(restarts.try_into().expect("4 bytes")) as usize;
    let mut bytes = &body[..body.len() - 4 * restarts];
    let mut entries: Vec<Entry> = vec![];
    while !bytes.is_empty() {
        let [shared, own, len] = [(); 3].map(|()| varint(&mut bytes) as usize);
        let before = entries.last().map_or(&[][..], |(key, _)| &key[..shared]);
        entries.push(([before, &bytes[..own]].concat(), bytes[own..own + len].to_vec()));
        bytes = &bytes[own + len..];
    }
    entries
}

fn read(file: &[u8]) -> Vec<Entry> {
    let mut footer = &file[file.len() - 48..];
    let block = |bytes: &mut &[u8]| {
        let [offset, len] = [(); 2].map(|()| varint(bytes) as usize);
        read_block(&file[offset..offset + len])
    };
    let _metaindex = block(&mut footer);
    block(&mut footer).into_iter().flat_map(|(_, handle)| block(&mut handle.as_slice())).collect()
}

/// Writes a block of a table, and where it is.
fn put_block(file: &mut Vec<u8>, entries: &[Entry], lie: &mut impl FnMut(u64) -> u64) -> Vec<u8> {
    let mut block = vec![];
    for (key, value) in entries {
        put_varint(&mut block, lie(0));
        put_varint(&mut block, lie(key.len() as u64));
        put_varint(&mut block, lie(value.len() as u64));
        block.extend(key);
        block.extend(value);
    }
    block.extend([0; 4]);
    block.extend((lie(1) as u32).to_le_bytes());
    let mut handle = vec![];
    put_varint(&mut handle, lie(file.len() as u64));
    put_varint(&mut handle, lie(block.len() as u64));
    block.push(lie(0) as u8);
    let check = crc(0x82f6_3b78, &block).rotate_right(15).wrapping_add(0xa282_ead8);
    file.extend(block);
    file.extend(check.to_le_bytes());
    handle
}

fn write(entries: &[Entry], mut lie: impl FnMut(u64) -> u64) -> Vec<u8> {
    let mut file = vec![];
    // Several blocks, as in large models.
    let index: Vec<Entry> = entries
        .chunks(9)
        .map(|chunk| (chunk[chunk.len() - 1].0.clone(), put_block(&mut file, chunk, &mut lie)))
        .collect();
    let mut footer = put_block(&mut file, &[], &mut lie);
    footer.extend(put_block(&mut file, &index, &mut lie));
    footer.resize(40, 0);
    file.extend(footer);
    file.extend(lie(MAGIC).to_le_bytes());
    file
}

/// Writes one field of a protocol buffer anew, or adds one.
fn mutate_message(rng: &mut Rng, message: &[u8]) -> Vec<u8> {
    let mut fields: Vec<(u64, Vec<u8>)> = vec![];
    let mut rest = message;
    while !rest.is_empty() {
        let tag = varint(&mut rest);
        let len = match tag & 7 {
            0 => {
                let mut after = rest;
                varint(&mut after);
                rest.len() - after.len()
            }
            1 => 8,
            5 => 4,
            _ => varint(&mut rest) as usize,
        };
        fields.push((tag, rest[..len].to_vec()));
        rest = &rest[len..];
    }
    let at = rng.usize(..=fields.len());
    if at == fields.len() {
        let mut new = vec![];
        put_varint(&mut new, number(rng));
        fields.push((rng.u64(..8) << 3, new));
    } else {
        let (tag, value) = &mut fields[at];
        match (*tag & 7, rng.u32(..6)) {
            (_, 0) => drop(fields.remove(at)),
            (_, 1) => *tag = number(rng),
            // A shape, and in it its sizes.
            (2, 2..5) if *tag >> 3 == 2 && !value.is_empty() => *value = mutate_message(rng, value),
            (0, _) => {
                value.clear();
                put_varint(value, number(rng));
            }
            _ => damage(rng, value),
        }
    }
    let mut bytes = vec![];
    for (tag, value) in fields {
        put_varint(&mut bytes, tag);
        if tag & 7 == 2 {
            put_varint(&mut bytes, value.len() as u64);
        }
        bytes.extend(value);
    }
    bytes
}

/// Mutates a valid index.
pub fn mutate(rng: &mut Rng, file: &[u8], words: &str) -> Vec<u8> {
    let mut entries = read(file);
    if !one_in(rng, 6) {
        let at = rng.usize(..entries.len());
        let other = rng.usize(..entries.len());
        match rng.u32(..10) {
            0 => drop(entries.remove(at)),
            1 => entries.insert(other, entries[at].clone()),
            2 => entries.swap(at, other),
            3 => entries[at].0 = text(rng, words).into(),
            4 => damage(rng, &mut entries[at].1),
            _ => entries[at].1 = mutate_message(rng, &entries[at].1),
        }
    }
    // One of the numbers of the table itself.
    let mut until = if one_in(rng, 4) { rng.u64(..120) } else { u64::MAX };
    let lie = pick(rng, &[0, 1, 5, 0xffff_ffff, u64::MAX, 1 << 62]);
    let mut bytes = write(&entries, |number| {
        until = until.wrapping_sub(1);
        if until == 0 { lie } else { number }
    });
    if one_in(rng, 8) {
        damage(rng, &mut bytes);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds;

    #[test]
    fn tables_come_back_as_they_were() {
        let entries = read(&seeds::read("formats/openai_tf/model/model.ckpt.index"));
        assert!(entries.iter().any(|(key, _)| key == b"model/wte"));
        assert_eq!(read(&write(&entries, |number| number)), entries);
    }
}
