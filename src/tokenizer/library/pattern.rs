//! Patterns of components that split or replace, run within a budget. The library itself ends the search without a word
//! where its engine gives up.

use fancy_regex::{Assertion, Expr, Regex, RegexBuilder};
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
    /// Tried at one position after the other, so that its limit of backtracking is one for each position. The last group
    /// is a character at which it does not match.
    Backtracking(Regex),
    /// A regular expression that knows where the last match ended (`\G`), so that it cannot be tried in between.
    Continuing(Regex),
}

impl Pattern {
    /// How often one search may backtrack. Each time, it may run over the rest of the text.
    const BACKTRACKS: usize = 10_000;
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
            compiled(&source).and_then(|_| within.iter().find_map(|source| compiled(source))).map(Self::Backtracking)
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
            Self::Linear(regex) | Self::Continuing(regex) => regex.is_match("").unwrap_or(true),
            Self::Backtracking(regex) => regex.is_match("").unwrap_or(true),
        }
    }

    /// The next match from `start`, as byte offsets in `text`.
    fn next(&self, text: &str, start: usize, budget: &Budget) -> Result<Option<(usize, usize)>, String> {
        let gives_up = |_| format!("the pattern backtracks too often in {} bytes of text", text.len());
        match self {
            Self::Text(pattern) => {
                // A search prepares itself in the time that its pattern takes to read.
                let rest = text.get(start..).filter(|rest| pattern.len() <= rest.len());
                let at = rest.and_then(|rest| rest.find(pattern.as_str()));
                Ok(at.map(|at| (start + at, start + at + pattern.len())))
            }
            Self::Linear(regex) | Self::Continuing(regex) => {
                let found = regex.find_from_pos(text, start).map_err(gives_up)?;
                Ok(found.map(|found| (found.start(), found.end())))
            }
            Self::Backtracking(regex) => {
                let mut at = start;
                loop {
                    let Some(found) = regex.captures_from_pos(text, at).map_err(gives_up)? else { return Ok(None) };
                    match (found.get(found.len() - 1), found.get(0)) {
                        (Some(other), _) => at = other.end(),
                        (None, whole) => return Ok(whole.map(|whole| (whole.start(), whole.end()))),
                    }
                    budget.check_time()?;
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
    match part {
        Expr::Assertion(StartText | EndText | StartLine { .. } | EndLine { .. }) => false,
        Expr::Empty | Expr::Any { .. } | Expr::Literal { .. } | Expr::Delegate { .. } => false,
        Expr::Concat(_) | Expr::Alt(_) | Expr::Group(_) | Expr::Repeat { .. } => false,
        _ => true,
    }
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
