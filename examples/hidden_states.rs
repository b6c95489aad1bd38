//! The hidden states of a prompt, and what each layer would say next (the logit lens):
//! `cargo run --release --example hidden_states`

use gpt2::analysis::activations::Activations;
use gpt2::logits::top_k;
use gpt2::model::{select_rows, to_host};
use gpt2::pipeline::Pipeline;

fn main() -> gpt2::Result<()> {
    let pipeline = Pipeline::from_pretrained("demo")?;
    let (model, ids) = (&pipeline.model, pipeline.prompt_ids("Once upon a", true)?);
    // No attention is recorded: no layer's index is in 0..0.
    let activations = Activations::record(model, &ids, 0..0)?;
    for state in &activations.hidden {
        // (T, C) -> (1, C): the last position.
        let last = select_rows(&state.tensor, &[ids.len() as u32 - 1])?;
        // The last state is already normalised.
        let normalised = if state.name == "final" { last } else { model.final_norm(&last)? };
        let (id, _) = top_k(&to_host(&model.logits(&normalised)?)?, 1)[0];
        println!(
            "{:16} {:?} {:?}",
            state.name,
            state.tensor.dims(),
            pipeline.token_text(id as u32).unwrap_or_default()
        );
    }
    Ok(())
}
