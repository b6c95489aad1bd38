//! What is shown of the sequences of a request: text as it comes, records, a page.

use std::sync::atomic::AtomicBool;

use anyhow::Result;
use gpt2::analysis::alternatives::alternatives;
use gpt2::decode::{Event, Sequence};
use gpt2::error::tokens_text;
use gpt2::tokenizer::TextStream;

use super::choices;
use super::{Full, Generator, Outcome, Request, Unfinished, fills_context, join_ids};
use crate::output::generate::{GenerateRecord, Logprobs, SequenceRecord, Timings, write_logprobs};
use crate::output::{Stdout, Style, html, say, say_written};

impl Generator<'_> {
    /// What of a prompt is written before its continuation.
    pub(super) fn prompt_text(&self, request: &Request) -> String {
        if self.args.completion_only {
            return String::new();
        }
        let tokenizer = self.loaded.tokenizer.as_ref().filter(|_| request.is_healed);
        let healed = tokenizer.and_then(|tokenizer| tokenizer.decode(&request.prompt_ids, true).ok());
        match healed.as_ref().or(request.prompt.as_ref()) {
            Some(prompt) => prompt.clone(),
            None => join_ids(&request.prompt_ids),
        }
    }

    /// Writes `prompt`, in a style, and the continuation as text while decoding.
    pub(super) fn write_text(
        &self,
        request: &Request,
        prompt: &str,
        style: Style,
        interrupted: &AtomicBool,
        out: &mut Stdout,
    ) -> Result<Outcome> {
        self.announce(request);
        let several = self.config.num_return_sequences > 1;
        let streams = request.decoding.streams() && !several && self.loaded.tokenizer.is_some();
        let mut stream = TextStream::default();
        let is_silent = !streams && Stdout::is_terminal();
        let outcome = self.generate(request, interrupted, is_silent, |event| match event {
            None if streams => write_in(style, prompt, out),
            Some(Event::Token { text, .. }) if streams && !text.is_empty() => out.text(stream.push(text)),
            _ => Ok(()),
        })?;
        if streams {
            out.text(&(stream.finish() + "\n"))?;
        }
        self.write_page(request, &outcome.sequences)?;
        for (i, sequence) in outcome.sequences.iter().enumerate() {
            if several {
                writeln!(out, "=== {i} ===")?;
            }
            if !streams {
                write_in(style, prompt, out)?;
                out.text(self.text_or_ids(sequence, !prompt.is_empty()) + "\n")?;
            }
            if sequence.logprobs.is_some() {
                let notation = self.loaded.notation(self.args.pieces.pieces);
                let record = self.sequence(i, sequence, &request.prompt_ids);
                write_logprobs(&record, &request.prompt_ids, notation, out)?;
            }
        }
        if let Some(choices) = self.choices(request)? {
            choices::write(&choices, out)?;
        }
        self.report(&outcome.sequences, outcome.timings);
        Ok(outcome)
    }

    /// Writes the page with the alternatives to each generated token, if it is asked for.
    pub(super) fn write_page(&self, request: &Request, sequences: &[Sequence]) -> Result<()> {
        let Some(path) = self.args.html.as_ref().filter(|_| !sequences.is_empty()) else { return Ok(()) };
        let tokens = sequences.iter().map(|sequence| sequence.ids.len()).sum();
        let explained = sequences.iter().map(|sequence| {
            let ids = [&*request.prompt_ids, &sequence.ids].concat();
            let from = request.prompt_ids.len();
            let best = html::generate::candidates(tokens);
            let places = alternatives(&request.model, &ids, from, best, &html::generate::TEMPERATURES)?;
            Ok(html::generate::Explained { ids, from, finish_reason: sequence.finish_reason, places })
        });
        let explained = explained.collect::<Result<Vec<_>>>()?;
        html::generate::write(path, &self.loaded.name, &self.config, &explained, self.loaded.tokenizer.as_ref())?;
        if !self.verbosity.quiet {
            say_written(path, "a page with each token and its alternatives");
        }
        Ok(())
    }

    /// Reports the drawn seed on stderr, since the result does not show it.
    fn announce(&self, request: &Request) {
        if let Some(seed) = request.seed().filter(|_| !self.verbosity.quiet && self.config.seed.is_none()) {
            say(format_args!("seed: {seed}"));
        }
    }

    /// Warns if a text, after a prompt of so many tokens, ends where the context is full, or before it is all that the constraint asks for.
    pub(super) fn warn_of_ends(&self, sequences: &[Sequence], prompt: usize) {
        match fills_context(sequences, prompt, self.loaded.model.config().n_positions) {
            Some(Full::Negative) => self.warn_that("the text ends because that after the negative prompt is"),
            Some(Full::Own) => self.warn_that("the text ends"),
            None => {}
        }
        let Unfinished { count, by_limit } = Unfinished::of(sequences);
        match (count, sequences.len()) {
            (0, _) => {}
            (_, 1) => self.warn_of_unfinished("the text is not complete", by_limit),
            (n, all) => self.warn_of_unfinished(format_args!("{n} of {all} texts are not complete"), by_limit),
        }
    }

    /// Warns of texts that a constraint would have go on, if it were not for a limit of flags (`by_limit`) or the context.
    pub(super) fn warn_of_unfinished(&self, what: impl std::fmt::Display, by_limit: bool) {
        let config = &self.config;
        let advice = match (by_limit, config.max_length, config.max_time) {
            (false, ..) => "",
            (true, None, None) => "; raise --max-new-tokens",
            (true, None, Some(_)) => "; raise --max-new-tokens or --max-time",
            (true, Some(_), None) => "; raise --max-length",
            (true, Some(_), Some(_)) => "; raise --max-length or --max-time",
        };
        if !self.verbosity.quiet {
            say(format_args!("warning: {what}: the constraint asks for more{advice}"));
        }
    }

    /// Warns that what is said happens where the context is full.
    pub(super) fn warn_that(&self, what: impl std::fmt::Display) {
        if !self.verbosity.quiet {
            let context = tokens_text(self.loaded.model.config().n_positions);
            say(format_args!(
                "warning: {what} at the full context of {context}; to continue, use --on-context-limit crop"
            ));
        }
    }

    fn report(&self, sequences: &[Sequence], timings: Timings) {
        self.warn_of_ends(sequences, timings.prompt_tokens);
        if self.verbosity.verbose > 0 {
            let decoded = timings.generated_tokens.saturating_sub(1);
            say(format_args!(
                "load {:.3} s, prompt {} in {:.3} s ({:.1} tokens/s), {decoded} more in {:.3} s ({:.1} tokens/s)",
                timings.load_s,
                tokens_text(timings.prompt_tokens),
                timings.prefill_s,
                timings.prompt_tokens as f64 / timings.prefill_s,
                timings.decode_s,
                decoded as f64 / timings.decode_s.max(1e-9),
            ));
            if let (Some(passes), Some(drafted), Some(accepted)) =
                (timings.passes, timings.drafted_tokens, timings.accepted_tokens)
            {
                let per_pass = timings.generated_tokens as f64 / passes as f64;
                say(format_args!(
                    "{} in {passes} passes ({per_pass:.2} tokens a pass): {accepted} of {drafted} guesses were right",
                    tokens_text(timings.generated_tokens),
                ));
            }
        }
    }

    pub(super) fn text_or_ids(&self, sequence: &Sequence, after_prompt: bool) -> String {
        match &self.loaded.tokenizer {
            Some(_) => String::from_utf8_lossy(&sequence.text).into_owned(),
            None if after_prompt => format!(" {}", join_ids(&sequence.ids)),
            None => join_ids(&sequence.ids),
        }
    }

    /// The record of a finished request.
    ///
    /// # Errors
    /// If the probabilities of choices cannot be computed.
    pub(super) fn record<'a>(
        &'a self,
        request: &Request,
        sequences: &'a [Sequence],
        timings: Timings,
    ) -> Result<GenerateRecord<'a>> {
        Ok(GenerateRecord {
            model: self.loaded.name.clone(),
            settings: self.loaded.record_settings(request.parameters.clone()),
            prompt: request.prompt.clone(),
            prompt_ids: request.prompt_ids.clone(),
            seed: request.seed(),
            sequences: sequences
                .iter()
                .enumerate()
                .map(|(i, sequence)| self.sequence(i, sequence, &request.prompt_ids))
                .collect(),
            choices: self.choices(request)?,
            timings,
        })
    }

    fn sequence<'a>(&'a self, index: usize, sequence: &'a Sequence, prompt: &[u32]) -> SequenceRecord<'a> {
        let logprobs = sequence.logprobs.as_ref();
        SequenceRecord {
            index,
            ids: sequence.ids.clone(),
            all_ids: [prompt, &sequence.ids].concat(),
            text: self.loaded.tokenizer.as_ref().map(|_| String::from_utf8_lossy(&sequence.text).into_owned()),
            finish_reason: sequence.finish_reason,
            score: sequence.score,
            logprobs: logprobs.map(|tokens| Logprobs { tokens, pipeline: self.loaded.pipeline() }),
        }
    }
}

/// Writes others' text in a style.
pub fn write_in(style: Style, text: &str, out: &mut Stdout) -> Result<()> {
    write!(out, "{style}")?;
    out.text(text)?;
    write!(out, "{style:#}")
}
