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
    #[cfg(feature = "serve")]
    ("serve", &["model", "quantize", "threads", "host", "port", "api_key", "batch_size"]),
    ("info", &["model", "config", "tensors", "state_dict", "module", "format"]),
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

/// What has another default in `gpt2 decompress`.
const OF_THE_FILE: [(&str, &str); 3] = [
    ("model", "The same model, under any name [default: the file's]"),
    ("dtype", "Type of the weights in memory [default: the file's]"),
    ("quantize", "Quantise the weights in memory [default: as for the file]"),
];

/// Lines of the examples that `-h` shows, with their heading.
const EXAMPLES: usize = 3;

/// Hides the other flags from `-h`, and those that a subcommand does not use from `--help`, too.
pub fn arranged(command: Command) -> Command {
    let command = command.mut_args(|argument| match argument.get_id().as_str() {
        "quiet" | "verbose" | "version" => argument.hide_short_help(true),
        _ => argument,
    });
    let command = command.mut_subcommand("decompress", |subcommand| {
        subcommand.mut_args(|argument| match OF_THE_FILE.iter().find(|(id, _)| *id == argument.get_id().as_str()) {
            Some((_, help)) => argument.help(*help).long_help(*help),
            None => argument,
        })
    });
    command.mut_subcommands(|subcommand| {
        let name = subcommand.get_name().to_owned();
        let Some((_, needed)) = NEEDED.iter().find(|(other, _)| *other == name) else { return subcommand };
        let subcommand = subcommand.mut_args(|argument| shown(argument, &name, needed));
        let Some(examples) = subcommand.get_after_help().map(ToString::to_string) else { return subcommand };
        let first: Vec<&str> = examples.lines().take(EXAMPLES).collect();
        let short = format!("{}\n\nAll flags: gpt2 {name} --help", first.join("\n"));
        subcommand.after_help(short).after_long_help(examples)
    })
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
        for (name, flag) in needed.chain(unused) {
            let subcommand = command.find_subcommand(name).unwrap_or_else(|| panic!("gpt2 {name}"));
            assert!(subcommand.get_arguments().any(|argument| argument.get_id() == flag), "{flag} of gpt2 {name}");
        }
        let named = |name: &str| NEEDED.iter().any(|(other, _)| *other == name) || name == "completions";
        assert!(command.get_subcommands().all(|subcommand| named(subcommand.get_name())));
    }
}
