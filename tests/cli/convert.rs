//! `gpt2 convert`, and models quantised in a file or in memory.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde_json::Value;

use crate::harness::{Done, golden, gpt2, id_text, tiny};

#[track_caller]
fn convert(model: &str, to: &str, out: &Path) -> Done {
    gpt2(&["convert", "--model", model, "--to", to, out.to_str().unwrap(), "--format", "json"]).succeeds()
}

fn topk(model: &Path, ids: &str, more: &[&str]) -> Value {
    let arguments = ["topk", "-m", model.to_str().unwrap(), "--ids", ids, "--format", "json"];
    gpt2(&[&arguments, more].concat()).succeeds().json()
}

/// The logits of the next token, by id.
fn logits(json: &Value) -> Vec<(u64, f64)> {
    let next = json["positions"].as_array().unwrap().last().unwrap()["next"].as_array().unwrap();
    let mut logits: Vec<_> = next.iter().map(|c| (c["id"].as_u64().unwrap(), c["logit"].as_f64().unwrap())).collect();
    logits.sort_by_key(|(id, _)| *id);
    logits
}

/// The largest difference between the logits of two runs.
fn farthest(a: &Value, b: &Value) -> f64 {
    logits(a)
        .iter()
        .zip(logits(b))
        .map(|((i, a), (j, b))| if *i == j { (a - b).abs() } else { f64::MAX })
        .fold(0.0, f64::max)
}

fn perplexity(model: &str, more: &[&str]) -> f64 {
    let text = include_str!("../fixtures/perplexity/text.txt");
    let text: String = text.chars().take(4000).collect();
    let arguments = ["score", "-m", model, "--stride", "256", "--format", "json"];
    let json = gpt2(&[&arguments, more].concat()).stdin(text).succeeds().json();
    json["perplexity"].as_f64().unwrap()
}

/// Every golden checkpoint, written in both formats, gives transformers' logits.
#[test]
fn files_written_in_f32_give_the_logits_of_transformers() {
    for checkpoint in ["base", "erf_inner", "inverse", "untied_f16"] {
        let folder = tempfile::tempdir().unwrap();
        let source = tiny(checkpoint);
        let model = folder.path().join("model.safetensors");
        let report = convert(source.to_str().unwrap(), "f32", &model).json();
        assert_eq!(report["format"], "safetensors");
        assert_eq!(report["bytes"], model.metadata().unwrap().len());
        for case in golden(checkpoint)["forward"].as_array().unwrap() {
            let json = topk(folder.path(), &id_text(&case["ids"]), &["-k", "1000"]);
            for (id, logit) in logits(&json) {
                let expected = case["logits_last"][id as usize].as_f64().unwrap();
                assert!((logit - expected).abs() < 1e-4, "{checkpoint} {id}: {logit} {expected}");
            }
        }
    }
}

/// GGUF cannot store every configuration; those that it can are read back unchanged.
#[test]
fn gguf_gives_the_logits_of_transformers_or_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    convert(tiny("base").to_str().unwrap(), "f32", &file);
    for case in golden("base")["forward"].as_array().unwrap() {
        for (id, logit) in logits(&topk(&file, &id_text(&case["ids"]), &["-k", "1000"])) {
            assert!((logit - case["logits_last"][id as usize].as_f64().unwrap()).abs() < 1e-4);
        }
    }
    let back = folder.path().join("model.safetensors");
    convert(file.to_str().unwrap(), "f32", &back);
    let ids = id_text(&golden("base")["forward"][0]["ids"]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(logits(&topk(folder.path(), &ids, &[])), logits(&topk(&tiny("base"), &ids, &[])), "after a round trip");
    // Attention scaled by layer: llama.cpp would compute a different model.
    let refused = tiny("inverse").display().to_string();
    gpt2(&["convert", "-m", &refused, "--to", "f32", file.to_str().unwrap()])
        .fails(1, &["scaled by the inverse of the layer", "safetensors"]);
    assert!(!file.exists());
}

#[test]
fn a_converted_model_keeps_its_tokenizer_and_its_output() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("demo.gguf");
    convert("demo", "f16", &file);
    let prompt = "Once upon a time, naïve 日本 <|endoftext|> there";
    let run = |model: &str| {
        let json = gpt2(&["generate", "-m", model, "-n", "30", prompt, "--format", "json"]).succeeds().json();
        (json["prompt_ids"].clone(), json["sequences"][0]["text"].clone())
    };
    assert_eq!(run(file.to_str().unwrap()), run("demo"));
}

/// The demo's widths are 128 and 512, so only the second matrix of the MLP can use a format with blocks of 256.
#[test]
fn quantised_in_memory_and_in_a_file_is_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    for kind in ["q8_0", "q6_k", "q4_k"] {
        let file = folder.path().join(format!("demo-{kind}.gguf"));
        convert("demo", kind, &file);
        let arguments = ["topk", "Once upon a time", "-k", "40", "--format", "json"];
        let read = gpt2(&[&arguments[..], &["-m", file.to_str().unwrap()]].concat()).succeeds();
        let made = gpt2(&[&arguments[..], &["-m", "demo", "--quantize", kind]].concat()).succeeds();
        assert_eq!(read.json()["positions"], made.json()["positions"], "{kind}");
        let falls_back = made.stderr().contains("matrices with 128 inputs are Q8_0");
        assert_eq!(falls_back, kind != "q8_0", "{kind}: {}", made.stderr());
        let exact = file.metadata().unwrap().len() * 2 < 2 * 14_700_000;
        assert!(exact, "{kind} is smaller than f16");
    }
}

/// Packed for this program, in every type: every subcommand opens it, and it gives what the model does unpacked.
#[test]
fn a_packed_file_is_the_same_model() {
    let ids = "7454 2402 257 640";
    for (kind, flags) in [
        ("f32", &[][..]),
        ("bf16", &["--dtype", "bf16"]),
        ("q8_0", &["--quantize", "q8_0"]),
        ("q4_k", &["--quantize", "q4_k"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.safetensors");
        let arguments = ["convert", "-m", "demo", "--to", kind, "--packed", file.to_str().unwrap(), "--format", "json"];
        assert_eq!(gpt2(&arguments).succeeds().json()["format"], "packed safetensors");
        let packed = folder.path().to_str().unwrap();
        let same = |arguments: &[&str], key: &str| {
            let of = |model: &[&str]| {
                gpt2(&[arguments, model, &["--format", "json"]].concat()).succeeds().json()[key].clone()
            };
            let unpacked = of(&[&["-m", "demo"], flags].concat());
            // 16-bit weights of a file alone ask for keys and values in 32 bits.
            assert_eq!(of(&[&["-m", packed], flags].concat()), unpacked, "{kind}: {arguments:?}");
            assert!(!unpacked.is_null());
        };
        same(&["topk", "--ids", ids, "-k", "50"], "positions");
        same(&["generate", "--ids", ids, "-n", "30"], "sequences");
        same(&["score", "--ids", ids], "tokens");
        same(&["trace", "--ids", ids, "--lens"], "lens");
        let info = gpt2(&["info", "-m", packed, "--format", "json"]).succeeds().json();
        assert_eq!(info["format"], "packed");
        // Unpacked again, it is the model that was never packed.
        let unpacked = |model: &str, name: &str| {
            let extension = if kind.starts_with('q') { "gguf" } else { "safetensors" };
            let file = folder.path().join(name).join("model").with_extension(extension);
            std::fs::create_dir(file.parent().unwrap()).unwrap();
            convert(model, kind, &file);
            topk(&file, ids, &["-k", "1000"])["positions"].clone()
        };
        assert_eq!(unpacked(packed, "back"), unpacked("demo", "never"), "{kind}");
        // A file whose header is not what it was, and one cut short. (Not read whole: the memory of this program is seen by
        // other tests.)
        let altered = std::fs::OpenOptions::new().read(true).write(true).open(&file).unwrap();
        let mut start = vec![0; 4096];
        (&altered).read_exact(&mut start).unwrap();
        let at = start.windows(7).position(|bytes| bytes == b"panels/").unwrap() as u64 + 8;
        (&altered).seek(SeekFrom::Start(at)).unwrap();
        (&altered).write_all(b"z").unwrap();
        gpt2(&["topk", "-m", packed, "--ids", ids]).fails(1, &["model.safetensors", "panels/", "is not called"]);
        altered.set_len(altered.metadata().unwrap().len() - 64).unwrap();
        gpt2(&["topk", "-m", packed, "--ids", ids]).fails(1, &["model.safetensors", "truncated or damaged"]);
    }
    gpt2(&["convert", "-m", "demo", "--to", "f32", "--packed", "x.gguf"])
        .fails(2, &["--packed: x.gguf must end in .safetensors"]);
}

/// The loss of quality is as expected from the formats: within 0.1% for 8 bits, a few percent for 4.
#[test]
fn quantised_models_are_nearly_as_good() {
    let exact = perplexity("demo", &[]);
    for (kind, most) in [("q8_0", 0.002), ("q6_k", 0.005), ("q4_k", 0.02)] {
        let loss = perplexity("demo", &["--quantize", kind]) / exact - 1.0;
        assert!(loss.abs() < most, "{kind}: {loss}");
        assert!(loss != 0.0, "{kind} was not used");
    }
}

/// `--dtype f32` computes with the dequantised weights.
#[test]
fn dtype_widens_a_quantised_file() {
    let folder = tempfile::tempdir().unwrap();
    let (small, wide) = (folder.path().join("small.gguf"), folder.path().join("model.safetensors"));
    convert("demo", "q8_0", &small);
    convert(small.to_str().unwrap(), "f32", &wide);
    let ids = "7454 2402 257 640";
    let widened = topk(&small, ids, &["--dtype", "f32"]);
    let same = topk(folder.path(), ids, &[]);
    // The file has the matrices transposed, so sums are taken in a different order.
    assert!(farthest(&widened, &same) < 1e-4, "{}", farthest(&widened, &same));
    let integers = topk(&small, ids, &[]);
    assert!(farthest(&widened, &integers) > 1e-3, "integer products round differently");
}

#[test]
fn impossible_conversions_are_refused_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let run = |to: &str, out: &str, more: &[&str]| gpt2(&[&["convert", "-m", "demo", "--to", to, out], more].concat());
    run("q8_0", &path("a.safetensors"), &[]).fails(2, &["safetensors has no type Q8_0", "*.gguf"]);
    run("f16", &path("a.bin"), &[]).fails(2, &["a.bin must end in .gguf or .safetensors"]);
    run("f16", &path("a.gguf"), &["--dtype", "f16"]).fails(2, &["--to", "--dtype"]);
    run("q3_k", &path("a.gguf"), &[]).fails(2, &["q3_k", "q4_k"]);
    run("f16", &path("missing/a.gguf"), &[]).fails(1, &["a.gguf"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    gpt2(&["topk", "-m", "demo", "x", "--dtype", "f16", "--quantize", "q8_0"]).fails(2, &["--dtype", "--quantize"]);
}

/// Ids need no tokenizer, so a broken one causes only a note. For text it is an error.
#[test]
fn ids_work_with_a_broken_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(tiny("base").join(name), folder.path().join(name)).unwrap();
    }
    std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    let model = folder.path().to_str().unwrap();
    let done = gpt2(&["topk", "-m", model, "--ids", "1 2 3"]).succeeds();
    assert!(done.stderr().contains("note: continuing without a tokenizer: "), "{}", done.stderr());
    gpt2(&["topk", "-m", model, "text"]).fails(1, &["tokenizer.json", "--ids"]);
    let tokenizer = folder.path().join("tokenizer.json").display().to_string();
    gpt2(&["topk", "-m", model, "--ids", "1 2 3", "--tokenizer", &tokenizer]).fails(1, &["tokenizer.json"]);
}

#[test]
fn a_converted_model_computes_the_same_bits_as_one_converted_when_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let distribution = |model: &str, flags: &[&str]| {
        let text = "Once upon a time there was a king who had a daughter";
        let all = [&["topk", "-m", model, text, "--all", "-k", "40", "--format", "json"], flags].concat();
        gpt2(&all).current_dir(folder.path()).succeeds().json()["positions"].clone()
    };
    for (to, flag) in [
        ("f16", "--dtype=f16"),
        ("bf16", "--dtype=bf16"),
        ("q8_0", "--quantize=q8_0"),
        ("q6_k", "--quantize=q6_k"),
        ("q4_k", "--quantize=q4_k"),
    ] {
        let file = format!("{to}.gguf");
        gpt2(&["convert", "-m", "demo", "--to", to, &file]).current_dir(folder.path()).succeeds();
        // 16-bit numbers are widened if nothing else is asked for.
        let flags = if to.ends_with("16") { &[flag][..] } else { &[] };
        assert!(distribution(&file, flags) == distribution("demo", &[flag]), "{to}");
    }
}
