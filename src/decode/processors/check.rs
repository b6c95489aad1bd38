//! Whether the processors fit a model's vocabulary.

use super::{Processor, Processors};
use crate::error::{Error, Result};

impl Processors {
    /// Checks that all ids in the chain are tokens of a model with this vocabulary, after a prompt of `prompt` tokens (0 if
    /// that is not known yet).
    ///
    /// # Errors
    /// [`Error::Parameter`] with the parameter that has an id outside the vocabulary, or that leaves no token.
    pub fn check(&self, vocab_size: usize, prompt: usize) -> Result<()> {
        let last = vocab_size - 1;
        let outside = |name, ids: &[u32]| match ids.iter().find(|id| **id as usize > last) {
            Some(id) => Err(Error::parameter(name, format!("has token id {id}, but the vocabulary ends at {last}"))),
            None => Ok(()),
        };
        if let Some(ids) = &self.negative_prompt_ids {
            outside("negative_prompt_ids", ids)?;
        }
        let (mut suppressed, mut at_first): (&[u32], &[u32]) = (&[], &[]);
        for processor in &self.chain {
            match processor {
                Processor::LogitBias(biases) => {
                    biases.iter().try_for_each(|(id, _)| outside("logit_bias", &[*id]))?;
                }
                Processor::SequenceBias(biases) => {
                    biases.iter().try_for_each(|(ids, _)| outside("sequence_bias", ids))?;
                }
                Processor::BadWords(words) => words.iter().try_for_each(|word| outside("bad_words_ids", word))?,
                Processor::ForcedEos { ids, .. } => outside("forced_eos_token_id", ids)?,
                // Elsewhere it does nothing.
                Processor::ForcedBos(id) if prompt == 1 => outside("forced_bos_token_id", &[*id])?,
                Processor::Decay { eos_token_id, .. } => {
                    if let Some(id) = eos_token_id.iter().find(|id| **id as usize > last) {
                        let fault = format!(
                            "needs an end-of-text token, and the vocabulary, which ends at {last}, has no {id}"
                        );
                        return Err(Error::parameter("exponential_decay_length_penalty", fault));
                    }
                }
                Processor::Suppress(ids) => suppressed = ids,
                Processor::BeginSuppress { ids, .. } => at_first = ids,
                _ => {}
            }
        }
        let forced = |processor: &Processor| match processor {
            Processor::ForcedBos(id) if prompt == 1 => suppressed.contains(id).then_some("forced_bos_token_id"),
            _ => None,
        };
        if let Some(name) = self.chain.iter().find_map(forced) {
            return Err(Error::parameter(name, "is among `suppress_tokens`: leave one of them out"));
        }
        let leaves_none = |ids: &mut dyn Iterator<Item = &u32>| {
            let mut kept = vec![true; vocab_size];
            ids.for_each(|id| kept.get_mut(*id as usize).into_iter().for_each(|kept| *kept = false));
            !kept.contains(&true)
        };
        if suppressed.len() >= vocab_size && leaves_none(&mut suppressed.iter()) {
            return Err(Error::parameter("suppress_tokens", "has every token of the vocabulary, which leaves none"));
        }
        let both = suppressed.len() + at_first.len();
        if !at_first.is_empty() && both >= vocab_size && leaves_none(&mut suppressed.iter().chain(at_first)) {
            let fault = "has every token that may be generated, which leaves none to begin with";
            return Err(Error::parameter("begin_suppress_tokens", fault));
        }
        Ok(())
    }
}
