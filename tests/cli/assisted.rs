//! Guessing ahead: what is told of it, and that it changes nothing.

use serde_json::{Value, json};

use crate::harness::gpt2;

/// Where guesses come from.
const KINDS: [&[&str]; 3] = [
    &["--prompt-lookup", "6"],
    &["--assistant-model", "demo"],
    &["--assistant-model", "demo", "--num-assistant-tokens", "2"],
];

fn generated(arguments: &[&str]) -> Value {
    let prompt = ["generate", "-m", "demo", "The cat sat. The dog sat. The cat", "-n", "40", "--ignore-eos"];
    gpt2(&[&prompt[..], &["--format", "json"], arguments].concat()).succeeds().json()
}

#[test]
fn tokens_a_pass_are_told_and_the_tokens_are_the_same() {
    for mode in [&[][..], &["--temperature", "0.9", "--seed", "3"], &["--top-k", "5", "--seed", "1"]] {
        let plain = generated(mode);
        let keys = ["passes", "drafted_tokens", "accepted_tokens"];
        assert!(keys.iter().all(|key| plain["timings"].get(key).is_none()), "{}", plain["timings"]);
        for kind in KINDS {
            let found = generated(&[mode, kind].concat());
            assert_eq!(found["sequences"], plain["sequences"], "{mode:?} {kind:?}");
            let [passes, drafted, accepted] = keys.map(|key| found["timings"][key].as_u64().unwrap());
            // A text that is drawn need not repeat itself.
            let is_right = accepted > 0 || (kind[0] == "--prompt-lookup" && !mode.is_empty());
            assert!(is_right && accepted <= drafted, "{mode:?} {kind:?}: {}", found["timings"]);
            assert_eq!(passes + accepted, 40, "each pass gives the guesses that are right, and a token more");
        }
    }
    let several = ["--temperature", "1", "--seed", "3", "--num-return-sequences", "3"];
    let found = generated(&[&several[..], KINDS[1]].concat());
    assert_eq!(found["sequences"], generated(&several)["sequences"]);
    let counts = &found["timings"];
    assert_eq!(counts["passes"].as_u64().unwrap() + counts["accepted_tokens"].as_u64().unwrap(), 120, "{counts}");
}

#[test]
fn people_and_rows_are_told_as_well() {
    let done =
        gpt2(&["generate", "-m", "demo", "Once upon a", "-n", "21", "-v", "--assistant-model", "demo"]).succeeds();
    // The prompt's pass; then 5, 10 and 2 guesses, all of them right, with a token more each.
    let told = "21 tokens in 4 passes (5.25 tokens a pass): 17 of 17 guesses were right";
    assert!(done.stderr().lines().any(|line| line == told), "{}", done.stderr());
    let quiet = gpt2(&["generate", "-m", "demo", "Once upon a", "-n", "21", "-v"]).succeeds();
    assert!(!quiet.stderr().contains("passes"), "{}", quiet.stderr());
    let rows = format!("{}\n{}\n", json!({"prompt": "A b A b A", "prompt_lookup": 3}), json!({"prompt": "A"}));
    let done = gpt2(&["generate", "-m", "demo", "--input", "-", "--ordered", "-n", "5"]).stdin(rows).succeeds();
    let done = done.json_lines();
    assert!(done[0]["timings"]["passes"].is_u64(), "{}", done[0]);
    assert!(!done[1]["timings"]["passes"].is_u64(), "{}", done[1]);
}
