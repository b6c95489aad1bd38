//! What to say about an argument that a subcommand does not know, or does not expect.

use std::ffi::OsString;
use std::path::Path;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Command};

use super::parse::in_one_line;
use super::retyped;

/// Names less alike than this were not meant: clap finds something to suggest for almost any name.
const ALIKE: f64 = 0.55;

/// The fewest bytes that can stand for a name which begins with them.
const SHORTEST_BEGINNING: usize = 3;

/// What other programs (OpenAI's, llama.cpp's, transformers') or habit call a flag, and our flags of that meaning: the
/// first that a subcommand has is meant.
const OTHER_NAMES: &[(&str, &[&str])] = &[
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
    ("--choice", &["--choices"]),
    ("--grammar-file", &["--grammar"]),
    ("--json-schema-file", &["--json-schema"]),
    ("--schema", &["--json-schema"]),
    ("--pattern", &["--regex"]),
    ("--num-predict", &["--max-new-tokens"]),
    ("--topk", &["--top-k"]),
    ("--topp", &["--top-p"]),
    ("--minp", &["--min-p"]),
    ("--num-threads", &["--threads"]),
    ("--batch", &["--batch-size"]),
    ("--out", &["--output", "--save"]),
    ("--checkpoint", &["--model"]),
    ("--model-path", &["--model"]),
    ("--cpu", &["--device cpu"]),
    ("--gpu", &["--device cuda"]),
    ("--cuda", &["--device cuda"]),
    ("--fp16", &["--dtype f16"]),
    ("--half", &["--dtype f16"]),
    ("--bf16", &["--dtype bf16"]),
    ("--int8", &["--quantize q8_0"]),
    ("--load-in-8bit", &["--quantize q8_0"]),
    ("--load-in-4bit", &["--quantize q4_k"]),
    ("--debug", &["--verbose"]),
    ("--chat", &["--interactive"]),
];

/// Flags of other programs for what happens without one.
const DEFAULTS: [(&str, &str, &str); 4] = [
    ("generate", "--greedy", "decoding is greedy unless a flag such as --temperature or --num-beams says otherwise"),
    ("generate", "--no-sample", "nothing is drawn unless a flag such as --sample or --temperature says so"),
    ("generate", "--stream", "the text appears as it is decoded"),
    ("topk", "--greedy", "the distribution is the model's own unless a flag such as --temperature says otherwise"),
];

/// What other programs or habit call a subcommand, and how it is called here.
const OTHER_SUBCOMMANDS: [(&str, &str); 32] = [
    ("version", "the version is printed by gpt2 --version"),
    ("perplexity", "gpt2 score TEXT reports the perplexity"),
    ("ppl", "gpt2 score TEXT reports the perplexity"),
    ("eval", "gpt2 score TEXT reports the perplexity"),
    ("logprobs", "gpt2 score TEXT reports log-probabilities"),
    ("surprisal", "gpt2 score TEXT reports surprisal"),
    ("chat", "gpt2 generate --interactive completes one prompt after another"),
    ("repl", "gpt2 generate --interactive completes one prompt after another"),
    ("interactive", "gpt2 generate --interactive completes one prompt after another"),
    ("run", "gpt2 generate TEXT continues a text"),
    ("complete", "gpt2 generate TEXT continues a text"),
    ("sample", "gpt2 generate TEXT --sample draws a continuation"),
    ("list", MODELS),
    ("ls", MODELS),
    ("models", MODELS),
    ("encode", "gpt2 tokenize TEXT --format ids gives the ids of a text"),
    ("tokens", "gpt2 tokenize TEXT lists the tokens of a text"),
    ("count", "gpt2 tokenize TEXT --count gives the number of tokens"),
    ("decode", "gpt2 tokenize --decode IDS gives the text of ids"),
    ("detokenize", "gpt2 tokenize --decode IDS gives the text of ids"),
    ("vocab", "gpt2 tokenize --vocab lists the vocabulary"),
    ("predict", "gpt2 topk TEXT shows what comes next"),
    ("next", "gpt2 topk TEXT shows what comes next"),
    ("logits", "gpt2 topk TEXT shows what comes next"),
    ("attention", "gpt2 trace TEXT --attention shows the attention"),
    ("lens", "gpt2 trace TEXT --lens shows the logit lens"),
    ("show", "gpt2 info -m M shows a model"),
    ("inspect", "gpt2 info -m M shows a model"),
    ("export", "gpt2 convert -m M FILE writes a model in another form"),
    ("quantize", "gpt2 convert -m M --to q8_0 FILE.gguf writes a quantised model"),
    ("speed", "gpt2 bench measures the speed"),
    ("completion", "gpt2 completions SHELL writes what a shell completes; gpt2 generate TEXT continues a text"),
];

const MODELS: &str =
    "-m takes demo, gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2, owner/name on the hub, a folder or a file";

/// Replaces clap's guesses about a subcommand that does not exist. `shown` are the arguments as messages quote them.
pub fn advise_subcommand(
    mut error: clap::Error,
    command: &Command,
    shown: &[OsString],
    arguments: &[OsString],
) -> clap::Error {
    let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand) else { return error };
    let place = shown.iter().skip(1).position(|argument| argument == name.as_str());
    let words = place.map(|place| &arguments[place + 1..]).unwrap_or_default().iter();
    let words: Vec<&str> = words.map_while(|word| word.to_str().filter(|word| !word.starts_with('-'))).collect();
    let lower = name.to_lowercase();
    let is_text = words.len() > 1 || name.contains(|c: char| !c.is_ascii_lowercase() && c != '-');
    let known = command.get_subcommands().map(Command::get_name);
    let tip = if let Some((_, tip)) = OTHER_SUBCOMMANDS.iter().find(|(other, _)| *other == lower) {
        Some((*tip).to_owned())
    } else if let Some(meant) = nearest(name, known) {
        Some(format!("a similar subcommand exists: '{meant}'"))
    } else {
        let lists = if is_text { "" } else { "gpt2 --help lists the subcommands; " };
        let text = Some(quoted(&words)).filter(|text| text.chars().count() <= retyped::LONGEST);
        Some(format!("{lists}to continue a text: gpt2 generate {}", text.unwrap_or_else(|| "TEXT".to_owned())))
    };
    error.remove(ContextKind::SuggestedSubcommand);
    with_tip(error, tip)
}

/// An argument such as `-hello`, of which clap would read `-h` and print the help.
pub fn hidden_by_help<'a>(command: &Command, arguments: &'a [OsString]) -> Option<&'a str> {
    let texts = texts(arguments);
    let subcommand = texts.iter().find_map(|name| command.find_subcommand(name)).unwrap_or(command);
    let find = |short: char| {
        let mut known = subcommand.get_arguments().chain(command.get_arguments());
        known.find(|argument| argument.get_short() == Some(short))
    };
    let is_hidden = |text: &str| {
        let Some(shorts) = text.strip_prefix('-').filter(|rest| !rest.starts_with('-')) else { return false };
        let mut helps = false;
        for short in shorts.chars() {
            match find(short) {
                None => return helps,
                Some(argument) if argument.get_action().takes_values() => return false,
                Some(_) => helps |= matches!(short, 'h' | 'V'),
            }
        }
        false
    };
    let own = texts.iter().take_while(|text| **text != "--").enumerate();
    let mut own = own.filter(|(at, _)| *at == 0 || !takes_value(subcommand, texts[at - 1]));
    own.find(|(_, text)| is_hidden(text)).map(|(_, text)| *text)
}

/// Replaces clap's tip where a better one is known, or where clap only guesses.
pub fn advise(mut error: clap::Error, command: &Command, arguments: &[OsString]) -> clap::Error {
    let texts = texts(arguments);
    let Some(ContextValue::String(reported)) = error.get(ContextKind::InvalidArg) else { return error };
    // Of `-5 degrees`, clap reports `-5`.
    let Some(place) = texts.iter().position(|text| text.starts_with(reported.as_str())) else { return error };
    let unknown = texts[place];
    let Some(subcommand) = texts.iter().find_map(|name| command.find_subcommand(name)) else {
        return without_subcommand(error, command, unknown, &texts);
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
    let is_name = flag.strip_prefix("--").is_some_and(|name| name.starts_with(|c: char| c.is_ascii_alphabetic()));
    let tip = if let Some(meant) = other_name(subcommand, flag) {
        Some(format!("the flag is called {meant}"))
    } else if let Some(what) = by_default(subcommand, flag) {
        Some(format!("{what}: leave it out"))
    } else if !unknown.starts_with('-') {
        stray(subcommand, &texts, place)
    } else if !others.is_empty() {
        Some(format!("'{flag}' is a flag of {}", list(&others)))
    } else if suggested.is_some_and(|suggested| !is_text && is_alike(flag, suggested)) {
        return error;
    } else if let Some(before) = flag_before {
        Some(format!("a value that begins with '-' is given as {before}={unknown}"))
    } else {
        (takes_text && (is_text || !is_name))
            .then(|| format!("a text that begins with '-' is given with --prompt: --prompt='{unknown}'"))
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

/// What was meant by a name that is none of `names`, if it is nearly one of them, or the beginning of one.
pub fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let likeness = |known: &str| {
        let begins = known.starts_with(&name) && name.len() >= SHORTEST_BEGINNING;
        strsim::normalized_damerau_levenshtein(&name, known) + if begins { 1.0 } else { 0.0 }
    };
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
    retyped::quoted(&words.join(" "))
}

/// A flag without a subcommand.
fn without_subcommand(error: clap::Error, command: &Command, unknown: &str, texts: &[&str]) -> clap::Error {
    let flag = unknown.split('=').next().unwrap_or(unknown);
    let owners = owners(command, flag);
    let continued = ["gpt2", "generate"].iter().chain(texts).map(OsString::from);
    let tip = if retyped::has_text(command, continued) == Some(true) {
        Some(format!("to continue a text: gpt2 generate {}", retyped::line(texts.iter().copied())))
    } else {
        (!owners.is_empty()).then(|| format!("'{flag}' is a flag of {}; name one", list(&owners)))
    };
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

/// The flag of the subcommand that is called otherwise elsewhere, or written otherwise: `--top_p`, `-top-p`, `--k`.
pub fn other_name(subcommand: &Command, flag: &str) -> Option<String> {
    let dashed = flag.replace('_', "-").to_lowercase();
    let has = |flag: &&&str| flag.split(' ').next().is_some_and(|flag| knows(subcommand, flag));
    if let Some((_, ours)) = OTHER_NAMES.iter().find(|(other, _)| *other == dashed) {
        return ours.iter().find(has).map(|flag| (*flag).to_owned());
    }
    let long = if dashed.starts_with("--") { dashed.clone() } else { format!("-{dashed}") };
    let short = dashed.strip_prefix("--").filter(|name| name.len() == 1).map(|name| format!("-{name}"));
    [Some(long), short].into_iter().flatten().find(|other| other != flag && knows(subcommand, other))
}

/// What happens in the subcommand without a flag that asks for it elsewhere.
fn by_default(subcommand: &Command, flag: &str) -> Option<&'static str> {
    let asks = |(name, other, _): &&(&str, &str, &str)| *name == subcommand.get_name() && *other == flag;
    DEFAULTS.iter().find(asks).map(|(_, _, what)| *what)
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
