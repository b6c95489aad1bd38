//! Man pages: what `--help` says, and below it what is the same for all subcommands.

use std::io;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use regex::Regex;

/// A man page.
pub struct Page {
    /// The name of its file, such as `gpt2-generate.1`.
    pub file: String,
    /// What is in it, for `man`.
    pub text: String,
}

const EXIT_STATUS: [(&str, &str); 6] = [
    ("0", "Success."),
    ("1", "A failure while running."),
    ("2", "Bad usage."),
    ("3", "Rows failed, and all else is done."),
    ("130", "Ctrl-C ended it. What was done by then is kept."),
    ("143", "SIGTERM ended it. The rows under way were finished."),
];

const ENVIRONMENT: [(&str, &str); 18] = [
    ("GPT2_MODEL, GPT2_DEVICE, GPT2_THREADS", "What --model, --device and --threads take, where they are not given."),
    ("GPT2_DTYPE", "What --dtype or --quantize takes, where neither is given."),
    ("GPT2_CONFIG", "The config file; empty for none."),
    ("GPT2_API_KEY", "The key that clients of gpt2 serve have to send."),
    ("GPT2_SIMD", "Use no better instruction set than this: baseline, portable, avx2, avx512, vnni, amx or neon."),
    ("HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE", "With 1: use only the cache and open no connection."),
    ("HF_HUB_CACHE", "The folder of downloaded models."),
    ("HF_HOME", "The folder that has these models, in hub, and the token."),
    ("HF_ENDPOINT", "The hub's address, for a mirror."),
    ("HF_TOKEN, HF_TOKEN_PATH", "The token for the hub, or the file that it is in."),
    ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "If set: send no token."),
    ("HF_HUB_DOWNLOAD_TIMEOUT", "Seconds after which a silent server is asked again. 10 by default."),
    ("HF_HUB_ETAG_TIMEOUT", "The same for what is asked before a download."),
    ("HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY", "The proxy for downloads, and the hosts without one."),
    ("NO_COLOR", "If set: no colours."),
    ("CLICOLOR, CLICOLOR_FORCE", "With 0 in the first: no colours. With the second: colours also in files and pipes."),
    ("COLUMNS", "The width of the terminal."),
    ("CUDA_HOME, CUDA_PATH", "The folder of NVIDIA's libraries, in programs that are built for its GPUs."),
];

const FILES: [(&str, &str); 5] = [
    (
        "~/.config/gpt2/config.toml",
        "Defaults of your own, below flags and environment: model, device, dtype, threads, color. In XDG_CONFIG_HOME, if that \
         is set. `gpt2 info --settings` shows what counts.",
    ),
    ("~/.cache/huggingface/hub", "Downloaded models, shared with Python's huggingface_hub."),
    ("~/.cache/huggingface/token", "The token for the hub, where `hf auth login` puts it."),
    ("~/.local/state/gpt2/history", "The lines typed into gpt2 generate --interactive."),
    ("F.jsonl.gpt2", "Beside the --output F.jsonl of rows: what it was made with, for --resume."),
];

/// The pages of the program and of each subcommand.
///
/// # Errors
/// Never: they are written to memory.
pub fn pages() -> io::Result<Vec<Page>> {
    let mut program = super::command().disable_help_subcommand(true);
    program.build();
    let subcommands: Vec<Command> = program.get_subcommands().cloned().collect();
    let first = page(program, |roff| {
        list(roff, "EXIT STATUS", &EXIT_STATUS);
        list(roff, "ENVIRONMENT", &ENVIRONMENT);
        list(roff, "FILES", &FILES);
    });
    let others = subcommands.into_iter().map(|subcommand| {
        page(subcommand, |roff| {
            roff.control("SH", ["SEE ALSO"]);
            roff.text([bold("gpt2"), roman("(1), for the exit status, the environment and the files.")]);
        })
    });
    std::iter::once(first).chain(others).collect()
}

/// The subcommand of this name, or of the page of this name.
pub fn subcommand(name: &Path) -> Option<String> {
    let name = name.to_str()?;
    let name = name.strip_prefix("gpt2-").unwrap_or(name);
    super::command().find_subcommand(name).map(|found| found.get_name().to_owned())
}

/// The page of a command, with what `end` adds.
fn page(mut command: Command, end: impl FnOnce(&mut Roff)) -> io::Result<Page> {
    // By itself, the synopsis would list every flag.
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim().to_owned();
    let examples = command.get_after_long_help().or(command.get_after_help()).map(ToString::to_string);
    // The version tells the processor of the machine that makes the page.
    let command = command.version(None).after_help(None).after_long_help(None).override_usage(usage);
    // clap_mangen would leave out the words of a flag that `-h` does not show.
    let command = command.mut_args(|argument| argument.hide_short_help(false));
    let source = concat!("gpt2 ", env!("CARGO_PKG_VERSION"));
    // Without the quotes, an empty date would be none, and what follows would take its place.
    let man = Man::new(command).date("\"\"").source(source).manual("GPT-2 on the command line");
    let mut text = vec![];
    man.render(&mut text)?;
    let mut rest = Roff::new();
    add_examples(&mut rest, &examples.unwrap_or_default());
    end(&mut rest);
    rest.to_writer(&mut text)?;
    let text = String::from_utf8(text).map_err(io::Error::other)?;
    Ok(Page { file: man.get_filename(), text: typeset(&text) })
}

/// The examples below a help text: commands, which are indented, and sentences between them.
fn add_examples(roff: &mut Roff, examples: &str) {
    let lines: Vec<&str> = examples.lines().filter(|line| !line.is_empty()).collect();
    for lines in lines.chunk_by(|a, b| a.starts_with(' ') == b.starts_with(' ')) {
        if let ["Examples:"] = lines {
            roff.control("SH", ["EXAMPLES"]);
        } else if lines[0].starts_with(' ') {
            roff.control("nf", []);
            for line in lines {
                roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
            }
            roff.control("fi", []);
        } else {
            roff.control("PP", []);
            roff.text([roman(lines.join(" "))]);
        }
    }
}

/// A section of names and what they mean.
fn list(roff: &mut Roff, heading: &str, entries: &[(&str, &str)]) {
    roff.control("SH", [heading]);
    for (name, meaning) in entries {
        roff.control("TP", []);
        roff.text([bold(*name)]);
        roff.text([roman(*meaning)]);
    }
}

/// What help has between backticks in bold, characters that can be copied where `man` may show others in their place, and
/// no other spaces and hyphens than those of the help, which may belong to a token.
fn typeset(text: &str) -> String {
    let code = Regex::new("`([^`\n]+)`").expect("a valid pattern");
    let text = code.replace_all(text, r"\fB$1\fR").replace('^', r"\(ha").replace('~', r"\(ti");
    text.replacen(".SH NAME\n", ".nh\n.ad l\n.SH NAME\n", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_keep_their_lines_and_sentences_flow() {
        let mut roff = Roff::new();
        add_examples(&mut roff, "Examples:\n  gpt2 a\n    b -n 2\n\nThe model\nis built in.");
        let page = ".SH EXAMPLES\n.nf\ngpt2 a\n  b \\-n 2\n.fi\n.PP\nThe model is built in.\n";
        assert_eq!(roff.to_roff(), page);
    }

    #[test]
    fn code_is_bold_and_tildes_can_be_copied() {
        assert_eq!(typeset("`demo` in ~, 2^3, ` alone"), r"\fBdemo\fR in \(ti, 2\(ha3, ` alone");
    }
}
