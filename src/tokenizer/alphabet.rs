//! The byte alphabet of byte-level vocabularies: every byte has a printable letter (a space is `Ġ`), so that any bytes
//! can be written as text.
//!
//! Reference: `bytes_to_unicode` in GPT-2's `encoder.py`.

/// The letter of each byte.
const LETTERS: [char; 256] = letters();

/// The byte of each letter, by code point.
const BYTES: [Option<u8>; END] = bytes();

/// One past the largest letter's code point: 68 bytes are not printable in Latin-1.
const END: usize = 256 + 68;

/// The letter that stands for `byte`.
pub(super) fn letter(byte: u8) -> char {
    LETTERS[byte as usize]
}

/// The byte that `letter` stands for.
pub(super) fn byte(letter: char) -> Option<u8> {
    BYTES.get(letter as usize).copied().flatten()
}

/// All letters in the order of GPT-2's vocabulary: printable bytes first.
pub(super) fn in_vocabulary_order() -> impl Iterator<Item = char> {
    let (printable, others): (Vec<u8>, Vec<u8>) = (0..=u8::MAX).partition(|&byte| is_printable(byte));
    printable.into_iter().chain(others).map(letter)
}

/// Whether a byte is its own letter, as in Latin-1.
const fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

const fn letters() -> [char; 256] {
    let mut letters = ['\0'; 256];
    let mut next = 256;
    let mut byte = 0;
    while byte < 256 {
        let code = if is_printable(byte as u8) {
            byte as u32
        } else {
            next += 1;
            next - 1
        };
        letters[byte] = char::from_u32(code).expect("no surrogate lies below 324");
        byte += 1;
    }
    letters
}

const fn bytes() -> [Option<u8>; END] {
    let mut bytes = [None; END];
    let mut byte = 0;
    while byte < 256 {
        bytes[LETTERS[byte] as usize] = Some(byte as u8);
        byte += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_and_bytes_map_one_to_one() {
        assert!((0..=u8::MAX).all(|b| byte(letter(b)) == Some(b)));
        assert_eq!(BYTES.iter().flatten().count(), 256);
    }

    #[test]
    fn gpt2_writes_these_letters() {
        let letters: String = b" \n\t\0a~\x7f\xad\xff".iter().map(|&b| letter(b)).collect();
        assert_eq!(letters, "ĠĊĉĀa~ġŃÿ");
        let order: String = in_vocabulary_order().collect();
        assert!(order.starts_with("!\"#$") && order.ends_with("ŁłŃ"), "{order}");
    }
}
