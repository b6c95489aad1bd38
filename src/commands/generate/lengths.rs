//! Lengths that have no effect, of which transformers warns as well.

use std::collections::BTreeMap;

use gpt2::decode::GenerationConfig;

use crate::cli::{GenerateArgs, Verbosity};
use crate::output::say;

/// A length without effect, and that beside which it has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Idle {
    /// Another parameter takes its place.
    Replaced(&'static str, &'static str),
    /// No text gets so long: the least is above the most.
    OutOfReach(&'static str, &'static str),
}

/// Those of a configuration in which `given` are given.
fn idle(given: &[&str], config: &GenerationConfig) -> Vec<Idle> {
    let pairs = [("max_length", "max_new_tokens"), ("min_length", "min_new_tokens")];
    let replaced = pairs.into_iter().filter(|(one, other)| given.contains(one) && given.contains(other));
    let most = Some(config.max_new_tokens).filter(|_| config.max_length.is_none());
    let ranges = [
        ("min_length", config.min_length, "max_length", config.max_length),
        ("min_new_tokens", config.min_new_tokens, "max_new_tokens", most),
    ];
    let beyond = ranges.into_iter().filter(|(_, least, _, most)| most.is_some_and(|most| most < *least));
    let beyond = beyond.map(|(least, _, most, _)| Idle::OutOfReach(least, most));
    replaced.map(|(one, other)| Idle::Replaced(one, other)).chain(beyond).collect()
}

/// Says which of the flags have no effect.
pub fn note_flags(args: &GenerateArgs, verbosity: Verbosity) {
    let config = &args.decoding.config;
    let flag = |name: &str| format!("--{}", name.replace('_', "-"));
    let value = |name: &str| match name {
        "min_length" => Some(config.min_length),
        "min_new_tokens" => Some(config.min_new_tokens),
        "max_new_tokens" => Some(config.max_new_tokens),
        _ => config.max_length,
    };
    for idle in idle(&args.decoding.given(), config) {
        match idle {
            _ if verbosity.quiet => {}
            Idle::Replaced(one, by) => {
                let short = if by == "max_new_tokens" { " (-n)" } else { "" };
                say(format_args!("note: {}{short} takes the place of {}", flag(by), flag(one)));
            }
            Idle::OutOfReach(least, most) => {
                let shown = |name: &str| format!("{} {}", flag(name), value(name).unwrap_or_default());
                say(format_args!("warning: {} is more than {}: no text gets so long", shown(least), shown(most)));
            }
        }
    }
}

/// The rows whose own parameters have no effect.
#[derive(Debug, Default)]
pub struct IdleRows(BTreeMap<Idle, usize>);

impl IdleRows {
    /// Counts a row that gives these parameters.
    pub fn add(&mut self, given: &[&str], config: &GenerationConfig) {
        for idle in idle(given, config) {
            let (Idle::Replaced(one, other) | Idle::OutOfReach(one, other)) = idle;
            // What the flags alone say is said once, of them.
            if given.contains(&one) || given.contains(&other) {
                *self.0.entry(idle).or_default() += 1;
            }
        }
    }

    /// Says how many there are.
    pub fn note(&self) {
        for (idle, rows) in &self.0 {
            let rows = if *rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") };
            match idle {
                Idle::Replaced(one, by) => say(format_args!("note: `{by}` takes the place of `{one}` in {rows}")),
                Idle::OutOfReach(least, most) => {
                    say(format_args!("warning: `{least}` is more than `{most}` in {rows}: no text gets so long"));
                }
            }
        }
    }
}
