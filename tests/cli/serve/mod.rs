//! `gpt2 serve`, as a client sees it.

mod client;
#[cfg(feature = "constraints")]
mod constraints;
mod ends;
mod hostile;
mod page;
mod refusals;

use serde_json::{Value, json};

use self::client::Answer;
pub use self::client::Server;
use crate::harness::{gpt2, id_text};
use crate::json_page::check_record;

/// What the command line generates: the sequences.
#[track_caller]
fn generated(prompt: &str, flags: &[&str]) -> Vec<Value> {
    let all = [&["generate", "-m", "demo", "--format", "json", prompt], flags].concat();
    let record = gpt2(&all).succeeds().json();
    record["sequences"].as_array().unwrap().clone()
}

#[track_caller]
fn texts(answer: &Value) -> Vec<&str> {
    answer["choices"].as_array().unwrap().iter().map(|choice| choice["text"].as_str().unwrap()).collect()
}

#[test]
fn completions_are_those_of_the_command_line() {
    let server = Server::demo();
    for (body, flags) in [
        (json!({"temperature": 0}), ""),
        (json!({"temperature": 0, "max_tokens": 40, "stop": "king"}), "-n 40 --stop king"),
        (json!({"temperature": 0, "stop": [" a", " the"]}), "--stop \u{1}a --stop \u{1}the"),
        (json!({"seed": 7}), "--sample --seed 7"),
        (
            json!({"seed": 7, "n": 3, "temperature": 0.7, "top_p": 0.9}),
            "--seed 7 --num-return-sequences 3 --temperature 0.7 --top-p 0.9",
        ),
        (json!({"seed": 1, "top_k": 5, "repetition_penalty": 1.3}), "--seed 1 --top-k 5 --repetition-penalty 1.3"),
        (
            json!({"temperature": 0, "presence_penalty": 1.5, "frequency_penalty": 0.5, "logit_bias": {"262": -100}}),
            "--presence-penalty 1.5 --frequency-penalty 0.5 --logit-bias 262=-100",
        ),
        (
            json!({"temperature": 0, "guidance_scale": 1.6, "negative_prompt": "The", "suppress_tokens": [612, 373]}),
            "--guidance-scale 1.6 --negative-prompt The --suppress-tokens 612,373",
        ),
        (
            json!({"temperature": 0, "sequence_bias": [[[257, 582], -9], [[5822], 3]], "encoder_repetition_penalty": 0.8}),
            "--sequence-bias 257,582=-9 --sequence-bias 5822=3 --encoder-repetition-penalty 0.8",
        ),
        (
            json!({"num_beams": 3, "exponential_decay_length_penalty": [3, 1.4], "renormalize_logits": true, "min_length": 9}),
            "--num-beams 3 --exponential-decay-length-penalty 3,1.4 --renormalize-logits --min-length 9",
        ),
        (json!({"temperature": 0, "max_time": 0}), "--max-time 0"),
        (
            json!({"temperature": 0, "max_length": 9, "forced_eos_token_id": 50256}),
            "--max-length 9 --forced-eos-token-id 50256",
        ),
        (json!({"num_beams": 4, "n": 2}), "--num-beams 4 --num-return-sequences 2"),
        (json!({"penalty_alpha": 0.6, "top_k": 4}), "--penalty-alpha 0.6 --top-k 4"),
        (
            json!({"do_sample": false, "no_repeat_ngram_size": 2, "max_new_tokens": 30}),
            "-n 30 --no-repeat-ngram-size 2",
        ),
    ] {
        let flags: Vec<String> = flags.split_whitespace().map(|flag| flag.replace('\u{1}', " ")).collect();
        let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        if !flags.contains(&"-n") && !flags.contains(&"--max-length") {
            // OpenAI's default.
            flags.extend(["-n", "16"]);
        }
        let mut request = body.clone();
        request["prompt"] = "Once upon a time".into();
        let answer = server.complete(&request);
        let expected = generated("Once upon a time", &flags);
        assert_eq!(texts(&answer), expected.iter().map(|sequence| &sequence["text"]).collect::<Vec<_>>(), "{body}");
        for (choice, sequence) in answer["choices"].as_array().unwrap().iter().zip(&expected) {
            let reason = if sequence["finish_reason"] == "length" { "length" } else { "stop" };
            assert_eq!(choice["finish_reason"], reason, "{body}");
        }
        let generated: usize = expected.iter().map(|sequence| sequence["ids"].as_array().unwrap().len()).sum();
        let usage = json!({"prompt_tokens": 4, "completion_tokens": generated, "total_tokens": generated + 4});
        assert_eq!(answer["usage"], usage, "{body}");
        check_record(&answer, "output/openai::CompletionRecord");
    }
}

#[test]
fn a_prompt_is_healed_and_raw_log_probabilities_stand_beside() {
    let server = Server::demo();
    let body =
        json!({"prompt": "Once upon a ti", "token_healing": true, "temperature": 0, "max_tokens": 3, "echo": true});
    assert_eq!(texts(&server.complete(&body)), ["Once upon a time there was a"]);
    let body = json!({
        "prompt": "Once upon a", "temperature": 0, "max_tokens": 3, "logprobs": 2, "raw_logprobs": true,
        "repetition_penalty": 1.5,
    });
    let answer = server.complete(&body);
    check_record(&answer, "output/openai::CompletionRecord");
    let flags = ["-n", "3", "--logprobs", "2", "--raw-logprobs", "--repetition-penalty", "1.5"];
    let tokens = generated("Once upon a", &flags)[0]["logprobs"].clone();
    let told = &answer["choices"][0]["logprobs"];
    for (i, token) in tokens.as_array().unwrap().iter().enumerate() {
        assert_eq!(told["token_logprobs"][i], token["logprob"]);
        assert_eq!(told["raw_token_logprobs"][i], token["raw_logprob"]);
        assert_eq!(
            told["raw_top_logprobs"][i][token["raw_top"][1]["token"].as_str().unwrap()],
            token["raw_top"][1]["logprob"]
        );
    }
    assert_eq!(told["raw_token_logprobs"].as_array().unwrap().len(), 3);
}

#[test]
fn every_kind_of_prompt_is_one() {
    let server = Server::demo();
    let one = server.complete(&json!({"prompt": "Once upon a", "temperature": 0}));
    let ids = server.complete(&json!({"prompt": [7454, 2402, 257], "temperature": 0}));
    assert_eq!(texts(&one), texts(&ids));
    let king = server.complete(&json!({"prompt": "The king", "temperature": 0}));
    let both = [texts(&one)[0], texts(&king)[0]];
    for prompts in [json!(["Once upon a", "The king"]), json!([[7454, 2402, 257], "The king"])] {
        assert_eq!(texts(&server.complete(&json!({"prompt": prompts, "temperature": 0}))), both);
    }
    let echoed = server.complete(&json!({"prompt": [7454, 2402, 257], "temperature": 0, "echo": true}));
    assert_eq!(texts(&echoed), [format!("Once upon a{}", both[0])]);
    let start = server.complete(&json!({"prompt": "<|endoftext|>", "temperature": 0}));
    assert_eq!(texts(&server.complete(&json!({"prompt": "", "temperature": 0}))), texts(&start));
    // The i-th prompt draws with the i-th seed, and there are n of each.
    let drawn = server.complete(&json!({"prompt": ["The king", "The king"], "seed": 3, "n": 2}));
    let expected = ["3", "4"]
        .map(|seed| generated("The king", &["--sample", "--seed", seed, "--num-return-sequences", "2", "-n", "16"]));
    let expected: Vec<&Value> = expected.iter().flatten().map(|sequence| &sequence["text"]).collect();
    assert_eq!(texts(&drawn), expected);
    let indices: Vec<&Value> = drawn["choices"].as_array().unwrap().iter().map(|choice| &choice["index"]).collect();
    assert_eq!(indices, [0, 1, 2, 3]);
    // Without a seed, answers differ.
    let again = || texts(&server.complete(&json!({"prompt": "The king", "max_tokens": 20})))[0].to_owned();
    assert_ne!(again(), again());
    // A greedy completion is always the same one.
    let copies = server.complete(&json!({"prompt": "The king", "temperature": 0, "n": 3, "stream": false}));
    assert_eq!(texts(&copies), [both[1]; 3]);
}

#[test]
fn echoed_log_probabilities_are_those_of_score() {
    let server = Server::demo();
    let text = "Once upon a time there was a king 𝔊 who";
    let scored = gpt2(&["score", "-m", "demo", "--format", "json", text]).succeeds().json();
    for max_tokens in [0, 1, 3] {
        let body = json!({"prompt": text, "max_tokens": max_tokens, "temperature": 0, "logprobs": 2, "echo": true});
        let answer = server.complete(&body);
        let logprobs = &answer["choices"][0]["logprobs"];
        let list = |key: &str| logprobs[key].as_array().unwrap().clone();
        let prompt = scored["ids"].as_array().unwrap().len();
        let lengths = ["tokens", "token_logprobs", "top_logprobs", "text_offset"].map(|key| list(key).len());
        assert_eq!(lengths, [prompt + max_tokens; 4]);
        assert_eq!(list("token_logprobs")[..prompt], scored["logprobs"].as_array().unwrap()[..]);
        assert!(list("top_logprobs")[0].is_null());
        for (i, top) in list("top_logprobs").iter().enumerate().skip(1) {
            let top = top.as_object().unwrap();
            let token = &list("tokens")[i];
            assert_eq!(top[token.as_str().unwrap()], list("token_logprobs")[i]);
            let is_best = i >= prompt || scored["ranks"][i] == 1;
            assert_eq!(top.len(), if is_best || scored["ranks"].get(i) == Some(&json!(2)) { 2 } else { 3 }, "{top:?}");
            assert_eq!(top.iter().next().unwrap().0 == token.as_str().unwrap(), is_best);
        }
        // 𝔊 is three tokens, of which none is a character.
        let offsets = list("text_offset");
        let text = answer["choices"][0]["text"].as_str().unwrap();
        for (i, token) in list("tokens").iter().enumerate() {
            let token = token.as_str().unwrap();
            let rest: String = text.chars().skip(offsets[i].as_u64().unwrap() as usize).collect();
            assert!(token.starts_with("bytes:") || rest.starts_with(token), "{token:?} in {rest:?}");
        }
        assert_eq!(list("tokens").iter().filter(|token| token.as_str().unwrap().starts_with("bytes:")).count(), 3);
        check_record(&answer, "output/openai::CompletionRecord");
    }
}

#[test]
fn a_full_context_and_one_more_token_are_scored() {
    let server = Server::demo();
    let ids: Vec<u32> = (0..513).map(|i| 100 + i * i % 4000).collect();
    let scored = gpt2(&["score", "-m", "demo", "--format", "json", "--ids", &id_text(&json!(ids))]).succeeds().json();
    for (length, max_tokens, generated) in
        [(512, 0, 0), (512, 1, 1), (513, 0, 0), (513, 1, 1), (512, 9, 1), (513, 9, 1)]
    {
        let body = json!({
            "prompt": ids[..length], "max_tokens": max_tokens, "temperature": 0, "logprobs": 1, "echo": true
        });
        let answer = server.complete(&body);
        let logprobs = answer["choices"][0]["logprobs"]["token_logprobs"].as_array().unwrap().clone();
        assert_eq!(logprobs.len(), length + generated);
        assert_eq!(logprobs[..length], scored["logprobs"].as_array().unwrap()[..length]);
    }
    let longer = server.post("/v1/completions", &json!({"prompt": vec![100; 513], "max_tokens": 1}));
    assert_eq!((longer.status, longer.json()["error"]["code"].as_str()), (400, Some("context_length_exceeded")));
}

#[test]
fn parts_of_a_stream_make_the_whole() {
    let server = Server::demo();
    for body in [
        json!({"prompt": "Once upon a", "temperature": 0, "max_tokens": 20}),
        json!({"prompt": "Once upon a", "temperature": 2, "seed": 5, "max_tokens": 60, "logprobs": 3}),
        json!({"prompt": ["Once upon a", "The king 𝔊"], "n": 3, "seed": 5, "logprobs": 1, "echo": true, "stop": [" the", "a b"]}),
        json!({"prompt": "The king", "num_beams": 3, "n": 2, "logprobs": 1}),
        json!({"prompt": "The king", "temperature": 0, "n": 2, "echo": true}),
        json!({"prompt": "The king", "max_tokens": 0, "echo": true, "logprobs": 1}),
        json!({"prompt": "The king", "max_tokens": 0}),
    ] {
        let whole = server.complete(&body);
        let mut streamed = body.clone();
        (streamed["stream"], streamed["stream_options"]) = (true.into(), json!({"include_usage": true}));
        let mut parts = server.post("/v1/completions", &streamed).parts();
        let last = parts.pop().unwrap();
        assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &whole["usage"]), "{body}");
        for choice in whole["choices"].as_array().unwrap() {
            let mine = parts.iter().map(|part| &part["choices"][0]).filter(|part| part["index"] == choice["index"]);
            let mine: Vec<&Value> = mine.collect();
            let text: String = mine.iter().map(|part| part["text"].as_str().unwrap()).collect();
            assert_eq!(text, choice["text"].as_str().unwrap(), "{body}");
            let (last, others) = mine.split_last().unwrap();
            assert_eq!(last["finish_reason"], choice["finish_reason"]);
            assert!(others.iter().all(|part| part["finish_reason"].is_null()));
            for key in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
                let Some(expected) = choice["logprobs"].get(key) else { continue };
                let found = mine.iter().flat_map(|part| part["logprobs"][key].as_array().unwrap());
                assert_eq!(&found.cloned().collect::<Value>(), expected, "{body}");
            }
        }
        parts.iter().for_each(|part| check_record(part, "output/openai::CompletionRecord"));
        streamed.as_object_mut().unwrap().remove("stream_options");
        assert!(server.post("/v1/completions", &streamed).parts().iter().all(|part| part.get("usage").is_none()));
    }
}

#[test]
fn the_best_of_several_have_the_most_probable_tokens() {
    let server = Server::demo();
    let body = json!({"prompt": "The king", "n": 5, "seed": 9, "logprobs": 0, "max_tokens": 8});
    let all = server.complete(&body);
    let mean = |choice: &Value| {
        let logprobs = choice["logprobs"]["token_logprobs"].as_array().unwrap();
        logprobs.iter().map(|logprob| logprob.as_f64().unwrap()).sum::<f64>() / logprobs.len() as f64
    };
    let mut choices = all["choices"].as_array().unwrap().clone();
    choices.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
    let best = server.complete(&json!({"prompt": "The king", "n": 2, "best_of": 5, "seed": 9, "max_tokens": 8}));
    assert_eq!(texts(&best), choices[..2].iter().map(|choice| &choice["text"]).collect::<Vec<_>>());
    assert!(best["choices"][0]["logprobs"].is_null());
    assert_eq!(best["usage"]["completion_tokens"], all["usage"]["completion_tokens"]);
}

#[test]
fn a_special_token_stops_a_text_although_it_has_none() {
    let server = Server::demo();
    // Another token is the end of text.
    let body = json!({
        "prompt": "And they lived happily ever after.", "n": 100, "seed": 1, "max_tokens": 3, "logprobs": 0,
        "eos_token_id": 0
    });
    let on = server.complete(&body);
    let mut stops = body;
    stops["stop"] = "<|endoftext|>".into();
    let stopped = server.complete(&stops);
    let mut count = 0;
    for (on, stopped) in on["choices"].as_array().unwrap().iter().zip(stopped["choices"].as_array().unwrap()) {
        let tokens = on["logprobs"]["tokens"].as_array().unwrap();
        let Some(end) = tokens.iter().position(|token| token == "<|endoftext|>") else {
            assert_eq!(on, stopped);
            continue;
        };
        count += 1;
        assert_eq!((&on["finish_reason"], &stopped["finish_reason"]), (&json!("length"), &json!("stop")));
        assert_eq!(stopped["logprobs"]["tokens"].as_array().unwrap()[..], tokens[..=end]);
        assert!(!stopped["text"].as_str().unwrap().contains("<|endoftext|>"));
    }
    assert!(count > 0);
    // Also where the model's own end of text is to be passed by.
    let body = json!({
        "prompt": "The", "temperature": 0, "logit_bias": {"50256": 100}, "ignore_eos": true, "stop": "<|endoftext|>"
    });
    let answer = server.complete(&body);
    assert_eq!(
        (&answer["choices"][0]["finish_reason"], &answer["usage"]["completion_tokens"]),
        (&json!("stop"), &json!(1))
    );
}

#[test]
fn clients_beside_each_other_get_what_they_would_get_alone() {
    let server = Server::start(&["-m", "demo", "--batch-size", "8"]);
    let bodies: Vec<Value> = (0..24)
        .map(|i| {
            let prompt = ["Once upon a", "The king", "In the wood there lived a very old", "She"][i % 4];
            json!({"prompt": prompt, "max_tokens": 5 + i, "seed": i, "n": 1 + i % 3, "logprobs": 1, "echo": i % 2 == 0})
        })
        .collect();
    let alone: Vec<Value> = bodies.iter().map(|body| server.complete(body)["choices"].clone()).collect();
    let server = &server;
    std::thread::scope(|scope| {
        for (body, alone) in bodies.iter().zip(&alone) {
            scope.spawn(move || assert_eq!(&server.complete(body)["choices"], alone));
        }
    });
}

#[test]
fn what_clients_ask_besides_completions() {
    let server = Server::demo();
    let models = server.get("/v1/models").json();
    check_record(&models, "output/openai::ModelsRecord");
    let model = server.get("/v1/models/demo").json();
    assert_eq!((&models["data"][0], &model["id"], &model["object"]), (&model, &json!("demo"), &json!("model")));
    assert_eq!(server.get("/health").status, 200);
    let tokenize = |text| server.post("/tokenize", &json!({"prompt": text, "add_special_tokens": false})).json();
    assert_eq!(tokenize("<|endoftext|>")["tokens"], json!([50256]));
    assert_eq!(tokenize("Once upon a")["tokens"], json!([7454, 2402, 257]));
    check_record(&tokenize("Once"), "output/openai::TokenizeRecord");
    let text = server.post("/detokenize", &json!({"tokens": [7454, 2402, 50256]})).json();
    assert_eq!(text, json!({"prompt": "Once upon<|endoftext|>"}));
    let info = server.get("/tokenizer_info").json();
    check_record(&info, "output/openai::TokenizerInfoRecord");
    let expected = json!({
        "eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>", "pad_token": null, "chat_template": null
    });
    assert_eq!(info, expected);
    let metrics = server.get("/metrics");
    assert!(metrics.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    assert!(metrics.body.contains("gpt2_requests_total{path=\"/tokenize\",status=\"200\"} 3"), "{}", metrics.body);
    assert!(metrics.body.ends_with("# EOF\n"));
    let page = server.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.header("content-security-policy").unwrap().contains("default-src 'none'"));
}
