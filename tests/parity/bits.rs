//! The same bits on every processor, with any number of threads, alone and beside others.
//!
//! `tests/fixtures/bits.json` has a hash of all that a model computes, for each checkpoint and type of weights. It is the same
//! file at every level (`GPT2_SIMD`), on every architecture, with `GPT2_TEST_THREADS` threads. `GPT2_TEST_UPDATE=1` writes it,
//! which is right only where what a model computes has changed on purpose.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Once};

use gpt2::base::{FloatType, QuantizedType, pool};
use gpt2::checkpoint::export::Export;
use gpt2::checkpoint::{Checkpoint, Format, WeightFiles};
use gpt2::config::Config;
use gpt2::decode::{Engine, Event, GenerationConfig, NoText, Sequence};
use gpt2::language_model::{Input, LanguageModel, Positions};
use gpt2::model::{Gpt2, LoadOptions, Packing, Session, WeightType};
use gpt2::source::{self, SourceOptions};
use sha2::{Digest, Sha256};

use crate::golden::{self, NAMES, fixtures, load};

const TYPES: [(&str, WeightType); 6] = [
    ("f32", WeightType::Float(FloatType::F32)),
    ("f16", WeightType::Float(FloatType::F16)),
    ("bf16", WeightType::Float(FloatType::BF16)),
    ("q8_0", WeightType::Quantized(QuantizedType::Q8_0)),
    ("q6_k", WeightType::Quantized(QuantizedType::Q6K)),
    ("q4_k", WeightType::Quantized(QuantizedType::Q4K)),
];

fn options(weights: WeightType) -> LoadOptions {
    set_threads();
    LoadOptions { weights, ..LoadOptions::default() }
}

/// As many threads as are asked for. (More than there are cores are slow, and change no bit.)
fn set_threads() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Some(threads) = std::env::var_os("GPT2_TEST_THREADS") {
            let threads = threads.to_str().and_then(|threads| threads.parse().ok()).expect("a number of threads");
            assert!(pool::set_threads(threads), "run these tests alone: other tests have started the threads");
        }
    });
}

/// What a model is asked to continue, and how: greedy, sampled, with beams, with all that needs logarithms.
fn requests() -> Vec<GenerationConfig> {
    let base = GenerationConfig { max_new_tokens: 64, logprobs: Some(2), seed: Some(7), ..GenerationConfig::default() };
    vec![
        base.clone(),
        GenerationConfig { temperature: Some(0.9), top_p: Some(0.95), ..base.clone() },
        GenerationConfig { num_beams: 3, length_penalty: Some(0.7), num_return_sequences: 2, ..base.clone() },
        GenerationConfig {
            sample: true,
            typical_p: Some(0.9),
            eta_cutoff: Some(1e-3),
            repetition_penalty: 1.3,
            num_return_sequences: 2,
            ..base.clone()
        },
        GenerationConfig { penalty_alpha: Some(0.6), top_k: Some(4), ..base },
    ]
}

/// `len` ids that have nothing to do with each other.
fn prompt(len: usize, vocab_size: usize) -> Vec<u32> {
    (0..len).map(|i| ((i * i * 7919 + 31 * i + len) % vocab_size) as u32).collect()
}

/// Runs the requests side by side, `batch` at a time.
fn generate(model: &Gpt2, requests: &[(Vec<u32>, GenerationConfig)], batch: usize) -> Vec<Vec<Sequence>> {
    let mut session = Session::new(model);
    let mut engine = Engine::new(&mut session, &NoText).with_batch_size(batch);
    for (prompt, config) in requests {
        engine.submit(prompt, &Arc::new(config.validate().unwrap())).unwrap();
    }
    let mut found = BTreeMap::new();
    while !engine.is_idle() {
        for event in engine.step().unwrap() {
            if let Event::Finished { request, result } = event {
                found.insert(request, result.unwrap());
            }
        }
    }
    found.into_values().collect()
}

/// The logits after every token of `ids`, run in row 0 beside `others`.
fn logits(model: &Gpt2, ids: &[u32], others: &[Vec<u32>]) -> Vec<f32> {
    let mut session = Session::new(model);
    let first = Input { ids, logits: Positions::All, ..Input::default() };
    let others = others.iter().zip(1..).map(|(ids, row)| Input { row, ids, ..Input::default() });
    session.forward(&[first].into_iter().chain(others).collect::<Vec<_>>()).unwrap().logits
}

#[derive(Default)]
struct Hash(Sha256);

impl Hash {
    fn numbers(&mut self, numbers: impl IntoIterator<Item = f32>) {
        numbers.into_iter().for_each(|x| self.0.update(x.to_bits().to_le_bytes()));
    }

    fn ids(&mut self, ids: &[u32]) {
        self.0.update((ids.len() as u64).to_le_bytes());
        ids.iter().for_each(|id| self.0.update(id.to_le_bytes()));
    }

    fn sequences(&mut self, sequences: &[Sequence]) {
        for sequence in sequences {
            self.ids(&sequence.ids);
            self.numbers(sequence.score);
            for token in sequence.logprobs.iter().flatten() {
                self.numbers([token.logprob]);
                token.top.iter().for_each(|(id, logprob)| {
                    self.ids(&[*id]);
                    self.numbers([*logprob]);
                });
            }
        }
    }

    fn text(self) -> String {
        self.0.finalize()[..12].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A hash of what a model computes: logits, and what each of the requests generates. Batches of other sizes must agree.
fn hash(model: &Gpt2, requests: &[GenerationConfig], batches: &[usize], what: &str) -> String {
    let (vocab_size, context) = (model.config().vocab_size, model.config().n_positions);
    let mut hash = Hash::default();
    let ids = prompt(context.min(23), vocab_size);
    let alone = logits(model, &ids, &[]);
    for others in [2, 15] {
        let others: Vec<Vec<u32>> = (1..=others).map(|i| prompt(1 + i % 9, vocab_size)).collect();
        assert!(
            logits(model, &ids, &others).iter().map(|x| x.to_bits()).eq(alone.iter().map(|x| x.to_bits())),
            "{what}"
        );
    }
    hash.numbers(alone);
    let requests: Vec<_> = requests.iter().zip(3..).map(|(c, len)| (prompt(len, vocab_size), c.clone())).collect();
    let one_by_one = generate(model, &requests, 1);
    for batch in batches {
        assert_eq!(generate(model, &requests, *batch), one_by_one, "{what}, {batch} side by side");
    }
    one_by_one.iter().for_each(|sequences| hash.sequences(sequences));
    hash.text()
}

fn file() -> PathBuf {
    fixtures().join("bits.json")
}

/// Compares hashes with the file's, or writes them.
fn check(name: &str, hashes: BTreeMap<&str, String>) {
    static WRITING: Mutex<()> = Mutex::new(());
    let read = || -> BTreeMap<String, BTreeMap<String, String>> {
        serde_json::from_str(&std::fs::read_to_string(file()).unwrap_or_else(|_| "{}".into())).unwrap()
    };
    let hashes: BTreeMap<String, String> = hashes.into_iter().map(|(key, hash)| (key.to_owned(), hash)).collect();
    if std::env::var_os("GPT2_TEST_UPDATE").is_some() {
        let _only = WRITING.lock();
        let mut all = read();
        all.insert(name.to_owned(), hashes);
        std::fs::write(file(), serde_json::to_string_pretty(&all).unwrap() + "\n").unwrap();
        return;
    }
    assert_eq!(read().get(name), Some(&hashes), "the bits of {name} at {:?}", gpt2::kernels::level());
}

#[test]
fn the_tiny_checkpoints() {
    for name in NAMES {
        let of = |(key, weights)| {
            (key, hash(&load(name, options(weights)), &requests(), &[3, 16], &format!("{name}, {key}")))
        };
        check(name, TYPES.into_iter().map(of).collect());
    }
}

#[test]
fn the_demo() {
    let opened = source::open("demo", &SourceOptions::default()).unwrap();
    let model = |weights| opened.load_network(options(weights)).unwrap();
    let of = |(key, weights)| (key, hash(&model(weights), &requests(), &[3, 16], &format!("the demo, {key}")));
    check("demo", TYPES.into_iter().map(of).collect());
}

/// The bits of the logits of a few ids, alone and beside others.
fn logit_bits(model: &Gpt2) -> Vec<u32> {
    let vocab_size = model.config().vocab_size;
    let others: Vec<Vec<u32>> = (1..4).map(|i| prompt(2 * i, vocab_size)).collect();
    logits(model, &prompt(20, vocab_size), &others).into_iter().map(f32::to_bits).collect()
}

/// Checks that a checkpoint gives the same bits packed at once, after some passes, and packed in a file.
fn check_packing(config: &Config, checkpoint: &Checkpoint, what: &str) {
    let folder = tempfile::tempdir().unwrap();
    for (key, weights) in TYPES {
        let load = |checkpoint: &Checkpoint, packing| {
            Gpt2::load(config.clone(), checkpoint, LoadOptions { packing, ..options(weights) }).unwrap()
        };
        let expected = logit_bits(&load(checkpoint, Packing::AtOnce));
        let later = load(checkpoint, Packing::Later);
        for pass in 0..7 {
            assert!(logit_bits(&later) == expected, "{what}, {key}: pass {pass}");
        }
        let dtype = match weights {
            WeightType::Float(float) => float.dtype(),
            WeightType::Quantized(kind) => kind.dtype(),
            WeightType::Stored => unreachable!("not among the types"),
        };
        // In one file, whatever the checkpoint has.
        let plain = folder.path().join("plain.safetensors");
        let packed = folder.path().join("packed.safetensors");
        let with_biases = Config { bias: true, qkv_bias: true, ..config.clone() };
        Export { checkpoint, config, dtype }.to_packed(&packed).unwrap();
        let packed = Checkpoint::open(&WeightFiles::File(packed)).unwrap();
        assert_eq!(packed.format(), Format::Packed);
        packed.check(&with_biases).unwrap();
        for packing in [Packing::AtOnce, Packing::Later] {
            let model = Gpt2::load(with_biases.clone(), &packed, LoadOptions { packing, ..options(weights) }).unwrap();
            assert!(logit_bits(&model) == expected, "{what}, {key}: a packed file");
        }
        // And unpacked again, whatever the number type.
        let export = Export { checkpoint: &packed, config: &with_biases, dtype: FloatType::F32.dtype() };
        export.to_safetensors(&plain).unwrap();
        let plain = Checkpoint::open(&WeightFiles::File(plain)).unwrap();
        let widened = |checkpoint| {
            let options = LoadOptions { packing: Packing::Later, ..options(WeightType::F32) };
            logit_bits(&Gpt2::load(with_biases.clone(), checkpoint, options).unwrap())
        };
        assert!(widened(&plain) == widened(&packed), "{what}, {key}: an unpacked file");
    }
}

#[test]
fn packing_changes_nothing_whenever_it_happens() {
    for name in NAMES {
        let (config, checkpoint) = golden::open(name);
        check_packing(&config, &checkpoint, name);
    }
    let opened = source::open("demo", &SourceOptions::default()).unwrap();
    check_packing(&opened.config, &opened.checkpoint, "the demo");
}

/// GPT-2's size with random weights.
#[test]
fn a_large_model() {
    set_threads();
    let config = Config::named("gpt2").expect("a published size");
    let checkpoint = Checkpoint::random(&config, WeightType::Stored, 1).unwrap();
    let model = |weights| Gpt2::load(config.clone(), &checkpoint, options(weights)).unwrap();
    // Greedy, sampled, with beams: the others take minutes in plain Rust.
    let requests = &requests()[..3];
    let of = |(key, weights)| (key, hash(&model(weights), requests, &[16], &format!("the large model, {key}")));
    check("gpt2, random weights", TYPES.into_iter().map(of).collect());
}
