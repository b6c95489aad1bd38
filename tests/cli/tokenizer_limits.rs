//! Tokenizers whose files ask for too much: each is one error that names the file and the component, soon.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Done, gpt2};

/// A `tokenizer.json` with these parts, and one letter a token.
fn tokenizer(parts: Value) -> tempfile::TempDir {
    let vocab: serde_json::Map<String, Value> =
        ["[UNK]", "a", "b", " ", "x", "▁"].into_iter().zip(0..).map(|(piece, id)| (piece.into(), json!(id))).collect();
    let isolated = json!({"type": "Split", "pattern": {"Regex": "(?s)."}, "behavior": "Isolated", "invert": false});
    let mut file = json!({
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": isolated,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"},
    });
    file.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), file.to_string()).unwrap();
    folder
}

fn replace(pattern: Value, content: &str) -> Value {
    json!({"type": "Replace", "pattern": pattern, "content": content})
}

fn split(pattern: Value) -> Value {
    json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false})
}

/// The normalizers one after the other.
fn normalizers(all: Vec<Value>) -> Value {
    json!({"normalizer": {"type": "Sequence", "normalizers": all}})
}

fn decoders(all: Vec<Value>) -> Value {
    json!({"decoder": {"type": "Sequence", "decoders": all}})
}

/// Tokenizes a text from stdin.
fn encode(parts: &Value, text: &str) -> crate::harness::Run {
    let folder = tokenizer(parts.clone());
    // It is read before the text.
    let path = folder.keep();
    gpt2(&["tokenize", "--format", "ids", "--file", "-", "--tokenizer", path.to_str().unwrap()]).stdin(text)
}

#[track_caller]
fn refused(parts: &Value, text: &str, words: &[&str]) -> Done {
    let start = Instant::now();
    let done = encode(parts, text).fails(1, &[&["tokenizer.json: "], words].concat());
    assert_eq!(done.stderr().lines().count(), 1, "{}", done.stderr());
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    done
}

#[track_caller]
fn ids(parts: &Value, text: &str) -> String {
    encode(parts, text).succeeds().stdout().trim_end().to_owned()
}

#[test]
fn patterns_that_match_the_empty_string_are_refused() {
    for pattern in [
        json!({"Regex": "^"}),
        json!({"Regex": r"\b"}),
        json!({"Regex": "a*"}),
        json!({"Regex": ""}),
        json!({"Regex": "(?=a)"}),
        json!({"String": ""}),
    ] {
        let fault = "Replace: the pattern ";
        let both = vec![json!({"type": "NFC"}), replace(pattern.clone(), "x")];
        let words = ["normalizer.normalizers[1]: ", fault, " matches the empty string"];
        refused(&normalizers(both), "banana", &words);
        refused(&json!({"normalizer": replace(pattern.clone(), "x")}), "", &["normalizer: ", fault]);
        refused(&decoders(vec![json!({"type": "Fuse"}), replace(pattern, "x")]), "banana", &["decoder.decoders[1]: "]);
    }
}

/// As in transformers.
#[test]
fn patterns_that_match_the_empty_string_split() {
    for (pattern, expected) in [("^", "0"), ("a*", "1 2 1"), ("", "1 2 1"), (r"\b", "0"), ("(?=a)", "0 1")] {
        assert_eq!(ids(&json!({"pre_tokenizer": split(json!({"Regex": pattern}))}), "aba"), expected, "{pattern}");
    }
    assert_eq!(ids(&json!({"pre_tokenizer": split(json!({"String": ""}))}), "aba"), "1 2 1");
}

/// The engine would read these otherwise than the library does.
#[test]
fn parts_of_patterns_that_are_not_supported_are_named() {
    let words = ["pre_tokenizer: Split: the regular expression \"a\\\\K\" has `\\K`, which is not supported"];
    refused(&json!({"pre_tokenizer": split(json!({"Regex": r"a\K"}))}), "a", &words);
}

/// As in transformers: look-around says where to split.
#[test]
fn patterns_that_are_never_empty_work() {
    assert_eq!(ids(&normalizers(vec![replace(json!({"Regex": "^a|b+$"}), "x")]), "aabb"), "4 1 4");
    assert_eq!(ids(&json!({"pre_tokenizer": split(json!({"Regex": "(?=a)"}))}), "aaba"), "1 0 1");
    assert_eq!(ids(&json!({"pre_tokenizer": split(json!({"Regex": r"\s+(?!\S)|\s+|\S"}))}), "a   b"), "1 0 3 2");
}

#[test]
fn growth_is_limited() {
    let doubling = || replace(json!({"String": "a"}), "aa");
    let too_much = "which is too much";
    refused(&normalizers(vec![doubling(); 25]), "a", &["normalizer.normalizers[", "]: Replace: ", too_much]);
    refused(&normalizers(vec![doubling(); 25]), &"b a".repeat(10_000), &["Replace: ", too_much]);
    // A file's pieces are decoded when it is loaded.
    refused(&decoders(vec![doubling(); 40]), "b", &["decoder.decoders[", "]: Replace: ", too_much]);
    let huge = "b".repeat(2_000_000);
    refused(&json!({"normalizer": {"type": "Prepend", "prepend": huge}}), "a", &["normalizer: Prepend: ", too_much]);
    let each = json!({"normalizer": replace(json!({"Regex": "[ab]"}), &"b".repeat(1000))});
    refused(&each, &"a".repeat(100_000), &["normalizer: Replace: ", too_much]);
    let spaces = |at: u32| {
        let replacement = char::from_u32(0x3400 + at).unwrap();
        json!({"type": "Metaspace", "replacement": replacement, "prepend_scheme": "always", "split": true})
    };
    let each = split(json!({"Regex": "."}));
    let all: Vec<Value> = [each].into_iter().chain((0..400).map(spaces)).collect();
    let all = json!({"pre_tokenizer": {"type": "Sequence", "pretokenizers": all}});
    refused(&all, &"a".repeat(20_000), &["pre_tokenizer.pretokenizers[", "]: Metaspace: ", too_much]);
    let token = json!({"id": 6, "content": "<a>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": true, "special": false});
    let mut added = normalizers(vec![doubling(); 25]);
    added["added_tokens"] = json!([token]);
    refused(&added, "b", &["normalizer.normalizers[", too_much]);
}

/// A decoder that does much only with many tokens at once.
#[test]
fn growth_is_limited_in_decoding() {
    let all = [json!({"type": "Fuse"})].into_iter().chain(vec![replace(json!({"String": "ab"}), "abab"); 40]).collect();
    let folder = tokenizer(decoders(all));
    let path = folder.path().to_str().unwrap();
    let decode =
        |ids: &str, format: &str| gpt2(&["tokenize", "--decode", ids, "--format", format, "--tokenizer", path]);
    assert_eq!(decode("1 1 2 2", "ids").succeeds().stdout(), "1 1 2 2\n");
    // Here each token is shown by itself.
    assert_eq!(decode("1 2", "json").succeeds().json()["text"], "ab");
    assert_eq!(decode("2 1", "text").succeeds().stdout(), "ba");
    decode("1 2", "text").fails(1, &["tokenizer.json: decoder.decoders[", "]: Replace: "]);
    let tokenizer = gpt2::tokenizer::Tokenizer::load(&gpt2::tokenizer::TokenizerFiles::tokenizer_json(
        folder.path().join("tokenizer.json"),
    ));
    let tokenizer = tokenizer.unwrap();
    assert_eq!(tokenizer.decode(&[2, 1], false).unwrap(), "ba");
    let error = tokenizer.decode(&[1, 2], false).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json: decoder.decoders[") && error.contains("]: Replace: "), "{error}");
}

/// A token that becomes much longer than its piece would do so wherever it is in a text.
#[test]
fn growth_is_limited_for_each_token() {
    let huge = replace(json!({"String": "a"}), &"b".repeat(1_000_000));
    // It is decoded after another one, `[UNK]`.
    let words =
        ["decoder.decoders[0]: Replace: it makes 1000005 bytes or more of 6 bytes of tokens, which is too much"];
    refused(&decoders(vec![huge]), "b", &words);
    let spaces = json!({"type": "WordPiece", "prefix": "##", "cleanup": false});
    let words = ["decoder.decoders[", "]: WordPiece: it makes ", " bytes of tokens, which is too much"];
    refused(&decoders(vec![spaces; 999]), "b", &words);
    // Much beside a long piece is much, too.
    let mut beside = decoders(vec![replace(json!({"String": "a"}), &"b".repeat(100_000))]);
    beside["model"] = json!({"type": "WordLevel", "vocab": {"b".repeat(16_000): 0, "a": 1}, "unk_token": "a"});
    refused(&beside, "a", &["decoder.decoders[0]: Replace: it makes 100000 bytes or more of 1 byte of tokens"]);
    // Eight times the length is fine, and so is more of a short piece.
    let long = json!({"type": "WordLevel", "vocab": {"a": 0, "aaaaaaaaaa": 1}, "unk_token": "a"});
    for (content, fits) in [("bbbbbbbb", true), ("bbbbbbbbb", false)] {
        let mut parts = decoders(vec![replace(json!({"String": "a"}), content)]);
        parts["model"] = long.clone();
        match fits {
            true => assert_eq!(ids(&parts, "a"), "0"),
            false => drop(refused(&parts, "a", &["it makes 81 bytes or more of 10 bytes of tokens"])),
        }
    }
    let short = replace(json!({"String": "a"}), &"b".repeat(64));
    assert_eq!(ids(&decoders(vec![short]), "a"), "1");
}

#[test]
fn what_is_too_large_is_refused() {
    let prepend = json!({"type": "Prepend", "prepend": "a"});
    refused(&normalizers(vec![prepend; 100_000]), "a", &["`normalizer` has more than 1000 components"]);
    let nested = (0..200).fold(json!({"type": "NFC"}), |inner, _| normalizers(vec![inner])["normalizer"].take());
    refused(&json!({"normalizer": nested}), "a", &["within each other"]);
    for pattern in [r"(?=x)(\p{L}{900}){900}", r"\p{L}{6000}"] {
        let parts = json!({"pre_tokenizer": split(json!({"Regex": pattern}))});
        refused(&parts, "a", &["pre_tokenizer: Split: the regular expression ", "is too large"]);
    }
    let ids = vec![0; 100_000];
    let template = json!({"type": "TemplateProcessing", "single": vec![json!({"SpecialToken": {"id": "x"}}); 20_000],
        "special_tokens": {"x": {"id": "x", "ids": ids, "tokens": []}}});
    refused(&json!({"post_processor": template}), "a", &["`post_processor` adds more than 1000 tokens"]);
    let twice = json!({"type": "TemplateProcessing", "single": vec![json!({"Sequence": {"id": "A"}}); 2],
        "special_tokens": {}});
    refused(&json!({"post_processor": twice}), "a", &["repeats the text"]);
    let most = 1_u64 << 60;
    let word_piece = json!({"model": {"type": "WordPiece", "vocab": {"[UNK]": 0, "a": 1, "##a": 2}, "unk_token": "[UNK]",
        "continuing_subword_prefix": "##", "max_input_chars_per_word": most}, "pre_tokenizer": null});
    assert_eq!(self::ids(&word_piece, "aa"), "1 2");
    refused(&word_piece, &"a".repeat(5000), &["model: WordPiece: a word of 5000 bytes"]);
    let pieces: Vec<Value> = (1..1000).map(|length| json!(["a".repeat(length), -1.0])).collect();
    let unigram = json!({"model": {"type": "Unigram", "unk_id": 0, "vocab": pieces}});
    refused(&unigram, "a", &["`model.vocab`: too many pieces begin like \"aaa"]);
    let bpe = json!({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [], "unk_token": "u".repeat(5000)}});
    refused(&bpe, "a", &["`model.unk_token` has 5000 bytes"]);
}

/// What only concerns other programs does nothing here.
#[test]
fn padding_and_truncation_are_ignored() {
    let most = 1_u64 << 60;
    let parts = json!({
        "padding": {"strategy": {"Fixed": most}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "[UNK]"},
        "truncation": {"direction": "Right", "max_length": most, "strategy": "LongestFirst", "stride": most},
    });
    assert_eq!(ids(&parts, "ab"), "1 2");
}

/// White space that added tokens take along is looked at once, however many of them are in it.
#[test]
fn added_tokens_in_long_white_space_take_linear_time() {
    let token = |id: u32| {
        json!([{"id": id, "content": " ", "single_word": false, "lstrip": true, "rstrip": true, "normalized": true,
            "special": false}])
    };
    let text = format!("a{}b", " ".repeat(1_000_000));
    assert!(ids(&json!({"added_tokens": token(3)}), &text).starts_with("1 3 "));
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let own = json!({"added_tokens": token(3), "pre_tokenizer": bytes, "decoder": bytes,
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "Ġ": 2}, "merges": []}});
    assert!(ids(&own, &text).starts_with("0 3 "));
}
