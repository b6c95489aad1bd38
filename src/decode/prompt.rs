//! Log-probabilities of a prompt's own tokens, found before a search continues it.
//!
//! The prompt runs in parts, so that the logits of a long one take little memory, and so that other requests go on
//! between the parts. The search then takes over the row with all that it holds.

use std::sync::Arc;

use super::plan::Plan;
use super::search::{NewToken, Search, StepOutput, Task};
use super::sequence::{Sequence, TokenLogprob};
use crate::base::pool;
use crate::error::Result;
use crate::language_model::Positions;
use crate::logits;

/// The most positions of a prompt that are scored in a step.
pub(super) const MOST_SCORED: usize = 64;

/// Scores the prompt, then does as another search, if there is one.
pub(super) struct PromptSearch {
    then: Option<Box<dyn Search>>,
    /// How many of the prompt's tokens the model has seen.
    seen: usize,
    scored: Vec<Arc<TokenLogprob>>,
    /// Whether the scores are complete and not handed out yet.
    ready: bool,
    /// Whether the other search has begun.
    begun: bool,
}

impl PromptSearch {
    /// Without another search, the request ends when its prompt is scored, with no sequence.
    pub(super) fn new(then: Option<Box<dyn Search>>) -> Self {
        Self { then, seen: 0, scored: vec![], ready: false, begun: false }
    }

    /// How many of the prompt's tokens have to be seen: the last is only scored.
    fn needed(&self, task: &Task<'_>) -> usize {
        let least = usize::from(self.then.is_none());
        (task.prompt.len() - 1).max(least)
    }

    /// The other search, once it is its turn.
    fn other(&mut self, task: &Task<'_>) -> Option<&mut Box<dyn Search>> {
        if self.seen < self.needed(task) { None } else { self.then.as_mut() }
    }
}

impl Search for PromptSearch {
    fn width(&self) -> usize {
        self.then.as_ref().map_or(1, |search| search.width())
    }

    fn draft(&mut self, task: &Task<'_>, plan: &mut Plan) {
        if let Some(search) = self.other(task) {
            search.draft(task, plan);
        }
    }

    fn drafted(&mut self, task: &Task<'_>, output: StepOutput<'_>) -> Result<()> {
        self.other(task).map_or(Ok(()), |search| search.drafted(task, output))
    }

    fn plan(&mut self, task: &Task<'_>, plan: &mut Plan) {
        let (seen, begun, needed) = (self.seen, self.begun, self.needed(task));
        let Some(search) = self.other(task) else {
            let part = &task.prompt[seen..needed.min(seen + MOST_SCORED)];
            return plan.feed(0, part, Positions::All, Positions::None);
        };
        search.plan(task, plan);
        self.begun = true;
        if !begun && seen > 0 {
            plan.go_on_after(&task.prompt[..seen]);
        } else if !begun {
            // Of a single token there is nothing to score.
            self.ready = true;
        }
    }

    fn advance(
        &mut self,
        task: &Task<'_>,
        mut output: StepOutput<'_>,
        tokens: &mut Vec<NewToken>,
    ) -> Result<Option<Vec<Sequence>>> {
        if self.begun
            && let Some(search) = &mut self.then
        {
            return search.advance(task, output, tokens);
        }
        let k = task.decoding.logprobs.unwrap_or_default();
        let work = output.logits.len();
        let targets = &task.prompt[(self.seen + 1).min(task.prompt.len())..];
        let mut rows: Vec<_> = output.rows().zip(targets).map(|(row, id)| (&*row, *id as usize, None)).collect();
        pool::for_each(work, &mut rows, |(row, id, scored)| {
            *scored = Some(logits::check_finite(row).map(|()| TokenLogprob::from_logits(row, *id, k, None)));
        });
        for scored in rows.into_iter().filter_map(|(_, _, scored)| scored) {
            self.scored.push(scored?);
        }
        self.seen = self.needed(task).min(self.seen + MOST_SCORED);
        self.ready = self.seen == self.needed(task);
        Ok((self.ready && self.then.is_none()).then(Vec::new))
    }

    fn prompt_logprobs(&mut self) -> Option<Vec<Arc<TokenLogprob>>> {
        std::mem::take(&mut self.ready).then(|| std::mem::take(&mut self.scored))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::decode::table::scrambled;
    use crate::decode::{Engine, Event, GenerationConfig, NoText, OnContextLimit};
    use crate::error::Error;
    use crate::language_model::{Input, LanguageModel};

    const VOCAB: usize = 30;
    const CONTEXT: usize = 150;

    fn prompt(len: usize) -> Vec<u32> {
        (0..len as u32).map(|i| (i * i + 3 * i) % VOCAB as u32).collect()
    }

    /// What a request reports: the prompt's log-probabilities, and the sequences.
    type Report = (Option<Vec<Arc<TokenLogprob>>>, Vec<Sequence>);

    fn run(requests: &[(Vec<u32>, GenerationConfig, Option<bool>)]) -> Result<Vec<Report>> {
        let mut model = scrambled(VOCAB, CONTEXT, 1);
        let mut engine = Engine::new(&mut model, &NoText).with_batch_size(requests.len());
        for (prompt, config, continues) in requests {
            let decoding = config.validate()?;
            let decoding = match continues {
                Some(continues) => decoding.with_prompt_logprobs(*continues),
                None => decoding,
            };
            engine.submit(prompt, &Arc::new(decoding))?;
        }
        let (mut prompts, mut sequences) = (HashMap::new(), HashMap::new());
        while !engine.is_idle() {
            for event in engine.step()? {
                match event {
                    Event::Token { .. } => {}
                    Event::Prompt { request, logprobs } => assert!(prompts.insert(request, logprobs).is_none()),
                    Event::Finished { request, result } => assert!(sequences.insert(request, result?).is_none()),
                }
            }
        }
        let of = |request| (prompts.remove(&request), sequences.remove(&request).unwrap());
        Ok((0..requests.len()).map(of).collect())
    }

    fn config() -> GenerationConfig {
        GenerationConfig { max_new_tokens: 6, logprobs: Some(2), ..GenerationConfig::default() }
    }

    /// Every strategy that can follow.
    fn strategies() -> Vec<GenerationConfig> {
        vec![
            config(),
            GenerationConfig { sample: true, num_return_sequences: 5, ..config() },
            GenerationConfig { top_k: Some(4), num_return_sequences: 3, ..config() },
            GenerationConfig { num_beams: 3, ..config() },
            GenerationConfig { num_beams: 4, num_beam_groups: 2, diversity_penalty: Some(0.5), ..config() },
            GenerationConfig { penalty_alpha: Some(0.6), top_k: Some(3), ..config() },
            GenerationConfig { prompt_lookup: Some(3), ..config() },
            GenerationConfig { guidance_scale: Some(1.5), raw_logprobs: true, ..config() },
            GenerationConfig {
                guidance_scale: Some(1.5),
                negative_prompt_ids: Some(vec![4, 9, 2]),
                num_beams: 3,
                ..config()
            },
            GenerationConfig { logprobs: None, ..config() },
        ]
    }

    #[test]
    fn each_token_is_scored_by_what_comes_before_it() {
        let ids = prompt(CONTEXT + 1);
        for len in [1, 2, 3, MOST_SCORED, MOST_SCORED + 1, MOST_SCORED + 2, 2 * MOST_SCORED + 1, CONTEXT, CONTEXT + 1] {
            let reports = run(&[(ids[..len].to_vec(), config(), Some(false))]).unwrap();
            let (scored, sequences) = &reports[0];
            assert!(sequences.is_empty());
            let scored = scored.as_ref().unwrap();
            assert!(scored.iter().map(|token| token.id).eq(ids[1..len].iter().copied()), "{len}");
            for (i, token) in scored.iter().enumerate() {
                let mut model = scrambled(VOCAB, CONTEXT, 1);
                let logits = model.forward(&[Input::logits(0, &ids[..=i])]).unwrap().logits;
                assert_eq!(**token, *TokenLogprob::from_logits(&logits, token.id as usize, 2, None));
            }
        }
    }

    #[test]
    fn what_follows_is_as_without_and_beside_others() {
        let mut requests = vec![];
        for (i, config) in strategies().into_iter().enumerate() {
            for len in [1, 2, 40, 100] {
                requests.push((prompt(len + i), config.clone(), Some(true)));
            }
        }
        let together = run(&requests).unwrap();
        for ((prompt, config, _), (scored, sequences)) in requests.into_iter().zip(together) {
            let plain = run(&[(prompt.clone(), config.clone(), None)]).unwrap();
            assert_eq!(plain, [(None, sequences)]);
            let alone = run(&[(prompt, GenerationConfig { logprobs: config.logprobs, ..self::config() }, Some(false))]);
            assert_eq!(alone.unwrap()[0].0, scored);
        }
    }

    #[test]
    fn the_last_token_may_lie_beyond_the_context() {
        let long = prompt(CONTEXT + 1);
        let crop = GenerationConfig { on_context_limit: OnContextLimit::Crop, max_new_tokens: 2, ..config() };
        let plain = run(&[(long.clone(), crop.clone(), None)]).unwrap();
        let scored = run(&[(long.clone(), crop.clone(), Some(true))]).unwrap();
        assert_eq!(plain[0].1, scored[0].1);
        assert_eq!(scored[0].0.as_ref().unwrap().len(), CONTEXT);
        for (ids, config, continues) in
            [(long, config(), true), (prompt(CONTEXT + 2), config(), false), (prompt(CONTEXT + 2), crop, true)]
        {
            let error = run(&[(ids, config, Some(continues))]).unwrap_err();
            assert!(matches!(error, Error::Context { .. }), "{error}");
        }
    }
}
