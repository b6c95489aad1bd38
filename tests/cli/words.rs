//! The program's words: its help, its tips, what it refuses and why, and what it says about files and itself.

use serde_json::{Value, json};

use crate::harness::{golden, gpt2, id_text, tiny};

const SUBCOMMANDS: [&str; 8] = ["generate", "tokenize", "topk", "score", "trace", "info", "convert", "bench"];

/// On a terminal of 80 columns and no more than 40 lines, and with everything on `--help`.
#[test]
fn the_short_help_fits_a_screen() {
    for subcommand in SUBCOMMANDS.into_iter().chain(["completions", "man"]) {
        let help = |flag: &str| gpt2(&[subcommand, flag]).env("COLUMNS", "80").succeeds().stdout();
        let (short, long) = (help("-h"), help("--help"));
        assert!((6..=40).contains(&short.lines().count()), "{} lines:\n{short}", short.lines().count());
        for line in short.lines() {
            assert!(line.chars().count() <= 80, "{line}");
            assert!(line.len() < 2 || !line.starts_with("  -") || long.contains(line.split("  ").nth(1).unwrap()));
        }
        assert!(long.lines().count() >= short.lines().count(), "{subcommand}");
        for text in [&short, &long] {
            let headings: Vec<&str> = text.lines().filter(|l| l.ends_with(':') && !l.starts_with(' ')).collect();
            let last = headings.iter().rev().find(|heading| **heading != "Examples:");
            assert_eq!(last, Some(&"Global:"), "global flags come last: {headings:?}");
        }
        if SUBCOMMANDS.contains(&subcommand) {
            assert!(short.contains(&format!("All flags: gpt2 {subcommand} --help")), "{short}");
        }
    }
    assert_eq!(
        gpt2(&["-h"]).env("COLUMNS", "80").succeeds().stdout().lines().filter(|l| l.chars().count() > 80).count(),
        0
    );
}

/// Perhaps the file was meant.
#[test]
fn a_text_that_names_a_file_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tale.txt"), "Once upon a time").unwrap();
    let run = |arguments: &[&str]| gpt2(arguments).current_dir(folder.path()).succeeds();
    for arguments in [&["tokenize", "tale.txt"][..], &["score", "-m", "demo", "-p", "tale.txt"]] {
        let stderr = run(arguments).stderr();
        assert!(stderr.starts_with("note: the text is \"tale.txt\"") && stderr.contains("--file tale.txt"), "{stderr}");
        assert_eq!(run(&[arguments, &["-q"]].concat()).stderr(), "");
    }
    assert_eq!(run(&["tokenize", "tale"]).stderr(), "");
    assert_eq!(run(&["tokenize", "--count", "--file", "tale.txt"]).stderr(), "");
}

/// What most people need comes first, and flags without a use are not offered.
#[test]
fn the_help_shows_what_is_of_use() {
    let help = |subcommand: &str, flag: &str| gpt2(&[subcommand, flag]).succeeds().stdout();
    for flag in ["--temperature", "--max-new-tokens", "--model", "--input", "--completion-only", "--seed"] {
        assert!(help("generate", "-h").contains(flag), "{flag}");
    }
    assert!(!help("generate", "-h").contains("--typical-p"));
    assert!(help("generate", "--help").contains("--typical-p"));
    for (flag, why) in [
        (&["--device", "cuda"], "computes on the CPU"),
        (&["--dtype", "f16"], "from --to"),
        (&["--quantize", "q8_0"], "from --to"),
    ] {
        assert!(!help("convert", "--help").contains(flag[0]), "gpt2 convert --help shows {}", flag[0]);
        let arguments = [&["convert", "-m", "demo", "--to", "f16", "x.gguf"][..], flag].concat();
        gpt2(&arguments).fails(2, &[why, &format!("leave out {}", flag[0])]);
    }
    // Scripts give the same flags to every subcommand.
    assert!(!help("info", "--help").contains("--threads"));
    gpt2(&["info", "-m", "demo", "--threads", "1"]).succeeds();
}

#[test]
fn the_version_tells_commit_features_and_instruction_set() {
    let done = gpt2(&["--version"]).env("GPT2_SIMD", "portable").succeeds().stdout();
    let rest = done.strip_prefix(&format!("gpt2 {} (", env!("CARGO_PKG_VERSION"))).expect(&done);
    let parts: Vec<&str> = rest.strip_suffix(")\n").expect(&done).split(", ").collect();
    assert_eq!(parts.last(), Some(&"portable"));
    let features = parts[parts.len() - 2];
    assert_eq!(features.split(' ').any(|name| name == "hub"), cfg!(feature = "hub"), "{done}");
    if let [commit, _, _] = parts[..] {
        assert!(commit.len() >= 7 && commit.bytes().all(|b| b.is_ascii_hexdigit()), "{done}");
    }
    assert_eq!(gpt2(&["generate", "-V"]).env("GPT2_SIMD", "portable").succeeds().stdout().lines().count(), 1);
}

/// A tip names what was meant, as the user would type it.
#[test]
fn tips_name_what_was_meant() {
    for (arguments, tip) in [
        (&["generate", "Once", "--length", "5"][..], "the flag is called --max-new-tokens"),
        (&["generate", "Once", "--length=5"], "the flag is called --max-new-tokens"),
        (&["generate", "Once", "-t", "0.5"], "the flag is called --temperature"),
        (&["topk", "Once", "-t", "0.5"], "the flag is called --temperature"),
        (&["generate", "Once", "--nsamples", "2"], "the flag is called --num-return-sequences"),
        (&["generate", "Once", "--do-sample"], "the flag is called --sample"),
        (&["topk", "Once", "--json"], "the flag is called --format json"),
        (&["generate", "-m", "demo", "Once", "upon", "a"], "quote the text: \"Once upon a\""),
        (&["topk", "Once", "upon", "-k", "5"], "quote the text: \"Once upon\""),
        (&["score", "-m", "demo", "It", "\"is\"", "so"], "quote the text: 'It \"is\" so'"),
        (&["generate", "--prompt", "Once", "upon", "-n", "3"], "quote the text: --prompt \"Once upon\""),
        (&["tokenize", "--decode", "15496", "995"], "quote the ids: --decode \"15496 995\""),
        (&["tokenize", "--count", "--file", "README.md", "LICENSE"], "--file takes one file"),
        (&["tokenize", "--file", "my", "text.txt"], "quote the name: --file \"my text.txt\""),
        (&["info", "demo"], "the model is given with -m: gpt2 info -m demo"),
        (&["bench", "gpt2"], "the model is given with -m: gpt2 bench -m gpt2"),
        (&["convert", "demo", "--to", "f16", "x.gguf"], "the model is given with -m: gpt2 convert -m demo"),
        (&["-m", "demo"], "'-m' is a flag of gpt2 generate, gpt2 tokenize, gpt2 topk and others"),
        (&["generate", "-m", "dmeo", "Once"], "`dmeo` is not a model; did you mean demo?"),
        (&["info", "-m", "gpt2-meduim"], "`gpt2-meduim` is not a model; did you mean gpt2-medium?"),
    ] {
        let code = if tip.contains("is not a model") { 1 } else { 2 };
        gpt2(arguments).fails(code, &[tip]);
    }
}

/// Numbers are refused in plain words, under the flag as it was given.
#[test]
fn numbers_are_refused_in_plain_words() {
    for (arguments, line) in [
        (&["generate", "Once", "-n", "0"][..], "-n takes a whole number from 1, not 0"),
        (&["generate", "Once", "-nx"], "-n takes a whole number from 1, not x"),
        (&["generate", "Once", "--max-new-tokens", "-3"], "--max-new-tokens takes a whole number from 1, not -3"),
        (&["generate", "Once", "--top-p", "1.5"], "--top-p takes a number above 0, up to 1 (off), not 1.5"),
        (&["generate", "Once", "--temperature", "hot"], "--temperature takes a number from 1e-30, not hot"),
        (&["generate", "Once", "--seed", "1e3"], "--seed takes a whole number from 0, not 1e3"),
        (&["topk", "Once", "-k", "2.5"], "-k takes a whole number from 1, not 2.5"),
        (&["trace", "Once", "--layer", "-1"], "--layer takes a whole number from 0, not -1"),
        (&["bench", "--repeat", "0"], "--repeat takes a whole number from 1 to 1000, not 0"),
        (&["info", "--device", "tpu"], "--device: `tpu` is not a device; use auto, cpu, cuda, cuda:N or metal"),
    ] {
        let stderr = gpt2(arguments).fails(2, &[line]).stderr();
        assert!(stderr.starts_with(&format!("error: {line}")), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

/// What would be ignored is refused, with the reason, before a model is looked for.
#[test]
fn flags_that_would_be_ignored_are_refused() {
    let absent = ["-m", "someone/not-cached"];
    for (arguments, why) in [
        (
            &["generate", "Once", "--sample=false", "--temperature", "0.7"][..],
            "--sample=false does not sample, and --temperature does",
        ),
        (&["generate", "Once", "--sample=false", "--top-k", "5"], "--sample=false does not sample, and --top-k does"),
        (&["generate", "Once", "--output", "x.jsonl"], "--output takes the results of rows, from --input"),
        (&["score", "Once", "--output", "x.jsonl"], "that of one text goes to stdout"),
        (&["generate", "--input", "-", "--resume"], "--resume continues the file that --output names"),
        (&["score", "Once", "--batch-size", "3"], "--batch-size is about the rows of --input"),
        (&["generate", "--input", "-", "--format", "text"], "--input gives one JSON object a line"),
        (&["score", "--input", "-", "--format", "text"], "--input gives one JSON object a line"),
        (
            &["topk", "Once", "--tree", "2", "--token", " upon"],
            "--token asks about one distribution, and --tree shows many",
        ),
        (&["trace", "Once", "--svg", "o.txt"], "--svg o.txt must end in .svg or .png, the kind of file that it writes"),
        (&["trace", "Once", "--save", "o.bin"], "--save o.bin must end in .safetensors or .npz, "),
        (&["trace", "Once", "--html", "o.svg"], "--html o.svg must end in .html or .htm, "),
        (&["score", "Once", "--html", "o.json"], "--html o.json must end in .html or .htm, "),
        (&["convert", "--to", "f16", "o.bin"], "OUT o.bin must end in .gguf or .safetensors, "),
    ] {
        let done = gpt2(&[&arguments[..1], &absent, &arguments[1..]].concat()).fails(2, &[why]);
        assert!(!done.stderr().contains("not-cached"), "the model was looked for:\n{}", done.stderr());
        assert_eq!(done.stderr().lines().count(), 1, "{}", done.stderr());
    }
    gpt2(&["tokenize", "-m", "demo", "--tokenizer", "gpt2", "Once"]).fails(2, &["leave one of them out"]);
    gpt2(&["generate", "Once", "-m", "demo", "-n", "1", "--sample=false"]).succeeds();
    // In a row, too; and there it takes the place of a flag.
    let rows = "{\"prompt\": \"Once\", \"sample\": false, \"top_p\": 0.5}\n{\"prompt\": \"Once\", \"sample\": false}\n";
    let done = gpt2(&["generate", "-m", "demo", "-n", "3", "--input", "-", "--temperature", "9"]).stdin(rows).output();
    let lines = done.json_lines();
    assert_eq!(lines[0]["error"], "`sample` is false, and `top_p` samples");
    let greedy = gpt2(&["generate", "-m", "demo", "-n", "3", "Once", "--format", "json"]).succeeds().json();
    assert_eq!((&lines[1]["sequences"][0]["ids"], &lines[1]["seed"]), (&greedy["sequences"][0]["ids"], &Value::Null));
}

/// `gpt2 -m demo generate` is `gpt2 generate -m demo`.
#[test]
fn flags_of_the_model_may_come_before_the_subcommand() {
    let expected = gpt2(&["generate", "-m", "demo", "Once upon a", "-n", "4"]).succeeds().stdout();
    for first in [
        &["-m", "demo"][..],
        &["--model=demo"],
        &["-q", "-mdemo", "--device", "cpu"],
        &["--color", "never", "-m", "demo"],
    ] {
        let done = gpt2(&[first, &["generate", "Once upon a", "-n", "4"]].concat()).succeeds();
        assert_eq!(done.stdout(), expected, "{first:?}");
    }
}

/// Colours on request and not otherwise; `NO_COLOR` and `CLICOLOR_FORCE` as everywhere.
#[test]
fn colours_are_chosen() {
    let shown = |flags: &[&str], variable: Option<&str>| {
        let run = gpt2(&[&["topk", "-m", "demo", "Once upon a", "-k", "2"], flags].concat());
        let run = match variable {
            Some(name) => run.env(name, "1"),
            None => run,
        };
        run.succeeds().stdout()
    };
    for (flags, variable, coloured) in [
        (&[][..], None, false),
        (&["--color=always"], None, true),
        (&["--color", "always"], Some("NO_COLOR"), true),
        (&["--color"], None, true),
        (&["--color", "auto"], None, false),
        (&[], Some("CLICOLOR_FORCE"), true),
        (&["--color", "never"], Some("CLICOLOR_FORCE"), false),
    ] {
        assert_eq!(shown(flags, variable).contains('\x1b'), coloured, "{flags:?} {variable:?}");
    }
    assert!(gpt2(&["--color", "always", "-h"]).succeeds().stdout().contains('\x1b'));
    assert!(gpt2(&["--color=always", "info", "--zzz"]).output().stderr().contains('\x1b'));
    gpt2(&["info", "--color=blue"]).fails(2, &["auto", "always", "never"]);
    #[cfg(unix)]
    for (flags, coloured) in [(&[][..], true), (&["--color", "never"], false)] {
        let (code, text) = gpt2(&[&["topk", "-m", "demo", "Once", "-k", "1"], flags].concat()).on_terminal();
        assert_eq!((code, text.contains('\x1b')), (Some(0), coloured), "{text:?}");
    }
}

/// Each record says what it was made with.
#[test]
fn records_describe_themselves() {
    let run = |arguments: &[&str]| gpt2(&[arguments, &["--format", "json"]].concat()).succeeds().json();
    let sampled =
        run(&["generate", "-m", "demo", "Once", "-n", "3", "--temperature", "0.7", "--top-k", "9", "--seed", "5"]);
    let settings = &sampled["settings"];
    let expected = json!({"model": "demo", "dtype": "f16", "quantization": null, "device": "cpu",
        "version": env!("CARGO_PKG_VERSION"), "temperature": 0.7, "top_k": 9, "seed": 5, "max_new_tokens": 3});
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&settings[key], value, "{key} in {settings}");
    }
    let hash = settings["hash"].as_str().unwrap();
    assert!(hash.len() == 32 && settings["simd"].is_string(), "{settings}");
    assert_eq!(settings.as_object().unwrap().len(), expected.as_object().unwrap().len() + 2, "{settings}");
    let greedy = run(&["generate", "-m", "demo", "Once", "-n", "3", "--quantize", "q8_0", "--seed", "5"]);
    let settings = &greedy["settings"];
    assert_eq!((&settings["quantization"], &settings["dtype"]), (&json!("q8_0"), &json!("f32")), "{settings}");
    assert_eq!((&settings["seed"], &settings["hash"]), (&json!(null), &json!(hash)), "nothing was drawn");
    for subcommand in ["topk", "score", "trace"] {
        let record = run(&[subcommand, "-m", "demo", "Once upon a"]);
        assert_eq!((&record["settings"]["hash"], &record["settings"]["model"]), (&json!(hash), &json!("demo")));
    }
    let topk = run(&["topk", "-m", "demo", "Once", "--tree", "1", "-k", "2", "--repetition-penalty", "1.2"]);
    assert_eq!(topk["settings"]["repetition_penalty"], 1.2);
    let folder = tiny("base").display().to_string();
    let other = run(&["topk", "-m", &folder, "--ids", "1 2"]);
    assert_ne!(other["settings"]["hash"], hash, "other weights");
    let half = run(&["topk", "-m", &tiny("untied_f16").display().to_string(), "--ids", "1 2"]);
    assert_eq!(half["settings"]["dtype"], "f16", "as the file has them");
    // The same weights under another name, and parameters of a row.
    let named = tempfile::tempdir().unwrap();
    std::fs::copy(tiny("base").join("config.json"), named.path().join("config.json")).unwrap();
    std::fs::copy(tiny("base").join("model.safetensors"), named.path().join("model.safetensors")).unwrap();
    let rows = "{\"ids\": [1, 2], \"temperature\": 0.5}\n{\"ids\": [1, 2]}\n";
    let path = named.path().join("model.safetensors");
    let done = gpt2(&["generate", "-m", path.to_str().unwrap(), "--input", "-", "-n", "2"]).stdin(rows).succeeds();
    let lines = done.json_lines();
    assert!(lines.iter().all(|line| line["settings"]["hash"] == other["settings"]["hash"]), "{lines:?}");
    let drawn = |line: &&Value| line["settings"]["temperature"] == 0.5 && line["settings"]["seed"] == line["seed"];
    assert_eq!(lines.iter().filter(drawn).count(), 1);
    assert_eq!(lines.iter().filter(|line| line["settings"].get("seed").is_none()).count(), 1);
}

/// A file with weights takes the configuration beside it.
#[test]
fn a_file_with_weights_finds_its_configuration() {
    let golden = golden("base");
    let (file, ids) = (tiny("base").join("model.safetensors"), id_text(&golden["score"][0]["ids"]));
    let of = |model: &std::path::Path| {
        let arguments = ["topk", "-m", model.to_str().unwrap(), "--ids", &ids, "--format", "json"];
        gpt2(&arguments).succeeds().json()["positions"].clone()
    };
    assert_eq!(of(&file), of(&tiny("base")));
}

#[test]
fn a_prompt_that_ends_in_a_space_gets_a_note() {
    let note = "note: the prompt ends in a space";
    for subcommand in [&["generate", "-n", "1"][..], &["topk"]] {
        let stderr = |more: &[&str]| gpt2(&[subcommand, &["-m", "demo"], more].concat()).succeeds().stderr();
        assert!(stderr(&["Once upon "]).contains(note), "{subcommand:?}");
        assert!(stderr(&["--prompt", "Once upon  "]).contains(note));
        for quiet in [&["Once upon"][..], &["Once upon\n"], &["Once upon ", "-q"], &["--ids", "7454 220"]] {
            assert_eq!(stderr(quiet), "", "{quiet:?}");
        }
    }
    let rows = "{\"prompt\": \"Once upon \"}\n";
    assert_eq!(gpt2(&["generate", "-m", "demo", "-n", "1", "--input", "-"]).stdin(rows).succeeds().stderr(), "");
}

/// Bits are divided by the bytes of the tokens that have a probability: not the first one's, without `--bos`.
#[test]
fn bits_per_byte_counts_the_bytes_that_were_scored() {
    let text = "Once upon a time 🦊 there was";
    for flags in [&[][..], &["--bos"], &["--stride", "3", "--window", "3"]] {
        let json = gpt2(&[&["score", "-m", "demo", text, "--format", "json"], flags].concat()).succeeds().json();
        let tokens = gpt2(&["tokenize", text, "--format", "json"]).succeeds().json();
        let scored = json["logprobs"].as_array().unwrap().iter().zip(tokens["tokens"].as_array().unwrap());
        let bytes = |token: &Value| token["end"].as_u64().unwrap() - token["start"].as_u64().unwrap();
        let bytes: u64 = scored.filter(|(logprob, _)| !logprob.is_null()).map(|(_, token)| bytes(token)).sum();
        let expected = -json["sum_logprob"].as_f64().unwrap() / std::f64::consts::LN_2 / bytes as f64;
        assert!((json["bits_per_byte"].as_f64().unwrap() - expected).abs() < 1e-12, "{flags:?}");
        assert_eq!(bytes == text.len() as u64, flags == ["--bos"], "{flags:?}: {bytes}");
    }
}

/// Files are named on stderr, and nothing else is shown that was not asked for.
#[test]
fn written_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| gpt2(arguments).current_dir(folder.path()).succeeds();
    for (arguments, file, what) in [
        (&["trace", "Once upon", "--save", "a.safetensors"][..], "a.safetensors", "15 activations of 2 tokens"),
        (&["trace", "Once upon", "--svg", "h.svg"], "h.svg", "a picture of the hidden states"),
        (
            &["trace", "Once upon", "--html", "t.html"],
            "t.html",
            "a page with attention, attribution, logit lens and hidden states",
        ),
    ] {
        let done = run(&[arguments, &["-m", "demo"]].concat());
        let size = std::fs::metadata(folder.path().join(file)).unwrap().len();
        let size = gpt2::memory::readable(size);
        assert_eq!((done.stdout(), done.stderr()), (String::new(), format!("wrote {file}: {what}, {size}\n")));
        assert_eq!(run(&[arguments, &["-m", "demo", "-q"]].concat()).stderr(), "");
    }
    let view = run(&["trace", "-m", "demo", "Once upon", "--lens", "--svg", "l.svg"]);
    assert!(!view.stdout().is_empty() && view.stderr().starts_with("wrote l.svg: a picture of the logit lens"));
    let heads = run(&["trace", "-m", "demo", "Once upon", "--layer", "1", "--svg", "x.svg"]).stderr();
    assert!(heads.starts_with("wrote x.svg: a picture of the attention of 2 heads"), "{heads}");
    let page = run(&["topk", "-m", "demo", "Once upon", "--all", "-k", "1", "--html", "k.html"]).stderr();
    assert!(page.starts_with("wrote k.html: a page with the distributions over the text, "), "{page}");
    let page = run(&["score", "-m", "demo", "Once upon", "--html", "s.html"]).stderr();
    assert!(page.starts_with("wrote s.html: a page with the scores and the expected tokens"), "{page}");
    let beside = run(&["convert", "-m", "demo", "--to", "f16", "m.safetensors"]);
    for name in ["config.json: the configuration, ", "vocab.json: part of the tokenizer, "] {
        assert!(beside.stderr().contains(&format!("wrote {name}")), "{}", beside.stderr());
    }
    std::fs::write(folder.path().join("in.jsonl"), "{\"text\": \"Once upon\"}\n{\"text\": \"a time\"}\n").unwrap();
    for subcommand in ["score", "generate"] {
        let output = format!("{subcommand}.jsonl");
        let done = run(&[subcommand, "-m", "demo", "--input", "in.jsonl", "--output", &output]);
        assert!(done.stderr().contains(&format!("{output}: results of 2 rows, ")), "{}", done.stderr());
    }
}

/// The published sizes are known without their files.
#[test]
fn a_published_model_is_described_without_its_files() {
    for (name, parameters) in
        [("gpt2", 124_439_808_u64), ("openai-community/gpt2-xl", 1_557_611_200), ("distilgpt2", 81_912_576)]
    {
        for flags in [&["--offline"][..], &[]] {
            let done = gpt2(&[&["info", "-m", name, "--format", "json"], flags].concat()).succeeds();
            let json = done.json();
            assert_eq!((&json["parameters"]["total"], &json["source"]), (&json!(parameters), &json!("table")));
            assert!(done.stderr().starts_with("note: ") && done.stderr().contains("without its files"));
        }
    }
    let text = gpt2(&["info", "-m", "gpt2", "--offline", "-q"]).succeeds();
    assert!(text.stdout().starts_with("gpt2 (from the table of published sizes): GPT-2, 124,439,808 parameters"));
    assert_eq!(text.stderr(), "");
    gpt2(&["info", "-m", "gpt2", "--offline", "--tensors"]).fails(1, &["not in the cache"]);
    gpt2(&["info", "-m", "some/one", "--offline"]).fails(1, &["not in the cache"]);
    gpt2(&["topk", "-m", "gpt2", "--offline", "Once"]).fails(1, &["not in the cache"]);
}

/// What takes long shows how far it is, in tokens, from the start.
#[cfg(unix)]
#[test]
fn progress_counts_tokens() {
    let text = "Once upon a time there was a king. ".repeat(800);
    let (code, shown) = gpt2(&["score", "-m", "demo", "--stride", "128"]).stdin(&text).on_terminal();
    assert_eq!(code, Some(0));
    // How long it takes is not known from the start.
    assert!(
        shown.contains("0/7,201 tokens ") && !shown.contains("░ 0/7,201 tokens, 0s left"),
        "{:?}",
        shown.get(..600)
    );
    assert!(shown.contains("s left"));
    let beams = ["generate", "-m", "demo", "Once", "--num-beams", "3", "-n", "200", "--ignore-eos"];
    let (code, shown) = gpt2(&beams).on_terminal();
    assert!(code == Some(0) && shown.contains("/200 tokens at most"), "{shown:?}");
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.jsonl");
    std::fs::write(&input, "{\"text\": \"Once upon a time\"}\n".repeat(50)).unwrap();
    for subcommand in ["score", "generate"] {
        let (code, shown) = gpt2(&[subcommand, "-m", "demo", "--input", input.to_str().unwrap()]).on_terminal();
        assert!(code == Some(0) && shown.contains("/50 rows, 0 tokens"), "{subcommand}: {shown:?}");
    }
}
