//! Runs a case, and says what of it must not be.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};
use std::{io, thread};

use crate::case::{Case, list};

/// Processor time in seconds, address space in KiB, sizes of files in blocks of 512 bytes, no core dumps.
const LIMITS: &str = r#"ulimit -t 10 && ulimit -v 4194304 && ulimit -f 200000 && ulimit -c 0 && exec "$@""#;

/// How long a run may take in all. Much longer than the processor's time, for others may use the processor.
const PATIENCE: Duration = Duration::from_secs(600);

/// Wording of Rust and serde, which means nothing to users.
const FOREIGN: &str = "invalid type: |invalid value: |invalid length |did not match any variant|untagged enum|unit variant|\
    newtype|expected struct|usize|expected u8|expected u16|expected u32|expected u64|expected i32|expected i64|expected f32|\
    expected f64|found in string|float literal|target type|called `|Some(|Err(|internal error";

/// What a run did.
pub struct Outcome {
    pub status: ExitStatus,
    pub stderr: Vec<u8>,
    stdout: Vec<u8>,
}

/// Runs the program in `folder`, where the case was saved.
pub fn run(case: &Case, folder: &Path, program: &Path) -> io::Result<Outcome> {
    let mut child = Command::new("sh")
        .args(["-c", LIMITS, "sh"])
        .arg(program)
        .args(&case.arguments)
        .current_dir(folder.join("files"))
        .env_clear()
        .envs([("PATH", "/usr/bin:/bin"), ("HF_HUB_OFFLINE", "1"), ("HF_HOME", "hf"), ("HOME", "home")])
        .stdin(File::open(folder.join("stdin"))?)
        .stdout(File::create(folder.join("stdout"))?)
        .stderr(File::create(folder.join("stderr"))?)
        .spawn()?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > PATIENCE {
            child.kill()?;
        }
        thread::sleep(Duration::from_millis(1));
    };
    let read = |name| fs::read(folder.join(name));
    Ok(Outcome { status, stderr: read("stderr")?, stdout: read("stdout")? })
}

/// What is wrong with the outcome of a case that ran in `folder`. Cases with the same fault get the same text.
pub fn fault(case: &Case, outcome: &Outcome, folder: &Path) -> Option<String> {
    let has = |flag: &str| case.arguments.iter().any(|argument| argument == flag);
    let is_batch = case.arguments.iter().any(|argument| argument.starts_with("--input"));
    let has_lines = case.arguments.iter().any(|argument| argument.starts_with("--lines"));
    let Ok(stderr) = str::from_utf8(&outcome.stderr) else { return Some("stderr is not UTF-8".into()) };
    // Colour that was asked for is the program's own.
    let is_coloured = has("--color") || case.arguments.iter().any(|argument| argument.starts_with("--color="));
    let plain = |text: &str| if is_coloured { without_colours(text) } else { text.to_owned() };
    let stderr = &*plain(stderr);
    if let Some((_, after)) = stderr.split_once("panicked at ") {
        return Some(format!("panic at {}", short_path(after.lines().next().unwrap_or_default())));
    }
    let code = match (outcome.status.code(), outcome.status.signal()) {
        (Some(code @ 0..=2), _) => code,
        (Some(3), _) if is_batch => 3,
        (Some(code), _) => return Some(format!("exit code {code}")),
        (None, Some(9 | 24)) => return Some("takes too long".into()),
        (None, signal) => return Some(format!("signal {}: {}", signal.unwrap_or(0), shape(stderr))),
    };
    if stderr.contains("RUST_BACKTRACE") {
        return Some("stderr speaks of RUST_BACKTRACE".into());
    }
    if let Some(char) = stderr.chars().find(|char| drives_terminal(*char)) {
        return Some(format!("stderr has the character {char:?}: {}", shape(stderr)));
    }
    if let Some(line) = stderr.lines().find(|line| line.chars().count() >= 2000) {
        return Some(format!("a line of stderr has 2000 characters or more: {}", shape(line)));
    }
    if code != 0 {
        let mut before = stderr.lines().take_while(|line| !line.starts_with("error: "));
        let says_why = stderr.lines().any(|line| line.starts_with("error: "));
        let known =
            ["note: ", "warning: ", "seed: ", "loaded ", "wrote ", "changed: ", "progress: ", "reporter:status:"];
        if !says_why || before.any(|line| !known.iter().any(|start| line.starts_with(start))) {
            return Some(format!("exit code {code}, and stderr does not begin with `error: `: {}", shape(stderr)));
        }
    }
    let stdout = plain(&String::from_utf8_lossy(&outcome.stdout));
    if !is_text(case)
        && let Some(char) = stdout.chars().find(|char| drives_terminal(*char))
    {
        return Some(format!("stdout has the character {char:?}, and is not text of a model"));
    }
    // An error of a row stands in its result.
    let of_row = |line| Some(serde_json::from_str::<serde_json::Value>(line).ok()?.get("error")?.as_str()?.to_owned());
    for line in stderr.lines().map(str::to_owned).chain(stdout.lines().filter_map(of_row)) {
        if let Some(foreign) = FOREIGN.split('|').find(|foreign| unquoted(&line).contains(foreign)) {
            let before = shape(line.split(foreign).next().unwrap_or_default());
            return Some(format!("speaks Rust ({foreign:?}): {before}"));
        }
    }
    let formatted = case.arguments.windows(2).any(|pair| pair == ["--format", "json"]) || has("--format=json");
    if code == 0 && (is_batch || has_lines && formatted) && !has("--output") {
        if stdout.lines().any(|line| !is_json(line)) {
            return Some("a line of stdout is not JSON".into());
        }
    } else if code == 0 && formatted && !has("--output") && !is_json(&stdout) {
        return Some("stdout is not JSON".into());
    }
    left_over(case, folder)
}

/// The text without colours (`ESC [ numbers m`).
fn without_colours(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        match rest.strip_prefix('m') {
            Some(rest) => plain.push_str(rest),
            None => plain.extend(["\u{1b}[", part]),
        }
    }
    plain
}

/// Whether a character could drive a terminal, or reorder or hide text. Nothing but text that was asked for may hold one:
/// there are no colours without a terminal.
fn drives_terminal(char: char) -> bool {
    match char {
        '\n' | '\t' => false,
        '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}' => true,
        '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{e0000}'..='\u{e007f}' => true,
        char => char.is_control(),
    }
}

/// Whether the run may write the text of a prompt or of a model as it is.
fn is_text(case: &Case) -> bool {
    let has = |part: &str| case.arguments.iter().any(|argument| argument.starts_with(part));
    let is_json =
        has("--format=json") || has("--input") || case.arguments.iter().any(|value| value.starts_with("json"));
    !is_json && (has("generate") || has("--decode") || has("compress") || has("decompress"))
}

fn is_json(text: &str) -> bool {
    // However deep: an id comes back as it was written.
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// A file that the command line does not name and that was left or changed.
fn left_over(case: &Case, folder: &Path) -> Option<String> {
    let files = folder.join("files");
    let is_named = |name: &str| {
        case.arguments.iter().any(|argument| {
            let value = argument.split_once('=').map_or(argument.as_str(), |(_, value)| value);
            argument == name || !value.is_empty() && name.starts_with(value)
        })
    };
    // They name a folder, or write a model's other files, too.
    let names_more = case.arguments.iter().any(|command| command == "convert" || command == "man");
    for path in list(&files).ok()? {
        let name = path.strip_prefix(&files).map(PathBuf::from).ok()?.to_string_lossy().into_owned();
        let is_temporary = name.contains(".gpt2-");
        match case.files.get(&name) {
            _ if is_named(&name) && !is_temporary => {}
            // The history of --interactive.
            None if name.starts_with("home/") => {}
            Some(bytes) if fs::read(&path).is_ok_and(|now| now != *bytes) => {
                return Some(format!("changes the file {name}"));
            }
            None if is_temporary => return Some("leaves a temporary file".into()),
            None if !names_more => return Some(format!("leaves the file {name}")),
            _ => {}
        }
    }
    None
}

/// Whether the error names a file, a flag, a line or a source of text.
pub fn names_something(case: &Case, stderr: &str) -> bool {
    let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let mut names = case.files.keys().map(|name| base(name));
    let words = ["--", "stdin", "line ", "row", "TEXT", "config.json", "tokenizer.json", "`model`"];
    words.iter().any(|word| stderr.contains(word))
        || names.any(|name| stderr.contains(&name))
        || case.arguments.iter().skip(1).any(|argument| {
            let value = argument.split_once('=').map_or(argument.as_str(), |(_, value)| value);
            !value.is_empty() && stderr.contains(value)
        })
}

/// A message without its quoted parts, which may be the user's words.
fn unquoted(message: &str) -> String {
    message.split(['`', '\'', '"']).step_by(2).collect::<Vec<_>>().join("…")
}

/// A message without what differs from case to case: quoted parts, numbers, and everything after 100 characters.
pub fn shape(message: &str) -> String {
    let line = message.lines().find(|line| line.starts_with("error: ")).or(message.lines().next()).unwrap_or_default();
    let without_numbers: String = unquoted(line).chars().filter(|char| !char.is_ascii_digit()).collect();
    without_numbers.escape_debug().take(100).collect()
}

/// The path of a source file without the folder of the registry.
fn short_path(path: &str) -> &str {
    path.rsplit_once("/index.crates.io-").and_then(|(_, rest)| rest.split_once('/')).map_or(path, |(_, rest)| rest)
}
