//! llguidance's parser as a value: what it has read decides what it says, and nothing it is given makes it panic.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use llguidance::TokenParser;
use llguidance::api::StopReason;
use llguidance::derivre::StateID;
use llguidance::panic_utils::catch_unwind;

/// Where all parsers of a constraint start.
pub(super) struct Root {
    parser: TokenParser,
    /// The number of bytes of each token; 0 for those that have no text.
    lengths: Arc<[u16]>,
    /// Whether the constraint is one regular expression, of which the parser is the automaton.
    is_regex: bool,
}

/// Where an automaton is, and whether it has read anything.
pub(super) type Place = (StateID, bool);

/// A parser that has read some tokens.
#[derive(Clone)]
pub(super) struct Parser(TokenParser);

impl Root {
    pub fn new(parser: TokenParser, lengths: Arc<[u16]>, is_regex: bool) -> Self {
        Self { parser, lengths, is_regex }
    }

    /// A parser that shares nothing with earlier ones.
    pub fn start(&self) -> Parser {
        Parser(self.parser.deep_clone())
    }

    /// The number of bytes of `ids`.
    pub fn bytes(&self, ids: &[u32]) -> usize {
        ids.iter().map(|&id| self.length(id)).sum()
    }

    fn length(&self, id: u32) -> usize {
        self.lengths.get(id as usize).copied().unwrap_or_default().into()
    }
}

impl Parser {
    /// The parser after one token more; none if the token may not follow.
    pub fn after(mut self, id: u32, root: &Root) -> Result<Option<Self>, String> {
        if root.length(id) == 0 {
            return Ok(None);
        }
        guarded(|| {
            let goes_on = self.0.validate_token(id)?;
            if goes_on {
                self.0.consume_token(id)?;
            }
            Ok(goes_on.then_some(self))
        })
    }

    /// Whether a token may follow.
    pub fn allows(&mut self, id: u32, root: &Root) -> Result<bool, String> {
        if root.length(id) == 0 {
            return Ok(false);
        }
        guarded(|| self.0.validate_token(id))
    }

    /// Whether what it has read matches as it is.
    pub fn is_complete(&mut self) -> bool {
        guarded(|| Ok(self.0.is_accepting())).unwrap_or_default()
    }

    /// Its place, if it is an automaton: what may follow depends on nothing else.
    pub fn place(&mut self, root: &Root) -> Option<Place> {
        let place = || {
            let is_begun = self.0.parser.has_pending_lexeme_bytes();
            Ok((self.0.parser.with_recognizer(|recognizer| recognizer.lexer_state()), is_begun))
        };
        root.is_regex.then(|| guarded(place).ok()).flatten()
    }

    /// The tokens that may follow, a bit each. To be asked last: a parser that nothing may follow reads no more.
    pub fn mask(&mut self) -> Result<Vec<u32>, String> {
        guarded(|| {
            let mask = match self.0.compute_mask() {
                Ok(mask) => mask.as_slice().to_vec(),
                Err(_) if self.0.stop_reason() == StopReason::NoExtensionBias => vec![],
                Err(fault) => return Err(fault),
            };
            // It keeps a copy, which would be copied on.
            self.0.invalidate_bias_cache();
            Ok(mask)
        })
    }
}

/// What llguidance answers, or what it says is wrong, on one line.
pub(super) fn guarded<T>(ask: impl FnOnce() -> anyhow::Result<T>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(ask)).map_err(|fault| match format!("{fault:#}") {
        fault if fault.starts_with("panic:") => BEYOND.to_owned(),
        fault => super::fault::plain(&fault),
    })
}

/// What is said of a panic of llguidance's.
pub(super) const BEYOND: &str = "it is more than the parser can handle";
