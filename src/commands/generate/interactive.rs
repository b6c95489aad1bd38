//! Prompt after prompt on a terminal: the model is loaded once, with line editing, a history, and commands about the last
//! completion.

mod line;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, anyhow, bail};
use gpt2::decode::{FinishReason, GenerationConfig, Group, PARAMETERS, Parameter, Sequence};

use self::line::{Input, Reader};
use super::show::write_in;
use super::{Generator, Request, interrupt_flag, rand_seed};
use crate::cli::advice::{self, Spelling};
use crate::cli::{ConstraintFile, Prompt};
use crate::output::{Stdout, Style, check_folder, say, say_written, write_file};

/// The commands of a session, and what they do.
const COMMANDS: [(&str, &str); 8] = [
    ("/more", "continue the completion"),
    ("/retry", "complete again, with another seed"),
    ("/undo", "forget the last completion"),
    ("/set NAME VALUE", "set a parameter, as in /set temperature 0.8"),
    ("/set NAME default", "reset it; /set alone shows what is set"),
    ("/save FILE", "write the text to a file"),
    ("/quit", "leave, as Ctrl-D does"),
    ("/help", "this list; a text of several lines goes between two \"\"\""),
];

pub fn run(generator: &Generator<'_>) -> Result<()> {
    let (mut reader, is_terminal) = Reader::open()?;
    let mut session = Session {
        generator: Generator { config: generator.config.clone(), ..*generator },
        interrupted: interrupt_flag()?,
        turns: vec![],
    };
    if is_terminal && !generator.verbosity.quiet {
        let (name, parameters) = (&generator.loaded.name, session.parameters());
        say(format_args!("{name}: {parameters}"));
        say("type a text to continue; /help lists commands, Ctrl-C stops a completion, Ctrl-D quits");
    }
    while let Some(input) = reader.next()? {
        if matches!(&input, Input::Command(name, _) if name == "quit" || name == "exit") {
            break;
        }
        let mut out = Stdout::lock().with_raw_text(generator.args.raw_text.raw_text);
        let outcome = session.answer(input, &mut out).map_err(|error| generator.blame(error, &[]));
        out.finish()?;
        // What is wrong with a line does not end the session.
        if let Err(error) = outcome {
            say(format_args!("error: {}", advice::line(&error, "generate", Spelling::Flags)));
        }
    }
    reader.close();
    Ok(())
}

/// A text that was continued.
struct Turn {
    request: Request,
    /// What of the prompt stands before the completion.
    shown: String,
    /// The first of the completions.
    completion: Sequence,
}

/// The state of a session.
struct Session<'a> {
    generator: Generator<'a>,
    interrupted: Arc<AtomicBool>,
    turns: Vec<Turn>,
}

impl Session<'_> {
    fn answer(&mut self, input: Input, out: &mut Stdout) -> Result<()> {
        match input {
            Input::Text(text) => {
                let text = Prompt::Text(text?);
                let request = self.generator.request(&text, None, &self.generator.config, rand_seed())?;
                let shown = self.generator.prompt_text(&request);
                self.complete(request, shown, out)
            }
            Input::Command(name, rest) => match name.as_str() {
                "more" => self.more(out),
                "retry" => self.retry(out),
                "undo" => self.undo(out),
                "set" => self.set(&rest),
                "save" => self.save(&rest),
                "help" => {
                    COMMANDS.iter().for_each(|(command, what)| say(format_args!("{command:<18} {what}")));
                    Ok(())
                }
                name => bail!(
                    "there is no command /{name}; /help lists them, and between two \"\"\" a text may begin with a slash"
                ),
            },
        }
    }

    /// Continues a prompt, of which `shown` is written before the completion.
    fn complete(&mut self, request: Request, shown: String, out: &mut Stdout) -> Result<()> {
        self.interrupted.store(false, Ordering::Relaxed);
        let outcome = self.generator.write_text(&request, &shown, Style::new().dimmed(), &self.interrupted, out)?;
        // What there is of an interrupted one counts, too.
        if let Some(completion) = outcome.sequences.into_iter().next() {
            self.turns.push(Turn { request, shown, completion });
        }
        Ok(())
    }

    fn more(&mut self, out: &mut Stdout) -> Result<()> {
        let last = self.turns.last().context("there is nothing to continue yet")?;
        let Request { prompt, prompt_ids, .. } = &last.request;
        let mut ids = last.completion.ids.clone();
        if last.completion.finish_reason == FinishReason::Eos {
            // After the end of text, another text would begin.
            ids.pop();
        }
        let text = prompt.as_ref().map(|prompt| format!("{prompt}{}", String::from_utf8_lossy(&last.completion.text)));
        let ids = [&prompt_ids[..], &ids].concat();
        // What was completed stays changed by the same means.
        let model = last.request.model.clone();
        let request = self.generator.request_of(text, ids, false, &self.generator.config, rand_seed())?;
        let request = Request { model, ..request };
        self.complete(request, String::new(), out)
    }

    fn retry(&mut self, out: &mut Stdout) -> Result<()> {
        let last = self.turns.pop().context("there is nothing to try again yet")?;
        let config = GenerationConfig { seed: None, ..self.generator.config.clone() };
        let Request { prompt, prompt_ids, .. } = &last.request;
        let request = self.generator.request_of(prompt.clone(), prompt_ids.clone(), false, &config, rand_seed());
        let outcome = request.and_then(|request| {
            if request.seed().is_none() {
                say("note: nothing is drawn, so the completion is the same; /set temperature 0.8 draws");
            }
            self.complete(request, last.shown.clone(), out)
        });
        if outcome.is_err() {
            self.turns.push(last);
        }
        outcome
    }

    fn undo(&mut self, out: &mut Stdout) -> Result<()> {
        self.turns.pop().context("there is nothing to undo yet")?;
        match self.turns.last() {
            Some(turn) => {
                let (prompt, completion) = (self.generator.prompt_text(&turn.request), &turn.completion);
                let completion = self.generator.text_or_ids(completion, !prompt.is_empty());
                write_in(Style::new().dimmed(), &prompt, out)?;
                out.text(completion + "\n")
            }
            None => {
                say("nothing is left");
                Ok(())
            }
        }
    }

    fn set(&mut self, rest: &str) -> Result<()> {
        let (name, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let value = value.trim();
        if !name.is_empty() {
            let parameter = Parameter::named(&name.trim_start_matches('-').replace('-', "_"));
            let parameter = parameter.with_context(|| match advice::meant_parameter(name) {
                Some(meant) => format!("there is no parameter {name:?}: /set {meant} was perhaps meant"),
                None => format!("there is no parameter {name:?}; gpt2 generate --help lists them"),
            })?;
            let mut config = self.generator.config.clone();
            if !value.is_empty() {
                parameter.reset(&mut config);
            }
            if !matches!(value, "" | "default") {
                if parameter.group == Group::Constraint {
                    // A text has one.
                    let others = PARAMETERS.iter().filter(|other| other.group == Group::Constraint);
                    others.for_each(|other| other.reset(&mut config));
                }
                let content = match ConstraintFile::named(parameter.name) {
                    Some(file) if !file.is_content(value) => {
                        file.read(Path::new(value)).map_err(|fault| anyhow!("{name} {fault}"))?
                    }
                    _ => value.to_owned(),
                };
                parameter.read(&content, &mut config).map_err(|fault| {
                    let is_sentence = ["takes ", "is ", "has "].iter().any(|verb| fault.starts_with(verb));
                    anyhow!("{name}{} {fault}", if is_sentence { "" } else { ":" })
                })?;
            }
            config.check()?;
            self.generator.config = config;
            if value.is_empty() {
                say(format_args!("{name} {}: {}", shown(parameter, &self.generator.config), parameter.doc()));
                return Ok(());
            }
        }
        say(self.parameters());
        Ok(())
    }

    fn save(&self, path: &str) -> Result<()> {
        if path.is_empty() {
            bail!("/save takes the name of a file");
        }
        let last = self.turns.last().context("there is nothing to save yet")?;
        let prompt = last.request.prompt.clone().unwrap_or_default();
        let text = prompt + &self.generator.text_or_ids(&last.completion, false);
        let path = Path::new(path);
        check_folder(Some(path))?;
        let replaced = if path.is_file() { ", in place of an earlier file" } else { "" };
        write_file(path, text.as_bytes())?;
        say_written(path, format_args!("the prompt and its completion{replaced}"));
        Ok(())
    }

    /// The search and the parameters that are not at their defaults.
    fn parameters(&self) -> String {
        let (config, defaults) = (&self.generator.config, GenerationConfig::default());
        let search = match () {
            () if config.penalty_alpha.is_some() => "contrastive search",
            () if config.num_beams > 1 => "beam search",
            () if config.clone().validate().is_ok_and(|decoding| decoding.draws()) => "sampling",
            () => "greedy",
        };
        let is_said = |p: &&Parameter| p.name == "max_new_tokens" || p.json(config) != p.json(&defaults);
        let said =
            PARAMETERS.iter().filter(is_said).map(|p| format!(", {} {}", p.name.replace('_', "-"), shown(p, config)));
        format!("{search}{}", said.collect::<String>())
    }
}

/// A parameter's value.
fn shown(parameter: &Parameter, config: &GenerationConfig) -> String {
    match parameter.json(config) {
        serde_json::Value::Null => "off".to_owned(),
        value => value.to_string(),
    }
}
