use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString};

use super::translated;
use crate::tokenizer::library::budget::Budget;
use crate::tokenizer::library::steps::Steps;

/// What the library makes of texts; see the script beside the file.
#[derive(Deserialize)]
struct Library {
    texts: Vec<String>,
    /// For each pattern and text, the ends of the pieces; those of matches are negative.
    patterns: BTreeMap<String, Vec<Vec<i64>>>,
    splits: Vec<Splits>,
}

/// Pattern, behavior, whether it is inverted, text, and the pieces.
type Splits = (String, String, bool, String, Vec<(usize, usize)>);

fn library() -> Library {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tokenizer/patterns.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The pieces of a text, in characters.
fn pieces(steps: &Steps, text: &str) -> Vec<(usize, usize)> {
    let mut split = PreTokenizedString::from(text);
    steps.pre_tokenize(&mut split, 0, &Budget::new(text.len())).unwrap();
    split.get_splits(OffsetReferential::Original, OffsetType::Char).into_iter().map(|(_, place, _)| place).collect()
}

fn steps(pattern: &str, behavior: &str, invert: bool) -> Result<Steps, String> {
    let split = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert});
    let Value::Object(parts) = json!({"pre_tokenizer": split}) else { unreachable!("it is an object") };
    Steps::new(&parts, &Budget::of_file(1000))
}

#[test]
fn patterns_match_as_in_the_library() {
    let Library { texts, patterns, .. } = library();
    for (pattern, expected) in patterns {
        let all = steps(&pattern, "Isolated", false).unwrap();
        let matching = steps(&pattern, "Removed", true).unwrap();
        for (text, expected) in texts.iter().zip(expected) {
            let matching = pieces(&matching, text);
            let signed = |place: &(usize, usize)| place.1 as i64 * if matching.contains(place) { -1 } else { 1 };
            let found: Vec<i64> = pieces(&all, text).iter().map(signed).collect();
            assert_eq!(found, expected, "{pattern:?} in {text:?}");
        }
    }
}

#[test]
fn pieces_are_split_as_by_the_library() {
    for (pattern, behavior, invert, text, expected) in library().splits {
        let behavior = match behavior.as_str() {
            "removed" => "Removed",
            "isolated" => "Isolated",
            "merged_with_previous" => "MergedWithPrevious",
            "merged_with_next" => "MergedWithNext",
            _ => "Contiguous",
        };
        let found = pieces(&steps(&pattern, behavior, invert).unwrap(), &text);
        assert_eq!(found, expected, "{pattern:?} {behavior} {invert} in {text:?}");
    }
}

/// The engine would take most of these for something else than the library does.
#[test]
fn what_the_engine_would_read_otherwise_is_named() {
    for (pattern, part) in [
        (r"\pL", r"`\p` without braces"),
        (r"\p{Word}", r"`\p{Word}`"),
        (r"\Ga", r"`\G`"),
        (r"a\K", r"`\K`"),
        (r"\X", r"`\X`"),
        (r"\U00000061", r"`\U`"),
        (r"\012", r"`\0`"),
        (r"(a)\10", r"`\1`"),
        (r"\x{61 62}", r"`\x` without"),
        ("(?i)ss", "`ss` in any case"),
        ("(?i)(?:a|s)t", "`st` in any case"),
        ("(?i:ß)", "`ß` in any case"),
        (r"(?i)[\p{L}]", "a class of letters in any case"),
        ("[a-z--b]", "a `-` in a class"),
        ("[[:alpha:]-z]", "a `-` in a class"),
        ("[[:alpha]]", "none of POSIX's"),
        ("[b-a]", "ends before it begins"),
        ("[a", "a `[` without its `]`"),
        ("(a", "a `(` without its `)`"),
        ("a)", "a `)` without its `(`"),
        ("a\\", "a backslash at its end"),
        ("*a", "a `*` after nothing"),
        ("^*a", "a repetition of a place"),
        ("a+*", "a repetition of a repetition"),
        ("a{3,1}", "`{3,1}`"),
        ("(?~a)", "`(?~`"),
        ("(?\x1ba)", r"`(?\u{1b}`"),
        ("(?P<n>a)", "`(?P`"),
        ("(?<1>a)", "a group whose name"),
        ("(?(1)a)", "`(?(`"),
        ("(*FAIL)", "`(*`"),
        (&"(".repeat(100_000), "more than 40 groups"),
        (&"[".repeat(100_000), "too many classes"),
    ] {
        let error = translated(pattern).unwrap_err();
        assert!(error.contains(part), "{pattern:?}: {error}");
    }
}
