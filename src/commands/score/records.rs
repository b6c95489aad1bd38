//! From scores to records.

use gpt2::analysis::perplexity::{Sliding, Windows};
use gpt2::analysis::score::{Score, TokenScore};
use gpt2::analysis::words::{self, words};
use serde::Serialize;
use serde_json::{Map, Value};

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

/// The result of a row. All rows of a run have the same keys, whatever they ask.
#[derive(Serialize)]
pub struct RowScore {
    #[serde(flatten)]
    pub shown: Option<Shown>,
    /// Keys that other rows have.
    #[serde(flatten)]
    nulls: Map<String, Value>,
}

/// Keys of both kinds of results.
const SHARED: [&str; 4] = ["model", "context_ids", "protocol", "settings"];

/// Keys of the results of candidates.
const OF_CANDIDATES: [&str; 4] = ["candidates", "best", "best_per_token", "best_per_byte"];

/// Keys of the results of texts.
const OF_TEXTS: [&str; 9] =
    ["ids", "tokens", "logprobs", "ranks", "sum_logprob", "scored_tokens", "is_greedy", "perplexity", "bits_per_byte"];

impl RowScore {
    fn new<'k>(shown: Option<Shown>, nulls: impl IntoIterator<Item = &'k str>) -> Self {
        Self { shown, nulls: nulls.into_iter().map(|key| (key.to_owned(), Value::Null)).collect() }
    }
}

impl Scorer<'_> {
    /// Keys of texts, of which flags ask for some.
    fn text_keys(&self) -> impl Iterator<Item = &'static str> {
        let (words, top) = (self.args.words, self.args.logprobs.is_some());
        let asked = [("entropies", self.args.entropy), ("top_logprobs", top), ("words", words)];
        OF_TEXTS.into_iter().chain(asked.into_iter().filter(|(_, is_asked)| *is_asked).map(|(key, _)| key))
    }

    /// The keys of all rows.
    pub fn empty(&self) -> RowScore {
        RowScore::new(None, SHARED.into_iter().chain(self.text_keys()).chain(OF_CANDIDATES))
    }

    pub fn row(&self, shown: Shown) -> RowScore {
        let nulls: Vec<&str> = match &shown {
            Shown::Text(record) if record.context_ids.is_some() => OF_CANDIDATES.to_vec(),
            Shown::Text(_) => ["context_ids", "is_greedy"].into_iter().chain(OF_CANDIDATES).collect(),
            Shown::Candidates(_) => self.text_keys().collect(),
        };
        RowScore::new(Some(shown), nulls)
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
