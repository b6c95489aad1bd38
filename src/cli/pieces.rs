//! The flag for the vocabulary's own spelling of tokens.

use clap::Args;
use gpt2::Error;

/// How tokens are written for people.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Output")]
pub struct PiecesArg {
    /// Write tokens as the vocabulary spells them (Ġtheory), not as quoted text (" theory")
    #[arg(long)]
    pub pieces: bool,
}

impl PiecesArg {
    /// Checks that there is text for people, without which the flag would mean nothing.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is none.
    pub fn check(self, is_text: bool) -> Result<(), Error> {
        match self.pieces && !is_text {
            true => Err(Error::Usage("--pieces is about --format text: JSON has ids and texts of tokens".into())),
            false => Ok(()),
        }
    }
}
