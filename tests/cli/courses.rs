//! `docs/courses.md`: every command on the page runs, and prints what the page shows.
//!
//! `GPT2_TEST_UPDATE=1` writes the output into the page instead. A line `...` stands for any lines; the last digit of a
//! number may differ by one, since instruction sets round differently.

use std::path::{Path, PathBuf};

use crate::harness::shell;

/// A command of the page with the output that it shows.
struct Example {
    command: String,
    /// The lines of the output on the page, by their places in it.
    shown: std::ops::Range<usize>,
}

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/courses.md")
}

/// The commands in the page's blocks of type `console`, in order.
fn examples(lines: &[&str]) -> Vec<Example> {
    let mut examples: Vec<Example> = vec![];
    let mut in_console = false;
    for (place, line) in lines.iter().enumerate() {
        match line.strip_prefix("$ ") {
            _ if line.starts_with("```") => in_console = *line == "```console",
            Some(command) if in_console => {
                examples.push(Example { command: command.to_owned(), shown: place + 1..place + 1 });
            }
            None if in_console => {
                if let Some(last) = examples.last_mut() {
                    last.shown.end = place + 1;
                }
            }
            _ => {}
        }
    }
    examples
}

/// The text with each number that has a fraction replaced, and those numbers: digits without the point, and decimals.
fn without_fractions(line: &str) -> (String, Vec<(i64, usize)>) {
    let fraction = regex::Regex::new(r"-?\d+\.\d+").unwrap();
    let numbers = fraction.find_iter(line).map(|found| {
        let (whole, decimals) = found.as_str().split_once('.').unwrap();
        (format!("{whole}{decimals}").parse().unwrap_or(i64::MAX), decimals.len())
    });
    (fraction.replace_all(line, "#").into_owned(), numbers.collect())
}

fn is_alike(shown: &str, line: &str) -> bool {
    let ((shown, numbers), (line, others)) = (without_fractions(shown), without_fractions(line));
    // Columns are filled with spaces.
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let close = |(a, b): (&(i64, usize), &(i64, usize))| a.1 == b.1 && a.0.abs_diff(b.0) <= 1;
    words(&shown) == words(&line) && numbers.len() == others.len() && numbers.iter().zip(&others).all(close)
}

fn matches(shown: &[&str], printed: &[&str]) -> bool {
    match shown.iter().position(|line| *line == "...") {
        None => shown.len() == printed.len() && shown.iter().zip(printed).all(|(shown, line)| is_alike(shown, line)),
        Some(place) => {
            let (head, tail) = (&shown[..place], &shown[place + 1..]);
            printed.len() >= head.len() + tail.len()
                && matches(head, &printed[..head.len()])
                && matches(tail, &printed[printed.len() - tail.len()..])
        }
    }
}

/// As many lines of the output as the page shows.
fn shortened<'a>(shown: &[&str], printed: &[&'a str]) -> Vec<&'a str> {
    match shown.iter().position(|line| *line == "...") {
        Some(place) if printed.len() > shown.len() => {
            let (head, tail) = (&printed[..place], &printed[printed.len() - (shown.len() - place - 1)..]);
            [head, &["..."], tail].concat()
        }
        _ => printed.to_vec(),
    }
}

#[test]
fn every_step_has_its_command() {
    let text = std::fs::read_to_string(page()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let examples = examples(&lines);
    assert!(examples.len() >= 52, "{} commands", examples.len());
    let folder = tempfile::tempdir().unwrap();
    let update = std::env::var_os("GPT2_TEST_UPDATE").is_some();
    let (mut updated, mut from) = (String::new(), 0);
    let mut settings = String::new();
    for Example { command, shown } in &examples {
        // Each command has a shell of its own.
        if command.starts_with("export ") {
            settings += &format!("{command}; ");
            continue;
        }
        let done = shell(&format!("{settings}{command}"), folder.path()).succeeds();
        let printed = done.stdout();
        let printed: Vec<&str> = printed.lines().collect();
        if shown.is_empty() {
            continue;
        }
        let (found, page) = (printed.join("\n"), &lines[shown.clone()]);
        if update {
            let new = shortened(page, &printed);
            updated += &lines[from..shown.start].iter().chain(&new).map(|line| format!("{line}\n")).collect::<String>();
            from = shown.end;
        } else {
            assert!(matches(page, &printed), "{command}\nprints\n{found}\nand the page shows\n{}", page.join("\n"));
        }
    }
    if update {
        updated.extend(lines[from..].iter().map(|line| format!("{line}\n")));
        std::fs::write(page(), updated).unwrap();
    }
}

#[test]
fn numbers_may_round_differently() {
    assert!(is_alike("a  64.92%  b", "a 64.93% b") && is_alike("-1.20", "-1.21"));
    assert!(!is_alike("64.92%", "64.94%") && !is_alike("64.92", "64.9") && !is_alike("a 5", "a 6"));
    assert!(matches(&["a", "...", "c"], &["a", "b", "b", "c"]) && !matches(&["a", "...", "c"], &["a", "b"]));
}
