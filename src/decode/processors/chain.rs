//! The order of the processors.
//!
//! Reference: transformers 5.23.0, `_get_logits_processor` in `generation/utils.py`.

use super::{Processor, penalties};
use crate::decode::parameters::GenerationConfig;

/// What comes before the warpers, each in its place if it changes anything.
pub(super) fn chain(config: &GenerationConfig) -> Vec<Processor> {
    let mut chain = vec![];
    let biases: Vec<_> = config.logit_bias.ids().into_iter().map(|(id, bias)| (id, bias as f32)).collect();
    if biases.iter().any(|(_, bias)| *bias != 0.0) {
        chain.push(Processor::LogitBias(biases));
    }
    if !config.sequence_bias.is_empty() {
        chain.push(Processor::SequenceBias(penalties::in_order(&config.sequence_bias)));
    }
    if config.encoder_repetition_penalty != 1.0 {
        chain.push(Processor::EncoderRepetitionPenalty((1.0 / config.encoder_repetition_penalty) as f32));
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
    if config.encoder_no_repeat_ngram_size > 0 {
        chain.push(Processor::EncoderNoRepeatNgram(config.encoder_no_repeat_ngram_size));
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
    chain.extend(config.forced_bos_token_id.map(Processor::ForcedBos));
    if !config.forced_eos_token_id.is_empty() {
        let GenerationConfig { max_new_tokens, max_length, .. } = *config;
        chain.push(Processor::ForcedEos { ids: config.forced_eos_token_id.clone(), max_new_tokens, max_length });
    }
    chain.extend(config.exponential_decay_length_penalty.map(|decay| Processor::Decay {
        start: decay.start,
        factor: decay.factor,
        eos_token_id: config.ends().to_vec(),
    }));
    if !config.suppress_tokens.is_empty() {
        chain.push(Processor::Suppress(config.suppress_tokens.clone()));
    }
    if !config.begin_suppress_tokens.is_empty() {
        let forced_bos = config.forced_bos_token_id.is_some();
        chain.push(Processor::BeginSuppress { ids: config.begin_suppress_tokens.clone(), forced_bos });
    }
    chain
}

/// What shapes the distribution if tokens are drawn (`samples`), and what comes last.
pub(super) fn warpers(config: &GenerationConfig, samples: bool, min_tokens_to_keep: usize) -> Vec<Processor> {
    let mut chain = vec![];
    if samples {
        let given = |value: Option<f64>, off: f64| value.filter(|&x| x != off).map(|x| x as f32);
        chain.extend(given(config.temperature, 1.0).map(Processor::Temperature));
        chain.extend(config.top_h.map(|h| Processor::TopH(h as f32)));
        chain.extend(config.top_k.filter(|&k| k != 0).map(|k| Processor::TopK(k.max(min_tokens_to_keep))));
        chain.extend(config.top_p.filter(|&p| p != 1.0).map(Processor::TopP));
        chain.extend(config.min_p.map(|p| Processor::MinP(p as f32)));
        chain.extend(given(config.typical_p, 1.0).map(Processor::TypicalP));
        chain.extend(given(config.epsilon_cutoff, 0.0).map(Processor::EpsilonCutoff));
        chain.extend(given(config.eta_cutoff, 0.0).map(Processor::EtaCutoff));
    }
    if config.renormalize_logits {
        chain.push(Processor::Renormalize);
    }
    chain
}
