//! Classifier-free guidance: away from the distribution after another prompt.

use crate::decode::parameters::GenerationConfig;
use crate::logits::LogNormalizer;

/// Scores beyond this are as good as certain, or impossible, and still add up.
pub(super) const EXTREME: f32 = 1e30;

/// A guidance that is on.
#[derive(Debug, Clone, PartialEq)]
pub struct Guidance {
    scale: f32,
    /// The prompt to push away from; none for the last token of the prompt itself.
    pub(super) negative_prompt_ids: Option<Vec<u32>>,
}

impl Guidance {
    pub(super) fn of(config: &GenerationConfig) -> Option<Self> {
        let scale = config.guidance_scale.filter(|scale| *scale != 1.0)? as f32;
        Some(Self { scale, negative_prompt_ids: config.negative_prompt_ids.clone() })
    }

    /// The other prompt.
    #[must_use]
    pub fn other<'a>(&'a self, prompt: &'a [u32]) -> &'a [u32] {
        self.negative_prompt_ids.as_deref().unwrap_or(&prompt[prompt.len().saturating_sub(1)..])
    }

    /// Combines the logits (V) of the token after the prompt and what has been generated with those after the other prompt
    /// and the same. Unless all are finite, none of the result is a number.
    ///
    /// `UnbatchedClassifierFreeGuidanceLogitsProcessor`; Sanchez et al. 2023, "Stay on Topic with Classifier-Free Guidance".
    pub fn apply(&self, logits: &mut [f32], other: &[f32]) {
        let (Ok(own), Ok(others)) = (LogNormalizer::of_finite(logits), LogNormalizer::of_finite(other)) else {
            return logits.fill(f32::NAN);
        };
        for (x, other) in logits.iter_mut().zip(other) {
            let (conditional, unconditional) = (own.log_prob(*x), others.log_prob(*other));
            let guided = self.scale * (conditional - unconditional) + unconditional;
            *x = guided.clamp(-EXTREME, EXTREME);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::table::{TableModel, scrambled};
    use crate::decode::{Engine, Event, NoText, OnContextLimit};
    use crate::language_model::LanguageModel;
    use crate::logits;

    fn guidance(scale: f64) -> Guidance {
        let config = GenerationConfig { guidance_scale: Some(scale), ..GenerationConfig::default() };
        Guidance::of(&config).unwrap()
    }

    #[test]
    fn the_log_probabilities_are_combined() {
        let (p, q) = ([0.5_f32, 0.3, 0.2], [0.1_f32, 0.3, 0.6]);
        for scale in [0.0, 0.5, 2.0, -1.0] {
            // Logits are log-probabilities up to a constant.
            let mut logits = p.map(|p| p.ln() + 3.0);
            guidance(scale).apply(&mut logits, &q.map(|q| q.ln() - 1.0));
            for ((x, p), q) in logits.into_iter().zip(p).zip(q) {
                let expected = f64::from(q.ln()) + scale * f64::from(p.ln() - q.ln());
                assert!((f64::from(x) - expected).abs() < 1e-5, "{scale}: {x}, not {expected}");
            }
        }
    }

    const VOCAB: usize = 40;
    const CONTEXT: usize = 64;

    /// The guided scores after `ids`, a prompt of so many tokens and what follows, from two runs without a past.
    fn guided(guidance: &Guidance, ids: &[u32], prompt: usize, context: usize) -> Vec<f32> {
        let model = scrambled(VOCAB, context, 1);
        let window = |ids: &[u32]| ids[ids.len().saturating_sub(context)..].to_vec();
        let other = [guidance.other(&ids[..prompt]), &ids[prompt..]].concat();
        let mut logits = model.logits(&window(ids));
        guidance.apply(&mut logits, &model.logits(&window(&other)));
        logits
    }

    fn run(model: &mut dyn LanguageModel, prompt: &[u32], config: &GenerationConfig) -> Vec<Vec<u32>> {
        let (mut assistant, decoding) = (scrambled(VOCAB, CONTEXT, 1), config.validate().unwrap().into());
        let mut engine = Engine::new(model, &NoText).with_assistant(&mut assistant).unwrap();
        engine.submit(prompt, &decoding).unwrap();
        loop {
            for event in engine.step().unwrap() {
                if let Event::Finished { result, .. } = event {
                    return result.unwrap().into_iter().map(|sequence| sequence.ids).collect();
                }
            }
        }
    }

    /// Of beams, whose scores are not normalised again, transformers' results say the same (`tests/parity`).
    #[test]
    fn all_is_as_if_the_model_were_guided() {
        let base = GenerationConfig { max_new_tokens: 14, ..GenerationConfig::default() };
        let sample = GenerationConfig { sample: true, seed: Some(3), num_return_sequences: 4, ..base.clone() };
        for (name, config) in [
            ("greedy", base.clone()),
            ("prompt lookup", GenerationConfig { prompt_lookup: Some(3), ..base.clone() }),
            ("an assistant", GenerationConfig { assistant: true, ..base.clone() }),
            ("an assistant that samples", GenerationConfig { assistant: true, ..sample.clone() }),
            ("sampling", sample.clone()),
            ("in waves", GenerationConfig { num_return_sequences: 70, max_new_tokens: 4, ..sample.clone() }),
            ("among the best", GenerationConfig { top_k: Some(6), temperature: Some(1.7), ..sample }),
            ("contrastive", GenerationConfig { penalty_alpha: Some(0.4), top_k: Some(5), ..base.clone() }),
            ("penalised", GenerationConfig { repetition_penalty: 1.3, suppress_tokens: vec![3, 7], ..base }),
        ] {
            for prompt in [&[5][..], &[3, 5, 5, 8, 3, 5], &[0, 1, 2, 3]] {
                for negative_prompt_ids in [None, Some(vec![9]), Some(vec![4, 4, 5, 5, 6, 6, 7, 7])] {
                    let asked = GenerationConfig { guidance_scale: Some(1.8), negative_prompt_ids, ..config.clone() };
                    let guidance = Guidance::of(&asked).unwrap();
                    let as_if = |ids: &[u32]| guided(&guidance, ids, prompt.len().min(ids.len()), CONTEXT);
                    let expected = run(&mut TableModel::new(VOCAB, CONTEXT, as_if), prompt, &config);
                    let found = run(&mut scrambled(VOCAB, CONTEXT, 1), prompt, &asked);
                    assert_eq!(found, expected, "{name} after {prompt:?}, away from {:?}", asked.negative_prompt_ids);
                }
            }
        }
    }

    #[test]
    fn each_of_two_cropped_contexts_sees_its_last_tokens() {
        const SMALL: usize = 9;
        for (prompt, other) in [(&[1, 2, 3][..], &[4, 5, 6, 7, 8, 9][..]), (&[1, 2, 3, 4, 5, 6], &[7])] {
            for alpha in [None, Some(0.0)] {
                let config = GenerationConfig {
                    max_new_tokens: 20,
                    guidance_scale: Some(2.5),
                    negative_prompt_ids: Some(other.to_vec()),
                    on_context_limit: OnContextLimit::Crop,
                    penalty_alpha: alpha,
                    top_k: alpha.map(|_| 3),
                    ..GenerationConfig::default()
                };
                let guidance = Guidance::of(&config).unwrap();
                let found = run(&mut scrambled(VOCAB, SMALL, 1), prompt, &config).remove(0);
                let mut ids = prompt.to_vec();
                // Contrastive search crops earlier, and by more.
                for _ in 0..if alpha.is_some() { 3 } else { 20 } {
                    ids.push(logits::argmax(&guided(&guidance, &ids, prompt.len(), SMALL)) as u32);
                }
                assert!(found.starts_with(&ids[prompt.len()..]), "{prompt:?}, {alpha:?}: {found:?}");
                assert_eq!(found.len(), 20);
            }
        }
    }

    #[test]
    fn the_longer_of_two_rows_fills_the_context() {
        let config = GenerationConfig {
            guidance_scale: Some(2.0),
            negative_prompt_ids: Some(vec![1; 60]),
            ..GenerationConfig::default()
        };
        for lookup in [None, Some(4)] {
            let config = GenerationConfig { prompt_lookup: lookup, ..config.clone() };
            let found = run(&mut scrambled(VOCAB, CONTEXT, 1), &[5, 6], &config);
            assert_eq!(found[0].len(), CONTEXT - 60 + 1);
        }
        let long = GenerationConfig { negative_prompt_ids: Some(vec![1; 65]), ..config };
        let decoding = long.validate().unwrap().into();
        let error = Engine::new(&mut scrambled(VOCAB, CONTEXT, 1), &NoText).submit(&[5], &decoding).unwrap_err();
        assert!(
            error.to_string().starts_with("the negative prompt has 65 tokens, more than the context of 64"),
            "{error}"
        );
    }

    #[test]
    fn a_huge_scale_overflows_nothing_and_faults_stay() {
        let mut logits = [1.0, 2.0];
        guidance(3e38).apply(&mut logits, &[5.0, -5.0]);
        assert_eq!(logits, [-EXTREME, EXTREME]);
        let mut logits = [1.0, 2.0];
        guidance(2.0).apply(&mut logits, &[5.0, f32::NAN]);
        assert!(logits.iter().all(|x| x.is_nan()));
    }

    #[test]
    fn the_other_prompt_is_the_last_token_unless_it_is_given() {
        assert_eq!(guidance(2.0).other(&[1, 2, 3]), [3]);
        let given = Guidance { negative_prompt_ids: Some(vec![7, 8]), ..guidance(2.0) };
        assert_eq!(given.other(&[1, 2, 3]), [7, 8]);
        let off = GenerationConfig { guidance_scale: Some(1.0), ..GenerationConfig::default() };
        assert_eq!(Guidance::of(&off), None);
    }
}
