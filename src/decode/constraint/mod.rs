//! Constraints: the text of a completion matches a regular expression, is one of several texts, is JSON of a schema, or
//! follows a grammar.
//!
//! What is allowed is a function of the constraint and the generated ids alone: a token is allowed if its bytes can lead on
//! to a text that matches, whatever the tokens before it were, and so also if it ends inside a character. So a constraint
//! is one more processor, and every strategy can have it. An end-of-text token is allowed where the text is complete; where
//! nothing can follow, the sequence ends without one.
//!
//! The work is llguidance's: a parser over bytes, and a walk over the tree of the vocabulary's tokens.

#[cfg(feature = "constraints")]
mod compile;
#[cfg(feature = "constraints")]
mod fault;
#[cfg(feature = "constraints")]
mod parser;
#[cfg(feature = "constraints")]
mod rules;
#[cfg(feature = "constraints")]
mod schema;
mod source;
#[cfg(not(feature = "constraints"))]
mod without;

#[cfg(feature = "constraints")]
pub use compile::Vocabulary;
#[cfg(feature = "constraints")]
use parser::{Parser, Root};
pub use source::Source;
#[cfg(not(feature = "constraints"))]
pub use without::Vocabulary;
#[cfg(not(feature = "constraints"))]
use without::{Parser, Root};

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHashMap;

use super::parameters::GenerationConfig;
use crate::error::{Error, Result};

/// A constraint, compiled for a vocabulary.
pub struct Constraint {
    source: Source,
    root: Root,
    states: Mutex<States>,
}

/// A constraint, and the tokens that end a text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Constrained {
    constraint: Arc<Constraint>,
    ends: Vec<u32>,
}

impl Constrained {
    /// That of a configuration, if it has one.
    pub fn of(config: &GenerationConfig) -> Option<Self> {
        Some(Self { constraint: Arc::clone(config.constraint.as_ref()?), ends: config.ends().to_vec() })
    }

    /// Rules out what may not follow the `generated` ids in the scores (V) of the next token: all tokens that cannot lead
    /// on, and those that end a text unless it is complete.
    pub fn apply(&self, scores: &mut [f32], generated: &[u32]) -> Result<()> {
        self.constraint.apply(scores, generated, &self.ends)
    }

    /// Whether the `generated` ids are complete and nothing may follow. (If that cannot be told, the next step says so.)
    pub fn ends(&self, generated: &[u32]) -> bool {
        self.constraint.status(generated).is_ok_and(|status| status.is_complete && !status.goes_on)
    }

    /// Whether the `generated` ids are complete, with or without an end of text.
    pub fn is_complete(&self, generated: &[u32]) -> bool {
        let text = match generated.split_last() {
            Some((last, text)) if self.ends.contains(last) => text,
            _ => generated,
        };
        self.constraint.status(text).is_ok_and(|status| status.is_complete)
    }

    /// Why nothing may follow the `generated` ids, if nothing may.
    pub fn dead_end(&self, generated: &[u32]) -> Option<Error> {
        self.constraint.dead_end(generated)
    }
}

/// What is known after some ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Status {
    /// Whether the text is complete.
    is_complete: bool,
    /// Whether a token can follow.
    goes_on: bool,
}

/// The tokens that may follow, a bit each.
type Mask = Vec<u32>;

/// Parsers by the ids that they have read. They are derived from one another, and can always be derived anew, so that only
/// recent ones are kept.
#[derive(Default)]
struct States {
    /// Before the first id. Parsers that come from one another share what they have found out about the lexemes.
    start: Option<Parser>,
    recent: FxHashMap<Box<[u32]>, State>,
    older: FxHashMap<Box<[u32]>, State>,
    /// The ids of the recent ones.
    ids: usize,
}

/// How many ids recent states may have before they become older ones: each keeps all that it has read.
const MOST_IDS: usize = 1 << 15;

#[derive(Clone)]
struct State {
    /// None where the ids do not match.
    parser: Option<Parser>,
    is_complete: bool,
    mask: Option<Mask>,
}

impl Constraint {
    #[cfg(feature = "constraints")]
    fn new(source: Source, root: Root) -> Self {
        Self { source, root, states: Mutex::default() }
    }

    /// What it says.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    fn apply(&self, scores: &mut [f32], generated: &[u32], ends: &[u32]) -> Result<()> {
        self.with(generated, |state| {
            let mask = state.mask.as_deref().unwrap_or_default();
            let own = ends.iter().filter_map(|&id| Some((id, *scores.get(id as usize)?)));
            let own: Vec<_> = if state.is_complete { own.collect() } else { vec![] };
            for (word, scores) in scores.chunks_mut(u32::BITS as usize).enumerate() {
                let bits = mask.get(word).copied().unwrap_or_default();
                if bits != u32::MAX {
                    let ruled_out = scores.iter_mut().enumerate().filter(|(bit, _)| bits >> bit & 1 == 0);
                    ruled_out.for_each(|(_, score)| *score = f32::NEG_INFINITY);
                }
            }
            own.into_iter().for_each(|(id, score)| scores[id as usize] = score);
        })
    }

    fn status(&self, generated: &[u32]) -> Result<Status> {
        self.with(generated, |state| Status {
            is_complete: state.is_complete,
            goes_on: state.mask.iter().flatten().any(|bits| *bits != 0),
        })
    }

    fn dead_end(&self, generated: &[u32]) -> Option<Error> {
        let status = self.status(generated).ok()?;
        let place = self.root.bytes(generated);
        let why = match status {
            Status { is_complete: false, goes_on: false } => "no token of the vocabulary leads on",
            Status { is_complete: true, goes_on: false } => "the text is complete, and there is no end-of-text token",
            Status { goes_on: true, .. } => return None,
        };
        Some(Error::parameter(
            self.source.name(),
            format!("cannot be followed from byte {place} of the completion on: {why}"),
        ))
    }

    /// The state after the `generated` ids, complete with its mask.
    fn with<T>(&self, generated: &[u32], use_it: impl FnOnce(&State) -> T) -> Result<T> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let found = self.derive(&mut states, generated).map(use_it);
        found.map_err(|fault| {
            // What they share is past use, though not for others.
            *states = States::default();
            let place = self.root.bytes(generated);
            let fault = format!("is too complex after byte {place} of the completion: {fault}");
            Error::parameter(self.source.name(), fault)
        })
    }

    fn derive<'s>(&self, states: &'s mut States, generated: &[u32]) -> Result<&'s State, String> {
        if !states.holds(generated) {
            let (from, new) = match generated.split_last() {
                Some((_, before)) if states.holds(before) => (states.get(before).parser.clone(), before.len()),
                _ => (Some(states.start.get_or_insert_with(|| self.root.start()).clone()), 0),
            };
            let mut parser = from;
            for id in &generated[new..] {
                let Some(before) = parser else { break };
                parser = before.after(*id, &self.root)?;
            }
            let is_complete = parser.as_mut().is_some_and(Parser::is_complete);
            states.insert(generated, State { parser, is_complete, mask: None });
        }
        let state = states.get(generated);
        if state.mask.is_none() {
            state.mask = Some(state.parser.as_mut().map_or(Ok(vec![]), Parser::mask)?);
        }
        Ok(state)
    }
}

impl States {
    fn holds(&self, ids: &[u32]) -> bool {
        self.recent.contains_key(ids) || self.older.contains_key(ids)
    }

    /// The state after `ids`, which is held.
    fn get(&mut self, ids: &[u32]) -> &mut State {
        if let Some(state) = self.older.remove(ids) {
            self.insert(ids, state);
        }
        self.recent.entry(ids.into()).or_insert(State { parser: None, is_complete: false, mask: None })
    }

    fn insert(&mut self, ids: &[u32], state: State) {
        self.ids += ids.len() + 1;
        if self.ids > MOST_IDS {
            self.older = std::mem::take(&mut self.recent);
            self.ids = ids.len() + 1;
        }
        self.recent.insert(ids.into(), state);
    }
}

/// Constraints that say the same are the same.
impl PartialEq for Constraint {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

#[cfg(all(test, feature = "constraints"))]
mod tests;
