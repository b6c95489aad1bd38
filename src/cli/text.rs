//! Text and ids from flags, files and stdin.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use gpt2::decode::parse_ids;
use gpt2::{Error, memory};

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Text")]
pub struct TextArgs {
    /// The text; read from stdin if none is given and stdin is not a terminal
    #[arg(value_name = "TEXT")]
    pub positional: Option<String>,
    /// The text
    #[arg(short, long, value_name = "TEXT", conflicts_with = "positional")]
    pub prompt: Option<String>,
    /// Read the text from a file
    #[arg(long, value_name = "F", conflicts_with_all = ["positional", "prompt"])]
    pub file: Option<PathBuf>,
    /// Token ids instead of text, such as "464 4583"; needs no tokenizer
    #[arg(long, value_name = "IDS", conflicts_with_all = ["positional", "prompt", "file"], allow_hyphen_values = true)]
    pub ids: Option<String>,
    /// Put <|endoftext|> before the text, unless the tokenizer puts its own start of text there
    #[arg(long)]
    pub bos: bool,
    /// Take <|endoftext|> and other special tokens in the text as ordinary text
    #[arg(long)]
    pub no_special: bool,
}

/// The input of a subcommand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// Text, still to be tokenized.
    Text(String),
    /// Token ids.
    Ids(Vec<u32>),
}

impl TextArgs {
    /// Gets the prompt from the source that the flags name.
    ///
    /// # Errors
    /// If a file cannot be read, the text is not UTF-8, an id is not a number, or nothing was given.
    pub fn prompt(&self) -> anyhow::Result<Prompt> {
        if let Some(ids) = &self.ids {
            return Ok(Prompt::Ids(flag_ids(ids, "--ids")?));
        }
        if let Some(text) = self.positional.as_ref().or(self.prompt.as_ref()) {
            return Ok(Prompt::Text(text.clone()));
        }
        read_text(self.file.as_deref()).map(Prompt::Text)
    }
}

/// Reads text from a file, or from stdin if there is none; a terminal on stdin is a usage error.
///
/// # Errors
/// If it cannot be read or is not UTF-8.
pub fn read_text(file: Option<&Path>) -> anyhow::Result<String> {
    let (bytes, name) = match file {
        Some(path) => {
            let name = path.display().to_string();
            let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
            (read_limited(file, &name)?, name)
        }
        None => {
            let stdin = std::io::stdin().lock();
            if stdin.is_terminal() {
                return Err(Error::Usage("no text: give it as an argument, with --file, or on stdin".into()).into());
            }
            (read_limited(stdin, "stdin")?, "stdin".to_owned())
        }
    };
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        anyhow::anyhow!("{name} is not UTF-8: invalid byte at offset {at}")
    })
}

/// Reads to the end, or fails if the text is so long that its tokens would not fit into memory.
fn read_limited(reader: impl Read, name: &str) -> anyhow::Result<Vec<u8>> {
    /// Bytes of memory that a byte of text can take: it may become a token, which is held several times over.
    const PER_BYTE: u64 = 64;
    let limit = memory::available().map_or(1 << 30, |available| available.bytes / PER_BYTE);
    let mut bytes = vec![];
    reader.take(limit + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {name}"))?;
    if bytes.len() as u64 > limit {
        anyhow::bail!("{name} has more than {limit} bytes, too many for the available memory; split the text");
    }
    Ok(bytes)
}

/// Token ids given with `flag`, separated by spaces or commas.
///
/// # Errors
/// A usage error that names the flag and the part that is not a token id.
pub fn flag_ids(text: &str, flag: &str) -> Result<Vec<u32>, Error> {
    parse_ids(text).map_err(|error| Error::Usage(format!("{flag}: {error}")))
}
