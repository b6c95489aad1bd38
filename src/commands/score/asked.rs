//! What is to be scored, from flags or a row: ids, and how many of them only come before.

use anyhow::{Context, Result, anyhow, bail};
use gpt2::Error;
use gpt2::analysis::score::Text;
use serde_json::value::RawValue;

use crate::cli::{Prompt, ScoreArgs, TextArgs, Verbosity};
use crate::commands::load::Loaded;
use crate::commands::rows::{Row, quoted, text, token_ids};

/// A row's keys besides those of its text.
pub const ROW_KEYS: [&str; 3] = ["context", "context_ids", "candidates"];

/// What is asked about one input.
pub enum Asked {
    Text(Encoded),
    /// Texts to compare, each with what it was given as.
    Candidates(Vec<(Prompt, Encoded)>),
}

/// A text as ids.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// All that the model sees and one more: what comes before the text, and the text.
    pub ids: Vec<u32>,
    /// How many come before.
    pub given: usize,
    /// Those of the context, if there is one.
    pub context: Option<Vec<u32>>,
    /// Whether `<|endoftext|>` was put before it.
    pub bos: bool,
    /// Whether `<|endoftext|>` was put after it.
    pub eos: bool,
    /// Bytes of white space that were moved from the context to the text.
    pub moved: usize,
}

impl Encoded {
    pub fn text(&self) -> Text<'_> {
        Text { ids: &self.ids, given: self.given }
    }

    /// The ids of the text alone.
    pub fn own(&self) -> &[u32] {
        &self.ids[self.given..]
    }
}

impl Asked {
    pub fn texts(&self) -> impl Iterator<Item = &Encoded> {
        let (text, candidates) = match self {
            Self::Text(text) => (Some(text), None),
            Self::Candidates(candidates) => (None, Some(candidates.iter().map(|(_, encoded)| encoded))),
        };
        text.into_iter().chain(candidates.into_iter().flatten())
    }
}

/// The context and candidates of a row, or of the flags.
#[derive(Debug, Clone, Default)]
pub struct Around {
    pub context: Option<Prompt>,
    pub candidates: Vec<Prompt>,
}

impl Around {
    pub fn of_flags(args: &ScoreArgs) -> Self {
        Self {
            context: args.context.clone().map(Prompt::Text),
            candidates: args.candidate.iter().cloned().map(Prompt::Text).collect(),
        }
    }

    /// What the row says, over what the flags say about all rows.
    pub fn of_row(row: &Row, flags: &Self) -> Result<Self> {
        let mut around = flags.clone();
        if row.has_prompt {
            around.candidates.clear();
        }
        let mut is_given = false;
        for (key, value) in &row.own {
            match &**key {
                "candidates" if row.has_prompt => bail!("the row has both a text and `candidates`"),
                "candidates" => around.candidates = candidates(value)?,
                _ if is_given => bail!("the row has both `context` and `context_ids`"),
                _ => {
                    is_given = true;
                    around.context = Some(match &**key {
                        "context" => Prompt::Text(text(key, value)?),
                        _ => Prompt::Ids(token_ids(key, value)?),
                    });
                }
            }
        }
        if !row.has_prompt && around.candidates.is_empty() {
            bail!("the row has a context, but no text, no token ids, and no `candidates`");
        }
        Ok(around)
    }
}

/// Texts, or lists of token ids.
fn candidates(value: &RawValue) -> Result<Vec<Prompt>> {
    let wrong = || anyhow!("`candidates` is {}; it takes a list of texts", quoted(value.get()));
    let values: Vec<&RawValue> = serde_json::from_str(value.get()).map_err(|_| wrong())?;
    if values.is_empty() {
        bail!("`candidates` is empty");
    }
    let one = |value: &&RawValue| match value.get().starts_with('[') {
        true => token_ids("candidates", value).map(Prompt::Ids),
        false => text("candidates", value).map(Prompt::Text),
    };
    values.iter().map(one).collect()
}

/// Makes ids as the flags say.
pub struct Encoder<'a> {
    pub args: &'a ScoreArgs,
    pub loaded: &'a Loaded,
    pub verbosity: Verbosity,
}

impl Encoder<'_> {
    /// What is asked: about the candidates if there are some, else about the text.
    pub fn asked(&self, prompt: &Prompt, around: &Around) -> Result<Asked> {
        if around.candidates.is_empty() {
            return self.encode(prompt, around.context.as_ref()).map(Asked::Text);
        }
        let empty = Prompt::Text(String::new());
        let context = around.context.as_ref().unwrap_or(&empty);
        let encode = |candidate: &Prompt| Ok((candidate.clone(), self.encode(candidate, Some(context))?));
        around.candidates.iter().map(encode).collect::<Result<_>>().map(Asked::Candidates)
    }

    fn encode(&self, prompt: &Prompt, context: Option<&Prompt>) -> Result<Encoded> {
        let mut encoded = match context {
            Some(context) => after(self.loaded, &self.args.text, self.verbosity, context, prompt)?,
            None => {
                let ids = self.loaded.text_ids(prompt, &self.args.text, self.verbosity)?;
                let given = self.loaded.added_before(prompt);
                Encoded { ids, given, context: None, bos: given > 0, eos: false, moved: 0 }
            }
        };
        let has_start = encoded.given > encoded.context.as_ref().map_or(0, Vec::len) || self.is_start(&encoded);
        if (self.args.text.bos || self.args.rolling) && !has_start {
            let flag = if self.args.text.bos { "--bos" } else { "--rolling" };
            let start = self.loaded.start_token().with_context(|| format!("{flag}: the model has no start token"))?;
            encoded.ids.insert(0, start);
            encoded.given += 1;
            encoded.bos = true;
        }
        if self.args.eos {
            let end = self.end_of_text().context("--eos: the model has no <|endoftext|>")?;
            encoded.ids.push(end);
            encoded.eos = true;
        }
        if context.is_some() && encoded.own().is_empty() {
            bail!(Error::Usage(match prompt {
                Prompt::Text(text) if !text.is_empty() => {
                    "nothing is left to score: the context's last token takes in the whole text".into()
                }
                _ => "there is nothing to score after the context: the text is empty".into(),
            }));
        }
        Ok(encoded)
    }

    /// Whether an empty context has become a start of text already.
    fn is_start(&self, encoded: &Encoded) -> bool {
        encoded.context.as_ref().is_some_and(|context| context[..] == self.loaded.start_token().as_slice()[..])
    }

    /// `<|endoftext|>`: the tokenizer's, if the model has it; without one, the token that starts a text.
    pub fn end_of_text(&self) -> Option<u32> {
        let vocab_size = self.loaded.model.config().vocab_size;
        let tokenizers = self.loaded.tokenizer.as_ref().and_then(|tokenizer| tokenizer.end_of_text());
        tokenizers.filter(|id| (*id as usize) < vocab_size).or_else(|| self.loaded.start_token())
    }
}

/// The ids of a text after a context, as lm-evaluation-harness makes them: white space that ends the context goes to
/// the text, and the text's ids are those of both together after as many as the context alone has.
pub fn after(
    loaded: &Loaded,
    flags: &TextArgs,
    verbosity: Verbosity,
    context: &Prompt,
    prompt: &Prompt,
) -> Result<Encoded> {
    let parts = |prompt: &Prompt| parts(loaded, flags, verbosity, prompt);
    let (kept, moved) = match context {
        // Python's idea of white space.
        Prompt::Text(text) => {
            let kept = text.trim_end_matches(|c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c));
            (Prompt::Text(kept.to_owned()), text[kept.len()..].to_owned())
        }
        Prompt::Ids(ids) => (Prompt::Ids(ids.clone()), String::new()),
    };
    let (before, mut context_ids, _) = parts(&kept)?;
    let ids = match (&kept, prompt) {
        (Prompt::Text(kept), Prompt::Text(text)) => {
            let (_, mut ids, after) = parts(&Prompt::Text(format!("{kept}{moved}{text}")))?;
            ids.drain(..context_ids.len().min(ids.len()));
            if !text.is_empty() {
                ids.extend(after);
            }
            ids
        }
        (_, prompt) => parts(prompt)?.1,
    };
    // What is moved to ids has no place there.
    let moved = if matches!(prompt, Prompt::Text(_)) { moved.len() } else { 0 };
    if context_ids.is_empty() && before.is_empty() {
        context_ids.push(loaded.start_token().context("the context is empty, and the model has no start token")?);
    }
    let ids = if matches!(prompt, Prompt::Text(text) if text.is_empty()) { vec![] } else { ids };
    let given = before.len() + context_ids.len();
    let bos = !before.is_empty();
    Ok(Encoded {
        ids: [&before[..], &context_ids, &ids].concat(),
        given,
        context: Some(if context_ids.is_empty() { before } else { context_ids }),
        bos,
        eos: false,
        moved,
    })
}

/// The ids of a prompt: those that the tokenizer puts before it, its own, and those after it.
fn parts(
    loaded: &Loaded,
    flags: &TextArgs,
    verbosity: Verbosity,
    prompt: &Prompt,
) -> Result<(Vec<u32>, Vec<u32>, Vec<u32>)> {
    let mut ids = loaded.text_ids(prompt, flags, verbosity)?;
    let after = match (prompt, &loaded.tokenizer) {
        (Prompt::Text(_), Some(tokenizer)) => tokenizer.after_text().len(),
        _ => 0,
    };
    let own = ids.split_off(loaded.added_before(prompt).min(ids.len()));
    let (own, after) = own.split_at(own.len().saturating_sub(after));
    Ok((ids, own.to_vec(), after.to_vec()))
}
