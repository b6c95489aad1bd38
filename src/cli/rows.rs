//! The flags for many inputs: from a file with one JSON object a line, or one text a line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use gpt2::Error;

use super::{Format, files, number};

/// The id of the group of flags that name an input of many rows.
pub const MANY: &str = "many";

/// Rows: where they come from, where their results go, and what becomes of keys that mean nothing to the program.
#[derive(Debug, Args)]
pub struct RowArgs {
    /// Many texts: {"id", "prompt"} a line; - for stdin
    ///
    /// Rows, one JSON object a line: {"id", "prompt"} or {"id", "prompt_ids"} (`text` and `ids` are the same), and, for
    /// generate, any decoding parameter in snake_case, for topk those that shape the distribution. Of several files, each result names its own.
    #[arg(long, value_name = "F.jsonl", num_args = 1.., group = MANY)]
    #[arg(conflicts_with_all = ["positional", "prompt", "file", "ids"])]
    pub input: Option<Vec<PathBuf>>,
    /// Their results, an object a line [default: stdout]
    ///
    /// They are written as they finish. F.jsonl.gpt2 beside it says what they were made with, for --resume.
    #[arg(long, value_name = "F.jsonl", value_parser = files::output())]
    pub output: Option<PathBuf>,
    /// Continue the output of an earlier run: skip rows that are complete in it. Model and parameters must be the same
    #[arg(long)]
    pub resume: bool,
    /// Which of a row's other keys to carry into its result, under `input` [default: all]
    #[arg(long, value_name = "KEY,...", value_delimiter = ',', conflicts_with = "strict")]
    pub keep: Option<Vec<String>>,
    /// Refuse rows with other keys
    #[arg(long)]
    pub strict: bool,
    /// Work only on the rows whose line modulo N is I
    ///
    /// All N shards together are one run. `slurm` takes I and N from the task of a SLURM array. Lines count on from one
    /// file to the next.
    #[arg(long, value_name = "I/N", value_parser = Shard::parse)]
    pub shard: Option<Shard>,
    /// Write results in the order of the input, not as they finish
    #[arg(long)]
    pub ordered: bool,
    /// Leave out of results what differs from run to run
    #[arg(long)]
    pub no_timings: bool,
    /// After a row that failed: `report` it and go on, or `stop`
    ///
    /// A run that went on ends with exit code 3 if rows failed.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t, hide_possible_values = true)]
    pub on_row_error: OnRowError,
    /// End with exit code 0 even if rows failed
    #[arg(long)]
    pub keep_going: bool,
    /// Say how far the run is this often, in lines on stderr: 30s, 5m, hadoop:30s
    ///
    /// For logs; `hadoop:` writes them as Hadoop streaming reads them.
    #[arg(long, value_name = "TIME", value_parser = Progress::parse)]
    pub progress: Option<Progress>,
    /// Write how the run went, once it is whole: rows, ok, failed, tokens, seconds, fingerprint
    #[arg(long, value_name = "F.json", value_parser = files::output())]
    pub summary: Option<PathBuf>,
}

/// What to do after a row that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum OnRowError {
    /// Write why, and go on.
    #[default]
    Report,
    /// Write why, and end.
    Stop,
}

/// A part of the rows: those whose line modulo `of` is `index`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    of: usize,
}

impl Shard {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "slurm" {
            return Self::of_task(|name| std::env::var(name).ok());
        }
        let parts = text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((index, of)) if index < of => Ok(Self { index, of }),
            Some((_, of)) if of > 0 => Err(format!("takes I from 0 to {} of {of}, not {text}", of - 1)),
            _ => Err(format!("takes I/N, such as 0/8, or slurm, not {text}")),
        }
    }

    /// The shard of a task of a SLURM array, of which `variable` gives the environment.
    fn of_task(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let number = |name: &str| -> Result<Option<usize>, String> {
            let Some(text) = variable(name) else { return Ok(None) };
            text.parse().map(Some).map_err(|_| format!("has no use for {name}, {text:?}, which is no whole number"))
        };
        let needed = |name: &str| {
            number(name)?.ok_or_else(|| format!("takes slurm in a task of a SLURM array, and here {name} is not set"))
        };
        let (task, of) = (needed("SLURM_ARRAY_TASK_ID")?, needed("SLURM_ARRAY_TASK_COUNT")?);
        if of == 0 {
            return Err("has no use for SLURM_ARRAY_TASK_COUNT, 0".to_owned());
        }
        // In an array such as 0-14:2, ids modulo their number would not all differ.
        let is_even = match (number("SLURM_ARRAY_TASK_MIN")?, number("SLURM_ARRAY_TASK_MAX")?) {
            (Some(first), Some(last)) => last.checked_sub(first) == Some(of - 1),
            _ => true,
        };
        match is_even {
            true => Ok(Self { index: task % of, of }),
            false => Err("takes slurm in an array whose ids follow each other; in this one, give I/N".to_owned()),
        }
    }

    /// Whether a line is in it.
    pub fn has(self, line: usize) -> bool {
        line % self.of == self.index
    }

    /// How many of so many lines are in it.
    pub fn share(self, lines: u64) -> u64 {
        let (index, of) = (self.index as u64, self.of as u64);
        if index == 0 { lines / of } else { (lines + of - index) / of }
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

/// How often to say how far a run is, and to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub every: Duration,
    pub is_for_hadoop: bool,
}

impl Progress {
    fn parse(text: &str) -> Result<Self, String> {
        let (time, is_for_hadoop) = text.strip_prefix("hadoop:").map_or((text, false), |time| (time, true));
        let digits = time.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
        let unit = match &time[digits.len()..] {
            "ms" => Some(0.001),
            "" | "s" => Some(1.0),
            "m" | "min" => Some(60.0),
            "h" => Some(3600.0),
            _ => None,
        };
        let seconds = unit.and_then(|unit| Some(digits.parse::<f64>().ok()? * unit));
        let every = seconds.filter(|seconds| *seconds >= 0.001).and_then(|s| Duration::try_from_secs_f64(s).ok());
        let every = every.ok_or_else(|| format!("takes a time, such as 30s, 5m or hadoop:30s, not {text}"))?;
        Ok(Self { every, is_for_hadoop })
    }
}

impl RowArgs {
    /// Refuses flags that contradict each other.
    ///
    /// # Errors
    /// If the run is to stop at a failure and to go on.
    pub fn check(&self) -> Result<(), Error> {
        match self.keep_going && self.on_row_error == OnRowError::Stop {
            true => {
                Err(Error::Usage("--keep-going goes on after a row that failed, --on-row-error stop does not".into()))
            }
            false => Ok(()),
        }
    }
}

/// Where the seed of a row comes from.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Batch")]
pub struct SeedByArg {
    /// Give each row a seed of its own, made from --seed and its id, or its text if it has none
    ///
    /// The same prompt then gives several texts, and a row that is run again gives the same.
    #[arg(long, value_name = "id", value_enum, hide_possible_values = true)]
    pub seed_by: Option<SeedBy>,
}

/// What a row's seed is made from, besides that of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SeedBy {
    /// The row's id, or its text if it has none.
    Id,
}

/// Many texts, as rows or as lines, for a subcommand that also shows results to people.
#[derive(Debug, Args)]
#[command(next_help_heading = "Batch")]
pub struct TextsArgs {
    #[command(flatten)]
    pub rows: RowArgs,
    /// Many texts: one a line; - for stdin
    ///
    /// Each result has its text as a heading.
    #[arg(long, value_name = "F", group = MANY)]
    #[arg(conflicts_with_all = ["positional", "prompt", "file", "ids", "input", "strict"])]
    pub lines: Option<PathBuf>,
}

/// How many texts go through the network together.
#[derive(Debug, Args)]
#[command(next_help_heading = "Batch")]
pub struct BatchSizeArg {
    /// Texts to process at the same time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = number::whole::<usize>(1..=4096))]
    pub batch_size: usize,
}

impl TextsArgs {
    /// Whether results are for people: those of lines are, unless `--format` asks for records.
    pub fn is_text(&self, asked: Option<bool>) -> bool {
        asked.unwrap_or(self.lines.is_some())
    }

    /// Whether this `--format` gives text for people.
    pub fn is_for_people(&self, format: Option<Format>) -> bool {
        let has_records = self.rows.input.is_some() || self.rows.output.is_some();
        format.map_or(!has_records, |format| format == Format::Text)
    }

    /// Refuses text for people in a file of records.
    ///
    /// # Errors
    /// If the format `is_text`, and an output is given.
    pub fn check_format(&self, is_text: bool) -> Result<(), Error> {
        match &self.rows.output {
            Some(_) if is_text => Err(Error::Usage(
                "--output takes one JSON object a line; for text, leave it out and redirect stdout (> F)".into(),
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_the_lines() {
        assert_eq!(Shard::parse("2/3"), Ok(Shard { index: 2, of: 3 }));
        for wrong in ["3/3", "0/0", "1", "a/2", "-1/2", "1/2/3", ""] {
            assert!(Shard::parse(wrong).is_err(), "{wrong}");
        }
        for of in 1..5 {
            let shards: Vec<Shard> = (0..of).map(|index| Shard { index, of }).collect();
            for lines in 0..12_usize {
                let shares: Vec<usize> =
                    shards.iter().map(|shard| (1..=lines).filter(|line| shard.has(*line)).count()).collect();
                let told: Vec<usize> = shards.iter().map(|shard| shard.share(lines as u64) as usize).collect();
                assert_eq!((shares.iter().sum::<usize>(), &told), (lines, &shares));
            }
        }
    }

    #[test]
    fn a_slurm_array_is_a_set_of_shards() {
        let of = |variables: &[(&str, &str)]| {
            let name = |name: &str| name.strip_prefix("SLURM_ARRAY_TASK_").unwrap().to_owned();
            let value =
                |wanted: String| variables.iter().find(|(name, _)| *name == wanted).map(|(_, v)| (*v).to_owned());
            Shard::of_task(|variable| value(name(variable)))
        };
        assert_eq!(of(&[("ID", "3"), ("COUNT", "4")]), Ok(Shard { index: 3, of: 4 }));
        assert_eq!(of(&[("ID", "4"), ("COUNT", "4"), ("MIN", "1"), ("MAX", "4")]), Ok(Shard { index: 0, of: 4 }));
        for wrong in [
            &[("ID", "3")][..],
            &[("COUNT", "4")],
            &[("ID", "x"), ("COUNT", "4")],
            &[("ID", "0"), ("COUNT", "0")],
            &[("ID", "4"), ("COUNT", "4"), ("MIN", "0"), ("MAX", "6")],
        ] {
            assert!(of(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn times_have_units() {
        let every = |text: &str| Progress::parse(text).map(|progress| progress.every.as_millis());
        for (text, milliseconds) in [("30s", 30_000), ("5m", 300_000), ("0.5", 500), ("2h", 7_200_000), ("20ms", 20)] {
            assert_eq!(every(text), Ok(milliseconds), "{text}");
        }
        assert_eq!(Progress::parse("hadoop:1s"), Ok(Progress { every: Duration::from_secs(1), is_for_hadoop: true }));
        for wrong in ["", "s", "0s", "-1s", "1d", "1e400s", "hadoop", "hadoop:", "nan"] {
            assert!(Progress::parse(wrong).is_err(), "{wrong}");
        }
    }
}
