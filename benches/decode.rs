//! The cost of decoding without the network: processors and strategies over a vocabulary of GPT-2's size.

#![allow(clippy::disallowed_methods, reason = "speed alone")]

use std::sync::Arc;

use divan::{Bencher, black_box};
use gpt2::Result;
use gpt2::decode::{Detokenize, Engine, GenerationConfig, NoText, Vocabulary, generate};
use gpt2::language_model::{Input, LanguageModel, Output, Positions};
use gpt2::logits::{self, Top};
use gpt2::tokenizer::Tokenizer;

const VOCAB: usize = 50257;

fn main() {
    divan::main();
}

/// Logits shaped like a language model's: a long tail and a few high ones.
fn logits() -> Vec<f32> {
    let mut state = 1_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    (0..VOCAB).map(|_| -60.0 + 4.0 * (uniform() + uniform() + uniform() + uniform()) - 2.5 * uniform().ln()).collect()
}

/// A model that only hands out logits.
struct Instant {
    logits: Vec<f32>,
    rows: Vec<usize>,
}

impl LanguageModel for Instant {
    fn vocab_size(&self) -> usize {
        VOCAB
    }

    fn n_positions(&self) -> usize {
        1 << 40
    }

    fn len(&self, row: usize) -> usize {
        self.rows[row]
    }

    fn forward(&mut self, inputs: &[Input<'_>]) -> Result<Output> {
        let wanted = |positions: fn(&Input<'_>) -> Positions| {
            inputs.iter().filter(|input| positions(input) != Positions::None).count()
        };
        let (logits, best) = (wanted(|input| input.logits), wanted(|input| input.best));
        let top = inputs.iter().map(|input| input.top).filter(|k| *k > 0).map(|k| Top::of(&self.logits, k)).collect();
        Ok(Output { logits: self.logits.repeat(logits), best: vec![Some(11); best], top, ..Output::default() })
    }

    fn truncate(&mut self, _: usize, _: usize) {}

    fn assign(&mut self, _: &[(usize, usize)]) {}
}

fn config(name: &str) -> GenerationConfig {
    let base = GenerationConfig { max_new_tokens: usize::MAX, seed: Some(1), ..GenerationConfig::default() };
    match name {
        "greedy" => base,
        "sample" => GenerationConfig { sample: true, ..base },
        "top_k 50" => GenerationConfig { top_k: Some(50), ..base },
        "top_p 0.9" => GenerationConfig { top_p: Some(0.9), ..base },
        "typical_p 0.9" => GenerationConfig { typical_p: Some(0.9), ..base },
        "min_p 0.05" => GenerationConfig { min_p: Some(0.05), ..base },
        "eta 0.001" => GenerationConfig { eta_cutoff: Some(0.001), ..base },
        "top_h 0.5" => GenerationConfig { top_h: Some(0.5), ..base },
        "guidance" => GenerationConfig { guidance_scale: Some(1.5), ..base },
        "repetition" => GenerationConfig { repetition_penalty: 1.2, no_repeat_ngram_size: 3, ..base },
        "4 beams" => GenerationConfig { num_beams: 4, ..base },
        "4 beams sampled" => GenerationConfig { num_beams: 4, sample: true, ..base },
        "4 beams in 2 groups" => {
            GenerationConfig { num_beams: 4, num_beam_groups: 2, diversity_penalty: Some(1.0), ..base }
        }
        other => panic!("{other}"),
    }
}

/// One step of a strategy: everything between two passes of the network, plus copying the logits.
#[divan::bench(args = ["greedy", "sample", "top_k 50", "top_p 0.9", "min_p 0.05", "typical_p 0.9", "eta 0.001",
    "top_h 0.5", "guidance", "repetition", "4 beams", "4 beams sampled", "4 beams in 2 groups"])]
fn step(bencher: Bencher<'_, '_>, name: &str) {
    let mut model = Instant { logits: logits(), rows: vec![0; 8] };
    let mut engine = Engine::new(&mut model, &NoText);
    engine.submit(&[1; 500], &Arc::new(config(name).validate().expect("valid"))).expect("runs");
    engine.step().expect("the prompt");
    bencher.bench_local(|| engine.step().expect("a step"));
}

/// GPT-2's tokens.
struct Gpt2(Tokenizer);

impl Detokenize for Gpt2 {
    fn token_bytes(&self, id: u32) -> &[u8] {
        if self.0.is_special(id) { &[] } else { self.0.bytes(id).unwrap_or_default() }
    }
}

/// What a text has to be, by name; the first says nothing.
fn constrained(name: &str) -> GenerationConfig {
    let (regex, json, grammar) = match name {
        "none" => (None, None, None),
        "any text" => (Some("(?s).*"), None, None),
        "words" => (Some("([A-Za-z]+[ ,.;])*"), None, None),
        "digits" => (Some("[0-9]*"), None, None),
        // A place of its own for every letter.
        "counted" => (Some("[a-z ]{1,2000}"), None, None),
        "record" => (Some(r#"\{"name": "[A-Za-z ]{1,2000}", "age": [0-9]+\}"#), None, None),
        "one of" => (Some("((red|green|blue|white|black), )*"), None, None),
        "json" => (None, Some(r#"{"type": "array", "items": {"type": "string"}}"#), None),
        "grammar" => (None, None, Some("start: (word sep)+\nword: /[A-Za-z]+/\nsep: \" \" | \", \" | \". \"")),
        other => panic!("{other}"),
    };
    GenerationConfig {
        max_new_tokens: CONSTRAINED,
        sample: true,
        seed: Some(1),
        ignore_eos: true,
        regex: regex.map(str::to_owned),
        json_schema: json.map(|json| serde_json::from_str(json).expect("JSON")),
        grammar: grammar.map(str::to_owned),
        ..GenerationConfig::default()
    }
}

/// The tokens that a request with a constraint generates.
const CONSTRAINED: usize = 200;

/// [`CONSTRAINED`] tokens, drawn, without the time to compile the constraint.
#[divan::bench(args = ["none", "any text", "words", "digits", "counted", "record", "one of", "json", "grammar"], max_time = 5)]
fn constraint(bencher: Bencher<'_, '_>, name: &str) {
    let text = Gpt2(Tokenizer::gpt2());
    let vocabulary = Vocabulary::new(VOCAB, &text).expect("GPT-2's");
    let decoding = || {
        let mut config = constrained(name);
        config.compile(|| Some(Ok(&vocabulary))).expect("compiles");
        Arc::new(config.validate().expect("valid"))
    };
    bencher.with_inputs(decoding).bench_local_values(|decoding| {
        let mut model = Instant { logits: logits(), rows: vec![0; 8] };
        generate(&mut model, &text, &[1; 500], &decoding, |_| ()).expect("runs")
    });
}

/// Compiling a constraint.
#[divan::bench(args = ["any text", "words", "digits", "json", "grammar"])]
fn compile(bencher: Bencher<'_, '_>, name: &str) {
    let vocabulary = Vocabulary::new(VOCAB, &Gpt2(Tokenizer::gpt2())).expect("GPT-2's");
    bencher.with_inputs(|| constrained(name)).bench_local_values(|mut config| {
        config.compile(|| Some(Ok(&vocabulary))).expect("compiles");
    });
}

/// Preparing a vocabulary for constraints.
#[divan::bench]
fn vocabulary(bencher: Bencher<'_, '_>) {
    let text = Gpt2(Tokenizer::gpt2());
    bencher.bench_local(|| Vocabulary::new(VOCAB, black_box(&text)).expect("GPT-2's"));
}

/// Copying one row of logits, which is part of every step above.
#[divan::bench]
fn copy(bencher: Bencher<'_, '_>) {
    let logits = logits();
    bencher.bench_local(|| black_box(&logits).clone());
}

#[divan::bench]
fn log_softmax(bencher: Bencher<'_, '_>) {
    let mut logits = logits();
    bencher.bench_local(|| logits::log_softmax(black_box(&mut logits)));
}

#[divan::bench]
fn softmax(bencher: Bencher<'_, '_>) {
    let (logits, mut probs) = (logits(), vec![]);
    bencher.bench_local(|| logits::softmax(black_box(&logits), &mut probs));
}

#[divan::bench(args = [1, 8, 50, 1000])]
fn top_k(bencher: Bencher<'_, '_>, k: usize) {
    let logits = logits();
    bencher.bench_local(|| logits::top_k(black_box(&logits), k));
}
