//! The published GPT-2 against numbers from published notebooks and test suites (`real_gpt2.json`). The weights are half a
//! gigabyte, fetched from the hub by `gpt2 info -m gpt2` and `gpt2 info -m distilgpt2`, so these tests run on demand:
//! `cargo test --release --test parity real:: -- --ignored`.

use std::sync::Arc;

use gpt2::decode::{GenerationConfig, NoText, generate};
use gpt2::language_model::{Input, LanguageModel, Positions};
use gpt2::logits::{log_softmax, softmax};
use gpt2::model::{Gpt2, LoadOptions, Session, to_host};
use gpt2::source::{SourceOptions, open};
use gpt2::tokenizer::Tokenizer;
use serde_json::Value;

fn real() -> Value {
    serde_json::from_slice(include_bytes!("../fixtures/real_gpt2.json")).unwrap()
}

/// The model from the cache.
fn cached(name: &str) -> Gpt2 {
    let options = SourceOptions { offline: true, ..SourceOptions::default() };
    let opened = open(name, &options).unwrap_or_else(|error| panic!("`gpt2 info -m {name}` fetches it: {error}"));
    opened.load_network(LoadOptions::default()).unwrap()
}

fn encode(text: &Value) -> Vec<u32> {
    let tokens = Tokenizer::gpt2().encode(text.as_str().unwrap(), true).unwrap();
    tokens.into_iter().map(|token| token.id).collect()
}

fn prompt(case: &Value) -> Vec<u32> {
    let bos = case["bos"] == true;
    if let Some(ids) = case["prompt_ids"].as_array() {
        return ids.iter().map(|id| id.as_u64().unwrap() as u32).collect();
    }
    bos.then_some(50256).into_iter().chain(encode(&case["prompt"])).collect()
}

fn logits(model: &Gpt2, ids: &[u32]) -> Vec<Vec<f32>> {
    let input = Input { logits: Positions::All, ..Input::logits(0, ids) };
    let output = Session::new(model).forward(&[input]).unwrap();
    output.logits.chunks(model.config().vocab_size).map(<[f32]>::to_vec).collect()
}

fn argmax(row: &[f32]) -> u32 {
    (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best }) as u32
}

/// Hidden states after the final norm, (T, C).
fn hidden(model: &Gpt2, ids: &[u32]) -> Vec<Vec<f32>> {
    let x = model.forward(&[(0, ids)], &mut model.new_cache(), None).unwrap();
    let x = to_host(&model.final_norm(&x).unwrap()).unwrap();
    x.chunks(model.config().n_embd).map(<[f32]>::to_vec).collect()
}

#[track_caller]
fn assert_ends(row: &[f32], expected: &Value) {
    let ours = [&row[..3], &row[row.len() - 3..]].concat();
    for (a, b) in ours.iter().zip(expected.as_array().unwrap()) {
        assert!((f64::from(*a) - b.as_f64().unwrap()).abs() < 1e-3, "{ours:?} {expected}");
    }
}

#[test]
#[ignore = "needs the published weights of distilgpt2 in the cache of the hub"]
fn distilgpt2_matches_its_notebook() {
    let model = cached("distilgpt2");
    let case = &real()["distilgpt2"]["argmax_each_position"];
    let best: Vec<u32> = logits(&model, &encode(&case["prompt"])).iter().map(|row| argmax(row)).collect();
    assert_eq!(Value::from(best), case["ids"]);
    let case = &real()["distilgpt2"]["top5_each_position"];
    for (row, expected) in logits(&model, &encode(&case["prompt"])).iter().zip(case["positions"].as_array().unwrap()) {
        let mut probabilities = vec![];
        softmax(row, &mut probabilities);
        for candidate in expected.as_array().unwrap() {
            let id = encode(&candidate[0])[0] as usize;
            let percent = 100.0 * f64::from(probabilities[id]);
            assert!((percent - candidate[1].as_f64().unwrap()).abs() < 0.01, "{candidate}: {percent}");
        }
    }
}

#[test]
#[ignore = "needs the published weights of gpt2 in the cache of the hub"]
fn gpt2_has_the_published_predictions() {
    let model = cached("gpt2");
    let real = &real()["gpt2"];
    let rows = logits(&model, &encode(&real["topk"]["prompt"]));
    let mut probabilities = vec![];
    softmax(rows.last().unwrap(), &mut probabilities);
    for candidate in real["topk"]["next"].as_array().unwrap() {
        let ours = f64::from(probabilities[encode(&candidate[0])[0] as usize]);
        assert!((ours - candidate[1].as_f64().unwrap()).abs() < 1e-3, "{candidate}: {ours}");
    }
    let case = &real["argmax_each_position_bos"];
    let tokenizer = Tokenizer::gpt2();
    let texts: Vec<String> =
        logits(&model, &prompt(case)).iter().map(|row| tokenizer.decode(&[argmax(row)], false).unwrap()).collect();
    assert_eq!(Value::from(texts), case["texts"]);
}

#[test]
#[ignore = "needs the published weights of gpt2 in the cache of the hub"]
fn gpt2_has_the_published_hidden_states_logits_and_scores() {
    let model = cached("gpt2");
    let real = &real()["gpt2"];
    let case = &real["final_hidden"];
    for (row, expected) in
        hidden(&model, &prompt(case)).iter().zip(case["first3_last3_each_position"].as_array().unwrap())
    {
        assert_ends(row, expected);
    }
    let case = &real["final_hidden_german"];
    let states = hidden(&model, &prompt(case));
    assert_ends(&states[0], &case["first3_last3_of_first_position"]);
    assert_ends(states.last().unwrap(), &case["of_last_position"]);

    let ids =
        |case: &Value| case["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect::<Vec<_>>();
    let case = &real["logits"];
    let rows = logits(&model, &ids(case));
    for (row, expected) in rows[1..].iter().zip(case["rows_1_to_3_columns_1_to_3"].as_array().unwrap()) {
        for (ours, theirs) in row[1..].iter().zip(expected.as_array().unwrap()) {
            assert!((f64::from(*ours) - theirs.as_f64().unwrap()).abs() < 1e-2, "{ours} {theirs}");
        }
    }
    let case = &real["scores"];
    let mut rows = logits(&model, &ids(case));
    let expected = case["logprobs_from_second"].as_array().unwrap();
    for ((row, id), expected) in rows.iter_mut().zip(&ids(case)[1..]).zip(expected) {
        log_softmax(row);
        assert!((f64::from(row[*id as usize]) - expected.as_f64().unwrap()).abs() < 1e-3, "{expected}");
    }
}

#[test]
#[ignore = "needs the published weights of gpt2 in the cache of the hub"]
fn gpt2_generates_the_published_texts() {
    let model = cached("gpt2");
    let (real, tokenizer) = (&real()["gpt2"], Tokenizer::gpt2());
    for case in real["greedy"].as_array().unwrap().iter().chain(real["beam"].as_array().unwrap()) {
        let ids = prompt(case);
        let number = |key: &str| case[key].as_u64().map(|n| n as usize);
        let from_total = number("max_length").map(|total| total - ids.len());
        let config = GenerationConfig {
            max_new_tokens: number("max_new_tokens").or(from_total).unwrap_or(20),
            num_beams: number("num_beams").unwrap_or(1),
            early_stopping: (case["early_stopping"] == true).then_some(gpt2::decode::EarlyStopping::True),
            no_repeat_ngram_size: number("no_repeat_ngram_size").unwrap_or(0),
            eos_token_id: vec![50256],
            ..GenerationConfig::default()
        };
        let decoding = Arc::new(config.validate().unwrap());
        let sequences = generate(&mut Session::new(&model), &NoText, &ids, &decoding, |_| {}).unwrap();
        let text = tokenizer.decode(&sequences[0].ids, true).unwrap();
        match (case["text"].as_str(), case["text_starts"].as_str()) {
            (Some(expected), _) => assert_eq!(text, expected),
            (None, Some(start)) => assert!(text.starts_with(start), "{text}"),
            (None, None) => assert_eq!(Value::from(sequences[0].ids.clone()), case["ids"]),
        }
        assert!(case["text_has"].as_str().is_none_or(|part| text.contains(part)), "{text}");
    }
}
