//! A checked configuration: a strategy, processors, stop rules.
//!
//! [`GenerationConfig`] is what a user writes; [`GenerationConfig::validate`] turns it into a [`Decoding`], in which
//! every value is in range and every parameter belongs to the chosen strategy.

use std::sync::Arc;

use super::parameters::{EarlyStopping, GenerationConfig, OnContextLimit};
use super::processors::Processors;
use super::stop::StopRules;
use crate::error::Result;

/// A checked configuration: what [`Engine`](super::Engine) runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoding {
    pub(super) strategy: Strategy,
    // Shared by requests that differ only in their seeds: there may be thousands, with long lists.
    pub(super) processors: Arc<Processors>,
    pub(super) stop: Arc<StopRules>,
    pub(super) max_new_tokens: usize,
    /// The most tokens of prompt and continuation together, in place of `max_new_tokens`.
    pub(super) max_length: Option<usize>,
    /// Seconds after which no more tokens are generated.
    pub(super) max_time: Option<f64>,
    pub(super) on_context_limit: OnContextLimit,
    pub(super) logprobs: Option<usize>,
    /// Whether log-probabilities come with the model's own.
    pub(super) raw_logprobs: bool,
    pub(super) prompt: PromptLogprobs,
    pub(super) seed: u64,
}

/// Whether the prompt's own tokens get log-probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PromptLogprobs {
    No,
    /// And then it is continued.
    First,
    /// And that is all.
    Only,
}

impl Decoding {
    /// Whether the result depends on the seed.
    #[must_use]
    pub fn draws(&self) -> bool {
        match &self.strategy {
            Strategy::Single(single) => single.sample,
            Strategy::Beam(beam) => beam.sample,
            Strategy::GroupBeam { .. } | Strategy::Contrastive { .. } => false,
        }
    }

    /// Whether tokens are reported one by one ([`Event::Token`](super::Event::Token)) rather than only at the end.
    #[must_use]
    pub fn streams(&self) -> bool {
        matches!(self.strategy, Strategy::Single(_) | Strategy::Contrastive { .. })
    }

    /// The same, drawn with another seed.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The same, with the log-probabilities of the prompt's own tokens ([`Event::Prompt`](super::Event::Prompt)), before
    /// the processors, with as many alternatives as generated tokens have. If it does not continue, nothing is generated
    /// ([`Event::Finished`](super::Event::Finished) has no sequence). The prompt may have a token more than the context:
    /// it is only scored, and is continued only if the context may be cropped.
    #[must_use]
    pub fn with_prompt_logprobs(self, continues: bool) -> Self {
        Self { prompt: if continues { PromptLogprobs::First } else { PromptLogprobs::Only }, ..self }
    }

    /// Whether the engine needs a second model.
    #[must_use]
    pub fn needs_assistant(&self) -> bool {
        matches!(self.strategy, Strategy::Single(Single { draft: Draft::Assistant { .. }, .. }))
    }

    /// The prompt that guidance pushes away from, if there is guidance.
    pub(super) fn other_prompt<'a>(&'a self, prompt: &'a [u32]) -> Option<&'a [u32]> {
        self.processors.guidance().map(|guidance| guidance.other(prompt))
    }
}

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Strategy {
    /// Greedy search or sampling, each sequence on its own.
    Single(Single),
    /// Beam search or beam sample.
    Beam(Beam),
    /// Diverse beam search.
    GroupBeam { beam: Beam, num_beam_groups: usize, diversity_penalty: f32 },
    /// Contrastive search.
    Contrastive { penalty_alpha: f32, top_k: usize },
}

/// Greedy search or sampling.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Single {
    pub sample: bool,
    pub num_return_sequences: usize,
    pub draft: Draft,
}

/// Where guesses at the next tokens come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Draft {
    None,
    /// What followed an earlier occurrence of the last n-gram: at most so many tokens, after n-grams of at most `longest`
    /// tokens.
    PromptLookup {
        most: usize,
        longest: Option<usize>,
    },
    /// A second model: how many tokens it guesses at first, and the most; guesses end at one less probable than
    /// `least_probable`.
    Assistant {
        first: usize,
        most: usize,
        least_probable: f32,
    },
}

impl Draft {
    /// How many tokens are guessed at first, and the most.
    pub(super) fn guesses(&self) -> (usize, usize) {
        match *self {
            Self::None => (0, 0),
            Self::PromptLookup { most, .. } => (most, most),
            Self::Assistant { first, most, .. } => (first, most),
        }
    }

    pub(super) fn is_assistant(&self) -> bool {
        matches!(self, Self::Assistant { .. })
    }
}

/// The parameters that all beam searches share.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Beam {
    pub num_beams: usize,
    pub length_penalty: f64,
    pub early_stopping: EarlyStopping,
    pub num_return_sequences: usize,
    pub sample: bool,
}

impl GenerationConfig {
    /// Checks every value and every combination. Needs no model.
    ///
    /// # Errors
    /// [`Error::Parameter`](crate::Error::Parameter) with the parameter, its value and what is allowed.
    pub fn check(&self) -> Result<()> {
        let config = self.completed();
        config.check_values()?;
        config.strategy().map(|_| ())
    }

    /// Checks every value and every combination, and returns the resulting [`Decoding`].
    ///
    /// # Errors
    /// [`Error::Parameter`](crate::Error::Parameter) with the parameter, its value and what is allowed; also if `bad_words` has not been turned
    /// into ids with [`encode_texts`](Self::encode_texts).
    pub fn validate(&self) -> Result<Decoding> {
        let config = self.completed();
        config.check_values()?;
        let strategy = config.strategy()?;
        config.check_encoded()?;
        config.check_end()?;
        let eos_token_id = config.ends();
        let (warpers, min_tokens_to_keep) = match &strategy {
            Strategy::Single(single) => (single.sample, 1),
            // With beams, at least one token that does not end the sequence has to survive.
            Strategy::Beam(beam) => (beam.sample, eos_token_id.len().max(1) + 1),
            Strategy::GroupBeam { .. } | Strategy::Contrastive { .. } => (false, 1),
        };
        Ok(Decoding {
            strategy,
            processors: Arc::new(Processors::new(&config, warpers, min_tokens_to_keep)),
            stop: Arc::new(StopRules { eos_token_id: eos_token_id.to_vec(), stop_strings: config.stop.clone() }),
            max_new_tokens: config.max_new_tokens,
            max_length: config.max_length,
            on_context_limit: config.on_context_limit,
            max_time: config.max_time,
            logprobs: config.logprobs.or(config.raw_logprobs.then_some(0)),
            raw_logprobs: config.raw_logprobs,
            prompt: PromptLogprobs::No,
            seed: config.seed.unwrap_or_default(),
        })
    }

    /// The processors that the configuration asks for, including those that shape the distribution for sampling. They
    /// show what the distribution of the next token looks like after processing.
    ///
    /// # Errors
    /// As [`Self::validate`].
    pub fn processors(&self) -> Result<Processors> {
        let config = self.completed();
        config.check_values()?;
        config.check_processors()?;
        config.check_encoded()?;
        config.check_end()?;
        Ok(Processors::new(&config, true, 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::parameters::number;
    use crate::error::Error;

    /// What is wrong with the configuration that `change` makes.
    #[track_caller]
    fn refused(change: impl Fn(&mut GenerationConfig)) -> String {
        let mut config = GenerationConfig::default();
        change(&mut config);
        match config.validate() {
            Err(Error::Parameter { parameter, message }) => {
                assert!(message.starts_with(&format!("`{parameter}` ")), "{message}");
                message
            }
            other => panic!("expected an error about a parameter, got {other:?}"),
        }
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        type Set = fn(&mut GenerationConfig, f64);
        let cases: [(&str, Set, &[f64], &[f64]); 10] = [
            ("`temperature`", |c, x| c.temperature = Some(x), &[0.0, -1.0], &[0.1, 1.0, 100.0]),
            ("`top_p`", |c, x| c.top_p = Some(x), &[0.0, -0.1, 1.01], &[1e-9, 1.0]),
            ("`min_p`", |c, x| c.min_p = Some(x), &[-0.1, 1.01], &[0.0, 1.0]),
            ("`typical_p`", |c, x| c.typical_p = Some(x), &[0.0, 1.01], &[0.2, 1.0]),
            ("`epsilon_cutoff`", |c, x| c.epsilon_cutoff = Some(x), &[-0.1, 1.0], &[0.0, 0.5]),
            ("`eta_cutoff`", |c, x| c.eta_cutoff = Some(x), &[-0.1, 1.0], &[0.0, 0.5]),
            ("`repetition_penalty`", |c, x| c.repetition_penalty = x, &[0.0, -1.0, 1e300, 1e-300], &[0.5, 1.0, 2.0]),
            ("`penalty_alpha`", |c, x| (c.penalty_alpha, c.top_k) = (Some(x), Some(4)), &[-0.1, 1.1], &[0.0, 0.6, 1.0]),
            (
                "`length_penalty`",
                |c, x| (c.num_beams, c.length_penalty) = (2, Some(x)),
                &[-1e300, 11.0],
                &[-1.0, 0.0, 2.0],
            ),
            (
                "`diversity_penalty`",
                |c, x| (c.num_beams, c.num_beam_groups, c.diversity_penalty) = (4, 2, Some(x)),
                &[0.0, -1.0],
                &[0.5],
            ),
        ];
        for (name, set, bad, good) in cases {
            for &x in bad.iter().chain(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY]) {
                let message = refused(|c| set(c, x));
                assert!(message.starts_with(&format!("{name} takes a number")), "{message}");
                assert!(message.contains(&format!(", not {}", number(x))), "{message}");
            }
            for &x in good {
                let mut config = GenerationConfig::default();
                set(&mut config, x);
                assert!(config.validate().is_ok(), "{name} {x}");
            }
        }
        assert!(refused(|c| c.max_new_tokens = 0).contains("`max_new_tokens`"));
        assert!(refused(|c| c.num_beams = 0).contains("`num_beams`"));
        assert!(refused(|c| c.num_beams = usize::MAX).contains("`num_beams`"));
        assert!(refused(|c| c.num_return_sequences = 0).contains("`num_return_sequences`"));
        assert!(refused(|c| c.prompt_lookup = Some(0)).contains("`prompt_lookup`"));
        assert!(refused(|c| c.stop = vec![String::new()]).contains("`stop`"));
        assert!(refused(|c| c.bad_words_ids = vec![vec![]]).contains("`bad_words_ids`"));
    }

    #[test]
    fn sampling_parameters_imply_sampling_except_in_contrastive_search() {
        let draws = |config: GenerationConfig| config.validate().unwrap().draws();
        let base = GenerationConfig::default();
        assert!(!draws(base.clone()));
        assert!(draws(GenerationConfig { sample: true, ..base.clone() }));
        assert!(draws(GenerationConfig { top_k: Some(0), ..base.clone() }));
        assert!(draws(GenerationConfig { temperature: Some(1.0), num_beams: 3, ..base.clone() }));
        assert!(!draws(GenerationConfig { top_k: Some(4), penalty_alpha: Some(0.6), ..base.clone() }));
        assert!(!draws(GenerationConfig { repetition_penalty: 1.3, ..base }));
    }
}
