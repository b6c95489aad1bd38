//! Logits processors: changes to the scores of the next token before one is chosen.
//!
//! Each is a pure function on one row; [`Processors`] is the chain in transformers' order.
//!
//! Reference: transformers 5.23.0, `generation/logits_process.py` and, for the order, `_get_logits_processor` in
//! `generation/utils.py`.

mod penalties;
mod warpers;

use super::parameters::GenerationConfig;
use crate::error::{Error, Result};

/// One step of the chain, with its parameters.
#[derive(Debug, Clone, PartialEq)]
enum Processor {
    RepetitionPenalty(f32),
    NoRepeatNgram(usize),
    BadWords(Vec<Vec<u32>>),
    /// No end of text among the first `min_new_tokens`, nor before prompt and continuation have `min_length`.
    MinTokens {
        min_new_tokens: usize,
        min_length: usize,
        eos_token_id: Vec<u32>,
    },
    Temperature(f32),
    TopK(usize),
    TopP(f64),
    MinP(f32),
    TypicalP(f32),
    EpsilonCutoff(f32),
    EtaCutoff(f32),
}

/// The processors of a configuration, in transformers' order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Processors {
    chain: Vec<Processor>,
    /// The number of tokens that the warpers always leave.
    min_tokens_to_keep: usize,
}

impl Processors {
    /// The chain of a checked configuration. `warpers` says whether it includes the processors that shape the
    /// distribution for sampling; each of those keeps at least the best `min_tokens_to_keep` tokens.
    pub(super) fn new(config: &GenerationConfig, warpers: bool, min_tokens_to_keep: usize) -> Self {
        let mut chain = vec![];
        if config.repetition_penalty != 1.0 {
            chain.push(Processor::RepetitionPenalty(config.repetition_penalty as f32));
        }
        if config.no_repeat_ngram_size > 0 {
            chain.push(Processor::NoRepeatNgram(config.no_repeat_ngram_size));
        }
        let ends = |word: &Vec<u32>| matches!(word[..], [id] if config.ends().contains(&id));
        let bad_words: Vec<_> = config.bad_words_ids.iter().filter(|word| !ends(word)).cloned().collect();
        if !bad_words.is_empty() {
            chain.push(Processor::BadWords(bad_words));
        }
        if config.min_new_tokens > 0 || config.min_length > 0 {
            chain.push(Processor::MinTokens {
                min_new_tokens: config.min_new_tokens,
                min_length: if config.min_new_tokens > 0 { 0 } else { config.min_length },
                eos_token_id: config.ends().to_vec(),
            });
        }
        if warpers {
            let given = |value: Option<f64>, off: f64| value.filter(|&x| x != off).map(|x| x as f32);
            chain.extend(given(config.temperature, 1.0).map(Processor::Temperature));
            chain.extend(config.top_k.filter(|&k| k != 0).map(|k| Processor::TopK(k.max(min_tokens_to_keep))));
            chain.extend(config.top_p.filter(|&p| p != 1.0).map(Processor::TopP));
            chain.extend(config.min_p.map(|p| Processor::MinP(p as f32)));
            chain.extend(given(config.typical_p, 1.0).map(Processor::TypicalP));
            chain.extend(given(config.epsilon_cutoff, 0.0).map(Processor::EpsilonCutoff));
            chain.extend(given(config.eta_cutoff, 0.0).map(Processor::EtaCutoff));
        }
        Self { chain, min_tokens_to_keep }
    }

    /// Checks that all ids in the chain are tokens of a model with this vocabulary.
    ///
    /// # Errors
    /// [`Error::Parameter`] with the parameter that has an id outside the vocabulary.
    pub fn check(&self, vocab_size: usize) -> Result<()> {
        let named = self.chain.iter().flat_map(|processor| match processor {
            Processor::BadWords(words) => words.as_slice(),
            _ => &[],
        });
        match named.flatten().find(|id| **id as usize >= vocab_size) {
            Some(id) => {
                let last = vocab_size - 1;
                Err(Error::parameter("bad_words_ids", format!("has token id {id}, but the vocabulary ends at {last}")))
            }
            None => Ok(()),
        }
    }

    /// Whether the chain changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chain.is_empty()
    }

    /// The `k` for which the chain leaves only the best `k` tokens (more if they tie); none if it may leave others.
    pub(super) fn keeps_best(&self) -> Option<usize> {
        match self.chain[..] {
            [Processor::TopK(k), ..] | [Processor::Temperature(_), Processor::TopK(k), ..] => Some(k),
            _ => None,
        }
    }

    /// Applies the chain to the logits (V) of the token after `ids`: the end of a prompt of `prompt` tokens and `generated`
    /// generated ones. Tokens that are ruled out become `-inf`.
    pub fn apply(&self, logits: &mut [f32], ids: &[u32], prompt: usize, generated: usize) {
        let keep = self.min_tokens_to_keep;
        for processor in &self.chain {
            match processor {
                Processor::RepetitionPenalty(penalty) => penalties::repetition_penalty(logits, ids, *penalty),
                Processor::NoRepeatNgram(n) => penalties::no_repeat_ngram(logits, ids, *n),
                Processor::BadWords(words) => penalties::bad_words(logits, ids, words),
                Processor::MinTokens { min_new_tokens, min_length, eos_token_id } => {
                    if generated < *min_new_tokens || prompt + generated < *min_length {
                        penalties::ban(logits, eos_token_id);
                    }
                }
                Processor::Temperature(temperature) => warpers::temperature(logits, *temperature),
                Processor::TopK(k) => warpers::top_k(logits, *k),
                Processor::TopP(p) => warpers::top_p(logits, *p, keep),
                Processor::MinP(p) => warpers::min_p(logits, *p, keep),
                Processor::TypicalP(mass) => warpers::typical_p(logits, *mass, keep),
                Processor::EpsilonCutoff(epsilon) => warpers::epsilon_cutoff(logits, *epsilon, keep),
                Processor::EtaCutoff(epsilon) => warpers::eta_cutoff(logits, *epsilon, keep),
            }
        }
    }
}

/// Fails if `largest`, the best score after the processors, shows that they left nothing to choose from.
pub(crate) fn check_choice(largest: f32) -> Result<()> {
    if largest.is_finite() {
        return Ok(());
    }
    Err(Error::Numerics(if largest == f32::NEG_INFINITY {
        "every token is ruled out: loosen `bad_words`, `no_repeat_ngram_size` or `min_new_tokens`".into()
    } else {
        "the scores overflow: raise `temperature`, or bring `repetition_penalty` closer to 1".into()
    }))
}

#[cfg(test)]
mod tests {
    use super::check_choice;

    #[test]
    fn leaving_nothing_to_choose_from_is_an_error() {
        assert!(check_choice(-4.0).is_ok());
        for largest in [f32::NEG_INFINITY, f32::INFINITY, f32::NAN] {
            assert!(check_choice(largest).is_err(), "{largest}");
        }
    }
}
