//! The body of a request for completions: OpenAI's parameters, and every decoding parameter under its own name.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use gpt2::decode::{Decoding, GenerationConfig, OnContextLimit, parameter_meaning};
use gpt2::json;
use gpt2::pipeline::Pipeline;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::Server;
use super::fault::Fault;
use super::{prompt, structured};
use crate::commands::generate::rand_seed;
use crate::commands::rows::entries;

/// The most completions of a prompt, as at OpenAI.
const MOST_COMPLETIONS: u64 = 128;
/// The most alternatives of a token.
const MOST_ALTERNATIVES: u64 = 10;
/// OpenAI's default; transformers' is larger.
const MAX_TOKENS: usize = 16;
/// The most bytes of all parameters but the prompt: some lists are gone through for every token.
const MOST_PARAMETERS: usize = 256 << 10;
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
    /// Whether it wants the model's own, too.
    pub is_raw: bool,
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
    let Values(mut raw) = values(body)?;
    let prompt = raw.remove("prompt");
    let (mut fields, mut left) = (Map::new(), MOST_PARAMETERS);
    for (key, value) in raw {
        left = left.checked_sub(key.len() + value.get().len()).ok_or_else(|| {
            let message = format!("the parameters are longer than {MOST_PARAMETERS} bytes, `prompt` aside");
            Fault::parameter(&key, message)
        })?;
        fields.insert(key.clone().into_owned(), of_json(&key, value)?);
    }
    fields.retain(|_, value| !value.is_null());
    Fields(fields).read(prompt, server)
}

/// The values of the object that is the body, by key; without those that are null.
pub struct Values<'a>(BTreeMap<Cow<'a, str>, &'a RawValue>);

/// Understands a body as far as it is an object.
pub fn values(body: &[u8]) -> Result<Values<'_>, Fault> {
    let text = std::str::from_utf8(body)
        .map_err(|error| Fault::request(format!("the body is not UTF-8 at byte {}", error.valid_up_to())))?;
    let mut values = BTreeMap::new();
    for (key, value) in entries(text).map_err(|fault| Fault::request(format!("the body is {fault}")))? {
        if values.insert(key.clone(), value).is_some() {
            return Err(Fault::parameter(&key, format!("`{key}` is given twice")));
        }
    }
    values.retain(|_, value| value.get() != "null");
    Ok(Values(values))
}

impl Values<'_> {
    /// A value that may be left out.
    pub fn optional<T: DeserializeOwned>(&mut self, key: &str, takes: &str) -> Result<Option<T>, Fault> {
        self.0.remove(key).map(|value| of_type(key, value, takes)).transpose()
    }

    /// A value that may not.
    pub fn required<T: DeserializeOwned>(&mut self, key: &str, takes: &str) -> Result<T, Fault> {
        let missing = || Fault::parameter(key, format!("there is no `{key}`: give {takes}"));
        self.optional(key, takes)?.ok_or_else(missing)
    }
}

/// A value of a type that `takes` describes.
pub fn of_type<T: DeserializeOwned>(key: &str, value: &RawValue, takes: &str) -> Result<T, Fault> {
    /// A larger value is not shown, for it would take many times its size.
    const SHOWN: usize = 64 << 10;
    serde_json::from_str(value.get()).map_err(|_| {
        if value.get().len() > SHOWN {
            return Fault::parameter(key, format!("`{key}` takes {takes}"));
        }
        of_json(key, value).map_or_else(|fault| fault, |value| wrong(key, takes, culprit(&value)))
    })
}

/// Any value.
fn of_json(key: &str, value: &RawValue) -> Result<Value, Fault> {
    serde_json::from_str(value.get())
        .map_err(|error| Fault::parameter(key, format!("`{key}` is {}", json::fault(value.get().as_bytes(), &error))))
}

/// What is wrong in it: of a list, the first that is no token id.
fn culprit(value: &Value) -> &Value {
    let is_id = |value: &&Value| value.as_u64().is_some_and(|id| u32::try_from(id).is_ok());
    value.as_array().and_then(|values| values.iter().find(|value| !is_id(value))).unwrap_or(value)
}

/// The keys of a request that have not been read yet.
struct Fields(Map<String, Value>);

impl Fields {
    fn read(mut self, prompt: Option<&RawValue>, server: &Server) -> Result<Asked, Fault> {
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
        let prompt = prompt.ok_or_else(|| Fault::parameter("prompt", "there is no `prompt`: give a text"))?;
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
        let renamed = structured::translate(&mut self.0)?;
        let mut config = self.config(pipeline, max_tokens).map_err(|fault| match &renamed {
            Some((ours, theirs)) => fault.renamed(ours, theirs),
            None => fault,
        })?;
        config.logprobs = logprobs.or(is_choice.then_some(0));
        let is_raw = config.raw_logprobs;
        if is_raw && logprobs.is_none() {
            return Err(Fault::parameter("raw_logprobs", "`raw_logprobs` needs `logprobs`"));
        }
        let scores = echo && logprobs.is_some();
        let continues = max_tokens != Some(0);
        let seed = config.seed.unwrap_or_else(rand_seed);
        let decoding = self::decoding(config.clone(), best_of, scores, continues)?;
        let context = pipeline.model.config().n_positions;
        let mut beyond = None;
        let mut prompts = vec![];
        for ((text, ids), number) in prompt::read(prompt, pipeline, echo)?.into_iter().zip(0..) {
            let (text, ids) =
                if config.token_healing { prompt::healed(text, ids, pipeline, echo)? } else { (text, ids) };
            let is_beyond = scores && ids.len() == context + 1;
            if is_beyond && beyond.is_none() {
                // All of it is scored. What follows can only be said without its first token, and then the context is full.
                let (on_context_limit, max_new_tokens) = (OnContextLimit::Crop, 1);
                let crop = GenerationConfig { on_context_limit, max_new_tokens, max_length: None, ..config.clone() };
                beyond = Some(self::decoding(crop, best_of, scores, continues)?);
            }
            let decoding = beyond.as_ref().filter(|_| is_beyond).unwrap_or(&decoding);
            // The same prompt twice in a request is drawn for twice.
            let decoding = Arc::new(decoding.clone().with_seed(seed.wrapping_add(number)));
            prompts.push(Prompt { ids, text, decoding });
        }
        Ok(Asked { prompts, n, echo, logprobs, is_raw, stream, include_usage, continues, is_choice })
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
        let temperature = self.0.get("temperature").and_then(Value::as_f64);
        if temperature.is_some_and(|temperature| temperature < 0.0) {
            return Err(wrong("temperature", "a number from 0 (greedy)", &self.0["temperature"]));
        }
        let is_greedy = temperature == Some(0.0);
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
            let (mut stops, mut ends) = (vec![], vec![]);
            for stop in std::mem::take(&mut config.stop) {
                match tokenizer.encode(&stop, true)?[..] {
                    [token] if tokenizer.is_special(token.id) => ends.push(token.id),
                    _ => stops.push(stop),
                }
            }
            config.stop = stops;
            if config.ignore_eos && !ends.is_empty() {
                (config.ignore_eos, config.eos_token_id) = (false, vec![]);
            }
            config.eos_token_id.extend(ends);
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

pub fn wrong(key: &str, takes: &str, value: &Value) -> Fault {
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
