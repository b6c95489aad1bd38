//! Arguments in the order in which clap takes them: `gpt2 -m demo generate` as `gpt2 generate -m demo`.

use std::ffi::OsString;

use clap::{Arg, ColorChoice, Command};

use super::unknown::{is_called, takes_value};
use super::{Colour, GLOBAL, model};

const COLOUR: &str = "--color";

/// Puts the subcommand before the flags that choose a model, and joins `--color` with its value, which may be left out:
/// in `gpt2 tokenize --color never` it is never, in `gpt2 tokenize --color hello` a text follows.
pub fn arranged(mut arguments: Vec<OsString>, command: &Command) -> Vec<OsString> {
    let subcommand = arguments.iter().skip(1).find_map(|name| command.find_subcommand(name)).unwrap_or(command);
    let mut place = 1;
    while let Some(text) = arguments.get(place).and_then(|argument| argument.to_str()).filter(|text| *text != "--") {
        let next = arguments.get(place + 1).and_then(|argument| argument.to_str());
        if let (COLOUR, Some(when @ ("auto" | "always" | "never"))) = (text, next) {
            arguments[place] = format!("{COLOUR}={when}").into();
            arguments.remove(place + 1);
        } else if takes_value(subcommand, text) {
            place += 1;
        }
        place += 1;
    }
    if let Some(place) = place_of_subcommand(&arguments, command) {
        let subcommand = arguments.remove(place);
        arguments.insert(1, subcommand);
    }
    arguments
}

/// When to colour clap's own messages, unless no flag says it: then as in `settings`.
pub fn colour(arguments: &[OsString], settings: Colour) -> ColorChoice {
    let given = arguments.iter().filter_map(|argument| argument.to_str()?.strip_prefix(COLOUR)).next_back();
    match given {
        Some("" | "=always") => ColorChoice::Always,
        Some("=never") => ColorChoice::Never,
        Some(_) => ColorChoice::Auto,
        None => match settings {
            Colour::Auto => ColorChoice::Auto,
            Colour::Always => ColorChoice::Always,
            Colour::Never => ColorChoice::Never,
        },
    }
}

/// The place of the subcommand, if there are flags before it, all of which it may have too.
fn place_of_subcommand(arguments: &[OsString], command: &Command) -> Option<usize> {
    let mut place = 1;
    loop {
        let text = arguments.get(place)?.to_str()?;
        if !text.starts_with('-') {
            return (place > 1 && command.find_subcommand(text).is_some()).then_some(place);
        }
        let flag = match text.strip_prefix("--") {
            Some(_) => text.split('=').next()?,
            // Its value may follow at once: `-mdemo`.
            None => &text[..text.char_indices().nth(2).map_or(text.len(), |(end, _)| end)],
        };
        let mut known = command.get_subcommands().flat_map(Command::get_arguments).chain(command.get_arguments());
        let argument = known.find(|argument| may_come_first(argument) && is_called(argument, flag))?;
        let needs_next = argument.get_action().takes_values() && !argument.is_require_equals_set() && text == flag;
        place += 1 + usize::from(needs_next);
    }
}

/// Whether an argument is about the model or about the program.
fn may_come_first(argument: &Arg) -> bool {
    matches!(argument.get_help_heading(), Some(GLOBAL | model::HEADING | model::TOKENIZER_HEADING))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_the_model_may_come_first() {
        let command = super::super::command();
        for (given, arranged_as) in [
            ("-m demo generate Once", "generate -m demo Once"),
            ("-mdemo -q generate Once", "generate -mdemo -q Once"),
            ("--model=demo --device cpu topk Once", "topk --model=demo --device cpu Once"),
            ("--color never info", "info --color=never"),
            ("--color never -m demo info", "info --color=never -m demo"),
            ("--color info", "info --color"),
            ("generate -m demo topk", "generate -m demo topk"),
            ("-m generate", "-m generate"),
            ("-m", "-m"),
            ("--temperature 2 generate", "--temperature 2 generate"),
            ("-m demo wrong", "-m demo wrong"),
            ("tokenize --color always", "tokenize --color=always"),
            ("tokenize --color hello", "tokenize --color hello"),
            ("tokenize --prompt --color never", "tokenize --prompt --color never"),
            ("tokenize -- --color never", "tokenize -- --color never"),
            ("", ""),
        ] {
            let words = |text: &str| -> Vec<OsString> {
                std::iter::once("gpt2").chain(text.split_whitespace()).map(OsString::from).collect()
            };
            assert_eq!(arranged(words(given), &command), words(arranged_as), "{given}");
        }
        assert_eq!(arranged(vec![], &command), Vec::<OsString>::new());
    }
}
