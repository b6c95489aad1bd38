//! From a row of logits to a distribution in whole numbers, the same on every platform, and the range coder over it.
//!
//! A token's weight is `e^(x - largest)` in steps of 2^-30, so that a sum of weights is exact and its order does not
//! matter. With `C` the weights before token `i`, `T` those of all `V` tokens, the token has the part of
//! `0..2^32` that begins at `i + ⌊C · (2^32 - V) / T⌋` and ends where the next one's begins. So each token has at least
//! one of the 2^32, whatever its logit; with GPT-2's vocabulary, that costs 0.00002 bits a token.
//!
//! The coder is constriction's, in words of 32 bits with a state of 128: with 64, a distribution in steps of 2^-32 would
//! cost 0.03 bits a token.

use std::convert::Infallible;
use std::num::NonZeroU32;

use constriction::backends::Cursor;
use constriction::stream::model::{DecoderModel, EncoderModel, EntropyModel};
use constriction::stream::queue::{RangeDecoder, RangeEncoder};
use constriction::stream::{Decode, Encode};

use crate::base::simd::{Kernel, LANES, Simd, dispatch};
use crate::error::Result;
use crate::logits::{exp, largest_finite};

/// Distributions are in steps of 2^-32.
const PRECISION: usize = 32;

/// The weight of the most probable token.
const LARGEST: f32 = (1 << 30) as f32;

/// Tokens whose weights are summed together when one is looked for.
const BLOCK: usize = 1024;

/// The smallest vocabulary that is coded: one token has nothing to say, and would have all of the 2^32.
pub const SMALLEST_VOCABULARY: usize = 2;

/// The distribution that a row of logits (V) stands for.
pub struct Distribution<'a> {
    row: &'a [f32],
    largest: f32,
}

/// The part of `0..2^32` that a token has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    left: u32,
    width: NonZeroU32,
}

impl<'a> Distribution<'a> {
    /// # Errors
    /// [`Error::Numerics`](crate::Error::Numerics) unless all logits are finite.
    pub fn new(row: &'a [f32]) -> Result<Self> {
        Ok(Self { row, largest: largest_finite(row)? })
    }

    /// The slot of token `id`.
    pub fn slot(&self, id: usize) -> Slot {
        let before = self.weight(&self.row[..id]);
        let through = before + self.weight(&self.row[id..=id]);
        let scale = self.scale(through + self.weight(&self.row[id + 1..]));
        Slot::between(scale.begin(id, before), scale.begin(id + 1, through))
    }

    /// The token whose slot holds `point`, and the slot.
    fn find(&self, point: u32) -> (usize, Slot) {
        let blocks: Vec<u64> = self.row.chunks(BLOCK).map(|block| self.weight(block)).collect();
        let scale = self.scale(blocks.iter().sum());
        let (mut id, mut before) = (0, 0);
        for weight in blocks {
            let end = (id + BLOCK).min(self.row.len());
            if scale.begin(end, before + weight) > point.into() {
                break;
            }
            (id, before) = (end, before + weight);
        }
        loop {
            let through = before + self.weight(&self.row[id..=id]);
            let end = scale.begin(id + 1, through);
            if end > point.into() {
                return (id, Slot::between(scale.begin(id, before), end));
            }
            (id, before) = (id + 1, through);
        }
    }

    fn weight(&self, row: &[f32]) -> u64 {
        dispatch(Weight { row, largest: self.largest })
    }

    fn scale(&self, total: u64) -> Scale {
        Scale { rest: (1 << PRECISION) - self.row.len() as u128, total: total.into() }
    }
}

/// Where slots begin.
struct Scale {
    /// What is left of 2^32 when each token has one.
    rest: u128,
    /// The weights of all tokens.
    total: u128,
}

impl Scale {
    /// The beginning of the slot of `id`, before which there are these weights.
    fn begin(&self, id: usize, before: u64) -> u64 {
        id as u64 + (u128::from(before) * self.rest / self.total) as u64
    }
}

impl Slot {
    /// Of at least two tokens, each of which has one.
    fn between(begin: u64, end: u64) -> Self {
        let width = NonZeroU32::new((end - begin) as u32).expect("a slot is not empty");
        Self { left: begin as u32, width }
    }

    /// What the token costs.
    #[cfg(test)]
    pub fn bits(self) -> f64 {
        PRECISION as f64 - f64::from(self.width.get()).log2()
    }
}

/// The sum of the weights of logits.
struct Weight<'a> {
    row: &'a [f32],
    largest: f32,
}

impl Kernel for Weight<'_> {
    type Output = u64;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> u64 {
        let Self { row, largest } = self;
        let mut lanes = [0; LANES];
        let (chunks, rest) = row.as_chunks::<LANES>();
        for chunk in chunks {
            for (lane, logit) in lanes.iter_mut().zip(chunk) {
                *lane += weight(*logit, largest);
            }
        }
        for (lane, logit) in lanes.iter_mut().zip(rest) {
            *lane += weight(*logit, largest);
        }
        lanes.iter().sum()
    }
}

/// The weight of a logit, 0 to 2^30.
#[inline(always)]
fn weight(logit: f32, largest: f32) -> u64 {
    let weight = exp(logit - largest) * LARGEST + 0.5;
    // SAFETY: both are finite, and the logit is not the larger one, so `exp` gives a number from 0 to hardly more than 1.
    // (A conversion that checks has no vector instruction: coding took twice as long.)
    let weight = unsafe { weight.to_int_unchecked::<i32>() };
    weight as u64
}

impl EntropyModel<PRECISION> for Slot {
    type Symbol = ();
    type Probability = u32;
}

impl EncoderModel<PRECISION> for Slot {
    fn left_cumulative_and_probability(&self, _: impl std::borrow::Borrow<()>) -> Option<(u32, NonZeroU32)> {
        Some((self.left, self.width))
    }
}

impl EntropyModel<PRECISION> for Distribution<'_> {
    type Symbol = (usize, Slot);
    type Probability = u32;
}

impl DecoderModel<PRECISION> for Distribution<'_> {
    fn quantile_function(&self, point: u32) -> ((usize, Slot), u32, NonZeroU32) {
        let (id, slot) = self.find(point);
        ((id, slot), slot.left, slot.width)
    }
}

/// Codes tokens, in their order.
pub struct Encoder(RangeEncoder<u32, u128>);

impl Encoder {
    pub fn new() -> Self {
        Self(RangeEncoder::new())
    }

    pub fn push(&mut self, slot: Slot) {
        self.0.encode_symbol((), slot).expect("memory has room, and no slot is empty");
    }

    /// Bytes of the code so far.
    pub fn len(&self) -> usize {
        4 * self.0.num_words()
    }

    /// The code: 32-bit words, the most significant byte of each first.
    pub fn finish(self) -> Vec<u8> {
        let words: Vec<u32> = self.0.into_compressed().unwrap_or_else(|never: Infallible| match never {});
        words.into_iter().flat_map(u32::to_be_bytes).collect()
    }
}

/// Gives the tokens of a code, one by one.
pub struct Decoder {
    code: RangeDecoder<u32, u128, Cursor<u32, Vec<u32>>>,
    /// Codes them again.
    again: Encoder,
}

impl Decoder {
    /// None if there is no whole number of words.
    pub fn new(code: &[u8]) -> Option<Self> {
        let (words, []) = code.as_chunks() else { return None };
        let words: Vec<u32> = words.iter().map(|word| u32::from_be_bytes(*word)).collect();
        let code = RangeDecoder::from_compressed(words).unwrap_or_else(|never: Infallible| match never {});
        Some(Self { code, again: Encoder::new() })
    }

    /// The next token; none if this is no code of it.
    pub fn next(&mut self, distribution: &Distribution<'_>) -> Option<usize> {
        let (id, slot) = self.code.decode_symbol(distribution).ok()?;
        self.again.push(slot);
        Some(id)
    }

    /// The code of the tokens so far, which may be the beginning of what they come from.
    pub fn used(self) -> Vec<u8> {
        self.again.finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::test_numbers;
    use crate::logits::LogNormalizer;

    fn row() -> impl Strategy<Value = Vec<f32>> {
        let logit = prop_oneof![8 => -30f32..30.0, 1 => Just(2.5), 1 => -1e30f32..1e30, 1 => Just(f32::MIN)];
        proptest::collection::vec(logit, 2..3000)
    }

    proptest! {
        /// Slots follow each other from 0 to 2^32, and each point is found in its slot.
        #[test]
        fn every_token_has_a_slot(row in row(), point: u32) {
            let distribution = Distribution::new(&row).unwrap();
            let mut end = 0;
            for id in 0..row.len() {
                let slot = distribution.slot(id);
                prop_assert_eq!(u64::from(slot.left), end);
                end += u64::from(slot.width.get());
                let last = (end - 1) as u32;
                if id % 97 == 0 {
                    prop_assert_eq!(distribution.find(slot.left), (id, slot));
                    prop_assert_eq!(distribution.find(last), (id, slot));
                }
            }
            prop_assert_eq!(end, 1 << 32);
            let (id, slot) = distribution.find(point);
            prop_assert_eq!(slot, distribution.slot(id));
            prop_assert!(slot.left <= point && point - slot.left < slot.width.get());
        }

        #[test]
        fn what_is_coded_comes_back(row in row(), ids in proptest::collection::vec(any::<prop::sample::Index>(), 0..300)) {
            let ids: Vec<usize> = ids.iter().map(|id| id.index(row.len())).collect();
            let distribution = Distribution::new(&row).unwrap();
            let mut encoder = Encoder::new();
            let mut bits = 0.0;
            for id in &ids {
                let slot = distribution.slot(*id);
                bits += slot.bits();
                encoder.push(slot);
            }
            let code = encoder.finish();
            prop_assert!((code.len() * 8) as f64 <= bits + 64.0, "{} bytes for {bits} bits", code.len());
            let mut decoder = Decoder::new(&code).unwrap();
            for id in ids {
                prop_assert_eq!(decoder.next(&distribution), Some(id));
            }
            prop_assert_eq!(decoder.used(), code);
        }

        #[test]
        fn no_code_makes_it_fail(row in row(), code: Vec<u8>) {
            let distribution = Distribution::new(&row).unwrap();
            prop_assert_eq!(Decoder::new(&code).is_some(), code.len() % 4 == 0);
            if let Some(mut decoder) = Decoder::new(&code) {
                for _ in 0..50 {
                    prop_assert!(decoder.next(&distribution).is_none_or(|id| id < row.len()));
                }
            }
        }
    }

    #[test]
    fn a_token_costs_what_its_probability_says() {
        for n in [2, 300, 50257] {
            let row: Vec<f32> = test_numbers(n, 7).into_iter().map(|x| 8.0 * x).collect();
            let (distribution, exact) = (Distribution::new(&row).unwrap(), LogNormalizer::of(&row));
            let (mut ours, mut entropy) = (0.0, 0.0);
            for (id, logit) in row.iter().enumerate() {
                let bits = -f64::from(exact.log_prob(*logit)) / std::f64::consts::LN_2;
                ours += distribution.slot(id).bits() * (-bits).exp2();
                entropy += bits * (-bits).exp2();
            }
            assert!((ours - entropy).abs() < 1e-4, "{n}: {ours} bits for {entropy}");
        }
    }

    #[test]
    fn logits_that_are_not_finite_are_refused() {
        assert!(Distribution::new(&[0.0, f32::NAN]).is_err());
        assert!(Distribution::new(&[0.0, f32::INFINITY]).is_err());
    }
}
