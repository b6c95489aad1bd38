//! Attention weights in few shades, compressed layer by layer, for pages that exact ones would make too large.

use std::io::Write;

use flate2::Compression;
use flate2::write::DeflateEncoder;

use super::packed::base64;
use crate::output::trace::HeadRecord;

/// How many shades a weight may have, most first.
const SHADES: [u8; 3] = [31, 15, 7];

/// The most characters of the compressed weights on a page, which leaves half a megabyte to everything else.
const MOST_CHARACTERS: usize = 4_400_000;

/// The weights of layers in as many shades as fit a page.
pub struct Shaded {
    /// The number of shades: a weight is (shade / shades)².
    pub shades: u8,
    /// For each layer, the lower triangles of its heads, a byte for each weight, with `deflate` and in base64.
    pub layers: Vec<String>,
}

/// Compresses the heads of each layer. With the fewest shades the page may still be too large.
pub fn shaded(layers: &[&[HeadRecord]]) -> std::io::Result<Shaded> {
    let mut found = Shaded { shades: 0, layers: vec![] };
    for shades in SHADES {
        let layers = layers.iter().map(|heads| layer(heads, shades)).collect::<std::io::Result<Vec<_>>>()?;
        found = Shaded { shades, layers };
        if found.layers.iter().map(String::len).sum::<usize>() <= MOST_CHARACTERS {
            break;
        }
    }
    Ok(found)
}

fn layer(heads: &[HeadRecord], shades: u8) -> std::io::Result<String> {
    let mut encoder = DeflateEncoder::new(vec![], Compression::default());
    for head in heads {
        for (query, row) in head.weights.iter().enumerate() {
            // The root is what the page shows: a tenth of the attention is still a third of the shade.
            let shade = |weight: &f32| (weight.clamp(0.0, 1.0).sqrt() * f32::from(shades)).round() as u8;
            encoder.write_all(&row[..=query].iter().map(shade).collect::<Vec<u8>>())?;
        }
    }
    Ok(base64(&encoder.finish()?))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::DeflateDecoder;

    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let digit = |c: u8| DIGITS.iter().position(|digit| *digit == c).unwrap();
        let bits: Vec<usize> = text.bytes().flat_map(|c| (0..6).rev().map(move |bit| digit(c) >> bit & 1)).collect();
        bits.chunks_exact(8).map(|bits| bits.iter().fold(0, |byte, bit| 2 * byte + *bit as u8)).collect()
    }

    #[test]
    fn each_weight_has_the_nearest_shade() {
        let head = |head, weights: &[&[f32]]| HeadRecord {
            layer: 3,
            head,
            weights: weights.iter().map(|row| row.to_vec()).collect(),
        };
        let heads = [head(0, &[&[1.0, 0.0], &[0.9, 0.1]]), head(1, &[&[1.0, 0.0], &[0.0, 1.0]])];
        let found = shaded(&[&heads]).unwrap();
        assert_eq!((found.shades, found.layers.len()), (31, 1));
        let mut all = vec![];
        DeflateDecoder::new(&*bytes(&found.layers[0])).read_to_end(&mut all).unwrap();
        // 31 * √0.9 = 29.4, 31 * √0.1 = 9.8.
        assert_eq!(all, [31, 29, 10, 31, 0, 31]);
    }

    /// Weights that nothing compresses get fewer shades.
    #[test]
    fn a_page_stays_small() {
        let n = 300_usize;
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        let row = |_| (0..n).map(|_| random()).collect();
        let heads = [HeadRecord { layer: 0, head: 0, weights: (0..n).map(row).collect() }];
        let layers: Vec<&[HeadRecord]> = vec![&heads; 144];
        let found = shaded(&layers).unwrap();
        assert!(found.shades < 31 && found.layers.iter().map(String::len).sum::<usize>() <= MOST_CHARACTERS);
    }
}
