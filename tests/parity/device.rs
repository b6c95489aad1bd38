//! The network as it runs on a GPU, against transformers' numbers and against the CPU kernels.
//!
//! `GPT2_TEST_DEVICE` selects the backend: candle's operations on its CPU backend (`cpu`, or unset); the kernels for NVIDIA
//! GPUs on the first GPU (`cuda`) or on the CPU (`emulator`); or candle's operations on a Mac's GPU (`metal`), in builds
//! that include them.
//!
//! Tolerances: f32 has the same tolerance as the CPU kernels. In 16 bits, transformers itself is up to 0.013 (f16) and
//! 0.127 (bf16) from its own f32 logits on these checkpoints, which go up to 7.5. We allow 1.5 times that in bf16, and
//! twice that in f16, because candle's CPU backend rounds partial sums of f16 products. On a GPU the sums are f32, so the
//! same tolerance is generous.

use std::mem::ManuallyDrop;

use candle_core::{Device, Tensor};
use gpt2::base::QuantizedType;
use gpt2::checkpoint::Checkpoint;
use gpt2::config::Config;
use gpt2::decode::{Engine, GenerationConfig, NoText};
use gpt2::device::{Backend, DeviceChoice};
use gpt2::inventory::TensorId;
use gpt2::language_model::{Input, LanguageModel, Positions};
use gpt2::model::{Gpt2, Hook, HookPoint, LoadOptions, Session, Trace, WeightType, to_host};

use crate::golden::{self, Golden, NAMES, assert_close};
use crate::{attribution, decode, forward, inside, interventions};

thread_local! {
    /// Each test has its own thread and so its own device. It lives until the process ends, because a driver must not be
    /// called while a thread is being torn down.
    static BACKEND: ManuallyDrop<Backend> = ManuallyDrop::new(open());
}

/// The backend, the same throughout a test.
fn backend() -> Backend {
    BACKEND.with(|backend| Backend::clone(backend))
}

/// The device of its tensors.
fn device() -> Device {
    match backend() {
        Backend::Candle(device) => device,
        _ => Device::Cpu,
    }
}

/// Opens the backend named by `GPT2_TEST_DEVICE`; a GPU is opened as the program does it.
fn open() -> Backend {
    let name = std::env::var_os("GPT2_TEST_DEVICE").unwrap_or_else(|| "cpu".into());
    match name.to_str() {
        Some("cpu") => Backend::Candle(Device::Cpu),
        Some(gpu @ ("cuda" | "metal")) => {
            let choice = if gpu == "cuda" { DeviceChoice::Cuda(0) } else { DeviceChoice::Metal };
            choice.open().unwrap_or_else(|error| panic!("GPT2_TEST_DEVICE is {gpu}: {error}"))
        }
        #[cfg(feature = "emulator")]
        Some("emulator") => Backend::Emulator,
        _ => panic!("GPT2_TEST_DEVICE is {name:?}, not cpu, cuda, metal or emulator, or this build lacks it"),
    }
}

fn options(weights: WeightType) -> LoadOptions {
    LoadOptions { weights, backend: backend(), ..LoadOptions::default() }
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

/// All requests at once, so that rows of different lengths, prompts, single tokens and moving beams share passes.
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
        let alone: Vec<_> = requests.iter().map(|(ids, config)| decode::run(&model, ids, config)).collect();
        for batch_size in [4, requests.len()] {
            let mut session = Session::new(&model);
            let mut engine = Engine::new(&mut session, &NoText).with_batch_size(batch_size);
            let batched = decode::run_all(&mut engine, &requests);
            for ((batched, alone), (_, config)) in batched.iter().zip(&alone).zip(&requests) {
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
            let lookup = GenerationConfig { prompt_lookup: Some(6), ..plain.clone() };
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
    Input::logits(row, ids)
}

/// Splits, copies and truncations, with rows in any order and of any length, beyond the size at which the cache grows: the
/// results match those of the CPU kernels' cache.
#[test]
fn the_cache_matches_that_of_the_cpu_kernels() {
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
        // Row 2 outgrows its space; the others grow by one and by several positions.
        pass(&mut session, &[last(1, &ids[..1]), last(2, &ids[120..130]), last(0, &ids[50..53])]);
        // Beams swap, one is copied to a new row and truncated.
        session.assign(&[(0, 2), (2, 0), (4, 2)]);
        session.truncate(4, 100);
        session.assign(&[(1, 4)]);
        pass(&mut session, &[last(4, &ids[9..10]), last(0, &ids[7..8]), last(1, &ids[8..9]), last(2, &ids[6..7])]);
        // The copies are independent: none sees the tokens of another.
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
fn rows_survive_a_refused_pass() {
    let (model, kernels) = (model("base"), golden::model("base"));
    let mut session = Session::new(&model);
    session.forward(&[last(0, &[1, 2, 3])]).unwrap();
    assert!(session.forward(&[last(0, &[u32::MAX])]).is_err());
    assert_eq!(session.len(0), 3);
    let next = session.forward(&[last(0, &[4])]).unwrap().logits;
    let expected = Session::new(&kernels).forward(&[last(0, &[1, 2, 3, 4])]).unwrap().logits;
    assert_close(&next, &expected, forward::TOLERANCE, "after a refused pass");
}

/// The second token's embedding is NaN. The row that saw it starts over next to a longer one.
#[test]
fn a_row_does_not_see_its_earlier_contents() {
    let config = Config { n_positions: 20, vocab_size: 9, n_embd: 4, n_layer: 1, n_head: 2, ..tiny() };
    let random = Checkpoint::random(&config, WeightType::F32, 7).unwrap();
    let mut tensors: Vec<_> = random.tensors().map(|(id, tensor)| (id, tensor.clone())).collect();
    let (_, wte) = tensors.iter_mut().find(|(id, _)| *id == TensorId::WTE).unwrap();
    let mut bytes = wte.bytes.to_vec();
    bytes[16..20].copy_from_slice(&f32::NAN.to_le_bytes());
    wte.bytes = bytes.into();
    let checkpoint = Checkpoint::new("changed".into(), tensors).unwrap();
    let model = Gpt2::load(config, &checkpoint, options(WeightType::F32)).unwrap();
    let hidden = |row, ids| Input { row, ids, hidden: Positions::Last, ..Input::default() };
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
        let mut trace = Trace::of([HookPoint { layer: 0, hook: Hook::Pattern }]);
        model.forward(&inputs, &mut model.new_cache(), Some(&mut trace)).unwrap();
        trace
            .take(0, Hook::Pattern)
            .iter()
            .map(|weights| (weights.dims().to_vec(), to_host(weights).unwrap()))
            .collect::<Vec<_>>()
    });
    assert_eq!(ours.len(), inputs.len());
    for ((dims, ours), (expected, theirs)) in ours.iter().zip(&theirs) {
        assert_eq!(dims, expected);
        assert_close(ours, theirs, forward::TOLERANCE, "attention");
    }
}

#[test]
fn in_f32_what_happens_inside_agrees() {
    let model = |name: &str| golden::load(name, LoadOptions { hooks: true, ..options(WeightType::F32) });
    inside::check_activations(model);
    inside::check_patching(model);
    attribution::check(model);
}

#[test]
fn in_f32_interventions_agree() {
    interventions::check(|name| golden::load(name, LoadOptions { hooks: true, ..options(WeightType::F32) }));
}

#[test]
fn in_16_bits_logits_are_as_close_as_those_of_transformers() {
    for (weights, tolerance) in [(WeightType::F16, 0.026), (WeightType::BF16, 0.19)] {
        for name in NAMES {
            let (model, exact) = (golden::load(name, options(weights)), golden::model(name));
            let v = model.config().vocab_size;
            for case in &golden::golden::<Golden>(name).forward {
                let (logits, exact) = (forward::logits(&model, &case.ids), forward::logits(&exact, &case.ids));
                assert_close(&logits[logits.len() - v..], &case.logits_last, tolerance, name);
                // The best token may differ from f32 only if its logits are nearly equal there.
                for ((row, exact), best) in logits.chunks(v).zip(exact.chunks(v)).zip(&case.argmax) {
                    let gap = exact[*best] - exact[forward::argmax(row)];
                    assert!(gap <= 2.0 * tolerance, "{name}, {weights:?}: {gap}");
                }
            }
        }
    }
}

#[test]
fn quantised_weights_match_the_cpu_kernels() {
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
        // Both round activations to 8 bits, in different ways.
        assert_close(&ours, &theirs, 0.02 * largest, &format!("{kind:?}"));
    }
    // Widths that are not multiples of a block fall back to f16 and q8_0.
    for name in NAMES {
        let weights = WeightType::Quantized(QuantizedType::Q4K);
        let kernels = golden::load(name, LoadOptions { weights, ..LoadOptions::default() });
        let candle = golden::load(name, options(weights));
        let (ours, theirs) = (forward::logits(&candle, &[3, 1, 4]), forward::logits(&kernels, &[3, 1, 4]));
        let largest = theirs.iter().fold(0f32, |a, b| a.max(b.abs()));
        assert_close(&ours, &theirs, 0.02 * largest, name);
    }
}

/// Ties go to the first token, as on the host, and NaN is detected.
#[test]
fn the_best_token_matches_the_host() {
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

// ---- The same bits ----

/// A backend that promises the same bits for a row whatever runs beside it: on the CPU, this library's own kernels instead
/// of candle's operations.
fn promising(weights: WeightType) -> LoadOptions {
    match backend() {
        Backend::Candle(Device::Cpu) => LoadOptions { weights, ..LoadOptions::default() },
        backend => LoadOptions { weights, backend, ..LoadOptions::default() },
    }
}

const FLOATS: [WeightType; 3] = [WeightType::F32, WeightType::F16, WeightType::BF16];

/// The tiny checkpoints in every type, with `n_positions` ids for a row.
fn tiny_models() -> impl Iterator<Item = (String, Gpt2, Vec<u32>)> {
    let models = FLOATS.into_iter().flat_map(|weights| NAMES.map(|name| (name, weights)));
    models.map(|(name, weights)| {
        let model = golden::load(name, promising(weights));
        let Config { n_positions, vocab_size, .. } = *model.config();
        let ids = (0..n_positions as u32).map(|i| i * 37 % vocab_size as u32).collect();
        (format!("{name}, {weights:?}"), model, ids)
    })
}

/// A random network, with `tokens` ids for a row.
fn random_model(weights: WeightType, config: &Config, tokens: usize) -> (Gpt2, Vec<u32>) {
    let checkpoint = Checkpoint::random(config, WeightType::F32, 11).unwrap();
    let model = Gpt2::load(config.clone(), &checkpoint, promising(weights)).unwrap();
    (model, (0..tokens as u32).map(|i| i * 31 % config.vocab_size as u32).collect())
}

/// Logits of all positions of each input, bit by bit.
fn bits(session: &mut Session<'_>, inputs: &[(usize, &[u32])]) -> Vec<Vec<u32>> {
    let all: Vec<Input<'_>> =
        inputs.iter().map(|(row, ids)| Input { logits: Positions::All, ..last(*row, ids) }).collect();
    let bits: Vec<u32> = session.forward(&all).unwrap().logits.iter().map(|x| x.to_bits()).collect();
    let v = bits.len() / inputs.iter().map(|(_, ids)| ids.len()).sum::<usize>();
    let mut rest = bits.as_slice();
    let of_input = inputs.iter().map(|(_, ids)| {
        let (now, later) = rest.split_at(ids.len() * v);
        rest = later;
        now.to_vec()
    });
    of_input.collect()
}

/// The logits, bit by bit, of a row that reads `ids` alone and in one pass.
fn bits_alone(model: &Gpt2, ids: &[u32]) -> Vec<u32> {
    bits(&mut Session::new(model), &[(0, ids)]).remove(0)
}

/// Prompts of many lengths and single tokens share passes, with rows in any order: few rows, some, and many.
#[test]
fn a_row_gives_the_same_bits_alone_and_with_rows_of_other_lengths() {
    for (name, model, ids) in tiny_models() {
        check_company(&name, &model, &ids, &[1, 1, 1]);
        check_company(&name, &model, &ids, &[2, 1, 3, 8, 1]);
        check_company(&name, &model, &ids, &[ids.len(), 1, ids.len() - 1, 5, 1, 9, 17, ids.len() / 2]);
        check_company(&name, &model, &ids, &[1; 66]);
    }
}

fn check_company(name: &str, model: &Gpt2, ids: &[u32], lens: &[usize]) {
    let texts: Vec<&[u32]> = lens.iter().enumerate().map(|(i, len)| &ids[i.min(ids.len() - len)..][..*len]).collect();
    let rows: Vec<(usize, &[u32])> = texts.iter().rev().enumerate().map(|(row, text)| (row, *text)).collect();
    for ((row, text), together) in rows.iter().zip(bits(&mut Session::new(model), &rows)) {
        assert!(together == bits_alone(model, text), "{name}, rows of {lens:?}: row {row} from the end");
    }
}

#[test]
fn a_row_gives_the_same_bits_in_one_pass_in_two_and_token_by_token() {
    for (name, model, ids) in tiny_models() {
        let splits = [1, 2, 7, 8, 9, 16, 31, 33, ids.len() - 8, ids.len() - 1];
        check_pieces(&name, &model, &ids, splits.into_iter().filter(|split| *split < ids.len()));
        let whole = bits_alone(&model, &ids);
        let mut session = Session::new(&model);
        let singles: Vec<u32> = ids.chunks(1).flat_map(|id| bits(&mut session, &[(3, id)]).remove(0)).collect();
        assert!(singles == whole, "{name}: token by token");
    }
}

fn check_pieces(name: &str, model: &Gpt2, ids: &[u32], splits: impl IntoIterator<Item = usize>) {
    let whole = bits_alone(model, ids);
    for split in splits {
        let mut session = Session::new(model);
        let pieces = [&ids[..split], &ids[split..]].map(|ids| bits(&mut session, &[(2, ids)]).remove(0));
        assert!(pieces.concat() == whole, "{name}: split at {split}");
    }
}

/// Rows move as in beam search, and are truncated as after wrong guesses.
#[test]
fn copied_swapped_and_truncated_rows_give_the_same_bits_as_fresh_rows() {
    for (name, model, ids) in tiny_models() {
        let (long, short) = (ids.len() - 4, 5);
        check_moves(&name, &model, &ids, long, short);
    }
}

fn check_moves(name: &str, model: &Gpt2, ids: &[u32], long: usize, short: usize) {
    let mut session = Session::new(model);
    bits(&mut session, &[(0, &ids[..long]), (1, &ids[1..=short])]);
    let mut texts = [ids[..long].to_vec(), ids[1..=short].to_vec(), vec![]];
    let step = |session: &mut Session<'_>, texts: &mut [Vec<u32>; 3], new: [&[u32]; 3]| {
        let rows: Vec<(usize, &[u32])> = new.into_iter().enumerate().filter(|(_, new)| !new.is_empty()).collect();
        for ((row, new), ours) in rows.iter().zip(bits(session, &rows)) {
            texts[*row].extend_from_slice(new);
            let alone = bits_alone(model, &texts[*row]);
            assert!(ours == alone[alone.len() - ours.len()..], "{name}: row {row} after {:?}", texts[*row]);
        }
    };
    // Two rows swap, one is copied, and the copies diverge.
    session.assign(&[(0, 1), (1, 0), (2, 0)]);
    texts = [texts[1].clone(), texts[0].clone(), texts[0].clone()];
    step(&mut session, &mut texts, [&ids[3..4], &ids[4..5], &ids[5..6]]);
    // A truncated row continues differently, in a page that it shares with a copy.
    session.assign(&[(0, 2)]);
    texts[0] = texts[2].clone();
    session.truncate(0, long - 2);
    texts[0].truncate(long - 2);
    session.truncate(1, short - 1);
    texts[1].truncate(short - 1);
    step(&mut session, &mut texts, [&ids[7..10], &ids[8..10], &ids[6..7]]);
    session.truncate(0, 0);
    texts[0].clear();
    step(&mut session, &mut texts, [&ids[2..6], &[], &ids[1..2]]);
}

/// A pass has at most 2048 tokens.
#[test]
fn a_prompt_longer_than_a_pass_gives_the_same_bits_however_it_is_split() {
    let config = Config { n_positions: 2300, vocab_size: 9, n_embd: 4, n_layer: 1, n_head: 2, n_inner: 5, ..tiny() };
    for weights in FLOATS {
        let ((model, ids), name) = (random_model(weights, &config, 2200), format!("several passes, {weights:?}"));
        check_pieces(&name, &model, &ids, [2047, 2048, 2049]);
        check_company(&name, &model, &ids, &[1, 2200, 40]);
    }
}

/// With few heads and rows, blocks of positions are processed in parallel, otherwise one after the other.
#[test]
fn many_heads_give_the_same_bits_alone_with_others_and_in_pieces() {
    let config = Config { n_positions: 300, vocab_size: 90, n_embd: 64, n_layer: 2, n_head: 32, ..tiny() };
    for weights in FLOATS {
        let ((model, ids), name) = (random_model(weights, &config, 150), format!("many heads, {weights:?}"));
        check_pieces(&name, &model, &ids, [1, 64, 149]);
        check_company(&name, &model, &ids, &[1; 140]);
        check_company(&name, &model, &ids, &[8; 9]);
        check_moves(&name, &model, &ids, 130, 70);
    }
}

/// A small configuration to vary.
fn tiny() -> Config {
    Config { n_inner: 50, ..Config::named("gpt2").unwrap() }
}
