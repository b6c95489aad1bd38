//! Patterns of components that split or replace, run within a budget. The library itself ends the search without a word
//! where its engine gives up.

use fancy_regex::{Assertion, Expr, Match, Regex, RegexBuilder};
use serde::Deserialize;
use tokenizers::pattern::Pattern as LibraryPattern;

use super::budget::Budget;
use super::dialect::translated;
use crate::tokenizer::vocabulary::shown;
use crate::tokenizer::words::words;

/// A pattern as a file writes it.
#[derive(Deserialize)]
pub(super) enum Source {
    /// This text.
    String(String),
    /// A regular expression.
    Regex(String),
}

/// A pattern that has been read.
pub(super) struct Parsed {
    source: Source,
    /// A regular expression for the engine, and its tree.
    expression: Option<(String, Expr)>,
}

impl Source {
    /// Reads the pattern.
    pub fn parse(self) -> Result<Parsed, String> {
        let expression = match &self {
            Self::String(_) => None,
            Self::Regex(source) => {
                let expression = translated(source).map_err(|part| {
                    format!("the regular expression {} has {part}, which is not supported", shown(source))
                })?;
                let tree = Expr::parse_tree(&expression).map_err(|_| invalid(source))?;
                Some((expression, tree.expr))
            }
        };
        Ok(Parsed { source: self, expression })
    }
}

fn invalid(source: &str) -> String {
    format!("the regular expression {} is not valid, or too large", shown(source))
}

impl Parsed {
    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        match &self.source {
            Source::String(text) | Source::Regex(text) => text,
        }
    }

    /// How large a regular expression is: the number of characters that it matches, without `*` and `+`, which is the
    /// measure of the memory that it takes.
    pub fn weight(&self) -> usize {
        self.expression.as_ref().map_or(0, |(_, tree)| weight(tree))
    }

    /// Whether a match may be empty.
    pub fn may_be_empty(&self) -> bool {
        match &self.expression {
            None => self.as_str().is_empty(),
            Some((_, tree)) => may_be_empty(tree),
        }
    }

    /// Compiles the pattern.
    pub fn compile(self) -> Result<Pattern, String> {
        /// How often one search may backtrack. Each time, it may run over the rest of the text.
        const BACKTRACKS: usize = 2000;
        /// The largest automaton of a part of a regular expression, in bytes.
        const AUTOMATON: usize = 10 << 20;
        let compiled = |expression: &str| {
            let mut builder = RegexBuilder::new(expression);
            builder.backtrack_limit(BACKTRACKS).delegate_size_limit(AUTOMATON);
            builder.build().map_err(|_| invalid(self.as_str()))
        };
        match &self.expression {
            None => Ok(Pattern::Text(self.as_str().to_owned())),
            Some((expression, tree)) if any(tree, &is_hard) => {
                let at_each = Box::new(compiled(&format!("(?:{expression})|((?s:.))"))?);
                Ok(Pattern::Backtracking { regex: compiled(expression)?, at_each })
            }
            Some((expression, _)) => compiled(expression).map(Pattern::Linear),
        }
    }
}

/// A pattern to search for.
pub(super) enum Pattern {
    Text(String),
    /// A regular expression without look-around and back references: a search takes linear time.
    Linear(Regex),
    /// A regular expression that may backtrack.
    Backtracking {
        regex: Regex,
        /// The same, or else any character, which is the last group. Where the limit of backtracking is too small for a
        /// long text without a match, it is tried at one position after the other.
        at_each: Box<Regex>,
    },
}

impl Pattern {
    /// The next match from `start`, as byte offsets in `text`.
    fn next(&self, text: &str, start: usize, budget: &Budget) -> Result<Option<(usize, usize)>, String> {
        let gives_up = |_| format!("its pattern backtracks too often or too far in {} bytes of text", text.len());
        let range = |found: Option<Match<'_>>| found.map(|found| (found.start(), found.end()));
        match self {
            Self::Text(pattern) => {
                // A search prepares itself in the time that its pattern takes to read.
                let rest = text.get(start..).filter(|rest| pattern.len() <= rest.len());
                let at = rest.and_then(|rest| rest.find(pattern.as_str()));
                Ok(at.map(|at| (start + at, start + at + pattern.len())))
            }
            Self::Linear(regex) => regex.find_from_pos(text, start).map(range).map_err(gives_up),
            Self::Backtracking { regex, at_each } => {
                if let Ok(found) = regex.find_from_pos(text, start) {
                    return Ok(range(found));
                }
                let mut at = start;
                loop {
                    budget.check_time()?;
                    let Some(found) = at_each.captures_from_pos(text, at).map_err(gives_up)? else { return Ok(None) };
                    match found.get(found.len() - 1) {
                        Some(other) => at = other.end(),
                        None => return Ok(range(found.get(0))),
                    }
                }
            }
        }
    }

    /// Calls `visit` with the matches in `text`, without empty ones right after another match.
    pub fn matches(
        &self,
        text: &str,
        budget: &Budget,
        mut visit: impl FnMut(usize, usize) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut start = 0;
        let mut last = None;
        while start <= text.len() {
            let Some((from, to)) = self.next(text, start, budget)? else { break };
            budget.check_time()?;
            if from < to {
                start = to;
            } else {
                start = to + text[to..].chars().next().map_or(1, char::len_utf8);
                if last == Some(to) {
                    continue;
                }
            }
            last = Some(to);
            visit(from, to)?;
        }
        Ok(())
    }
}

/// Whether a part of an expression needs the engine that backtracks.
fn is_hard(part: &Expr) -> bool {
    use Assertion::{EndLine, EndText, StartLine, StartText};
    let is_of_parts = matches!(part, Expr::Concat(_) | Expr::Alt(_) | Expr::Group(_) | Expr::Repeat { .. });
    let is_plain = matches!(part, Expr::Empty | Expr::Any { .. } | Expr::Literal { .. } | Expr::Delegate { .. });
    let is_anchor = matches!(part, Expr::Assertion(StartText | EndText | StartLine { .. } | EndLine { .. }));
    !(is_of_parts || is_plain || is_anchor)
}

/// The parts of an expression.
fn parts(expression: &Expr) -> Vec<&Expr> {
    match expression {
        Expr::Concat(parts) | Expr::Alt(parts) => parts.iter().collect(),
        Expr::Group(part) | Expr::LookAround(part, _) | Expr::AtomicGroup(part) => vec![part],
        Expr::Repeat { child, .. } => vec![child],
        _ => vec![],
    }
}

/// Whether `is` holds for an expression or something in it.
fn any(expression: &Expr, is: &dyn Fn(&Expr) -> bool) -> bool {
    is(expression) || parts(expression).into_iter().any(|part| any(part, is))
}

fn weight(expression: &Expr) -> usize {
    let within: usize = parts(expression).into_iter().map(weight).fold(0, usize::saturating_add);
    match expression {
        Expr::Repeat { lo, hi: usize::MAX, .. } => within.saturating_mul((*lo).max(1)),
        Expr::Repeat { hi, .. } => within.saturating_mul((*hi).max(1)),
        Expr::Literal { val, .. } => val.len(),
        _ => within.saturating_add(1),
    }
}

fn may_be_empty(expression: &Expr) -> bool {
    match expression {
        Expr::Any { .. } | Expr::Literal { .. } => false,
        Expr::Delegate { size, .. } => *size == 0,
        Expr::Concat(parts) => parts.iter().all(may_be_empty),
        Expr::Alt(parts) => parts.iter().any(may_be_empty),
        Expr::Group(part) | Expr::AtomicGroup(part) => may_be_empty(part),
        Expr::Repeat { child, lo, .. } => *lo == 0 || may_be_empty(child),
        _ => true,
    }
}

/// A pattern within a budget, as the library's functions take it.
pub(super) struct Bounded<'a> {
    pub pattern: &'a Pattern,
    pub budget: &'a Budget,
    /// The length of what replaces each match, if something does. Then matches are not empty.
    pub content: Option<usize>,
    /// Bytes of the text that are in other pieces.
    pub elsewhere: usize,
}

impl LibraryPattern for Bounded<'_> {
    fn find_matches(&self, inside: &str) -> tokenizers::Result<Vec<((usize, usize), bool)>> {
        if inside.is_empty() {
            return Ok(vec![((0, 0), false)]);
        }
        let mut found = vec![];
        let mut done = 0;
        let mut size = self.elsewhere + inside.len();
        self.pattern.matches(inside, self.budget, |start, end| {
            if let Some(content) = self.content {
                if start == end {
                    return Err("the pattern matches the empty string".into());
                }
                size = size.saturating_add(content) - (end - start);
                self.budget.check_size(size.saturating_sub(inside.len() - end))?;
            }
            found.extend((done < start).then_some(((done, start), false)));
            found.push(((start, end), true));
            done = end;
            Ok(())
        })?;
        found.extend((done < inside.len()).then_some(((done, inside.len()), false)));
        Ok(found)
    }
}

/// GPT-2's words, as the library's functions take a pattern.
pub(super) struct Words;

impl LibraryPattern for Words {
    fn find_matches(&self, inside: &str) -> tokenizers::Result<Vec<((usize, usize), bool)>> {
        let mut end = 0;
        let word = |word: &str| {
            let start = end;
            end += word.len();
            ((start, end), true)
        };
        Ok(words(inside).map(word).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    fn regex(source: &str) -> Source {
        Source::Regex(source.to_owned())
    }

    fn matches(pattern: &Pattern, text: &str) -> Result<Vec<(usize, usize)>, String> {
        let mut found = vec![];
        pattern.matches(text, &Budget::new(text.len()), |start, end| {
            found.push((start, end));
            Ok(())
        })?;
        Ok(found)
    }

    const PATTERNS: [&str; 17] = [
        "a",
        "a*",
        "a+b|b",
        "^|c$",
        "(?m)^a",
        r"\b",
        "(?=b)",
        "(?<=a)b|é",
        "(?<!a)b",
        r"(a|é)\1",
        "(?>a+)b",
        r"\w\b",
        "(?<=^)a",
        "(?x)a+(?!b) # not b",
        r"\s+(?!\S)|\s+",
        r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn matches_are_those_of_the_engine(text in "[ab1é \n]{0,12}|a{0,40}b?") {
            for source in PATTERNS {
                let expected = Regex::new(&translated(source).unwrap()).unwrap();
                let expected: Vec<_> =
                    expected.find_iter(&text).map(|found| found.map(|found| (found.start(), found.end())).unwrap()).collect();
                let pattern = regex(source).parse().unwrap().compile().unwrap();
                prop_assert_eq!(matches(&pattern, &text).unwrap(), &expected[..], "{} in {:?}", source, text);
                if let Pattern::Backtracking { at_each, .. } = pattern {
                    // As if the limit of backtracking were always too small.
                    let never = RegexBuilder::new("(?:(?=x)|(?=y))x").backtrack_limit(0).build().unwrap();
                    prop_assume!(never.find_from_pos(&text, 0).is_err());
                    let pattern = Pattern::Backtracking { regex: never, at_each };
                    prop_assert_eq!(matches(&pattern, &text).unwrap(), expected, "{} in {:?}", source, text);
                }
            }
        }
    }

    #[test]
    fn texts_are_patterns_too() {
        let pattern = |text: &str| Source::String(text.to_owned()).parse().unwrap().compile().unwrap();
        assert_eq!(matches(&pattern("aa"), "aaaéaa").unwrap(), [(0, 2), (5, 7)]);
        assert_eq!(matches(&pattern(".*"), "a.*").unwrap(), [(1, 3)]);
    }

    #[test]
    fn what_may_be_empty_is_known() {
        let may_be_empty = |source: Source| source.parse().unwrap().may_be_empty();
        for source in ["", "^", "$", r"\b", "a*", "a?", "(?=a)", "(a|)", "(?:a*)+", r"(a)?\1", "a{0,3}"] {
            assert!(may_be_empty(regex(source)), "{source}");
        }
        for source in ["a", "a+", "[ab]", r"\s+", "^a", "(?=b)b", "a|b", "(?i)a", ".", "a{2}", "(?<=a)b"] {
            assert!(!may_be_empty(regex(source)), "{source}");
        }
        assert!(may_be_empty(Source::String(String::new())));
        assert!(!may_be_empty(Source::String("^".into())));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (source, words) in [
            ("(", "\"(\" has a `(` without"),
            (r"(?<x>a)\g<x>", r"has `\g`, which is not"),
            ("a{9999999}", "not valid, or too large"),
        ] {
            let error = regex(source).parse().and_then(Parsed::compile).err().unwrap();
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(regex(r"\p{L}{3}(?:a|[bc]*){100,200}").parse().unwrap().weight(), 1 + 3 + 200 * (1 + 1 + 1));
    }

    /// Whatever the pattern, a search ends soon after its time.
    #[test]
    fn time_is_limited() {
        let text = "a".repeat(30_000);
        for source in ["(?=a*b)a", "a*b|a", "(?!x)(?:a|a)*b", "(?=(a+)+$)b", "(?!a*b)x"] {
            let start = Instant::now();
            let budget = Budget::of_time(text.len(), Duration::from_millis(100));
            let error =
                regex(source).parse().unwrap().compile().unwrap().matches(&text, &budget, |_, _| Ok(())).unwrap_err();
            assert!(error.contains("30000 bytes of text"), "{error}");
            assert!(start.elapsed() < Duration::from_secs(60), "{source}: {:?}", start.elapsed());
        }
    }
}
