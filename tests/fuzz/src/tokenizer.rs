//! Cases with a damaged tokenizer.

use fastrand::Rng;

use crate::case::Case;
use crate::json::{self, Json};
use crate::random::{damage, number, one_in, pick, text};
use crate::seeds;

/// Keys, types and strings of tokenizer files.
const WORDS: &str = "\
    type model BPE WordPiece WordLevel Unigram ByteLevel Metaspace Sequence vocab merges unk_token unk_id \
    byte_fallback ignore_merges dropout continuing_subword_prefix end_of_word_suffix fuse_unk added_tokens \
    normalizer pre_tokenizer post_processor decoder truncation padding add_prefix_space trim_offsets use_regex \
    content lstrip rstrip normalized single_word special tokenizer_class added_tokens_decoder add_bos_token \
    bos_token <|user|>";

const NORMALIZERS: [&str; 26] = [
    r#"{"type":"NFC"}"#,
    r#"{"type":"NFKC"}"#,
    r#"{"type":"NFD"}"#,
    r#"{"type":"NFKD"}"#,
    r#"{"type":"Lowercase"}"#,
    r#"{"type":"Strip","strip_left":true,"strip_right":true}"#,
    r#"{"type":"StripAccents"}"#,
    r#"{"type":"Nmt"}"#,
    r#"{"type":"ByteLevel"}"#,
    r#"{"type":"Prepend","prepend":"▁"}"#,
    r#"{"type":"Replace","pattern":{"String":" "},"content":""}"#,
    r#"{"type":"Replace","pattern":{"String":" "},"content":"▁"}"#,
    r#"{"type":"Replace","pattern":{"Regex":"\\s+"},"content":" "}"#,
    r#"{"type":"Replace","pattern":{"Regex":"(a+)+$"},"content":""}"#,
    r#"{"type":"Replace","pattern":{"Regex":"(?<=a)("},"content":""}"#,
    r#"{"type":"Replace","pattern":{"Regex":""},"content":"x"}"#,
    r#"{"type":"Replace","pattern":{"String":""},"content":"x"}"#,
    r#"{"type":"Replace","pattern":{"Regex":"^"},"content":"x"}"#,
    r#"{"type":"Replace","pattern":{"Regex":"\\b|a*|(?=h)"},"content":"x"}"#,
    r#"{"type":"Replace","pattern":{"Regex":"(?:a|h)\\K"},"content":"x"}"#,
    r#"{"type":"Replace","pattern":{"String":"a"},"content":"aa"}"#,
    r#"{"type":"Replace","pattern":{"Regex":"[a-z]"},"content":"the theory of ﬁ"}"#,
    r#"{"type":"Replace","pattern":{"Regex":"(?=h*e)h|(?<!t)e"},"content":"he"}"#,
    r#"{"type":"Prepend","prepend":"<special> the theory of aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}"#,
    r#"{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":true,"lowercase":true}"#,
    r#"{"type":"Precompiled","precompiled_charsmap":"AAAA"}"#,
];

const PRE_TOKENIZERS: [&str; 22] = [
    r#"{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}"#,
    r#"{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":false,"use_regex":false}"#,
    r#"{"type":"Whitespace"}"#,
    r#"{"type":"WhitespaceSplit"}"#,
    r#"{"type":"Punctuation","behavior":"MergedWithNext"}"#,
    r#"{"type":"Digits","individual_digits":true}"#,
    r#"{"type":"CharDelimiterSplit","delimiter":" "}"#,
    r#"{"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":true}"#,
    r#"{"type":"Split","pattern":{"Regex":"\\p{L}+|(?!\\S)\\s+"},"behavior":"Isolated","invert":true}"#,
    r#"{"type":"Split","pattern":{"String":""},"behavior":"Removed","invert":false}"#,
    r#"{"type":"Split","pattern":{"Regex":"a*"},"behavior":"MergedWithNext","invert":false}"#,
    r#"{"type":"Split","pattern":{"Regex":"(?=a)|\\b"},"behavior":"Isolated","invert":false}"#,
    r#"{"type":"Split","pattern":{"Regex":"(?=a*b)a"},"behavior":"Isolated","invert":false}"#,
    r#"{"type":"Split","pattern":{"Regex":"a*b|a"},"behavior":"Removed","invert":true}"#,
    r#"{"type":"Split","pattern":{"Regex":"(?!x)(a|a)*b"},"behavior":"Contiguous","invert":false}"#,
    r#"{"type":"Split","pattern":{"Regex":"(a)\\1|(?<x>a)\\g<x>"},"behavior":"Isolated","invert":false}"#,
    r#"{"type":"Split","pattern":{"Regex":"(?<=t[ah]*h[ah]{18})e"},"behavior":"MergedWithPrevious","invert":false}"#,
    r#"{"type":"Split","pattern":{"Regex":"(?=x)(\\p{L}{200}){200}"},"behavior":"Isolated","invert":false}"#,
    r#"{"type":"Split","pattern":{"Regex":"(?x) a+(?!b) # the last"},"behavior":"Isolated","invert":false}"#,
    r#"{"type":"UnicodeScripts"}"#,
    r#"{"type":"FixedLength","length":0}"#,
    r#"{"type":"BertPreTokenizer"}"#,
];

const DECODERS: [&str; 15] = [
    r#"{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}"#,
    r#"{"type":"ByteFallback"}"#,
    r#"{"type":"Fuse"}"#,
    r#"{"type":"Strip","content":" ","start":5,"stop":9}"#,
    r#"{"type":"Strip","content":"h","start":1,"stop":0}"#,
    r#"{"type":"Replace","pattern":{"String":"▁"},"content":" "}"#,
    r#"{"type":"Replace","pattern":{"Regex":"^|e*"},"content":"x"}"#,
    r#"{"type":"Replace","pattern":{"String":"e"},"content":"ee"}"#,
    r#"{"type":"Replace","pattern":{"Regex":"(?=h*e)h|e"},"content":"heheheheheheheheheheheheheheh"}"#,
    r#"{"type":"BPEDecoder","suffix":""}"#,
    r###"{"type":"WordPiece","prefix":"","cleanup":true}"###,
    r###"{"type":"WordPiece","prefix":"##","cleanup":true}"###,
    r#"{"type":"BPEDecoder","suffix":"</w>"}"#,
    r#"{"type":"CTC","pad_token":"h","word_delimiter_token":"|","cleanup":true}"#,
    r#"{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true}"#,
];

const POST_PROCESSORS: [&str; 6] = [
    r#"{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}"#,
    r#"{"type":"BertProcessing","sep":["[SEP]",2],"cls":["[CLS]",1]}"#,
    r#"{"type":"RobertaProcessing","sep":["</s>",2],"cls":["<s>",9999999],"trim_offsets":true,"add_prefix_space":true}"#,
    r#"{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{"x":{"id":"x","ids":[0,4294967295],"tokens":["x","y"]}}}"#,
    r#"{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{}}"#,
    r#"{"type":"TemplateProcessing","single":[],"pair":[],"special_tokens":{}}"#,
];

/// Contents of added tokens, which the texts have, too.
const ADDED: [&str; 11] = ["<special>", "<|user|>", "th", " ", "  ", "é", "ﬁ", "İ", "a b", "\u{301}", "the"];

/// Models that take long.
const MODELS: [&str; 4] = [
    r###"{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":1152921504606846976,"vocab":{"[UNK]":0,"a":1,"##a":2}}"###,
    r#"{"type":"WordLevel","unk_token":"[UNK]","vocab":{"[UNK]":0,"a":1,"the":2}}"#,
    r#"{"type":"Unigram","unk_id":0,"vocab":[["[UNK]",0.0],["a",-1.0],["aa",-1.5],["aaa",-2.0],["aaaa",-2.5]]}"#,
    r#"{"type":"BPE","unk_token":"a","end_of_word_suffix":"aaaaaaaaaaaaaaaa","vocab":{"a":0,"aa":1},"merges":["a a"]}"#,
];

/// One of the parts of a pipeline, or several in a sequence, which may be in others or have one part often.
fn part(rng: &mut Rng, of: &[&str], plural: &str) -> Json {
    let sequence = |parts| Json::Object(vec![("type".into(), Json::string("Sequence")), (plural.into(), parts)]);
    let one = |rng: &mut Rng| {
        let mut json = Json::parse(pick(rng, of).as_bytes());
        if one_in(rng, 6) {
            json.mutate(rng, WORDS);
        }
        json
    };
    if one_in(rng, 2) {
        return one(rng);
    }
    let mut parts: Vec<Json> = (0..rng.usize(..4)).map(|_| one(rng)).collect();
    if one_in(rng, 6) {
        let often = pick(rng, &[25, 40, 999, 1001]);
        parts.extend(vec![one(rng); often]);
    }
    let mut part = sequence(Json::Array(parts));
    if one_in(rng, 10) {
        let depth = pick(rng, &[1, 40, 200]);
        part = (0..depth).fold(part, |part, _| sequence(Json::Array(vec![part])));
    }
    part
}

fn added_token(rng: &mut Rng) -> Json {
    let mut token = Json::Object(vec![]);
    let id = if one_in(rng, 6) { number(rng) } else { 300 + rng.u64(..50) };
    *token.entry("id") = Json::Raw(id.to_string());
    *token.entry("content") = Json::string(&text(rng, "<special> <|user|> th é ﬁ İ \u{301}"));
    for flag in ["single_word", "lstrip", "rstrip", "normalized", "special"] {
        *token.entry(flag) = Json::Raw(rng.bool().to_string());
    }
    token
}

/// A text with added tokens, spaces, and characters that normalizers shorten, lengthen or remove.
fn words(rng: &mut Rng) -> String {
    const PARTS: [&str; 14] =
        [" ", "  ", "\n", "\t", "the", " theory", "é", "e\u{301}", "ﬁ", "İ", "한", "中", "\u{ad}", "\u{200d}"];
    let mut words = String::new();
    if one_in(rng, 10) {
        let run = pick(rng, &["a", " ", "h", "\u{301}", "ﷺ", "th ", "<special>"]);
        words.push_str(&run.repeat(pick(rng, &[30, 1000, 20_000])));
    }
    for _ in 0..rng.usize(..12) {
        words.push_str(if one_in(rng, 3) { pick(rng, &ADDED) } else { pick(rng, &PARTS) });
    }
    if one_in(rng, 10) { text(rng, "<special> <|user|> th é ﬁ İ \u{301}") } else { words }
}

/// A command that uses the tokenizer at `path`.
fn command(rng: &mut Rng, case: &mut Case, path: &str) {
    match rng.u32(..12) {
        0..6 => drop(case.args("tokenize --format json --prompt").arg(words(rng))),
        6 => drop(case.args("tokenize --prompt").arg(words(rng))),
        7 => drop(
            case.args("tokenize --decode").arg(pick(rng, &["1 2 3", "0", "330 299", "4294967295", "", "259 330 330"])),
        ),
        8 => drop(case.args("tokenize --vocab --format json")),
        9 => drop(case.args("generate --model demo -n 2 --prompt").arg(words(rng))),
        10 => drop(case.args("score --model demo --bos --format json --prompt").arg(words(rng))),
        _ => drop(case.args("convert --model demo --to f16 out.gguf")),
    }
    if case.arguments[0] == "tokenize" && one_in(rng, 5) {
        case.args("--no-special");
    }
    case.arg("--tokenizer").arg(path);
}

pub fn tokenizer_json(rng: &mut Rng) -> Case {
    const SEEDS: [&str; 5] =
        ["byte_level_json", "byte_level_stripping", "sentence_piece", "word_piece", "byte_level_stripping"];
    let mut json = Json::parse(&seeds::read(&format!("tokenizer/{}/tokenizer.json", pick(rng, &SEEDS))));
    // Parts harm each other: a token that eats spaces harms a normalizer that removes them.
    for _ in 0..rng.usize(1..5) {
        match rng.u32(..10) {
            0..3 => *json.entry("normalizer") = part(rng, &NORMALIZERS, "normalizers"),
            3..6 => match json.entry("added_tokens") {
                Json::Array(tokens) => tokens.push(added_token(rng)),
                other => *other = Json::Array(vec![added_token(rng)]),
            },
            6 => *json.entry("pre_tokenizer") = part(rng, &PRE_TOKENIZERS, "pretokenizers"),
            7 => *json.entry("decoder") = part(rng, &DECODERS, "decoders"),
            8 if one_in(rng, 4) => *json.entry("model") = Json::parse(pick(rng, &MODELS).as_bytes()),
            8 if one_in(rng, 2) => *json.entry("post_processor") = part(rng, &POST_PROCESSORS, "processors"),
            8 => {
                let other = seeds::read(&format!("tokenizer/{}/tokenizer.json", pick(rng, &SEEDS)));
                *json.entry("model") = Json::parse(&other).entry("model").clone();
            }
            _ => json.mutate(rng, WORDS),
        }
    }
    let mut case = Case::default();
    case.file("tok/tokenizer.json", json::finish(rng, &json));
    let path = pick(rng, &["tok", "tok/tokenizer.json"]);
    command(rng, &mut case, path);
    case
}

/// vocab.json, merges.txt and the files about added tokens.
pub fn files(rng: &mut Rng) -> Case {
    const FOLDERS: [(&str, &[&str]); 4] = [
        ("tok_added_tokens_decoder", &["tokenizer_config.json"]),
        ("tok_added_tokens_json", &["added_tokens.json", "special_tokens_map.json"]),
        ("tok_prefix_space", &["tokenizer_config.json"]),
        ("tok_bos", &["tokenizer_config.json"]),
    ];
    let (folder, extra) = pick(rng, &FOLDERS);
    let names = [&["vocab.json", "merges.txt"], extra].concat();
    // The small files nearly always: they say more.
    let damaged = if one_in(rng, 3) { rng.usize(..2) } else { 2 + rng.usize(..extra.len()) };
    let mut case = Case::default();
    for (at, name) in names.iter().enumerate() {
        let mut bytes = seeds::read(&format!("formats/{folder}/model/{name}"));
        if at == damaged && name.ends_with(".json") {
            bytes = json::mutate(rng, &bytes, WORDS);
        } else if at == damaged {
            damage_merges(rng, &mut bytes);
        } else if one_in(rng, 20) {
            continue;
        }
        case.file(&format!("tok/{name}"), bytes);
    }
    command(rng, &mut case, "tok");
    case
}

fn damage_merges(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let content = String::from_utf8_lossy(bytes).into_owned();
    let mut lines: Vec<&str> = content.lines().collect();
    let at = rng.usize(..lines.len());
    let other = rng.usize(..lines.len());
    let line = pick(rng, &["a b c", "#version: 0.2", "th", "", " ", "Ġ Ġ", "t h", "\0 \0", "é \u{10ffff}"]);
    match rng.u32(..5) {
        0 => lines.swap(at, other),
        1 => drop(lines.remove(at)),
        2 => lines.insert(at, line),
        3 => lines.insert(at, lines[other]),
        _ => lines[at] = line,
    }
    *bytes = lines.join(pick(rng, &["\n", "\n", "\r\n", "\r"])).into_bytes();
    if one_in(rng, 4) {
        damage(rng, bytes);
    }
}
