//! From the arguments to the parsed command line, or to an error in the user's words.

use std::error::Error as _;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, CommandFactory, FromArgMatches};
use gpt2::printable;

use super::{Cli, Settings, arguments, combinations, completions, help, unknown, version};

/// The command line as clap knows it.
pub fn command() -> Command {
    let command = help::arranged(Cli::command().version(version::version()));
    command.mut_subcommands(|subcommand| subcommand.mut_args(|argument| completions::offered(with_any_value(argument))))
}

/// Parses the command line. The first of the `arguments` is the program's name.
///
/// # Errors
/// If clap refuses the arguments, or for requests for help or the version.
pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let given: Vec<OsString> = arguments.collect();
    let settings = Settings::read();
    let mut command = command();
    let arguments = arguments::arranged(given.clone(), &command);
    let colour = settings.as_ref().ok().and_then(|settings| settings.colour.value);
    command = command.color(arguments::colour(&arguments, colour.unwrap_or_default()));
    if arguments.iter().any(|argument| argument == "-h") {
        command = help::brief(command);
    }
    // A message may quote an argument: on one line of a terminal, please.
    let quoted: Vec<OsString> = arguments.iter().map(quotable).collect();
    if let Some(text) = unknown::hidden_by_help(&command, &quoted) {
        let mut error = clap::Error::new(ErrorKind::UnknownArgument).with_cmd(&command);
        error.insert(ContextKind::InvalidArg, ContextValue::String(text.to_owned()));
        return Err(unknown::advise(error, &command, &quoted).format(&mut command));
    }
    let mut parsed = |arguments: &[OsString]| {
        let mut matches = command.try_get_matches_from_mut(arguments)?;
        match combinations::fault(&command, &matches) {
            Some(fault) => Err(in_one_line(&fault)),
            None => Cli::from_arg_matches_mut(&mut matches),
        }
    };
    let outcome = parsed(&arguments).map_err(|error| match error.kind() {
        ErrorKind::InvalidUtf8 => error,
        _ => parsed(&quoted).err().unwrap_or(error),
    });
    let outcome = outcome.map_err(|error| match (error.kind(), not_unicode(&given)) {
        (ErrorKind::InvalidUtf8, Some((place, offset))) => command
            .error(ErrorKind::InvalidUtf8, format!("argument {place} is not UTF-8: invalid byte at offset {offset}")),
        _ => match better(&error, &command, &quoted) {
            Some(better) => better,
            // One of our own, which is whole.
            None if error.context().next().is_none() => error,
            None if error.kind() == ErrorKind::UnknownArgument => {
                unknown::advise(error, &command, &quoted).format(&mut command)
            }
            None if error.kind() == ErrorKind::InvalidSubcommand => {
                unknown::advise_subcommand(error, &command, &quoted, &arguments).format(&mut command)
            }
            None => error.format(&mut command),
        },
    });
    with_settings(outcome?, settings)
}

/// The command line with what is said elsewhere, whose faults stop only what it is for.
fn with_settings(mut cli: Cli, settings: Result<Settings, String>) -> Result<Cli, clap::Error> {
    if cli.command.takes_settings() {
        let mut settings = settings.map_err(|fault| in_one_line(&fault))?;
        settings.settle(&mut cli);
        cli.settings = settings;
    }
    Ok(cli)
}

/// The error in one sentence, where clap's own words do not help.
fn better(error: &clap::Error, command: &Command, arguments: &[OsString]) -> Option<clap::Error> {
    match error.kind() {
        ErrorKind::ArgumentConflict => {
            unknown::unquoted(error, command, arguments).or_else(|| given_twice(error, command, arguments))
        }
        ErrorKind::ValueValidation => in_words(error, command, arguments),
        ErrorKind::InvalidValue => none_of(error, command, arguments),
        _ => None,
    }
}

/// An argument as a message can quote it: printable, and not too long.
fn quotable(argument: &OsString) -> OsString {
    const LONGEST: usize = 200;
    let text = argument.to_string_lossy();
    let text = printable::line(&text);
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]).into(),
        None => text.into_owned().into(),
    }
}

/// Lets a value begin with a hyphen where that can only be a value.
fn with_any_value(argument: Arg) -> Arg {
    if !argument.get_action().takes_values() {
        return argument;
    }
    let kind = argument.get_value_names().and_then(|names| names.first().cloned());
    let is_text =
        matches!(kind.as_deref(), Some("TEXT" | "TEXT@L" | "IDS" | "IDS=B" | "ID=B" | "RE" | "START,FACTOR" | "G"));
    let needs_value = argument.get_num_args().is_none_or(|values| values.min_values() > 0);
    if is_text && needs_value && !argument.is_positional() {
        // What follows a flag for text is text: a script with `--prompt "$X"` must not depend on what X begins with.
        argument.allow_hyphen_values(true)
    } else {
        // So that the error is a value out of range, which names the flag, and not an unknown flag.
        argument.allow_negative_numbers(true)
    }
}

/// The first argument that is not UTF-8, counted from 1, and the offset of its first invalid byte.
fn not_unicode(arguments: &[OsString]) -> Option<(usize, usize)> {
    let invalid = |argument: &OsString| Some(std::str::from_utf8(argument.as_encoded_bytes()).err()?.valid_up_to());
    arguments.iter().enumerate().find_map(|(place, argument)| Some((place, invalid(argument)?)))
}

/// A refused value as one sentence about the flag, as it was given: `-n takes a whole number from 1, not 0`.
fn in_words(error: &clap::Error, command: &Command, arguments: &[OsString]) -> Option<clap::Error> {
    let fault = error.source()?.to_string();
    let flag = flag(error, command, arguments)?;
    let is_sentence = ["takes ", "is ", "has "].iter().any(|verb| fault.starts_with(verb));
    let between = if is_sentence { " " } else { ": " };
    Some(in_one_line(&format!("{flag}{between}{fault}")))
}

/// A value that is none of the words that a flag takes, or is missing: `--sample takes true or false, not maybe`.
fn none_of(error: &clap::Error, command: &Command, arguments: &[OsString]) -> Option<clap::Error> {
    let flag = flag(error, command, arguments)?;
    let value = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) if !value.is_empty() => format!(", not {value}"),
        _ => String::new(),
    };
    Some(in_one_line(&match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(words)) if !words.is_empty() => format!("{flag} takes {}{value}", any_of(words)),
        _ if value.is_empty() => format!("{flag} needs a value"),
        _ => return None,
    }))
}

/// Words in a sentence: `text, json or jsonl`.
fn any_of(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [word] => word.clone(),
        [others @ .., last] => format!("{} or {last}", others.join(", ")),
    }
}

/// A flag that is given twice and takes one value.
fn given_twice(error: &clap::Error, command: &Command, arguments: &[OsString]) -> Option<clap::Error> {
    let is_same = error.get(ContextKind::InvalidArg) == error.get(ContextKind::PriorArg);
    let flag = flag(error, command, arguments).filter(|flag| is_same && flag.starts_with('-'))?;
    Some(in_one_line(&format!("{flag} is given more than once: leave one of them out")))
}

/// The flag that an error is about, as it was given.
fn flag(error: &clap::Error, command: &Command, arguments: &[OsString]) -> Option<String> {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else { return None };
    let long = argument.split([' ', '=', '[']).next()?;
    Some(short_as_given(long, command, arguments).unwrap_or_else(|| long.to_owned()))
}

/// A usage error that says all in one line.
pub(super) fn in_one_line(fault: &str) -> clap::Error {
    clap::Error::raw(ErrorKind::ValueValidation, format!("{fault}\n"))
}

/// The short form of a flag, if it was given in that.
fn short_as_given(long: &str, command: &Command, arguments: &[OsString]) -> Option<String> {
    let texts: Vec<&str> = arguments.iter().skip(1).filter_map(|argument| argument.to_str()).collect();
    let subcommand = texts.iter().find_map(|name| command.find_subcommand(name))?;
    let argument = subcommand.get_arguments().find(|argument| argument.get_long() == long.strip_prefix("--"))?;
    let short = format!("-{}", argument.get_short()?);
    let is_long = |text: &&str| text.split('=').next() == Some(long);
    (texts.iter().any(|text| text.starts_with(&short)) && !texts.iter().any(is_long)).then_some(short)
}
