use std::path::Path;

use proptest::prelude::*;
use serde_json::Value;

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
        ("{\"a\": 0", "not JSON: it breaks off"),
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
        ("{".into(), "not JSON: it breaks off"),
        ("{}".into(), "no model"),
        ("[".repeat(100_000), "more lists and objects within each other than can be read"),
        (byte_level("", vocab, r#"["a c"]"#), "the merge \"a\" \"c\" makes \"c\""),
        (byte_level("", vocab, r#"["ab"]"#), "\"ab\" is not a merge"),
        (byte_level("", vocab, r#"[["", "a"]]"#), "makes \"\""),
        (
            byte_level(&added("9"), r#"{"a": 0, "b": 2}"#, merges),
            "no piece with the id 1; the next one is \"b\" with 2",
        ),
        (byte_level(&added("1"), r#"{"a": 0, "b": 1, "ab": 3}"#, merges), "the id 1 twice"),
        (byte_level(r#"{"content": "<s>"}"#, vocab, merges), "`added_tokens`: item 0: its `id` is not a whole number"),
        (byte_level(r#"{"id": 3, "content": 5}"#, vocab, merges), "`added_tokens`: item 0: it has no text `content`"),
        (byte_level("", r#"{"a": "0"}"#, merges), "the id of \"a\" is not a whole number"),
        (byte_level("", vocab, r#"["a b", 5]"#), "`model.merges`: item 1"),
        (model(r#"{"type": "WordLevel", "vocab": {"a": 0}, "unk_token": 5}"#, ""), "its `model` of type \"WordLevel\""),
        (
            model(
                r#"{"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}"#,
                r#", "normalizer": {"type": "Replace"}"#,
            ),
            "its `normalizer` of type \"Replace\"",
        ),
        (
            model(
                r#"{"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}"#,
                r#", "post_processor": {"type": "X"}"#,
            ),
            "a post_processor of type \"X\"",
        ),
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

/// The tokenizer in a folder.
fn found(folder: &Path) -> TokenizerFiles {
    TokenizerFiles::find(&|name| Ok(Some(folder.join(name)).filter(|path| path.is_file()))).unwrap()
}

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats").join(name)
}

/// Made by `tests/fixtures/tokenizer/make_random.py`: every setting that transformers knows, in both layouts.
#[test]
fn random_settings_give_the_ids_of_transformers() {
    let read = |name: &str| std::fs::read_to_string(fixture(name)).unwrap();
    let (vocab, merges) = (read("tok_bos/model/vocab.json"), read("tok_bos/model/merges.txt"));
    let cases = ["../tokenizer/random.json", "../tokenizer/classes.json"];
    let cases = cases.map(|name| serde_json::from_str::<Vec<Value>>(&read(name)).unwrap()).concat();
    let ids = |ids: &Value| -> Vec<u32> { serde_json::from_value(ids.clone()).unwrap() };
    for (number, case) in cases.iter().enumerate() {
        let mut files = case["files"].clone();
        if let Some(tokenizer) = files.get_mut("tokenizer.json") {
            tokenizer["model"]["vocab"] = serde_json::from_str(&vocab).unwrap();
            tokenizer["model"]["merges"] = merges.lines().skip(1).collect();
        }
        let files: Vec<(&str, String)> =
            files.as_object().unwrap().iter().map(|(name, json)| (name.as_str(), json.to_string())).collect();
        let mut files: Vec<(&str, &[u8])> = files.iter().map(|(name, json)| (*name, json.as_bytes())).collect();
        if !files.iter().any(|(name, _)| *name == "tokenizer.json") {
            files.extend([("vocab.json", vocab.as_bytes()), ("merges.txt", merges.as_bytes())]);
        }
        let folder = folder(&files);
        let tokenizer = Tokenizer::load(&found(folder.path())).unwrap();
        assert!(tokenizer.merges().is_some(), "{number} runs in our encoder");
        for text in case["texts"].as_array().unwrap() {
            for (key, special) in [("ids", true), ("plain", false)] {
                let tokens = tokenizer.encode(text["text"].as_str().unwrap(), special).unwrap();
                let tokens: Vec<u32> = tokens.iter().map(|token| token.id).collect();
                let found = [tokenizer.before_text(), &tokens, tokenizer.after_text()].concat();
                assert_eq!(found, ids(&text[key]), "{number}: {key} of {text}");
            }
            if let Some(decoded) = text["decoded"].as_str() {
                assert_eq!(tokenizer.decode(&ids(&text["ids"]), false).unwrap(), decoded, "{number}: {text}");
            }
        }
    }
}

/// Files that are saved give the same tokenizer again, and are those of the folder where there are any.
#[test]
fn saved_files_give_the_same_tokenizer() {
    let gguf = crate::checkpoint::gguf::Gguf::open(&fixture("gguf_user_defined/model/tiny-f32.gguf")).unwrap();
    let sources = [
        TokenizerFiles::BuiltIn,
        TokenizerFiles::Gguf(gguf.into()),
        found(&fixture("tok_added_tokens_json/model")),
        found(&fixture("tok_prefix_space/model")),
        found(&fixture("tokjson_bos/model")),
        found(&fixture("openai_tf/model")),
        TokenizerFiles::tokenizer_json(fixture("tokjson_prefix_space/model/tokenizer.json")),
    ];
    for source in sources {
        let saved = source.to_save().unwrap();
        let mut files: Vec<(&str, &[u8])> = saved.iter().map(|file| (file.name, &*file.bytes)).collect();
        files.push(("config.json", br#"{"model_type": "gpt2"}"#));
        let folder = folder(&files);
        let again = found(folder.path());
        let (first, second) = (Tokenizer::load(&source).unwrap(), Tokenizer::load(&again).unwrap());
        assert_eq!(first.vocab_size(), second.vocab_size());
        assert_eq!(first.before_text(), second.before_text());
        for text in ["Hello <tag> naïve    <|user|> <s>x", "\n<|endoftext|>a<tag> word", ""] {
            for special in [true, false] {
                assert_eq!(first.encode(text, special).unwrap(), second.encode(text, special).unwrap());
            }
        }
        assert_eq!(again.to_save().unwrap(), saved);
    }
}

#[test]
fn small_files_that_cannot_be_used_are_named() {
    let vocab = br#"{"a": 0}"#;
    for (name, content, words) in [
        ("tokenizer_config.json", "[]", "not a JSON object"),
        ("tokenizer_config.json", "{", "not JSON: it breaks off at column 1"),
        ("tokenizer_config.json", r#"{"added_tokens_decoder": []}"#, "`added_tokens_decoder` is not an object"),
        ("tokenizer_config.json", r#"{"added_tokens_decoder": {"x": {}}}"#, "\"x\" is not a token id"),
        ("tokenizer_config.json", r#"{"added_tokens_decoder": {"1": 2}}"#, "the token 1: it is not an object"),
        (
            "tokenizer_config.json",
            r#"{"added_tokens_decoder": {"1": {"content": "x", "lstrip": 1}}}"#,
            "`lstrip` is neither true nor false",
        ),
        ("special_tokens_map.json", "3", "not a JSON object"),
        ("added_tokens.json", r#"{"x": "y"}"#, "the id of \"x\" is not a whole number"),
    ] {
        let folder = folder(&[("vocab.json", vocab), ("merges.txt", b""), (name, content.as_bytes())]);
        assert_refused(&found(folder.path()), &[&format!("{name}: "), words]);
    }
}

#[test]
fn tokenizers_of_other_programs_are_named() {
    for (name, words) in [
        ("vocab.txt", "a WordPiece vocabulary"),
        ("spiece.model", "a SentencePiece model"),
        ("sentencepiece.bpe.model", "a SentencePiece model"),
        ("tekken.json", "Mistral"),
        ("vocab.json", "without its merges; put the tokenizer's merges.txt beside it"),
        ("merges.txt", "without its vocabulary; put the tokenizer's vocab.json beside it"),
    ] {
        let folder = folder(&[(name, b"")]);
        assert_refused(&found(folder.path()), &[name, words]);
    }
    for name in ["vocab.txt", "spiece.model", "tekken.json"] {
        assert!(matches!(TokenizerFiles::file(Path::new(name)), Ok(TokenizerFiles::Foreign { .. })));
    }
    for name in ["vocab.json", "merges.txt", "config.json", "tokenizer_config.json"] {
        let error = TokenizerFiles::file(Path::new(name)).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("the folder"), "{error}");
    }
    assert!(matches!(found(folder(&[]).path()), TokenizerFiles::None));
}

/// With these classes, transformers makes other ids of the files than they say themselves, or refuses them.
#[test]
fn classes_of_other_tokenizers_are_refused() {
    let json: &[u8] =
        br#"{"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}, "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}}"#;
    let vocab: [(&str, &[u8]); 2] =
        [("vocab.json", br#"{"a": 0, "b": 1, "ab": 2}"#.as_slice()), ("merges.txt", b"a b")];
    let classes =
        ["WhisperTokenizer", "Qwen2TokenizerFast", "GPTNeoXTokenizer", "CLIPTokenizer", "BertTokenizer", "T5Tokenizer"];
    for (files, more) in [(&[("tokenizer.json", json)][..], &[][..]), (&vocab, &["LlamaTokenizer", "MyTokenizer"])] {
        for class in classes.iter().chain(more) {
            let named = format!(r#"{{"tokenizer_class": "{class}"}}"#);
            for place in ["tokenizer_config.json", "config.json"] {
                let folder = folder(&[files, &[(place, named.as_bytes())]].concat());
                assert_refused(&found(folder.path()), &[place, "`tokenizer_class`", class, "PreTrainedTokenizerFast"]);
            }
        }
        let folder = folder(&[files, &[("config.json", br#"{"model_type": "whisper"}"#)]].concat());
        assert_refused(&found(folder.path()), &["config.json", "`model_type`", "\"whisper\""]);
    }
    for class in
        ["PreTrainedTokenizerFast", "TokenizersBackend", "LlamaTokenizerFast", "MyTokenizer", "BloomTokenizerFast"]
    {
        let named = format!(r#"{{"tokenizer_class": "{class}"}}"#);
        let folder = folder(&[("tokenizer.json", json), ("tokenizer_config.json", named.as_bytes())]);
        let tokens = Tokenizer::load(&found(folder.path())).unwrap().encode("ab", true).unwrap();
        assert_eq!(tokens.len(), 1, "{class}");
    }
}

/// A class that takes more than vocabulary and merges to build is followed where the file says the same.
#[cfg(feature = "tokenizers")]
#[test]
fn a_file_that_says_what_its_class_makes_is_taken_as_it_is() {
    let json = |normalizer: &str| {
        format!(
            r#"{{"normalizer": {normalizer}, "pre_tokenizer": {{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true}},
            "decoder": {{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true}}, "model": {{"type": "BPE", "vocab": {{"a": 0, "Ã": 1, "©": 2, "Ã©": 3}}, "merges": ["Ã ©"]}}}}"#
        )
    };
    let class = br#"{"tokenizer_class": "GPTNeoXTokenizer"}"#;
    let load = |normalizer: &str| {
        let folder = folder(&[("tokenizer.json", json(normalizer).as_bytes()), ("tokenizer_config.json", class)]);
        Tokenizer::load(&found(folder.path()))
    };
    let tokens = load(r#"{"type": "NFC"}"#).unwrap().encode("e\u{301}a", true).unwrap();
    assert_eq!(tokens.iter().map(|token| token.id).collect::<Vec<_>>(), [3, 0]);
    assert!(load("null").is_err());
}

#[test]
fn byte_order_marks_are_skipped() {
    let marked = |text: &str| [b"\xef\xbb\xbf", text.as_bytes()].concat();
    let folder = folder(&[
        ("vocab.json", &marked(r#"{"a": 0, "b": 1, "ab": 2}"#)),
        ("merges.txt", &marked("#version: 0.2\na b\n")),
        ("added_tokens.json", &marked(r#"{"<t>": 3}"#)),
        ("tokenizer_config.json", &marked(r#"{"unk_token": null}"#)),
    ]);
    let files = found(folder.path());
    let tokens = Tokenizer::load(&files).unwrap().encode("ab<t>a", true).unwrap();
    assert_eq!(tokens.iter().map(|token| token.id).collect::<Vec<_>>(), [2, 3, 0]);
    assert!(files.to_save().unwrap().iter().all(|file| !file.bytes.starts_with(b"\xef")));
}

/// An added token of which the normalizer leaves nothing is between all characters. The library panics where those have
/// several bytes.
#[cfg(feature = "tokenizers")]
#[test]
fn an_added_token_may_be_nothing() {
    let tokenizer = Tokenizer::load(&TokenizerFiles::tokenizer_json(fixture("../tokenizer/panics.json"))).unwrap();
    let ids =
        |text: &str| tokenizer.encode(text, true).map(|tokens| tokens.iter().map(|token| token.id).collect::<Vec<_>>());
    assert_eq!(ids("x y").unwrap(), vec![0, 3, 1]);
    assert_eq!(ids("xx").unwrap(), vec![0, 0]);
    assert_eq!(ids("xé").unwrap(), vec![0, 2, 2]);
    tokenizer.encode(&std::fs::read_to_string(fixture("../tokenizer/panics.txt")).unwrap(), true).unwrap();
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
