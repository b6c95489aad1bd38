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
mod automaton;
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
use parser::{Parser, Place, Root};
pub use source::Source;
#[cfg(not(feature = "constraints"))]
pub use without::Vocabulary;
#[cfg(not(feature = "constraints"))]
use without::{Parser, Place, Root};

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHashMap;

use super::parameters::GenerationConfig;
use crate::error::{Error, Result};
use crate::logits;

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

    /// Whether `id` may follow the `generated` ids, without working out which others may.
    pub fn allows(&self, generated: &[u32], id: u32) -> Result<bool> {
        self.constraint.allows(generated, id, &self.ends)
    }

    /// Whether all that may follow the `generated` ids has been worked out.
    pub fn is_known(&self, generated: &[u32]) -> Result<bool> {
        self.constraint.ask(generated, |states| Ok(self.constraint.state(states, generated)?.next.is_some()))
    }

    /// Whether the `generated` ids are complete and nothing may follow. (If that cannot be told, the next step says so.)
    pub fn ends(&self, generated: &[u32]) -> bool {
        self.constraint.ends(generated).is_ok_and(|ends| ends)
    }

    /// Whether the `generated` ids are complete, with or without an end of text.
    pub fn is_complete(&self, generated: &[u32]) -> bool {
        let text = match generated.split_last() {
            Some((last, text)) if self.ends.contains(last) => text,
            _ => generated,
        };
        self.constraint.next(text).is_ok_and(|next| next.is_complete)
    }

    /// Why nothing may follow the `generated` ids, if nothing may.
    pub fn dead_end(&self, generated: &[u32]) -> Option<Error> {
        self.constraint.dead_end(generated)
    }
}

/// What may follow some ids.
struct Next {
    /// Whether the text is complete.
    is_complete: bool,
    /// Whether a token can follow.
    goes_on: bool,
    /// The tokens that may follow, a bit each.
    mask: Vec<u32>,
}

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
    /// The parser that came to a place of the constraint's automaton first, if it is one, and what may follow there, once it
    /// is asked for. A text comes to few places, but often, and that parser has read less of it.
    known: FxHashMap<Place, (Parser, Option<Arc<Next>>)>,
    /// A token that could follow a complete text, and so may follow the next one.
    witness: Option<u32>,
}

/// How many ids recent states may have before they become older ones: each keeps all that it has read.
const MOST_IDS: usize = 1 << 15;
/// For how many places a parser is kept, and what may follow: a bit for each token.
const MOST_PLACES: usize = 1 << 8;

#[derive(Default)]
struct State {
    /// None where the ids do not match.
    parser: Option<Parser>,
    place: Option<Place>,
    /// None until it is asked for.
    next: Option<Arc<Next>>,
}

impl State {
    /// Whether `id` may follow, without working out which others may.
    fn allows(&mut self, id: u32, root: &Root) -> Result<bool, String> {
        match (&self.next, &mut self.parser) {
            (Some(next), _) => Ok(next.allows(id)),
            (None, Some(parser)) => parser.allows(id, root),
            (None, None) => Ok(false),
        }
    }

    fn is_complete(&mut self) -> bool {
        match &self.next {
            Some(next) => next.is_complete,
            None => self.parser.as_mut().is_some_and(Parser::is_complete),
        }
    }
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
        let next = self.next(generated)?;
        let own = ends.iter().filter_map(|&id| Some((id, *scores.get(id as usize)?)));
        let own: Vec<_> = if next.is_complete { own.collect() } else { vec![] };
        logits::keep(scores, &next.mask);
        own.into_iter().for_each(|(id, score)| scores[id as usize] = score);
        Ok(())
    }

    fn dead_end(&self, generated: &[u32]) -> Option<Error> {
        let next = self.next(generated).ok()?;
        let place = self.root.bytes(generated);
        let why = match *next {
            Next { is_complete: false, goes_on: false, .. } => "no token of the vocabulary leads on",
            Next { is_complete: true, goes_on: false, .. } => "the text is complete, and there is no end-of-text token",
            Next { goes_on: true, .. } => return None,
        };
        Some(Error::parameter(
            self.source.name(),
            format!("cannot be followed from byte {place} of the completion on: {why}"),
        ))
    }

    fn allows(&self, generated: &[u32], id: u32, ends: &[u32]) -> Result<bool> {
        self.ask(generated, |states| {
            let state = self.state(states, generated)?;
            Ok(state.allows(id, &self.root)? || (ends.contains(&id) && state.is_complete()))
        })
    }

    fn ends(&self, generated: &[u32]) -> Result<bool> {
        self.ask(generated, |states| {
            let witness = states.witness;
            let state = self.state(states, generated)?;
            if !state.is_complete() {
                return Ok(false);
            }
            // Most texts go on as they did before.
            for id in witness.iter().chain(generated.last()) {
                if state.allows(*id, &self.root)? {
                    return Ok(false);
                }
            }
            let next = self.derive(states, generated)?;
            states.witness = next.first().or(witness);
            Ok(!next.goes_on)
        })
    }

    /// What may follow the `generated` ids.
    fn next(&self, generated: &[u32]) -> Result<Arc<Next>> {
        self.ask(generated, |states| self.derive(states, generated))
    }

    fn ask<T>(&self, generated: &[u32], ask: impl FnOnce(&mut States) -> Result<T, String>) -> Result<T> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        ask(&mut states).map_err(|fault| {
            // What they share is past use, though not for others.
            *states = States::default();
            let place = self.root.bytes(generated);
            let fault = format!("is too complex after byte {place} of the completion: {fault}");
            Error::parameter(self.source.name(), fault)
        })
    }

    /// The state after the `generated` ids. At a known place, it knows what may follow.
    fn state<'s>(&self, states: &'s mut States, generated: &[u32]) -> Result<&'s mut State, String> {
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
            let place = parser.as_mut().and_then(|parser| parser.place(&self.root));
            let known = place.and_then(|place| states.known.get(&place).cloned());
            let state = match (known, place, parser) {
                (Some((parser, next)), ..) => State { parser: Some(parser), place, next },
                (None, Some(place), Some(parser)) => {
                    if states.known.len() >= MOST_PLACES {
                        states.known.clear();
                    }
                    states.known.insert(place, (parser.clone(), None));
                    State { parser: Some(parser), place: Some(place), next: None }
                }
                (None, _, parser) => State { parser, place: None, next: None },
            };
            states.insert(generated, state);
        }
        Ok(states.get(generated))
    }

    fn derive(&self, states: &mut States, generated: &[u32]) -> Result<Arc<Next>, String> {
        let state = self.state(states, generated)?;
        if let Some(next) = &state.next {
            return Ok(Arc::clone(next));
        }
        let (place, next) = (state.place, Arc::new(Next::after(state.parser.as_mut())?));
        state.next = Some(Arc::clone(&next));
        if let Some(known) = place.and_then(|place| states.known.get_mut(&place)) {
            known.1 = Some(Arc::clone(&next));
        }
        Ok(next)
    }
}

impl Next {
    /// What may follow what a parser has read; without one, nothing.
    fn after(parser: Option<&mut Parser>) -> Result<Self, String> {
        let (is_complete, mask) = match parser {
            Some(parser) => (parser.is_complete(), parser.mask()?),
            None => (false, vec![]),
        };
        Ok(Self { is_complete, goes_on: mask.iter().any(|bits| *bits != 0), mask })
    }

    fn allows(&self, id: u32) -> bool {
        self.mask.get((id / u32::BITS) as usize).is_some_and(|bits| bits >> (id % u32::BITS) & 1 == 1)
    }

    /// The first token that may follow.
    fn first(&self) -> Option<u32> {
        let (word, bits) = (0..).zip(&self.mask).find(|(_, bits)| **bits != 0)?;
        Some(word * u32::BITS + bits.trailing_zeros())
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
        self.recent.entry(ids.into()).or_default()
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
