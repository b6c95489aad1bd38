//! Values that break readers: extreme numbers, hostile text, damaged bytes.

use fastrand::Rng;

/// One of `from`, all equally likely.
pub fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())]
}

/// True in one of `n` calls.
pub fn one_in(rng: &mut Rng, n: u32) -> bool {
    rng.u32(..n) == 0
}

/// How many changes to make: mostly one, for a second one is often not even read.
pub fn few(rng: &mut Rng) -> usize {
    pick(rng, &[1, 1, 1, 2, 3])
}

/// A number that is small, arbitrary, or at a limit of some type.
pub fn number(rng: &mut Rng) -> u64 {
    match rng.u32(..6) {
        0 => rng.u64(..),
        1 => rng.u64(..300),
        // 255, 256, 2^31, 2^32 - 1, 2^53, 2^64 - 7 and the like.
        _ => (1u64 << pick(rng, &[0, 7, 8, 16, 31, 32, 53, 62, 63])).wrapping_sub(pick(rng, &[0, 1, 1, 2, 8])),
    }
}

/// One of `words`, which spaces separate.
pub fn word(rng: &mut Rng, words: &str) -> String {
    let words: Vec<&str> = words.split_whitespace().collect();
    rng.choice(words).unwrap_or_default().to_owned()
}

/// Text that breaks tokenizers, terminals, paths and parsers, or one of `words`, which spaces separate.
pub fn text(rng: &mut Rng, words: &str) -> String {
    const HOSTILE: &str = "\0 \u{1b}[31mred\u{1b}[0m \u{1b}]0;x\u{7} \u{9b}2J \u{2066} \u{e0041} \u{feff}x \u{202e}abc \u{200b} \
        é ﬁİẞ한글e\u{301} 🙂👩\u{200d}👧 \u{10ffff} <|endoftext|> .. NaN -1 1e999 %s%n{} '\"\\ __proto__ ĠĊ";
    match rng.u32(..12) {
        0 => pick(rng, &["a", "é", " ", "<|endoftext|>", "🙂"]).repeat(pick(rng, &[17, 255, 256, 5000, 70_000])),
        1 => (0..rng.usize(..12)).map(|_| rng.char(..)).collect(),
        2 => pick(rng, &["", " ", "\n", "\r\n", "\u{2028}", "a b"]).to_owned(),
        3 | 4 => word(rng, HOSTILE),
        5 => word(rng, words) + &word(rng, HOSTILE),
        _ => word(rng, words),
    }
}

/// Flips, overwrites, inserts, removes or cuts off bytes, once or a few times.
pub fn damage(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..few(rng) {
        let len = bytes.len();
        // Headers are at the start, and directories at the end.
        let at = match rng.u32(..3) {
            0 => rng.usize(..=len),
            1 => rng.usize(..=len.min(64)),
            _ => len - rng.usize(..=len.min(64)),
        };
        let new = match rng.u32(..3) {
            0 => number(rng).to_le_bytes().to_vec(),
            1 => (number(rng) as u32).to_le_bytes().to_vec(),
            _ => (0..rng.usize(1..9)).map(|_| rng.u8(..)).collect(),
        };
        match rng.u32(..8) {
            0..3 if at < len => bytes[at] ^= 1 << rng.u32(..8),
            0..5 => bytes.iter_mut().skip(at).zip(new).for_each(|(old, new)| *old = new),
            5 => drop(bytes.splice(at..at, new)),
            6 => drop(bytes.drain(at..len.min(at + rng.usize(1..200)))),
            _ => bytes.truncate(at),
        }
    }
}

/// Puts infinity, not-a-number, huge and tiny values among weights.
pub fn poison(rng: &mut Rng, bytes: &mut [u8]) {
    let count = pick(rng, &[1, 1, 5, 1000]);
    for _ in 0..count {
        // 16 bits make a half, a brain float, or the upper part of a single.
        let value: u16 = pick(rng, &[0x7f80, 0xff80, 0x7fc0, 0x7f7f, 0xff7f, 0x7c00, 0x7e00, 0x7bff, 0x0001, 0x4f00]);
        let at = rng.usize(..=bytes.len() / 2) * 2;
        bytes.iter_mut().skip(at).zip(value.to_le_bytes()).for_each(|(old, new)| *old = new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_makes_one_sequence() {
        let make = |seed| {
            let rng = &mut Rng::with_seed(seed);
            let mut bytes = vec![7; 100];
            damage(rng, &mut bytes);
            (number(rng), text(rng, "word"), bytes)
        };
        assert_eq!(make(3), make(3));
        assert_ne!(make(3), make(4));
    }
}
