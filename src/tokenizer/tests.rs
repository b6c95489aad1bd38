//! The whole tokenizer against goldens (`tests/fixtures/tokenizer/make_goldens.py`), and properties.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proptest::prelude::*;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::words::words;
use super::{TextStream, Token, Tokenizer, TokenizerFiles};
use crate::checkpoint::gguf::Gguf;

static GPT2: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::gpt2);

#[derive(Deserialize)]
struct Goldens {
    vocabulary: Vocabulary,
    classes: Classes,
    cases: Vec<(String, Vec<u32>)>,
    plain: Vec<(String, Vec<u32>)>,
    decoded: Vec<(Vec<u32>, String, String)>,
}

#[derive(Deserialize)]
struct Vocabulary {
    size: usize,
    fnv1a: String,
}

/// Ranges of code points, such as `41-5a,61-7a`.
#[derive(Deserialize)]
struct Classes {
    letter: String,
    number: String,
    space: String,
}

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)
}

fn read<T: DeserializeOwned>(path: &str) -> T {
    serde_json::from_slice(&std::fs::read(fixture(path)).unwrap()).unwrap()
}

fn goldens() -> Goldens {
    read("tokenizer/goldens.json")
}

fn ids(tokens: &[Token]) -> Vec<u32> {
    tokens.iter().map(|token| token.id).collect()
}

/// Whether the tokens are contiguous and each has the bytes that it stands for.
#[track_caller]
fn assert_tiles(tokenizer: &Tokenizer, text: &str, tokens: &[Token]) {
    let mut end = 0;
    for token in tokens {
        assert_eq!(token.start, end, "{text:?}");
        end = token.end;
        assert_eq!(tokenizer.bytes(token.id), Some(&text.as_bytes()[token.start..end]), "{text:?}");
    }
    assert_eq!(end, text.len(), "{text:?}");
}

#[test]
fn gpt2_encodes_and_decodes_every_golden() {
    for (text, expected) in goldens().cases {
        let tokens = GPT2.encode(&text, true).unwrap();
        assert_eq!(ids(&tokens), expected, "{text:?}");
        assert_tiles(&GPT2, &text, &tokens);
        assert_eq!(GPT2.decode(&expected, false).unwrap(), text);
    }
}

#[test]
fn without_special_tokens_their_text_is_text() {
    for (text, expected) in goldens().plain {
        let tokens = GPT2.encode(&text, false).unwrap();
        assert_eq!(ids(&tokens), expected, "{text:?}");
        assert_tiles(&GPT2, &text, &tokens);
    }
}

#[test]
fn any_ids_decode_as_in_transformers() {
    for (ids, text, without_special) in goldens().decoded {
        assert_eq!(GPT2.decode(&ids, false).unwrap(), text);
        assert_eq!(GPT2.decode(&ids, true).unwrap(), without_special);
    }
}

#[test]
fn every_character_is_classified_as_by_hugging_face() {
    let classes = goldens().classes;
    let mut expected = vec!["other"; 0x11_0000];
    for (class, ranges) in [("letter", classes.letter), ("number", classes.number), ("space", classes.space)] {
        for range in ranges.split(',') {
            let (first, last) = range.split_once('-').unwrap();
            let code = |hex: &str| usize::from_str_radix(hex, 16).unwrap();
            expected[code(first)..=code(last)].fill(class);
        }
    }
    for c in '\0'..=char::MAX {
        let joins = |before: char| words(&String::from_iter([before, c])).count() == 1;
        let classes = [("letter", joins('a')), ("number", joins('1')), ("other", joins('!'))];
        let class = classes.iter().find(|(_, joins)| *joins).map_or("space", |(class, _)| class);
        assert_eq!(class, expected[c as usize], "{c:?}");
    }
}

#[test]
fn gpt2_has_every_piece_of_the_published_vocabulary() {
    let expected = goldens().vocabulary;
    let pieces: Vec<_> = (0..GPT2.vocab_size() as u32).map(|id| GPT2.piece(id).unwrap()).collect();
    assert_eq!(pieces.len(), expected.size);
    let fnv1a = pieces
        .join("\n")
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    assert_eq!(format!("{fnv1a:016x}"), expected.fnv1a);
    assert!((0..).zip(&pieces).all(|(id, piece)| GPT2.id(piece) == Some(id)));
    assert_eq!(GPT2.end_of_text(), Some(50256));
    assert!(GPT2.is_special(50256) && !GPT2.is_special(50255) && !GPT2.is_special(50257));
    assert_eq!((GPT2.piece(50257), GPT2.bytes(u32::MAX)), (None, None));
}

#[test]
fn gpt2_equals_published_examples() {
    let goldens: serde_json::Value = read("real_gpt2.json");
    for case in goldens["tokenizer"].as_array().unwrap() {
        let tokens = GPT2.encode(case["text"].as_str().unwrap(), true).unwrap();
        let mut found = ids(&tokens);
        if case["bos"] == true {
            found.insert(0, GPT2.end_of_text().unwrap());
        }
        if let Some(ids) = case.get("ids") {
            assert_eq!(serde_json::json!(found), *ids);
        }
        if let Some(pieces) = case.get("pieces") {
            let found: Vec<_> = found.iter().map(|&id| GPT2.piece(id)).collect();
            assert_eq!(serde_json::json!(found), *pieces);
        }
    }
    let vocabulary = &goldens["vocabulary"];
    assert_eq!(vocabulary["size"], GPT2.vocab_size());
    for (id, piece) in vocabulary["last"].as_object().unwrap() {
        assert_eq!(GPT2.piece(id.parse().unwrap()), piece.as_str());
    }
    for (piece, id) in vocabulary["some"].as_object().unwrap() {
        assert_eq!(GPT2.id(piece).map(u64::from), id.as_u64());
    }
}

/// Text that is hard to split: spaces, apostrophes, combining marks, special tokens, and anything else.
fn text() -> impl Strategy<Value = String> {
    let hard = prop::sample::select(vec![
        " ",
        "  ",
        "\n",
        "\t",
        "\u{a0}",
        "\u{3000}",
        "\u{85}",
        "'",
        "'s",
        "'LL",
        "’",
        "a",
        "é",
        "漢",
        "\u{301}",
        "😀",
        "\u{200d}",
        "1",
        "²",
        "!",
        "\0",
        "<|endoftext|>",
        "<|endof",
    ]);
    let part =
        prop_oneof![3 => hard.prop_map(String::from), 2 => any::<char>().prop_map(String::from), 1 => any::<String>()];
    prop::collection::vec(part, 0..20).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn decoding_gives_the_text_back(text in text(), special: bool) {
        let tokens = GPT2.encode(&text, special).unwrap();
        assert_tiles(&GPT2, &text, &tokens);
        prop_assert_eq!(GPT2.decode(&ids(&tokens), false).unwrap(), text);
    }

    #[test]
    fn streaming_gives_the_text_of_the_whole(ids in prop::collection::vec(0_u32..50300, 0..40)) {
        let mut stream = TextStream::default();
        let mut text: String = ids.iter().filter_map(|&id| GPT2.bytes(id)).map(|bytes| stream.push(bytes)).collect();
        text += &stream.finish();
        prop_assert_eq!(text, GPT2.decode(&ids, false).unwrap());
    }

    #[test]
    fn words_are_the_text(text in text()) {
        prop_assert_eq!(words(&text).collect::<String>(), text.clone());
        prop_assert!(words(&text).all(|word| !word.is_empty()));
    }
}

/// A case of the small tokenizers: text, ids, ids without special tokens, decoded, decoded without special tokens.
type SmallCase = (String, Vec<u32>, Vec<u32>, String, String);

#[derive(Deserialize)]
struct SmallGoldens {
    cases: Vec<SmallCase>,
}

fn small(name: &str) -> (Tokenizer, Vec<SmallCase>) {
    let file = |file: &str| fixture("tokenizer").join(name).join(file);
    let files = if file("vocab.json").exists() {
        TokenizerFiles::vocab_and_merges(file("vocab.json"), file("merges.txt"))
    } else {
        TokenizerFiles::tokenizer_json(file("tokenizer.json"))
    };
    let goldens: SmallGoldens = read(&format!("tokenizer/{name}/goldens.json"));
    (Tokenizer::load(&files).unwrap(), goldens.cases)
}

#[test]
fn tokenizers_of_every_kind_equal_transformers() {
    let kinds = ["byte_level", "byte_level_json", "byte_level_stripping", "word_piece", "sentence_piece"];
    // The others need Hugging Face's library.
    let built = if cfg!(feature = "tokenizers") { kinds.len() } else { 2 };
    for name in &kinds[..built] {
        let (tokenizer, cases) = small(name);
        for (text, expected, plain, decoded, without_special) in cases {
            assert_eq!(ids(&tokenizer.encode(&text, true).unwrap()), expected, "{name}: {text:?}");
            assert_eq!(ids(&tokenizer.encode(&text, false).unwrap()), plain, "{name}: {text:?}");
            assert_eq!(tokenizer.decode(&expected, false).unwrap(), decoded, "{name}: {text:?}");
            assert_eq!(tokenizer.decode(&expected, true).unwrap(), without_special, "{name}: {text:?}");
            // Decoded one by one, tokens do not know the start of the text: there may be a space.
            let bytes = tokenizer.decode_bytes(&expected, true);
            assert_eq!(
                String::from_utf8(bytes).unwrap().trim_start(),
                without_special.trim_start(),
                "{name}: {text:?}"
            );
        }
    }
}

#[test]
fn a_byte_without_a_token_is_an_error_that_says_where() {
    let tokenizer = Tokenizer::from_vocab(&["a", "Ã", "aÃ"], &[("a", "Ã")], &[]).unwrap();
    assert_eq!(ids(&tokenizer.encode("aaa", true).unwrap()), [0, 0, 0]);
    let error = tokenizer.encode("aaé", true).unwrap_err().to_string();
    assert!(error.contains("0xa9") && error.contains("at byte 3"), "{error}");
}

#[test]
fn parts_that_do_not_fit_together_are_refused() {
    let refused =
        |pieces: &[&str], special: &[u32]| Tokenizer::from_vocab(pieces, &[], special).err().unwrap().to_string();
    assert!(refused(&["a", "b"], &[2]).contains("special token 2 is outside the vocabulary of 2"));
    assert!(refused(&["a", "b", "a"], &[]).contains("\"a\" twice"));
}

#[test]
fn a_gguf_file_brings_its_tokenizer() {
    let gguf = Gguf::open(&fixture("checkpoint/tiny.gguf")).unwrap();
    let tokenizer = Tokenizer::load(&TokenizerFiles::Gguf(gguf.into())).unwrap();
    assert_eq!(ids(&tokenizer.encode("ab ba<|endoftext|>a", true).unwrap()), [2, 3, 1, 0, 4, 0]);
    assert!(tokenizer.is_special(4));
    assert_eq!(tokenizer.decode(&[2, 3, 4, 1], true).unwrap(), "ab b");
}

/// Of special tokens with a common start, the longest is taken.
#[test]
fn the_longest_special_token_wins() {
    let tokenizer = Tokenizer::from_vocab(&["<", ">", "a", "<a>", "<a><a>"], &[], &[3, 4]).unwrap();
    assert_eq!(ids(&tokenizer.encode("<a><a><a>a", true).unwrap()), [4, 3, 2]);
}

/// One merge for each letter, in a long word: nothing may take quadratic time.
#[test]
fn long_words_are_no_burden() {
    for word in ["a", "=", " ", "\n", "漢", "-=", "<|"] {
        let text = word.repeat(200_000);
        let tokens = GPT2.encode(&text, true).unwrap();
        assert_tiles(&GPT2, &text, &tokens);
    }
}
