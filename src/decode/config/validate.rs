//! The ranges of the parameters, and which exclude each other.

use super::{Beam, Decoding, Draft, GenerationConfig, Single, Strategy};
use crate::decode::processors::Processors;
use crate::decode::stop::StopRules;
use crate::error::{Error, Result};

/// The most beams, or candidates of a contrastive search: each is a row of the model.
const MOST_BEAMS: usize = 1024;
/// The most samples of one prompt.
const MOST_SAMPLES: usize = 1 << 16;
/// The smallest temperature: what is below makes logits overflow, and is greedy search anyway.
const LEAST_TEMPERATURE: f64 = 1e-30;

/// The error that says which values `flag` takes.
fn range(flag: &str, value: impl std::fmt::Display, allowed: &str) -> Error {
    Error::Usage(format!("{flag} is {value}; {allowed}"))
}

/// Fails unless `value` is in the range that `contains` describes; `allowed` says so in words.
fn check(flag: &str, value: Option<f64>, contains: impl Fn(f64) -> bool, allowed: &str) -> Result<()> {
    value.filter(|&x| !(x.is_finite() && contains(x))).map_or(Ok(()), |x| Err(range(flag, x, allowed)))
}

impl GenerationConfig {
    /// Checks every value and every combination.
    ///
    /// # Errors
    /// [`Error::Usage`], naming the command line's flag, its value and what is allowed.
    pub fn validate(&self) -> Result<Decoding> {
        self.check_values()?;
        let strategy = self.strategy()?;
        let (warpers, min_tokens_to_keep) = match &strategy {
            Strategy::Single(single) => (single.sample, 1),
            // With beams, one token that does not end the sequence has to survive.
            Strategy::Beam(beam) => (beam.sample, self.eos_token_id.len().max(1) + 1),
            Strategy::GroupBeam { .. } | Strategy::Contrastive { .. } => (false, 1),
        };
        Ok(Decoding {
            strategy,
            processors: Processors::new(self, warpers, min_tokens_to_keep),
            stop: StopRules { eos_token_id: self.eos_token_id.clone(), stop_strings: self.stop.clone() },
            max_new_tokens: self.max_new_tokens,
            on_context_limit: self.on_context_limit,
            logprobs: self.logprobs,
            seed: self.seed,
            least_vocab_size: self.bad_words_ids.iter().flatten().max().map_or(0, |&id| id as usize + 1),
        })
    }

    /// The processors that the configuration asks for, those that shape the distribution for sampling among them: what
    /// the distribution over the next token looks like under them.
    ///
    /// # Errors
    /// [`Error::Usage`], as [`Self::validate`].
    pub fn processors(&self) -> Result<Processors> {
        self.check_values()?;
        Ok(Processors::new(self, true, 1))
    }

    /// Whether a parameter is given that only sampling uses. `top_k` belongs to contrastive search where that is on.
    fn shapes_distribution(&self) -> bool {
        let warpers = [self.temperature, self.top_p, self.min_p, self.typical_p, self.epsilon_cutoff, self.eta_cutoff];
        warpers.iter().any(Option::is_some) || (self.top_k.is_some() && self.penalty_alpha.is_none())
    }

    fn check_values(&self) -> Result<()> {
        if self.max_new_tokens == 0 {
            return Err(range("--max-new-tokens", 0, "at least 1 token has to be generated"));
        }
        check(
            "--temperature",
            self.temperature,
            |x| x >= LEAST_TEMPERATURE,
            "allowed are numbers above 0; for greedy decoding leave out --sample and --temperature",
        )?;
        check("--top-p", self.top_p, |x| x > 0.0 && x <= 1.0, "allowed are numbers above 0, up to 1 (off)")?;
        check("--min-p", self.min_p, |x| (0.0..=1.0).contains(&x), "allowed are numbers from 0 to 1")?;
        check("--typical-p", self.typical_p, |x| x > 0.0 && x <= 1.0, "allowed are numbers above 0, up to 1 (off)")?;
        let cutoff = |x: f64| (0.0..1.0).contains(&x);
        check("--epsilon-cutoff", self.epsilon_cutoff, cutoff, "allowed are numbers from 0 (off), below 1")?;
        check("--eta-cutoff", self.eta_cutoff, cutoff, "allowed are numbers from 0 (off), below 1")?;
        let positive = |x: f64| x as f32 > 0.0 && (x as f32).is_finite();
        check(
            "--repetition-penalty",
            Some(self.repetition_penalty),
            positive,
            "allowed are numbers above 0 (1 is off)",
        )?;
        // Beyond, the power of a length is no f32.
        let length_penalty = |x: f64| x.abs() <= 10.0;
        check("--length-penalty", self.length_penalty, length_penalty, "allowed are numbers from -10 to 10")?;
        check("--diversity-penalty", self.diversity_penalty, positive, "allowed are numbers above 0")?;
        check("--penalty-alpha", self.penalty_alpha, |x| (0.0..=1.0).contains(&x), "allowed are numbers from 0 to 1")?;
        for (flag, value, most) in [
            ("--num-beams", self.num_beams, MOST_BEAMS),
            ("--num-beam-groups", self.num_beam_groups, MOST_BEAMS),
            ("--num-return-sequences", self.num_return_sequences, MOST_SAMPLES),
        ] {
            if value == 0 || value > most {
                return Err(range(flag, value, &format!("allowed are 1 to {most}")));
            }
        }
        if self.prompt_lookup_num_tokens == Some(0) {
            return Err(range("--prompt-lookup", 0, "allowed are numbers from 1"));
        }
        if self.bad_words_ids.iter().any(Vec::is_empty) {
            return Err(Error::Usage("--bad-words-ids holds a sequence without ids; give at least one id".into()));
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(Error::Usage("--stop is empty; give the text that should end the generation".into()));
        }
        Ok(())
    }

    fn strategy(&self) -> Result<Strategy> {
        let sample = self.do_sample || self.shapes_distribution();
        let beams = self.num_beams > 1;
        let assisted = self.assistant || self.prompt_lookup_num_tokens.is_some();
        let contrastive = self.penalty_alpha.is_some();
        let groups = self.num_beam_groups > 1;
        let excluded = [
            (contrastive && beams, "--penalty-alpha (contrastive search) and --num-beams exclude each other"),
            (contrastive && sample, "--penalty-alpha (contrastive search) and sampling exclude each other"),
            (contrastive && assisted, "--penalty-alpha (contrastive search) and assisted decoding exclude each other"),
            (
                beams && assisted,
                "--num-beams and assisted decoding (--assistant-model, --prompt-lookup) exclude each other",
            ),
            (
                self.assistant && self.prompt_lookup_num_tokens.is_some(),
                "--assistant-model and --prompt-lookup exclude each other",
            ),
            (groups && sample, "--num-beam-groups (diverse beam search) and sampling exclude each other"),
            (
                groups && !self.num_beams.is_multiple_of(self.num_beam_groups),
                "--num-beams is no multiple of --num-beam-groups",
            ),
            (
                groups && self.diversity_penalty.is_none(),
                "--num-beam-groups needs --diversity-penalty above 0, or all groups find the same",
            ),
            (!groups && self.diversity_penalty.is_some(), "--diversity-penalty needs --num-beam-groups above 1"),
            (!beams && self.length_penalty.is_some(), "--length-penalty needs --num-beams above 1"),
            (!beams && self.early_stopping.is_some(), "--early-stopping needs --num-beams above 1"),
            (
                self.num_return_sequences > 1 && !beams && !sample,
                "--num-return-sequences above 1 needs --sample or --num-beams: there is only one greedy sequence",
            ),
            (beams && self.num_return_sequences > self.num_beams, "--num-return-sequences is larger than --num-beams"),
        ];
        if let Some((_, message)) = excluded.iter().find(|(excluded, _)| *excluded) {
            return Err(Error::Usage((*message).into()));
        }
        if let Some(alpha) = self.penalty_alpha {
            return match self.top_k {
                Some(top_k @ 1..=MOST_BEAMS) => Ok(Strategy::Contrastive { penalty_alpha: alpha as f32, top_k }),
                Some(k) => Err(range("--top-k", k, &format!("with --penalty-alpha allowed are 1 to {MOST_BEAMS}"))),
                None => Err(Error::Usage("--penalty-alpha needs --top-k, the number of candidates".into())),
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
        let draft = match self.prompt_lookup_num_tokens {
            Some(n) => Draft::PromptLookup(n),
            None if self.assistant => Draft::Assistant,
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
            Err(Error::Usage(message)) => message,
            other => panic!("expected a usage error, got {other:?}"),
        }
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        type Set = fn(&mut GenerationConfig, f64);
        let cases: [(&str, Set, &[f64], &[f64]); 10] = [
            ("--temperature", |c, x| c.temperature = Some(x), &[0.0, -1.0], &[0.1, 1.0, 100.0]),
            ("--top-p", |c, x| c.top_p = Some(x), &[0.0, -0.1, 1.01], &[1e-9, 1.0]),
            ("--min-p", |c, x| c.min_p = Some(x), &[-0.1, 1.01], &[0.0, 1.0]),
            ("--typical-p", |c, x| c.typical_p = Some(x), &[0.0, 1.01], &[0.2, 1.0]),
            ("--epsilon-cutoff", |c, x| c.epsilon_cutoff = Some(x), &[-0.1, 1.0], &[0.0, 0.5]),
            ("--eta-cutoff", |c, x| c.eta_cutoff = Some(x), &[-0.1, 1.0], &[0.0, 0.5]),
            ("--repetition-penalty", |c, x| c.repetition_penalty = x, &[0.0, -1.0, 1e300, 1e-300], &[0.5, 1.0, 2.0]),
            ("--penalty-alpha", |c, x| (c.penalty_alpha, c.top_k) = (Some(x), Some(4)), &[-0.1, 1.1], &[0.0, 0.6, 1.0]),
            (
                "--length-penalty",
                |c, x| (c.num_beams, c.length_penalty) = (2, Some(x)),
                &[-1e300, 11.0],
                &[-1.0, 0.0, 2.0],
            ),
            (
                "--diversity-penalty",
                |c, x| (c.num_beams, c.num_beam_groups, c.diversity_penalty) = (4, 2, Some(x)),
                &[0.0, -1.0],
                &[0.5],
            ),
        ];
        for (flag, set, bad, good) in cases {
            for &x in bad.iter().chain(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY]) {
                assert!(refused(|c| set(c, x)).starts_with(&format!("{flag} is {x}; ")), "{flag} {x}");
            }
            for &x in good {
                let mut config = GenerationConfig::default();
                set(&mut config, x);
                assert!(config.validate().is_ok(), "{flag} {x}");
            }
        }
        assert!(refused(|c| c.max_new_tokens = 0).contains("--max-new-tokens"));
        assert!(refused(|c| c.num_beams = 0).contains("--num-beams"));
        assert!(refused(|c| c.num_beams = usize::MAX).contains("--num-beams"));
        assert!(refused(|c| c.num_return_sequences = 0).contains("--num-return-sequences"));
        assert!(refused(|c| c.prompt_lookup_num_tokens = Some(0)).contains("--prompt-lookup"));
        assert!(refused(|c| c.stop = vec![String::new()]).contains("--stop"));
        assert!(refused(|c| c.bad_words_ids = vec![vec![]]).contains("--bad-words-ids"));
    }

    #[test]
    fn two_strategies_at_once_are_refused() {
        assert!(refused(|c| c.num_return_sequences = 2).contains("--num-return-sequences"));
        assert!(refused(|c| (c.num_beams, c.num_return_sequences) = (2, 3)).contains("--num-return-sequences"));
        assert!(
            refused(|c| (c.num_beams, c.num_beam_groups, c.diversity_penalty) = (5, 2, Some(1.0))).contains("multiple")
        );
        assert!(refused(|c| (c.num_beams, c.num_beam_groups) = (4, 2)).contains("--diversity-penalty"));
        assert!(refused(|c| c.num_beam_groups = 2).contains("multiple"));
        assert!(refused(|c| c.diversity_penalty = Some(1.0)).contains("--num-beam-groups"));
        assert!(refused(|c| c.length_penalty = Some(1.0)).contains("--num-beams"));
        assert!(refused(|c| c.early_stopping = Some(EarlyStopping::Never)).contains("--num-beams"));
        assert!(refused(|c| c.penalty_alpha = Some(0.6)).contains("--top-k"));
        assert!(refused(|c| (c.penalty_alpha, c.top_k) = (Some(0.6), Some(0))).contains("--top-k"));
        let contrastive = |c: &mut GenerationConfig| (c.penalty_alpha, c.top_k) = (Some(0.6), Some(4));
        for change in [
            (|c| c.num_beams = 2) as fn(&mut GenerationConfig),
            |c| c.do_sample = true,
            |c| c.temperature = Some(0.7),
            |c| c.assistant = true,
            |c| c.prompt_lookup_num_tokens = Some(3),
            |c| c.num_return_sequences = 2,
        ] {
            refused(|c| {
                contrastive(c);
                change(c);
            });
        }
        assert!(refused(|c| (c.num_beams, c.assistant) = (2, true)).contains("--assistant-model"));
        assert!(refused(|c| (c.num_beams, c.prompt_lookup_num_tokens) = (2, Some(3))).contains("--prompt-lookup"));
        assert!(refused(|c| (c.assistant, c.prompt_lookup_num_tokens) = (true, Some(3))).contains("exclude"));
    }

    #[test]
    fn a_parameter_of_sampling_samples_unless_the_search_is_contrastive() {
        let draws = |config: GenerationConfig| config.validate().unwrap().draws();
        let base = GenerationConfig::default();
        assert!(!draws(base.clone()));
        assert!(draws(GenerationConfig { do_sample: true, ..base.clone() }));
        assert!(draws(GenerationConfig { top_k: Some(0), ..base.clone() }));
        assert!(draws(GenerationConfig { temperature: Some(1.0), num_beams: 3, ..base.clone() }));
        assert!(!draws(GenerationConfig { top_k: Some(4), penalty_alpha: Some(0.6), ..base.clone() }));
        assert!(!draws(GenerationConfig { repetition_penalty: 1.3, ..base }));
    }
}
