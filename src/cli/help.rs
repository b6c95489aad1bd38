//! What `-h` shows: the flags that most people need, on one screen. `--help` shows all.

use clap::{Arg, Command};

use super::combinations::UNUSED;

/// The flags of each subcommand that `-h` shows, by their ids.
const NEEDED: &[(&str, &[&str])] = &[
    (
        "generate",
        &[
            "positional",
            "max_new_tokens",
            "stop",
            "seed",
            "num_beams",
            "temperature",
            "top_k",
            "top_p",
            "model",
            "quantize",
            "completion_only",
            "format",
            "input",
            "output",
            "interactive",
        ],
    ),
    ("tokenize", &["positional", "file", "lines", "model", "decode", "vocab", "count", "format"]),
    (
        "topk",
        &[
            "positional",
            "k",
            "all",
            "token",
            "tree",
            "append",
            "shapes",
            "temperature",
            "top_k",
            "top_p",
            "model",
            "quantize",
            "html",
            "format",
            "lines",
        ],
    ),
    (
        "score",
        &[
            "positional",
            "file",
            "bos",
            "context",
            "candidate",
            "words",
            "stride",
            "rolling",
            "model",
            "quantize",
            "input",
            "lines",
            "output",
            "html",
            "format",
        ],
    ),
    (
        "trace",
        &[
            "positional",
            "hidden",
            "attention",
            "lens",
            "layer",
            "head",
            "shapes",
            "repeat",
            "attribute",
            "heads",
            "model",
            "svg",
            "html",
            "save",
            "format",
            "lines",
        ],
    ),
    ("patch", &["clean", "corrupt", "answer", "against", "over", "model", "quantize", "svg", "html", "format"]),
    ("embed", &["positional", "layer", "pool", "model", "quantize", "input", "lines", "output", "format"]),
    #[cfg(feature = "serve")]
    ("serve", &["model", "quantize", "threads", "host", "port", "api_key", "batch_size"]),
    ("info", &["model", "config", "tensors", "state_dict", "module", "settings", "format"]),
    ("convert", &["model", "to", "output", "format"]),
    ("compress", &["file", "output", "window", "stride", "model", "quantize", "threads"]),
    ("decompress", &["file", "output", "model", "threads"]),
    (
        "bench",
        &["model", "random", "device", "dtype", "quantize", "threads", "prompt_tokens", "max_new_tokens", "format"],
    ),
];

/// Shorter words for `-h`, so that a flag takes one line of 80 columns.
const BRIEF: [(&str, &str); 11] = [
    ("append", "Append the best token N times, in steps"),
    ("shapes", "Show only the shapes of a batch"),
    ("temperature", "Below 1 sharper, above 1 flatter"),
    ("top_p", "Keep the best that reach probability P"),
    ("num_beams", "Beams for beam search [default: 1]"),
    ("stop", "Stop at this text (repeatable)"),
    ("bos", "Put <|endoftext|> before the text"),
    ("token", "Also report this token (repeatable)"),
    ("tree", "Expand the K best tokens D levels deep"),
    ("threads", "Threads [default: all cores]"),
    ("dtype", "f32, f16 or bf16 [default: f32]"),
];

/// What means something else in a subcommand: its name, the flag, and its help there, in short and whole.
const OTHER_WORDS: [(&str, &str, &str, &str); 5] = [
    ("decompress", "model", "The same model, under any name [default: the file's]", ""),
    ("decompress", "dtype", "Type of the weights in memory [default: the file's]", ""),
    ("decompress", "quantize", "Quantise the weights in memory [default: as for the file]", ""),
    (
        "trace",
        "keep",
        "Of --save: which activations, such as 'blocks.*.attn.hook_z'",
        "Repeatable, or with commas; * stands for any characters, ? for one. Without --save: which of a row's other keys to \
         carry into its result, under `input` [default: all]",
    ),
    (
        "embed",
        "output",
        "The vectors as F.safetensors or F.npz; results of rows also as F.jsonl",
        "Rows become tensors with their ids for names, or their lines if they have none. Lines of JSON are written as they \
         finish, and F.jsonl.gpt2 beside them says what they were made with, for --resume.",
    ),
];

/// Lines of the examples that `-h` shows, with their heading.
const EXAMPLES: usize = 3;

/// Hides the other flags from `-h`, and those that a subcommand does not use from `--help`, too.
pub fn arranged(command: Command) -> Command {
    let command = command.mut_args(|argument| match argument.get_id().as_str() {
        "quiet" | "verbose" | "version" => argument.hide_short_help(true),
        _ => argument,
    });
    command.mut_subcommands(|subcommand| {
        let name = subcommand.get_name().to_owned();
        let subcommand = subcommand.mut_args(|argument| in_other_words(argument, &name));
        let Some((_, needed)) = NEEDED.iter().find(|(other, _)| *other == name) else { return subcommand };
        let subcommand = subcommand.mut_args(|argument| shown(argument, &name, needed));
        let Some(examples) = subcommand.get_after_help().map(ToString::to_string) else { return subcommand };
        let first: Vec<&str> = examples.lines().take(EXAMPLES).collect();
        let short = format!("{}\n\nAll flags: gpt2 {name} --help", first.join("\n"));
        subcommand.after_help(short).after_long_help(examples)
    })
}

fn in_other_words(argument: Arg, subcommand: &str) -> Arg {
    let id = argument.get_id().as_str();
    match OTHER_WORDS.iter().find(|(name, flag, ..)| *name == subcommand && *flag == id) {
        Some((.., help, "")) => argument.help(*help).long_help(*help),
        Some((.., help, more)) => argument.help(*help).long_help(format!("{help}\n\n{more}")),
        None => argument,
    }
}

/// The command as `-h` shows it, where the help of a flag names its values if people need them.
pub fn brief(command: Command) -> Command {
    let brief = |argument: Arg| {
        let words = BRIEF.iter().find(|(id, _)| *id == argument.get_id().as_str()).map(|(_, words)| *words);
        let argument = argument.hide_possible_values(true);
        match words {
            Some(words) => argument.help(words),
            None => argument,
        }
    };
    command.mut_args(brief).mut_subcommands(|subcommand| subcommand.mut_args(brief))
}

fn shown(argument: Arg, subcommand: &str, needed: &[&str]) -> Arg {
    let id = argument.get_id().as_str();
    let is_needed = needed.contains(&id);
    let is_unused = UNUSED.iter().any(|(name, flag, _)| *name == subcommand && *flag == id);
    argument.hide_short_help(!is_needed).hide(is_unused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_in_the_tables_is_one() {
        let command = super::super::command();
        let unused = UNUSED.iter().map(|(name, flag, _)| (*name, *flag));
        let needed = NEEDED.iter().flat_map(|(name, flags)| flags.iter().map(|flag| (*name, *flag)));
        let others = OTHER_WORDS.iter().map(|(name, flag, ..)| (*name, *flag));
        for (name, flag) in needed.chain(unused).chain(others) {
            let subcommand = command.find_subcommand(name).unwrap_or_else(|| panic!("gpt2 {name}"));
            assert!(subcommand.get_arguments().any(|argument| argument.get_id() == flag), "{flag} of gpt2 {name}");
        }
        let named =
            |name: &str| NEEDED.iter().any(|(other, _)| *other == name) || ["completions", "man"].contains(&name);
        assert!(command.get_subcommands().all(|subcommand| named(subcommand.get_name())));
    }
}
