//! Logits processors: changes to the scores of the next token before one is chosen.
//!
//! Each is a pure function on one row; [`Processors`] is the chain in transformers' order.
//!
//! Reference: transformers 5.23.0, `generation/logits_process.py` and, for the order, `_get_logits_processor` in
//! `generation/utils.py`. OpenAI's logit bias stands where `sequence_bias` does, its two penalties after
//! `repetition_penalty`.

mod penalties;
mod warpers;

use super::parameters::GenerationConfig;
use crate::error::{Error, Result};

/// One step of the chain, with its parameters.
#[derive(Debug, Clone, PartialEq)]
enum Processor {
    /// Added to the scores of tokens.
    LogitBias(Vec<(u32, f32)>),
    RepetitionPenalty(f32),
    /// For what has been generated.
    OccurrencePenalties {
        presence: f32,
        frequency: f32,
    },
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
        let biases: Vec<_> = config.logit_bias.iter().map(|(id, bias)| (*id, *bias as f32)).collect();
        if biases.iter().any(|(_, bias)| *bias != 0.0) {
            chain.push(Processor::LogitBias(biases));
        }
        if config.repetition_penalty != 1.0 {
            chain.push(Processor::RepetitionPenalty(config.repetition_penalty as f32));
        }
        let (presence, frequency) = (config.presence_penalty as f32, config.frequency_penalty as f32);
        if presence != 0.0 || frequency != 0.0 {
            chain.push(Processor::OccurrencePenalties { presence, frequency });
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
        let is_outside = |id: &u32| *id as usize >= vocab_size;
        let outside = |processor: &Processor| match processor {
            Processor::LogitBias(biases) => {
                biases.iter().map(|(id, _)| *id).find(is_outside).map(|id| ("logit_bias", id))
            }
            Processor::BadWords(words) => {
                words.iter().flatten().copied().find(is_outside).map(|id| ("bad_words_ids", id))
            }
            _ => None,
        };
        match self.chain.iter().find_map(outside) {
            Some((name, id)) => {
                let last = vocab_size - 1;
                Err(Error::parameter(name, format!("has token id {id}, but the vocabulary ends at {last}")))
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

    /// Applies the chain to the logits (V) of the token after `ids`, the end of a prompt of `prompt` tokens and of what has
    /// been `generated` after it. Tokens that are ruled out become `-inf`.
    pub fn apply(&self, logits: &mut [f32], ids: &[u32], prompt: usize, generated: &[u32]) {
        let keep = self.min_tokens_to_keep;
        for processor in &self.chain {
            match processor {
                Processor::LogitBias(biases) => penalties::logit_bias(logits, biases),
                Processor::RepetitionPenalty(penalty) => penalties::repetition_penalty(logits, ids, *penalty),
                Processor::OccurrencePenalties { presence, frequency } => {
                    penalties::occurrence_penalties(logits, generated, *presence, *frequency);
                }
                Processor::NoRepeatNgram(n) => penalties::no_repeat_ngram(logits, ids, *n),
                Processor::BadWords(words) => penalties::bad_words(logits, ids, words),
                Processor::MinTokens { min_new_tokens, min_length, eos_token_id } => {
                    if generated.len() < *min_new_tokens || prompt + generated.len() < *min_length {
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
