//! A model with everything it needs: text in, text out, as in the binary.
//!
//! ```
//! use gpt2::decode::GenerationConfig;
//! use gpt2::pipeline::Pipeline;
//!
//! # fn main() -> gpt2::Result<()> {
//! let pipeline = Pipeline::from_pretrained("demo")?;
//! let config = GenerationConfig { max_new_tokens: 20, ..pipeline.generation_config() };
//! let sequences = pipeline.generate("Once upon a time", config)?;
//! println!("{}", pipeline.text(&sequences[0].ids)?);
//! # Ok(())
//! # }
//! ```
//!
//! To choose more, take the steps one by one: [`source::open`] finds the files (revision, tokenizer, offline, download
//! progress), [`Pipeline::load`] loads them (number type, device).

use std::sync::{Arc, OnceLock};

use crate::decode::{Detokenize, GenerationConfig, GenerationFile, Sequence, Vocabulary, generate};
use crate::error::{Error, Result};
use crate::language_model::{Input, LanguageModel};
use crate::logits;
use crate::model::{Gpt2, LoadOptions, Session};
use crate::source::{self, OpenedModel, SourceOptions};
use crate::tokenizer::Tokenizer;

/// A model, its tokenizer, and the tokens that start and end a text.
pub struct Pipeline {
    /// The model's name: `openai-community/gpt2`, a path, or `demo`.
    pub name: String,
    /// The network.
    pub model: Gpt2,
    /// The tokenizer, if the model has a usable one. Working with ids needs none.
    pub tokenizer: Option<Tokenizer>,
    /// Why the model's tokenizer cannot be used, if so.
    tokenizer_fault: Option<Error>,
    /// The tokens that end a text. As in transformers, they are `generation_config.json`'s, even if that names none; only
    /// without such a file are they the configuration's.
    pub eos_token_id: Vec<u32>,
    /// What the model's `generation_config.json` says; none if it has none. Nothing but its end of text is followed
    /// unless asked for: [`GenerationFile::config`].
    pub generation_file: Option<GenerationFile>,
    /// Why `generation_config.json` cannot be used, if so.
    generation_fault: Option<Error>,
    vocabulary: OnceLock<Vocabulary>,
}

impl Pipeline {
    /// Finds, opens and loads `model` with default options: `demo`, `gpt2`, `owner/name` on the hub, a folder, or a `.gguf`
    /// file (see [`source::open`]).
    ///
    /// # Errors
    /// Those of [`source::open`] and [`load`](Self::load).
    pub fn from_pretrained(model: &str) -> Result<Self> {
        Self::load(&source::open(model, &SourceOptions::default())?, LoadOptions::default())
    }

    /// Loads network and tokenizer in parallel. If the model's own tokenizer cannot be used, only using it is an error; a
    /// `generation_config.json` that cannot be used is as good as none, as in transformers
    /// ([`generation_fault`](Self::generation_fault)).
    ///
    /// # Errors
    /// Those of [`OpenedModel::load_network`], and of [`OpenedModel::load_tokenizer`] for a tokenizer that was asked for
    /// ([`SourceOptions::tokenizer`]).
    pub fn load(opened: &OpenedModel, options: LoadOptions) -> Result<Self> {
        Self::load_with(opened, options, false)
    }

    /// As [`load`](Self::load), with the [`vocabulary`](Self::vocabulary) for constraints, which is prepared meanwhile.
    ///
    /// # Errors
    /// Those of [`load`](Self::load).
    pub fn load_for_constraints(opened: &OpenedModel, options: LoadOptions) -> Result<Self> {
        Self::load_with(opened, options, true)
    }

    fn load_with(opened: &OpenedModel, options: LoadOptions, is_constrained: bool) -> Result<Self> {
        let (generation_file, generation_fault) = match opened.generation_file() {
            Ok(file) => (file, None),
            Err(fault) => (None, Some(fault)),
        };
        let eos_token_id = generation_file.as_ref().map_or(&*opened.config.eos_token_id, GenerationFile::eos_token_id);
        let eos_token_id = eos_token_id.to_vec();
        // What is wrong with the vocabulary is said when it is asked for.
        let vocabulary = |tokenizer: &Tokenizer| Vocabulary::new(opened.config.vocab_size, &Texts(tokenizer)).ok();
        let (tokenizer, model) = std::thread::scope(|scope| {
            let tokenizer = scope.spawn(|| {
                let tokenizer = opened.load_tokenizer()?;
                let vocabulary = tokenizer.as_ref().filter(|_| is_constrained).and_then(vocabulary);
                Ok((tokenizer, vocabulary))
            });
            let model = opened.load_network(options);
            (tokenizer.join(), model)
        });
        let tokenizer = tokenizer.unwrap_or_else(|_| Err(Error::Tokenizer("the tokenizer cannot be loaded".into())));
        let (tokenizer, vocabulary) = match tokenizer {
            Ok((tokenizer, vocabulary)) => (Ok(tokenizer), vocabulary),
            Err(fault) => (Err(fault), None),
        };
        let (tokenizer, tokenizer_fault) = match tokenizer {
            Ok(tokenizer) => (tokenizer, None),
            Err(fault) if opened.tokenizer_is_given => return Err(fault),
            Err(fault) => (None, Some(fault)),
        };
        Ok(Self {
            name: opened.name.clone(),
            model: model?,
            tokenizer,
            tokenizer_fault,
            eos_token_id,
            generation_file,
            generation_fault,
            vocabulary: vocabulary.map_or_else(OnceLock::new, OnceLock::from),
        })
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the model has none, or none that can be used.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_ref().ok_or_else(|| {
            Error::Tokenizer(match &self.tokenizer_fault {
                Some(fault) => fault.to_string(),
                None => format!("{} has no tokenizer", self.name),
            })
        })
    }

    /// Why the model's tokenizer cannot be used, if it has one that cannot.
    #[must_use]
    pub fn tokenizer_fault(&self) -> Option<&Error> {
        self.tokenizer_fault.as_ref()
    }

    /// Why the model's `generation_config.json` cannot be used, if it has one that cannot.
    #[must_use]
    pub fn generation_fault(&self) -> Option<&Error> {
        self.generation_fault.as_ref()
    }

    /// The ids of a text, with what the tokenizer puts around texts: see [`Tokenizer::before_text`].
    ///
    /// # Errors
    /// Those of [`ids`](Self::ids).
    pub fn prompt_ids(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let ids = self.ids(text, special)?;
        let tokenizer = self.tokenizer()?;
        self.check_ids(tokenizer.before_text())?;
        self.check_ids(tokenizer.after_text())?;
        Ok([tokenizer.before_text(), &ids, tokenizer.after_text()].concat())
    }

    /// The ids of a text alone. With `special`, the text of a special token (`<|endoftext|>`) becomes that token.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if there is no tokenizer or it has no token for part of the text; errors of
    /// [`check_ids`](Self::check_ids).
    pub fn ids(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let tokens = self.tokenizer()?.encode(text, special)?;
        let ids: Vec<u32> = tokens.into_iter().map(|token| token.id).collect();
        self.check_ids(&ids)?;
        Ok(ids)
    }

    /// Rejects ids that the model does not have.
    ///
    /// # Errors
    /// [`Error::Usage`], naming the id.
    pub fn check_ids(&self, ids: &[u32]) -> Result<()> {
        let vocab_size = self.model.config().vocab_size;
        match ids.iter().find(|id| **id as usize >= vocab_size) {
            None => Ok(()),
            Some(id) => {
                Err(Error::Usage(format!("token id {id} is outside the model's vocabulary (0 to {})", vocab_size - 1)))
            }
        }
    }

    /// The text of ids without special tokens, with U+FFFD where bytes are not UTF-8.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if there is no tokenizer, or if it makes too much of the ids.
    pub fn text(&self, ids: &[u32]) -> Result<String> {
        self.tokenizer()?.decode(ids, true)
    }

    /// The text of one token, U+FFFD if it is not UTF-8 by itself; `None` without a tokenizer or outside its
    /// vocabulary.
    #[must_use]
    pub fn token_text(&self, id: u32) -> Option<String> {
        self.tokenizer.as_ref()?.bytes(id).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// The token that starts a text: the configuration's if it is in the vocabulary, else the tokenizer's, else the
    /// configuration's first end-of-text token.
    #[must_use]
    pub fn start_token(&self) -> Option<u32> {
        let config = self.model.config();
        let inside = |id: &u32| (*id as usize) < config.vocab_size;
        let own = config.bos_token_id.filter(inside);
        own.or_else(|| self.tokenizer.as_ref().and_then(Tokenizer::start_of_text).filter(inside))
            .or_else(|| config.eos_token_id.iter().copied().find(inside))
    }

    /// The default decoding parameters, with this model's end-of-text tokens.
    #[must_use]
    pub fn generation_config(&self) -> GenerationConfig {
        GenerationConfig { eos_token_id: self.eos_token_id.clone(), ..GenerationConfig::default() }
    }

    /// Converts the texts among the parameters to ids and compiles the constraint: see [`GenerationConfig::encode_texts`]. A negative prompt is made
    /// ids as any prompt is.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a text that needs a tokenizer if there is none; those of [`ids`](Self::ids) and
    /// [`GenerationConfig::compile`].
    pub fn encode_texts(&self, config: &mut GenerationConfig) -> Result<()> {
        if self.tokenizer.is_some()
            && config.negative_prompt_ids.is_none()
            && config.guidance_scale.is_some()
            && let Some(text) = config.negative_prompt.take()
        {
            config.negative_prompt_ids = Some(self.prompt_or_start(&text)?);
        }
        config.encode_texts(self.tokenizer.as_ref().map(|_| |text: &str| self.ids(text, true)))?;
        for choice in &config.choices {
            let Some(tokenizer) = &self.tokenizer else { break };
            // Some tokenizers put a space before a text.
            let is_text =
                |ids: &Vec<u32>| tokenizer.decode_exactly(ids).is_ok_and(|text| text.ends_with(choice.as_bytes()));
            if !self.ids(choice, false).is_ok_and(|ids| is_text(&ids)) {
                return Err(Error::parameter("choices", format!("has {choice:?}, which has no tokens")));
            }
        }
        self.compile(config)
    }

    /// Compiles the constraint, if there is one: see [`GenerationConfig::compile`].
    ///
    /// # Errors
    /// Those of [`GenerationConfig::compile`].
    pub fn compile(&self, config: &mut GenerationConfig) -> Result<()> {
        config.compile(|| self.tokenizer.as_ref().map(|_| self.vocabulary()))
    }

    /// The bytes of the model's tokens, for constraints. Made when first asked for, if not
    /// [before](Self::load_for_constraints).
    ///
    /// # Errors
    /// Those of [`Vocabulary::new`].
    pub fn vocabulary(&self) -> Result<&Vocabulary> {
        if let Some(vocabulary) = self.vocabulary.get() {
            return Ok(vocabulary);
        }
        let vocabulary = Vocabulary::new(self.model.config().vocab_size, self)?;
        Ok(self.vocabulary.get_or_init(|| vocabulary))
    }

    /// The ids of a prompt; one without a token is the [`start_token`](Self::start_token).
    fn prompt_or_start(&self, text: &str) -> Result<Vec<u32>> {
        let ids = self.prompt_ids(text, true)?;
        if !ids.is_empty() {
            return Ok(ids);
        }
        let none = || Error::Usage("the text is empty and the model has no start token".into());
        Ok(vec![self.start_token().ok_or_else(none)?])
    }

    /// Heals a prompt that may end inside a word (`token_healing`): white space at its ends and special tokens are left out,
    /// and its last token is replaced by the best of those that begin with it, if there are others. `start` begins the
    /// prompt; `special` as in [`ids`](Self::ids). Nothing is left of a prompt of white space.
    ///
    /// Reference: transformers 5.23.0, `heal_tokens` in `generation/utils.py`. It never heals a token that begins with a
    /// space, because it looks for GPT-2's own spelling of a space under a wrong name.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if there is no tokenizer; [`Error::Context`] if the prompt is longer than the context; errors of
    /// the model.
    pub fn heal(&self, ids: &[u32], start: Option<u32>, special: bool) -> Result<Vec<u32>> {
        self.heal_with(&self.model, ids, start, special)
    }

    /// As [`heal`](Self::heal), by a model that is this one with changes.
    ///
    /// # Errors
    /// As [`heal`](Self::heal).
    pub fn heal_with(&self, model: &Gpt2, ids: &[u32], start: Option<u32>, special: bool) -> Result<Vec<u32>> {
        /// What is added to the logits of tokens that begin with the last one, and to its own.
        const BIASES: (f32, f32) = (10.0, 11.0);
        let (tokenizer, vocab_size) = (self.tokenizer()?, self.model.config().vocab_size);
        let text = tokenizer.decode(ids, true)?;
        // As Python sees white space.
        let text = text.trim_matches(|c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c));
        let mut ids = self.prompt_ids(text, special)?;
        if let Some(start) = start.filter(|start| !ids.is_empty() && ids[0] != *start) {
            ids.insert(0, start);
        }
        let Some((tail, head)) = ids.split_last().filter(|(_, head)| !head.is_empty()) else { return Ok(ids) };
        let Some(bytes) = tokenizer.bytes(*tail).filter(|_| !tokenizer.is_special(*tail)) else { return Ok(ids) };
        let begins = |id: &u32| tokenizer.bytes(*id).is_some_and(|other| other.starts_with(bytes));
        let alternatives: Vec<u32> = (0..vocab_size as u32).filter(begins).collect();
        if alternatives.len() < 2 {
            return Ok(ids);
        }
        let mut logits = Session::new(model).forward(&[Input::logits(0, head)])?.logits;
        logits::check_finite(&logits)?;
        for id in alternatives {
            logits[id as usize] += if id == *tail { BIASES.1 } else { BIASES.0 };
        }
        Ok([head, &[logits::argmax(&logits) as u32]].concat())
    }

    /// Continues a text; one without a token starts from [`start_token`](Self::start_token). The sequences hold only the
    /// continuation.
    ///
    /// # Errors
    /// Those of [`ids`](Self::ids), [`GenerationConfig::validate`] and [`generate`]; [`Error::Usage`] for an empty text if the
    /// model has no start token.
    pub fn generate(&self, text: &str, mut config: GenerationConfig) -> Result<Vec<Sequence>> {
        self.encode_texts(&mut config)?;
        let decoding = Arc::new(config.validate()?);
        let mut ids = self.prompt_or_start(text)?;
        if config.token_healing {
            let healed = self.heal(&ids, None, true)?;
            ids = if healed.is_empty() { ids } else { healed };
        }
        generate(&mut Session::new(&self.model), self, &ids, &decoding, |_| ())
    }
}

/// The text of tokens for decoding: special tokens have none.
impl Detokenize for Pipeline {
    fn token_bytes(&self, id: u32) -> &[u8] {
        self.tokenizer.as_ref().map_or(&[], |tokenizer| text_of(tokenizer, id))
    }
}

/// The same of a tokenizer without its model.
struct Texts<'a>(&'a Tokenizer);

impl Detokenize for Texts<'_> {
    fn token_bytes(&self, id: u32) -> &[u8] {
        text_of(self.0, id)
    }
}

fn text_of(tokenizer: &Tokenizer, id: u32) -> &[u8] {
    tokenizer.bytes(id).filter(|_| !tokenizer.is_special(id)).unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::FinishReason;
    use crate::tokenizer::TokenizerFiles;

    #[test]
    fn a_text_goes_on_and_ends_at_the_end_of_text() {
        let pipeline = Pipeline::from_pretrained("demo").unwrap();
        assert_eq!((pipeline.start_token(), pipeline.eos_token_id.as_slice()), (Some(50256), &[50256][..]));
        let config = GenerationConfig { max_new_tokens: 5, ..pipeline.generation_config() };
        let sequences = pipeline.generate("Once upon a", config.clone()).unwrap();
        let text = pipeline.text(&sequences[0].ids).unwrap();
        assert!(text.starts_with(" time"), "{text}");
        assert_eq!(text.as_bytes(), sequences[0].text);
        // The first token of the continuation, made an end-of-text token.
        let ends = GenerationConfig { eos_token_id: vec![sequences[0].ids[0]], ..config.clone() };
        let ended = pipeline.generate("Once upon a", ends).unwrap();
        assert_eq!((ended[0].ids.len(), ended[0].finish_reason), (1, FinishReason::Eos));
        assert!(!pipeline.generate("", config).unwrap()[0].ids.is_empty());
    }

    #[test]
    fn ids_need_no_tokenizer() {
        let mut opened = source::open("demo", &SourceOptions::default()).unwrap();
        for (files, word) in [
            (TokenizerFiles::None, "demo has no tokenizer"),
            (TokenizerFiles::tokenizer_json("/no/t.json"), "/no/t.json"),
        ] {
            opened.tokenizer = files;
            let pipeline = Pipeline::load(&opened, LoadOptions::default()).unwrap();
            let error = pipeline.generate("Once", pipeline.generation_config()).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
            assert_eq!((pipeline.token_text(0), pipeline.start_token()), (None, Some(50256)));
            pipeline.check_ids(&[0, 50256]).unwrap();
            assert!(pipeline.check_ids(&[50257]).is_err());
        }
    }
}
