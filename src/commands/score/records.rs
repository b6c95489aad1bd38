//! From scores to records.

use gpt2::analysis::perplexity::{Sliding, Windows};
use gpt2::analysis::score::{Score, TokenScore};
use gpt2::analysis::words::{self, words};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::Scorer;
use super::asked::{Asked, Encoded};
use crate::cli::Prompt;
use crate::output::generate::AlternativeRecord;
use crate::output::score::{CandidateScore, CandidatesRecord, Protocol, ScoreRecord, WordRecord};

/// The result of one input.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Shown {
    Text(Box<ScoreRecord>),
    Candidates(Box<CandidatesRecord>),
}

/// The result of a row. All rows of a run have the same keys in the same order, whatever they ask; those that are about
/// something else are null.
pub struct RowScore {
    /// None for the keys alone.
    pub shown: Option<Shown>,
    entropy: bool,
    logprobs: bool,
    words: bool,
}

impl Serialize for RowScore {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (text, candidates) = match &self.shown {
            None => (None, None),
            Some(Shown::Text(record)) => (Some(&**record), None),
            Some(Shown::Candidates(record)) => (None, Some(&**record)),
        };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("model", &text.map(|r| &r.model).or(candidates.map(|r| &r.model)))?;
        let context_ids = text.and_then(|r| r.context_ids.as_ref());
        map.serialize_entry("context_ids", &context_ids.or(candidates.map(|r| &r.context_ids)))?;
        map.serialize_entry("ids", &text.map(|r| &r.ids))?;
        map.serialize_entry("tokens", &text.map(|r| &r.tokens))?;
        map.serialize_entry("logprobs", &text.map(|r| &r.logprobs))?;
        map.serialize_entry("ranks", &text.map(|r| &r.ranks))?;
        if self.entropy {
            map.serialize_entry("entropies", &text.and_then(|r| r.entropies.as_ref()))?;
        }
        if self.logprobs {
            map.serialize_entry("top_logprobs", &text.and_then(|r| r.top_logprobs.as_ref()))?;
        }
        if self.words {
            map.serialize_entry("words", &text.and_then(|r| r.words.as_ref()))?;
        }
        map.serialize_entry("sum_logprob", &text.map(|r| r.sum_logprob))?;
        map.serialize_entry("scored_tokens", &text.map(|r| r.scored_tokens))?;
        map.serialize_entry("is_greedy", &text.and_then(|r| r.is_greedy))?;
        map.serialize_entry("perplexity", &text.and_then(|r| r.perplexity))?;
        map.serialize_entry("bits_per_byte", &text.and_then(|r| r.bits_per_byte))?;
        map.serialize_entry("candidates", &candidates.map(|r| &r.candidates))?;
        map.serialize_entry("best", &candidates.map(|r| r.best))?;
        map.serialize_entry("best_per_token", &candidates.map(|r| r.best_per_token))?;
        map.serialize_entry("best_per_byte", &candidates.and_then(|r| r.best_per_byte))?;
        map.serialize_entry("protocol", &text.map(|r| r.protocol).or(candidates.map(|r| r.protocol)))?;
        map.serialize_entry("settings", &text.map(|r| &r.settings).or(candidates.map(|r| &r.settings)))?;
        map.end()
    }
}

impl Scorer<'_> {
    /// The result of a row, or with none the keys of all rows.
    pub fn row(&self, shown: Option<Shown>) -> RowScore {
        let (entropy, logprobs, words) = (self.args.entropy, self.args.logprobs.is_some(), self.args.words);
        RowScore { shown, entropy, logprobs, words }
    }
}

impl Scorer<'_> {
    /// What is shown of the scores of what was asked.
    pub fn shown(&self, asked: &Asked, scores: &[Score]) -> Shown {
        match asked {
            Asked::Text(text) => Shown::Text(Box::new(self.text(text, &scores[0]))),
            Asked::Candidates(candidates) => Shown::Candidates(Box::new(self.candidates(candidates, scores))),
        }
    }

    fn text(&self, text: &Encoded, score: &Score) -> ScoreRecord {
        let ids = text.own();
        let tokens = &score.tokens[text.given..];
        let sum_logprob = score.sum_logprob();
        let has_score = |i: &usize| tokens[*i].is_some() && !(text.eos && i + 1 == ids.len());
        let scored: Vec<u32> = (0..ids.len()).filter(has_score).map(|i| ids[i]).collect();
        let bytes = self.loaded.tokenizer.as_ref().map(|tokenizer| tokenizer.decode_bytes(&scored, false).len());
        ScoreRecord {
            model: self.loaded.name.clone(),
            context_ids: text.context.clone(),
            tokens: ids.iter().map(|id| self.loaded.token_text(*id)).collect(),
            logprobs: tokens.iter().map(|token| token.map(|token| token.logprob)).collect(),
            ranks: tokens.iter().map(|token| token.map(|token| token.rank)).collect(),
            entropies: self.args.entropy.then(|| tokens.iter().map(|token| token.and_then(|t| t.entropy)).collect()),
            top_logprobs: self.args.logprobs.map(|k| {
                let place = |(i, token): (usize, &Option<TokenScore>)| {
                    token.map(|_| self.best(score.alternatives.get(text.given + i).map_or(&[], Vec::as_slice), k))
                };
                tokens.iter().enumerate().map(place).collect()
            }),
            words: self.args.words.then(|| self.words(text, score)),
            ids: ids.to_vec(),
            sum_logprob,
            scored_tokens: score.scored_tokens(),
            is_greedy: text.context.as_ref().map(|_| score.is_greedy()),
            perplexity: score.perplexity,
            bits_per_byte: bytes
                .filter(|n| *n > 0 && score.scored_tokens() > 0)
                .map(|n| 0.0 - sum_logprob / std::f64::consts::LN_2 / n as f64),
            protocol: self.protocol(text),
            interrupted: false,
            settings: self.loaded.record_settings([]),
        }
    }

    fn best(&self, best: &[(u32, f32)], k: usize) -> Vec<AlternativeRecord> {
        let record = |(id, logprob): &(u32, f32)| AlternativeRecord {
            id: *id,
            token: self.loaded.token_text(*id),
            logprob: *logprob,
        };
        best.iter().take(k).map(record).collect()
    }

    fn words(&self, text: &Encoded, score: &Score) -> Vec<WordRecord> {
        let Some(tokenizer) = &self.loaded.tokenizer else { return vec![] };
        let (ids, end) = (text.own(), self.encoder.end_of_text());
        let bytes = |id: &u32| (tokenizer.bytes(*id).unwrap_or_default(), Some(*id) == end);
        let all: Vec<u8> = ids.iter().flat_map(|id| bytes(id).0).copied().collect();
        let record = |word: words::Word| {
            let tokens = word.tokens.start + text.given..word.tokens.end + text.given;
            let logprob = words::logprob(&tokens, &text.ids, score, self.options.words);
            let shown = String::from_utf8_lossy(&all[word.bytes.clone()]).into_owned();
            let at = |byte: usize| byte.saturating_sub(text.moved);
            WordRecord::new(shown, at(word.bytes.start)..at(word.bytes.end), &word.tokens, logprob)
        };
        words(ids.iter().map(bytes)).into_iter().map(record).collect()
    }

    fn protocol(&self, text: &Encoded) -> Protocol {
        let windows = self.options.windows;
        let stride = if let Windows::Sliding(sliding) = windows { Some(Sliding::stride(sliding)) } else { None };
        Protocol {
            bos: text.bos,
            context: windows.context().unwrap_or(self.loaded.model.config().n_positions),
            stride,
            rolling: matches!(windows, Windows::Rolling { .. }),
        }
    }

    fn candidates(&self, candidates: &[(Prompt, Encoded)], scores: &[Score]) -> CandidatesRecord {
        let record = |((prompt, encoded), score): (&(Prompt, Encoded), &Score)| {
            let tokens = || score.tokens[encoded.given..].iter().flatten();
            let text = match (prompt, &self.loaded.tokenizer) {
                (Prompt::Text(text), _) => Some(text.clone()),
                (Prompt::Ids(ids), Some(tokenizer)) => {
                    Some(String::from_utf8_lossy(&tokenizer.decode_bytes(ids, false)).into_owned())
                }
                (Prompt::Ids(_), None) => None,
            };
            let bytes = match (prompt, &self.loaded.tokenizer) {
                (Prompt::Text(text), _) => Some(text.len()),
                (Prompt::Ids(ids), tokenizer) => tokenizer.as_ref().map(|t| t.decode_bytes(ids, false).len()),
            };
            CandidateScore {
                text,
                ids: encoded.own().to_vec(),
                logprobs: tokens().map(|token| token.logprob).collect(),
                entropies: self.args.entropy.then(|| tokens().filter_map(|token| token.entropy).collect()),
                sum_logprob: score.sum_logprob(),
                bytes,
                is_greedy: score.is_greedy(),
            }
        };
        let first = candidates.first().map(|(_, encoded)| encoded);
        let protocol = first.map(|encoded| self.protocol(encoded));
        CandidatesRecord::new(
            self.loaded.name.clone(),
            first.and_then(|encoded| encoded.context.clone()).unwrap_or_default(),
            candidates.iter().zip(scores).map(record).collect(),
            protocol.unwrap_or(Protocol { bos: false, context: 0, stride: None, rolling: false }),
            self.loaded.record_settings([]),
        )
    }
}
