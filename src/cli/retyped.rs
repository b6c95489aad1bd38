//! Command lines in messages, to be copied.

use std::ffi::OsString;

use clap::Command;
use clap::parser::ValueSource;
use gpt2::printable;

use super::unknown::{is_called, takes_value};
use super::{arguments, command};

/// The flags that say which model it is, and what goes with it, by their ids.
const ABOUT_MODEL: [&str; 8] =
    ["model", "revision", "config", "n_head", "adapter", "tokenizer", "offline", "assistant_model"];

/// The flags that say where a text comes from, by their ids; without one, it comes from stdin.
const TEXTS: [&str; 6] = ["positional", "prompt", "file", "ids", "input", "lines"];

/// The most characters of a command in a message.
pub const LONGEST: usize = 120;

/// The command line that was given, with another model: `gpt2 generate -m demo "Once upon a time" -n 20`. One that would be
/// long, or cannot be typed, is not repeated: `the same with -m demo`.
pub fn with_model(given: Vec<OsString>, model: &str) -> String {
    let command = command();
    let given = arguments::arranged(given, &command);
    let name = given.get(1).and_then(|name| name.to_str()).unwrap_or_default();
    let start = format!("gpt2 {name} -m {model}");
    let rest = command.find_subcommand(name).and_then(|subcommand| rest(subcommand, given.get(2..)?));
    let start = if has_text(&command, given) == Some(false) { format!("... | {start}") } else { start };
    let whole = rest.map(|rest| rest.into_iter().fold(start, |line, argument| line + " " + &argument));
    whole.filter(|line| line.chars().count() <= LONGEST).unwrap_or_else(|| format!("the same with -m {model}"))
}

/// The command line that was given, with a text; one that would be long, or cannot be typed, is not repeated.
pub fn with_text(given: &[OsString], text: &str) -> String {
    let words: Option<Vec<&str>> = given.iter().skip(1).map(|word| word.to_str()).collect();
    let line = words.map(|words| format!("gpt2 {} {}", line(words.into_iter()), quoted(text)));
    line.filter(|line| line.chars().count() <= LONGEST).unwrap_or_else(|| format!("the same with {}", quoted(text)))
}

/// Whether a command line says where its text comes from, if it can be run and its subcommand takes a text.
pub fn has_text(command: &Command, given: impl IntoIterator<Item = OsString>) -> Option<bool> {
    let matches = command.clone().try_get_matches_from(given).ok()?;
    let (name, matches) = matches.subcommand()?;
    command.find_subcommand(name)?.get_arguments().find(|argument| argument.get_id() == "prompt")?;
    let is_given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    Some(matches.ids().any(|id| TEXTS.contains(&id.as_str()) && is_given(id.as_str())))
}

/// Arguments as a shell takes them.
pub fn line<'a>(arguments: impl Iterator<Item = &'a str>) -> String {
    arguments.map(word).collect::<Vec<_>>().join(" ")
}

/// The arguments without those about the model; `None` if one cannot be typed.
fn rest(subcommand: &Command, arguments: &[OsString]) -> Option<Vec<String>> {
    let mut rest = vec![];
    let mut arguments = arguments.iter();
    let mut is_flag = true;
    while let Some(argument) = arguments.next() {
        let text = argument.to_str().filter(|text| printable::line(text) == *text)?;
        is_flag &= text != "--";
        let flag = match text.strip_prefix("--") {
            Some(_) => text.split('=').next()?,
            None => &text[..text.char_indices().nth(2).map_or(text.len(), |(end, _)| end)],
        };
        let is_about_model = is_flag
            && text.starts_with('-')
            && subcommand
                .get_arguments()
                .any(|argument| is_called(argument, flag) && ABOUT_MODEL.contains(&argument.get_id().as_str()));
        let value = if is_flag && takes_value(subcommand, text) { arguments.next() } else { None };
        if is_about_model {
            continue;
        }
        rest.push(word(text));
        if let Some(value) = value {
            rest.push(word(value.to_str().filter(|text| printable::line(text) == *text)?));
        }
    }
    Some(rest)
}

/// An argument as a shell takes it: quoted if need be.
pub fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) { text.to_owned() } else { quoted(text) }
}

/// Text as one argument of a shell.
pub fn quoted(text: &str) -> String {
    let is_escaped = |c: char| !printable::is_printable(c);
    if text.contains(is_escaped) {
        // As Bash, Zsh and POSIX's shells of 2024 take them.
        let escaped = text.chars().map(|c| match c {
            '\n' => r"\n".to_owned(),
            '\t' => r"\t".to_owned(),
            '\'' => r"\'".to_owned(),
            '\\' => r"\\".to_owned(),
            c if is_escaped(c) => c.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("\\{byte:03o}")).collect(),
            c => c.to_string(),
        });
        return format!("$'{}'", escaped.collect::<String>());
    }
    match text.contains(['"', '$', '`', '\\', '!']) {
        false => format!("\"{text}\""),
        true => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_comes_back_with_a_text() {
        let given = |words: &[&str]| ["/bin/gpt2"].iter().chain(words).map(OsString::from).collect::<Vec<_>>();
        assert_eq!(with_text(&given(&["topk", "-m", "a b"]), "Once"), "gpt2 topk -m \"a b\" \"Once\"");
        assert_eq!(with_text(&given(&["topk", "-m", &"x".repeat(200)]), "Once"), "the same with \"Once\"");
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped_for_a_shell() {
        assert_eq!(quoted("two\nlines, it's\ta \\"), r"$'two\nlines, it\'s\ta \\'");
        assert_eq!(quoted("a\u{1b}1\u{85}\u{202e}é"), r"$'a\0331\302\205\342\200\256é'");
    }

    #[test]
    fn a_command_comes_back_with_another_model() {
        for (given, shown) in [
            (&["generate", "Once upon"][..], "gpt2 generate -m demo \"Once upon\""),
            (&["generate"], "... | gpt2 generate -m demo"),
            (&["info"], "gpt2 info -m demo"),
            (&["score", "--input", "-"], "gpt2 score -m demo --input -"),
            (&["-m", "gpt2", "topk", "Once", "-k", "3"], "gpt2 topk -m demo Once -k 3"),
            (&["topk", "-mgpt2", "Once", "--model=x"], "gpt2 topk -m demo Once"),
            (&["score", "--offline", "--revision", "v1", "a b", "--bos"], "gpt2 score -m demo \"a b\" --bos"),
            (&["score", "--prompt", "-m", "--context", "x"], "gpt2 score -m demo --prompt -m --context x"),
            (&["generate", "--", "-m"], "gpt2 generate -m demo -- -m"),
            (&["generate", "It's $5"], r"gpt2 generate -m demo 'It'\''s $5'"),
            (&["generate", "-n", "3", ""], "gpt2 generate -m demo -n 3 \"\""),
            (&["generate", "two\nlines"], "the same with -m demo"),
            (&["generate", &"word ".repeat(40)], "the same with -m demo"),
        ] {
            let given = ["gpt2"].iter().chain(given).map(OsString::from).collect();
            assert_eq!(with_model(given, "demo"), shown);
        }
    }
}
