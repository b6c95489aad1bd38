//! What the model says of the texts of `--choices`, without the constraint.

use std::ops::ControlFlow;

use anyhow::Result;
use gpt2::analysis::score::{ScoreOptions, score};
use gpt2::base::math;

use super::{Generator, Request};
use crate::cli::{Prompt, Verbosity};
use crate::commands::score::{Encoded, after};
use crate::output::generate::ChoiceRecord;
use crate::output::numbers::probability_of;
use crate::output::tokens::quoted;
use crate::output::{Stdout, Style};

/// A text of `--choices`, and its ids after the prompt.
pub struct Choice {
    text: String,
    encoded: Encoded,
}

impl Generator<'_> {
    /// The `choices` after a prompt, given as `text` or as ids alone.
    ///
    /// # Errors
    /// If one has a special token, which no text is, or has no room in the context after the prompt.
    pub(super) fn encoded_choices(
        &self,
        choices: Vec<String>,
        text: Option<&str>,
        prompt_ids: &[u32],
    ) -> Result<Vec<Choice>> {
        let loaded = self.loaded;
        let context = match text {
            Some(text) => Prompt::Text(text.to_owned()),
            None => Prompt::Ids(prompt_ids.to_vec()),
        };
        let quiet = Verbosity { quiet: true, ..self.verbosity };
        let most = loaded.model.config().n_positions;
        let encode = |choice: String| {
            let mut encoded = after(loaded, &self.args.text, quiet, &context, &Prompt::Text(choice.clone()))?;
            let start = prompt_ids.first().filter(|_| self.args.text.bos && text.is_some());
            if let Some(start) = start.filter(|start| encoded.ids.first() != Some(start)) {
                encoded.ids.insert(0, *start);
                encoded.given += 1;
            }
            let (all, own) = (encoded.ids.len(), &encoded.ids[encoded.given.min(encoded.ids.len())..]);
            let is_special = |id: &&u32| loaded.tokenizer.as_ref().is_some_and(|tokenizer| tokenizer.is_special(**id));
            let fault = if let Some(id) = own.iter().find(is_special) {
                let token = loaded.notation(false).token(*id);
                format!("has {token}, a special token, which is no text (with --no-special it is)")
            } else if all > most + 1 {
                format!("has a text that takes {all} tokens with the prompt, and the model's context has {most}")
            } else {
                return Ok(Choice { text: choice, encoded });
            };
            Err(gpt2::Error::parameter("choices", fault).into())
        };
        choices.into_iter().map(encode).collect()
    }

    /// The probability of each choice after the prompt, in the order given; none if there are no choices.
    pub(super) fn choices(&self, request: &Request) -> Result<Option<Vec<ChoiceRecord>>> {
        if request.choices.is_empty() {
            return Ok(None);
        }
        let texts: Vec<_> = request.choices.iter().map(|choice| choice.encoded.text()).collect();
        let scores = score(&request.model, &texts, &ScoreOptions::default(), |_| ControlFlow::Continue(()))?;
        let record = |(choice, logprob): (&Choice, f64)| ChoiceRecord {
            text: choice.text.clone(),
            logprob,
            prob: math::exp(logprob),
        };
        Ok(Some(request.choices.iter().zip(scores.iter().map(|score| score.sum_logprob())).map(record).collect()))
    }
}

/// A line for each choice: its probability and its text, in the order given.
pub fn write(choices: &[ChoiceRecord], out: &mut Stdout) -> Result<()> {
    let (dim, bold) = (Style::new().dimmed(), Style::new().bold());
    let best = choices.iter().map(|choice| choice.logprob).fold(f64::NEG_INFINITY, f64::max);
    for choice in choices {
        let style = if choice.logprob == best { bold } else { Style::new() };
        let (probability, text) = (probability_of(choice.logprob, 3), quoted(choice.text.as_bytes()));
        writeln!(out, "{probability:>9}  {dim}{:>9.4}{dim:#}  {style}{text}{style:#}", choice.logprob)?;
    }
    Ok(())
}
