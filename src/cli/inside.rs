//! What `gpt2 trace` says about heads and components: flags of attribution and of known behaviours.

use clap::Args;

use super::number;

/// Direct logit attribution.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "View")]
pub struct AttributionArgs {
    /// What made the logit of this token
    ///
    /// Direct logit attribution: the shares of heads, MLPs, embeddings and biases, which add up, with the scale of the last
    /// norm as it was in the run. TOKEN is a text that is one token, or id:N.
    #[arg(long, value_name = "TOKEN")]
    pub attribute: Option<String>,
    /// With --attribute: minus the logit of this token
    #[arg(long, value_name = "TOKEN")]
    pub against: Option<String>,
    /// With --attribute: after this position, not the last; negative numbers count from the end
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = number::signed)]
    pub position: Option<i64>,
}

/// Heads that do something known.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "View")]
pub struct HeadsArgs {
    /// Heads that look at known places, as for induction
    ///
    /// How much each head attends as previous-token, duplicate-token and induction heads do: on a random sequence, twice,
    /// after <|endoftext|>, or on the text, if one is given (on stdin as `-`). Scores are those of TransformerLens's head detector: the share of
    /// a head's attention that is where such a head would look.
    #[arg(long)]
    #[arg(conflicts_with_all = ["attribute", "hidden", "attention", "lens", "layer", "head", "shapes", "html", "save", "repeat"])]
    pub heads: bool,
    /// With --heads: how many tokens the random sequence has: 50, unless the context has room for fewer
    #[arg(long, value_name = "N", value_parser = number::whole::<usize>(1..))]
    pub length: Option<usize>,
    /// With --heads: which random sequence; it depends on nothing else [default: 0]
    #[arg(long, value_name = "N", value_parser = number::whole::<u64>(0..))]
    pub seed: Option<u64>,
}
