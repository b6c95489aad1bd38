//! `gpt2 bench`: its measurements are complete and plausible. Speed is a matter for benchmarks, not for tests.

use crate::harness::{gpt2, tiny};

#[test]
fn the_json_has_every_measurement() {
    let folder = tiny("base").display().to_string();
    let flags = ["--prompt-tokens", "4,20", "-n", "3", "--repeat", "2", "--batch-size", "2", "--format", "json"];
    let json = gpt2(&[&["bench", "-m", &folder], &flags[..]].concat()).succeeds().json();
    assert_eq!(json["weights"][0]["dtype"], "F32");
    for key in ["load_s", "bandwidth_bytes_per_s", "threads"] {
        assert!(json[key].as_f64().unwrap() > 0.0, "{key}");
    }
    if cfg!(target_os = "linux") {
        assert!(json["peak_memory_bytes"].as_u64().unwrap() > 1 << 20);
    }
    if cfg!(not(feature = "cuda")) {
        assert_eq!(json.get("peak_device_memory_bytes"), Some(&serde_json::Value::Null));
    }
    let runs = json["runs"].as_array().unwrap();
    assert_eq!(runs.iter().map(|run| run["prompt_tokens"].as_u64().unwrap()).collect::<Vec<_>>(), [4, 20]);
    for run in runs {
        assert_eq!(run["generated_tokens"], 3);
        for key in ["prefill_tokens_per_s", "decode_tokens_per_s"] {
            let speed = |which: &str| run[key][which].as_f64().unwrap();
            assert!(0.0 < speed("min") && speed("min") <= speed("median") && speed("median") <= speed("max"), "{run}");
        }
    }
}

#[test]
fn random_weights_need_no_files() {
    let flags = ["--random", "distilgpt2", "--quantize", "q8_0", "--prompt-tokens", "2", "-n", "1", "--repeat", "1"];
    let done = gpt2(&[&["bench"], &flags[..]].concat()).succeeds();
    for words in ["distilgpt2 (random weights)", "q8_0", "memory reads", "prefill"] {
        assert!(done.stdout().contains(words), "{words} is not in\n{}", done.stdout());
    }
    assert!(done.stdout().lines().all(|line| line.chars().count() <= 80), "{}", done.stdout());
}

#[test]
fn impossible_measurements_are_refused() {
    let folder = tiny("base").display().to_string();
    gpt2(&["bench", "-m", &folder, "--prompt-tokens", "90", "-n", "20"]).fails(2, &["110", "context", "96"]);
    gpt2(&["bench", "-m", &folder, "--prompt-tokens", "0"]).fails(2, &["--prompt-tokens"]);
    gpt2(&["bench", "--random", "gpt3"]).fails(2, &["gpt3", "gpt2-xl"]);
}
