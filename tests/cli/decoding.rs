//! What decoding parameters do beyond the ids that transformers generates: token healing, the model's own
//! log-probabilities, lengths and times.

use serde_json::{Value, json};

use crate::harness::{gpt2, id_text, tiny};

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The record of `gpt2 generate` on the demo with these arguments.
pub fn generated(arguments: &[&str]) -> Value {
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

/// Of rows, those are counted that say so themselves.
#[test]
fn lengths_of_rows_without_effect_are_counted() {
    let run = |rows: &[Value], more: &[&str]| {
        let rows: String = rows.iter().map(|row| format!("{row}\n")).collect();
        gpt2(&[&["generate", "-m", "demo", "--input", "-"], more].concat()).stdin(rows).succeeds().stderr()
    };
    let both = json!({"prompt": "Once", "max_length": 9, "max_new_tokens": 1});
    assert_eq!(
        run(std::slice::from_ref(&both), &[]),
        "note: `max_new_tokens` takes the place of `max_length` in 1 row\n"
    );
    let short = json!({"prompt": "Once", "min_length": 9, "max_length": 3});
    let none = json!({"prompt": "Once"});
    assert_eq!(
        run(&[both.clone(), short, both.clone(), none.clone()], &["-n", "2"]),
        "note: `max_new_tokens` takes the place of `max_length` in 2 rows\n\
         warning: `min_length` is more than `max_length` in 1 row: no text gets so long\n"
    );
    let least = json!({"prompt": "Once", "min_new_tokens": 5, "min_length": 2});
    assert_eq!(
        run(&[least, none], &["-n", "2"]),
        "note: `min_new_tokens` takes the place of `min_length` in 1 row\n\
         warning: `min_new_tokens` is more than `max_new_tokens` in 1 row: no text gets so long\n"
    );
    assert_eq!(run(&[both], &["--quiet"]), "");
}

/// With guidance, the row after the negative prompt may be the longer one.
#[test]
fn the_negative_prompts_of_rows_are_named_where_they_fill_the_context() {
    let most: Vec<u32> = (0..511).collect();
    let negative = json!({"prompt": "Once", "guidance_scale": 2, "negative_prompt_ids": most});
    let own = json!({"prompt_ids": most});
    let run = |rows: &[&Value]| {
        let rows: String = rows.iter().map(|row| format!("{row}\n")).collect();
        gpt2(&["generate", "-m", "demo", "--input", "-"]).stdin(rows).succeeds().stderr()
    };
    let end = "at the full context of 512 tokens; to continue, use --on-context-limit crop\n";
    let one = format!("warning: the text of 1 row ends because that after its negative prompt is {end}");
    assert_eq!(run(&[&negative]), one);
    assert_eq!(run(&[&own]), format!("warning: the text of 1 row ends {end}"));
    let two = format!("warning: the texts of 2 rows end because those after their negative prompts are {end}");
    assert_eq!(run(&[&negative, &own, &negative]), format!("warning: the text of 1 row ends {end}{two}"));
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
