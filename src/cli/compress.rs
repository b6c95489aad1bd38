//! The flags of `gpt2 compress` and `gpt2 decompress`.

use std::path::PathBuf;

use clap::Args;

use super::{Format, ModelArgs, RawTextArg, files, number};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 compress --model demo book.txt -o book.gpt2z
  cat book.txt | gpt2 compress --model gpt2 --quantize q8_0 > book.gpt2z
  gpt2 decompress book.gpt2z -o book.txt

Any bytes come back as they were. Decompression needs the same model, and takes longer.")]
pub struct CompressArgs {
    /// The file to compress; - or nothing: stdin
    #[arg(value_name = "F", help_heading = None)]
    pub file: Option<PathBuf>,
    /// The file to write [default: stdout]
    #[arg(short, long, value_name = "F.gpt2z", help_heading = "Output", value_parser = files::output())]
    pub output: Option<PathBuf>,
    /// Tokens that the model sees at most [default: its context]
    #[arg(long, value_name = "C", help_heading = "Protocol", value_parser = number::whole::<usize>(2..))]
    pub window: Option<usize>,
    /// Slide the window in steps of S tokens [default: half of it]
    ///
    /// Smaller steps give every token more context: smaller files, in more time.
    #[arg(long, value_name = "S", help_heading = "Protocol", value_parser = number::whole::<usize>(1..))]
    pub stride: Option<usize>,
    #[command(flatten)]
    pub model: ModelArgs,
    /// text, json or jsonl
    ///
    /// The report is a line on stderr; json or jsonl, beside --output, writes it to stdout as well.
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 decompress book.gpt2z -o book.txt
  gpt2 decompress book.gpt2z | less
  gpt2 decompress --model ./my-model book.gpt2z > book.txt

The file tells the model; one that is not built in or in the cache has to be given.")]
pub struct DecompressArgs {
    /// The file to decompress; - or nothing: stdin
    #[arg(value_name = "F.gpt2z", help_heading = None)]
    pub file: Option<PathBuf>,
    /// The file to write [default: stdout]
    #[arg(short, long, value_name = "F", help_heading = "Output", value_parser = files::output())]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub raw_text: RawTextArg,
    /// text, json or jsonl
    ///
    /// The report is a line on stderr; json or jsonl, beside --output, writes it to stdout as well.
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: Format,
}
