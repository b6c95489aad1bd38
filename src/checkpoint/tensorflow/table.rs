//! The sorted table of keys and values that the index is: LevelDB's format.
//!
//! The file ends in a footer that points to the index block, whose values point to the blocks with the entries. Each
//! key is stored as what differs from the one before; each block has a checksum. TensorFlow writes the table without
//! compression ever since it wrote this kind of checkpoint in a release.
//!
//! Reference: `tensorflow/tsl/lib/io` (`format.cc`, `block.cc`); <https://github.com/google/leveldb/blob/main/doc/table_format.md>.

use super::super::file::File;
use super::wire::Cursor;
use crate::error::{Error, Result};

const MAGIC: u64 = 0xdb47_7524_8b80_fb57;

/// Bytes of the footer: two pointers, padding, and the magic number.
const FOOTER: usize = 48;

/// The longest key; each is stored as what differs from the one before, so a short entry can stand for a long key.
const LONGEST_KEY: usize = 1024;

/// Whether a file is such a table.
pub(in super::super) fn is_index(bytes: &[u8]) -> bool {
    bytes.len() >= FOOTER && bytes.ends_with(&MAGIC.to_le_bytes())
}

/// Calls `f` with each key and its value, in the order of the file.
pub(super) fn for_each<'f>(file: &'f File, mut f: impl FnMut(&[u8], &'f [u8]) -> Result<()>) -> Result<()> {
    if !is_index(&file.bytes) {
        return Err(file.not_a("the index of a TensorFlow checkpoint"));
    }
    let mut footer = Cursor(&file.bytes[file.bytes.len() - FOOTER..]);
    let metadata = Pointer::read(&mut footer).ok_or_else(|| damaged(file))?;
    // TensorFlow leaves this block empty, but it has a checksum.
    Block::open(file, metadata)?;
    let mut pointers = Block::open(file, Pointer::read(&mut footer).ok_or_else(|| damaged(file))?)?;
    let mut end = 0;
    while let Some(pointer) = pointers.next()? {
        let pointer = Pointer::read(&mut Cursor(pointer)).ok_or_else(|| damaged(file))?;
        // A table that repeats its blocks could take forever.
        if pointer.offset < end {
            return Err(damaged(file));
        }
        let mut block = Block::open(file, pointer)?;
        end = pointer.offset + pointer.len;
        while let Some(value) = block.next()? {
            f(&block.key, value)?;
        }
    }
    Ok(())
}

fn damaged(file: &File) -> Error {
    file.error("the table of variables is damaged; copy or download it again")
}

/// Where a block is.
#[derive(Clone, Copy)]
struct Pointer {
    offset: u64,
    len: u64,
}

impl Pointer {
    fn read(cursor: &mut Cursor) -> Option<Self> {
        Some(Self { offset: cursor.varint()?, len: cursor.varint()? })
    }
}

/// A block, read entry by entry.
struct Block<'f> {
    file: &'f File,
    rest: Cursor<'f>,
    /// The key of the entry that was read last.
    key: Vec<u8>,
}

impl<'f> Block<'f> {
    /// The block at `pointer`, whose checksum must be right.
    fn open(file: &'f File, Pointer { offset, len }: Pointer) -> Result<Self> {
        // Behind the block: a byte that tells the compression, and the checksum of all before it.
        let read = || {
            let mut cursor = Cursor(&file.bytes[..file.bytes.len() - FOOTER]);
            cursor.take(offset)?;
            let checked = cursor.take(len.checked_add(1)?)?;
            let (compression, content) = checked.split_last()?;
            let checksum = u32::from_le_bytes(cursor.array()?);
            (unmasked(checksum) == crc32c(checked)).then_some((*compression, content))
        };
        let (compression, content) = read().ok_or_else(|| damaged(file))?;
        if compression != 0 {
            return Err(file.error(
                "its table of variables is compressed, as before TensorFlow 1.0; save the checkpoint again with a newer one",
            ));
        }
        let entries = entries(content).ok_or_else(|| damaged(file))?;
        Ok(Self { file, rest: Cursor(entries), key: vec![] })
    }

    /// Reads an entry: returns its value, and puts its key in `key`. `None` at the end.
    fn next(&mut self) -> Result<Option<&'f [u8]>> {
        if self.rest.0.is_empty() {
            return Ok(None);
        }
        self.read().map(Some).ok_or_else(|| damaged(self.file))
    }

    fn read(&mut self) -> Option<&'f [u8]> {
        let cursor = &mut self.rest;
        let (shared, added, len) = (cursor.varint()?, cursor.varint()?, cursor.varint()?);
        let (added, value) = (cursor.take(added)?, cursor.take(len)?);
        let shared = usize::try_from(shared).ok().filter(|shared| *shared <= self.key.len())?;
        self.key.truncate(shared);
        self.key.extend_from_slice(added);
        (self.key.len() <= LONGEST_KEY).then_some(value)
    }
}

/// The entries of a block, without what follows them: the positions of those with a whole key, and their number.
fn entries(content: &[u8]) -> Option<&[u8]> {
    let (rest, count) = content.split_last_chunk()?;
    let positions = 4 * u64::from(u32::from_le_bytes(*count));
    Cursor(rest).take((rest.len() as u64).checked_sub(positions)?)
}

/// CRC-32C (Castagnoli), bit by bit: the index of a GPT-2 has a few kilobytes.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc: u32, _| (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg()))
    })
}

/// The checksum before it was masked, which LevelDB does so that no checksum of data with checksums is special.
fn unmasked(masked: u32) -> u32 {
    masked.wrapping_sub(0xa282_ead8).rotate_left(15)
}

#[cfg(test)]
pub(in super::super) mod tests {
    use super::super::super::golden;
    use super::super::wire::tests::varint;
    use super::*;

    /// A table of these entries, each in a block of its own.
    pub fn write<K: AsRef<[u8]>>(entries: &[(K, Vec<u8>)]) -> Vec<u8> {
        fn push(file: &mut Vec<u8>, content: &[u8]) -> Vec<u8> {
            let pointer = [varint(file.len() as u64), varint(content.len() as u64)].concat();
            let checked = [content, &[0]].concat();
            let masked = crc32c(&checked).rotate_right(15).wrapping_add(0xa282_ead8);
            file.extend([&checked[..], &masked.to_le_bytes()].concat());
            pointer
        }
        fn entry(key: &[u8], value: &[u8]) -> Vec<u8> {
            [&varint(0)[..], &varint(key.len() as u64), &varint(value.len() as u64), key, value].concat()
        }
        // One whole key, at the start.
        let end = [0, 0, 0, 0, 1, 0, 0, 0];
        let (mut file, mut index) = (vec![], vec![]);
        for (key, value) in entries {
            let key = key.as_ref();
            let pointer = push(&mut file, &[&entry(key, value)[..], &end].concat());
            index.extend(entry(key, &pointer));
        }
        index.extend(end);
        let mut footer = [push(&mut file, &end), push(&mut file, &index)].concat();
        footer.resize(FOOTER - 8, 0);
        [file, footer, MAGIC.to_le_bytes().to_vec()].concat()
    }

    /// All keys and values of a table.
    pub fn read(bytes: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut found = vec![];
        for_each(&File::of(bytes), |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            Ok(())
        })?;
        Ok(found)
    }

    /// The check value of the algorithm's definition.
    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn what_is_written_is_read() {
        let entries = [(&b""[..], b"header".to_vec()), (b"a", vec![]), (b"ab", vec![7; 300])];
        let expected: Vec<_> = entries.iter().map(|(key, value)| (key.to_vec(), value.clone())).collect();
        assert_eq!(read(&write(&entries)).unwrap(), expected);
        assert_eq!(read(&write::<&[u8]>(&[])).unwrap(), []);
    }

    #[test]
    fn any_changed_or_missing_byte_is_noticed() {
        let bytes = std::fs::read(golden::folder("openai_tf").join("model/model.ckpt.index")).unwrap();
        let expected = read(&bytes).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            // The footer is padded.
            let found = read(&changed);
            assert!(found.is_err() || at > bytes.len() - FOOTER && found.unwrap() == expected, "byte {at}");
            assert!(read(&bytes[..at]).is_err(), "cut to {at} bytes");
        }
    }

    #[test]
    fn compressed_tables_and_long_keys_are_refused() {
        let mut bytes = write(&[(b"key", vec![1, 2, 3])]);
        // The first block has 3 + 3 + 3 + 8 bytes.
        bytes[17] = 1;
        let masked = crc32c(&bytes[..18]).rotate_right(15).wrapping_add(0xa282_ead8);
        bytes[18..22].copy_from_slice(&masked.to_le_bytes());
        assert!(read(&bytes).unwrap_err().to_string().contains("compressed, as before TensorFlow 1.0"));
        let long = write(&[(&[b'x'; LONGEST_KEY + 1], vec![])]);
        assert!(read(&long).unwrap_err().to_string().contains("table of variables is damaged"));
        assert!(read(b"short").unwrap_err().to_string().contains("not the index of a TensorFlow checkpoint"));
    }
}
