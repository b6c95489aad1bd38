//! Patterns of components that split or replace, run within a budget. The library itself ends the search without a word
//! where its engine gives up.

use fancy_regex::{Assertion, Expr, Match, Regex, RegexBuilder};
use serde::Deserialize;
use tokenizers::pattern::Pattern as LibraryPattern;

use super::budget::Budget;
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

impl Source {
    pub fn as_str(&self) -> &str {
        match self {
            Self::String(text) | Self::Regex(text) => text,
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
    /// A regular expression that knows where the last match ended (`\G`), so that it cannot be tried in between.
    Continuing(Regex),
}

impl Pattern {
    /// How often one search may backtrack. Each time, it may run over the rest of the text.
    const BACKTRACKS: usize = 2000;
    /// The largest automaton of a part of a regular expression, in bytes.
    const AUTOMATON: usize = 10 << 20;

    /// Compiles a pattern.
    pub fn new(source: Source) -> Result<Self, String> {
        let source = match source {
            Source::String(text) => return Ok(Self::Text(text)),
            Source::Regex(source) => source,
        };
        let unreadable = || format!("the regular expression {} is not valid, or too large", shown(&source));
        let compiled = |source: &str| {
            let mut builder = RegexBuilder::new(source);
            builder.backtrack_limit(Self::BACKTRACKS).delegate_size_limit(Self::AUTOMATON);
            builder.build().ok()
        };
        let expression = Expr::parse_tree(&source).map_err(|_| unreadable())?.expr;
        if any(&expression, &|part| {
            matches!(part, Expr::SubroutineCall(_) | Expr::UnresolvedNamedSubroutineCall { .. })
        }) {
            return Err(format!("the regular expression {} calls a group, which is not supported", shown(&source)));
        }
        if !any(&expression, &is_hard) {
            compiled(&source).map(Self::Linear)
        } else if any(&expression, &|part| *part == Expr::ContinueFromPreviousMatchEnd) {
            compiled(&source).map(Self::Continuing)
        } else {
            // The line ends a comment, which would hide the rest.
            let within = [format!("(?:{source})|((?s:.))"), format!("(?:{source}\n)|((?s:.))")];
            let at_each = within.iter().find_map(|source| compiled(source)).map(Box::new);
            compiled(&source).zip(at_each).map(|(regex, at_each)| Self::Backtracking { regex, at_each })
        }
        .ok_or_else(unreadable)
    }

    /// How large a regular expression is: the number of characters that it matches, without `*` and `+`, which is the
    /// measure of the memory that it takes. 0 for one that is not valid.
    pub fn weight(source: &Source) -> usize {
        match source {
            Source::String(_) => 0,
            Source::Regex(source) => Expr::parse_tree(source).map_or(0, |tree| weight(&tree.expr)),
        }
    }

    /// Whether a match may be empty.
    pub fn may_be_empty(source: &Source) -> bool {
        match source {
            Source::String(text) => text.is_empty(),
            Source::Regex(source) => Expr::parse_tree(source).is_ok_and(|tree| may_be_empty(&tree.expr)),
        }
    }

    /// Whether it matches a text without characters.
    pub fn matches_nothing(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Linear(regex) | Self::Continuing(regex) | Self::Backtracking { regex, .. } => {
                regex.is_match("").unwrap_or(true)
            }
        }
    }

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
            Self::Linear(regex) | Self::Continuing(regex) => {
                regex.find_from_pos(text, start).map(range).map_err(gives_up)
            }
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
        Expr::Conditional { condition, true_branch, false_branch } => vec![condition, true_branch, false_branch],
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
        // What is before `\K` is not part of the match.
        Expr::Concat(parts) => parts.iter().fold(true, |empty, part| match part {
            Expr::KeepOut => true,
            part => empty && may_be_empty(part),
        }),
        Expr::Alt(parts) => parts.iter().any(may_be_empty),
        Expr::Group(part) | Expr::AtomicGroup(part) => may_be_empty(part),
        Expr::Repeat { child, lo, .. } => *lo == 0 || may_be_empty(child),
        Expr::Conditional { true_branch, false_branch, .. } => may_be_empty(true_branch) || may_be_empty(false_branch),
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
        "a\\Kb",
        r"\Ga",
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
                let expected = Regex::new(source).unwrap();
                let expected: Vec<_> =
                    expected.find_iter(&text).map(|found| found.map(|found| (found.start(), found.end())).unwrap()).collect();
                let pattern = Pattern::new(regex(source)).unwrap();
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
        let pattern = |text: &str| Pattern::new(Source::String(text.to_owned())).unwrap();
        assert_eq!(matches(&pattern("aa"), "aaaéaa").unwrap(), [(0, 2), (5, 7)]);
        assert_eq!(matches(&pattern(".*"), "a.*").unwrap(), [(1, 3)]);
    }

    #[test]
    fn what_may_be_empty_is_known() {
        for source in ["", "^", "$", r"\b", "a*", "a?", "(?=a)", "(a|)", "(?:a*)+", r"a\K", r"(a)?\1", "a{0,3}"] {
            assert!(Pattern::may_be_empty(&regex(source)), "{source}");
        }
        for source in ["a", "a+", "[ab]", r"\s+", "^a", "(?=b)b", "a|b", r"\Ka", "(?i)ß", ".", "a{2}", "(?<=a)b"] {
            assert!(!Pattern::may_be_empty(&regex(source)), "{source}");
        }
        assert!(Pattern::may_be_empty(&Source::String(String::new())));
        assert!(!Pattern::may_be_empty(&Source::String("^".into())));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (source, words) in [("(", "\"(\" is not valid"), (r"(?<x>a)\g<x>", "calls a group")] {
            let error = Pattern::new(regex(source)).err().unwrap();
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(Pattern::weight(&regex(r"\pL{3}(?:a|[bc]*){100,200}")), 1 + 3 + 200 * (1 + 1 + 1));
    }

    /// Whatever the pattern, a search ends soon after its time.
    #[test]
    fn time_is_limited() {
        let text = "a".repeat(30_000);
        for source in ["(?=a*b)a", "a*b|a", "(?!x)(?:a|a)*b", "(?=(a+)+$)b", "(?!a*b)x"] {
            let start = Instant::now();
            let budget = Budget::of_time(text.len(), Duration::from_millis(100));
            let error = Pattern::new(regex(source)).unwrap().matches(&text, &budget, |_, _| Ok(())).unwrap_err();
            assert!(error.contains("30000 bytes of text"), "{error}");
            assert!(start.elapsed() < Duration::from_secs(60), "{source}: {:?}", start.elapsed());
        }
    }
}
