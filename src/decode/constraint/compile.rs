//! From what a constraint says to a parser over the tokens of a vocabulary.

use std::collections::HashSet;
use std::sync::Arc;

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, INVALID_TOKEN, InferenceCapabilities, TokRxInfo, TokTrie};
use llguidance::{ParserFactory, regex_to_lark};
use regex_syntax::hir::{Hir, HirKind, Look};

use super::super::stop::Detokenize;
use super::automaton::Automaton;
use super::parser::{BEYOND, Root, guarded};
use super::{Constraint, Source, fault, rules, schema};
use crate::error::{Error, Result};

/// The bytes of a model's tokens, as a tree.
pub struct Vocabulary {
    factory: ParserFactory,
    lengths: Arc<[u16]>,
}

/// What a constraint may take: some tenths of a second for the start and for a token, some hundred megabytes. What llguidance
/// allows by itself is too little for a schema with thousands of properties.
const LIMITS: ParserLimits = ParserLimits {
    max_items_in_row: 200_000,
    initial_lexer_fuel: 10_000_000,
    step_lexer_fuel: 3_000_000,
    step_max_items: 4_000_000,
    max_lexer_states: 250_000,
    max_grammar_size: 500_000,
    precompute_large_lexemes: true,
    verbose_errors: false,
};

/// Sets of tokens that are known to follow where every short text over nearly all characters may, or a long one. They are
/// llguidance's own for strings in JSON, without those that save little and take a sixth of a start each.
const SLICES: [&str; 2] = [r#"[^"\\\x00-\x1F\x7F]{1,10}"#, r#"[^"\\\x00-\x1F\x7F]+"#];
/// The one that is in the other.
const SLICE: usize = 0;
/// The longest token, in bytes: a limit of the tree.
const LONGEST_TOKEN: usize = 1000;
/// The longest text of a constraint, in bytes.
const LONGEST_SOURCE: usize = 1 << 20;
/// How deep brackets may lie in one another.
const DEEPEST: usize = 200;
/// The stack of a thread that compiles: some of what it does calls itself, as deep as the constraint is nested.
const STACK: usize = 256 << 20;

impl Vocabulary {
    /// That of a model with `vocab_size` tokens. A token without text, as special ones are, never matches.
    ///
    /// # Errors
    /// [`Error::Usage`] for a token that is too long.
    pub fn new(vocab_size: usize, text: &dyn Detokenize) -> Result<Self> {
        let tokens: Vec<Vec<u8>> = (0..vocab_size as u32).map(|id| text.token_bytes(id).to_vec()).collect();
        if let Some((id, token)) = tokens.iter().enumerate().find(|(_, token)| token.len() > LONGEST_TOKEN) {
            return Err(Error::Usage(format!(
                "token {id} has {} bytes; with a constraint the most are {LONGEST_TOKEN}",
                token.len()
            )));
        }
        // Where a token has this byte first, the tree takes it for a special one; no text has it.
        let tokens: Vec<Vec<u8>> = tokens
            .into_iter()
            .map(|token| if token.first() == Some(&TokTrie::SPECIAL_TOKEN_MARKER) { vec![] } else { token })
            .collect();
        let lengths = tokens.iter().map(|token| token.len() as u16).collect();
        let factory = guarded(|| {
            let trie = TokTrie::from(&TokRxInfo::new(vocab_size as u32, INVALID_TOKEN), &tokens);
            // One that does not know how a text is split into tokens, so that no way is preferred to another.
            let environment: llguidance::toktrie::TokEnv = Arc::new(ApproximateTokEnv::new(trie));
            let slices = SLICES.map(str::to_owned);
            let mut factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &slices)?;
            factory.quiet();
            *factory.limits_mut() = LIMITS;
            Ok(factory)
        });
        let factory =
            factory.map_err(|fault| Error::Usage(format!("constraints cannot use this vocabulary: {fault}")))?;
        Ok(Self { factory, lengths })
    }

    /// Compiles a constraint.
    ///
    /// # Errors
    /// [`Error::Parameter`] if it is malformed or too complex.
    pub fn compile(&self, source: &Source) -> Result<Arc<Constraint>> {
        let root = std::thread::scope(|scope| {
            let compile = || self.root(source);
            let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, compile);
            thread.map(|thread| thread.join().unwrap_or_else(|_| Err("cannot be compiled".to_owned())))
        });
        let root = root.unwrap_or_else(|fault| Err(format!("cannot be compiled: {fault}")));
        let root = root.map_err(|fault| Error::parameter(source.name(), crate::printable::line(&fault)))?;
        let constraint = Constraint::new(source.clone(), root);
        let start = constraint.next(&[])?;
        match constraint.dead_end(&[]) {
            Some(error) if !start.is_complete => Err(error),
            _ => Ok(Arc::new(constraint)),
        }
    }

    /// The parser that starts; or what is wrong, to follow the constraint's name.
    fn root(&self, source: &Source) -> Result<Root, String> {
        let grammar = match source {
            Source::Regex(regex) => of_regex(&parse(regex)?)?,
            Source::Choices(choices) => {
                let literals = choices.iter().map(|choice| Hir::literal(choice.as_bytes())).collect();
                of_regex(&Hir::alternation(literals))?
            }
            Source::JsonSchema(value) => {
                schema::check(value).map_err(|fault| format!("is not a schema that can be followed: {fault}"))?;
                TopLevelGrammar::from_json_schema(value.clone())
            }
            Source::Grammar(lark) => {
                check_size(lark)?;
                check_depth(lark)?;
                TopLevelGrammar::from_lark(lark.clone())
            }
        };
        let what = match source {
            Source::Regex(_) | Source::Choices(_) => "cannot be followed",
            Source::JsonSchema(_) => "is not a schema that can be followed",
            Source::Grammar(_) => "is not a grammar that can be followed",
        };
        let is_regex = matches!(source, Source::Regex(_) | Source::Choices(_));
        let parser = guarded(|| {
            let mut parser = self.factory.create_parser(grammar)?;
            let warnings = parser.grammar_warnings();
            anyhow::ensure!(warnings.is_empty(), "{}", warnings.join("; "));
            parser.start_without_prompt();
            if is_regex {
                let slices = Arc::clone(&parser.bias_computer);
                parser.bias_computer = Arc::new(Automaton { slices, slice: SLICE });
            }
            Ok(parser)
        });
        let parser = parser.map_err(|fault| match source {
            // The grammar around it is not the user's.
            Source::Regex(_) | Source::Choices(_) if fault.contains(fault::LOOKS_AROUND) => {
                "has `^` or `$` where the text can neither begin nor end".to_owned()
            }
            Source::Grammar(lark) if lark.contains("<|") && fault == BEYOND => {
                "has a special token (<|...|>), and those are no text".to_owned()
            }
            Source::Grammar(lark) if lark.contains("::=") => {
                format!("{what}: {fault} (Lark has `name: ...` for `name ::= ...`)")
            }
            _ => format!("{what}: {fault}"),
        })?;
        let grammar = parser.parser.grammar();
        if let Some(cycle) = rules::endless(grammar) {
            return Err(match source {
                Source::Grammar(lark) => never_ends(lark, &cycle),
                _ => "never ends: each value of it would have to contain another one".to_owned(),
            });
        }
        if rules::sets_temperature(grammar) {
            return Err("has a temperature=, which would not be followed: use `temperature`".to_owned());
        }
        Ok(Root::new(parser, Arc::clone(&self.lengths), is_regex))
    }
}

/// That rules need each other without end; the parser's own symbols are among them.
fn never_ends(lark: &str, cycle: &[&str]) -> String {
    let words: HashSet<&str> = lark.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    // The symbol of `a` may be called `a_`, `a#2` or `a_#2`.
    let mut rules: Vec<&str> = vec![];
    for name in cycle {
        let name = name.split('#').next().unwrap_or_default();
        let names = [name, name.strip_suffix('_').unwrap_or(name)];
        rules.extend(names.iter().find(|name| words.contains(*name)));
    }
    rules.dedup();
    match rules[..] {
        [] => "has a rule that never ends".to_owned(),
        [rule] => format!("has a rule that never ends: {rule:?} always needs {rule:?} again"),
        [rule, .., last] => format!("has rules that never end: {rule:?} needs {last:?}, which needs {rule:?} again"),
    }
}

/// The expression, or where and why it is none.
fn parse(regex: &str) -> Result<Hir, String> {
    check_size(regex)?;
    let hir = regex_syntax::parse(regex).map_err(|error| {
        let (why, at) = match &error {
            regex_syntax::Error::Parse(error) => (error.kind().to_string(), error.span().start.offset),
            regex_syntax::Error::Translate(error) => (error.kind().to_string(), error.span().start.offset),
            error => return format!("is not a regular expression: {error}"),
        };
        format!("is not a regular expression: {why} (at byte {at})")
    })?;
    if hir.properties().look_set().iter().any(|look| !matches!(look, Look::Start | Look::End)) {
        return Err(
            "looks at what is around a place (`\\b`, or line by line `^` and `$`), which is not supported".to_owned()
        );
    }
    Ok(hir)
}

/// A grammar of one terminal.
fn of_regex(hir: &Hir) -> Result<TopLevelGrammar, String> {
    // Written anew, it means the same without flags. A group of this name would be a lookahead to llguidance.
    let regex = hir.to_string().replace("(?P<stop>", "(?:");
    if *hir.kind() == HirKind::Empty {
        return Ok(TopLevelGrammar::from_lark("start: \"\"".to_owned()));
    }
    let grammar = format!("start: /{}/", regex_to_lark(&regex, ""));
    Ok(TopLevelGrammar::from_lark(grammar))
}

fn check_size(text: &str) -> Result<(), String> {
    if text.len() > LONGEST_SOURCE {
        return Err(format!("has {} bytes, and the most are {LONGEST_SOURCE}", text.len()));
    }
    Ok(())
}

/// Refuses a grammar of brackets within brackets within brackets; those of texts, expressions and remarks do not count.
fn check_depth(lark: &str) -> Result<(), String> {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = lark.bytes().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'#' => while bytes.next_if(|byte| *byte != b'\n').is_some() {},
            b'/' if bytes.next_if_eq(&b'/').is_some() => while bytes.next_if(|byte| *byte != b'\n').is_some() {},
            b'"' | b'/' => {
                while let Some(inner) = bytes.next_if(|inner| *inner != b'\n') {
                    match inner {
                        b'\\' => drop(bytes.next()),
                        inner if inner == byte => break,
                        _ => {}
                    }
                }
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    if deepest > DEEPEST {
        return Err(format!("is nested too deeply: {deepest} brackets, and the most are {DEEPEST}"));
    }
    Ok(())
}
