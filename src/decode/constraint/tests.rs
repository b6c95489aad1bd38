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
fn every_strategy_follows_it_and_every_beam_is_another_text() {
    let tokens = Tokens::of(&LETTERS);
    let long = Tokens::of(&LETTERS).config(&regex("(ab|ba){1,3}|b(aab)*"));
    let base = GenerationConfig { max_new_tokens: 12, ..long };
    let sample = GenerationConfig { sample: true, seed: Some(3), num_return_sequences: 4, ..base.clone() };
    let beams = GenerationConfig { num_beams: 4, num_return_sequences: 4, ..base.clone() };
    let whole = Regex::new("^(?:(ab|ba){1,3}|b(aab)*)$").unwrap();
    for (name, config) in [
        ("greedy", base.clone()),
        ("sampling", sample.clone()),
        ("the best", GenerationConfig { top_k: Some(1), temperature: Some(1.7), ..sample.clone() }),
        ("by mass", GenerationConfig { top_p: Some(0.3), typical_p: Some(0.9), min_p: Some(0.5), ..sample.clone() }),
        ("penalised", GenerationConfig { repetition_penalty: 1.4, frequency_penalty: 1.0, ..sample }),
        ("beams", beams.clone()),
        ("drawn beams", GenerationConfig { sample: true, ..beams.clone() }),
        ("groups", GenerationConfig { num_beam_groups: 2, diversity_penalty: Some(0.7), ..beams }),
        ("contrastive", GenerationConfig { penalty_alpha: Some(0.5), top_k: Some(5), ..base.clone() }),
        ("prompt lookup", GenerationConfig { prompt_lookup: Some(4), ..base }),
    ] {
        for prompt in [&[1][..], &[3, 4, 5, 3, 4], &[6, 2]] {
            let found = run(&tokens, prompt, &config).unwrap();
            assert!(!found.is_empty(), "{name}");
            for sequence in &found {
                let text = String::from_utf8(tokens.text(&sequence.ids)).unwrap();
                let matches = whole.is_match(&text);
                assert!(matches || sequence.finish_reason == FinishReason::Length, "{name}: {text}");
                assert_eq!(sequence.is_whole, Some(matches), "{name}: {text}");
            }
            if name == "beams" {
                let ids: HashSet<_> = found.iter().map(|sequence| sequence.ids.clone()).collect();
                assert_eq!(ids.len(), found.len());
            }
        }
    }
}

/// An assistant that always agrees guesses to the end of the text and not beyond it.
#[test]
fn assisted_decoding_finds_the_same() {
    let tokens = Tokens::of(&LETTERS);
    for source in ["ab", "(ab)*b", "a{9}", "(a|b){5}"] {
        let config = GenerationConfig { max_new_tokens: 12, ..tokens.config(&regex(source)) };
        let plain = run(&tokens, &[1, 2], &config).unwrap();
        let decoding = Arc::new(GenerationConfig { assistant: true, ..config }.validate().unwrap());
        for seed in [1, 2] {
            let (mut model, mut assistant) = (scrambled(8, 64, 1), scrambled(8, 64, seed));
            let engine = Engine::new(&mut model, &tokens);
            let mut engine = engine.with_assistant(&mut assistant).unwrap();
            engine.submit(&[1, 2], &decoding).unwrap();
            let mut found = None;
            while found.is_none() {
                found = engine.step().unwrap().into_iter().find_map(|event| match event {
                    Event::Finished { result, .. } => Some(result.unwrap()),
                    _ => None,
                });
            }
            let found: Vec<_> = found.unwrap().into_iter().map(|it| Sequence { guesses: None, ..it }).collect();
            assert_eq!(found, plain, "{source}");
        }
    }
}

#[test]
fn beams_find_all_of_a_few_texts_in_order() {
    let tokens = Tokens::of(&LETTERS);
    let choices = ["ab", "aba", "b", "bbbb"].map(str::to_owned);
    let prompt = [1, 4, 6];
    let mut expected: Vec<_> = by_force(&tokens, "ab|aba|b|bbbb", &prompt).into_iter().collect();
    expected.sort_by(|(_, (a, _)), (_, (b, _))| b.total_cmp(a));
    let config = GenerationConfig {
        num_beams: 32,
        num_return_sequences: 32,
        length_penalty: Some(0.0),
        early_stopping: Some(crate::decode::EarlyStopping::Never),
        max_new_tokens: MOST,
        ..tokens.config(&Source::Choices(choices.to_vec()))
    };
    let found = run(&tokens, &prompt, &config).unwrap();
    assert_eq!(found.len(), expected.len(), "those that there are, and no more");
    // The score is that of the model, which is not renormalised.
    let mut found: Vec<_> = found.into_iter().map(|sequence| sequence.ids).collect();
    let mut expected: Vec<_> = expected.into_iter().map(|(ids, _)| ids).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
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

#[test]
fn where_no_token_leads_on_is_said() {
    let tokens = Tokens::of(&["", "ab", "b"]);
    let error = tokens.vocabulary().compile(&regex("a+")).unwrap_err().to_string();
    let why = "no token of the vocabulary leads on";
    assert_eq!(error, format!("`regex` cannot be followed from byte 0 of the completion on: {why}"));
    // After the first token, what must follow has none.
    for config in [
        tokens.config(&regex("aba")),
        GenerationConfig { num_beams: 3, ..tokens.config(&regex("aba")) },
        GenerationConfig {
            num_beams: 4,
            num_beam_groups: 2,
            diversity_penalty: Some(1.0),
            ..tokens.config(&regex("aba"))
        },
        GenerationConfig { sample: true, ..tokens.config(&regex("aba")) },
    ] {
        let error = run(&tokens, &[1], &config).unwrap_err().to_string();
        assert_eq!(error, format!("`regex` cannot be followed from byte 2 of the completion on: {why}"));
    }
}

#[test]
fn what_is_no_constraint_is_refused_by_name() {
    let tokens = Tokens::of(&LETTERS);
    let vocabulary = tokens.vocabulary();
    let refused = |source: Source| vocabulary.compile(&source).unwrap_err().to_string();
    for (source, fault) in [
        ("(", "`regex` is not a regular expression: unclosed group (at byte 0)"),
        (r"a(?=b)", "look-around, including look-ahead and look-behind, is not supported (at byte 1)"),
        (r"(a)\1", "backreferences are not supported"),
        (r"a\bb", "`regex` looks at what is around a place"),
        (r"(?-u:\xff)", "pattern can match invalid UTF-8"),
        ("[a&&b]", "from byte 0 of the completion on: no token"),
    ] {
        let error = refused(regex(source));
        assert!(error.contains(fault) && !error.contains('\n'), "{error}");
    }
    for (grammar, fault) in [
        ("start: b", "unknown name: \"b\""),
        ("a: \"b\"", "no start rule"),
        ("start: start \"a\"", "from byte 0 of the completion on: no token"),
        ("start: <|endoftext|>", "`grammar` is not a grammar"),
        ("start: (((", "`grammar` is not a grammar"),
    ] {
        let error = refused(Source::Grammar(grammar.to_owned()));
        assert!(error.contains(fault) && !error.contains('\n'), "{error}");
    }
    let deep = refused(regex(&("(".repeat(9000) + &")".repeat(9000))));
    assert!(deep.contains("nested too deeply"), "{deep}");
    let long = refused(Source::Grammar("#".repeat(2 << 20)));
    assert!(long.contains("has 2097152 bytes"), "{long}");
}

#[test]
fn left_recursion_is_followed() {
    let tokens = Tokens::of(&LETTERS);
    let grammar = Source::Grammar("start: start \"b\" | \"a\"".to_owned());
    let constraint = tokens.vocabulary().compile(&grammar).unwrap();
    let mut scores = vec![0.0; tokens.0.len()];
    constraint.apply(&mut scores, &[3], &[END]).unwrap();
    assert_eq!(
        scores.iter().map(|score| *score == 0.0).collect::<Vec<_>>(),
        [true, false, true, false, false, false, false, false]
    );
}

#[test]
fn only_one_constraint_at_a_time() {
    let both = GenerationConfig { regex: Some("a".into()), choices: vec!["b".into()], ..GenerationConfig::default() };
    let error = both.check().unwrap_err().to_string();
    assert_eq!(error, "`choices` cannot be combined with `regex`: leave one of them out");
    // A row's own takes the place of that for all rows.
    let row = serde_json::json!({"choices": ["x"]});
    let all = GenerationConfig { regex: Some("a".into()), ..GenerationConfig::default() };
    let own = all.with_json(row.as_object().unwrap()).unwrap();
    assert_eq!((own.regex, own.choices), (None, vec!["x".to_owned()]));
    let error = GenerationConfig { regex: Some(" ".into()), ..GenerationConfig::default() }.check().unwrap_err();
    assert_eq!(error.to_string(), "`regex` is empty");
    let mut none = GenerationConfig { regex: Some("a".into()), ..GenerationConfig::default() };
    let error = none.compile(|| None).unwrap_err();
    assert_eq!(error.to_string(), "`regex` needs a tokenizer, and the model has none");
}
