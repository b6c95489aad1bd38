//! The examples on a page: commands, and what the page shows that they print.

use std::ops::Range;

/// A command of a page with the output that it shows.
pub struct Example {
    pub command: String,
    /// A script, which the command reads.
    pub stdin: String,
    /// The lines of the output on the page, by their places in it.
    pub shown: Range<usize>,
}

/// What runs the scripts of a language.
const INTERPRETERS: [(&str, &str); 2] = [("python", "python3 -"), ("r", "Rscript -")];

/// The page's examples, in order: the commands in blocks of type `console`, whose output follows; the scripts in blocks of
/// their language, whose output is the next block of type `text`.
pub fn examples(lines: &[&str]) -> Vec<Example> {
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
