use proptest::prelude::*;

use std::path::Path;

use crate::tokenizer::settings::Settings;
use crate::tokenizer::tokenizer_json::parse;
use crate::tokenizer::{Tokenizer, TokenizerFiles};

/// A folder with these files.
fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

#[track_caller]
fn assert_refused(files: &TokenizerFiles, words: &[&str]) {
    let error = Tokenizer::load(files).err().expect("the files are refused").to_string();
    for word in words {
        assert!(error.contains(word), "`{word}` is not in `{error}`");
    }
    assert!(!error.contains('\n'), "more than a line: {error}");
}

#[test]
fn broken_vocabularies_are_refused() {
    for (vocab, words) in [
        ("", "not JSON: it is empty"),
        ("{\"a\": 0", "not JSON: it ends too early"),
        ("[1, 2]", "an object of pieces and ids"),
        ("{}", "empty"),
        ("{\"a\": -1}", "the id of \"a\" is not a whole number"),
        ("{\"a\": 0.5}", "the id of \"a\""),
        ("{\"a\": 1e30}", "the id of \"a\""),
        ("{\"a\": \"0\"}", "the id of \"a\""),
        ("{\"a\": 4294967295}", "no piece with the id 0"),
        ("{\"a\": 0, \"b\": 18446744073709551615}", "no piece with the id 1; the next one is \"b\""),
        ("{\"a\": 0, \"b\": 2}", "no piece with the id 1; the next one is \"b\" with 2"),
        ("{\"a\": 0, \"b\": 0}", "the id 0 twice"),
        ("{\"a\\nb\": 1}", "the next one is \"a\\nb\" with 1"),
    ] {
        let folder = folder(&[("vocab.json", vocab.as_bytes()), ("merges.txt", b"")]);
        let path = |name| folder.path().join(name);
        assert_refused(
            &TokenizerFiles::vocab_and_merges(path("vocab.json"), path("merges.txt")),
            &["vocab.json: ", words],
        );
    }
}

#[test]
fn broken_merges_are_refused() {
    let vocab = b"{\"a\": 0, \"b\": 1, \"ab\": 2, \"aba\": 3}";
    for (merges, words) in [
        (&b"a b\nab"[..], "\"ab\" is not a merge"),
        (b"a b c", "\"a b c\" is not a merge"),
        (b"a ", "\"a \" is not a merge"),
        (b"a c", "the merge \"a\" \"c\" makes \"c\""),
        (b"c a", "the merge \"c\" \"a\" makes \"c\""),
        (b"b a", "the merge \"b\" \"a\" makes \"ba\""),
        (b"\xff a", "not UTF-8"),
    ] {
        let folder = folder(&[("vocab.json", vocab), ("merges.txt", merges)]);
        let path = |name| folder.path().join(name);
        assert_refused(
            &TokenizerFiles::vocab_and_merges(path("vocab.json"), path("merges.txt")),
            &["merges.txt: ", words],
        );
    }
}

#[cfg(feature = "tokenizers")]
#[test]
fn broken_tokenizer_json_is_refused() {
    let byte_level = |added: &str, vocab: &str, merges: &str| {
        format!(
            r#"{{"added_tokens": [{added}], "normalizer": null, "pre_tokenizer": {{"type": "ByteLevel", "add_prefix_space": false}},
            "decoder": {{"type": "ByteLevel"}}, "model": {{"vocab": {vocab}, "merges": {merges}}}}}"#
        )
    };
    let added = |id: &str| format!(r#"{{"id": {id}, "content": "<s>", "special": true}}"#);
    let model = |model: &str, more: &str| format!(r#"{{"version": "1.0", "model": {model}{more}}}"#);
    let (vocab, merges) = (r#"{"a": 0, "b": 1, "ab": 2}"#, r#"["a b"]"#);
    for (json, words) in [
        (String::new(), "not JSON: it is empty"),
        ("{".into(), "not JSON: it ends too early"),
        ("{}".into(), "no model"),
        ("[".repeat(100_000), "not JSON"),
        (byte_level("", vocab, r#"["a c"]"#), "the merge \"a\" \"c\" makes \"c\""),
        (byte_level("", vocab, r#"["ab"]"#), "\"ab\" is not a merge"),
        (byte_level("", vocab, r#"[["", "a"]]"#), "makes \"\""),
        (byte_level(&added("9"), vocab, merges), "no piece with the id 3; the next one is \"<s>\" with 9"),
        (byte_level(&added("4294967296"), vocab, merges), "with 4294967296"),
        (byte_level(&added("1"), vocab, merges), "the id 1 twice"),
        (byte_level("", r#"{"a": 0, "b": 5}"#, "[]"), "no piece with the id 1"),
        (model(r#"{"type": "Nonsense"}"#, ""), "a model of type \"Nonsense\""),
        (model(r#"{"type": "WordLevel", "vocab": {"a": 7}, "unk_token": "a"}"#, ""), "no piece with the id 0"),
        (
            model(
                r#"{"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}"#,
                r#", "normalizer": {"type": "Precompiled"}"#,
            ),
            "\"Precompiled\"",
        ),
        (
            model(
                r#"{"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}"#,
                r#", "decoder": {"type": "Sequence", "decoders": [{"type": "Strip", "content": " ", "start": 0, "stop": 1}]}"#,
            ),
            "strips",
        ),
        (
            model(
                r#"{"type": "BPE", "vocab": {"a": 0, "é": 1}, "merges": ["a é"], "continuing_subword_prefix": "x"}"#,
                "",
            ),
            "prefix",
        ),
    ] {
        let folder = folder(&[("tokenizer.json", json.as_bytes())]);
        let path = folder.path().join("tokenizer.json");
        assert_refused(&TokenizerFiles::tokenizer_json(path), &["tokenizer.json: ", words]);
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let missing = TokenizerFiles::tokenizer_json("/nonexistent/tokenizer.json");
    assert_refused(&missing, &["cannot read /nonexistent/tokenizer.json"]);
    assert_refused(&TokenizerFiles::None, &["without a tokenizer"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever happened to a file: an error, or a tokenizer that works.
    #[test]
    fn damaged_files_do_no_harm(
        name in prop::sample::select(vec!["byte_level_json", "byte_level_stripping", "word_piece", "sentence_piece"]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..9, "[0-9a-z\\[\\]{}\",:]{0,3}|\\PC{0,3}"), 0..4),
    ) {
        let path = format!("{}/tests/fixtures/tokenizer/{name}/tokenizer.json", env!("CARGO_MANIFEST_DIR"));
        let mut json = std::fs::read(path).unwrap();
        for (place, removed, inserted) in damage {
            let start = place.index(json.len());
            let end = json.len().min(start + removed);
            json.splice(start..end, inserted.into_bytes());
        }
        if let Ok(tokenizer) = parse(&json, &Settings::default(), Path::new("tokenizer.json")) {
            for special in [true, false] {
                let tokens = tokenizer.encode("the theory, don't [SEP] <special> x<|endoftext|> é漢🙂", special);
                let ids: Vec<u32> = tokens.iter().flatten().map(|token| token.id).collect();
                drop(tokenizer.decode(&ids, special));
                drop(tokenizer.decode_bytes(&ids, special));
            }
        }
    }
}
