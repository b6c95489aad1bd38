//! What to say about an argument that a subcommand does not know, or does not expect.

use std::ffi::OsString;
use std::path::Path;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Command};

use super::parse::in_one_line;

/// Names less alike than this were not meant: clap finds something to suggest for almost any name.
const ALIKE: f64 = 0.55;

/// What other programs (OpenAI's, llama.cpp's, transformers') or habit call a flag, and our flags of that meaning: the
/// first that a subcommand has is meant.
const OTHER_NAMES: [(&str, &[&str]); 28] = [
    ("--length", &["--max-new-tokens"]),
    ("--max-tokens", &["--max-new-tokens"]),
    ("--max-completion-tokens", &["--max-new-tokens"]),
    ("--n-predict", &["--max-new-tokens"]),
    ("--tokens", &["--max-new-tokens"]),
    ("--num-tokens", &["--max-new-tokens"]),
    ("-l", &["--max-new-tokens"]),
    ("-t", &["--temperature"]),
    ("--temp", &["--temperature"]),
    ("--nsamples", &["--num-return-sequences"]),
    ("--num-samples", &["--num-return-sequences"]),
    ("--do-sample", &["--sample"]),
    ("--beams", &["--num-beams"]),
    ("--beam-size", &["--num-beams"]),
    ("--penalty", &["--repetition-penalty"]),
    ("--repeat-penalty", &["--repetition-penalty"]),
    ("--ngram-size", &["--no-repeat-ngram-size"]),
    ("-s", &["--seed"]),
    ("-i", &["--interactive", "--input"]),
    ("-f", &["--file"]),
    ("-o", &["--output", "--save"]),
    ("-b", &["--batch-size"]),
    ("-j", &["--threads"]),
    ("--text", &["--prompt"]),
    ("--model-name", &["--model"]),
    ("--precision", &["--dtype"]),
    ("--json", &["--format json"]),
    ("--jsonl", &["--format jsonl"]),
];

/// Replaces clap's tip where a better one is known, or where clap only guesses.
pub fn advise(mut error: clap::Error, command: &Command, arguments: &[OsString]) -> clap::Error {
    let texts = texts(arguments);
    let Some(ContextValue::String(reported)) = error.get(ContextKind::InvalidArg) else { return error };
    // Of `-5 degrees`, clap reports `-5`.
    let Some(place) = texts.iter().position(|text| text.starts_with(reported.as_str())) else { return error };
    let unknown = texts[place];
    let Some(subcommand) = texts.iter().find_map(|name| command.find_subcommand(name)) else {
        return without_subcommand(error, command, unknown);
    };
    let suggested = match error.get(ContextKind::SuggestedArg) {
        Some(ContextValue::String(flag)) => Some(flag.as_str()),
        _ => None,
    };
    let is_text = unknown.contains(char::is_whitespace) || unknown.parse::<f64>().is_ok();
    let flag = unknown.split('=').next().unwrap_or(unknown);
    let others = if is_text { vec![] } else { owners(command, flag) };
    let flag_before = place.checked_sub(1).map(|before| texts[before]).filter(|flag| takes_value(subcommand, flag));
    let takes_text = subcommand.get_arguments().any(|argument| argument.get_id() == "prompt");
    let tip = if let Some(meant) = other_name(subcommand, flag) {
        Some(format!("the flag is called {meant}"))
    } else if !unknown.starts_with('-') {
        stray(subcommand, &texts, place)
    } else if !others.is_empty() {
        Some(format!("'{flag}' is a flag of {}", list(&others)))
    } else if suggested.is_some_and(|suggested| !is_text && is_alike(flag, suggested)) {
        return error;
    } else if let Some(before) = flag_before {
        Some(format!("a value that begins with '-' is given as {before}={unknown}"))
    } else {
        takes_text.then(|| format!("a text that begins with '-' is given with --prompt: --prompt='{unknown}'"))
    };
    let unknown = unknown.to_owned();
    error.insert(ContextKind::InvalidArg, ContextValue::String(unknown));
    with_tip(error, tip)
}

/// The error for a text without quotes, of which clap says that a word of it cannot be used with a flag.
pub fn unquoted(error: &clap::Error, command: &Command, arguments: &[OsString]) -> Option<clap::Error> {
    let texts = texts(arguments);
    let subcommand = texts.iter().find_map(|name| command.find_subcommand(name))?;
    let is_text = |kind| match error.get(kind) {
        Some(ContextValue::String(argument)) => argument == "[TEXT]",
        Some(ContextValue::Strings(arguments)) => arguments.iter().any(|argument| argument == "[TEXT]"),
        _ => false,
    };
    if !is_text(ContextKind::InvalidArg) && !is_text(ContextKind::PriorArg) {
        return None;
    }
    // `--prompt Once upon`: the value of a flag, and a word after it.
    let place = texts.iter().position(|text| TEXT_FLAGS.contains(text))?;
    let words = words(subcommand, &texts, place + 1);
    let what = words.get(1)?;
    Some(in_one_line(&format!("unexpected argument '{what}' found; {}", of_value(texts[place], &words))))
}

/// Flags whose value may be several words that need quotes.
const TEXT_FLAGS: [&str; 6] = ["--prompt", "-p", "--file", "--ids", "--decode", "--input"];

/// The advice about several words as the value of one of [`TEXT_FLAGS`].
fn of_value(flag: &str, words: &[&str]) -> String {
    let what = match flag {
        "--ids" | "--decode" => "ids",
        "--file" | "--input" if words.iter().skip(1).any(|word| Path::new(word).exists()) => {
            return format!("{flag} takes one file");
        }
        "--file" | "--input" => "name",
        _ => "text",
    };
    format!("quote the {what}: {flag} {}", quoted(words))
}

/// What was meant by a name that is none of `names`, if it is nearly one of them.
pub fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let likeness = |known: &str| strsim::normalized_damerau_levenshtein(&name, known);
    let near = names.map(|known| (likeness(known), known)).filter(|(likeness, _)| *likeness > ALIKE);
    near.max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, known)| known)
}

fn texts(arguments: &[OsString]) -> Vec<&str> {
    arguments.iter().skip(1).filter_map(|argument| argument.to_str()).collect()
}

/// The advice about a word that no flag takes: a text without quotes, or a model without its flag.
fn stray(subcommand: &Command, texts: &[&str], place: usize) -> Option<String> {
    let name = subcommand.get_name();
    let positional = subcommand.get_positionals().next();
    if positional.is_some_and(|positional| positional.get_id() == "positional") {
        let first = (0..=place).rev().take_while(|at| is_word(subcommand, texts, *at)).last()?;
        return Some(match first.checked_sub(2).map(|at| texts[at]).filter(|flag| TEXT_FLAGS.contains(flag)) {
            Some(flag) => of_value(flag, &words(subcommand, texts, first - 1)),
            None => format!("quote the text: {}", quoted(&words(subcommand, texts, first))),
        });
    }
    let has_model = subcommand.get_arguments().any(|argument| argument.get_long() == Some("model"));
    // With a positional argument of its own, it was the word before this one that was no file.
    let model = match positional {
        None => texts[place],
        Some(_) => (1..place).find(|at| is_word(subcommand, texts, *at)).map(|at| texts[at])?,
    };
    has_model.then(|| format!("the model is given with -m: gpt2 {name} -m {model}"))
}

/// Whether an argument is neither the subcommand nor a flag nor the value of one.
fn is_word(subcommand: &Command, texts: &[&str], place: usize) -> bool {
    let is_value = place > 0 && takes_value(subcommand, texts[place - 1]);
    place > 0 && !texts[place].starts_with('-') && !is_value
}

/// The words from `place` on, up to the next flag.
fn words<'a>(subcommand: &Command, texts: &[&'a str], place: usize) -> Vec<&'a str> {
    let rest = texts.iter().enumerate().skip(place);
    rest.take_while(|(at, _)| *at == place || is_word(subcommand, texts, *at)).map(|(_, text)| *text).collect()
}

/// Words as one argument of a shell.
fn quoted(words: &[&str]) -> String {
    let text = words.join(" ");
    if text.contains('"') { format!("'{text}'") } else { format!("\"{text}\"") }
}

/// A flag without a subcommand.
fn without_subcommand(error: clap::Error, command: &Command, unknown: &str) -> clap::Error {
    let flag = unknown.split('=').next().unwrap_or(unknown);
    let owners = owners(command, flag);
    let tip = (!owners.is_empty()).then(|| format!("'{flag}' is a flag of {}; name one", list(&owners)));
    if tip.is_some() { with_tip(error, tip) } else { error }
}

/// The error with this tip in place of clap's guess.
fn with_tip(mut error: clap::Error, tip: Option<String>) -> clap::Error {
    for kind in [ContextKind::SuggestedArg, ContextKind::Suggested, ContextKind::Usage] {
        error.remove(kind);
    }
    if let Some(tip) = tip {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// Subcommands in a sentence: of many, the first three.
fn list(subcommands: &[&str]) -> String {
    let names: Vec<String> = subcommands.iter().take(3).map(|name| format!("gpt2 {name}")).collect();
    match subcommands.len() {
        0..=3 => names.join(" and "),
        _ => format!("{} and others", names.join(", ")),
    }
}

/// The flag of the subcommand that is called otherwise elsewhere.
fn other_name(subcommand: &Command, flag: &str) -> Option<&'static str> {
    let (_, ours) = OTHER_NAMES.iter().find(|(other, _)| *other == flag)?;
    let has = |flag: &&&str| flag.split(' ').next().is_some_and(|flag| knows(subcommand, flag));
    ours.iter().find(has).copied()
}

fn knows(subcommand: &Command, flag: &str) -> bool {
    subcommand.get_arguments().any(|argument| is_called(argument, flag))
}

fn is_alike(flag: &str, suggested: &str) -> bool {
    strsim::normalized_damerau_levenshtein(flag, suggested) > ALIKE
}

/// The subcommands with this flag.
fn owners<'a>(command: &'a Command, flag: &str) -> Vec<&'a str> {
    command.get_subcommands().filter(|subcommand| knows(subcommand, flag)).map(Command::get_name).collect()
}

/// Whether the next argument is the flag's value.
pub fn takes_value(subcommand: &Command, flag: &str) -> bool {
    let takes = |argument: &Arg| argument.get_action().takes_values() && !argument.is_require_equals_set();
    subcommand.get_arguments().any(|argument| is_called(argument, flag) && takes(argument))
}

/// Whether this is a name of the argument.
pub fn is_called(argument: &Arg, flag: &str) -> bool {
    match flag.strip_prefix("--") {
        Some(long) => argument.get_long() == Some(long),
        None => argument.get_short().is_some_and(|short| flag == format!("-{short}")),
    }
}
