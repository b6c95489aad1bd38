//! Decoding: from the distribution over the next token to text. Logits processors, strategies, stop rules.
//!
//! The network is behind [`LanguageModel`](crate::language_model::LanguageModel), so that each strategy can be tested
//! against a hand-computed table.
//!
//! A [`GenerationConfig`] is checked into a [`Decoding`]; [`generate`] runs one request, an [`Engine`] many at once.
//! Internally, a strategy is a `Search`: it says what the model should compute next and continues with the result. The
//! engine combines the requests of all searches into one forward pass.
//!
//! ```
//! # use gpt2::decode::Sequence;
//! # use gpt2::language_model::LanguageModel;
//! use std::sync::Arc;
//!
//! use gpt2::decode::{GenerationConfig, NoText, generate};
//!
//! # fn beams(model: &mut dyn LanguageModel) -> gpt2::Result<Vec<Sequence>> {
//! let config = GenerationConfig { num_beams: 4, eos_token_id: vec![50256], ..GenerationConfig::default() };
//! generate(model, &NoText, &[464, 4583], &Arc::new(config.validate()?), |_event| ())
//! # }
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `parameters` | the table of parameters: names, types, defaults, ranges, descriptions |
//! | `decoding`, `combinations` | the checked configuration; which parameters can be combined, the strategy |
//! | `processors` | changes to the scores of the next token: guidance, penalties, bans, temperature, truncations |
//! | `constraint` | what the text has to be: a regular expression, choices, JSON of a schema, a grammar |
//! | `single` | greedy search and sampling, with or without guesses (`lookup`, or a second model) |
//! | `beam`, `group_beam` | beam search and beam sample, diverse beam search; `beams`: what they share |
//! | `contrastive` | contrastive search |
//! | `prompt` | log-probabilities of the prompt's own tokens |
//! | `random` | draws as a pure function of (seed, row, step) |
//! | `stop` | end-of-sequence tokens, stop strings, which text is shown |
//! | `search`, `plan`, `sequence` | what a strategy is: what it asks of the model, what it results in |
//! | `engine`, `request`, `rows` | many requests over one model |
//! | `room` | the memory that a request takes |
//!
//! Reference: transformers 5.23.0, `generation/utils.py` and `generation/logits_process.py`.

mod beam;
mod beams;
mod combinations;
mod constraint;
mod contrastive;
mod decoding;
mod engine;
mod group_beam;
mod lookup;
mod parameters;
mod plan;
mod processors;
mod prompt;
mod random;
mod request;
mod room;
mod rows;
mod scores;
mod search;
mod sequence;
mod single;
mod stop;
#[cfg(test)]
mod table;
#[cfg(test)]
mod tests;

pub use constraint::{Constraint, Source, Vocabulary};
pub use decoding::Decoding;
pub use engine::{Engine, Event, RequestId, generate};
pub use parameters::{
    BiasedToken, Decay, EarlyStopping, GenerationConfig, GenerationFile, Group, LogitBias, Meaning, OnContextLimit,
    PARAMETERS, Parameter, Takes, Word, parameter_meaning, parse_ids,
};
pub use processors::{Guidance, Processors};
pub use sequence::{Guesses, RawLogprob, Sequence, TokenLogprob};
pub use stop::{Detokenize, FinishReason, NoText};
