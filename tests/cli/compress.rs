//! `gpt2 compress` and `gpt2 decompress`: any bytes come back, and nothing else ever does.

use std::path::{Path, PathBuf};

use crate::harness::{Done, gpt2, is_update, tiny};

/// A text that the demo knows how to continue.
const TEXT: &str = "Once upon a time there was a king who had three sons. The eldest was called Peter, the second Paul, and the \
    youngest Jack. One day the king said to them: \"Go out into the world, and bring me the most beautiful thing that you can \
    find.\" So they went.\n";

fn book() -> String {
    let text = include_str!("../fixtures/perplexity/text.txt");
    text.chars().take(9000).collect()
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/compress").join(name)
}

#[track_caller]
fn compress(bytes: impl AsRef<[u8]>, more: &[&str]) -> Vec<u8> {
    gpt2(&[&["compress", "-m", "demo"], more].concat()).stdin(bytes).succeeds().output.stdout
}

fn decompress(file: impl AsRef<[u8]>, more: &[&str]) -> crate::harness::Run {
    gpt2(&[&["decompress"], more].concat()).stdin(file)
}

#[track_caller]
fn comes_back(bytes: impl AsRef<[u8]>, more: &[&str]) -> Vec<u8> {
    let file = compress(bytes.as_ref(), more);
    let back = decompress(&file, &[]).succeeds().output.stdout;
    assert!(back == bytes.as_ref(), "{} bytes came back as {}", bytes.as_ref().len(), back.len());
    file
}

/// Numbers without a pattern.
fn numbers() -> impl Iterator<Item = usize> {
    let mut state = 1u64;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as usize
    })
}

fn noise(len: usize) -> Vec<u8> {
    numbers().map(|number| number as u8).take(len).collect()
}

/// A long text that does not say the same thing again and again.
fn words(len: usize) -> String {
    let book = book();
    let words: Vec<&str> = book.split_whitespace().collect();
    let mut text = String::new();
    for number in numbers() {
        if text.len() >= len {
            break;
        }
        text.extend([words[number % words.len()], " "]);
    }
    text
}

#[test]
fn any_bytes_come_back() {
    let all_bytes: Vec<u8> = (0..=255).collect();
    let mixed = [TEXT.as_bytes(), &noise(300), TEXT.as_bytes(), b"\xff\xfe\0\0", TEXT.as_bytes()].concat();
    for bytes in [
        &b""[..],
        b"\n",
        b"\0",
        b"\xff",
        b"a caf\xe9",
        TEXT.as_bytes(),
        b"<|endoftext|> and <|endoftext|>",
        "\u{feff}mark, \r\n line, \u{1f600}\u{1f468}\u{200d}\u{1f469} \u{e9} e\u{301}".as_bytes(),
        "\u{442}\u{435}\u{43a}\u{441}\u{442} \u{6587}\u{672c}".as_bytes(),
        &all_bytes,
        &noise(5000),
        &mixed,
        &vec![b' '; 70_000],
        &vec![0; 200_000],
    ] {
        comes_back(bytes, &[]);
    }
}

#[test]
fn what_the_model_knows_gets_small() {
    let file = comes_back(TEXT, &[]);
    assert!(file.len() < TEXT.len() * 3 / 5, "{} of {}", file.len(), TEXT.len());
    // Two segments, side by side.
    let long = words(70_000);
    let folder = tempfile::tempdir().unwrap();
    let (path, back) = (folder.path().join("book.gpt2z"), folder.path().join("book.txt"));
    let (path, back) = (path.to_str().unwrap(), back.to_str().unwrap());
    let made = gpt2(&["compress", "-m", "demo", "-o", path, "--format", "json"]).stdin(&long).succeeds().json();
    assert_eq!(
        (&made["model"], &made["weights"], &made["window"], &made["stride"]),
        (&"demo".into(), &"f32".into(), &512.into(), &256.into())
    );
    assert_eq!((made["segments"].as_u64(), made["coded_segments"].as_u64()), (Some(2), Some(2)));
    assert_eq!(made["text_bytes"], long.len());
    assert_eq!(made["compressed_bytes"], std::fs::metadata(path).unwrap().len());
    let bits = made["bits_per_byte"].as_f64().unwrap();
    assert!((bits - 8.0 * made["compressed_bytes"].as_f64().unwrap() / long.len() as f64).abs() < 1e-9);
    let found = gpt2(&["decompress", path, "-o", back, "--format", "json"]).succeeds().json();
    for key in ["model", "weights", "window", "stride", "text_bytes", "compressed_bytes", "segments", "tokens"] {
        assert_eq!(found[key], made[key], "{key}");
    }
    assert!(std::fs::read_to_string(back).unwrap() == long);
}

/// Summed over the same windows, as `score` sees them.
#[test]
fn the_size_is_what_score_says() {
    let text = book();
    for (window, stride) in [("512", "256"), ("64", "16"), ("32", "31")] {
        let made = compress(&text, &["--window", window, "--stride", stride]).len();
        let score = ["score", "-m", "demo", "--bos", "--window", window, "--stride", stride, "--format", "json"];
        let score = gpt2(&score).stdin(&text).succeeds().json();
        let bits = score["sum_logprob"].as_f64().unwrap() / -std::f64::consts::LN_2;
        let ratio = (8 * made) as f64 / bits;
        // The header, the end and the checksums take about a hundred bytes.
        let fixed = 8.0 * 100.0 / bits;
        assert!((1.0..1.001 + fixed).contains(&ratio), "{window} {stride}: {made} bytes for {bits} bits");
    }
}

#[test]
fn everything_gives_the_same_file() {
    let text: String = book().chars().take(4000).collect();
    let text = &text[..];
    for more in [&[][..], &["--dtype", "bf16"], &["--quantize", "q8_0"]] {
        let file = compress(text, more);
        for (level, threads) in [("baseline", "1"), ("portable", "2"), ("avx2", "1"), ("avx512", "3")] {
            let arguments = [&["compress", "-m", "demo", "--threads", threads], more].concat();
            let other = gpt2(&arguments).env("GPT2_SIMD", level).stdin(text).succeeds().output.stdout;
            assert!(file == other, "{level} {threads} {more:?}");
        }
        for (level, threads) in [("baseline", "1"), ("avx2", "2")] {
            let back = decompress(&file, &["--threads", threads]).env("GPT2_SIMD", level).succeeds();
            assert_eq!(back.stdout(), text);
        }
    }
}

/// Files of earlier versions stay readable, and the same text gives the same file.
#[test]
fn the_format_does_not_drift() {
    let text = std::fs::read(fixture("text.bin")).unwrap();
    for (name, more) in
        [("demo.gpt2z", &[][..]), ("demo-q8_0.gpt2z", &["--quantize", "q8_0", "--window", "64", "--stride", "8"])]
    {
        let path = fixture(name);
        let made = compress(&text, more);
        if is_update() {
            std::fs::write(&path, &made).unwrap();
        }
        assert!(made == std::fs::read(&path).unwrap(), "{name}: {}", path.display());
        for level in ["baseline", "portable"] {
            let run = gpt2(&["decompress", path.to_str().unwrap(), "--threads", "1"]).env("GPT2_SIMD", level);
            assert!(run.succeeds().output.stdout == text, "{name} at {level}");
        }
    }
}

#[test]
fn a_damaged_file_is_an_error_and_gives_nothing_wrong() {
    let file = compress(&TEXT[..60], &[]);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let fails = |bytes: &[u8], words: &[&str]| {
        let done = decompress(bytes, &["-o", out.to_str().unwrap()]).fails(1, words);
        assert_eq!(done.stderr().lines().count(), 1, "{}", done.stderr());
        assert!(!out.exists());
    };
    for end in 0..file.len() {
        fails(&file[..end], &["stdin: ", "truncated"]);
    }
    for place in 0..file.len() {
        let mut changed = file.clone();
        changed[place] ^= 1 << (place % 8);
        fails(&changed, &["stdin: "]);
    }
    fails(&[&file[..], &file].concat(), &["after its end"]);
    fails(TEXT.as_bytes(), &["not a file of gpt2 compress"]);
}

#[test]
fn another_model_is_refused_and_named() {
    let file = compress(TEXT, &[]);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // The same weights under another name and in another form.
    for (to, name) in [("f32", "copy.gguf"), ("f16", "half.gguf"), ("f16", "own/model.safetensors")] {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let path = path.to_str().unwrap();
        gpt2(&["convert", "-m", "demo", "--to", to, path]).succeeds();
        let model = path.strip_suffix("/model.safetensors").unwrap_or(path);
        assert_eq!(decompress(&file, &["-m", model]).succeeds().stdout(), TEXT, "{name}");
    }
    // Quantised when loaded, and by `convert`.
    let quantized = folder.join("q8.gguf");
    let quantized = quantized.to_str().unwrap();
    gpt2(&["convert", "-m", "demo", "--to", "q8_0", quantized]).succeeds();
    let small = compress(TEXT, &["--quantize", "q8_0"]);
    assert_eq!(decompress(&small, &["-m", quantized]).succeeds().stdout(), TEXT);
    assert_eq!(decompress(&small, &[]).succeeds().stdout(), TEXT);
    let other = gpt2(&["compress", "-m", quantized]).stdin(TEXT).succeeds().output.stdout;
    decompress(&other, &[]).fails(1, &["made with a local model, \"./q8.gguf\"", "--model"]);
    assert_eq!(decompress(&other, &["-m", quantized]).succeeds().stdout(), TEXT);
    assert_eq!(decompress(&other, &["-m", "demo", "--quantize", "q8_0"]).succeeds().stdout(), TEXT);
    decompress(&file, &["-m", quantized]).fails(1, &["made with the model \"demo\" (f32", "q8.gguf"]);
    for flags in [
        &["--dtype", "bf16"][..],
        &["--quantize", "q4_k"],
        &["-m", tiny("base").to_str().unwrap(), "--tokenizer", "gpt2"],
    ] {
        decompress(&file, flags).fails(1, &["stdin: made with the model \"demo\" (f32"]);
    }
    decompress(&small, &["--dtype", "f32"]).fails(1, &["(q8_0, ", "(f32, "]);
}

/// The name in the file is only for those who name no model, and never that of something else.
#[test]
fn what_the_user_names_comes_before_the_name_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for name in ["demo", "gpt2", "distilgpt2", "openai-community/gpt2"] {
        let model = folder.join(name);
        std::fs::create_dir_all(&model).unwrap();
        gpt2(&["convert", "-m", "demo", "--to", "f16", model.join("model.safetensors").to_str().unwrap()]).succeeds();
        // Another model than the demo.
        let config = model.join("config.json");
        let text = std::fs::read_to_string(&config).unwrap();
        let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
        json["layer_norm_epsilon"] = 1e-6.into();
        std::fs::write(&config, json.to_string()).unwrap();
        let model = model.to_str().unwrap();
        let file = gpt2(&["compress", "-m", model]).stdin(TEXT).succeeds().output.stdout;
        assert_eq!(decompress(&file, &[]).env("GPT2_MODEL", model).succeeds().stdout(), TEXT, "{name}");
        assert_eq!(decompress(&file, &["-m", model]).env("GPT2_MODEL", "demo").succeeds().stdout(), TEXT, "{name}");
        let last = format!("\"./{}\"", name.rsplit('/').next().unwrap());
        decompress(&file, &[]).fails(1, &["made with a local model", &last, "--model"]);
        // Given as a path that looks like a name.
        let by_name = gpt2(&["compress", "-m", &format!("./{name}")]).current_dir(folder).stdin(TEXT);
        assert_eq!(by_name.succeeds().output.stdout, file, "{name}");
        // None of its folders is in the file.
        assert!(!file.windows(folder.as_os_str().len()).any(|part| part == folder.as_os_str().as_encoded_bytes()));
    }
}

/// A file with another name of its model.
fn renamed(file: &[u8], name: &str) -> Vec<u8> {
    const START: usize = 6;
    let old_end = START + usize::from(file[START - 1]);
    let old_name = b"\x04demo";
    let body = file[START..old_end].strip_suffix(old_name).expect("a file of the demo");
    let mut other = [&file[..START], body, &[name.len() as u8], name.as_bytes()].concat();
    other[START - 1] = (other.len() - START) as u8;
    other.extend(crc32fast::hash(&other).to_le_bytes());
    [&other, &file[old_end + 4..]].concat()
}

/// Whoever sends a file chooses the name in it.
#[test]
fn a_file_starts_no_download_and_opens_no_folder() {
    let file = compress(TEXT, &[]);
    assert_eq!(decompress(renamed(&file, "demo"), &[]).succeeds().stdout(), TEXT);
    for name in ["gpt2-xl", "openai-community/gpt2-xl", "https://huggingface.co/openai-community/gpt2", "a/b", "/", ""] {
        let done = decompress(renamed(&file, name), &[]).fails(1, &["made with the model", "--model NAME"]);
        assert!(!done.stderr().contains("reach"), "{}", done.stderr());
    }
    // A folder here, and a model in the cache of that name.
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let snapshot = cache.join("hub/models--some--one/snapshots/0123456789012345678901234567890123456789");
    std::fs::create_dir_all(folder.path().join("some/one")).unwrap();
    std::fs::create_dir_all(&snapshot).unwrap();
    let weights = snapshot.join("model.safetensors");
    gpt2(&["convert", "-m", "demo", "--to", "f32", weights.to_str().unwrap()]).succeeds();
    let run = || decompress(renamed(&file, "some/one"), &[]).current_dir(folder.path());
    run().fails(1, &["made with the model \"some/one\"", "--model NAME"]);
    // Not whole, as after a download that was broken off.
    let run = || run().env("HF_HOME", &cache);
    run().fails(1, &["`some/one`", "--model NAME"]);
    let branch = cache.join("hub/models--some--one/refs/main");
    std::fs::create_dir_all(branch.parent().unwrap()).unwrap();
    std::fs::write(branch, "0123456789012345678901234567890123456789").unwrap();
    assert_eq!(run().succeeds().stdout(), TEXT);
}

#[test]
fn another_tokenizer_is_refused() {
    let file = compress("a", &[]);
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats/tokjson_bos/model");
    decompress(&file, &["--tokenizer", other.to_str().unwrap()]).fails(1, &["made with another tokenizer"]);
}

/// Some of these tokenizers do not give back what they were given.
#[test]
fn what_a_tokenizer_loses_comes_back_all_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let (name, tokenizer) = entry.map(|entry| (entry.file_name(), entry.path().join("model"))).unwrap();
        if !name.to_str().unwrap().starts_with("tok") {
            continue;
        }
        let tokenizer = ["--tokenizer", tokenizer.to_str().unwrap()];
        for text in ["Hello world, hello", "  two\u{a0}spaces\r\ncaf\u{e9} \u{1f600}"] {
            let file = compress(text, &tokenizer);
            assert_eq!(decompress(&file, &tokenizer).succeeds().stdout(), text, "{name:?}");
        }
        count += 1;
    }
    assert!(count > 3);
}

#[test]
fn mistakes_are_said_before_the_work() {
    let fails = |arguments: &[&str], words: &[&str]| drop(gpt2(arguments).stdin(TEXT).fails(2, words));
    fails(&["compress", "-m", "demo", "--device", "cuda"], &["same bits", "leave out --device"]);
    fails(&["decompress", "--device", "cuda"], &["same bits", "leave out --device"]);
    fails(&["compress", "-m", "demo", "--stride", "512"], &["--stride is 512", "use 1 to 511"]);
    fails(&["compress", "-m", "demo", "--window", "513"], &["--window is 513", "allows 1 to 512"]);
    fails(&["compress", "-m", "demo", "--window", "1"], &["--window"]);
    fails(&["compress", "-m", "demo", "--format", "json"], &["--format", "-o"]);
    gpt2(&["compress", "-m", "demo", "/nonexistent"]).fails(1, &["cannot read /nonexistent"]);
    gpt2(&["decompress", "/nonexistent"]).fails(1, &["cannot read /nonexistent"]);
    gpt2(&["compress", "-m", "demo", "-o", "/nonexistent/a"]).fails(1, &["no folder /nonexistent"]);
    gpt2(&["compress", "-m", tiny("base").to_str().unwrap()]).fails(1, &["tokenizer", "--tokenizer"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("same");
    std::fs::write(&path, TEXT).unwrap();
    let path = path.to_str().unwrap();
    gpt2(&["compress", "-m", "demo", path, "-o", path]).fails(2, &["is read by this run"]);
    assert_eq!(std::fs::read_to_string(path).unwrap(), TEXT);
}

#[cfg(unix)]
#[test]
fn a_terminal_gets_no_code_and_no_control_characters() {
    let (code, shown) = gpt2(&["compress", "-m", "demo"]).stdin(TEXT).on_terminal();
    assert_eq!(code, Some(2));
    assert!(shown.contains("not for a terminal"), "{shown}");
    let file = compress("\x1b[31mred\n", &[]);
    let (code, shown) = decompress(&file, &["-q"]).on_terminal();
    assert_eq!((code, &*shown), (Some(0), "\\u{1b}[31mred\n"));
    let (_, shown) = decompress(&file, &["-q", "--raw-text"]).on_terminal();
    assert_eq!(shown, "\x1b[31mred\n");
    let folder = tempfile::tempdir().unwrap();
    // From a file, whose length is known: no bar is drawn over the text, and no report follows it.
    let path = folder.path().join("one.gpt2z");
    std::fs::write(&path, compress("without an end of line", &[])).unwrap();
    let (code, shown) = gpt2(&["decompress", path.to_str().unwrap()]).on_terminal();
    assert_eq!((code, &*shown), (Some(0), "without an end of line"));
    let path = folder.path().join("text");
    std::fs::write(&path, book()).unwrap();
    let out = folder.path().join("text.gpt2z");
    let arguments = ["compress", "-m", "demo", path.to_str().unwrap(), "-o", out.to_str().unwrap()];
    let (code, shown) = gpt2(&arguments).on_terminal();
    assert_eq!(code, Some(0));
    let last = shown.trim_end().lines().last().unwrap();
    assert!(last.contains("compressed 9") && last.contains("bits a byte"), "{shown}");
}

/// `head` closes the pipe before all is written.
#[cfg(unix)]
#[test]
fn a_reader_that_goes_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("zeros"), vec![0; 3_000_000]).unwrap();
    let line =
        "gpt2 compress -q -m demo zeros -o z.gpt2z && { gpt2 decompress -q z.gpt2z; echo $? >&2; } | head -c 3 | wc -c";
    let done = crate::harness::shell(line, folder.path()).succeeds();
    assert_eq!((done.stdout().trim(), &*done.stderr()), ("3", "0\n"));
}

#[test]
fn one_line_says_what_was_done() {
    let done: Done = gpt2(&["compress", "-m", "demo"]).stdin(TEXT).succeeds();
    let (text, file) = (TEXT.len(), done.output.stdout.len());
    assert!(done.stderr().starts_with(&format!("compressed {text} bytes to {file}: ")), "{}", done.stderr());
    assert!(done.stderr().contains(" bits a byte, ") && done.stderr().ends_with("B/s\n"));
    let done = decompress(&done.output.stdout, &[]).succeeds();
    assert!(done.stderr().starts_with(&format!("decompressed {file} bytes to {text}: ")), "{}", done.stderr());
    assert_eq!(gpt2(&["compress", "-m", "demo", "-q"]).stdin(TEXT).succeeds().stderr(), "");
}
