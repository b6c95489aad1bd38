//! The record of `--shapes`: what a course prints of a batch.

use anyhow::Result;
use gpt2::config::Config;
use gpt2::error::tokens_text;
use serde::Serialize;

use super::{Stdout, Style};

/// The shapes of what goes through the network, with the axis of the batch.
#[derive(Debug, Serialize)]
pub struct ShapesRecord {
    /// The model's name.
    pub model: String,
    /// `B`, how many texts.
    pub texts: usize,
    /// The tokens of each text, without padding.
    pub tokens: Vec<usize>,
    /// The side on which shorter texts are padded, as transformers' tokenizer of GPT-2 does it: `right`; null if all have
    /// the same length.
    pub padding: Option<&'static str>,
    /// What they are padded with, the end of text; null without padding, or if the model has no end of text.
    pub pad_token_id: Option<u32>,
    /// The shapes, by name.
    pub shapes: Shapes,
    /// How many there are of each that there are several of.
    pub counts: Counts,
}

/// Shapes as transformers has them.
#[derive(Debug, Serialize)]
pub struct Shapes {
    /// `[B, T]`.
    pub ids: [usize; 2],
    /// `[B, T, C]`.
    pub hidden_states: [usize; 3],
    /// `[B, H, T, T]`.
    pub attention: [usize; 4],
    /// `[B, T, V]`.
    pub logits: [usize; 3],
}

/// How many there are.
#[derive(Debug, Serialize)]
pub struct Counts {
    /// After the embedding and after every block, the last one after the final norm.
    pub hidden_states: usize,
    /// One for each block.
    pub attention: usize,
}

impl ShapesRecord {
    /// The shapes of a batch of texts of so many `tokens`, of which there is at least one, in a model with this
    /// configuration. `end` is its end of text.
    pub fn new(model: &str, tokens: Vec<usize>, config: &Config, end: Option<u32>) -> Self {
        let (b, t) = (tokens.len(), tokens.iter().copied().max().unwrap_or_default());
        let is_padded = tokens.iter().any(|tokens| *tokens < t);
        Self {
            model: model.to_owned(),
            texts: b,
            padding: is_padded.then_some("right"),
            pad_token_id: end.filter(|_| is_padded),
            tokens,
            shapes: Shapes {
                ids: [b, t],
                hidden_states: [b, t, config.n_embd],
                attention: [b, config.n_head, t, t],
                logits: [b, t, config.vocab_size],
            },
            counts: Counts { hidden_states: config.n_layer + 1, attention: config.n_layer },
        }
    }

    /// A line for each, as PyTorch writes shapes; `pad` is the name of the token that pads.
    pub fn write_text(&self, pad: &str, out: &mut Stdout) -> Result<()> {
        let shape = |shape: &[usize]| {
            let axes: Vec<String> = shape.iter().map(usize::to_string).collect();
            format!("({})", axes.join(", "))
        };
        let Self { shapes, counts, .. } = self;
        let texts = if self.texts == 1 { "1 text".to_owned() } else { format!("{} texts", self.texts) };
        let (least, most) = (self.tokens.iter().min().copied().unwrap_or_default(), shapes.ids[1]);
        let lengths = match self.padding {
            None => format!("{texts} of {}", tokens_text(most)),
            Some(side) => format!("{least} to {most} tokens, padded {side} ({pad})"),
        };
        let lines = [
            ("ids", shape(&shapes.ids), lengths),
            (
                "hidden states",
                shape(&shapes.hidden_states),
                format!("{}: embedding, each block, the last with ln_f", counts.hidden_states),
            ),
            ("attention", shape(&shapes.attention), format!("{}: one for each block", counts.attention)),
            ("logits", shape(&shapes.logits), String::new()),
        ];
        let widest = lines.iter().map(|(_, shape, _)| shape.len()).max().unwrap_or_default();
        let (bold, dim) = (Style::new().bold(), Style::new().dimmed());
        for (name, shape, note) in lines {
            if note.is_empty() {
                writeln!(out, "{name:<13}  {bold}{shape}{bold:#}")?;
            } else {
                writeln!(out, "{name:<13}  {bold}{shape:<widest$}{bold:#}  {dim}{note}{dim:#}")?;
            }
        }
        Ok(())
    }
}
