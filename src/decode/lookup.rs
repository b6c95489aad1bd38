//! Prompt lookup: guessing the next tokens from the text itself.
//!
//! Reference: transformers 5.23.0, `PromptLookupCandidateGenerator`; Saxena 2023, "Prompt Lookup Decoding".

/// The lengths of n-grams to look for unless asked otherwise. A single token is too common to predict what follows it.
const NGRAMS: (usize, usize) = (2, 4);

/// Up to `most` tokens that followed an earlier occurrence of the last n-gram of `ids`; empty if there is no such
/// occurrence. The latest occurrence followed by enough tokens is used, of the longest n-gram that there is; `longest`
/// limits it, and then a single token will do, too.
pub(super) fn lookup(ids: &[u32], most: usize, longest: Option<usize>) -> &[u32] {
    let (shortest, longest) = longest.map_or(NGRAMS, |longest| (1, longest));
    for n in (shortest..=longest.min(ids.len().saturating_sub(1))).rev() {
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
        assert_eq!(lookup(&[1, 2, 3, 9, 1, 2, 4, 9, 1, 2], 2, None), [4, 9], "the latest occurrence");
        assert_eq!(lookup(&[5, 1, 2, 7, 9, 1, 2, 8, 5, 1, 2], 1, None), [7], "the longest n-gram");
        assert_eq!(lookup(&[6, 6, 6, 6, 6, 6, 6, 6], 3, None), [6, 6, 6], "the latest one followed by enough tokens");
        assert_eq!(lookup(&[1, 2, 1, 2], 9, None), [1, 2]);
        assert_eq!(lookup(&[5, 1, 2, 7, 9, 1, 2, 8, 5, 1, 2], 1, Some(2)), [8], "the longest that is allowed");
        assert_eq!(lookup(&[1, 2, 3, 1], 2, Some(2)), [2, 3], "a single token");
    }

    #[test]
    fn guesses_nothing_without_an_earlier_occurrence() {
        assert!(lookup(&[], 3, None).is_empty());
        assert!(lookup(&[1], 3, None).is_empty());
        assert!(lookup(&[1, 1], 3, None).is_empty());
        assert!(lookup(&[1, 2, 3, 1], 3, None).is_empty());
        assert!(lookup(&[1, 2, 1, 2], 0, None).is_empty());
    }
}
