//! Prompt lookup: guessing the next tokens from the text itself.
//!
//! Reference: transformers 5.23.0, `PromptLookupCandidateGenerator`; Saxena 2023, "Prompt Lookup Decoding".

/// The lengths of n-grams to look for, longest first. A single token is too common to predict what follows it.
const NGRAMS: [usize; 3] = [4, 3, 2];

/// Up to `most` tokens that followed an earlier occurrence of the last n-gram of `ids`; empty if there is no such
/// occurrence. The latest occurrence followed by enough tokens is used.
pub(super) fn lookup(ids: &[u32], most: usize) -> &[u32] {
    for n in NGRAMS.into_iter().filter(|&n| n < ids.len()) {
        let (earlier, last) = (&ids[..ids.len() - 1], &ids[ids.len() - n..]);
        let mut longest: &[u32] = &[];
        for start in (0..=earlier.len() - n).rev().filter(|&start| earlier[start..start + n] == *last) {
            let follows = &ids[start + n..];
            longest = &follows[..most.min(follows.len())];
            if longest.len() == most {
                break;
            }
        }
        if !longest.is_empty() {
            return longest;
        }
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::lookup;

    #[test]
    fn guesses_what_followed_last_time() {
        assert_eq!(lookup(&[1, 2, 3, 9, 1, 2, 4, 9, 1, 2], 2), [4, 9], "the latest occurrence");
        assert_eq!(lookup(&[5, 1, 2, 7, 9, 1, 2, 8, 5, 1, 2], 1), [7], "the longest n-gram");
        assert_eq!(lookup(&[6, 6, 6, 6, 6, 6, 6, 6], 3), [6, 6, 6], "the latest one followed by enough tokens");
        assert_eq!(lookup(&[1, 2, 1, 2], 9), [1, 2]);
    }

    #[test]
    fn guesses_nothing_without_an_earlier_occurrence() {
        assert!(lookup(&[], 3).is_empty());
        assert!(lookup(&[1], 3).is_empty());
        assert!(lookup(&[1, 1], 3).is_empty());
        assert!(lookup(&[1, 2, 3, 1], 3).is_empty());
        assert!(lookup(&[1, 2, 1, 2], 0).is_empty());
    }
}
