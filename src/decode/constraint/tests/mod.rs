//! On tiny vocabularies, against what is known by enumeration.

mod refused;
mod schema;
mod strategies;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use regex::Regex;

use super::*;
use crate::decode::table::{hash, scrambled};
use crate::decode::{Detokenize, Engine, Event, FinishReason, Sequence, generate};
use crate::logits;

/// Token `i` has the text of `0[i]`.
struct Tokens(Vec<Vec<u8>>);

impl Detokenize for Tokens {
    fn token_bytes(&self, id: u32) -> &[u8] {
        self.0.get(id as usize).map_or(&[], Vec::as_slice)
    }
}

impl Tokens {
    fn of<T: AsRef<[u8]>>(texts: &[T]) -> Self {
        Self(texts.iter().map(|text| text.as_ref().to_vec()).collect())
    }

    fn vocabulary(&self) -> Vocabulary {
        Vocabulary::new(self.0.len(), self).unwrap()
    }

    fn text(&self, ids: &[u32]) -> Vec<u8> {
        ids.iter().flat_map(|id| self.token_bytes(*id)).copied().collect()
    }

    fn config(&self, source: &Source) -> GenerationConfig {
        let mut config = GenerationConfig { eos_token_id: vec![END], ..GenerationConfig::default() };
        match source.clone() {
            Source::Regex(regex) => config.regex = Some(regex),
            Source::Choices(choices) => config.choices = choices,
            Source::JsonSchema(schema) => config.json_schema = Some(schema),
            Source::Grammar(grammar) => config.grammar = Some(grammar),
        }
        let vocabulary = self.vocabulary();
        config.compile(|| Some(Ok(&vocabulary))).unwrap();
        config
    }
}

/// The end of text.
const END: u32 = 0;
/// `ab` twice, which is as good as once; and a token that no text over `a` and `b` has.
const LETTERS: [&str; 8] = ["", "a", "b", "ab", "ba", "ab", "c", "aa"];
/// The most tokens that are looked at, and the most bytes of a text that continues them.
const MOST: usize = 6;
const LONGEST: usize = 16;

fn regex(regex: &str) -> Source {
    Source::Regex(regex.to_owned())
}

/// All texts of up to [`LONGEST`] letters that match, and all that they begin with.
fn texts(regex: &str) -> (HashSet<Vec<u8>>, HashSet<Vec<u8>>) {
    let regex = Regex::new(&format!("^(?:{regex})$")).unwrap();
    let (mut whole, mut begun) = (HashSet::new(), HashSet::new());
    for len in 0..=LONGEST {
        for bits in 0..1_u32 << len {
            let text: Vec<u8> = (0..len).map(|i| if bits >> i & 1 == 0 { b'a' } else { b'b' }).collect();
            if regex.is_match(std::str::from_utf8(&text).unwrap()) {
                // What a known beginning begins with is known.
                (0..=len).rev().map(|len| text[..len].to_vec()).all(|text| begun.insert(text));
                whole.insert(text);
            }
        }
    }
    (whole, begun)
}

/// A small expression over `a` and `b`; `n` says which.
fn random_regex(n: u32, depth: u32) -> String {
    let pick = |salt: u32| ((hash([n, depth, salt]) + 1.0) * 1e6) as u32;
    let part = |salt| random_regex(n.wrapping_mul(31).wrapping_add(salt), depth - 1);
    match pick(0) % if depth == 0 { 2 } else { 8 } {
        0 => "a".to_owned(),
        1 => "b".to_owned(),
        2 => format!("(?:{}|{})", part(1), part(2)),
        3 => format!("(?:{})*", part(1)),
        4 => format!("(?:{})?", part(1)),
        5 => format!("(?:{}){{1,2}}", part(1)),
        6 => "[ab]".to_owned(),
        _ => format!("{}{}", part(1), part(2)),
    }
}

/// Every continuation of the prompt that matches or is cut off at [`MOST`] tokens, with its probability, by the model's
/// logits renormalised over what can lead on.
fn by_force(tokens: &Tokens, source: &str, prompt: &[u32]) -> HashMap<Vec<u32>, (f64, FinishReason)> {
    let (whole, begun) = texts(source);
    let model = scrambled(tokens.0.len(), 64, 1);
    let mut found = HashMap::new();
    let mut open = vec![(vec![], 1.0_f64)];
    while let Some((ids, prob)) = open.pop() {
        let leads_on = |id: u32| id != END && begun.contains(&[tokens.text(&ids), tokens.text(&[id])].concat());
        let is_whole = whole.contains(&tokens.text(&ids));
        let allowed: Vec<u32> =
            (0..tokens.0.len() as u32).filter(|&id| leads_on(id) || (id == END && is_whole)).collect();
        let logits = model.logits(&[prompt, &ids].concat());
        let sum: f64 = allowed.iter().map(|id| f64::from(logits[*id as usize]).exp()).sum();
        for id in allowed {
            let prob = prob * f64::from(logits[id as usize]).exp() / sum;
            let next = [&ids[..], &[id]].concat();
            let text = tokens.text(&next);
            let goes_on =
                (1..tokens.0.len() as u32).any(|id| begun.contains(&[&text[..], tokens.token_bytes(id)].concat()));
            if id == END {
                found.insert(next, (prob, FinishReason::Eos));
            } else if whole.contains(&text) && !goes_on {
                found.insert(next, (prob, FinishReason::Stop));
            } else if next.len() == MOST {
                found.insert(next, (prob, FinishReason::Length));
            } else {
                open.push((next, prob));
            }
        }
    }
    found
}

/// The same by the processors.
fn by_processors(tokens: &Tokens, config: &GenerationConfig, prompt: &[u32]) -> HashMap<Vec<u32>, f64> {
    let processors = config.processors().unwrap();
    let model = scrambled(tokens.0.len(), 64, 1);
    let mut found = HashMap::new();
    let mut open = vec![(vec![], 1.0_f64)];
    while let Some((ids, prob)) = open.pop() {
        let mut logits = model.logits(&[prompt, &ids].concat());
        processors.apply(&mut logits, &[prompt, &ids].concat(), prompt, &ids).unwrap();
        logits::log_softmax(&mut logits);
        for id in (0..tokens.0.len() as u32).filter(|&id| logits[id as usize].is_finite()) {
            let next = [&ids[..], &[id]].concat();
            let prob = prob * f64::from(logits[id as usize]).exp();
            if id == END || next.len() == MOST || processors.constraint().unwrap().ends(&next) {
                found.insert(next, prob);
            } else {
                open.push((next, prob));
            }
        }
    }
    found
}

fn run(tokens: &Tokens, prompt: &[u32], config: &GenerationConfig) -> Result<Vec<Sequence>> {
    let decoding = Arc::new(config.validate()?);
    generate(&mut scrambled(tokens.0.len(), 64, 1), tokens, prompt, &decoding, |_| ())
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-4 * a.max(b)
}

#[test]
fn what_can_be_generated_is_what_matches_with_its_renormalised_probability() {
    let tokens = Tokens::of(&LETTERS);
    let known = ["a*", "(ab|b)+", "a|ab|abb", "^ab$", "(a|ab)(b|bb)?", "a{2,3}b?", "(?:)|b", "(aa|aab|ab)*", "[ab]{3}"];
    let random = (0..40).map(|n| random_regex(n, 3));
    for source in known.iter().map(|regex| (*regex).to_owned()).chain(random) {
        let config = GenerationConfig { max_new_tokens: MOST, ..tokens.config(&regex(&source)) };
        let prompt = [1, 4, 6];
        let expected = by_force(&tokens, &source, &prompt);
        let found = by_processors(&tokens, &config, &prompt);
        assert_eq!(expected.len(), found.len(), "{source}");
        for (ids, (prob, _)) in &expected {
            assert!(found.get(ids).is_some_and(|other| close(*prob, *other)), "{source}: {ids:?} {prob}");
        }
        // By decoding itself.
        let samples = GenerationConfig { sample: true, num_return_sequences: 30, logprobs: Some(0), ..config };
        for sequence in run(&tokens, &prompt, &samples).unwrap() {
            let (prob, reason) = expected[&sequence.ids];
            assert_eq!(sequence.finish_reason, reason, "{source}: {:?}", sequence.ids);
            let is_whole = texts(&source).0.contains(&tokens.text(&sequence.ids));
            assert_eq!(sequence.is_whole, Some(is_whole), "{source}: {:?}", sequence.ids);
            let logprobs = sequence.logprobs.unwrap();
            let sum: f64 = logprobs.iter().map(|token| f64::from(token.logprob)).sum();
            assert!(close(sum.exp(), prob), "{source}: {:?} {} {prob}", sequence.ids, sum.exp());
        }
    }
}

#[test]
fn tokens_may_end_inside_a_character() {
    let halves: [&[u8]; 9] = [b"", b"\xf0", b"\x9f\x98", b"\x80", b"\x9f", b"\x98\x80", b"a\xf0\x9f", b"\xff", b"\x8e"];
    let tokens = Tokens::of(&halves);
    let constraint = tokens.vocabulary().compile(&regex("a?[😀-😎]")).unwrap();
    let allowed = |ids: &[u32]| {
        let mut scores = vec![0.0; tokens.0.len()];
        constraint.apply(&mut scores, ids, &[END]).unwrap();
        (0..tokens.0.len() as u32).filter(|id| scores[*id as usize] == 0.0).collect::<Vec<_>>()
    };
    assert_eq!(allowed(&[]), [1, 6]);
    assert_eq!(allowed(&[1]), [2, 4]);
    assert_eq!(allowed(&[1, 4]), [5]);
    assert_eq!(allowed(&[6]), [5]);
    assert_eq!(allowed(&[1, 2]), [3, 8]);
    assert_eq!(allowed(&[1, 2, 3]), [END]);
    assert_eq!(allowed(&[7]), [0; 0], "a byte of no text");
}

#[test]
fn what_is_allowed_does_not_depend_on_what_was_asked_before() {
    let tokens = Tokens::of(&LETTERS);
    let vocabulary = tokens.vocabulary();
    let shared = vocabulary.compile(&regex("(a|ab)*b")).unwrap();
    for n in 0..3000_u32 {
        let len = if n % 500 == 0 { 4000 } else { n as usize % 9 };
        let ids: Vec<u32> = (0..len as u32).map(|i| 1 + ((hash([n, i]) + 1.0) * 2.5) as u32).collect();
        let mut scores = vec![vec![0.0; tokens.0.len()]; 2];
        shared.apply(&mut scores[0], &ids, &[END]).unwrap();
        if n % 7 == 0 {
            vocabulary.compile(&regex("(a|ab)*b")).unwrap().apply(&mut scores[1], &ids, &[END]).unwrap();
            assert_eq!(scores[0], scores[1], "{ids:?}");
        }
    }
}

#[test]
fn the_end_is_allowed_where_the_text_is_complete_and_taken_where_nothing_follows() {
    let tokens = Tokens::of(&LETTERS);
    let config = tokens.config(&Source::Choices(vec!["a".into(), "ab".into()]));
    let ended = |ids: &[u32], config: &GenerationConfig| {
        let processors = config.processors().unwrap();
        processors.constraint().unwrap().ends(ids)
    };
    assert!(!ended(&[1], &config) && ended(&[1, 2], &config) && ended(&[3], &config) && ended(&[5], &config));
    let endless = GenerationConfig { ignore_eos: true, ..config };
    let found = run(&tokens, &[6], &endless).unwrap();
    assert_eq!((&found[0].text[..], found[0].finish_reason), (&b"ab"[..], FinishReason::Stop), "there is no end");
    // Of the empty text, only an end is left.
    let empty = tokens.config(&regex("(?:)"));
    assert_eq!(run(&tokens, &[6], &empty).unwrap()[0].ids, [END]);
    let error = run(&tokens, &[6], &GenerationConfig { ignore_eos: true, ..empty }).unwrap_err().to_string();
    assert!(error.contains("`regex` cannot be followed from byte 0 of the completion on"), "{error}");
}
