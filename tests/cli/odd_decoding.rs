//! Values of decoding parameters that are refused, and odd ones that are taken.

use serde_json::json;

use crate::decoding::generated;
use crate::harness::gpt2;

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

#[test]
fn a_word_that_a_flag_does_not_take_is_refused_in_one_line() {
    for (argument, fault) in [
        ("--sample=maybe", "--sample takes true or false, not maybe"),
        ("--raw-logprobs=1", "--raw-logprobs takes true or false, not 1"),
        ("--token-healing=", "--token-healing takes true or false"),
        ("--format", "--format takes text, json or jsonl"),
        ("--regex", "--regex needs a value"),
        ("-n", "-n needs a value"),
        ("--early-stopping=x", "--early-stopping takes true, false or never, not x"),
        ("--on-context-limit=\u{1b}[1m", "--on-context-limit takes stop or crop, not \\u{1b}[1m"),
        ("--format=xml", "--format takes text, json or jsonl, not xml"),
    ] {
        let failed = gpt2(&["generate", "-m", "demo", "Once", argument]).fails(2, &[]);
        assert_eq!(failed.stderr(), format!("error: {fault}\n"));
    }
    let twice = gpt2(&["generate", "-m", "demo", "Once", "-n", "2", "--max-new-tokens", "3"]).fails(2, &[]);
    assert_eq!(twice.stderr(), "error: --max-new-tokens is given more than once: leave one of them out\n");
}
