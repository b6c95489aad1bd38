//! Which model and which tokenizer a file is read with.

use super::*;

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
    // Its type is known by its name, whichever form of the model has the weights.
    for model in ["demo", folder.join("copy.gguf").to_str().unwrap()] {
        assert_eq!(decompress(&other, &["-m", model]).succeeds().stdout(), TEXT);
    }
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
    let done = decompress(&small, &["--dtype", "f32"]).fails(1, &["(q8_0, ", "(f32, "]);
    assert!(!done.stderr().contains("adapter"), "{}", done.stderr());
    let other = tiny("base");
    let other = ["-m", other.to_str().unwrap(), "--tokenizer", "gpt2"];
    decompress(&file, &other).fails(1, &["an adapter, too, makes another model"]);
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
    for name in ["gpt2-xl", "openai-community/gpt2-xl", "https://huggingface.co/openai-community/gpt2", "a/b", "/", ""]
    {
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
    decompress(&file, &["--tokenizer", other.to_str().unwrap()])
        .fails(1, &["made with another tokenizer", "--tokenizer gpt2"]);
    // A model without a tokenizer.
    let model = tiny("base");
    let model = ["-m", model.to_str().unwrap()];
    let given = [&model[..], &["--tokenizer", "gpt2"]].concat();
    let file = gpt2(&[&["compress"][..], &given].concat()).stdin("a").succeeds().output.stdout;
    assert_eq!(decompress(&file, &given).succeeds().stdout(), "a");
    decompress(&file, &model).fails(1, &["--tokenizer gpt2"]);
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
