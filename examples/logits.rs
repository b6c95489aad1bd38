//! The logits after a prompt, and the most probable next tokens: `cargo run --release --example logits`

use gpt2::language_model::{Input, LanguageModel};
use gpt2::logits::{softmax, top_k};
use gpt2::model::Session;
use gpt2::pipeline::Pipeline;

fn main() -> gpt2::Result<()> {
    let pipeline = Pipeline::from_pretrained("demo")?;
    let ids = pipeline.prompt_ids("Once upon a", true)?;
    let mut session = Session::new(&pipeline.model);
    // The row keeps its past: the next call gives only new ids.
    let logits = session.forward(&[Input::logits(0, &ids)])?.logits;
    let mut probs = vec![];
    softmax(&logits, &mut probs);
    for (id, prob) in top_k(&probs, 5) {
        println!("{:8.5} {prob:7.4} {:?}", logits[id], pipeline.token_text(id as u32).unwrap_or_default());
    }
    Ok(())
}
