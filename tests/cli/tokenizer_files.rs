//! Tokenizers as other programs save them, through every subcommand that takes text.
//!
//! The goldens are transformers', llama.cpp's and OpenAI's: see `tests/fixtures/formats/README.md`.

use std::path::{Path, PathBuf};

use gpt2::checkpoint::gguf::{Gguf, TokenKind};
use serde_json::{Value, json};

use crate::harness::{gpt2, id_text};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats").join(name)
}

fn golden(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixture(name).join("golden.json")).unwrap()).unwrap()
}

fn texts(name: &str) -> Vec<Value> {
    golden(name)["tokenize"].as_array().unwrap().clone()
}

/// The model whose tokenizer adds BOS, and whose vocabulary holds those of the others.
fn gguf() -> String {
    fixture("gguf_user_defined/model/tiny-f32.gguf").display().to_string()
}

fn ids(arguments: &[&str], text: &Value) -> String {
    let prompt = format!("--prompt={}", text.as_str().unwrap());
    let done = gpt2(&[&["tokenize", "--format", "ids", &prompt], arguments].concat()).succeeds();
    done.stdout().trim_end().to_owned()
}

/// A model in a folder, with the tokenizer of the GGUF file.
fn as_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.safetensors");
    gpt2(&["convert", "--model", &gguf(), "--to", "f32", model.to_str().unwrap()]).succeeds();
    folder
}

/// A model in a folder, with this tokenizer.
fn with_tokenizer(name: &str) -> tempfile::TempDir {
    let folder = as_folder();
    for file in ["vocab.json", "merges.txt", "tokenizer_config.json"] {
        std::fs::remove_file(folder.path().join(file)).unwrap();
    }
    for file in fixture(name).join("model").read_dir().unwrap() {
        let file = file.unwrap();
        if file.file_name() != "config.json" {
            std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
        }
    }
    folder
}

#[test]
fn every_form_gives_the_ids_of_its_reference() {
    for name in [
        "tok_added_tokens_decoder",
        "tok_added_tokens_json",
        "tok_bos",
        "tok_prefix_space",
        "tokjson_added_tokens_decoder",
        "tokjson_added_tokens_json",
        "tokjson_bos",
        "tokjson_bos_not_followed",
        "tokjson_prefix_space",
        "gguf_user_defined",
        "openai_tf",
    ] {
        let model = fixture(name).join("model").display().to_string();
        for text in texts(name) {
            assert_eq!(ids(&["--model", &model], &text["text"]), id_text(&text["ids"]), "{name}: {text}");
            if let Some(plain) = text.get("ids_no_special") {
                assert_eq!(ids(&["-m", &model, "--no-special"], &text["text"]), id_text(plain), "{name}: {text}");
            }
            let decoded = gpt2(&["tokenize", "-m", &model, "--decode", &id_text(&text["ids"])]).succeeds();
            assert_eq!(decoded.stdout(), text["decoded"].as_str().unwrap(), "{name}: {text}");
        }
    }
}

/// The positions of a text's tokens, whatever is added or taken along, are contiguous and cover it.
#[test]
fn positions_cover_the_text() {
    for name in ["tok_bos", "tok_prefix_space", "tokjson_added_tokens_decoder", "gguf_user_defined"] {
        let model = fixture(name).join("model").display().to_string();
        for text in texts(name) {
            let prompt = format!("--prompt={}", text["text"].as_str().unwrap());
            let json = gpt2(&["tokenize", "-m", &model, "--format", "json", &prompt]).succeeds().json();
            let mut end = 0;
            for token in json["tokens"].as_array().unwrap() {
                assert_eq!(token["start"], end, "{name}: {json}");
                end = token["end"].as_u64().unwrap();
            }
            assert_eq!(end, text["text"].as_str().unwrap().len() as u64, "{name}: {json}");
        }
    }
}

#[test]
fn a_token_that_starts_texts_is_there_once_and_never_before_ids() {
    let text = texts("tok_bos")[0].clone();
    let (prompt, with, bare) = (text["text"].as_str().unwrap(), id_text(&text["ids"]), id_text(&text["ids_bare"]));
    let model = fixture("tok_bos/model").display().to_string();
    assert_eq!(ids(&["-m", &model, "--bos"], &text["text"]), with);
    let folder = with_tokenizer("tok_bos");
    let model = folder.path().to_str().unwrap();
    let prompt_ids = |arguments: &[&str]| {
        let json = gpt2(&[&["topk", "-m", model, "--format", "json"], arguments].concat()).succeeds().json();
        id_text(&json["prompt_ids"])
    };
    assert_eq!(prompt_ids(&[prompt]), with);
    assert_eq!(prompt_ids(&[prompt, "--bos", "--no-special"]), with);
    assert_eq!(prompt_ids(&["--ids", &bare]), bare);
    let generated = gpt2(&["generate", "-m", model, "-n", "1", "--format", "json", prompt]).succeeds();
    assert_eq!(id_text(&generated.json()["prompt_ids"]), with);
    assert_eq!(generated.stderr(), "", "a folder's tokenizer does as in transformers, without a word");
    let traced = gpt2(&["trace", "-m", model, "--format", "json", prompt]).succeeds().json();
    assert_eq!(id_text(&traced["ids"]), with);
}

/// A token in front is context, as with `--bos`: the text's first token has a probability.
#[test]
fn a_text_is_scored_after_the_token_that_starts_it() {
    let folder = with_tokenizer("tok_bos");
    let model = folder.path().to_str().unwrap();
    let text = texts("tok_bos")[0].clone();
    let score = |arguments: &[&str], stdin: &str| {
        let arguments = [&["score", "-m", model, "--format", "json"], arguments].concat();
        gpt2(&arguments).stdin(stdin).succeeds().json()
    };
    let prompt = text["text"].as_str().unwrap();
    let plain = score(&[prompt], "");
    assert_eq!((&plain["ids"], &plain["protocol"]["bos"]), (&text["ids_bare"], &json!(true)));
    assert!(plain["logprobs"][0].is_number(), "{plain}");
    assert_eq!(score(&[prompt, "--bos"], ""), plain);
    let of_ids = score(&["--ids", &id_text(&text["ids"])], "");
    assert_eq!(of_ids["logprobs"].as_array().unwrap()[1..], *plain["logprobs"].as_array().unwrap());
    let rows = format!("{}\n{}\n", json!({"id": 1, "text": prompt}), json!({"id": 2, "ids": text["ids"]}));
    let done = gpt2(&["score", "-m", model, "--input", "-"]).stdin(rows).succeeds().json_lines();
    assert_eq!((&done[0]["logprobs"], &done[0]["protocol"]["bos"]), (&plain["logprobs"], &json!(true)));
    assert_eq!((&done[1]["logprobs"], &done[1]["protocol"]["bos"]), (&of_ids["logprobs"], &json!(false)));
}

#[test]
fn a_gguf_files_start_of_texts_is_followed_and_said_once() {
    let rows = "{\"prompt\": \"Hello world\"}\n{\"prompt\": \"Hello world\"}\n";
    let done = gpt2(&["generate", "-m", &gguf(), "-n", "1", "--input", "-"]).stdin(rows).succeeds();
    for record in done.json_lines() {
        assert_eq!(record["prompt_ids"], texts("gguf_user_defined")[0]["ids"]);
    }
    let said = "note: texts start with \"<|endoftext|>\", as the file's tokenizer.ggml.add_bos_token says\n";
    assert_eq!(done.stderr(), said);
    assert_eq!(gpt2(&["tokenize", "-m", &gguf(), "a"]).succeeds().stderr(), said);
    assert_eq!(gpt2(&["tokenize", "-m", &gguf(), "--quiet", "a"]).succeeds().stderr(), "");
    assert_eq!(gpt2(&["topk", "-m", &gguf(), "--ids", "1"]).succeeds().stderr(), "");
}

/// User-defined tokens are text like any other: decoding does not leave them out.
#[test]
fn only_special_tokens_are_left_out_of_a_text() {
    let ids = id_text(&json!([300, 301, 303]));
    let rows = json!({"prompt_ids": [39], "bad_words_ids": []}).to_string();
    gpt2(&["generate", "-m", &gguf(), "-n", "1", "--input", "-"]).stdin(rows).output();
    let vocabulary = gpt2(&["tokenize", "-m", &gguf(), "--decode", &ids]).succeeds();
    assert_eq!(vocabulary.stdout(), "<|user|><tag>naïve");
}

#[test]
fn convert_keeps_added_tokens_and_what_they_are() {
    let out = tempfile::tempdir().unwrap();
    for (name, added) in [
        ("tokjson_added_tokens_json", vec![(299, TokenKind::Control), (300, TokenKind::UserDefined)]),
        ("tok_added_tokens_json", vec![(299, TokenKind::Control), (301, TokenKind::UserDefined)]),
        ("tok_bos", vec![(299, TokenKind::Control), (300, TokenKind::Control), (301, TokenKind::UserDefined)]),
        ("tokjson_bos", vec![(300, TokenKind::Control), (301, TokenKind::UserDefined)]),
    ] {
        let source = with_tokenizer(name);
        let file = out.path().join(format!("{name}.gguf"));
        let done =
            gpt2(&["convert", "-m", source.path().to_str().unwrap(), "--to", "f16", file.to_str().unwrap()]).succeeds();
        // Nothing is lost; config.json names another start of text than these tokenizers do.
        let bos = golden(name)["adds_bos"] == true;
        let start =
            "note: from this file, token 300 starts a text, as the tokenizer says, not 299, as config.json does\n";
        let stderr = done.stderr();
        let (notes, wrote) = stderr.split_at(stderr.find("wrote ").expect("the file is named"));
        assert_eq!((notes, wrote.lines().count()), (if bos { start } else { "" }, 1), "{name}: {stderr}");
        let gguf = Gguf::open(&file).unwrap();
        let vocabulary = gguf.vocabulary().unwrap();
        for (id, kind) in added {
            let piece = &vocabulary.tokens[id];
            assert_eq!(golden(name)["added"][&**piece], json!(id), "{name}");
            assert_eq!(vocabulary.kinds[id], kind, "{name}: {piece}");
        }
        assert_eq!(vocabulary.kinds[303], TokenKind::Unused, "a row without a token");
        assert_eq!((vocabulary.add_bos, vocabulary.bos), (bos, Some(if bos { 300 } else { 299 })), "{name}");
        for text in texts(name) {
            assert_eq!(ids(&["-m", file.to_str().unwrap()], &text["text"]), id_text(&text["ids"]), "{name}: {text}");
        }
    }
    let source = with_tokenizer("tok_prefix_space");
    let file = out.path().join("prefix.gguf");
    let done =
        gpt2(&["convert", "-m", source.path().to_str().unwrap(), "--to", "f16", file.to_str().unwrap()]).succeeds();
    assert!(done.stderr().contains("GGUF cannot say add_prefix_space"), "{}", done.stderr());
}

/// What only looks special stays text, and the tokenizer's own start and end of text come before the configuration's.
#[test]
fn convert_to_gguf_keeps_the_tokenizers_roles() {
    let (source, out) = (with_tokenizer("tok_bos"), tempfile::tempdir().unwrap());
    let config = r#"{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<s>"}"#;
    std::fs::write(source.path().join("tokenizer_config.json"), config).unwrap();
    let (model, file) = (source.path().to_str().unwrap(), out.path().join("model.gguf"));
    let done = gpt2(&["convert", "-m", model, "--to", "f16", file.to_str().unwrap()]).succeeds();
    for note in ["<|endoftext|> is ordinary text", "token 300 starts a text", "token 301 ends a text"] {
        assert!(done.stderr().contains(note), "{note}: {}", done.stderr());
    }
    let gguf = Gguf::open(&file).unwrap();
    let vocabulary = gguf.vocabulary().unwrap();
    assert_eq!((vocabulary.bos, vocabulary.eos), (Some(300), Some(301)));
    assert_eq!(
        [299, 300, 301].map(|id| vocabulary.kinds[id]),
        [TokenKind::Normal, TokenKind::Control, TokenKind::Control]
    );
    let text = json!("a<|endoftext|>b</s>");
    let from_folder = ids(&["-m", model], &text);
    assert!(!from_folder.split(' ').any(|id| id == "299"), "{from_folder}");
    assert_eq!(ids(&["-m", file.to_str().unwrap()], &text), from_folder);
}

#[cfg(feature = "tokenizers")]
#[test]
fn convert_names_what_gguf_cannot_say() {
    for (part, json) in [
        ("normalizer", json!({"type": "NFKC"})),
        ("pre_tokenizer", json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false})),
    ] {
        let (source, out) = (with_tokenizer("tokjson_bos"), tempfile::tempdir().unwrap());
        let path = source.path().join("tokenizer.json");
        let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        tokenizer[part] = json;
        std::fs::write(&path, tokenizer.to_string()).unwrap();
        let config = r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#;
        std::fs::write(source.path().join("tokenizer_config.json"), config).unwrap();
        let (model, file) = (source.path().to_str().unwrap(), out.path().join("model.gguf"));
        let convert = gpt2(&["convert", "-m", model, "--to", "f16", file.to_str().unwrap()]);
        convert.fails(1, &["tokenizer.json", &format!("`{part}`")]);
    }
}

#[test]
fn a_tokenizer_of_another_class_leaves_ids_to_use() {
    let source = with_tokenizer("tok_bos");
    let class = r#"{"tokenizer_class": "WhisperTokenizer"}"#;
    std::fs::write(source.path().join("tokenizer_config.json"), class).unwrap();
    let model = source.path().to_str().unwrap();
    let done = gpt2(&["topk", "-m", model, "a"]).fails(1, &["tokenizer_config.json", "WhisperTokenizer", "--ids"]);
    assert_eq!(done.stderr().lines().count(), 1, "{}", done.stderr());
    gpt2(&["topk", "-m", model, "--ids", "5"]).succeeds();
}

#[test]
fn convert_to_safetensors_writes_a_folder_that_works() {
    let folder = as_folder();
    let model = folder.path().to_str().unwrap();
    for text in texts("gguf_user_defined") {
        assert_eq!(ids(&["-m", model], &text["text"]), id_text(&text["ids"]), "{text}");
        assert_eq!(ids(&["-m", model, "--no-special"], &text["text"]), id_text(&text["ids_no_special"]), "{text}");
    }
    for name in ["tokjson_bos", "tok_added_tokens_json"] {
        let (source, out) = (with_tokenizer(name), tempfile::tempdir().unwrap());
        let file = out.path().join("model.safetensors");
        gpt2(&["convert", "-m", source.path().to_str().unwrap(), "--to", "f16", file.to_str().unwrap()]).succeeds();
        for copied in source.path().read_dir().unwrap().map(|file| file.unwrap().file_name()) {
            if !["config.json", "model.safetensors"].contains(&copied.to_str().unwrap()) {
                let read = |folder: &Path| std::fs::read(folder.join(&copied)).unwrap();
                assert_eq!(read(out.path()), read(source.path()), "{name}: {copied:?}");
            }
        }
        let text = texts(name)[1].clone();
        assert_eq!(ids(&["-m", out.path().to_str().unwrap()], &text["text"]), id_text(&text["ids"]));
    }
}

/// Another model's tokenizer in the folder is neither replaced nor mixed with the new one.
#[test]
fn convert_leaves_tokenizer_files_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    let convert = || gpt2(&["convert", "-m", &gguf(), "--to", "f16", file.to_str().unwrap()]).succeeds();
    assert!(convert().stderr().contains("has tokenizer files, which stay as they are"));
    assert_eq!(std::fs::read(folder.path().join("tokenizer.json")).unwrap(), b"{}");
    assert!(!folder.path().join("vocab.json").exists());
    std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let said = convert().stderr();
    assert!(said.contains("vocab.json: part of the tokenizer") && said.lines().all(|line| line.starts_with("wrote ")));
    let again = convert().stderr();
    assert!(again.starts_with("wrote ") && again.lines().count() == 1, "the same files are there already: {again}");
}

/// The library itself panics at this text.
#[test]
fn a_text_that_the_tokenizers_library_cannot_take_works() {
    let (tokenizer, text) = (fixture("../tokenizer/panics.json"), fixture("../tokenizer/panics.txt"));
    gpt2(&["tokenize", "--tokenizer", tokenizer.to_str().unwrap(), "--file", text.to_str().unwrap()]).succeeds();
}

/// GPT-2's own vocabulary with `add_prefix_space`.
#[test]
fn a_space_in_front_makes_hello_the_word_within_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    gpt2(&["convert", "-m", "demo", "--to", "f16", folder.path().join("model.safetensors").to_str().unwrap()])
        .succeeds();
    let model = folder.path().to_str().unwrap();
    assert_eq!(ids(&["-m", model], &json!("Hello world")), "15496 995");
    let config = folder.path().join("tokenizer_config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("\"add_prefix_space\": false", "\"add_prefix_space\": true")).unwrap();
    assert_eq!(ids(&["-m", model], &json!("Hello world")), "18435 995");
    std::fs::write(folder.path().join("added_tokens.json"), r#"{"<|speaker1|>": 50257}"#).unwrap();
    std::fs::remove_file(&config).unwrap();
    assert_eq!(ids(&["-m", model], &json!("<|speaker1|>Hello")), "50257 15496");
}

/// As `decode` of Hugging Face's tokenizers (0.23.3): words end with `</w>`, which is a space unless the text ends there.
#[test]
fn words_that_end_with_a_suffix_are_joined_by_spaces() {
    let folder = tempfile::tempdir().unwrap();
    let file = json!({
        "version": "1.0",
        "added_tokens": [{"id": 5, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "pre_tokenizer": {"type": "Whitespace"},
        "decoder": {"type": "BPEDecoder", "suffix": "</w>"},
        "model": {"type": "BPE", "end_of_word_suffix": "</w>", "merges": ["a b</w>"],
            "vocab": {"a": 0, "b": 1, "a</w>": 2, "b</w>": 3, "ab</w>": 4, "<s>": 5}},
    });
    std::fs::write(folder.path().join("tokenizer.json"), file.to_string()).unwrap();
    let path = folder.path().to_str().unwrap();
    let ids = gpt2(&["tokenize", "--tokenizer", path, "--format", "ids", "ab a ba"]).succeeds();
    assert_eq!(ids.stdout(), "4 2 1 2\n");
    for (ids, text) in [
        ("4 2 1 2", "ab a ba"),
        ("4 4", "ab ab"),
        ("2", "a"),
        ("0 3 0 3", "ab ab"),
        ("4 5 2", "ab <s>a"),
        ("5 4", "<s>ab"),
    ] {
        let decoded = gpt2(&["tokenize", "--tokenizer", path, "--decode", ids]).succeeds();
        assert_eq!(decoded.stdout(), text, "{ids}");
    }
}
