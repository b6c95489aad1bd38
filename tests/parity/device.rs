//! The network as it runs on a GPU, against transformers' numbers and against the kernels of the CPU.
//!
//! `GPT2_TEST_DEVICE` says where: candle's operations on its CPU backend (`cpu`, or unset); the kernels for NVIDIA's GPUs
//! on the first GPU (`cuda`) or on the CPU (`emulator`), in builds that have them.
//!
//! Tolerances: f32 is held to what the kernels are held to. In 16 bits transformers itself is up to 0.013 (f16) and 0.127
//! (bf16) from its own f32 logits on these checkpoints, which go up to 7.5; bf16 is allowed half as much again, and f16
//! twice as much, because candle's CPU backend rounds partial sums of f16 products. On a GPU they are f32, and the same
//! tolerance is generous.

use std::mem::ManuallyDrop;

use candle_core::{Device, Tensor};
use gpt2::checkpoint::Checkpoint;
use gpt2::config::Config;
use gpt2::decode::{Engine, GenerationConfig, Input, LanguageModel, NoText, Positions};
use gpt2::device::{Backend, DeviceChoice};
use gpt2::kernels::quantized::QuantizedType;
use gpt2::model::{Gpt2, LoadOptions, Session, Trace, WeightType, to_host};

use crate::golden::{self, Golden, NAMES, assert_close};
use crate::{decode, forward};

thread_local! {
    /// A test has a thread, and so a device, of its own, which ends with the process: a thread's last moments are no time
    /// to call a driver.
    static BACKEND: ManuallyDrop<Backend> = ManuallyDrop::new(open());
}

/// What computes, the same throughout a test.
fn backend() -> Backend {
    BACKEND.with(|backend| Backend::clone(backend))
}

/// Where its tensors lie.
fn device() -> Device {
    match backend() {
        Backend::Candle(device) => device,
        _ => Device::Cpu,
    }
}

/// Opens what `GPT2_TEST_DEVICE` names, a GPU as the program does.
fn open() -> Backend {
    let name = std::env::var_os("GPT2_TEST_DEVICE").unwrap_or_else(|| "cpu".into());
    match name.to_str() {
        Some("cpu") => Backend::Candle(Device::Cpu),
        Some("cuda") => match DeviceChoice::Cuda(0).open() {
            Ok(Backend::Kernels) => panic!("GPT2_TEST_DEVICE is cuda, which came to the CPU"),
            Ok(backend) => backend,
            Err(error) => panic!("GPT2_TEST_DEVICE is cuda: {error}"),
        },
        #[cfg(feature = "emulator")]
        Some("emulator") => Backend::Emulator,
        _ => panic!("GPT2_TEST_DEVICE is {name:?}, not cpu, cuda or emulator, or this build lacks it"),
    }
}

fn options(weights: WeightType) -> LoadOptions {
    LoadOptions { weights, backend: backend() }
}

fn model(name: &str) -> Gpt2 {
    golden::load(name, options(WeightType::F32))
}

#[test]
fn in_f32_one_pass_agrees_with_transformers() {
    for name in NAMES {
        let (model, golden) = (model(name), golden::golden(name));
        forward::check_logits(name, &model, &golden);
        forward::check_activations(name, &model, &golden);
        forward::check_scores(name, &model, &golden);
    }
}

#[test]
fn in_f32_every_strategy_gives_the_sequences_of_transformers() {
    for name in NAMES {
        let (model, golden) = (model(name), golden::golden::<decode::Golden>(name));
        for case in golden.generate.iter().chain(&golden.generate_4_49) {
            decode::assert_case(name, &model, &model.config().eos_token_id, case);
        }
    }
    decode::check_endings(model);
}

/// All at once, so that rows of different lengths, prompts and single tokens, and beams that move share passes.
#[test]
fn a_batch_gives_the_sequences_that_each_request_gives_alone() {
    for name in NAMES {
        let (model, golden) = (model(name), golden::golden::<decode::Golden>(name));
        let eos = &model.config().eos_token_id;
        let requests: Vec<(Vec<u32>, GenerationConfig)> = golden
            .generate
            .iter()
            .chain(&golden.generate_4_49)
            .map(|case| (case.ids.clone(), case.params.config(eos, case.max_new_tokens)))
            .collect();
        for batch_size in [4, requests.len()] {
            let mut session = Session::new(&model);
            let mut engine = Engine::new(&mut session, &NoText).with_batch_size(batch_size);
            for (batched, (ids, config)) in decode::run_all(&mut engine, &requests).iter().zip(&requests) {
                let alone = decode::run(&model, ids, config);
                assert!(batched.iter().map(|s| &s.ids).eq(alone.iter().map(|s| &s.ids)), "{name}: {config:?}");
            }
        }
    }
}

#[test]
fn guesses_change_no_token() {
    let other = model(NAMES[1]);
    for name in [NAMES[0], NAMES[2]] {
        let (model, golden) = (model(name), golden::golden::<decode::Golden>(name));
        for case in golden.generate.iter().filter(|case| case.params.num_beams.is_none()) {
            let plain = case.params.config(&model.config().eos_token_id, 40);
            let expected = &decode::run(&model, &case.ids, &plain)[0].ids;
            let lookup = GenerationConfig { prompt_lookup_num_tokens: Some(6), ..plain.clone() };
            assert_eq!(&decode::run(&model, &case.ids, &lookup)[0].ids, expected, "{name}: looked up");
            let assisted = GenerationConfig { assistant: true, ..plain };
            let (mut session, mut assistant) = (Session::new(&model), Session::new(&other));
            let mut engine = Engine::new(&mut session, &NoText).with_assistant(&mut assistant).unwrap();
            let ours = decode::run_all(&mut engine, &[(case.ids.clone(), assisted)]);
            assert_eq!(&ours[0][0].ids, expected, "{name}: assisted");
        }
    }
}

fn last(row: usize, ids: &[u32]) -> Input<'_> {
    Input { row, ids, logits: Positions::Last, best: Positions::None, hidden: Positions::None }
}

/// Splits, copies, cuts, rows in any order and of any lengths, over the step in which room grows: what the cache holds is
/// what the kernels' cache holds.
#[test]
fn the_cache_holds_what_that_of_the_kernels_holds() {
    let config = Config { n_positions: 400, vocab_size: 90, n_embd: 24, n_layer: 2, n_head: 3, ..tiny() };
    let checkpoint = Checkpoint::random(&config, WeightType::F32, 7).unwrap();
    let models = [LoadOptions::default(), options(WeightType::F32)]
        .map(|options| Gpt2::load(config.clone(), &checkpoint, options).unwrap());
    let ids: Vec<u32> = (0..400).map(|i| i * 31 % 90).collect();
    let [ours, theirs] = models.each_ref().map(|model| {
        let mut session = Session::new(model);
        let mut out = vec![];
        let mut pass = |session: &mut Session<'_>, inputs: &[Input<'_>]| {
            out.extend(session.forward(inputs).unwrap().logits);
        };
        pass(&mut session, &[last(2, &ids[..120]), last(0, &ids[5..8]), last(1, &ids[3..4])]);
        // Row 2 outgrows its room, the others go on by one and by several.
        pass(&mut session, &[last(1, &ids[..1]), last(2, &ids[120..130]), last(0, &ids[50..53])]);
        // Beams swap, one is copied to a row that is new; one of them is cut back.
        session.assign(&[(0, 2), (2, 0), (4, 2)]);
        session.truncate(4, 100);
        session.assign(&[(1, 4)]);
        pass(&mut session, &[last(4, &ids[9..10]), last(0, &ids[7..8]), last(1, &ids[8..9]), last(2, &ids[6..7])]);
        // The copies are copies: none of them sees what another was given.
        pass(&mut session, &[last(0, &ids[1..2]), last(1, &ids[2..3]), last(4, &ids[3..4])]);
        session.truncate(0, 0);
        pass(&mut session, &[last(0, &ids[..200]), last(3, &ids[..1])]);
        (0..5).for_each(|row| session.truncate(row, 0));
        pass(&mut session, &[last(1, &ids), last(0, &ids[..9])]);
        out
    });
    assert_close(&ours, &theirs, forward::TOLERANCE, "candle and kernels");
}

/// A pass that fails leaves the rows as they were.
#[test]
fn rows_survive_a_pass_that_is_refused() {
    let (model, kernels) = (model("base"), golden::model("base"));
    let mut session = Session::new(&model);
    session.forward(&[last(0, &[1, 2, 3])]).unwrap();
    assert!(session.forward(&[last(0, &[u32::MAX])]).is_err());
    assert_eq!(session.len(0), 3);
    let next = session.forward(&[last(0, &[4])]).unwrap().logits;
    let expected = Session::new(&kernels).forward(&[last(0, &[1, 2, 3, 4])]).unwrap().logits;
    assert_close(&next, &expected, forward::TOLERANCE, "after a refused pass");
}

/// The second token's embedding is no number. The row that saw it starts anew beside a longer one.
#[test]
fn a_row_does_not_see_who_was_there_before() {
    let config = Config { n_positions: 20, vocab_size: 9, n_embd: 4, n_layer: 1, n_head: 2, ..tiny() };
    let mut checkpoint = Checkpoint::random(&config, WeightType::F32, 7).unwrap();
    let wte = checkpoint.tensors.iter_mut().find(|tensor| tensor.name == "wte.weight").unwrap();
    let mut bytes = wte.bytes.to_vec();
    bytes[16..20].copy_from_slice(&f32::NAN.to_le_bytes());
    wte.bytes = bytes.into();
    let model = Gpt2::load(config, &checkpoint, options(WeightType::F32)).unwrap();
    let hidden = |row, ids| Input { hidden: Positions::Last, logits: Positions::None, ..last(row, ids) };
    let mut session = Session::new(&model);
    let first = session.forward(&[hidden(0, &[1; 8]), hidden(1, &[2; 8])]).unwrap().hidden;
    assert!(first[..4].iter().all(|x| x.is_nan()) && first[4..].iter().all(|x| x.is_finite()), "{first:?}");
    session.truncate(0, 0);
    let second = session.forward(&[hidden(0, &[3]), hidden(1, &[2])]).unwrap().hidden;
    assert!(second.iter().all(|x| x.is_finite()), "{second:?}");
}

#[test]
fn rows_are_traced_in_the_order_of_the_batch() {
    let models = [golden::model("inverse"), model("inverse")];
    let inputs: [(usize, &[u32]); 3] = [(2, &[1, 2, 3]), (0, &[4]), (1, &[5, 6, 7])];
    let [ours, theirs] = models.each_ref().map(|model| {
        let mut trace = Trace { attention_layers: 0..1, ..Trace::default() };
        model.forward(&inputs, &mut model.new_cache(), Some(&mut trace)).unwrap();
        trace.attention.iter().map(|weights| (weights.dims().to_vec(), to_host(weights).unwrap())).collect::<Vec<_>>()
    });
    assert_eq!(ours.len(), inputs.len());
    for ((dims, ours), (expected, theirs)) in ours.iter().zip(&theirs) {
        assert_eq!(dims, expected);
        assert_close(ours, theirs, forward::TOLERANCE, "attention");
    }
}

#[test]
fn in_16_bits_logits_are_as_near_as_those_of_transformers() {
    for (weights, tolerance) in [(WeightType::F16, 0.026), (WeightType::BF16, 0.19)] {
        for name in NAMES {
            let (model, exact) = (golden::load(name, options(weights)), golden::model(name));
            let v = model.config().vocab_size;
            for case in &golden::golden::<Golden>(name).forward {
                let (logits, exact) = (forward::logits(&model, &case.ids), forward::logits(&exact, &case.ids));
                assert_close(&logits[logits.len() - v..], &case.logits_last, tolerance, name);
                // Another token than in f32 only where f32 hardly tells them apart.
                for ((row, exact), best) in logits.chunks(v).zip(exact.chunks(v)).zip(&case.argmax) {
                    let gap = exact[*best] - exact[forward::argmax(row)];
                    assert!(gap <= 2.0 * tolerance, "{name}, {weights:?}: {gap}");
                }
            }
        }
    }
}

#[test]
fn quantised_weights_give_what_the_kernels_give() {
    let config =
        Config { n_positions: 64, vocab_size: 320, n_embd: 256, n_layer: 2, n_head: 4, n_inner: 512, ..tiny() };
    let checkpoint = Checkpoint::random(&config, WeightType::F32, 3).unwrap();
    let ids: Vec<u32> = (0..20).map(|i| i * 13 % 300).collect();
    for kind in [QuantizedType::Q8_0, QuantizedType::Q6K, QuantizedType::Q5K, QuantizedType::Q4K] {
        let weights = WeightType::Quantized(kind);
        let [kernels, candle] = [LoadOptions { weights, ..LoadOptions::default() }, options(weights)]
            .map(|options| Gpt2::load(config.clone(), &checkpoint, options).unwrap());
        assert_eq!(kernels.weight_bytes(), candle.weight_bytes(), "{kind:?}");
        let (ours, theirs) = (forward::logits(&candle, &ids), forward::logits(&kernels, &ids));
        let largest = theirs.iter().fold(0f32, |a, b| a.max(b.abs()));
        // Both round activations to 8 bits, each in its own way.
        assert_close(&ours, &theirs, 0.02 * largest, &format!("{kind:?}"));
    }
    // Widths that are no whole blocks: f16 and q8_0 in place of what was asked for.
    for name in NAMES {
        let weights = WeightType::Quantized(QuantizedType::Q4K);
        let kernels = golden::load(name, LoadOptions { weights, ..LoadOptions::default() });
        let candle = golden::load(name, options(weights));
        let (ours, theirs) = (forward::logits(&candle, &[3, 1, 4]), forward::logits(&kernels, &[3, 1, 4]));
        let largest = theirs.iter().fold(0f32, |a, b| a.max(b.abs()));
        assert_close(&ours, &theirs, 0.02 * largest, name);
    }
}

/// Ties go to the first token, as they do on the host, and what is no number is noticed.
#[test]
fn the_best_token_is_that_of_the_host() {
    let (model, kernels) = (model("base"), golden::model("base"));
    let v = model.config().vocab_size;
    let mut logits = vec![-1f32; 5 * v];
    for at in [7, 3, v - 1] {
        logits[at] = 2.5;
    }
    logits[2 * v + 5] = f32::NAN;
    logits[3 * v + 9] = f32::INFINITY;
    logits[4 * v + 1] = f32::NEG_INFINITY;
    let logits = Tensor::from_vec(logits, (5, v), &device()).unwrap();
    let expected = [Some(3), Some(0), None, None, None];
    assert_eq!(model.best_tokens(&logits).unwrap(), expected);
    assert_eq!(kernels.best_tokens(&logits).unwrap(), expected);
}

/// A small configuration to vary.
fn tiny() -> Config {
    Config { n_inner: 50, ..Config::named("gpt2").unwrap() }
}
