//! The pages of documentation: every command on them runs, and prints what the page shows.
//!
//! `GPT2_TEST_UPDATE=1` writes the output into the page instead. A line `...` stands for any lines; the last digit of a
//! number may differ by one, since instruction sets round differently. Scripts in Python and R run only with
//! `GPT2_TEST_SCRIPTS=1`: they need numpy, pandas and jsonlite.

use std::ops::Range;
use std::path::Path;

use crate::harness::{is_update, requires, shell};

/// A command of a page with the output that it shows.
struct Example {
    command: String,
    /// A script, which the command reads.
    stdin: String,
    /// The lines of the output on the page, by their places in it.
    shown: Range<usize>,
}

/// What runs the scripts of a language.
const INTERPRETERS: [(&str, &str); 2] = [("python", "python3 -"), ("r", "Rscript -")];

/// The page's examples, in order: the commands in blocks of type `console`, whose output follows; the scripts in blocks of
/// their language, whose output is the next block of type `text`.
fn examples(lines: &[&str]) -> Vec<Example> {
    let mut examples: Vec<Example> = vec![];
    let mut block = None;
    for (place, line) in lines.iter().enumerate() {
        let last = examples.last_mut();
        match (line.strip_prefix("```"), block) {
            (Some(language), None) => {
                block = Some(language);
                match (INTERPRETERS.iter().find(|(known, _)| *known == language), last) {
                    (Some((_, interpreter)), _) => {
                        examples.push(Example {
                            command: (*interpreter).to_owned(),
                            stdin: String::new(),
                            shown: 0..0,
                        });
                    }
                    (None, Some(script)) if language == "text" => script.shown = place + 1..place + 1,
                    _ => {}
                }
            }
            (Some(_), Some(_)) => block = None,
            (None, Some("console")) => match (line.strip_prefix("$ "), last) {
                (Some(command), _) => {
                    let shown = place + 1..place + 1;
                    examples.push(Example { command: command.to_owned(), stdin: String::new(), shown });
                }
                (None, Some(last)) if last.shown.is_empty() && goes_on(&last.command) => {
                    last.command += &format!("\n{line}");
                    last.shown = place + 1..place + 1;
                }
                (None, Some(last)) => last.shown.end = place + 1,
                (None, None) => {}
            },
            (None, Some("text")) => last.into_iter().for_each(|last| last.shown.end = place + 1),
            (None, Some(language)) if INTERPRETERS.iter().any(|(known, _)| *known == language) => {
                last.into_iter().for_each(|last| last.stdin += &format!("{line}\n"));
            }
            (None, _) => {}
        }
    }
    examples
}

/// Whether the next line belongs to the command.
fn goes_on(command: &str) -> bool {
    let is_document = command.contains("<<'END'") && !command.ends_with("\nEND");
    is_document || command.ends_with('\\') || command.ends_with('|')
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
        Some(place) if printed.len() + 1 >= shown.len() => {
            let (head, tail) = (&printed[..place], &printed[printed.len() - (shown.len() - place - 1)..]);
            [head, &["..."], tail].concat()
        }
        _ => printed.to_vec(),
    }
}

/// Runs the examples of a page of which the command `is_run`, in one folder; returns how many there are.
fn check_page(page: &str, is_run: impl Fn(&str) -> bool) -> usize {
    check_page_as(page, is_run, str::to_owned)
}

/// The same, with other words for the commands.
fn check_page_as(page: &str, is_run: impl Fn(&str) -> bool, run_as: impl Fn(&str) -> String) -> usize {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let has_scripts = std::env::var_os("GPT2_TEST_SCRIPTS").is_some();
    let mut examples = examples(&lines);
    examples.retain(|example| is_run(&example.command) && (example.stdin.is_empty() || has_scripts));
    let folder = tempfile::tempdir().unwrap();
    let (mut updated, mut from) = (String::new(), 0);
    let mut settings = String::new();
    for Example { command, stdin, shown } in &examples {
        // Each command has a shell of its own.
        if command.starts_with("export ") {
            settings += &format!("{command}; ");
            continue;
        }
        let done = shell(&format!("{settings}{}", run_as(command)), folder.path()).stdin(stdin).succeeds();
        // What is on stderr comes first, if the page shows it.
        let said = done.stderr();
        let is_shown = said.lines().next().is_some_and(|line| lines[shown.clone()].contains(&line));
        let printed = if is_shown { said + &done.stdout() } else { done.stdout() };
        // A page needs no empty line below what it shows.
        let printed: Vec<&str> = printed.trim_end_matches('\n').lines().collect();
        if shown.is_empty() {
            continue;
        }
        let (found, on_page) = (printed.join("\n"), &lines[shown.clone()]);
        if is_update() {
            let new = shortened(on_page, &printed);
            updated += &lines[from..shown.start].iter().chain(&new).map(|line| format!("{line}\n")).collect::<String>();
            from = shown.end;
        } else {
            let on_page_text = on_page.join("\n");
            assert!(matches(on_page, &printed), "{command}\nprints\n{found}\nand {page} shows\n{on_page_text}");
        }
    }
    if is_update() {
        updated.extend(lines[from..].iter().map(|line| format!("{line}\n")));
        std::fs::write(path, updated).unwrap();
    }
    examples.len()
}

#[test]
fn every_step_of_a_course_has_its_command() {
    assert!(check_page("docs/courses.md", |_| true) >= 52);
}

#[cfg(feature = "constraints")]
#[test]
fn constraints_do_what_their_page_shows() {
    assert!(check_page("docs/constraints.md", |_| true) >= 7);
}

#[test]
fn a_look_inside_shows_what_its_page_says() {
    assert!(check_page("docs/inside.md", |_| true) >= 2);
}

/// Whether the tools of the recipes are there.
#[track_caller]
fn has_tools() -> bool {
    let found = |tool| std::process::Command::new(tool).arg("--version").output().ok();
    ["curl", "jq"].into_iter().all(|tool| requires(tool, found(tool)).is_some())
}

#[test]
fn recipes_do_what_they_show() {
    if has_tools() {
        check_page("docs/recipes.md", |_| true);
    }
}

#[cfg(feature = "serve")]
#[test]
fn a_server_answers_as_its_page_shows() {
    if has_tools() {
        let server = crate::serve::Server::demo();
        let at_its_address = |command: &str| command.replace("127.0.0.1:8080", &server.address);
        assert!(check_page_as("docs/serve.md", |command| command.starts_with("curl"), at_its_address) >= 4);
    }
}

/// Those that need no download.
#[test]
fn the_readme_shows_what_is_printed() {
    let is_local =
        |command: &str| ["gpt2 tokenize", " -m demo", "rows.jsonl"].iter().any(|part| command.contains(part));
    assert!(check_page("README.md", is_local) >= 10);
}

#[test]
fn numbers_may_round_differently() {
    assert!(is_alike("a  64.92%  b", "a 64.93% b") && is_alike("-1.20", "-1.21"));
    assert!(!is_alike("64.92%", "64.94%") && !is_alike("64.92", "64.9") && !is_alike("a 5", "a 6"));
    assert!(matches(&["a", "...", "c"], &["a", "b", "b", "c"]) && !matches(&["a", "...", "c"], &["a", "b"]));
}
