//! Cases with damaged rows, and with damaged text on stdin.

use fastrand::Rng;

use crate::case::Case;
use crate::json::Json;
use crate::random::{damage, one_in, pick, text};

/// Parameters of decoding, as rows and generation_config.json name them.
pub const PARAMETERS: &str = "\
    temperature top_k top_p min_p typical_p epsilon_cutoff eta_cutoff top_h sample do_sample seed num_beams \
    num_beam_groups diversity_penalty length_penalty early_stopping num_return_sequences penalty_alpha \
    repetition_penalty no_repeat_ngram_size encoder_repetition_penalty encoder_no_repeat_ngram_size \
    min_new_tokens min_length max_length bad_words bad_words_ids stop ignore_eos logprobs sequence_bias \
    logit_bias suppress_tokens begin_suppress_tokens forced_bos_token_id forced_eos_token_id \
    exponential_decay_length_penalty guidance_scale negative_prompt renormalize_logits token_healing \
    presence_penalty frequency_penalty prompt_lookup max_matching_ngram_size num_assistant_tokens \
    assistant_confidence_threshold negative_prompt_ids max_time raw_logprobs regex choices";

const KEYS: &str = "\
    id line prompt text prompt_ids ids context context_ids candidates input error ok temperatur top-k meta";

const ROWS: [&str; 12] = [
    r#"{"id":1,"prompt":"Once upon"}"#,
    r#"{"id":"b","prompt_ids":[1,2,3],"temperature":0.7,"top_k":5,"seed":1}"#,
    r#"{"id":null,"prompt":"a","num_beams":2,"num_return_sequences":2,"length_penalty":0.5}"#,
    r#"{"prompt":"no id","bad_words":["x"],"repetition_penalty":1.3}"#,
    r#"{"id":12345678901234567890123,"text":"big"}"#,
    r#"{"id":{"a":[1.50,1e400]},"ids":[5],"note":"kept"}"#,
    r#"{"id":"s","text":"The theory of","context":"Once"}"#,
    r#"{"id":"c","context":"The","candidates":[" cat"," dog"]}"#,
    r#"{"id":2,"prompt":"","max_new_tokens":2,"stop":["."]}"#,
    r#"{"id":3,"prompt":"<|endoftext|>x","logprobs":2,"min_new_tokens":1}"#,
    r#"{"id":4,"prompt":"x","logit_bias":{"5":1.0},"suppress_tokens":[1],"min_p":0.1,"sample":true,"seed":2}"#,
    r#"{"id":5,"prompt":"x","regex":"[a-z]+","no_repeat_ngram_size":2}"#,
];

/// A finished row, for `--resume`.
const ANSWER: &str = r#"{"id":1,"line":1,"ok":true,"error":null,"error_kind":null,"model":"demo","prompt":"Once upon","prompt_ids":[7454,2402],"seed":null,"sequences":[{"index":0,"ids":[257,640],"text":" a time","finish_reason":"length","score":null,"logprobs":null}],"timings":{"load_s":0.1,"prefill_s":0.1,"decode_s":0.1,"prompt_tokens":2,"generated_tokens":2}}"#;

/// Rows, one or several of them changed, and the file around them damaged.
fn rows(rng: &mut Rng, from: &[&str]) -> Vec<u8> {
    let words = format!("{KEYS} {PARAMETERS}");
    let mut lines = vec![];
    let count = rng.usize(1..6);
    // Each once, for an id that repeats ends the run at once.
    for row in rng.choose_multiple(from, count) {
        let mut row = Json::parse(row.as_bytes());
        for _ in 0..pick(rng, &[0, 0, 1, 1, 2, 3]) {
            row.mutate(rng, &words);
        }
        lines.push(row.write());
    }
    match rng.u32(..24) {
        0 => lines.insert(0, "\u{feff}".into()),
        1 => lines[0].insert(0, '\u{feff}'),
        2 => lines = vec![format!("[{}]", lines.join(",\n"))],
        3 => lines.insert(0, String::new()),
        4 => lines.push(lines[0].clone()),
        5 => lines[0] = format!(r#"{{"id":1,"prompt":"{}"}}"#, "a ".repeat(200_000)),
        6 => lines[0] = text(rng, &words),
        7 => lines[0] = lines[0].replace(',', ",\n  "),
        _ => {}
    }
    let mut bytes = lines.join(pick(rng, &["\n", "\n", "\n", "\r\n", "\n\n"])).into_bytes();
    match rng.u32(..12) {
        0 => damage(rng, &mut bytes),
        1 => bytes.truncate(rng.usize(..=bytes.len())),
        2 => {
            let at = rng.usize(..=bytes.len());
            bytes.insert(at, pick(rng, &[0xff, 0xc3, 0x00, 0x1b, 0xed]));
        }
        3 => {}
        _ => bytes.push(b'\n'),
    }
    bytes
}

/// A command that takes rows.
pub fn jsonl(rng: &mut Rng) -> Case {
    let mut case = Case::default();
    let command = match rng.u32(..14) {
        0..8 => "generate -n 3",
        8..11 => "score",
        11 => "topk -k 2",
        12 => "tokenize",
        _ => "embed",
    };
    case.args(command).args("--model demo");
    let bytes = rows(rng, &ROWS);
    if one_in(rng, 4) {
        case.stdin = bytes;
        case.args("--input -");
    } else {
        case.file("rows.jsonl", bytes).args("--input rows.jsonl");
    }
    if one_in(rng, 2) {
        case.args("--output out.jsonl");
        if one_in(rng, 2) {
            let mut answers = rows(rng, &[ANSWER]);
            if one_in(rng, 3) {
                answers.truncate(rng.usize(..=answers.len()));
            }
            case.file("out.jsonl", answers).args("--resume");
        }
    }
    match rng.u32(..10) {
        0 => drop(case.args("--batch-size 2")),
        1 => drop(case.args("--keep id,note")),
        2 => drop(case.args("--strict")),
        3 => drop(case.args("--ordered")),
        _ => {}
    }
    case
}

/// Bytes of any kind as text.
pub fn stdin(rng: &mut Rng) -> Case {
    let mut case = Case::default();
    let mut bytes = text(rng, "Once\u{a0}upon two\nlines\n \u{feff}mark 464,4583 [1,2]");
    if one_in(rng, 12) {
        bytes = bytes.repeat(1000);
    }
    // More would take the processor's time for honest work.
    bytes.truncate(bytes.floor_char_boundary(10_000));
    case.stdin = bytes.into_bytes();
    if one_in(rng, 2) {
        damage(rng, &mut case.stdin);
    }
    case.args(pick(
        rng,
        &[
            "generate --model demo -n 2",
            "generate --model demo -n 2 --interactive",
            "generate --model demo -n 2 --format json",
            "generate --model demo -n 2 --keep-newline",
            "generate --model demo -n 2 --on-context-limit crop",
            "generate --model demo -n 2 --file -",
            "generate --model demo -n 2 -",
            "generate --model demo -n 2 --input -",
            "topk --model demo --format json",
            "topk --model demo --all",
            "score --model demo --format json",
            "score --model demo --stride 512 --format json",
            "trace --model demo --hidden --format json",
            "tokenize",
            "tokenize --format json",
            "tokenize --decode",
            "tokenize --count",
            "tokenize --format ids --no-special --bos",
        ],
    ));
    case
}
