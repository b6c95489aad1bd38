//! Zip archives whose entries are stored, not compressed, as PyTorch writes them.

use fastrand::Rng;

use crate::random::{damage, poison, text};

#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub name: String,
    pub data: Vec<u8>,
}

fn number(bytes: &[u8], at: usize, width: usize) -> usize {
    bytes[at..at + width].iter().rev().fold(0, |number, &byte| number << 8 | byte as usize)
}

/// The entries of a valid archive of a seed.
pub fn read(file: &[u8]) -> Vec<Entry> {
    let end = file.windows(4).rposition(|window| window == b"PK\x05\x06").expect("an archive has an end record");
    let mut at = number(file, end + 16, 4);
    let mut entries = vec![];
    for _ in 0..number(file, end + 10, 2) {
        let [len, name, extra, comment, local] =
            [(20, 4), (28, 2), (30, 2), (32, 2), (42, 4)].map(|(field, width)| number(file, at + field, width));
        let start = local + 30 + number(file, local + 26, 2) + number(file, local + 28, 2);
        entries.push(Entry {
            name: String::from_utf8_lossy(&file[at + 46..at + 46 + name]).into_owned(),
            data: file[start..start + len].to_vec(),
        });
        at += 46 + name + extra + comment;
    }
    entries
}

/// Renames, damages, poisons, repeats, removes or swaps entries.
pub fn mutate_entries(rng: &mut Rng, entries: &mut Vec<Entry>) {
    let at = rng.usize(..entries.len());
    let other = rng.usize(..entries.len());
    match rng.u32(..8) {
        0 => entries[at].name = text(rng, "archive/data.pkl data.pkl archive/data/0 ../x /etc/x a\\b"),
        1 => drop(entries.remove(at)),
        2 => entries.insert(other, entries[at].clone()),
        3 => entries.swap(at, other),
        4 => {
            let data = entries[at].data.clone();
            entries[other].data = data;
        }
        5 => damage(rng, &mut entries[at].data),
        _ => poison(rng, &mut entries[at].data),
    }
    for entry in entries {
        // The length of a name has 16 bits.
        while entry.name.len() > 0xffff {
            entry.name.pop();
        }
    }
}

/// Writes an archive, and says where in it numbers are and how many bytes they have.
pub fn write(entries: &[Entry]) -> (Vec<u8>, Vec<(usize, usize)>) {
    let mut bytes = vec![];
    let mut fields = vec![];
    let mut directory = vec![];
    let put = |bytes: &mut Vec<u8>, fields: &mut Vec<(usize, usize)>, numbers: &[(usize, usize)]| {
        for &(number, width) in numbers {
            fields.push((bytes.len(), width));
            bytes.extend(&number.to_le_bytes()[..width]);
        }
    };
    for Entry { name, data } in entries {
        // PyTorch aligns storages to 64 bytes.
        let start = bytes.len();
        let padding = (64 - (start + 30 + name.len() + 4) % 64) % 64 + 4;
        let common = [
            (20, 2),
            (0, 2),
            (0, 2),
            (0, 4),
            (crc(0xedb8_8320, data) as usize, 4),
            (data.len(), 4),
            (data.len(), 4),
            (name.len(), 2),
        ];
        bytes.extend(b"PK\x03\x04");
        put(&mut bytes, &mut fields, &common);
        put(&mut bytes, &mut fields, &[(padding, 2)]);
        bytes.extend(name.as_bytes());
        put(&mut bytes, &mut fields, &[(0x4246, 2), (padding - 4, 2)]);
        bytes.extend(vec![b'Z'; padding - 4]);
        bytes.extend(data);

        let mut record = b"PK\x01\x02\0\0".to_vec();
        let mut inside = vec![];
        put(&mut record, &mut inside, &common);
        put(&mut record, &mut inside, &[(0, 2), (0, 2), (0, 2), (0, 2), (0, 4), (start, 4)]);
        record.extend(name.as_bytes());
        directory.push((record, inside));
    }
    let start = bytes.len();
    for (record, inside) in directory {
        fields.extend(inside.into_iter().map(|(at, width)| (bytes.len() + at, width)));
        bytes.extend(record);
    }
    let (count, len) = (entries.len(), bytes.len() - start);
    bytes.extend(b"PK\x05\x06");
    put(&mut bytes, &mut fields, &[(0, 2), (0, 2), (count, 2), (count, 2), (len, 4), (start, 4), (0, 2)]);
    (bytes, fields)
}

/// The cyclic redundancy check with a reflected polynomial: 0xedb88320 for zip, 0x82f63b78 (Castagnoli) for TensorFlow.
pub fn crc(polynomial: u32, bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ polynomial } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds;

    #[test]
    fn archives_come_back_as_they_were() {
        let entries = read(&seeds::read("tiny/inverse/pytorch_model.bin"));
        assert!(entries.len() > 10 && entries.iter().any(|entry| entry.name.ends_with("data.pkl")));
        assert_eq!(read(&write(&entries).0), entries);
    }

    #[test]
    fn checks_are_those_of_the_standards() {
        assert_eq!(crc(0xedb8_8320, b"123456789"), 0xcbf4_3926);
        assert_eq!(crc(0x82f6_3b78, b"123456789"), 0xe306_9283);
    }
}
