//! The flags of `gpt2 score`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Format, InterventionArgs, MANY, ModelArgs, PiecesArg, TextArgs, TextsArgs, number};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 score --model demo \"Once upon a time there was a king.\"
  gpt2 score --model demo --context \"Once upon a\" \" time\"
  gpt2 score --model demo --context \"The king had a\" --candidate \" son\" --candidate \" sun\"
  gpt2 score --model demo --bos --words \"Once upon a time\"
  gpt2 score --file book.txt --stride 256 --window 512 --html book.html
  gpt2 score --file book.txt --rolling
  gpt2 score --lines sentences.txt --bos --words --format tsv > words.tsv
  gpt2 score --input texts.jsonl --output scores.jsonl --resume")]
pub struct ScoreArgs {
    #[command(flatten)]
    pub text: TextArgs,
    /// A text that comes before and is not scored itself
    ///
    /// Tokens are those of both together. White space at its end goes to the text, and an empty context is <|endoftext|>, as
    /// in lm-evaluation-harness. With --input: that of rows without their own.
    #[arg(long, value_name = "TEXT", help_heading = "Text")]
    pub context: Option<String>,
    /// Compare several after the context, in place of a text
    ///
    /// Repeatable. The context runs once. With --input: those of rows without their own, and without a text.
    #[arg(long, value_name = "TEXT", help_heading = "Text", conflicts_with_all = ["positional", "prompt", "file", "ids", "lines"])]
    pub candidate: Vec<String>,
    /// Also score <|endoftext|> after the text
    #[arg(long, help_heading = "Text")]
    pub eos: bool,
    /// Slide a window in steps of S tokens
    ///
    /// As in transformers' perplexity guide; without it the text must fit the context.
    #[arg(long, value_name = "S", help_heading = "Protocol", value_parser = number::whole::<usize>(1..))]
    pub stride: Option<usize>,
    /// Score every token once, in windows that follow each other
    ///
    /// As loglikelihood_rolling in lm-evaluation-harness: the first token is scored after <|endoftext|>.
    #[arg(long, help_heading = "Protocol")]
    pub rolling: bool,
    /// Tokens in a window of --stride or --rolling [default: the model's context]
    #[arg(long, value_name = "C", help_heading = "Protocol", value_parser = number::whole::<usize>(1..))]
    pub window: Option<usize>,
    #[command(flatten)]
    pub interventions: InterventionArgs,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub batch: ScoreBatchArgs,
    /// Surprisal of each word, as white space separates them
    #[arg(long, help_heading = "Output")]
    pub words: bool,
    /// What is added to the sum of a word's tokens: bow (default), none
    #[arg(long, value_name = "HOW", value_enum, hide_possible_values = true, help_heading = "Output")]
    pub word_correction: Option<WordCorrection>,
    /// Entropy of the distribution in each place
    #[arg(long, help_heading = "Output")]
    pub entropy: bool,
    /// The K most probable tokens in each place
    #[arg(long, value_name = "K", help_heading = "Output", value_parser = number::whole::<usize>(0..))]
    pub logprobs: Option<usize>,
    /// Also write a page for the browser
    ///
    /// It shows the scores and the expected tokens over the text.
    #[arg(long, value_name = "F.html", conflicts_with = MANY, help_heading = "Output")]
    pub html: Option<PathBuf>,
    #[command(flatten)]
    pub pieces: PiecesArg,
    /// text, json, jsonl or tsv
    ///
    /// How to write the result; `text` lists every token (on a terminal, those of a long text with -v), `tsv` is a table of
    /// all tokens, or words with --words, for R and pandas.
    #[arg(long, value_enum, help_heading = "Output")]
    pub format: Option<ScoreFormat>,
}

/// How scores are written to stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ScoreFormat {
    /// For people
    Text,
    /// One JSON document
    Json,
    /// One JSON object per line
    Jsonl,
    /// A table with a line for each token or word
    Tsv,
}

/// What is added to the sum of the log-probabilities of a word's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum WordCorrection {
    /// Nothing
    None,
    /// That a word begins after it, minus that one begins before it (Pimentel and Meister 2024)
    #[default]
    Bow,
}

/// Many texts from a file.
#[derive(Debug, Args)]
#[command(next_help_heading = "Batch")]
pub struct ScoreBatchArgs {
    #[command(flatten)]
    pub texts: TextsArgs,
    /// Texts to process at the same time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = number::whole::<usize>(1..=4096))]
    pub batch_size: usize,
}

impl ScoreArgs {
    /// The format of records; none for text and tables.
    pub fn record_format(&self) -> Option<Format> {
        match self.format {
            Some(ScoreFormat::Json) => Some(Format::Json),
            Some(ScoreFormat::Jsonl) => Some(Format::Jsonl),
            Some(ScoreFormat::Text | ScoreFormat::Tsv) | None => None,
        }
    }

    pub fn is_table(&self) -> bool {
        self.format == Some(ScoreFormat::Tsv)
    }

    /// Which correction of words is asked for.
    pub fn correction(&self) -> WordCorrection {
        self.word_correction.unwrap_or_default()
    }
}
