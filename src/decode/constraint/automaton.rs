//! What may follow a text that matches one regular expression: a walk over the vocabulary's tree with nothing but the
//! expression's automaton, in less than half of the time that llguidance takes with its stack of lexemes and rules.

use std::sync::Arc;

use llguidance::derivre::StateID;
use llguidance::earley::{BiasComputer, ParserRecognizer};
use llguidance::toktrie::{Recognizer, SimpleVob, TokTrie};

/// For parsers of one regular expression.
pub(super) struct Automaton {
    /// llguidance's own, which knows sets of tokens that texts over nearly all characters begin with.
    pub slices: Arc<dyn BiasComputer>,
    /// Which of its sets is to be tried: one that is in most others.
    pub slice: usize,
}

impl BiasComputer for Automaton {
    fn compute_bias(&self, recognizer: &mut ParserRecognizer<'_>, start: &[u8]) -> SimpleVob {
        /// What to spend on the question; as in llguidance.
        const BUDGET: u64 = 1000;
        let state = recognizer.lexer_state();
        let lexer = recognizer.lexer_mut();
        let has_slice = lexer.subsume_possible(state)
            && lexer.check_subsume(state, self.slice, BUDGET, None).is_ok_and(|is_inside| is_inside);
        if has_slice || !start.is_empty() {
            return self.slices.compute_bias(recognizer, start);
        }
        let mut allowed = self.trie().alloc_token_set();
        let step = |state, byte| lexer.transition_start_state(state, Some(byte), &None);
        self.trie().add_bias(&mut Walk { step, states: vec![state] }, &mut allowed, &[]);
        allowed
    }

    fn trie(&self) -> &TokTrie {
        self.slices.trie()
    }
}

/// The states after the bytes on the way to a node of the tree.
struct Walk<F> {
    step: F,
    states: Vec<StateID>,
}

impl<F: FnMut(StateID, u8) -> StateID> Recognizer for Walk<F> {
    #[inline(always)]
    fn pop_bytes(&mut self, num: usize) {
        self.states.truncate(self.states.len() - num);
    }

    #[inline(always)]
    fn try_push_byte(&mut self, byte: u8) -> bool {
        let Some(state) = self.states.last() else { return false };
        let state = (self.step)(*state, byte);
        if !state.is_dead() {
            self.states.push(state);
        }
        !state.is_dead()
    }

    fn collapse(&mut self) {}

    fn trie_finished(&mut self) {
        self.states.truncate(1);
    }
}
