//! Attention weights packed into text: a page for GPT-2 holds millions of them.
//!
//! Rice's code, row by row with the parameter that suits the row: the weights of a row add up to 1, so that none costs more
//! than a few bits beyond the logarithm of their mean. `attention.js` unpacks it.

/// The digits of base64, 6 bits each.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// An upper part of this many announces a number in plain bits.
const PLAIN: u32 = 12;

/// The bits of such a number.
const PLAIN_BITS: u32 = 14;

/// The bits of a row's shift.
const SHIFT_BITS: u32 = 4;

/// The lower triangle of `weights`, row by row, in units of 1/10000.
pub fn packed(weights: &[Vec<f32>]) -> String {
    let mut bits = Bits::default();
    for (query, row) in weights.iter().enumerate() {
        let row: Vec<u32> = row[..=query].iter().map(|weight| (weight * 1e4).round() as u32).collect();
        let cost = |shift: &u32| row.iter().map(|x| length(*x, *shift)).sum::<u32>();
        let shift = (0..PLAIN_BITS).min_by_key(cost).unwrap_or_default();
        bits.push(shift, SHIFT_BITS);
        for x in row {
            let upper = (x >> shift).min(PLAIN);
            bits.push((1 << upper) - 1, upper);
            match upper {
                PLAIN => bits.push(x, PLAIN_BITS),
                _ => bits.push(x & ((1 << shift) - 1), shift + 1),
            }
        }
    }
    bits.finish()
}

/// How many bits a number takes.
fn length(x: u32, shift: u32) -> u32 {
    let upper = x >> shift;
    if upper < PLAIN { upper + 1 + shift } else { PLAIN + PLAIN_BITS }
}

/// Bytes in base64, without padding.
pub fn base64(bytes: &[u8]) -> String {
    let mut bits = Bits::default();
    bytes.iter().for_each(|byte| bits.push(u32::from(*byte), 8));
    bits.finish()
}

/// Bits under way to digits.
#[derive(Default)]
struct Bits {
    text: String,
    waiting: u64,
    count: u32,
}

impl Bits {
    /// Appends the `count` lower bits of `x`, the highest first.
    fn push(&mut self, x: u32, count: u32) {
        self.waiting = self.waiting << count | u64::from(x);
        self.count += count;
        while self.count >= 6 {
            self.count -= 6;
            self.text.push(char::from(DIGITS[(self.waiting >> self.count & 63) as usize]));
        }
        self.waiting &= 63;
    }

    fn finish(mut self) -> String {
        if self.count > 0 {
            self.push(0, 6 - self.count);
        }
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `attention.js` does it.
    fn unpacked(text: &str, n: usize) -> Vec<u32> {
        let digit = |c: u8| DIGITS.iter().position(|d| *d == c).unwrap();
        let mut bits = text.bytes().flat_map(|c| (0..6).rev().map(move |bit| (digit(c) >> bit & 1) as u32));
        let mut numbers = vec![];
        for query in 0..n {
            let mut take = |count: u32| (0..count).fold(0, |x, _| 2 * x + bits.next().unwrap());
            let shift = take(SHIFT_BITS);
            for _ in 0..=query {
                let mut upper = 0;
                while upper < PLAIN && take(1) == 1 {
                    upper += 1;
                }
                numbers.push(if upper == PLAIN { take(PLAIN_BITS) } else { upper << shift | take(shift) });
            }
        }
        numbers
    }

    #[test]
    fn every_weight_comes_back_and_takes_little_room() {
        let n = 200;
        let even = |query: usize| vec![1.0 / (query + 1) as f32; n];
        let single = |query: usize| (0..n).map(|key| f32::from(u8::from(key == query / 2))).collect::<Vec<_>>();
        let falling = |query: usize| {
            let raw: Vec<f32> =
                (0..n).map(|key| if key <= query { 0.9f32.powi((query - key) as i32) } else { 0.0 }).collect();
            let sum: f32 = raw.iter().sum();
            raw.into_iter().map(|x| x / sum).collect::<Vec<_>>()
        };
        let heads: [(Vec<Vec<f32>>, f64); 3] = [
            ((0..n).map(even).collect(), 1.4),
            ((0..n).map(single).collect(), 0.4),
            ((0..n).map(falling).collect(), 1.4),
        ];
        for (weights, most) in heads {
            let text = packed(&weights);
            let expected: Vec<u32> = (0..n)
                .flat_map(|query| weights[query][..=query].iter().map(|w| (w * 1e4).round() as u32).collect::<Vec<_>>())
                .collect();
            assert_eq!(unpacked(&text, n), expected);
            let each = text.len() as f64 / expected.len() as f64;
            assert!(each < most, "{each} characters for each weight");
        }
    }
}
