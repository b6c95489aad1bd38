//! The components of a tokenizer, run one at a time: after each one it is checked what it made of the text, and how long
//! that took.

use std::cell::Cell;
use std::panic::AssertUnwindSafe;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokenizers::pattern::Invert;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    Decoder as _, DecoderWrapper, NormalizedString, Normalizer as _, NormalizerWrapper, PreTokenizedString,
    PreTokenizer as _, PreTokenizerWrapper, SplitDelimiterBehavior,
};

use super::budget::Budget;
use super::check::{Component, DECODERS, NORMALIZERS, PRE_TOKENIZERS};
use super::pattern::{Bounded, Parsed, Pattern, Source, Words};
use super::{FAULT, unreadable};
use crate::base::foreign::guard;
use crate::tokenizer::vocabulary::shown;

/// What a tokenizer does to a text beside finding pieces of its vocabulary.
pub(super) struct Steps {
    normalizers: Vec<Step<Normalizer>>,
    pre_tokenizers: Vec<Step<PreTokenizer>>,
    /// None where the file has no decoder: then there are spaces between tokens.
    decoders: Option<Vec<Step<Decoder>>>,
}

struct Step<T> {
    /// `normalizer.normalizers[3]: Replace`
    name: String,
    work: T,
}

enum Normalizer {
    Prepend(String),
    Replace(Pattern, String),
    Other(NormalizerWrapper),
}

enum PreTokenizer {
    /// GPT-2's words; whether a space is put in front.
    Words(bool),
    Split(Pattern, SplitDelimiterBehavior, bool),
    Other(PreTokenizerWrapper),
}

enum Decoder {
    Replace(Pattern, String),
    Other(DecoderWrapper),
}

#[derive(Deserialize)]
struct Replace {
    pattern: Source,
    content: String,
}

#[derive(Deserialize)]
struct Split {
    pattern: Source,
    behavior: SplitDelimiterBehavior,
    invert: bool,
}

/// Compiles the patterns of a file, which may be large together.
struct Compiler<'a> {
    weight: usize,
    budget: &'a Budget,
}

impl Compiler<'_> {
    /// The largest weight of all regular expressions. Usual ones have fewer than 100 together.
    const MOST_WEIGHT: usize = 5000;

    fn compile(&mut self, pattern: Parsed) -> Result<Pattern, String> {
        self.weight = self.weight.saturating_add(pattern.weight());
        if self.weight > Self::MOST_WEIGHT {
            return Err(format!("the regular expression {} is too large", shown(pattern.as_str())));
        }
        self.budget.check_time()?;
        pattern.compile()
    }

    fn replace(&mut self, json: &Value) -> Result<(Pattern, String), String> {
        let Replace { pattern, content } = read(json)?;
        let pattern = pattern.parse()?;
        // The library panics.
        if pattern.may_be_empty() {
            return Err(format!("the pattern {} matches the empty string", shown(pattern.as_str())));
        }
        Ok((self.compile(pattern)?, content))
    }

    fn normalizer(&mut self, component: &Component) -> Result<Normalizer, String> {
        let json = &component.json;
        Ok(match component.kind.as_str() {
            "Replace" => {
                let (pattern, content) = self.replace(json)?;
                Normalizer::Replace(pattern, content)
            }
            "Prepend" => match json.get("prepend").and_then(Value::as_str) {
                Some(text) => Normalizer::Prepend(text.to_owned()),
                None => return Err(String::new()),
            },
            _ => Normalizer::Other(read(json)?),
        })
    }

    fn pre_tokenizer(&mut self, component: &Component) -> Result<PreTokenizer, String> {
        if component.kind == "Split" {
            let Split { pattern, behavior, invert } = read(&component.json)?;
            return Ok(PreTokenizer::Split(self.compile(pattern.parse()?)?, behavior, invert));
        }
        Ok(match read(&component.json)? {
            PreTokenizerWrapper::ByteLevel(bytes) if bytes.use_regex => PreTokenizer::Words(bytes.add_prefix_space),
            other => PreTokenizer::Other(other),
        })
    }

    fn decoder(&mut self, component: &Component) -> Result<Decoder, String> {
        if component.kind == "Replace" {
            let (pattern, content) = self.replace(&component.json)?;
            return Ok(Decoder::Replace(pattern, content));
        }
        read(&component.json).map(Decoder::Other)
    }
}

/// An empty error says that it is not as the library expects.
fn read<T: DeserializeOwned>(json: &Value) -> Result<T, String> {
    serde_json::from_value(json.clone()).map_err(|_| String::new())
}

fn step<T>(component: Component, work: Result<T, String>) -> Result<Step<T>, String> {
    let Component { place, kind, .. } = component;
    match work {
        Ok(work) => Ok(Step { name: format!("{place}: {kind}"), work }),
        Err(fault) if fault.is_empty() => Err(unreadable(&place, Some(&kind))),
        Err(fault) => Err(format!("{place}: {kind}: {fault}")),
    }
}

impl Steps {
    /// Those of a `tokenizer.json`.
    pub fn new(parts: &Map<String, Value>, budget: &Budget) -> Result<Self, String> {
        let mut compiler = Compiler { weight: 0, budget };
        let mut steps = Self { normalizers: vec![], pre_tokenizers: vec![], decoders: None };
        for component in NORMALIZERS.components(parts)? {
            let work = compiler.normalizer(&component);
            steps.normalizers.push(step(component, work)?);
        }
        for component in PRE_TOKENIZERS.components(parts)? {
            let work = compiler.pre_tokenizer(&component);
            steps.pre_tokenizers.push(step(component, work)?);
        }
        if parts.get("decoder").is_some_and(|decoder| !decoder.is_null()) {
            let mut decoders = vec![];
            for component in DECODERS.components(parts)? {
                let work = compiler.decoder(&component);
                decoders.push(step(component, work)?);
            }
            steps.decoders = Some(decoders);
        }
        Ok(steps)
    }

    /// Whether decoding makes bytes of the letters of GPT-2's alphabet, and nothing else.
    pub fn decodes_bytes(&self) -> bool {
        let decoders = self.decoders.as_deref();
        matches!(decoders, Some([Step { work: Decoder::Other(DecoderWrapper::ByteLevel(_)), .. }]))
    }

    /// What ends a token before a space, if decoding makes that space and does nothing else.
    pub fn word_end(&self) -> Option<&str> {
        match self.decoders.as_deref() {
            Some([Step { work: Decoder::Other(DecoderWrapper::BPE(decoder)), .. }]) => {
                Some(decoder.suffix.as_str()).filter(|suffix| !suffix.is_empty())
            }
            _ => None,
        }
    }

    /// Normalizes a piece of a text, of which `elsewhere` bytes are normalized already.
    pub fn normalize(&self, piece: &mut NormalizedString, elsewhere: usize, budget: &Budget) -> Result<(), String> {
        for step in &self.normalizers {
            step.named(|work| {
                match work {
                    Normalizer::Prepend(text) => {
                        budget.check_size(elsewhere + piece.len() + text.len())?;
                        if !piece.is_empty() {
                            piece.prepend(text);
                        }
                    }
                    Normalizer::Replace(pattern, content) => {
                        let pattern = Bounded { pattern, budget, content: Some(content.len()), elsewhere };
                        piece.replace(pattern, content).map_err(|e| e.to_string())?;
                    }
                    Normalizer::Other(other) => other.normalize(piece).map_err(|e| e.to_string())?,
                }
                budget.check_size(elsewhere + piece.len())?;
                budget.check_time()
            })?;
        }
        Ok(())
    }

    /// Splits a normalized piece of a text into words.
    pub fn pre_tokenize(
        &self,
        piece: &mut PreTokenizedString,
        elsewhere: usize,
        budget: &Budget,
    ) -> Result<(), String> {
        for step in &self.pre_tokenizers {
            step.named(|work| {
                work.split(piece, budget).map_err(|e| e.to_string())?;
                let size = Cell::new(elsewhere);
                let count = |word: &mut NormalizedString| {
                    size.set(size.get() + word.len());
                    Ok(())
                };
                piece.normalize(count).map_err(|e| e.to_string())?;
                budget.check_size(size.get())?;
                budget.check_time()
            })?;
        }
        Ok(())
    }

    /// The text of tokens.
    pub fn decode(&self, mut tokens: Vec<String>, budget: &Budget) -> Result<String, String> {
        let Some(decoders) = &self.decoders else { return Ok(tokens.join(" ")) };
        for step in decoders {
            step.named(|work| {
                tokens = match work {
                    Decoder::Replace(pattern, content) => replace_in(&tokens, pattern, content, budget)?,
                    Decoder::Other(other) => {
                        other.decode_chain(std::mem::take(&mut tokens)).map_err(|e| e.to_string())?
                    }
                };
                budget.check_size(tokens.iter().map(String::len).sum())?;
                budget.check_time()
            })?;
        }
        Ok(tokens.concat())
    }
}

impl<T> Step<T> {
    /// Does its work; an error, or a panic in it, gets its name.
    fn named(&self, work: impl FnOnce(&T) -> Result<(), String>) -> Result<(), String> {
        let done = guard(AssertUnwindSafe(|| work(&self.work)));
        done.unwrap_or_else(|_| Err(FAULT.into())).map_err(|fault| format!("{}: {fault}", self.name))
    }
}

impl PreTokenizer {
    fn split(&self, piece: &mut PreTokenizedString, budget: &Budget) -> tokenizers::Result<()> {
        match self {
            Self::Words(prefix_space) => {
                piece.split(|_, mut part| {
                    if *prefix_space && !part.get().starts_with(' ') {
                        part.prepend(" ");
                    }
                    part.split(Words, SplitDelimiterBehavior::Isolated)
                })?;
                ByteLevel::new(false, true, false).pre_tokenize(piece)
            }
            Self::Split(pattern, behavior, invert) => piece.split(|_, part| {
                let pattern = Bounded { pattern, budget, content: None, elsewhere: 0 };
                if *invert { part.split(Invert(pattern), *behavior) } else { part.split(pattern, *behavior) }
            }),
            Self::Other(other) => other.pre_tokenize(piece),
        }
    }
}

/// Replaces what the pattern matches in each token.
fn replace_in(tokens: &[String], pattern: &Pattern, content: &str, budget: &Budget) -> Result<Vec<String>, String> {
    let mut elsewhere = 0;
    let replaced = |token: &String| {
        let mut replaced = String::new();
        let mut done = 0;
        pattern.matches(token, budget, |start, end| {
            replaced.push_str(&token[done..start]);
            budget.check_size(elsewhere + replaced.len() + content.len())?;
            replaced.push_str(content);
            done = end;
            Ok(())
        })?;
        replaced.push_str(&token[done..]);
        elsewhere += replaced.len();
        Ok(replaced)
    };
    tokens.iter().map(replaced).collect()
}
