//! Errors in terms of the command line: the library names parameters and types, while users give flags.

use std::borrow::Cow;

use clap::CommandFactory;
use gpt2::Error;

use super::Cli;

/// How to spell parameters, depending on where they came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// From the command line: `--top-p`.
    Flags,
    /// From a row of JSON: `top_p`.
    Keys,
}

/// An error of a subcommand and its causes, one line each: what is wrong and what to do about it.
pub fn lines(error: &anyhow::Error, subcommand: &str, spelling: Spelling) -> Vec<String> {
    let line = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref::<Error>() {
        Some(error) => line(error, subcommand, spelling),
        None => cause.to_string(),
    };
    error.chain().map(line).collect()
}

fn line(error: &Error, subcommand: &str, spelling: Spelling) -> String {
    let what = match error {
        Error::Device { device, problem } => format!("--device {device}: {problem}"),
        error => error.to_string(),
    };
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
        Error::Hub(_) => Some("without the hub, use `--model demo` or a local folder (`--model FOLDER`)".into()),
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
        lines(&error.into(), subcommand, spelling).join("\n")
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
    fn a_full_gpu_comes_with_advice_in_flags() {
        let full = candle_core::Error::Metal("Failed to create metal resource: Buffer".to_owned().into());
        let error = anyhow::Error::from(Error::from(full)).context("row 3");
        let lines = lines(&error, "generate", Spelling::Flags);
        assert_eq!(lines[0], "row 3");
        assert!(lines[1].starts_with("the GPU has too little memory; try --dtype bf16 "), "{lines:?}");
        assert_eq!(lines[2], "Metal error Failed to create metal resource: Buffer");
    }

    #[test]
    fn quotes_from_files_are_left_alone() {
        let error = Error::format("f", "tensor `stop` is missing");
        assert_eq!(of(error, "generate", Spelling::Flags), "f: tensor `stop` is missing");
    }
}
