//! What decoding parameters do beyond the ids that transformers generates: token healing, the model's own
//! log-probabilities, lengths and times, and what is refused.

use serde_json::{Value, json};

use crate::harness::{gpt2, id_text, tiny};

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The record of `gpt2 generate` on the demo with these arguments.
fn generated(arguments: &[&str]) -> Value {
    gpt2(&[&["generate", "-m", "demo", "--format", "json"], arguments].concat()).succeeds().json()
}

#[test]
fn a_prompt_is_healed_as_in_transformers() {
    let file = tiny("base").join("../../decode/healing.json");
    let cases: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let mut rows = String::new();
    for case in cases.as_array().unwrap() {
        let prompt = case["prompt"].as_str().unwrap();
        let found = generated(&["--prompt", prompt, "--token-healing", "-n", "5"]);
        assert_eq!(found["prompt_ids"], case["healed"], "{prompt:?}");
        assert_eq!(found["sequences"][0]["ids"], case["generated"], "{prompt:?}");
        let ids = generated(&["--ids", &id_text(&case["ids"]), "--token-healing", "-n", "5"]);
        assert_eq!(ids["prompt_ids"], case["healed"], "{prompt:?}");
        rows += &format!("{}\n", json!({"prompt": prompt, "token_healing": true, "max_new_tokens": 5}));
    }
    let done = gpt2(&["generate", "-m", "demo", "--input", "-", "--ordered"]).stdin(rows).succeeds().json_lines();
    for (record, case) in done.iter().zip(cases.as_array().unwrap()) {
        assert_eq!((&record["prompt_ids"], &record["sequences"][0]["ids"]), (&case["healed"], &case["generated"]));
    }
    let text = gpt2(&["generate", "-m", "demo", "Once upon a ti", "--token-healing", "-n", "3"]).succeeds();
    assert_eq!(text.stdout(), "Once upon a time there was a\n", "the text is that of the healed ids");
    assert_eq!(
        generated(&["--prompt", " ", "--token-healing", "-n", "1"])["prompt_ids"],
        json!([220]),
        "nothing is left"
    );
}

#[test]
fn raw_log_probabilities_are_the_models_own() {
    let base = ["Once upon a", "-n", "4", "--logprobs", "3", "--repetition-penalty", "1.8", "--suppress-tokens", "640"];
    for more in [
        &[][..],
        &["--num-beams", "3"],
        &["--num-beams", "4", "--num-beam-groups", "2", "--diversity-penalty", "0.5"],
        &["--guidance-scale", "1.5"],
        &["--guidance-scale", "1.5", "--negative-prompt", "The king", "--num-beams", "2"],
        &["--top-k", "5", "--seed", "1"],
        &["--penalty-alpha", "0.5", "--top-k", "4"],
        &["--prompt-lookup", "3"],
    ] {
        let plain = generated(&[&base[..], more].concat());
        let found = generated(&[&base[..], &["--raw-logprobs"], more].concat());
        let ids = id_text(&found["sequences"][0]["all_ids"]);
        let of_ids = |words: &[&str]| {
            gpt2(&[words, &["-m", "demo", "--ids", &ids, "--format", "json"]].concat()).succeeds().json()
        };
        let (best, scored) = (of_ids(&["topk", "--all", "-k", "3"]), of_ids(&["score"]));
        let tokens = found["sequences"][0]["logprobs"].as_array().unwrap();
        assert_eq!(tokens.len(), 4);
        for (i, token) in tokens.iter().enumerate() {
            let next = best["positions"][i + 2]["next"].as_array().unwrap();
            assert_eq!(token["raw_logprob"], scored["logprobs"][i + 3], "{more:?}");
            let top = token["raw_top"].as_array().unwrap();
            assert_eq!(top.len(), 3);
            for (ours, own) in top.iter().zip(next) {
                assert_eq!(
                    (&ours["id"], &ours["logprob"], &ours["token"]),
                    (&own["id"], &own["logprob"], &own["token"])
                );
            }
            let mut rest = token.clone();
            rest.as_object_mut().unwrap().retain(|key, _| !key.starts_with("raw_"));
            assert_eq!(rest, plain["sequences"][0]["logprobs"][i], "{more:?}: the others stay");
        }
    }
    let alone = generated(&["Once upon a", "-n", "1", "--raw-logprobs"]);
    let token = &alone["sequences"][0]["logprobs"][0];
    assert_eq!((&token["logprob"], &token["top"], &token["raw_top"]), (&token["raw_logprob"], &json!([]), &json!([])));
    let arguments = "generate -m demo -n 1 --logprobs 1 --raw-logprobs --repetition-penalty 1.5 --prompt";
    let arguments: Vec<&str> = arguments.split(' ').chain(["Once upon a"]).collect();
    let text = gpt2(&arguments).succeeds().stdout();
    assert!(text.contains("\n  -0.4321    raw            \" time\" -0.4321\n"), "{text}");
}

#[test]
fn lengths_and_times_end_a_text() {
    let reason = |arguments: &[&str]| {
        let found = generated(&[&["--ids", "7454 2402 257"], arguments].concat());
        let sequence = &found["sequences"][0];
        (sequence["ids"].as_array().unwrap().len(), sequence["finish_reason"].as_str().unwrap().to_owned())
    };
    let length = |n| (n, "length".to_owned());
    assert_eq!(reason(&["--max-length", "10"]), length(7));
    assert_eq!(reason(&["--max-length", "10", "-n", "2"]), length(2));
    for time in ["0", "-1", "1e-300"] {
        assert_eq!(reason(&["--max-time", time]), length(1), "{time}");
    }
    for strategy in [
        &["--num-beams", "3"][..],
        &["--num-beams", "4", "--num-beam-groups", "2", "--diversity-penalty", "0.5"],
        &["--penalty-alpha", "0.5", "--top-k", "4"],
        &["--prompt-lookup", "3"],
        &["--assistant-model", "demo"],
        &["--sample", "--seed", "1"],
    ] {
        assert_eq!(reason(&[strategy, &["--max-time", "0"]].concat()), length(1), "{strategy:?}");
    }
    assert_eq!(reason(&["--max-time", "1e30", "-n", "3"]), length(3));
    // A forced end is one if it is the model's.
    assert_eq!(reason(&["-n", "3", "--forced-eos-token-id", "50256"]), (3, "eos".to_owned()));
    assert_eq!(reason(&["-n", "3", "--forced-eos-token-id", "640"]), length(3));
}

#[test]
fn lengths_without_effect_are_named() {
    for (arguments, note) in [
        (&["-n", "2", "--max-length", "9"][..], "note: --max-new-tokens (-n) takes the place of --max-length"),
        (
            &["--max-length", "5", "--min-length", "9"],
            "warning: --min-length 9 is more than --max-length 5: no text gets so long",
        ),
        (
            &["-n", "2", "--min-new-tokens", "3"],
            "warning: --min-new-tokens 3 is more than --max-new-tokens 2: no text gets so long",
        ),
        (
            &["-n", "2", "--min-length", "1", "--min-new-tokens", "1"],
            "note: --min-new-tokens takes the place of --min-length",
        ),
        (&["--max-length", "5", "--min-length", "5"], ""),
    ] {
        let base = ["generate", "-m", "demo", "--ids", "7454 2402 257"];
        assert_eq!(gpt2(&[&base[..], arguments].concat()).succeeds().stderr().trim_end(), note, "{arguments:?}");
        assert_eq!(gpt2(&[&base[..], arguments, &["--quiet"]].concat()).succeeds().stderr(), "");
    }
    let help = gpt2(&["generate", "--help"]).succeeds().stdout();
    let help: Vec<&str> = help.split_whitespace().collect();
    assert!(help.join(" ").contains("N tokens together; --max-new-tokens takes its place"));
}

#[test]
fn the_settings_of_a_row_make_its_result_again() {
    let ids = json!([7454, 2402, 257]);
    let cases = [
        (json!({"max_length": 10}), &["-n", "3"][..], 7),
        (json!({"max_new_tokens": 2}), &["--max-length", "9"], 2),
        (json!({"min_length": 4, "max_new_tokens": 4, "eos_token_id": [640]}), &["--min-new-tokens", "4"], 2),
    ];
    for (parameters, flags, length) in cases {
        let run = |parameters: &Value, flags: &[&str]| {
            let mut row = parameters.clone();
            row["ids"] = ids.clone();
            let base = ["generate", "-m", "demo", "--input", "-", "--no-timings"];
            gpt2(&[&base[..], flags].concat()).stdin(format!("{row}\n")).succeeds().json()
        };
        let found = run(&parameters, flags);
        assert_eq!(found["sequences"][0]["ids"].as_array().unwrap().len(), length, "{parameters}");
        let mut settings = found["settings"].clone();
        settings.as_object_mut().unwrap().retain(|key, _| key.starts_with("max_") || key.starts_with("min_"));
        if let Some(end) = parameters.get("eos_token_id") {
            settings["eos_token_id"] = end.clone();
        }
        assert_eq!(run(&settings, &[])["sequences"], found["sequences"], "{parameters}: {settings}");
    }
}

#[test]
fn a_row_replaces_the_other_way_to_say_the_same() {
    let run = |row: Value, flags: &[&str]| {
        let mut row = row;
        row["prompt"] = "Once upon a".into();
        let base = ["generate", "-m", "demo", "-n", "6", "--guidance-scale", "2", "--input", "-", "--no-timings"];
        gpt2(&[&base[..], flags].concat()).stdin(format!("{row}\n")).succeeds().json()["sequences"].clone()
    };
    let (text, ids) = (json!({"negative_prompt": "The king"}), json!({"negative_prompt_ids": [464, 5822]}));
    let expected = run(text.clone(), &[]);
    assert_eq!(run(ids.clone(), &["--negative-prompt", "A tale"]), expected);
    assert_eq!(run(text, &["--negative-prompt-ids", "5"]), expected);
    assert_eq!(run(json!({}), &["--negative-prompt", "The king"]), expected);
}

#[test]
fn assistance_is_tuned_and_changes_nothing() {
    let base = ["Once upon a time there was a king. Once upon a time", "-n", "30"];
    let plain = &generated(&base)["sequences"];
    for more in [
        &["--assistant-model", "demo", "--num-assistant-tokens", "1"][..],
        &["--assistant-model", "demo", "--num-assistant-tokens", "7"],
        &["--assistant-model", "demo", "--assistant-confidence-threshold", "0.4"],
        &["--assistant-model", "demo", "--assistant-confidence-threshold", "1", "--quantize", "q8_0"],
        &["--prompt-lookup", "5", "--max-matching-ngram-size", "1"],
        &["--prompt-lookup", "5", "--max-matching-ngram-size", "18446744073709551615"],
    ] {
        let found = generated(&[&base[..], more].concat());
        if !more.contains(&"--quantize") {
            assert_eq!(found["sequences"], *plain, "{more:?}");
        }
    }
    let sample = [&base[..], &["--temperature", "0.8", "--seed", "7"]].concat();
    let expected = generated(&sample);
    let assisted = ["--assistant-model", "demo", "--assistant-confidence-threshold", "0.3"];
    assert_eq!(generated(&[&sample[..], &assisted].concat())["sequences"], expected["sequences"]);
}

#[test]
fn a_bias_may_name_its_token_by_its_text() {
    let biased =
        |token: &str| generated(&["Once upon a", "-n", "1", "--logit-bias", token])["sequences"][0]["text"].clone();
    assert_eq!(biased(" king=100"), " king");
    assert_eq!(biased("5822=100"), " king", "the same by its id");
    assert_eq!(biased("==100"), "=");
    assert_eq!(biased(" 5=100"), " 5", "not the token 5");
    let both = |first: &str, last: &str| {
        let flags = ["Once upon a", "-n", "1", "--logit-bias", first, "--logit-bias", last];
        generated(&flags)["sequences"][0]["text"].clone()
    };
    assert_eq!(both(" king=-100", "5822=100"), " king", "the last one counts");
    assert_eq!(both("5822=-100", " king=100"), " king");
    assert_eq!(both(" king=100", "5822=-100"), " time");
}

#[test]
fn an_empty_negative_prompt_is_the_start_of_a_text() {
    let guided = |flag: &str, value: &str| {
        generated(&["Once upon a", "-n", "8", "--guidance-scale", "2", flag, value])["sequences"].clone()
    };
    assert_eq!(guided("--negative-prompt", ""), guided("--negative-prompt-ids", "50256"));
    assert_eq!(guided("--negative-prompt", "The king"), guided("--negative-prompt-ids", "464 5822"));
    assert_ne!(guided("--negative-prompt", ""), guided("--negative-prompt", "The king"));
    let off =
        generated(&["Once upon a", "-n", "8", "--guidance-scale", "1", "--negative-prompt", "x"])["sequences"].clone();
    assert_eq!(off, generated(&["Once upon a", "-n", "8"])["sequences"], "1 is off");
}

#[test]
fn guidance_shows_in_topk_at_every_place() {
    let guidance = ["--guidance-scale", "1.7", "--negative-prompt", "The king"];
    let base = strings(&["topk", "-m", "demo", "--ids", "7454 2402 257", "-k", "3", "--format", "json"]);
    let topk = |more: &[&str]| gpt2(&[base.clone(), strings(&guidance), strings(more)].concat()).succeeds().json();
    let last = topk(&[])["positions"][0]["next"].clone();
    assert_eq!(topk(&["--all"])["positions"][2]["next"], last);
    let steps = topk(&["--append", "3"])["steps"].clone();
    assert_eq!(steps[0]["next"], last);
    let generated =
        generated(&[&["--ids", "7454 2402 257", "-n", "3"], &guidance[..]].concat())["sequences"][0]["ids"].clone();
    let appended: Vec<&Value> = steps.as_array().unwrap().iter().map(|step| &step["id"]).collect();
    assert_eq!(appended, generated.as_array().unwrap().iter().collect::<Vec<_>>());
    let tree = topk(&["--tree", "2"])["tree"].clone();
    assert_eq!(tree[0]["id"], steps[0]["id"]);
    for (node, next) in tree[0]["next"].as_array().unwrap().iter().zip(steps[1]["next"].as_array().unwrap()) {
        assert_eq!((&node["id"], &node["prob"]), (&next["id"], &next["prob"]), "below a token as after it");
    }
}

/// Each value is refused as a flag with exit code 2, and as a key of a row with an error of that row, in a line that names it.
#[test]
fn what_is_out_of_range_is_refused_by_name() {
    for (name, values) in [
        ("max_length", &["0", "-1", "1.5", "x", "3", "99999999999999999999999"][..]),
        ("min_length", &["-1", "1.5", "nan"]),
        ("max_time", &["nan", "inf", "1e39", "x", ""]),
        ("encoder_repetition_penalty", &["0", "-1", "nan", "inf", "1e39"]),
        ("encoder_no_repeat_ngram_size", &["-1", "0.5", "x"]),
        ("sequence_bias", &["5", "=1", "5=", "5=x", "x=1", "50257=1", "-1=1", "5=nan", "5=1e300", "5=inf 5"]),
        ("logit_bias", &["5", "=1", "5=", "50257=1", " time after=1", "5=101", "5=nan"]),
        ("suppress_tokens", &["x", "-1", "1.5", "4294967296"]),
        ("begin_suppress_tokens", &["x", "-1"]),
        ("forced_bos_token_id", &["x", "-1", "1.5", "4294967296"]),
        ("forced_eos_token_id", &["50257", "x", "-1"]),
        ("exponential_decay_length_penalty", &["5", "5,", "x,2", "1.5,2", "5,nan", "5,inf", "5,1e300", "1,2,3"]),
        ("guidance_scale", &["nan", "inf", "-inf", "1e39", "x"]),
        ("negative_prompt_ids", &["", "x", "-1", "50257", "1 2"]),
        ("negative_prompt", &["x"]),
        ("top_h", &["0", "-0.1", "1.01", "nan", "1e-300"]),
        ("num_assistant_tokens", &["0", "-1", "1025", "5"]),
        ("assistant_confidence_threshold", &["-0.1", "1.1", "nan", "0.5"]),
        ("max_matching_ngram_size", &["0", "-1", "2"]),
    ] {
        let flag = format!("--{}", name.replace('_', "-"));
        for value in values {
            let flag_value = format!("{flag}={value}");
            let done = gpt2(&["generate", "-m", "demo", "--ids", "7454 2402 257", "-n", "2", &flag_value]).output();
            let (code, error) = (done.output.status.code(), done.stderr());
            // A value after its limit: it leaves no room after the prompt, and -n goes before it.
            if name == "max_length" && *value == "3" {
                assert_eq!(code, Some(0));
                continue;
            }
            assert_eq!(code, Some(2), "{flag_value}: {error}");
            let lines: Vec<&str> = error.lines().collect();
            assert!(
                lines.len() == 1 && lines[0].starts_with("error: ") && lines[0].contains(&flag),
                "{flag_value}: {error}"
            );
        }
    }
}

/// Errors that name what is to be done, and notes on stderr.
#[test]
fn odd_values_are_taken_or_refused_in_words() {
    let ids: Vec<String> = (0..50257).map(|id| id.to_string()).collect();
    let long = ids[..513].join(" ");
    for (arguments, error) in [
        (&["--forced-eos-token-id", ""][..], "--forced-eos-token-id is empty; give at least one id"),
        (
            &["--sequence-bias", "640=inf", "--bad-words-ids", "640"],
            "--sequence-bias forces token 640 with inf, and --bad-words-ids bans it: leave one of them out",
        ),
        (
            &["--sequence-bias", "1=1e400"],
            "--sequence-bias takes a number from -3.4e38 to 3.4e38, or inf or -inf, as a bias",
        ),
        (
            &["--guidance-scale", "1", "--negative-prompt-ids", "50257"],
            "--negative-prompt-ids has token id 50257, but the vocabulary ends at 50256",
        ),
        (&["--guidance-scale", "-inf"], "--guidance-scale takes a number from -3.4e38 to 3.4e38, not -inf"),
        (&["--max-length", ""], "--max-length takes a whole number from 1, not an empty text"),
        (
            &["--guidance-scale", "2", "--negative-prompt-ids", &long],
            "the negative prompt has 513 tokens, more than the context of 512; shorten it, or use --on-context-limit crop",
        ),
    ] {
        let base = ["generate", "-m", "demo", "--ids", "7454 2402 257", "-n", "2"];
        let done = gpt2(&[&base[..], arguments].concat()).fails(2, &[]);
        assert_eq!(done.stderr(), format!("error: {error}\n"), "{}", arguments[0]);
    }
    let huge = ["generate", "-m", "demo", "--ids", "7454 2402 257", "--encoder-repetition-penalty", "3e38"];
    let error = gpt2(&huge).fails(1, &[]).stderr();
    assert_eq!(error, "error: the scores overflow: bring --encoder-repetition-penalty closer to 1\n");

    let early = ["Once upon a time", "-n", "3", "--exponential-decay-length-penalty=-9223372036854775808,1.5"];
    assert_eq!(generated(&early)["sequences"][0]["ids"], json!([50256]), "it begins at once");

    for command in ["generate", "topk"] {
        let empty = [command, "-m", "demo", "Once", "--guidance-scale", "2", "--negative-prompt", ""];
        let stderr = gpt2(&empty).succeeds().stderr();
        assert!(stderr.starts_with("note: the negative prompt is empty: starting from token "), "{stderr}");
        let off = [command, "-m", "demo", "Once", "--guidance-scale", "1", "--negative-prompt", ""];
        assert_eq!(gpt2(&off).succeeds().stderr(), "");
    }
    let most = ids[..511].join(" ");
    let full = ["generate", "-m", "demo", "Once", "--guidance-scale", "2", "--negative-prompt-ids", &most];
    assert_eq!(
        gpt2(&full).succeeds().stderr(),
        "warning: the text ends because that after the negative prompt is at the full context of 512 tokens; \
         to continue, use --on-context-limit crop\n"
    );
    let forced = gpt2(&["topk", "-m", "demo", "Once", "-k", "2", "--sequence-bias", "640=inf"]).succeeds().stdout();
    assert!(!forced.contains("e-4342944"), "{forced}");
    let help = gpt2(&["generate", "--help"]).succeeds().stdout();
    assert!(help.contains("--assistant-model guesses") && !help.contains("assistant_model"), "{help}");
}

#[test]
fn a_row_with_a_wrong_value_says_so() {
    let rows = [
        (
            json!({"forced_eos_token_id": []}),
            "`forced_eos_token_id` is [], an empty list; give at least one, or leave it out",
        ),
        (
            json!({"begin_suppress_tokens": (0..50257).collect::<Vec<_>>()}),
            "`begin_suppress_tokens` has every token that may be generated, which leaves none to begin with",
        ),
        (json!({"sequence_bias": []}), "`sequence_bias` is [], an empty list; give at least one, or leave it out"),
        (json!({"do_sample": false, "top_h": 0.5}), "`do_sample` is false, and `top_h` samples"),
        (
            json!({"exponential_decay_length_penalty": [1e19, 1.1]}),
            "`exponential_decay_length_penalty` is [1e+19,1.1], the start has to be from -9223372036854775808 to 9223372036854775807",
        ),
        (
            json!({"sequence_bias": {"5": 1}}),
            "`sequence_bias` is {\"5\":1}, not a list of ids with their bias, such as [[[12, 345], -2.5]]",
        ),
        (
            json!({"sequence_bias": [[[5]]]}),
            "`sequence_bias` is [[[5]]], of which [[5]] is not a pair of ids and their bias, such as [[12, 345], -2.5]",
        ),
        (
            json!({"sequence_bias": [[[50257], 1]]}),
            "`sequence_bias` has token id 50257, but the vocabulary ends at 50256",
        ),
        (json!({"sequence_bias": [[[], 1]]}), "`sequence_bias` has an empty sequence; give at least one id"),
        (json!({"suppress_tokens": "x"}), "`suppress_tokens` is \"x\", not a list of token ids"),
        (
            json!({"suppress_tokens": (0..50257).collect::<Vec<_>>()}),
            "`suppress_tokens` has every token of the vocabulary, which leaves none",
        ),
        (
            json!({"forced_eos_token_id": [5, 50257]}),
            "`forced_eos_token_id` has token id 50257, but the vocabulary ends at 50256",
        ),
        (
            json!({"forced_eos_token_id": [5], "suppress_tokens": [5]}),
            "`forced_eos_token_id` has no token that `suppress_tokens` does not ban: leave one of them out",
        ),
        (
            json!({"forced_bos_token_id": 50257}),
            "`forced_bos_token_id` has token id 50257, but the vocabulary ends at 50256",
        ),
        (
            json!({"forced_bos_token_id": 5, "suppress_tokens": [5]}),
            "`forced_bos_token_id` is among `suppress_tokens`: leave one of them out",
        ),
        (
            json!({"exponential_decay_length_penalty": 5}),
            "`exponential_decay_length_penalty` is 5, not a list of a start and a factor, such as [20, 1.05]",
        ),
        (
            json!({"exponential_decay_length_penalty": [1, 2], "ignore_eos": true}),
            "`exponential_decay_length_penalty` needs an end-of-text token, and `ignore_eos` leaves none",
        ),
        (json!({"guidance_scale": "2"}), "`guidance_scale` is \"2\", not a number"),
        (json!({"guidance_scale": 2, "negative_prompt": 5}), "`negative_prompt` is 5, not a text"),
        (
            json!({"guidance_scale": 2, "negative_prompt_ids": []}),
            "`negative_prompt_ids` is empty; give at least one id",
        ),
        (
            json!({"negative_prompt": "x"}),
            "`negative_prompt` needs `guidance_scale`, which says how far to push away from it",
        ),
        (
            json!({"guidance_scale": 2, "negative_prompt": "x", "negative_prompt_ids": [1]}),
            "`negative_prompt` and `negative_prompt_ids` say the same: leave one of them out",
        ),
        (
            json!({"guidance_scale": 2, "negative_prompt_ids": [50257]}),
            "`negative_prompt_ids` has token id 50257, but the vocabulary ends at 50256",
        ),
        (json!({"max_time": "x"}), "`max_time` is \"x\", not a number"),
        (json!({"top_h": 2}), "`top_h` takes a number above 0, up to 1, not 2"),
        (json!({"token_healing": 1}), "`token_healing` is 1, neither true nor false"),
        (json!({"num_assistant_tokens": 5}), "`num_assistant_tokens` needs `assistant_model`"),
        (json!({"max_matching_ngram_size": 5}), "`max_matching_ngram_size` needs `prompt_lookup`"),
        (json!({"max_length": 1}), "`max_length` is 1, which leaves no room: it counts the prompt, which has 1 token"),
    ];
    let mut input = String::new();
    for (row, _) in &rows {
        let mut row = row.clone();
        row["prompt"] = "Once".into();
        input += &format!("{row}\n");
    }
    let run = gpt2(&["generate", "-m", "demo", "--input", "-", "--ordered"]).stdin(input).fails(3, &[]);
    for (record, (_, error)) in run.json_lines().iter().zip(rows) {
        assert_eq!((&record["error"], &record["error_kind"]), (&error.into(), &"usage".into()));
    }
}

/// transformers gives each of them as well, with the score -1e9 of a beam that begins like another one, and fills the last
/// place with padding.
#[test]
fn beams_that_find_the_same_text_give_it_each() {
    for more in [
        &["--forced-eos-token-id", "640"][..],
        &["--forced-eos-token-id", "640", "--length-penalty", "-1"],
        &["--forced-eos-token-id", "50256", "--early-stopping", "true"],
    ] {
        let base = ["--ids", "7454 2402", "-n", "1", "--num-beams", "3", "--num-return-sequences", "3"];
        let id: u32 = more[1].parse().unwrap();
        let done = gpt2(&[&["generate", "-m", "demo", "--format", "json"], &base[..], more].concat()).succeeds();
        assert_eq!(done.stderr(), "", "{more:?}");
        let found = done.json();
        let scores = [0.0, -1e9, -1e9];
        for (sequence, score) in found["sequences"].as_array().unwrap().iter().zip(scores) {
            assert_eq!((&sequence["ids"], &sequence["score"]), (&json!([id]), &json!(score)), "{more:?}");
            assert_eq!(sequence["finish_reason"], if id == 640 { "length" } else { "eos" }, "{more:?}");
        }
    }
    let bos = ["--ids", "7454", "--max-length", "2", "--num-beams", "2", "--num-return-sequences", "2"];
    let found = generated(&[&bos[..], &["--forced-bos-token-id", "15"]].concat());
    assert!(found["sequences"].as_array().unwrap().iter().all(|sequence| sequence["ids"] == json!([15])));
}

#[test]
fn rows_of_topk_have_the_parameters_of_its_flags() {
    let base = ["topk", "-m", "demo", "-k", "4", "--format", "jsonl"];
    let cases = [
        (json!({}), &[][..]),
        (
            json!({"guidance_scale": 3, "negative_prompt": "The king"}),
            &["--guidance-scale=3", "--negative-prompt=The king"],
        ),
        (json!({"temperature": 0.5, "top_k": 3}), &["--temperature=0.5", "--top-k=3"]),
        (json!({"suppress_tokens": [640], "top_p": null}), &["--suppress-tokens=640"]),
        (json!({"logit_bias": {" king": 5}}), &["--logit-bias= king=5"]),
        (json!({"min_length": 9, "eos_token_id": 640}), &["--suppress-tokens=640"]),
        (json!({"choices": [" time"]}), &["--choices= time"]),
        // Those that shape no distribution are other keys.
        (json!({"max_new_tokens": 5, "do_sample": true, "max_tokens": 5}), &[]),
    ];
    let row = |parameters: &Value| {
        let mut row = parameters.clone();
        row["prompt"] = "Once upon a".into();
        format!("{row}\n")
    };
    let input: String = cases.iter().map(|(parameters, _)| row(parameters)).collect();
    let done = gpt2(&[&base[..], &["--input", "-"]].concat()).stdin(input).succeeds().json_lines();
    for (record, (parameters, flags)) in done.iter().zip(cases) {
        let alone = gpt2(&[&base[..], &["Once upon a"], flags].concat()).succeeds().json();
        assert_eq!(record["positions"], alone["positions"], "{parameters}");
    }
    let over = gpt2(&[&base[..], &["--input", "-", "--top-k", "2"]].concat());
    let over = over.stdin(row(&json!({"top_k": 3})) + &row(&json!({}))).succeeds().json_lines();
    assert_eq!(over.iter().map(|record| record["positions"][0]["kept"].clone()).collect::<Vec<_>>(), [3, 2]);
    let wrong = row(&json!({"top_p": 2})) + &row(&json!({})) + &row(&json!({"temprature": 0.5}));
    let wrong = gpt2(&[&base[..], &["--input", "-"]].concat()).stdin(wrong).fails(3, &[]).json_lines();
    let errors: Vec<&Value> = wrong.iter().map(|record| &record["error"]).collect();
    assert_eq!(errors[0], "`top_p` takes a number above 0, up to 1 (off), not 2");
    assert!(errors[1].is_null() && errors[2].as_str().unwrap().contains("`temperature`"), "{errors:?}");
}
