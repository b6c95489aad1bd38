//! Logits processors: changes to the scores of the next token before one is chosen.
//!
//! Each is a pure function on one row; [`Processors`] is the chain in transformers' order.
//!
//! Reference: transformers 5.23.0, `generation/logits_process.py` and, for the order, `_get_logits_processor` in
//! `generation/utils.py`. OpenAI's logit bias stands beside `sequence_bias`, its two penalties after
//! `repetition_penalty`. (transformers has the penalty and the bans that look at the prompt for encoders, and gives them
//! the prompt of a model that has none.)

mod chain;
mod check;
mod guidance;
mod penalties;
mod warpers;

pub use guidance::Guidance;

use super::constraint::Constrained;
use super::parameters::GenerationConfig;
use crate::base::math;
use crate::error::{Error, Result};
use crate::logits;

/// One step of the chain, with its parameters.
#[derive(Debug, Clone, PartialEq)]
enum Processor {
    /// Added to the scores of tokens.
    LogitBias(Vec<(u32, f32)>),
    /// Added to the score of the last of a sequence of ids, after the others.
    SequenceBias(Vec<(Vec<u32>, f32)>),
    /// A repetition penalty for the prompt's tokens.
    EncoderRepetitionPenalty(f32),
    RepetitionPenalty(f32),
    /// For what has been generated.
    OccurrencePenalties {
        presence: f32,
        frequency: f32,
    },
    NoRepeatNgram(usize),
    EncoderNoRepeatNgram(usize),
    BadWords(Vec<Vec<u32>>),
    /// No end of text among the first `min_new_tokens`, nor before prompt and continuation have `min_length`.
    MinTokens {
        min_new_tokens: usize,
        min_length: usize,
        eos_token_id: Vec<u32>,
    },
    ForcedBos(u32),
    /// The last token of as many as there may be.
    ForcedEos {
        ids: Vec<u32>,
        max_new_tokens: usize,
        max_length: Option<usize>,
    },
    Decay {
        start: i64,
        factor: f64,
        eos_token_id: Vec<u32>,
    },
    Suppress(Vec<u32>),
    /// At the first token that is not forced.
    BeginSuppress {
        ids: Vec<u32>,
        forced_bos: bool,
    },
    Temperature(f32),
    TopH(f32),
    TopK(usize),
    TopP(f64),
    MinP(f32),
    TypicalP(f32),
    EpsilonCutoff(f32),
    EtaCutoff(f32),
    Renormalize,
}

/// The processors of a configuration, in transformers' order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Processors {
    /// Before the chain.
    guidance: Option<Guidance>,
    /// What changes scores whether tokens are drawn or not.
    chain: Vec<Processor>,
    /// What the text has to be. After everything that might force another token, and before the warpers, so that what is
    /// not allowed takes no place among the best.
    constraint: Option<Constrained>,
    /// What shapes the distribution for sampling, and what comes last.
    warpers: Vec<Processor>,
    /// The number of tokens that the warpers always leave.
    min_tokens_to_keep: usize,
    /// The negative prompt, which has to be one even where it is not used.
    negative_prompt_ids: Option<Vec<u32>>,
}

impl Processors {
    /// The chain of a checked configuration. `warpers` says whether it includes the processors that shape the
    /// distribution for sampling; each of those keeps at least the best `min_tokens_to_keep` tokens.
    pub(super) fn new(config: &GenerationConfig, warpers: bool, min_tokens_to_keep: usize) -> Self {
        Self {
            guidance: Guidance::of(config),
            chain: chain::chain(config),
            constraint: Constrained::of(config),
            warpers: chain::warpers(config, warpers, min_tokens_to_keep),
            min_tokens_to_keep,
            negative_prompt_ids: config.negative_prompt_ids.clone(),
        }
    }

    /// Whether nothing is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.guidance.is_none() && self.chain.is_empty() && self.constraint.is_none() && self.warpers.is_empty()
    }

    /// What the logits are combined with before the chain, if they are.
    #[must_use]
    pub fn guidance(&self) -> Option<&Guidance> {
        self.guidance.as_ref()
    }

    /// The `k` for which only the best `k` tokens are left (more if they tie); none if others may be.
    pub(super) fn keeps_best(&self) -> Option<usize> {
        if self.guidance.is_some() || !self.chain.is_empty() || self.constraint.is_some() {
            return None;
        }
        match self.warpers[..] {
            [Processor::TopK(k), ..] | [Processor::Temperature(_), Processor::TopK(k), ..] => Some(k),
            _ => None,
        }
    }

    /// Whether the constraint can wait until a token is chosen, since nothing after it depends on what it rules out.
    pub(super) fn constraint_can_wait(&self) -> bool {
        self.constraint.is_some() && self.warpers.iter().all(|warper| matches!(warper, Processor::Temperature(_)))
    }

    /// As [`apply`](Self::apply) without the constraint.
    pub(super) fn apply_freely(
        &self,
        logits: &mut [f32],
        ids: &[u32],
        prompt: &[u32],
        generated: &[u32],
    ) -> Result<()> {
        self.apply_around(logits, ids, prompt, generated, |_, _| Ok(()))
    }

    /// Applies the chain to the logits (V) of the token after `prompt` and what has been `generated` after it, of which a
    /// step sees `ids`: all, or the last of them. Tokens that are ruled out become `-inf`. With [`guidance`](Self::guidance)
    /// the logits are what that makes of them.
    ///
    /// # Errors
    /// [`Error::Parameter`] if the constraint is too complex to be followed on.
    pub fn apply(&self, logits: &mut [f32], ids: &[u32], prompt: &[u32], generated: &[u32]) -> Result<()> {
        self.apply_around(logits, ids, prompt, generated, |constraint, logits| constraint.apply(logits, generated))
    }

    /// As [`apply`](Self::apply), and returns the probability of what the constraint ruled out, if there is one.
    ///
    /// # Errors
    /// Those of [`apply`](Self::apply).
    pub fn apply_and_measure(
        &self,
        logits: &mut [f32],
        ids: &[u32],
        prompt: &[u32],
        generated: &[u32],
    ) -> Result<Option<f64>> {
        let mut removed = None;
        self.apply_around(logits, ids, prompt, generated, |constraint, logits| {
            let mut probs = logits.to_vec();
            logits::log_softmax(&mut probs);
            constraint.apply(logits, generated)?;
            let ruled_out = probs.iter().zip(&*logits).filter(|(_, logit)| **logit == f32::NEG_INFINITY);
            removed = Some(ruled_out.map(|(logprob, _)| math::exp(f64::from(*logprob))).sum::<f64>().min(1.0));
            Ok(())
        })?;
        Ok(removed)
    }

    fn apply_around(
        &self,
        logits: &mut [f32],
        ids: &[u32],
        prompt: &[u32],
        generated: &[u32],
        constrain: impl FnOnce(&Constrained, &mut [f32]) -> Result<()>,
    ) -> Result<()> {
        self.chain.iter().for_each(|processor| self.apply_one(processor, logits, ids, prompt, generated));
        if let Some(constraint) = &self.constraint {
            constrain(constraint, logits)?;
        }
        self.warpers.iter().for_each(|processor| self.apply_one(processor, logits, ids, prompt, generated));
        Ok(())
    }

    /// What the text has to be, if that is said.
    pub(super) fn constraint(&self) -> Option<&Constrained> {
        self.constraint.as_ref()
    }

    /// Fails if `largest`, the best score of the token after the `generated` ones, shows that nothing is left to choose from.
    pub(crate) fn check_choice(&self, largest: f32, generated: &[u32]) -> Result<()> {
        let dead_end = || self.constraint.as_ref()?.dead_end(generated);
        match check_choice(largest) {
            Err(error) if largest == f32::NEG_INFINITY => Err(dead_end().unwrap_or(error)),
            Err(error) => Err(self.overflow().unwrap_or(error)),
            outcome => outcome,
        }
    }

    /// That the scores overflow, and what makes them that large.
    fn overflow(&self) -> Option<Error> {
        let advice = |processor: &Processor| match processor {
            Processor::EncoderRepetitionPenalty(_) => Some("bring `encoder_repetition_penalty` closer to 1"),
            Processor::RepetitionPenalty(_) => Some("bring `repetition_penalty` closer to 1"),
            Processor::Temperature(_) => Some("raise `temperature`"),
            _ => None,
        };
        let advice: Vec<&str> = self.chain.iter().chain(&self.warpers).filter_map(advice).collect();
        let fault = format!("the scores overflow: {}", advice.join(", or "));
        (!advice.is_empty()).then(|| Error::Numerics(fault))
    }

    fn apply_one(&self, processor: &Processor, logits: &mut [f32], ids: &[u32], prompt: &[u32], generated: &[u32]) {
        let keep = self.min_tokens_to_keep;
        match processor {
            Processor::LogitBias(biases) => penalties::logit_bias(logits, biases),
            Processor::SequenceBias(biases) => penalties::sequence_bias(logits, ids, biases),
            Processor::EncoderRepetitionPenalty(inverse) => penalties::repetition_penalty(logits, prompt, *inverse),
            Processor::RepetitionPenalty(penalty) => penalties::repetition_penalty(logits, ids, *penalty),
            Processor::OccurrencePenalties { presence, frequency } => {
                penalties::occurrence_penalties(logits, generated, *presence, *frequency);
            }
            Processor::NoRepeatNgram(n) => penalties::no_repeat_ngram(logits, ids, ids, *n),
            Processor::EncoderNoRepeatNgram(n) => penalties::no_repeat_ngram(logits, ids, prompt, *n),
            Processor::BadWords(words) => penalties::bad_words(logits, ids, words),
            Processor::MinTokens { min_new_tokens, min_length, eos_token_id } => {
                if generated.len() < *min_new_tokens || prompt.len() + generated.len() < *min_length {
                    penalties::ban(logits, eos_token_id);
                }
            }
            Processor::ForcedBos(id) => {
                if prompt.len() == 1 && generated.is_empty() {
                    penalties::force(logits, &[*id]);
                }
            }
            Processor::ForcedEos { ids: forced, max_new_tokens, max_length } => {
                let most = max_length.unwrap_or_else(|| prompt.len().saturating_add(*max_new_tokens));
                if prompt.len() + generated.len() + 1 == most {
                    penalties::force(logits, forced);
                }
            }
            Processor::Decay { start, factor, eos_token_id } => {
                let steps = (generated.len() as i64).saturating_sub(*start);
                penalties::decay(logits, eos_token_id, steps, *factor);
            }
            Processor::Suppress(tokens) => penalties::ban(logits, tokens),
            Processor::BeginSuppress { ids: tokens, forced_bos } => {
                if generated.len() == usize::from(*forced_bos && prompt.len() == 1) {
                    penalties::ban(logits, tokens);
                }
            }
            Processor::Temperature(temperature) => warpers::temperature(logits, *temperature),
            Processor::TopH(h) => warpers::top_h(logits, *h),
            Processor::TopK(k) => warpers::top_k(logits, *k),
            Processor::TopP(p) => warpers::top_p(logits, *p, keep),
            Processor::MinP(p) => warpers::min_p(logits, *p, keep),
            Processor::TypicalP(mass) => warpers::typical_p(logits, *mass, keep),
            Processor::EpsilonCutoff(epsilon) => warpers::epsilon_cutoff(logits, *epsilon, keep),
            Processor::EtaCutoff(epsilon) => warpers::eta_cutoff(logits, *epsilon, keep),
            // Where nothing is left, that is said later.
            Processor::Renormalize if logits::max(logits) == f32::NEG_INFINITY => {}
            Processor::Renormalize => logits::log_softmax(logits),
        }
    }
}

/// Fails if `largest`, the best score after the processors, shows that they left nothing to choose from.
fn check_choice(largest: f32) -> Result<()> {
    if largest.is_finite() {
        return Ok(());
    }
    Err(Error::Numerics(if largest == f32::NEG_INFINITY {
        "every token is ruled out: loosen what bans tokens, such as `bad_words`, `no_repeat_ngram_size`, `suppress_tokens` \
         or `min_new_tokens`, or the constraint"
            .into()
    } else {
        "the scores overflow".into()
    }))
}

#[cfg(test)]
mod tests {
    use super::check_choice;
    use crate::decode::table::{TableModel, scrambled};
    use crate::decode::{GenerationConfig, NoText, OnContextLimit, generate};
    use crate::language_model::LanguageModel;

    fn run(model: &mut dyn LanguageModel, prompt: &[u32], config: &GenerationConfig) -> Vec<Vec<u32>> {
        let decoding = config.validate().unwrap().into();
        let sequences = generate(model, &NoText, prompt, &decoding, |_| ()).unwrap();
        sequences.into_iter().map(|sequence| sequence.ids).collect()
    }

    /// Also where a plain search asks for no more than the most probable tokens.
    #[test]
    fn biases_and_penalties_act_as_if_the_model_had_them() {
        let (presence_penalty, frequency_penalty, bias) = (0.6, 0.45, [(5_u32, 2.5_f64), (9, -100.0)]);
        let base = GenerationConfig { max_new_tokens: 14, ..GenerationConfig::default() };
        let sample = GenerationConfig { sample: true, seed: Some(3), num_return_sequences: 4, ..base.clone() };
        for (name, config) in [
            ("greedy", base.clone()),
            ("prompt lookup", GenerationConfig { prompt_lookup: Some(3), ..base.clone() }),
            ("sampling", sample.clone()),
            ("among the best", GenerationConfig { top_k: Some(6), ..sample.clone() }),
            ("the best, warm", GenerationConfig { top_k: Some(3), temperature: Some(1.7), top_p: Some(0.9), ..sample }),
            ("contrastive", GenerationConfig { penalty_alpha: Some(0.4), top_k: Some(5), ..base }),
        ] {
            for prompt in [&[5][..], &[3, 5, 5, 8, 3, 5], &[0, 1, 2, 3]] {
                let penalised = |ids: &[u32]| {
                    let mut logits = scrambled(40, 64, 1).logits(ids);
                    bias.iter().for_each(|(id, bias)| logits[*id as usize] += *bias as f32);
                    for (id, logit) in (0..).zip(&mut logits) {
                        let count = ids.iter().skip(prompt.len()).filter(|other| **other == id).count() as f32;
                        *logit -= count * frequency_penalty as f32 + f32::from(count > 0.0) * presence_penalty as f32;
                    }
                    logits
                };
                let expected = run(&mut TableModel::new(40, 64, penalised), prompt, &config);
                let asked =
                    GenerationConfig { presence_penalty, frequency_penalty, logit_bias: bias.into(), ..config.clone() };
                let plain = run(&mut scrambled(40, 64, 1), prompt, &config);
                assert_eq!(run(&mut scrambled(40, 64, 1), prompt, &asked), expected, "{name} after {prompt:?}");
                assert_ne!(plain, expected, "{name} after {prompt:?}: they change something");
            }
        }
    }

    #[test]
    fn what_a_cropped_context_no_longer_sees_has_been_generated_all_the_same() {
        let config = GenerationConfig {
            max_new_tokens: 9,
            frequency_penalty: 1.0,
            on_context_limit: OnContextLimit::Crop,
            ..GenerationConfig::default()
        };
        let mut model = TableModel::new(3, 2, |_: &[u32]| vec![1.0, 0.5, 0.0]);
        // By hand; among ties the lowest id.
        assert_eq!(run(&mut model, &[0], &config), [[0, 1, 0, 2, 1, 0, 2, 1, 0]]);
    }

    #[test]
    fn the_first_of_single_beams_is_greedy() {
        let greedy = GenerationConfig {
            max_new_tokens: 12,
            presence_penalty: 0.7,
            frequency_penalty: 0.9,
            logit_bias: [(3, 1.5)].into(),
            ..GenerationConfig::default()
        };
        let groups = GenerationConfig {
            num_beams: 3,
            num_beam_groups: 3,
            num_return_sequences: 3,
            diversity_penalty: Some(50.0),
            ..greedy.clone()
        };
        for seed in 0..10 {
            let expected = run(&mut scrambled(40, 64, seed), &[1, 2], &greedy).remove(0);
            let found = run(&mut scrambled(40, 64, seed), &[1, 2], &groups);
            assert!(found.contains(&expected), "{seed}: {expected:?} is not among {found:?}");
        }
    }

    #[test]
    fn leaving_nothing_to_choose_from_is_an_error() {
        assert!(check_choice(-4.0).is_ok());
        for largest in [f32::NEG_INFINITY, f32::INFINITY, f32::NAN] {
            assert!(check_choice(largest).is_err(), "{largest}");
        }
    }
}
