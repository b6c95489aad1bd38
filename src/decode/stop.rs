//! When a sequence ends, and which part of its text is shown.
//!
//! A stop string ends generation when the newest token completes it. It may span tokens and begin or end anywhere inside
//! one. Only the generated text is searched. The text is cut before the stop string; the ids keep every token.
//! (transformers does not cut the text.)

use serde::Serialize;

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// An end-of-sequence token was generated.
    Eos,
    /// The maximum number of tokens was generated.
    Length,
    /// A stop string was completed, or the constraint allows nothing more.
    Stop,
    /// The model's context is full.
    Context,
    /// The caller ended it, as on Ctrl-C.
    Interrupted,
}

/// Converts token ids to text, as far as decoding needs it.
pub trait Detokenize {
    /// The bytes that the token adds to the text; empty for special tokens and ids outside the vocabulary.
    fn token_bytes(&self, id: u32) -> &[u8];
}

/// For runs on ids only: tokens have no text.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoText;

impl Detokenize for NoText {
    fn token_bytes(&self, _: u32) -> &[u8] {
        &[]
    }
}

/// The rules by which a sequence ends before it reaches a limit.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct StopRules {
    /// Tokens that end a sequence.
    pub eos_token_id: Vec<u32>,
    /// Texts that end a sequence, none of them empty.
    pub stop_strings: Vec<String>,
}

/// The end of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Finish {
    pub reason: FinishReason,
    /// The number of bytes of generated text before the stop string, if there was one.
    pub text_end: Option<usize>,
}

impl From<FinishReason> for Finish {
    fn from(reason: FinishReason) -> Self {
        Self { reason, text_end: None }
    }
}

impl StopRules {
    /// Whether the newest of the `generated` tokens ends the sequence.
    pub(crate) fn check(&self, generated: &[u32], text: &dyn Detokenize) -> Option<Finish> {
        let (newest, before) = generated.split_last()?;
        if self.eos_token_id.contains(newest) {
            return Some(FinishReason::Eos.into());
        }
        let longest = self.stop_strings.iter().map(String::len).max()?;
        // How far back a stop string that ends in the newest token can reach.
        let mut from = before.len();
        let mut reach = 0;
        while from > 0 && reach + 1 < longest {
            from -= 1;
            reach += text.token_bytes(before[from]).len();
        }
        let tail = bytes(&generated[from..], text);
        let before_newest = tail.len() - text.token_bytes(*newest).len();
        let start_of = |stop: &String| {
            // Whatever is complete without the newest token would have ended the sequence before.
            let first = (before_newest + 1).saturating_sub(stop.len());
            find(&tail[first..], stop.as_bytes()).map(|start| first + start)
        };
        let start = self.stop_strings.iter().filter_map(start_of).min()?;
        let text_end = bytes(&generated[..from], text).len() + start;
        Some(Finish { reason: FinishReason::Stop, text_end: Some(text_end) })
    }

    /// How many bytes at the end of `text` may begin a stop string and so are not shown yet.
    fn held_back(&self, text: &[u8]) -> usize {
        let begins = |stop: &String| {
            let stop = stop.as_bytes();
            (1..stop.len().min(text.len() + 1)).rev().find(|&n| text.ends_with(&stop[..n])).unwrap_or(0)
        };
        self.stop_strings.iter().map(begins).max().unwrap_or(0)
    }
}

/// The text of `ids`.
pub(crate) fn bytes(ids: &[u32], text: &dyn Detokenize) -> Vec<u8> {
    ids.iter().flat_map(|&id| text.token_bytes(id)).copied().collect()
}

/// The first position of `needle` in `haystack`.
fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Text on its way to the reader. A possible stop string is held back until it is complete or ruled out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outflow {
    /// Bytes handed out.
    shown: usize,
    waiting: Vec<u8>,
}

impl Outflow {
    /// Takes the bytes of the next token and returns what can be shown now. `finish` is set if the sequence ends here, and
    /// says where its text ends.
    pub(crate) fn push(&mut self, bytes: &[u8], rules: &StopRules, finish: Option<Finish>) -> Vec<u8> {
        self.waiting.extend_from_slice(bytes);
        let ready = match finish {
            None => self.waiting.len() - rules.held_back(&self.waiting),
            Some(Finish { text_end: None, .. }) => self.waiting.len(),
            Some(Finish { text_end: Some(end), .. }) => end.saturating_sub(self.shown).min(self.waiting.len()),
        };
        self.shown += ready;
        self.waiting.drain(..ready).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Tokens 0 to 7; the last one is special.
    struct Pieces;

    impl Detokenize for Pieces {
        fn token_bytes(&self, id: u32) -> &[u8] {
            [&b"a"[..], b"b", b"ab", b"\n", b"\n\n", b"\xc3", b"\xa9", b""].get(id as usize).unwrap_or(&&b""[..])
        }
    }

    fn rules(stops: &[&str]) -> StopRules {
        StopRules { eos_token_id: vec![7, 50256], stop_strings: stops.iter().map(|s| (*s).to_owned()).collect() }
    }

    fn stop_at(text_end: usize) -> Option<Finish> {
        Some(Finish { reason: FinishReason::Stop, text_end: Some(text_end) })
    }

    #[test]
    fn a_stop_string_may_span_tokens_and_end_inside_one() {
        assert_eq!(rules(&["ba"]).check(&[0, 1], &Pieces), None);
        assert_eq!(rules(&["ba"]).check(&[0, 1, 2], &Pieces), stop_at(1), "a b [ab]: ba is complete in the middle");
        assert_eq!(rules(&["\n\n"]).check(&[0, 3, 3], &Pieces), stop_at(1));
        assert_eq!(rules(&["\n"]).check(&[1, 4], &Pieces), stop_at(1));
        assert_eq!(rules(&["é"]).check(&[2, 5], &Pieces), None);
        assert_eq!(rules(&["é"]).check(&[2, 5, 6], &Pieces), stop_at(2));
    }

    #[test]
    fn text_is_cut_at_the_earliest_stop_string() {
        assert_eq!(rules(&["b\n", "ab\n"]).check(&[1, 0, 1, 3], &Pieces), stop_at(1));
    }

    #[test]
    fn eos_ends_and_wins_over_text() {
        assert_eq!(rules(&["a"]).check(&[1, 7], &Pieces), Some(FinishReason::Eos.into()));
        assert_eq!(rules(&[]).check(&[1, 50256], &Pieces), Some(FinishReason::Eos.into()));
        assert_eq!(rules(&[]).check(&[1], &Pieces), None);
        assert_eq!(rules(&["a"]).check(&[], &Pieces), None);
    }

    proptest! {
        #[test]
        fn what_is_shown_is_the_text_before_the_first_stop_string(
            ids in proptest::collection::vec(0u32..7, 1..30),
            stops in proptest::collection::vec(prop_oneof![Just("ab"), Just("b\n"), Just("\n\na"), Just("aba"), Just("é")], 0..3),
        ) {
            let rules = rules(&stops);
            let (mut shown, mut outflow) = (vec![], Outflow::default());
            let mut end = ids.len();
            let mut finish = None;
            for n in 1..=ids.len() {
                finish = rules.check(&ids[..n], &Pieces).or((n == ids.len()).then_some(FinishReason::Length.into()));
                shown.extend(outflow.push(Pieces.token_bytes(ids[n - 1]), &rules, finish));
                if finish.is_some() {
                    end = n;
                    break;
                }
                let all = bytes(&ids[..n], &Pieces);
                prop_assert!(stops.iter().all(|s| find(&all, s.as_bytes()).is_none()), "missed in {:?}", all);
            }
            let all = bytes(&ids[..end], &Pieces);
            let cut = stops.iter().filter_map(|s| find(&all, s.as_bytes())).min();
            prop_assert_eq!(finish.unwrap().text_end, cut);
            prop_assert_eq!(&shown, &all[..cut.unwrap_or(all.len())]);
        }
    }
}
