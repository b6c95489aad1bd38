//! What the model says of the texts of `--choices`, without the constraint.

use std::ops::ControlFlow;

use anyhow::Result;
use gpt2::analysis::score::{ScoreOptions, score};
use gpt2::base::math;
use unicode_width::UnicodeWidthStr;

use super::{Generator, Request};
use crate::cli::{Prompt, Verbosity};
use crate::commands::score::{Encoded, after};
use crate::output::generate::ChoiceRecord;
use crate::output::numbers::probability_of;
use crate::output::tokens::quoted;
use crate::output::{Stdout, Style};

/// The longest choice that is shown whole, in columns.
const WIDEST: usize = 40;

impl Generator<'_> {
    /// The probability of each choice after the prompt, in the order given; none if there are no choices.
    pub(super) fn choices(&self, request: &Request) -> Result<Option<Vec<ChoiceRecord>>> {
        if request.choices.is_empty() {
            return Ok(None);
        }
        let context = match &request.prompt {
            Some(prompt) if request.is_text => Prompt::Text(prompt.clone()),
            _ => Prompt::Ids(request.prompt_ids.clone()),
        };
        let quiet = Verbosity { quiet: true, ..self.verbosity };
        let encode = |choice: &String| {
            let choice = Prompt::Text(choice.clone());
            let mut encoded = after(self.loaded, &self.args.text, quiet, &context, &choice)?;
            let start = request.prompt_ids.first().filter(|_| self.args.text.bos && request.is_text);
            if let Some(start) = start.filter(|start| encoded.ids.first() != Some(start)) {
                encoded.ids.insert(0, *start);
                encoded.given += 1;
            }
            Ok(encoded)
        };
        let encoded: Vec<Encoded> = request.choices.iter().map(encode).collect::<Result<_>>()?;
        let texts: Vec<_> = encoded.iter().map(Encoded::text).collect();
        let scores = score(&request.model, &texts, &ScoreOptions::default(), |_| ControlFlow::Continue(()))?;
        let record =
            |(text, logprob): (&String, f64)| ChoiceRecord { text: text.clone(), logprob, prob: math::exp(logprob) };
        Ok(Some(request.choices.iter().zip(scores.iter().map(|score| score.sum_logprob())).map(record).collect()))
    }
}

/// A line for each choice: its probability and its text, in the order given.
pub fn write(choices: &[ChoiceRecord], out: &mut Stdout) -> Result<()> {
    let (dim, bold) = (Style::new().dimmed(), Style::new().bold());
    let best = choices.iter().map(|choice| choice.logprob).fold(f64::NEG_INFINITY, f64::max);
    let texts: Vec<String> = choices.iter().map(|choice| quoted(choice.text.as_bytes())).collect();
    let widest = texts.iter().map(|text| text.width()).max().unwrap_or(0).min(WIDEST);
    for (choice, text) in choices.iter().zip(&texts) {
        let style = if choice.logprob == best { bold } else { Style::new() };
        let padding = " ".repeat(widest.saturating_sub(text.width()));
        let probability = probability_of(choice.logprob, 3);
        writeln!(out, "{style}{text}{style:#}{padding}  {probability:>9}  {dim}{:.4}{dim:#}", choice.logprob)?;
    }
    Ok(())
}
