//! There and back, with a model that has GPT-2's vocabulary and next to no weights.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::format::Reader;
use super::*;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::export::Export;
use crate::config::Config;
use crate::model::LoadOptions;
use crate::source::{SourceOptions, open};

struct Tiny {
    opened: OpenedModel,
    pipeline: Pipeline,
}

static TINY: LazyLock<Tiny> = LazyLock::new(|| {
    let config =
        Config { n_positions: 24, n_embd: 16, n_layer: 1, n_head: 2, n_inner: 32, ..Config::named("gpt2").unwrap() };
    let checkpoint = Checkpoint::random(&config, WeightType::F32, 5).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let export = Export { checkpoint: &checkpoint, config: &config, dtype: crate::base::DType::F32 };
    export.to_safetensors(&folder.path().join("model.safetensors")).unwrap();
    std::fs::write(folder.path().join("config.json"), config.to_json().unwrap()).unwrap();
    let opened = open(folder.path().to_str().unwrap(), &SourceOptions::default()).unwrap();
    let pipeline = Pipeline::load(&opened, LoadOptions::default()).unwrap();
    Tiny { opened, pipeline }
});

fn codec(window: usize, stride: usize) -> Codec<'static> {
    Codec::new(&TINY.opened, &TINY.pipeline, WeightType::Stored, Some(window), Some(stride)).unwrap()
}

fn compress(codec: &Codec<'_>, bytes: &[u8]) -> (Vec<u8>, Totals) {
    let (mut file, path) = (vec![], Path::new("text"));
    let totals = codec.compress((bytes, path), (&mut file, path), &mut |_| ControlFlow::Continue(()));
    let totals = totals.unwrap().unwrap();
    assert_eq!((totals.text, totals.file), (bytes.len() as u64, file.len() as u64));
    (file, totals)
}

/// What was written before the end or an error.
fn decompress(file: &[u8]) -> (Vec<u8>, Result<Totals>) {
    let mut bytes = vec![];
    let mut read = || {
        let mut reader = Reader::new(file, Path::new("file"))?;
        let header = reader.header().clone();
        let weights = header.weights().ok_or_else(|| reader.fault("weights"))?;
        let codec = Codec::of_file(&header, Path::new("file"), &TINY.opened, &TINY.pipeline, weights)?;
        let to = (&mut bytes, Path::new("text"));
        Ok(codec.decompress(&mut reader, to, &mut |_| ControlFlow::Continue(()))?.expect("nothing breaks it off"))
    };
    let done = read();
    (bytes, done)
}

/// Text, or what looks like it, or not at all.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    const WORDS: [&str; 11] =
        ["Once", " upon", " a", " time", " king", "\n\n", ".", " consciousness", "<|endoftext|>", "\u{e9}", "\r\n"];
    let word = prop_oneof![
        20 => prop::sample::select(&WORDS[..]).prop_map(|word| word.as_bytes().to_vec()),
        4 => "[a-z]{1,12} ".prop_map(String::into_bytes),
        2 => any::<String>().prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..9),
    ];
    prop_oneof![
        12 => proptest::collection::vec(word, 0..30).prop_map(|words| words.concat()),
        2 => proptest::collection::vec(any::<u8>(), 0..300),
        1 => (any::<u8>(), 0usize..100_000).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

fn windows() -> impl Strategy<Value = (usize, usize)> {
    (2usize..=24).prop_flat_map(|window| (Just(window), 1..window))
}

proptest! {
    #[test]
    fn any_bytes_come_back(bytes in bytes(), (window, stride) in windows()) {
        let (file, written) = compress(&codec(window, stride), &bytes);
        let (back, read) = decompress(&file);
        prop_assert_eq!(read.unwrap(), written);
        prop_assert!(back == bytes);
        // Never much longer than what it holds.
        prop_assert!(file.len() <= bytes.len() + bytes.len() / 1000 + 200);
    }

    #[test]
    fn damage_never_gives_other_bytes(bytes in bytes(), places in proptest::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..4)) {
        let (mut file, _) = compress(&codec(8, 4), &bytes);
        let whole = file.clone();
        for (place, change) in places {
            let place = place.index(file.len());
            file[place] ^= change;
        }
        let (back, read) = decompress(&file);
        prop_assert!(bytes.starts_with(&back));
        prop_assert_eq!(read.is_ok(), file == whole);
    }
}

/// So the test above has text that the model codes.
#[test]
fn words_are_coded_even_by_weights_of_chance() {
    let (_, totals) = compress(&codec(24, 12), b"Once upon a consciousness there was an understanding.");
    assert_eq!((totals.segments, totals.coded), (1, 1));
}

#[test]
fn a_code_is_as_long_as_the_surprisals_of_its_windows() {
    use crate::analysis::perplexity::Windows;
    use crate::analysis::score::{ScoreOptions, Text, score};
    let text = "The understanding of consciousness requires extraordinary perseverance, notwithstanding difficulties. ";
    for (window, stride) in [(24, 12), (24, 23), (9, 2)] {
        let (file, totals) = compress(&codec(window, stride), text.as_bytes());
        assert_eq!(totals.coded, 1);
        let start = TINY.pipeline.start_token().unwrap();
        let ids = [vec![start], TINY.pipeline.ids(text, false).unwrap()].concat();
        let windows = Windows::Sliding(Sliding::new(window, stride, 24).unwrap());
        let options = ScoreOptions { windows, ..ScoreOptions::default() };
        let scores =
            score(&TINY.pipeline.model, &[Text { ids: &ids, given: 1 }], &options, |_| ControlFlow::Continue(()))
                .unwrap();
        let nats: f64 = scores[0].tokens.iter().flatten().map(|token| -f64::from(token.logprob)).sum();
        let bytes = nats / std::f64::consts::LN_2 / 8.0;
        // The parts around the code, and its last two words.
        let fixed = compress(&codec(window, stride), b"").0.len() + 1 + 1 + 1 + 1 + 8;
        let code = (file.len() - fixed) as f64;
        assert!((bytes..bytes + 8.0).contains(&code), "{code} bytes for {bytes}");
    }
}

#[test]
fn a_run_can_be_broken_off() {
    let path = Path::new("text");
    let text = b"Once upon a time there was a king.";
    let stopped = codec(8, 4).compress((&text[..], path), (vec![], path), &mut |_| ControlFlow::Break(()));
    assert_eq!(stopped.unwrap(), None);
    let (file, _) = compress(&codec(8, 4), text);
    let mut reader = Reader::new(&file[..], path).unwrap();
    let stopped = codec(8, 4).decompress(&mut reader, (vec![], path), &mut |_| ControlFlow::Break(()));
    assert_eq!(stopped.unwrap(), None);
}
