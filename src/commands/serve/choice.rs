//! A completion on its way to the client: its text in whole characters, its tokens with their log-probabilities.

use gpt2::decode::{Detokenize, FinishReason, TokenLogprob};
use gpt2::pipeline::Pipeline;
use gpt2::tokenizer::TextStream;

use crate::output::openai::{ChoiceRecord, CompletionLogprobs, TopLogprobs};

/// What a client has been told of a completion.
#[derive(Default)]
pub struct Choice {
    index: usize,
    /// The text that is to be told.
    text: String,
    stream: TextStream,
    /// The tokens that are to be told.
    tokens: CompletionLogprobs,
    /// The text so far, as far as its tokens say.
    spelled: TextStream,
    characters: usize,
    /// Whether the model's own log-probabilities are to be told, too.
    is_raw: bool,
}

impl Choice {
    pub fn new(index: usize, is_raw: bool) -> Self {
        Self { index, is_raw, ..Self::default() }
    }

    /// Takes the prompt's text.
    pub fn prompt(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Takes the bytes of generated text.
    pub fn text(&mut self, bytes: &[u8]) {
        self.text += &self.stream.push(bytes);
    }

    /// Takes the tokens of the prompt, with the log-probabilities of all but the first.
    pub fn prompt_tokens<'t>(
        &mut self,
        first: u32,
        scored: impl Iterator<Item = &'t TokenLogprob>,
        pipeline: &Pipeline,
    ) {
        let text = |id| pipeline.tokenizer.as_ref().and_then(|tokenizer| tokenizer.bytes(id)).unwrap_or_default();
        self.place(first, text(first), None, pipeline);
        scored.for_each(|token| self.place(token.id, text(token.id), Some(token), pipeline));
    }

    /// Takes a generated token.
    pub fn token(&mut self, token: &TokenLogprob, pipeline: &Pipeline) {
        self.place(token.id, pipeline.token_bytes(token.id), Some(token), pipeline);
    }

    fn place(&mut self, id: u32, text: &[u8], scored: Option<&TokenLogprob>, pipeline: &Pipeline) {
        let top = |logprob: f32, top: &[(u32, f32)]| {
            let missing = Some((id, logprob)).filter(|_| top.iter().all(|(other, _)| *other != id));
            let all = top.iter().copied().chain(missing);
            TopLogprobs(all.map(|(id, logprob)| (token_text(id, pipeline), logprob)).collect())
        };
        let tokens = &mut self.tokens;
        tokens.tokens.push(token_text(id, pipeline));
        tokens.token_logprobs.push(scored.map(|token| token.logprob));
        tokens.top_logprobs.push(scored.map(|token| top(token.logprob, &token.top)));
        if self.is_raw {
            // Of the prompt's tokens they are the model's own anyway.
            let raw = scored.map(|token| match &token.raw {
                Some(raw) => (raw.logprob, &raw.top[..]),
                None => (token.logprob, &token.top[..]),
            });
            tokens.raw_token_logprobs.get_or_insert_default().push(raw.map(|(logprob, _)| logprob));
            tokens.raw_top_logprobs.get_or_insert_default().push(raw.map(|(logprob, best)| top(logprob, best)));
        }
        tokens.text_offset.push(self.characters);
        self.characters += self.spelled.push(text).chars().count();
    }

    /// Whether there is something to tell.
    pub fn has_news(&self) -> bool {
        !self.text.is_empty() || !self.tokens.tokens.is_empty()
    }

    /// What is new since the last call; all of it, if the completion is finished.
    pub fn record(&mut self, finish: Option<FinishReason>, logprobs: bool) -> ChoiceRecord {
        if finish.is_some() {
            self.text += &self.stream.finish();
        }
        let tokens = std::mem::take(&mut self.tokens);
        ChoiceRecord {
            index: self.index,
            text: std::mem::take(&mut self.text),
            logprobs: logprobs.then_some(tokens),
            finish_reason: finish.map(|reason| match reason {
                FinishReason::Eos | FinishReason::Stop => "stop",
                FinishReason::Length | FinishReason::Context | FinishReason::Interrupted => "length",
            }),
        }
    }
}

/// A token as a key: its text, or if that is part of a character, its bytes as OpenAI writes them.
fn token_text(id: u32, pipeline: &Pipeline) -> String {
    let Some(bytes) = pipeline.tokenizer.as_ref().and_then(|tokenizer| tokenizer.bytes(id)) else {
        return format!("token_id:{id}");
    };
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => {
            let byte = |byte: &u8| match byte {
                b if b.is_ascii_graphic() || *b == b' ' => char::from(*b).to_string(),
                b => format!("\\x{b:02x}"),
            };
            format!("bytes:{}", bytes.iter().map(byte).collect::<String>())
        }
    }
}
