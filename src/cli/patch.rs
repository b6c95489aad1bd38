//! The flags of `gpt2 patch`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::TypedValueParser;
use gpt2::analysis::patching::Over;

use super::model::one_of;
use super::{Format, ModelArgs, PiecesArg, Prompt, TextArgs, Theme, flag_ids};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 patch --clean \"Anna had a cat. Anna\" --corrupt \"Anna had a dog. Anna\" --answer \" cat\" --against \" dog\"
  gpt2 patch --clean TEXT --corrupt TEXT --answer \" cat\" --against \" dog\" --over heads
  gpt2 patch --clean TEXT --corrupt TEXT --answer \" cat\" --against \" dog\" --svg patch.svg")]
#[command(next_help_heading = "Prompts")]
pub struct PatchArgs {
    /// The prompt that leads to the answer
    #[arg(long, value_name = "TEXT", required_unless_present = "clean_ids")]
    pub clean: Option<String>,
    /// One of as many tokens that does not
    #[arg(long, value_name = "TEXT", required_unless_present = "corrupt_ids")]
    pub corrupt: Option<String>,
    /// The clean prompt as token ids
    #[arg(long, value_name = "IDS", conflicts_with = "clean")]
    pub clean_ids: Option<String>,
    /// The corrupt prompt as token ids
    #[arg(long, value_name = "IDS", conflicts_with = "corrupt")]
    pub corrupt_ids: Option<String>,
    /// The token that the clean prompt leads to: its text, or id:N
    #[arg(long, value_name = "TOKEN")]
    pub answer: String,
    /// The token that its logit is compared with: its text, or id:N
    #[arg(long, value_name = "TOKEN")]
    pub against: String,
    /// Put <|endoftext|> before both prompts, unless the tokenizer puts its own start of text there
    #[arg(long)]
    pub bos: bool,
    /// Take <|endoftext|> and other special tokens in the prompts as ordinary text
    #[arg(long)]
    pub no_special: bool,
    /// What is patched: resid_pre, attn_out, mlp_out or heads
    #[arg(long, value_name = "WHAT", default_value = "resid_pre", value_parser = over(), help_heading = "View")]
    pub over: Over,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Draw the heat map as a picture, SVG or PNG
    #[arg(long, value_name = "F.svg", help_heading = "Output")]
    pub svg: Option<PathBuf>,
    /// The picture's colours: light, dark or auto
    ///
    /// For a light background, a dark one, or as the viewer prefers.
    #[arg(long, value_enum, default_value_t, requires = "svg", help_heading = "Output")]
    pub theme: Theme,
    /// Write the heat map as a page for the browser
    #[arg(long, value_name = "F.html", help_heading = "Output")]
    pub html: Option<PathBuf>,
    #[command(flatten)]
    pub pieces: PiecesArg,
    /// text, json or jsonl
    #[arg(long, value_enum, default_value_t, hide_default_value = true, help_heading = "Output")]
    pub format: Format,
}

impl PatchArgs {
    /// The clean and the corrupt prompt.
    ///
    /// # Errors
    /// If ids are no numbers.
    pub fn prompts(&self) -> anyhow::Result<[Prompt; 2]> {
        let prompt = |text: &Option<String>, ids: &Option<String>, flag| match ids {
            Some(ids) => Ok(Prompt::Ids(flag_ids(ids, flag)?)),
            None => anyhow::Ok(Prompt::Text(text.clone().unwrap_or_default())),
        };
        Ok([
            prompt(&self.clean, &self.clean_ids, "--clean-ids")?,
            prompt(&self.corrupt, &self.corrupt_ids, "--corrupt-ids")?,
        ])
    }

    /// The flags about texts.
    pub fn text(&self) -> TextArgs {
        TextArgs { bos: self.bos, no_special: self.no_special, ..TextArgs::default() }
    }
}

fn over() -> impl TypedValueParser<Value = Over> {
    let help = |over| match over {
        Over::ResidPre => "the residual stream before each block, at each position",
        Over::AttnOut => "what attention adds to it, at each position",
        Over::MlpOut => "what the MLP adds to it, at each position",
        Over::Heads => "the output of each head, at all positions",
    };
    one_of(Over::ALL.map(|over| (over.name(), help(over), over)))
}
