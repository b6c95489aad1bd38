//! One forward pass: logits, hidden states, attention, log-probabilities, and the cache.

use gpt2::language_model::{Input, LanguageModel, Positions};
use gpt2::logits::log_softmax;
use gpt2::model::{Gpt2, Hook, HookPoint, Session, Trace, to_host};

use crate::golden::{self, Forward, Golden, NAMES, assert_close};

pub const TOLERANCE: f32 = 1e-4;

fn cases() -> impl Iterator<Item = (&'static str, Gpt2, Golden)> {
    NAMES.into_iter().map(|name| (name, golden::model(name), golden::golden(name)))
}

/// Logits of all positions, (T, V).
pub fn logits(model: &Gpt2, ids: &[u32]) -> Vec<f32> {
    let input = Input { logits: Positions::All, ..Input::logits(0, ids) };
    Session::new(model).forward(&[input]).unwrap().logits
}

pub fn argmax(row: &[f32]) -> usize {
    (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}

#[test]
fn logits_agree_at_the_last_position_and_argmax_at_all() {
    cases().for_each(|(name, model, golden)| check_logits(name, &model, &golden));
}

pub fn check_logits(name: &str, model: &Gpt2, golden: &Golden) {
    for case in &golden.forward {
        let v = model.config().vocab_size;
        let logits = logits(model, &case.ids);
        assert_close(&logits[logits.len() - v..], &case.logits_last, TOLERANCE, name);
        let best: Vec<usize> = logits.chunks(v).map(argmax).collect();
        assert_eq!(best, case.argmax, "{name}");
    }
}

#[test]
fn hidden_states_and_attention_agree() {
    cases().for_each(|(name, model, golden)| check_activations(name, &model, &golden));
}

pub fn check_activations(name: &str, model: &Gpt2, golden: &Golden) {
    for case in &golden.forward {
        // All that any device's kernels record.
        let points = |layer| [Hook::ResidPost, Hook::Pattern].map(|hook| HookPoint { layer, hook });
        let embeddings = HookPoint { layer: 0, hook: Hook::ResidPre };
        let mut trace = Trace::of((0..model.config().n_layer).flat_map(points).chain([embeddings]));
        let last = model.forward(&[(0, &case.ids)], &mut model.new_cache(), Some(&mut trace)).unwrap();
        check_hidden(name, model, &mut trace, &last, case);
        let weights = to_host(&trace.take(0, Hook::Pattern)[0].get(0).unwrap()).unwrap();
        assert_close(&weights, &case.attention_l0_h0.concat(), TOLERANCE, name);
    }
}

/// transformers' hidden states are the embedding, every block except the last, and the last block after the final norm.
fn check_hidden(name: &str, model: &Gpt2, trace: &mut Trace, last: &candle_core::Tensor, case: &Forward) {
    let (c, t) = (model.config().n_embd, case.ids.len());
    let mut states = trace.take(0, Hook::ResidPre);
    states.extend((0..model.config().n_layer - 1).flat_map(|layer| trace.take(layer, Hook::ResidPost)));
    states.push(model.final_norm(last).unwrap());
    assert_eq!(states.len(), case.hidden_mean.len(), "{name}");
    for (i, state) in states.iter().enumerate() {
        let state = to_host(state).unwrap();
        let mean = state.iter().sum::<f32>() / state.len() as f32;
        assert_close(&[mean], &case.hidden_mean[i..=i], TOLERANCE, name);
        assert_close(&state[(t - 1) * c..][..8], &case.hidden_last_first8[i], TOLERANCE, name);
    }
}

#[test]
fn log_probabilities_agree() {
    cases().for_each(|(name, model, golden)| check_scores(name, &model, &golden));
}

pub fn check_scores(name: &str, model: &Gpt2, golden: &Golden) {
    for case in &golden.score {
        let mut logits = logits(model, &case.ids);
        let rows = logits.chunks_mut(model.config().vocab_size).zip(&case.ids[1..]);
        let logprobs: Vec<f32> = rows
            .map(|(row, id)| {
                log_softmax(row);
                row[*id as usize]
            })
            .collect();
        assert_close(&logprobs, &case.logprobs, TOLERANCE, name);
    }
}

/// With the cache, token by token or split at any point, every logit is bit-identical to that of a single pass.
#[test]
fn the_cache_changes_nothing() {
    for (name, model, golden) in cases() {
        for case in &golden.forward {
            let (ids, whole) = (&case.ids, logits(&model, &case.ids));
            for split in 1..ids.len() {
                let mut session = Session::new(&model);
                let mut parts = vec![];
                for ids in [&ids[..split], &ids[split..]] {
                    let input = Input { logits: Positions::All, ..Input::logits(3, ids) };
                    parts.extend(session.forward(&[input]).unwrap().logits);
                }
                assert_eq!(parts, whole, "{name}, split at {split}");
            }
            let mut session = Session::new(&model);
            let mut parts = vec![];
            for id in ids {
                let ids = [*id];
                let input = Input::logits(0, &ids);
                parts.extend(session.forward(&[input]).unwrap().logits);
            }
            assert_eq!(parts, whole, "{name}, token by token");
        }
    }
}

/// Rows of different lengths, prompts next to single tokens, copied and truncated rows: each gives the same as alone.
#[test]
fn rows_do_not_disturb_each_other() {
    for (name, model, golden) in cases() {
        let texts: Vec<&[u32]> = golden.forward.iter().map(|case| case.ids.as_slice()).collect();
        let v = model.config().vocab_size;
        let input = |row, ids| Input::logits(row, ids);
        let mut session = Session::new(&model);
        let together = session.forward(&[input(0, texts[0]), input(1, texts[1]), input(2, texts[2])]).unwrap().logits;
        for (row, ids) in texts.iter().enumerate() {
            let alone = logits(&model, ids);
            assert_eq!(together[row * v..(row + 1) * v], alone[alone.len() - v..], "{name}, row {row}");
        }
        // Row 2 continues as a copy of row 0; row 0 is truncated and continues differently; row 1 continues.
        session.assign(&[(2, 0)]);
        session.truncate(0, 2);
        let next = session.forward(&[input(2, &[1]), input(0, &[2, 3]), input(1, &[4])]).unwrap().logits;
        let paths = [[texts[0], &[1]].concat(), [&texts[0][..2], &[2, 3]].concat(), [texts[1], &[4]].concat()];
        for (next, ids) in next.chunks(v).zip(paths) {
            let alone = logits(&model, &ids);
            assert_eq!(next, &alone[alone.len() - v..], "{name}, {ids:?}");
        }
    }
}
