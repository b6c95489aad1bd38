//! The checkpoints of other projects in `tests/fixtures/formats`, and what those projects compute from them.

use std::path::{Path, PathBuf};

use super::Checkpoint;
use crate::config::Config;
use crate::language_model::{Input, LanguageModel, Positions};
use crate::model::{Gpt2, LoadOptions, Session};

/// The folder of a case.
pub fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats").join(case)
}

#[derive(serde::Deserialize)]
struct Golden {
    vocab: usize,
    forward: Vec<Forward>,
}

#[derive(serde::Deserialize)]
struct Forward {
    ids: Vec<u32>,
    argmax: Vec<usize>,
    logits_last: Vec<f32>,
}

/// Checks the logits of a model against those of `case`.
#[track_caller]
pub fn check(case: &str, config: Config, checkpoint: &Checkpoint) {
    let golden: Golden = serde_json::from_slice(&std::fs::read(folder(case).join("golden.json")).unwrap()).unwrap();
    assert_eq!(config.vocab_size, golden.vocab, "{case}");
    let model = Gpt2::load(config, checkpoint, LoadOptions::default()).unwrap();
    for Forward { ids, argmax, logits_last } in golden.forward {
        let input = Input { logits: Positions::All, ..Input::logits(0, &ids) };
        let logits = Session::new(&model).forward(&[input]).unwrap().logits;
        let rows: Vec<&[f32]> = logits.chunks(golden.vocab).collect();
        for (found, expected) in rows[ids.len() - 1].iter().zip(&logits_last) {
            assert!((found - expected).abs() <= 3e-5 * expected.abs().max(1.0), "{case}: {found} is not {expected}");
        }
        let best = |row: &&[f32]| (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best });
        assert_eq!(rows.iter().map(best).collect::<Vec<_>>(), argmax, "{case}");
    }
}
