//! `gpt2 trace`.

use std::io::Read;
use std::path::Path;

use safetensors::SafeTensors;
use serde_json::Value;
use unicode_width::UnicodeWidthStr;

use crate::harness::{golden, gpt2, id_text, tiny};

const CHECKPOINTS: [&str; 4] = ["base", "erf_inner", "inverse", "untied_f16"];

fn trace(checkpoint: &str, ids: &Value, more: &[&str]) -> Value {
    let (folder, ids) = (tiny(checkpoint).display().to_string(), id_text(ids));
    gpt2(&[&["trace", "-m", &folder, "--ids", &ids, "--format", "json"], more].concat()).succeeds().json()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

#[track_caller]
fn assert_near(ours: &[f64], theirs: &[f64], what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert!((ours - theirs).abs() <= 1e-4, "{what}: {ours}, transformers has {theirs}");
    }
}

/// transformers' hidden states are the embedding, every block except the last, and the last block after the final norm.
fn without_the_last_block(states: &[Value]) -> Vec<&Value> {
    let count = states.len();
    states.iter().enumerate().filter(|(i, _)| *i != count - 2).map(|(_, state)| state).collect()
}

#[test]
fn hidden_states_match_transformers() {
    for checkpoint in CHECKPOINTS {
        for case in golden(checkpoint)["forward"].as_array().unwrap() {
            let json = trace(checkpoint, &case["ids"], &[]);
            let states = without_the_last_block(json["hidden"].as_array().unwrap());
            let means: Vec<f64> = states.iter().map(|state| state["mean"].as_f64().unwrap()).collect();
            assert_near(&means, &numbers(&case["hidden_mean"]), checkpoint);
            for (state, theirs) in states.iter().zip(case["hidden_last_first8"].as_array().unwrap()) {
                assert_near(&numbers(&state["last_position"]), &numbers(theirs), checkpoint);
            }
            let names: Vec<&str> =
                json["hidden"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
            assert_eq!((names[0], names[1], names[names.len() - 1]), ("embed", "blocks.0.hidden", "final"));
            assert!(json.get("attention").is_none() && json.get("lens").is_none());
        }
    }
}

#[test]
fn attention_matches_transformers() {
    for checkpoint in CHECKPOINTS {
        for case in golden(checkpoint)["forward"].as_array().unwrap() {
            let json = trace(checkpoint, &case["ids"], &["--attention", "--layer", "0", "--head", "0"]);
            let heads = json["attention"].as_array().unwrap();
            assert_eq!((heads.len(), &heads[0]["layer"], &heads[0]["head"]), (1, &Value::from(0), &Value::from(0)));
            let theirs = case["attention_l0_h0"].as_array().unwrap();
            for (ours, theirs) in heads[0]["weights"].as_array().unwrap().iter().zip(theirs) {
                assert_near(&numbers(ours), &numbers(theirs), checkpoint);
            }
        }
    }
}

/// After the last block the lens is the model's own prediction.
#[test]
fn the_lens_ends_in_the_models_answer() {
    for checkpoint in CHECKPOINTS {
        for case in golden(checkpoint)["forward"].as_array().unwrap() {
            let json = trace(checkpoint, &case["ids"], &["--lens"]);
            let layers = json["lens"].as_array().unwrap();
            let last = layers.last().unwrap()["positions"].as_array().unwrap();
            let said: Vec<&Value> = last.iter().map(|reading| &reading["top"][0]["id"]).collect();
            assert_eq!(said, case["argmax"].as_array().unwrap().iter().collect::<Vec<_>>(), "{checkpoint}");
            for reading in last {
                assert_eq!(reading["outcome_prob"], reading["top"][0]["prob"]);
            }
            assert_eq!(layers[0]["name"], "embed");
        }
    }
}

/// One tensor of a saved file.
fn tensor(file: &SafeTensors<'_>, name: &str) -> (Vec<usize>, Vec<f64>) {
    let view = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    let numbers = view.data().chunks(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect();
    (view.shape().to_vec(), numbers)
}

fn save(checkpoint: &str, ids: &str, path: &Path) -> Vec<u8> {
    let (folder, file) = (tiny(checkpoint).display().to_string(), path.display().to_string());
    gpt2(&["trace", "-m", &folder, "--ids", ids, "--save", &file]).succeeds();
    std::fs::read(path).unwrap()
}

#[test]
fn every_activation_is_saved_under_its_name() {
    let folder = tempfile::tempdir().unwrap();
    for checkpoint in CHECKPOINTS {
        for case in golden(checkpoint)["forward"].as_array().unwrap() {
            let bytes = save(checkpoint, &id_text(&case["ids"]), &folder.path().join("trace.safetensors"));
            let file = SafeTensors::deserialize(&bytes).unwrap();
            let t = case["ids"].as_array().unwrap().len();
            let layers = case["hidden_mean"].as_array().unwrap().len() - 1;
            let mut expected = vec!["embed".to_owned(), "final".into(), "logits".into()];
            expected.extend((0..layers).flat_map(|i| [format!("blocks.{i}.hidden"), format!("blocks.{i}.attention")]));
            let mut names: Vec<String> = file.names().into_iter().map(str::to_owned).collect();
            expected.sort();
            names.sort();
            assert_eq!(names, expected, "{checkpoint}");
            let (shape, logits) = tensor(&file, "logits");
            let theirs = numbers(&case["logits_last"]);
            assert_eq!(shape, [t, theirs.len()]);
            assert_near(&logits[logits.len() - theirs.len()..], &theirs, checkpoint);
            let (shape, attention) = tensor(&file, "blocks.0.attention");
            assert_eq!(shape[1..], [t, t]);
            let theirs: Vec<f64> = case["attention_l0_h0"].as_array().unwrap().iter().flat_map(numbers).collect();
            assert_near(&attention[..t * t], &theirs, checkpoint);
            let (shape, last) = tensor(&file, "final");
            let c = shape[1];
            let theirs = numbers(&case["hidden_last_first8"].as_array().unwrap()[layers]);
            assert_near(&last[(t - 1) * c..][..8], &theirs, checkpoint);
        }
    }
    // Only the file is left.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// What `numpy.load` reads, by the description of its format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>
#[test]
fn numpy_reads_the_same_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let safetensors = save("base", "1 2 3 4", &folder.path().join("trace.safetensors"));
    let safetensors = SafeTensors::deserialize(&safetensors).unwrap();
    let npz = save("base", "1 2 3 4", &folder.path().join("trace.npz"));
    let mut npz = zip::ZipArchive::new(std::io::Cursor::new(npz)).unwrap();
    assert_eq!(npz.len(), safetensors.len());
    for (name, tensor) in safetensors.tensors() {
        let mut array = vec![];
        npz.by_name(&format!("{name}.npy")).unwrap().read_to_end(&mut array).unwrap();
        assert!(array.starts_with(b"\x93NUMPY\x01\x00"), "{name}");
        let begin = 10 + usize::from(u16::from_le_bytes([array[8], array[9]]));
        assert_eq!(begin % 64, 0, "{name}");
        let axes: Vec<String> = tensor.shape().iter().map(usize::to_string).collect();
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", axes.join(", "));
        let found = std::str::from_utf8(&array[10..begin]).unwrap();
        assert_eq!(found.trim_end(), header, "{name}");
        assert!(found.ends_with('\n') && array[begin..] == *tensor.data(), "{name}");
    }
}

/// The logits of a traced pass are bit-identical to those of an untraced one.
#[test]
fn tracing_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for checkpoint in CHECKPOINTS {
        let ids = id_text(&golden(checkpoint)["forward"][2]["ids"]);
        let bytes = save(checkpoint, &ids, &folder.path().join("trace.safetensors"));
        let (shape, logits) = tensor(&SafeTensors::deserialize(&bytes).unwrap(), "logits");
        let model = tiny(checkpoint).display().to_string();
        let arguments = ["topk", "-m", &model, "--ids", &ids, "--all", "-k", "1000", "--format", "json"];
        let json = gpt2(&arguments).succeeds().json();
        for (i, position) in json["positions"].as_array().unwrap().iter().enumerate() {
            for candidate in position["next"].as_array().unwrap() {
                let traced = logits[i * shape[1] + candidate["id"].as_u64().unwrap() as usize];
                assert_eq!(candidate["logit"].as_f64().unwrap() as f32, traced as f32, "{checkpoint} {i}");
            }
        }
    }
}

#[test]
fn views_on_a_terminal_show_tokens_and_keys() {
    let show = |flags: &[&str]| {
        let out = gpt2(&[&["trace", "-m", "demo", "Once upon a time"], flags].concat()).succeeds().stdout();
        assert!(!out.contains('\x1b'));
        out
    };
    for (flags, words) in [
        (&[][..], &["state", "embed", "block 5", "after \" time\"", "best tokens", "head   0    1", "layer   5"][..]),
        (&["--hidden"], &["state", "embed", "block 5", "final norm", "4 tokens × 128 numbers", "mean", "std"]),
        (&["--attention"], &["head   0    1", "layer   5", "F the first token"]),
        (&["--attention", "--layer", "2"], &["layer 2, head 0", "layer 2, head 1"]),
        (&["--layer", "2", "--head", "1"], &["layer 2, head 1", "token    #", "\" upon\"", "██ 70%"]),
        (&["--lens"], &["state", "embed", "block 5", "\" upon\"", "what the last block says"]),
    ] {
        let out = show(flags);
        for word in words {
            assert!(out.contains(word), "{word} is not in\n{out}\nof {flags:?}");
        }
        let widest = out.lines().map(|line| line.width()).max().unwrap();
        assert!(widest <= 80, "{flags:?}: {widest} columns");
    }
    let forced = gpt2(&["trace", "-m", "demo", "Once upon", "--lens"]).env("CLICOLOR_FORCE", "1").succeeds().stdout();
    assert!(forced.contains('\x1b'));
}

/// Without a view, the text has the lens after the last token, with the numbers of `--lens`.
#[test]
fn the_first_view_is_the_lens_after_the_last_token() {
    let run = |flags: &[&str]| gpt2(&[&["trace", "-m", "demo", "Once upon a time"], flags].concat()).succeeds();
    let text = run(&[]).stdout();
    let json = run(&["--lens", "--format", "json"]).json();
    let reading = |layer: &Value| layer["positions"][3].clone();
    let layers = json["lens"].as_array().unwrap();
    let answer = reading(layers.last().unwrap())["top"][0]["token"].as_str().unwrap().to_owned();
    let lines: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("state")).collect();
    assert!(lines[0].contains(&format!("{answer:?}")), "{text}");
    for (line, layer) in lines[1..].iter().zip(layers) {
        let best = &reading(layer)["top"][0];
        let percent = format!("{:.0}%", 100.0 * best["prob"].as_f64().unwrap());
        let cells: Vec<&str> = line.split_whitespace().collect();
        assert!(
            line.contains(&format!("{:?}", best["token"].as_str().unwrap())) && cells.contains(&&*percent),
            "{text}"
        );
    }
    // Neither changes what scripts get.
    assert!(run(&["--format", "json"]).json().get("hidden").is_some());
    let pieces = run(&["--lens", "--pieces"]).stdout();
    assert!(pieces.contains("Ġupon") && !pieces.contains('"'), "{pieces}");
    gpt2(&["trace", "-m", "demo", "Once", "--pieces", "--format", "json"]).fails(2, &["--pieces"]);
}

#[test]
fn wrong_choices_are_usage_errors() {
    let fails = |flags: &[&str], words: &[&str]| {
        gpt2(&[&["trace", "-m", "demo", "Once"], flags].concat()).fails(2, words);
    };
    fails(&["--attention", "--layer", "6"], &["--layer 6", "0 to 5"]);
    fails(&["--attention", "--head", "2"], &["--head 2", "0 to 1"]);
    fails(&["--hidden", "--lens", "--svg", "/tmp/x.svg"], &["--svg draws one view"]);
    gpt2(&["trace", "-m", "demo", "Once", "--svg", "/nonexistent/x.svg"]).fails(1, &["/nonexistent/x.svg"]);
    gpt2(&["trace", "-m", "demo", "Once", "--save", "/nonexistent/x"]).fails(1, &["/nonexistent/x"]);
    let long = "a ".repeat(600);
    gpt2(&["trace", "-m", "demo", &long]).fails(2, &["512"]);
    gpt2(&["trace", "-m", "demo", &long[..1000], "--attention", "--svg", "/tmp/x.svg"]).fails(2, &["--layer"]);
}

/// `tiny/base`, whose embedding of the second position is not a number.
fn damaged() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(tiny("base").join("config.json"), folder.path().join("config.json")).unwrap();
    let mut weights = std::fs::read(tiny("base").join("model.safetensors")).unwrap();
    let length = u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&weights[8..8 + length]).unwrap();
    let wpe = &header["transformer.wpe.weight"];
    let width = wpe["shape"][1].as_u64().unwrap() as usize;
    let start = 8 + length + wpe["data_offsets"][0].as_u64().unwrap() as usize + width * 4;
    weights[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(folder.path().join("model.safetensors"), weights).unwrap();
    folder
}

#[test]
fn attention_that_is_no_distribution_is_refused_in_every_view() {
    let (model, out) = (damaged(), tempfile::tempdir().unwrap());
    let file = |name: &str| out.path().join(name).display().to_string();
    let trace = |ids: &str, flags: &[&str]| {
        let arguments = ["trace", "-m", model.path().to_str().unwrap(), "--ids", ids];
        gpt2(&[&arguments, flags].concat())
    };
    let (svg, html, save) = (file("a.svg"), file("a.html"), file("a.safetensors"));
    for flags in
        [&["--attention"][..], &["--attention", "--svg", &svg], &["--html", &html], &["--save", &save], &["--lens"]]
    {
        trace("1", flags).succeeds();
        std::fs::read_dir(out.path()).unwrap().for_each(|entry| std::fs::remove_file(entry.unwrap().path()).unwrap());
        trace("1 2", flags).fails(1, &["not finite"]);
        assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0, "{flags:?}");
    }
}

/// The hash is that of the numbers as `--save` writes them.
#[test]
fn repeated_runs_give_the_same_bits() {
    use sha2::{Digest, Sha256};
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("a.safetensors");
    let base = ["trace", "-m", "demo", "Once upon a time"];
    gpt2(&[&base[..], &["--save", saved.to_str().unwrap()]].concat()).succeeds();
    let bytes = std::fs::read(&saved).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let layers = |what: &'static str| (0..6).map(move |layer| format!("blocks.{layer}.{what}"));
    let names = ["embed".to_owned()].into_iter().chain(layers("hidden")).chain(["final".to_owned()]);
    let mut hash = Sha256::new();
    for name in names.chain(layers("attention")).chain(["logits".to_owned()]) {
        hash.update(file.tensor(&name).unwrap().data());
    }
    let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let json = gpt2(&[&base[..], &["--repeat", "3", "--format", "json"]].concat()).succeeds().json();
    assert_eq!(json["repeat"], serde_json::json!({"runs": 3, "identical": true, "sha256": [hash, hash, hash]}));
    assert!(json.get("hidden").is_none(), "{json}");
    let text = gpt2(&[&base[..], &["--repeat", "2"]].concat()).succeeds().stdout();
    assert!(text.starts_with("2 runs gave the same bits") && text.contains(&hash), "{text}");
    let other = gpt2(&["trace", "-m", "demo", "Once upon a king", "--repeat", "2"]).succeeds().stdout();
    assert!(!other.contains(&hash), "another text has another hash");
    let both = gpt2(&[&base[..], &["--repeat", "2", "--lens"]].concat()).succeeds().stdout();
    assert!(both.contains("same bits") && both.contains("Logit lens"), "{both}");
    gpt2(&[&base[..], &["--repeat", "0"]].concat()).fails(2, &["--repeat", "from 1"]);
}

#[test]
fn saved_activations_and_results_are_different_files() {
    let folder = tempfile::tempdir().unwrap();
    let rows = "{\"prompt\": \"Once upon\"}\n";
    for flag in ["--output", "--summary"] {
        let run = ["trace", "-m", "demo", "--input", "-", "--save", "a.npz", flag, "a.npz"];
        let message = format!("--save is the file of {flag}; give another file");
        gpt2(&run).current_dir(folder.path()).stdin(rows).fails(2, &[&message]);
        assert!(!folder.path().join("a.npz").exists());
    }
}

#[test]
fn activations_are_not_saved_to_stdout() {
    let folder = tempfile::tempdir().unwrap();
    let run = ["trace", "-m", "demo", "Once", "--save", "-"];
    gpt2(&run).current_dir(folder.path()).fails(2, &["--save", "takes a file, not -"]);
    assert!(!folder.path().join("-").exists());
}

#[test]
fn a_token_is_named_in_a_way_that_the_model_has() {
    let model = crate::harness::tiny("base").display().to_string();
    let run = |token: &str| gpt2(&["trace", "-m", &model, "--ids", "1 2 3", "--attribute", token]);
    run(" a").fails(2, &["--attribute \" a\": ", "has no tokenizer; give the token as id:N"]);
    run("id:-1").fails(2, &["--attribute \"id:-1\": \"-1\" is not a token id"]);
}

/// A text in which no token occurs twice has no place for two of the behaviours.
#[test]
fn heads_without_a_place_to_look_are_not_scored() {
    let found = gpt2(&["trace", "-m", "demo", "--heads", "The wolf went"]).succeeds().stdout();
    assert!(found.contains("Induction: to what followed the same token earlier: no token has that"), "{found}");
    assert!(!found.contains("-0"), "{found}");
}
