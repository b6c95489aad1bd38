//! The body of a request for completions: OpenAI's parameters, and every decoding parameter under its own name.

use std::sync::Arc;

use gpt2::decode::{Decoding, GenerationConfig, OnContextLimit, parameter_meaning};
use gpt2::json;
use gpt2::pipeline::Pipeline;
use serde_json::{Map, Value};

use super::Server;
use super::fault::Fault;
use crate::commands::generate::rand_seed;
use crate::commands::rows::entries;

/// The most prompts of a request, as at OpenAI.
const MOST_PROMPTS: usize = 2048;
/// The most completions of a prompt, as at OpenAI.
const MOST_COMPLETIONS: u64 = 128;
/// The most alternatives of a token.
const MOST_ALTERNATIVES: u64 = 10;
/// OpenAI's default; transformers' is larger.
const MAX_TOKENS: usize = 16;
/// What clients may send and nothing follows from.
const IGNORED: [&str; 3] = ["metadata", "store", "user"];

/// What a client asks for.
pub struct Asked {
    pub prompts: Vec<Prompt>,
    /// How many completions it wants of each prompt.
    pub n: usize,
    /// Whether the prompt comes before each completion.
    pub echo: bool,
    /// How many alternatives it wants of each token, if it wants log-probabilities.
    pub logprobs: Option<usize>,
    pub stream: bool,
    /// Whether a stream ends with the number of tokens.
    pub include_usage: bool,
    /// Whether anything is to be generated.
    pub continues: bool,
    /// Whether the sequences have to be put in order, and only the best are wanted (`best_of`).
    pub is_choice: bool,
}

impl Asked {
    /// Whether the model has anything to do.
    pub fn runs(&self) -> bool {
        self.continues || (self.echo && self.logprobs.is_some())
    }
}

/// A prompt, and how to continue it.
pub struct Prompt {
    pub ids: Vec<u32>,
    /// As it was given; that of the ids, if they were given and the prompt is to be shown.
    pub text: String,
    pub decoding: Arc<Decoding>,
}

/// Understands a request.
pub fn read(body: &[u8], server: &Server) -> Result<Asked, Fault> {
    let text = std::str::from_utf8(body)
        .map_err(|error| Fault::request(format!("the body is not UTF-8 at byte {}", error.valid_up_to())))?;
    let mut values = Map::new();
    for (key, value) in entries(text).map_err(|fault| Fault::request(format!("the body is {fault}")))? {
        let value: Value = serde_json::from_str(value.get())
            .map_err(|error| Fault::request(format!("the body is {}", json::fault(body, &error))))?;
        if values.insert(key.clone().into_owned(), value).is_some() {
            return Err(Fault::parameter(&key, format!("`{key}` is given twice")));
        }
    }
    values.retain(|_, value| !value.is_null());
    Fields(values).read(server)
}

/// The keys of a request that have not been read yet.
struct Fields(Map<String, Value>);

impl Fields {
    fn read(mut self, server: &Server) -> Result<Asked, Fault> {
        let pipeline = &*server.pipeline;
        if let Some(model) = self.0.remove("model") {
            server.check_model(model.as_str().ok_or_else(|| wrong("model", "a text", &model))?)?;
        }
        if self.0.contains_key("suffix") {
            return Err(Fault::parameter("suffix", "`suffix` is not supported: GPT-2 does not insert text"));
        }
        if self.0.contains_key("messages") {
            return Err(Fault::parameter("messages", "GPT-2 does not chat: give a `prompt`"));
        }
        let prompt =
            self.0.remove("prompt").ok_or_else(|| Fault::parameter("prompt", "there is no `prompt`: give a text"))?;
        let (echo, stream) = (self.switch("echo")?, self.switch("stream")?);
        let include_usage = self.stream_options()?;
        let logprobs = self.count("logprobs", 0, MOST_ALTERNATIVES)?.map(|k| k as usize);
        let n = self.count("n", 1, MOST_COMPLETIONS)?;
        let n = n.or(self.count("num_return_sequences", 1, MOST_COMPLETIONS)?).unwrap_or(1) as usize;
        let best_of = self.count("best_of", 1, MOST_COMPLETIONS)?.map_or(n, |best_of| best_of as usize);
        if best_of < n {
            return Err(Fault::parameter("best_of", format!("`best_of` is {best_of}, less than `n`, which is {n}")));
        }
        let is_choice = best_of > n;
        if is_choice && stream {
            return Err(Fault::parameter("best_of", "`best_of` above `n` cannot be streamed: the best are known last"));
        }
        let max_tokens = self.count("max_tokens", 0, u64::MAX)?;
        let mut config = self.config(pipeline, max_tokens)?;
        config.logprobs = logprobs.or(is_choice.then_some(0));
        let scores = echo && logprobs.is_some();
        let continues = max_tokens != Some(0);
        let seed = config.seed.unwrap_or_else(rand_seed);
        let context = pipeline.model.config().n_positions;
        let prompts = prompts(&prompt, pipeline, echo)?.into_iter().zip(0..).map(|((text, ids), number)| {
            // The same prompt twice in a request is drawn for twice.
            let mut config = GenerationConfig { seed: Some(seed.wrapping_add(number)), ..config.clone() };
            if scores && ids.len() == context + 1 {
                // All of it is scored. What follows can only be said without its first token.
                config.on_context_limit = OnContextLimit::Crop;
            }
            Ok(Prompt { decoding: Arc::new(decoding(config, best_of, scores, continues)?), ids, text })
        });
        let prompts = prompts.collect::<Result<_, Fault>>()?;
        Ok(Asked { prompts, n, echo, logprobs, stream, include_usage, continues, is_choice })
    }

    /// The decoding parameters, which is all that is left.
    fn config(mut self, pipeline: &Pipeline, max_tokens: Option<u64>) -> Result<GenerationConfig, Fault> {
        self.0.retain(|key, _| !IGNORED.contains(&key.as_str()));
        if let Some(key) = self.0.keys().find(|key| parameter_meaning(key).is_none()) {
            return Err(Fault::parameter(key, format!("`{key}` is no parameter of completions")));
        }
        if let Some(max_tokens) = max_tokens {
            let same = "`max_tokens` and `max_new_tokens` are the same: leave one of them out";
            if self.0.contains_key("max_new_tokens") {
                return Err(Fault::parameter("max_tokens", same));
            }
            self.0.insert("max_new_tokens".to_owned(), max_tokens.max(1).into());
        }
        let says = |key: &str| self.0.contains_key(key);
        let is_greedy = self.0.get("temperature").and_then(Value::as_f64) == Some(0.0);
        // OpenAI samples unless told otherwise; a search is told.
        let is_search = ["num_beams", "penalty_alpha", "do_sample", "sample"].into_iter().any(says);
        if is_greedy {
            self.0.remove("temperature");
            self.0.remove("sample");
            self.0.insert("do_sample".to_owned(), false.into());
        } else if !is_search {
            self.0.insert("do_sample".to_owned(), true.into());
        }
        let defaults = GenerationConfig { max_new_tokens: MAX_TOKENS, ..pipeline.generation_config() };
        let mut config = defaults.with_json(&self.0)?;
        config.check_values()?;
        if let Some(tokenizer) = &pipeline.tokenizer {
            // A special token has no text that could be found, so it ends the text as a token.
            let mut stops = vec![];
            for stop in std::mem::take(&mut config.stop) {
                match tokenizer.encode(&stop, true)?[..] {
                    [token] if tokenizer.is_special(token.id) => config.eos_token_id.push(token.id),
                    _ => stops.push(stop),
                }
            }
            config.stop = stops;
        }
        pipeline.encode_texts(&mut config)?;
        Ok(config)
    }

    fn stream_options(&mut self) -> Result<bool, Fault> {
        match self.0.remove("stream_options") {
            None => Ok(false),
            Some(Value::Object(mut options)) => {
                options.retain(|_, value| !value.is_null());
                Self(options).switch("include_usage")
            }
            Some(value) => Err(wrong("stream_options", "an object", &value)),
        }
    }

    fn switch(&mut self, key: &str) -> Result<bool, Fault> {
        let Some(value) = self.0.remove(key) else { return Ok(false) };
        value.as_bool().ok_or_else(|| wrong(key, "true or false", &value))
    }

    fn count(&mut self, key: &str, least: u64, most: u64) -> Result<Option<u64>, Fault> {
        let Some(value) = self.0.remove(key) else { return Ok(None) };
        let range = if most == u64::MAX { format!("from {least}") } else { format!("from {least} to {most}") };
        let count = value.as_u64().filter(|count| (least..=most).contains(count));
        count.map(Some).ok_or_else(|| wrong(key, &format!("a whole number {range}"), &value))
    }
}

fn wrong(key: &str, takes: &str, value: &Value) -> Fault {
    Fault::parameter(key, format!("`{key}` takes {takes}, not {}", json::shown(value)))
}

/// How to find `sequences` continuations.
fn decoding(mut config: GenerationConfig, sequences: usize, scores: bool, continues: bool) -> Result<Decoding, Fault> {
    config.num_return_sequences = 1;
    let one = config.validate()?;
    // There is only one that is not drawn; a client that wants more gets it several times.
    let decoding = if one.draws() || config.num_beams > 1 {
        config.num_return_sequences = sequences;
        config.validate()?
    } else {
        one
    };
    Ok(if scores { decoding.with_prompt_logprobs(continues) } else { decoding })
}

/// The prompts of a request: their texts, if they were given or are to be shown, and their ids.
fn prompts(prompt: &Value, pipeline: &Pipeline, echo: bool) -> Result<Vec<(String, Vec<u32>)>, Fault> {
    let all = match prompt {
        Value::Array(prompts) if prompts.is_empty() => {
            return Err(Fault::parameter("prompt", "`prompt` is an empty list: give a text"));
        }
        Value::Array(prompts) if prompts.first().is_some_and(|first| !first.is_number()) => prompts.as_slice(),
        prompt => std::slice::from_ref(prompt),
    };
    if all.len() > MOST_PROMPTS {
        return Err(Fault::parameter("prompt", format!("{} prompts are too many: at most {MOST_PROMPTS}", all.len())));
    }
    all.iter().map(|one| self::prompt(one, pipeline, echo)).collect()
}

fn prompt(prompt: &Value, pipeline: &Pipeline, echo: bool) -> Result<(String, Vec<u32>), Fault> {
    let blame = |error: gpt2::Error| Fault::from(error).about("prompt");
    let (text, mut ids) = match prompt {
        Value::String(text) => (text.clone(), pipeline.prompt_ids(text, true).map_err(blame)?),
        Value::Array(ids) => {
            let id = |value: &Value| {
                let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
                id.ok_or_else(|| wrong("prompt", "texts or token ids", value))
            };
            let ids = ids.iter().map(id).collect::<Result<Vec<u32>, Fault>>()?;
            pipeline.check_ids(&ids).map_err(blame)?;
            let shown = pipeline.tokenizer.as_ref().filter(|_| echo);
            let text = shown.map(|tokenizer| tokenizer.decode(&ids, false)).transpose().map_err(blame)?;
            (text.unwrap_or_default(), ids)
        }
        value => return Err(wrong("prompt", "a text, a list of token ids, or a list of either", value)),
    };
    if ids.is_empty() {
        let none = || Fault::parameter("prompt", "the prompt is empty, and the model has no start token");
        ids.push(pipeline.start_token().ok_or_else(none)?);
    }
    Ok((text, ids))
}
