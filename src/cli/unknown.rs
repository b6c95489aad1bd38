//! What to say about an argument that a subcommand does not know.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Command};

/// Names less alike than this were not meant: clap finds something to suggest for almost any name.
const ALIKE: f64 = 0.55;

/// Replaces clap's tip where a better one is known, or where clap only guesses.
pub fn advise(mut error: clap::Error, command: &Command, arguments: &[OsString]) -> clap::Error {
    let texts: Vec<&str> = arguments.iter().skip(1).filter_map(|argument| argument.to_str()).collect();
    let Some(ContextValue::String(reported)) = error.get(ContextKind::InvalidArg) else { return error };
    // Of `-5 degrees`, clap reports `-5`.
    let Some(place) = texts.iter().position(|text| text.starts_with(reported.as_str())) else { return error };
    let unknown = texts[place];
    let Some(subcommand) = texts.iter().find_map(|name| command.find_subcommand(name)) else { return error };
    let suggested = match error.get(ContextKind::SuggestedArg) {
        Some(ContextValue::String(flag)) => Some(flag.as_str()),
        _ => None,
    };
    let is_text = unknown.contains(char::is_whitespace) || unknown.parse::<f64>().is_ok();
    let flag = unknown.split('=').next().unwrap_or(unknown);
    let others = if is_text { vec![] } else { owners(command, flag) };
    let flag_before = place.checked_sub(1).map(|before| texts[before]).filter(|flag| takes_value(subcommand, flag));
    let takes_text = subcommand.get_arguments().any(|argument| argument.get_id() == "prompt");
    let tip = if !others.is_empty() {
        Some(format!("'{flag}' is a flag of gpt2 {}", others.join(" and gpt2 ")))
    } else if suggested
        .is_some_and(|suggested| !is_text && strsim::normalized_damerau_levenshtein(flag, suggested) > ALIKE)
    {
        return error;
    } else if let Some(before) = flag_before {
        Some(format!("a value that begins with '-' is given as {before}={unknown}"))
    } else {
        takes_text.then(|| format!("a text that begins with '-' is given with --prompt: --prompt='{unknown}'"))
    };
    let unknown = unknown.to_owned();
    error.insert(ContextKind::InvalidArg, ContextValue::String(unknown));
    // It shows the guess, too.
    for kind in [ContextKind::SuggestedArg, ContextKind::Suggested, ContextKind::Usage] {
        error.remove(kind);
    }
    if let Some(tip) = tip {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// The subcommands with this flag.
fn owners<'a>(command: &'a Command, flag: &str) -> Vec<&'a str> {
    let owners =
        command.get_subcommands().filter(|subcommand| subcommand.get_arguments().any(|it| is_called(it, flag)));
    owners.map(Command::get_name).collect()
}

fn takes_value(subcommand: &Command, flag: &str) -> bool {
    subcommand.get_arguments().any(|argument| is_called(argument, flag) && argument.get_action().takes_values())
}

fn is_called(argument: &Arg, flag: &str) -> bool {
    match flag.strip_prefix("--") {
        Some(long) => argument.get_long() == Some(long),
        None => argument.get_short().is_some_and(|short| flag == format!("-{short}")),
    }
}
