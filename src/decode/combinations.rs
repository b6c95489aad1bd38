//! Which parameters go together, and the strategy that they ask for.

use std::collections::HashSet;

use super::decoding::{Beam, Draft, Single, Strategy};
use super::parameters::{GenerationConfig, MOST_BEAMS};
use super::single::ASSISTANT_GUESSES;
use crate::error::{Error, Result};

impl GenerationConfig {
    /// Fails if a text has not been turned into ids yet.
    pub(super) fn check_encoded(&self) -> Result<()> {
        let texts = [
            (self.bad_words.is_empty(), "bad_words"),
            (!self.logit_bias.has_texts(), "logit_bias"),
            (self.negative_prompt.is_none(), "negative_prompt"),
        ];
        if let Some((_, name)) = texts.iter().find(|(is_encoded, _)| !is_encoded) {
            return Err(Error::parameter(name, "must be turned into ids first"));
        }
        match self.constraint_source()? {
            Some(source) if self.constraint.is_none() => Err(Error::parameter(source.name(), "must be compiled first")),
            _ => Ok(()),
        }
    }

    /// Fails if a parameter needs an end of text and there is none. It is the model's, so it is not known before.
    pub(super) fn check_end(&self) -> Result<()> {
        if self.exponential_decay_length_penalty.is_some() && self.ends().is_empty() {
            let why = if self.ignore_eos { "`ignore_eos` leaves none" } else { "the model has none" };
            let fault = format!("needs an end-of-text token, and {why}");
            return Err(Error::parameter("exponential_decay_length_penalty", fault));
        }
        Ok(())
    }

    /// Checks which processors can be combined.
    pub(super) fn check_processors(&self) -> Result<()> {
        self.constraint_source()?;
        let forced = &self.forced_eos_token_id;
        let suppressed: HashSet<u32> = self.suppress_tokens.iter().copied().collect();
        let excluded = [
            (
                self.negative_prompt.is_some() && self.negative_prompt_ids.is_some(),
                "negative_prompt",
                "and `negative_prompt_ids` say the same: leave one of them out",
            ),
            (
                self.negative_prompt.is_some() && self.guidance_scale.is_none(),
                "negative_prompt",
                "needs `guidance_scale`, which says how far to push away from it",
            ),
            (
                self.negative_prompt_ids.is_some() && self.guidance_scale.is_none(),
                "negative_prompt_ids",
                "needs `guidance_scale`, which says how far to push away from it",
            ),
            (
                !forced.is_empty() && forced.iter().all(|id| suppressed.contains(id)),
                "forced_eos_token_id",
                "has no token that `suppress_tokens` does not ban: leave one of them out",
            ),
        ];
        if let Some((_, parameter, problem)) = excluded.iter().find(|(excluded, ..)| *excluded) {
            return Err(Error::parameter(parameter, *problem));
        }
        let banned: HashSet<u32> = self.bad_words_ids.iter().filter_map(|word| word.last().copied()).collect();
        let forced = self.sequence_bias.iter().filter(|(_, bias)| *bias == f64::INFINITY);
        match forced.filter_map(|(ids, _)| ids.last()).find(|id| banned.contains(id)) {
            Some(id) => {
                let fault = format!("forces token {id} with inf, and `bad_words_ids` bans it: leave one of them out");
                Err(Error::parameter("sequence_bias", fault))
            }
            None => Ok(()),
        }
    }

    /// Whether a parameter is set that only sampling uses. In contrastive search `top_k` is not one of them.
    fn shapes_distribution(&self) -> bool {
        let masses = [self.top_h, self.top_p, self.min_p, self.typical_p];
        let warpers = [self.temperature, self.epsilon_cutoff, self.eta_cutoff];
        masses.iter().chain(&warpers).any(Option::is_some) || (self.top_k.is_some() && self.penalty_alpha.is_none())
    }

    /// Whether tokens are drawn.
    pub(super) fn samples(&self) -> bool {
        self.sample || self.shapes_distribution()
    }

    pub(super) fn strategy(&self) -> Result<Strategy> {
        self.check_processors()?;
        let sample = self.samples();
        let beams = self.num_beams > 1;
        let assisted = self.assistant || self.prompt_lookup.is_some();
        let contrastive = self.penalty_alpha.is_some();
        let groups = self.num_beam_groups > 1;
        let excluded = [
            (contrastive && beams, "penalty_alpha", "(contrastive search) cannot be combined with `num_beams`"),
            (
                contrastive && sample,
                "penalty_alpha",
                "(contrastive search) cannot be combined with sampling (`sample`, or what implies it)",
            ),
            (
                contrastive && assisted,
                "penalty_alpha",
                "(contrastive search) cannot be combined with assisted decoding",
            ),
            (
                beams && assisted,
                "num_beams",
                "cannot be combined with assisted decoding (`assistant_model`, `prompt_lookup`)",
            ),
            (
                self.assistant && self.prompt_lookup.is_some(),
                "prompt_lookup",
                "cannot be combined with `assistant_model`",
            ),
            (
                self.max_matching_ngram_size.is_some() && self.prompt_lookup.is_none(),
                "max_matching_ngram_size",
                "needs `prompt_lookup`",
            ),
            (self.num_assistant_tokens.is_some() && !self.assistant, "num_assistant_tokens", "needs `assistant_model`"),
            (
                self.assistant_confidence_threshold.is_some() && !self.assistant,
                "assistant_confidence_threshold",
                "needs `assistant_model`",
            ),
            (
                groups && sample,
                "num_beam_groups",
                "(diverse beam search) cannot be combined with sampling (`sample`, or what implies it)",
            ),
            (
                groups && !self.num_beams.is_multiple_of(self.num_beam_groups),
                "num_beams",
                "must be a multiple of `num_beam_groups`",
            ),
            (
                groups && self.diversity_penalty.is_none(),
                "num_beam_groups",
                "needs `diversity_penalty` above 0, or all groups find the same sequences",
            ),
            (!groups && self.diversity_penalty.is_some(), "diversity_penalty", "needs `num_beam_groups` above 1"),
            (!beams && self.length_penalty.is_some(), "length_penalty", "needs `num_beams` above 1"),
            (!beams && self.early_stopping.is_some(), "early_stopping", "needs `num_beams` above 1"),
            (
                self.num_return_sequences > 1 && !beams && !sample,
                "num_return_sequences",
                "above 1 needs `sample` or `num_beams`: there is only one greedy sequence",
            ),
            (beams && self.num_return_sequences > self.num_beams, "num_return_sequences", "is larger than `num_beams`"),
        ];
        if let Some((_, parameter, problem)) = excluded.iter().find(|(excluded, ..)| *excluded) {
            return Err(Error::parameter(parameter, problem));
        }
        if let Some(alpha) = self.penalty_alpha {
            return match self.top_k {
                Some(top_k @ 1..=MOST_BEAMS) => Ok(Strategy::Contrastive { penalty_alpha: alpha as f32, top_k }),
                Some(k) => Err(Error::parameter(
                    "top_k",
                    format!("with `penalty_alpha` takes a whole number from 1 to {MOST_BEAMS}, not {k}"),
                )),
                None => Err(Error::parameter("penalty_alpha", "needs `top_k`, the number of candidates")),
            };
        }
        if beams {
            let beam = Beam {
                num_beams: self.num_beams,
                length_penalty: self.length_penalty.unwrap_or(1.0),
                early_stopping: self.early_stopping.unwrap_or_default(),
                num_return_sequences: self.num_return_sequences,
                sample,
            };
            return Ok(match self.diversity_penalty {
                Some(penalty) => Strategy::GroupBeam {
                    beam,
                    num_beam_groups: self.num_beam_groups,
                    diversity_penalty: penalty as f32,
                },
                None => Strategy::Beam(beam),
            });
        }
        let draft = match self.prompt_lookup {
            Some(most) => Draft::PromptLookup { most, longest: self.max_matching_ngram_size },
            None if self.assistant => {
                let (first, most) = self.num_assistant_tokens.map_or(ASSISTANT_GUESSES, |n| (n, n));
                let least_probable = self.assistant_confidence_threshold.unwrap_or_default() as f32;
                Draft::Assistant { first, most, least_probable }
            }
            None => Draft::None,
        };
        Ok(Strategy::Single(Single { sample, num_return_sequences: self.num_return_sequences, draft }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::EarlyStopping;

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
    fn conflicting_strategies_are_refused() {
        assert!(refused(|c| c.num_return_sequences = 2).contains("`num_return_sequences`"));
        assert!(refused(|c| (c.num_beams, c.num_return_sequences) = (2, 3)).contains("`num_return_sequences`"));
        assert!(
            refused(|c| (c.num_beams, c.num_beam_groups, c.diversity_penalty) = (5, 2, Some(1.0))).contains("multiple")
        );
        assert!(refused(|c| (c.num_beams, c.num_beam_groups) = (4, 2)).contains("`diversity_penalty`"));
        assert!(refused(|c| c.num_beam_groups = 2).contains("multiple"));
        assert!(refused(|c| c.diversity_penalty = Some(1.0)).contains("`num_beam_groups`"));
        assert!(refused(|c| c.length_penalty = Some(1.0)).contains("`num_beams`"));
        assert!(refused(|c| c.early_stopping = Some(EarlyStopping::Never)).contains("`num_beams`"));
        assert!(refused(|c| c.penalty_alpha = Some(0.6)).contains("`top_k`"));
        assert!(refused(|c| (c.penalty_alpha, c.top_k) = (Some(0.6), Some(0))).contains("`top_k`"));
        let contrastive = |c: &mut GenerationConfig| (c.penalty_alpha, c.top_k) = (Some(0.6), Some(4));
        for change in [
            (|c| c.num_beams = 2) as fn(&mut GenerationConfig),
            |c| c.sample = true,
            |c| c.temperature = Some(0.7),
            |c| c.assistant = true,
            |c| c.prompt_lookup = Some(3),
            |c| c.num_return_sequences = 2,
        ] {
            refused(|c| {
                contrastive(c);
                change(c);
            });
        }
        assert!(refused(|c| (c.num_beams, c.assistant) = (2, true)).contains("`assistant_model`"));
        assert!(refused(|c| (c.num_beams, c.prompt_lookup) = (2, Some(3))).contains("`prompt_lookup`"));
        assert!(refused(|c| (c.assistant, c.prompt_lookup) = (true, Some(3))).contains("`assistant_model`"));
    }
}
