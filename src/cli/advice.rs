//! Errors in terms of the command line: the library names parameters and types, while users give flags.

use std::borrow::Cow;
use std::ffi::OsString;

use clap::CommandFactory;
use gpt2::decode::PARAMETERS;
use gpt2::{Error, printable};

use super::settings::{Origin, Settings};
use super::{Cli, retyped, text, unknown};

/// How to spell parameters, depending on where they came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// From the command line: `--top-p`.
    Flags,
    /// From a row of JSON: `top_p`.
    Keys,
}

/// The context of an error about the assistant: whatever model it names is not that of `--model`.
#[derive(Debug, thiserror::Error)]
#[error("--assistant-model {}", printable::line(.0))]
pub struct OfAssistant(pub String);

/// An error that ended a run, as [`line`] gives it, with the command to type next where a model cannot be had.
pub fn of_run(error: &anyhow::Error, settings: &Settings, subcommand: &str, given: Vec<OsString>) -> String {
    let mut parts = parts(error, subcommand, Spelling::Flags);
    if error.is::<OfAssistant>() {
        return joined(parts);
    }
    for (line, cause) in parts.iter_mut().zip(error.chain()) {
        let Some(cause) = cause.downcast_ref::<Error>() else { continue };
        let from = |origin: &Origin| match origin {
            Origin::Variable(_) | Origin::File(_) => Some(origin.to_string()),
            Origin::Flag(_) | Origin::Default => None,
        };
        if let (Error::Device { .. }, Some(from)) = (cause, from(&settings.device.from)) {
            *line = line.replacen("--device", &format!("{from}: device"), 1);
        }
        let next = match cause {
            Error::Usage(what) if what == text::NO_TEXT => {
                line.push_str(&format!(", such as: {}", retyped::with_text(&given, "Once upon a time")));
                continue;
            }
            Error::NoModel { .. } | Error::NotFound(_) | Error::Architecture { .. } => "to try the built-in model",
            Error::Hub(_) => "without the network, name a folder, or try the built-in model",
            _ => continue,
        };
        if let Some(from) = from(&settings.model.from) {
            *line = format!("{from}: {line}");
        }
        // The file that is decompressed needs the model that it was made with.
        if subcommand != "decompress" {
            let command = |model| retyped::with_model(given.clone(), model);
            line.push_str(&match meant(cause) {
                Some(meant) => format!(" {}", command(meant)),
                None => format!("; {next}: {}", command("demo")),
            });
        }
    }
    joined(parts)
}

/// An error of a subcommand with its causes, on one line: what is wrong and what to do about it.
pub fn line(error: &anyhow::Error, subcommand: &str, spelling: Spelling) -> String {
    joined(parts(error, subcommand, spelling))
}

/// An error and its causes on one line. Some errors of libraries end with their cause, which is told once.
fn joined(mut parts: Vec<String>) -> String {
    parts.dedup_by(|cause, error| error.ends_with(&**cause));
    parts.join(": ")
}

/// An error and its causes.
fn parts(error: &anyhow::Error, subcommand: &str, spelling: Spelling) -> Vec<String> {
    let part = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref::<Error>() {
        Some(error) => part(error, subcommand, spelling),
        None => cause.to_string(),
    };
    error.chain().map(part).collect()
}

fn part(error: &Error, subcommand: &str, spelling: Spelling) -> String {
    let what = match error {
        Error::Device { device, problem } => format!("--device {device}: {problem}"),
        error => error.to_string(),
    };
    if let (Error::NoModel { name, .. }, Some(meant)) = (error, meant(error)) {
        return format!("`{}` is not a model; did you mean {meant}?", printable::line(name));
    }
    let line = match advice(error, subcommand) {
        Some(advice) => format!("{what}; {advice}"),
        None => what,
    };
    match (error, spelling) {
        // Other errors may quote text from a file.
        (
            Error::Parameter { .. }
            | Error::Context { .. }
            | Error::Usage(_)
            | Error::Numerics(_)
            | Error::OutOfMemory(_),
            Spelling::Flags,
        ) => {
            let command = Cli::command();
            let command = command.find_subcommand(subcommand);
            let flag = |name: &str| {
                let argument = command?.get_arguments().find(|argument| argument.get_id() == name)?;
                let long = argument.get_long().map(|long| format!("--{long}"));
                long.or_else(|| argument.get_short().map(|short| format!("-{short}")))
            };
            with_names(&line, flag)
        }
        _ => line,
    }
}

/// The parameter of `gpt2 generate` that was meant by a name that is none, as its flag without the dashes.
pub fn meant_parameter(name: &str) -> Option<String> {
    let command = Cli::command();
    let command = command.find_subcommand("generate")?;
    let names = PARAMETERS.iter().map(|parameter| parameter.name.replace('_', "-")).collect::<Vec<_>>();
    let flag = unknown::other_name(command, &format!("--{name}"));
    let argument = flag.and_then(|flag| command.get_arguments().find(|argument| unknown::is_called(argument, &flag)));
    let called = argument.and_then(clap::Arg::get_long).filter(|long| names.iter().any(|name| name == long));
    called.or_else(|| unknown::nearest(name, names.iter().map(String::as_str))).map(str::to_owned)
}

/// The model that was meant by a name that is nearly one's.
fn meant(error: &Error) -> Option<&'static str> {
    let Error::NoModel { name, known } = error else { return None };
    unknown::nearest(name, ["demo"].iter().chain(*known).copied())
}

/// What to do about an error.
fn advice(error: &Error, subcommand: &str) -> Option<Cow<'static, str>> {
    match error {
        Error::Context { context, .. } => Some(match subcommand {
            "generate" => "shorten it, or use `on_context_limit` crop".into(),
            "score" => {
                let stride = context.div_ceil(2);
                format!("slide a window over it with --stride (such as --stride {stride})").into()
            }
            _ => "shorten it".into(),
        }),
        Error::NoConfig { .. } => Some("give one with --config F.json".into()),
        Error::Device { .. } => Some("or use --device cpu".into()),
        Error::DeviceMemory(_) => {
            Some("try --dtype bf16 or --quantize q8_0, a smaller --batch-size, fewer beams, or --device cpu".into())
        }
        Error::Memory { gpu: true, fitting, .. } if fitting.is_empty() => {
            Some("it does not fit with any --dtype; use --quantize, a smaller model, or --device cpu".into())
        }
        Error::Memory { fitting, .. } if fitting.is_empty() => Some(
            "it does not fit with any --dtype or --quantize; use a smaller model, or raise the limit if there is one"
                .into(),
        ),
        Error::Memory { fitting, .. } => {
            let flags: Vec<String> = fitting.iter().map(|(dtype, bytes)| fitting_flag(dtype, *bytes)).collect();
            Some(format!("would fit: {}", flags.join(", ")).into())
        }
        _ => None,
    }
}

fn fitting_flag(dtype: &str, bytes: u64) -> String {
    let flag = if dtype.starts_with('q') { "--quantize" } else { "--dtype" };
    format!("{flag} {dtype} ({})", gpt2::memory::readable(bytes))
}

/// Replaces each name in backticks that `spell` knows by its spelling.
pub fn with_names(text: &str, spell: impl Fn(&str) -> Option<String>) -> String {
    let mut parts = text.split('`');
    let mut spelled = parts.next().unwrap_or_default().to_owned();
    let mut rest = parts.peekable();
    // Every second part is between backticks, except a last one without a closing backtick.
    while let Some(name) = rest.next() {
        match rest.peek().and_then(|_| spell(name)) {
            Some(name) => spelled.push_str(&name),
            None => {
                spelled.push('`');
                spelled.push_str(name);
                if rest.peek().is_some() {
                    spelled.push('`');
                }
            }
        }
        spelled.push_str(rest.next().unwrap_or_default());
    }
    spelled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(error: Error, subcommand: &str, spelling: Spelling) -> String {
        line(&error.into(), subcommand, spelling)
    }

    #[test]
    fn only_known_names_in_backticks_are_replaced() {
        let spell = |name: &str| (name == "top_p").then(|| "--top-p".to_owned());
        for (text, spelled) in [
            ("`top_p` is 2", "--top-p is 2"),
            ("see `top_p`", "see --top-p"),
            ("`x` is not `top_p`, top_p", "`x` is not --top-p, top_p"),
            ("`top_p", "`top_p"),
            ("a ` b", "a ` b"),
            ("``top_p`", "``top_p`"),
            ("", ""),
        ] {
            assert_eq!(with_names(text, spell), spelled, "{text}");
        }
    }

    #[test]
    fn errors_name_flags_or_keys() {
        let error = || Error::parameter("top_p", "is 2; or `num_beams`");
        assert_eq!(of(error(), "generate", Spelling::Flags), "--top-p is 2; or --num-beams");
        assert_eq!(of(error(), "topk", Spelling::Flags), "--top-p is 2; or `num_beams`");
        assert_eq!(of(error(), "generate", Spelling::Keys), "`top_p` is 2; or `num_beams`");
        let error = || Error::Context { tokens: 97, context: 96 };
        assert!(of(error(), "generate", Spelling::Flags).ends_with("96; shorten it, or use --on-context-limit crop"));
        assert!(of(error(), "generate", Spelling::Keys).ends_with("or use `on_context_limit` crop"));
        assert!(of(error(), "score", Spelling::Keys).ends_with("--stride (such as --stride 48)"));
    }

    #[test]
    fn a_misspelt_model_is_recognised() {
        let of = |name: &str| {
            let error = Error::NoModel { name: name.to_owned(), known: &gpt2::source::PUBLISHED };
            of(error, "generate", Spelling::Flags)
        };
        for (name, meant) in [
            ("dmeo", "demo"),
            ("Demo", "demo"),
            ("gtp2", "gpt2"),
            ("gpt-2", "gpt2"),
            ("gpt2-meduim", "gpt2-medium"),
            ("gpt2xl", "gpt2-xl"),
            ("distillgpt2", "distilgpt2"),
        ] {
            assert_eq!(of(name), format!("`{name}` is not a model; did you mean {meant}?"));
        }
        for name in ["bert", "llama", "opt", "x", ""] {
            assert!(of(name).ends_with("`owner/name`"), "{name}");
        }
    }

    #[test]
    fn a_full_gpu_comes_with_advice_in_flags() {
        let full = candle_core::Error::Metal("Failed to create metal resource: Buffer".to_owned().into());
        let error = anyhow::Error::from(Error::from(full)).context("row 3");
        let line = line(&error, "generate", Spelling::Flags);
        assert!(line.starts_with("row 3: the GPU has too little memory; try --dtype bf16 "), "{line}");
        assert!(line.ends_with(": Metal error Failed to create metal resource: Buffer"), "{line}");
    }

    #[test]
    fn quotes_from_files_are_left_alone() {
        let error = Error::format("f", "tensor `stop` is missing");
        assert_eq!(of(error, "generate", Spelling::Flags), "f: tensor `stop` is missing");
    }
}
