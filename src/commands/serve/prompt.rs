//! The prompts of a request: a text, a list of token ids, or a list of either.

use gpt2::pipeline::Pipeline;
use serde_json::value::RawValue;

use super::fault::Fault;
use super::request::of_type;

/// The most prompts of a request, as at OpenAI.
const MOST_PROMPTS: usize = 2048;
/// The most bytes of a text: many contexts, of which it takes the most memory to find the tokens.
const LONGEST_TEXT: usize = 1 << 20;
const TAKES: &str = "a text, a list of token ids, or a list of either";

/// A prompt: its text, if that was given or is to be shown, and its ids.
pub type Prompt = (String, Vec<u32>);

/// The prompts in the value of `prompt`.
pub fn read(prompt: &RawValue, pipeline: &Pipeline, echo: bool) -> Result<Vec<Prompt>, Fault> {
    let first = prompt.get().strip_prefix('[').map(|list| list.trim_start().bytes().next());
    if first.is_none_or(|first| first.is_some_and(|first| first == b'-' || first.is_ascii_digit())) {
        return Ok(vec![one(prompt, pipeline, echo)?]);
    }
    // It is a value, so it is a list if it begins as one.
    let all: Vec<&RawValue> = serde_json::from_str(prompt.get()).unwrap_or_default();
    match all.len() {
        0 => Err(Fault::parameter("prompt", "`prompt` is an empty list: give a text")),
        1..=MOST_PROMPTS => all.into_iter().map(|prompt| one(prompt, pipeline, echo)).collect(),
        many => Err(Fault::parameter("prompt", format!("{many} prompts are too many: at most {MOST_PROMPTS}"))),
    }
}

fn one(prompt: &RawValue, pipeline: &Pipeline, echo: bool) -> Result<Prompt, Fault> {
    let blame = |error: gpt2::Error| Fault::from(error).about("prompt");
    let (text, mut ids) = match prompt.get().as_bytes().first() {
        Some(b'"') => {
            let text: String = of_type("prompt", prompt, "a text")?;
            if text.len() > LONGEST_TEXT {
                let message = format!("a prompt of {} bytes is too long: at most {LONGEST_TEXT}", text.len());
                return Err(Fault::parameter("prompt", message).with_code("context_length_exceeded"));
            }
            let ids = pipeline.prompt_ids(&text, true).map_err(blame)?;
            (text, ids)
        }
        Some(b'[') => {
            let ids: Vec<u32> = of_type("prompt", prompt, "texts or token ids")?;
            pipeline.check_ids(&ids).map_err(blame)?;
            let shown = pipeline.tokenizer.as_ref().filter(|_| echo);
            let text = shown.map(|tokenizer| tokenizer.decode(&ids, false)).transpose().map_err(blame)?;
            (text.unwrap_or_default(), ids)
        }
        // What is neither is refused.
        _ => (of_type("prompt", prompt, TAKES)?, vec![]),
    };
    if ids.is_empty() {
        let none = || Fault::parameter("prompt", "the prompt is empty, and the model has no start token");
        ids.push(pipeline.start_token().ok_or_else(none)?);
    }
    Ok((text, ids))
}

/// A prompt after token healing.
pub fn healed(text: String, ids: Vec<u32>, pipeline: &Pipeline, echo: bool) -> Result<Prompt, Fault> {
    let blame = |error: gpt2::Error| Fault::from(error).about("prompt");
    let healed = pipeline.heal(&ids, None, true).map_err(blame)?;
    if healed.is_empty() {
        return Ok((text, ids));
    }
    let shown = pipeline.tokenizer.as_ref().filter(|_| echo);
    let shown = shown.map(|tokenizer| tokenizer.decode(&healed, false)).transpose().map_err(blame)?;
    Ok((shown.unwrap_or(text), healed))
}
