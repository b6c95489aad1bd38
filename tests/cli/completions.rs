//! What shells offer for a word: they ask the program itself.

use crate::harness::gpt2;

#[test]
fn completions_know_models_devices_and_types() {
    let cache = tempfile::tempdir().unwrap();
    for name in ["models--someone--their-model", "models--openai-community--gpt2-xl", "datasets--a--b", "models--x"] {
        std::fs::create_dir_all(cache.path().join(name).join("snapshots")).unwrap();
    }
    let offered = |words: &[&str]| -> Vec<String> {
        let arguments = [&["--", "gpt2"], words].concat();
        let run = gpt2(&arguments)
            .env("GPT2_COMPLETE", "bash")
            .env("_CLAP_IFS", "\n")
            .env("_CLAP_COMPLETE_INDEX", words.len().to_string())
            .env("_CLAP_COMPLETE_COMP_TYPE", "9")
            .env("_CLAP_COMPLETE_SPACE", "true")
            .env("HF_HUB_CACHE", cache.path());
        run.succeeds().stdout().lines().map(|line| line.trim_end().to_owned()).collect()
    };
    let models = offered(&["generate", "-m", ""]);
    for name in ["demo", "gpt2", "gpt2-xl", "someone/their-model"] {
        assert_eq!(models.iter().filter(|model| *model == name).count(), 1, "{name}: {models:?}");
    }
    assert!(!models.iter().any(|model| model.contains("datasets") || model == "x"), "{models:?}");
    assert_eq!(offered(&["info", "-m", "some"]), ["someone/their-model"]);
    assert_eq!(offered(&["generate", "--device", "c"])[0], "cpu");
    assert_eq!(offered(&["topk", "--quantize", ""]), ["q8_0", "q6_k", "q4_k"]);
    assert_eq!(offered(&["generate", "--dtype", ""]), ["f32", "f16", "bf16"]);
    assert_eq!(offered(&["convert", "--to", "q"]), ["q8_0", "q6_k", "q4_k"]);
    assert!(offered(&["gen"]).contains(&"generate".to_owned()));
    assert!(offered(&["generate", "--temp"]).contains(&"--temperature".to_owned()));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(gpt2(&["completions", shell]).succeeds().stdout().contains("GPT2_COMPLETE"), "{shell}");
    }
    // From a file of its `fpath`, zsh runs the script when it is first asked for completions.
    let script = gpt2(&["completions", "zsh"]).succeeds().stdout();
    assert!(script.ends_with("_gpt2 ]]; then\n    _clap_dynamic_completer_gpt2 \"$@\"\nfi\n"), "{script}");
}
