//! Flags that change what happens inside the network.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueHint};
use gpt2::analysis::interventions::Ablation;

/// Interventions, for all that a subcommand runs.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Interventions")]
pub struct InterventionArgs {
    /// Take out a head (L.H), attention (L.attn) or an MLP (L.mlp)
    ///
    /// Repeatable. Its output becomes zero or, with =mean after it, its mean over the positions of the unchanged run: those
    /// of the prompt (also for tokens that follow), of the text of trace, and of each window of score with its context.
    #[arg(long, value_name = "SPEC")]
    pub ablate: Vec<Ablation>,
    /// Add a vector after block L, SCALE times: F@L*SCALE
    ///
    /// Repeatable. F is a safetensors file with one vector; or a GGUF of llama.cpp's control vectors, which are added after
    /// their own blocks, or with @L only that of block L. Blocks count from 0; without *SCALE it is 1.
    #[arg(long, value_name = "F[@L][*SCALE]", value_hint = ValueHint::FilePath)]
    pub steer: Vec<SteerFile>,
    /// Steer from texts instead of a file: towards this one
    ///
    /// Repeatable, each with its own --steer-against.
    #[arg(long, value_name = "TEXT")]
    pub steer_from: Vec<String>,
    /// and away from this one: "TEXT"@L*SCALE
    ///
    /// The vector is the difference of what the residual stream holds after block L at the last token of each text.
    #[arg(long, value_name = "TEXT@L")]
    pub steer_against: Vec<SteerAgainst>,
}

/// The value of `--steer`.
#[derive(Debug, Clone, PartialEq)]
pub struct SteerFile {
    pub file: PathBuf,
    pub layer: Option<usize>,
    pub scale: f64,
}

/// The value of `--steer-against`.
#[derive(Debug, Clone, PartialEq)]
pub struct SteerAgainst {
    pub text: String,
    pub layer: usize,
    pub scale: f64,
}

impl FromStr for SteerFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, scale) = with_scale(text)?;
        let (file, layer) = with_layer(rest)?;
        if file.is_empty() {
            return Err(format!("takes a file, with @L for its block, not {text}"));
        }
        Ok(Self { file: file.into(), layer, scale })
    }
}

impl FromStr for SteerAgainst {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = |example: &str| format!("takes a text with its block at the end, as in {example}");
        let (own, end) = text.rsplit_once('@').ok_or_else(|| expected(&format!("{text}@3")))?;
        let (layer, scale) = with_scale(end)?;
        let layer = layer.parse().map_err(|_| expected(&format!("@3 or @3*1.5, not @{end}")))?;
        Ok(Self { text: own.to_owned(), layer, scale })
    }
}

/// What stands before `*SCALE`, and the scale. A star within a name is no scale's.
fn with_scale(text: &str) -> Result<(&str, f64), String> {
    let Some((rest, scale)) = text.rsplit_once('*').filter(|(_, end)| is_meant_as_number(end)) else {
        return Ok((text, 1.0));
    };
    let number = scale.parse().ok().filter(|scale: &f64| (*scale as f32).is_finite());
    Ok((rest, number.ok_or_else(|| format!("takes a finite number as its scale, not *{scale}"))?))
}

/// What stands before `@L`, and the layer.
fn with_layer(text: &str) -> Result<(&str, Option<usize>), String> {
    let Some((rest, layer)) = text.rsplit_once('@').filter(|(_, end)| is_meant_as_number(end)) else {
        return Ok((text, None));
    };
    let number = layer.parse().map_err(|_| format!("takes a whole number as its block, not @{layer}"))?;
    Ok((rest, Some(number)))
}

/// Whether the end of a value is no part of a file's name.
fn is_meant_as_number(end: &str) -> bool {
    end.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) && !end.contains(['/', '\\'])
        || !end.contains(['/', '\\', '.'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (String, Option<usize>, f64) {
        let SteerFile { file, layer, scale } = text.parse().unwrap();
        (file.display().to_string(), layer, scale)
    }

    #[test]
    fn layer_and_scale_stand_at_the_end() {
        for (text, name, layer, scale) in [
            ("v.safetensors@3", "v.safetensors", Some(3), 1.0),
            ("v.safetensors@3*1.5", "v.safetensors", Some(3), 1.5),
            ("v.gguf*-2", "v.gguf", None, -2.0),
            ("v.gguf", "v.gguf", None, 1.0),
            ("v@1@10*1e-3", "v@1", Some(10), 1e-3),
            ("me@home/v.gguf", "me@home/v.gguf", None, 1.0),
            ("a*b/v.gguf@2*0", "a*b/v.gguf", Some(2), 0.0),
            ("vectors@2/v", "vectors@2/v", None, 1.0),
            ("C:\\vectors@2\\v", "C:\\vectors@2\\v", None, 1.0),
        ] {
            assert_eq!(file(text), (name.to_owned(), layer, scale), "{text}");
        }
        for text in ["v@", "v@x", "v@-1", "v@1.5", "v@1*", "v@1*x", "v@1*inf", "v@1*nan", "v@1*1e39", "@1", "", "*2"] {
            assert!(text.parse::<SteerFile>().unwrap_err().starts_with("takes a "), "{text}");
        }
    }

    #[test]
    fn the_last_at_sign_of_a_text_is_that_of_its_block() {
        let against: SteerAgainst = "a@b * c@3*-1.5".parse().unwrap();
        assert_eq!(against, SteerAgainst { text: "a@b * c".into(), layer: 3, scale: -1.5 });
        for text in ["Hate", "Hate@", "Hate@x", "Hate@1.0", "a@b.c"] {
            assert!(text.parse::<SteerAgainst>().unwrap_err().starts_with("takes a text with its block"), "{text}");
        }
        assert!("Hate@1*x".parse::<SteerAgainst>().is_err());
    }
}
