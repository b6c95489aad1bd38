//! Texts among the parameters.

use super::GenerationConfig;
use crate::error::{Error, Result, tokens_text};

impl GenerationConfig {
    /// Turns texts among the parameters into ids, since decoding works on ids: each bad word is banned as written and with a
    /// space before it, a bias is that of one token, and the negative prompt becomes its ids. `encode` is the tokenizer, if
    /// the model has one.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a text that needs a tokenizer when there is none, or is not the text of one token when it has
    /// to be, and the errors of `encode`.
    pub fn encode_texts(&mut self, encode: Option<impl Fn(&str) -> Result<Vec<u32>>>) -> Result<()> {
        let Some(encode) = encode else {
            let needs = |name, instead| {
                Err(Error::parameter(name, format!("needs a tokenizer, and the model has none{instead}")))
            };
            return if !self.bad_words.is_empty() {
                needs("bad_words", "; use `bad_words_ids`")
            } else if !self.stop.is_empty() {
                needs("stop", "")
            } else if self.logit_bias.has_texts() {
                needs("logit_bias", "; name tokens by their ids")
            } else if self.negative_prompt.is_some() {
                needs("negative_prompt", "; use `negative_prompt_ids`")
            } else if self.token_healing {
                needs("token_healing", "")
            } else {
                Ok(())
            };
        };
        for word in std::mem::take(&mut self.bad_words) {
            self.bad_words_ids.push(encode(&word)?);
            self.bad_words_ids.push(encode(&format!(" {word}"))?);
        }
        self.logit_bias.encode(|text| match encode(text)?[..] {
            [id] => Ok(id),
            ref ids => {
                let tokens = tokens_text(ids.len());
                let fault = format!("takes the id or the text of one token, and {text:?} is {tokens}");
                Err(Error::parameter("logit_bias", fault))
            }
        })?;
        // In other company it is an error, which names it.
        if self.guidance_scale.is_some() && self.negative_prompt_ids.is_none() {
            self.negative_prompt_ids = self.negative_prompt.take().map(|text| encode(&text)).transpose()?;
        }
        Ok(())
    }
}
