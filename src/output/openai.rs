//! The records of `gpt2 serve`: OpenAI's objects.

use serde::{Serialize, Serializer};

/// The answer to `POST /v1/completions`, or a part of one that is streamed.
#[derive(Debug, Clone, Serialize)]
pub struct CompletionRecord {
    /// `cmpl-` and a number of its own.
    pub id: String,
    /// `text_completion`.
    pub object: &'static str,
    /// When the request was made, in seconds since 1970.
    pub created: u64,
    /// The model's name.
    pub model: String,
    /// The completions: the first `n` are the first prompt's.
    pub choices: Vec<ChoiceRecord>,
    /// How many tokens it took; in a stream only in the last part, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageRecord>,
}

/// One completion, or what is new of it.
#[derive(Debug, Clone, Serialize)]
pub struct ChoiceRecord {
    /// The number of its prompt times `n`, plus its own number among those of the prompt.
    pub index: usize,
    /// The text, cut before a stop string; with `echo` after the prompt.
    pub text: String,
    /// The tokens with their log-probabilities; null unless asked for.
    pub logprobs: Option<CompletionLogprobs>,
    /// `stop` at the end of text or a stop string, `length` when there are enough tokens or the context is full; null while
    /// more is to come.
    pub finish_reason: Option<&'static str>,
}

/// The tokens of a completion. The lists have the same length.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CompletionLogprobs {
    /// Each token's text; `bytes:\xf0\x9f` for one that is part of a character.
    pub tokens: Vec<String>,
    /// Its log-probability: of a generated token after the processors, of the prompt's the model's own. Null for the first
    /// token of a prompt.
    pub token_logprobs: Vec<Option<f32>>,
    /// The best tokens at its place, and the token itself. Null for the first token of a prompt.
    pub top_logprobs: Vec<Option<TopLogprobs>>,
    /// Where it begins in the text, in characters.
    pub text_offset: Vec<usize>,
    /// With `raw_logprobs`, its log-probability as the model itself has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_token_logprobs: Option<Vec<Option<f32>>>,
    /// With `raw_logprobs`, the model's own best tokens at its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_top_logprobs: Option<Vec<Option<TopLogprobs>>>,
}

/// The best tokens at a place, best first: an object of their texts and log-probabilities.
#[derive(Debug, Clone)]
pub struct TopLogprobs(pub Vec<(String, f32)>);

impl Serialize for TopLogprobs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(token, logprob)| (token, logprob)))
    }
}

/// How many tokens a request took.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct UsageRecord {
    /// Tokens of all prompts.
    pub prompt_tokens: usize,
    /// Tokens that were generated, those of discarded completions (`best_of`) included.
    pub completion_tokens: usize,
    /// Both.
    pub total_tokens: usize,
}

/// The answer to `GET /v1/models`.
#[derive(Debug, Serialize)]
pub struct ModelsRecord {
    /// `list`.
    pub object: &'static str,
    /// The one model.
    pub data: [ModelRecord; 1],
}

/// The model.
#[derive(Debug, Serialize)]
pub struct ModelRecord {
    /// Its name.
    pub id: String,
    /// `model`.
    pub object: &'static str,
    /// When it was loaded, in seconds since 1970.
    pub created: u64,
    /// `gpt2`.
    pub owned_by: &'static str,
    /// The most tokens that it sees.
    pub max_model_len: usize,
}

/// The answer to `POST /tokenize`.
#[derive(Debug, Serialize)]
pub struct TokenizeRecord {
    /// The text's ids.
    pub tokens: Vec<u32>,
    /// How many there are.
    pub count: usize,
    /// The most tokens that the model sees.
    pub max_model_len: usize,
}

/// The answer to `POST /detokenize`.
#[derive(Debug, Serialize)]
pub struct DetokenizeRecord {
    /// The text of the ids.
    pub prompt: String,
}

/// The answer to `GET /tokenizer_info`.
#[derive(Debug, Serialize)]
pub struct TokenizerInfoRecord {
    /// The token that ends a text; null if there is none.
    pub eos_token: Option<String>,
    /// The token that starts one; null if there is none.
    pub bos_token: Option<String>,
    /// Null: nothing is padded.
    pub pad_token: Option<String>,
    /// Null: GPT-2 does not chat.
    pub chat_template: Option<String>,
}

/// What a refused request gets.
#[derive(Debug, Serialize)]
pub struct FailureRecord {
    /// What went wrong.
    pub error: FaultRecord,
}

/// What went wrong with a request.
#[derive(Debug, Serialize)]
pub struct FaultRecord {
    /// In words, for people.
    pub message: String,
    /// `invalid_request_error`, `authentication_error`, `rate_limit_error`, `timeout_error` or `server_error`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The parameter at fault; null if it is none.
    pub param: Option<String>,
    /// OpenAI's code for it, such as `model_not_found`; null if there is none.
    pub code: Option<&'static str>,
}
