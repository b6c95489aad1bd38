//! Text and ids from flags, files and stdin.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use gpt2::decode::parse_ids;
use gpt2::files::{is_utf16, without_byte_order_mark};
use gpt2::{Error, memory};

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Text")]
pub struct TextArgs {
    /// The text, in quotes; - or nothing: stdin
    ///
    /// Without a text, stdin is read if it is not a terminal.
    #[arg(value_name = "TEXT", help_heading = None)]
    pub positional: Option<String>,
    /// The text
    #[arg(short, long, value_name = "TEXT", conflicts_with = "positional")]
    pub prompt: Option<String>,
    /// Read the text from a file; - for stdin
    #[arg(long, value_name = "F", conflicts_with_all = ["positional", "prompt"])]
    pub file: Option<PathBuf>,
    /// Token ids instead of text, such as "464 4583" or "[464, 4583]"; needs no tokenizer
    #[arg(long, value_name = "IDS", conflicts_with_all = ["positional", "prompt", "file"])]
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
        self.read(false)
    }

    /// As [`prompt`](Self::prompt), but drops the line break that ends a text on stdin, which `echo` adds and nobody wants
    /// continued.
    pub fn prompt_without_newline(&self) -> anyhow::Result<Prompt> {
        self.read(true)
    }

    /// Whether a text is given, so that stdin need not be one.
    pub fn is_given(&self) -> bool {
        self.positional.is_some() || self.prompt.is_some() || self.file.is_some() || self.ids.is_some()
    }

    /// The text, if it is the name of a file: perhaps the file was meant.
    pub fn named_file(&self) -> Option<&str> {
        let text = self.positional.as_ref().or(self.prompt.as_ref())?;
        Path::new(text).is_file().then_some(text)
    }

    fn read(&self, drop_newline: bool) -> anyhow::Result<Prompt> {
        if let Some(ids) = &self.ids {
            return Ok(Prompt::Ids(flag_ids(ids, "--ids")?));
        }
        let positional = self.positional.as_ref().filter(|text| *text != STDIN);
        if let Some(text) = positional.or(self.prompt.as_ref()) {
            return Ok(Prompt::Text(text.clone()));
        }
        let file = self.file.as_deref().or(self.positional.as_ref().map(Path::new));
        let mut text = read_text(file)?;
        if drop_newline && file.is_none_or(is_stdin) && text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        Ok(Prompt::Text(text))
    }
}

/// The error of a command without a text, with a terminal on stdin.
pub(super) const NO_TEXT: &str = "no text: give it as an argument, with --file, or on stdin";

/// What stands for stdin where a file or a text is expected.
const STDIN: &str = "-";

/// Whether the name of a file stands for stdin.
pub fn is_stdin(file: &Path) -> bool {
    file == Path::new(STDIN)
}

/// Reads text from a file or stdin (`-`, or no file), without a byte order mark. A terminal on stdin is a usage error,
/// unless stdin was asked for.
///
/// # Errors
/// If it cannot be read or is not UTF-8.
pub fn read_text(file: Option<&Path>) -> anyhow::Result<String> {
    let (mut bytes, name) = match file.filter(|file| !is_stdin(file)) {
        Some(path) => {
            let name = path.display().to_string();
            let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
            gpt2::files::protect(&file);
            (read_limited(file, &name)?, name)
        }
        None => {
            let stdin = std::io::stdin().lock();
            if file.is_none() && stdin.is_terminal() {
                return Err(Error::Usage(NO_TEXT.into()).into());
            }
            (read_limited(stdin, "stdin")?, "stdin".to_owned())
        }
    };
    if is_utf16(&bytes) {
        anyhow::bail!("{name} is UTF-16; save it as UTF-8");
    }
    let mark = bytes.len() - without_byte_order_mark(&bytes).len();
    let text = String::from_utf8(bytes.split_off(mark));
    text.map_err(|e| {
        let at = mark + e.utf8_error().valid_up_to();
        anyhow::anyhow!("{name} is not UTF-8: invalid byte at offset {at}")
    })
}

/// The longest text, in bytes, whose tokens fit into memory.
pub fn longest_text() -> u64 {
    /// Bytes of memory that a byte of text can take: it may become a token, which is held several times over.
    const PER_BYTE: u64 = 64;
    memory::available().map_or(1 << 30, |available| available.left().0 / PER_BYTE)
}

/// Reads to the end, or fails if the text is so long that its tokens would not fit into memory.
fn read_limited(reader: impl Read, name: &str) -> anyhow::Result<Vec<u8>> {
    let limit = longest_text();
    let mut bytes = vec![];
    reader.take(limit + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {name}"))?;
    if bytes.len() as u64 > limit {
        anyhow::bail!("{name} has more than {limit} bytes, too many for the available memory; split the text");
    }
    Ok(bytes)
}

/// Token ids given with `flag`, as [`parse_ids`] takes them.
///
/// # Errors
/// A usage error that names the flag and the part that is not a token id.
pub fn flag_ids(text: &str, flag: &str) -> Result<Vec<u32>, Error> {
    parse_ids(text).map_err(|error| Error::Usage(format!("{flag}: {error}")))
}
