//! What is refused, to whom, and how it is said.

use std::io::{Read, Write};

use serde_json::{Value, json};

use super::{Answer, Server};
use crate::harness::gpt2;
use crate::json_page::check_record;

#[track_caller]
fn is_refused(answer: &Answer, status: u16, param: Option<&str>, words: &str) {
    assert_eq!(answer.status, status, "{}", answer.body);
    let failure = answer.json();
    check_record(&failure, "output/openai::FailureRecord");
    assert_eq!(failure["error"]["param"].as_str(), param, "{failure}");
    assert!(answer.error().contains(words), "`{words}` is not in {failure}");
}

#[test]
fn a_request_that_makes_no_sense_is_refused_by_name() {
    let server = Server::demo();
    let with = |key: &str, value: Value| {
        let mut body = json!({"prompt": "Once", "max_tokens": 1});
        body[key] = value;
        server.post("/v1/completions", &body)
    };
    for (key, value, words) in [
        ("prompt", json!(5), "not 5"),
        ("prompt", json!([]), "empty list"),
        ("prompt", json!([1, -2]), "not -2"),
        ("prompt", json!([1, 2.5]), "not 2.5"),
        ("prompt", json!([50257]), "50257"),
        ("prompt", json!(["a", 5]), "not 5"),
        ("prompt", json!([[1], [null]]), "not null"),
        ("prompt", json!({"text": "a"}), "takes a text"),
        ("prompt", json!(vec!["a"; 2049]), "2049 prompts"),
        ("suffix", json!("end"), "not supported"),
        ("messages", json!([]), "does not chat"),
        ("max_tokens", json!(-1), "from 0, not -1"),
        ("max_tokens", json!(1.5), "1.5"),
        ("max_tokens", json!("many"), "many"),
        ("n", json!(0), "from 1 to 128, not 0"),
        ("n", json!(129), "129"),
        ("n", json!(1e308), "1e+308"),
        ("best_of", json!(1000), "1000"),
        ("logprobs", json!(11), "from 0 to 10, not 11"),
        ("logprobs", json!(true), "not true"),
        ("echo", json!("yes"), "true or false"),
        ("stream", json!(1), "true or false"),
        ("stream_options", json!(true), "an object"),
        ("temperature", json!(-1), "temperature"),
        ("temperature", json!("hot"), "hot"),
        ("top_p", json!(1.5), "1.5"),
        ("top_k", json!(-1), "-1"),
        ("seed", json!(-1), "-1"),
        ("presence_penalty", json!(2.5), "2.5"),
        ("frequency_penalty", json!(-3), "-3"),
        ("logit_bias", json!({"50257": 1}), "50257"),
        ("logit_bias", json!({"5": 101}), "101"),
        ("logit_bias", json!({"-1": 1}), "-1"),
        ("logit_bias", json!({"a king": 1}), "the id or the text of one token, and \"a king\" is 2 tokens"),
        ("sequence_bias", json!([[[50257], 1]]), "50257"),
        ("guidance_scale", json!("2"), "not a number"),
        ("negative_prompt", json!("x"), "needs `guidance_scale`"),
        ("raw_logprobs", json!(true), "needs `logprobs`"),
        ("exponential_decay_length_penalty", json!([1]), "a start and a factor"),
        ("suppress_tokens", json!({"1": 1}), "not a list of token ids"),
        ("max_time", json!([]), "not a number"),
        ("logit_bias", json!([1]), "[1]"),
        ("stop", json!(5), "5"),
        ("stop", json!([""]), "empty text"),
        ("num_beams", json!(0), "0"),
        ("typical_p", json!(2), "2"),
        ("temprature", json!(1), "`temprature` is no parameter"),
        ("model", json!(1), "a text"),
    ] {
        is_refused(&with(key, value), 400, Some(key), words);
    }
    is_refused(&with("model", json!("gpt-4")), 404, Some("model"), "only \"demo\"");
    assert_eq!(with("model", json!("gpt-4")).json()["error"]["code"], "model_not_found");
    assert_eq!(with("model", json!("demo")).status, 200);
    for ignored in ["user", "suffix", "stop", "temperature", "seed"] {
        assert_eq!(with(ignored, Value::Null).status, 200, "{ignored}");
    }
    for (body, words) in [
        ("", "empty"),
        ("{", "breaks off"),
        ("[1]", "an array"),
        ("{\"prompt\": NaN}", "NaN"),
        ("{\"prompt\": \"a\"}x", "not JSON"),
    ] {
        is_refused(&server.ask("POST /v1/completions", &[], body), 400, None, words);
    }
    let deep = format!("{{\"prompt\": {}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    is_refused(&server.ask("POST /v1/completions", &[], &deep), 400, Some("prompt"), "lists");
    let twice = server.ask("POST /v1/completions", &[], "{\"prompt\": \"a\", \"n\": 1, \"n\": 2}");
    is_refused(&twice, 400, Some("n"), "twice");
    is_refused(&server.post("/v1/completions", &json!({"max_tokens": 1})), 400, Some("prompt"), "no `prompt`");
    let choice = json!({"prompt": "a", "best_of": 2, "stream": true});
    is_refused(&server.post("/v1/completions", &choice), 400, Some("best_of"), "streamed");
    let fewer = json!({"prompt": "a", "best_of": 2, "n": 3});
    is_refused(&server.post("/v1/completions", &fewer), 400, Some("best_of"), "less than `n`");
    let both = json!({"prompt": "a", "max_tokens": 2, "max_new_tokens": 3});
    is_refused(&server.post("/v1/completions", &both), 400, Some("max_tokens"), "the same");
    let second = json!({"prompt": ["a", vec![100; 600]], "max_tokens": 3});
    let second =
        server.post("/v1/completions", &json!({"prompt": [[1], vec![100; 600]], "max_tokens": second["max_tokens"]}));
    is_refused(&second, 400, Some("prompt"), "prompt 1: ");
    is_refused(&server.post("/tokenize", &json!({"text": "a"})), 400, Some("prompt"), "no `prompt`");
    is_refused(&server.post("/detokenize", &json!({"tokens": [99999]})), 400, None, "99999");
}

#[test]
fn other_addresses_and_methods_are_refused_in_json() {
    let server = Server::demo();
    is_refused(&server.get("/nothing"), 404, None, "GET /nothing");
    is_refused(&server.post("/v1/chat/completions", &json!({})), 404, None, "does not chat");
    is_refused(&server.get("/v1/models/gpt-4"), 404, Some("model"), "gpt-4");
    is_refused(&server.get("/v1/completions"), 405, None, "does not take GET");
    is_refused(&server.ask("DELETE /v1/models", &[], ""), 405, None, "DELETE");
    assert_eq!(server.get("/v1/models").header("access-control-allow-origin"), None);
}

#[test]
fn a_large_body_is_refused_before_it_is_read() {
    let server = Server::demo();
    let mut large = server.connect();
    let head =
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 20000000\r\n\r\n";
    large.write_all(head.as_bytes()).unwrap();
    is_refused(&Answer::read(large), 413, None, "16777216");
    // One that does not say how long it is.
    let mut large = server.connect();
    let head =
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    large.write_all(head.as_bytes()).unwrap();
    let chunk = format!("100000\r\n{}\r\n", " ".repeat(1 << 20));
    // It is refused after 16 of them, and what follows is not read.
    let sent = (0..17).take_while(|_| large.write_all(chunk.as_bytes()).is_ok()).count();
    assert!(sent >= 16, "{sent}");
    let mut answer = String::new();
    let _ = large.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 413 ") || answer.is_empty(), "{answer}");
}

#[test]
fn only_who_has_the_key_may_ask() {
    let server = Server::start_with(&["-m", "demo"], &[("GPT2_API_KEY", "secret")]);
    for header in [
        "X: y",
        "Authorization: Bearer",
        "Authorization: Bearer secre",
        "Authorization: Bearer secrets",
        "Authorization: Basic secret",
    ] {
        let answer = server.ask("POST /v1/completions", &[header], "{\"prompt\": \"a\"}");
        is_refused(&answer, 401, None, "Authorization");
        assert_eq!(answer.json()["error"]["code"], "invalid_api_key");
        assert_eq!(server.ask("GET /metrics", &[header], "").status, 401);
        assert_eq!(server.ask("GET /nothing", &[header], "").status, 401);
    }
    let answer = server.ask("POST /v1/completions", &["Authorization: Bearer secret"], "{\"prompt\": \"a\"}");
    assert_eq!(answer.status, 200);
    for open in ["/health", "/"] {
        assert_eq!(server.get(open).status, 200);
    }
    let server = Server::start_with(&["-m", "demo", "--api-key", "flag"], &[("GPT2_API_KEY", "secret")]);
    assert_eq!(server.ask("GET /v1/models", &["Authorization: bearer flag"], "").status, 200);
    for key in ["", " a", "a\nb"] {
        gpt2(&["serve", "-m", "demo", "--port", "0", "--api-key", key])
            .fails(2, &["--api-key takes at least a letter"]);
    }
    let with_key = gpt2(&["serve", "-m", "demo", "--port", "0"]).env("GPT2_API_KEY", "a\nb");
    with_key.fails(2, &["the key takes at least a letter"]);
    // Without one, whatever clients send is accepted.
    let server = Server::demo();
    assert_eq!(server.ask("GET /v1/models", &["Authorization: Bearer "], "").status, 200);
}

#[test]
fn pages_elsewhere_may_not_ask() {
    let server = Server::demo();
    let own = format!("Origin: http://{}", server.address);
    let port = server.address.rsplit(':').next().unwrap();
    let (local, local_origin) = (format!("Host: localhost:{port}"), format!("Origin: http://localhost:{port}"));
    for headers in [&[own.as_str()][..], &[&local], &[&local, &local_origin], &["Host: [::1]:80"]] {
        assert_eq!(server.ask("GET /v1/models", headers, "").status, 200, "{headers:?}");
    }
    for headers in [
        &["Origin: http://example.com"][..],
        &["Origin: null"],
        &["Host: example.com"],
        &["Host: example.com", "Origin: http://example.com"],
        &["Host: localhost.example.com"],
    ] {
        is_refused(&server.ask("GET /v1/models", headers, ""), 403, None, "");
    }
}

#[test]
fn a_taken_port_is_an_error() {
    let server = Server::demo();
    let port = server.address.rsplit(':').next().unwrap();
    gpt2(&["serve", "-m", "demo", "--port", port]).fails(1, &["cannot listen on 127.0.0.1", port, "--port"]);
    gpt2(&["serve", "-m", "demo", "--port", "65536"]).fails(2, &["--port", "65535"]);
    gpt2(&["serve", "-m", "demo", "--host", "no.such.host.invalid"]).fails(1, &["no.such.host.invalid"]);
}
