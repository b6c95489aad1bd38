//! Clients that mean harm, or know no better.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Answer, Server, texts};

#[track_caller]
fn is_well(server: &Server) {
    let answer = server.complete(&json!({"prompt": "Once upon a", "temperature": 0, "max_tokens": 1}));
    assert_eq!(texts(&answer), [" time"]);
}

/// A connection on which these bytes have been sent.
fn sent(server: &Server, bytes: &[u8]) -> TcpStream {
    let mut connection = server.connect();
    connection.write_all(bytes).unwrap();
    connection
}

#[test]
fn what_is_no_http_gets_an_answer_or_none_and_harms_nobody() {
    let server = Server::demo();
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(1000));
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20));
    for bytes in [
        &b"GET\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n",
        many_headers.as_bytes(),
        long.as_bytes(),
    ] {
        let mut answer = vec![];
        let mut connection = server.connect();
        // It may be cut off while it still sends.
        let _ = connection.write_all(bytes);
        let _ = connection.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{:?}", String::from_utf8_lossy(&answer));
    }
    let other_bytes = Answer::read(sent(&server, b"GET /health HTTP/1.1\r\nHost: \xff\r\nConnection: close\r\n\r\n"));
    assert_eq!(other_bytes.status, 403);
    let no_name = server.get("/v1/models/%ff");
    assert_eq!((no_name.status, no_name.error().as_str()), (400, "the name of the model is not UTF-8"));
    is_well(&server);
}

#[test]
fn who_sends_all_before_reading_learns_why_it_is_refused() {
    let server = Server::start_with(&["-m", "demo"], &[("GPT2_API_KEY", "secret")]);
    let large = "a".repeat(6 << 20);
    let key = &["Authorization: Bearer secret"][..];
    for (line, headers, body, status) in [
        ("POST /v1/completions", &[][..], large.as_str(), 401),
        ("POST /nothing", key, &large, 404),
        ("GET /v1/completions", key, &large, 405),
        ("POST /v1/completions", &["Host: example.com"], &large, 403),
        ("POST /v1/completions", key, &large.repeat(4), 413),
    ] {
        let answer = server.ask(line, headers, body);
        assert_eq!(answer.status, status, "{line}: {}", answer.body);
        assert!(!answer.error().is_empty());
    }
}

#[test]
fn values_of_wrong_types_are_named_in_plain_words() {
    let server = Server::demo();
    for (path, body, param, words) in [
        ("/tokenize", json!({}), "prompt", "there is no `prompt`"),
        ("/tokenize", json!({"prompt": 5}), "prompt", "takes a text, not 5"),
        ("/tokenize", json!({"prompt": "a", "add_special_tokens": 1}), "add_special_tokens", "true or false, not 1"),
        ("/detokenize", json!({}), "tokens", "there is no `tokens`"),
        ("/detokenize", json!({"tokens": "a"}), "tokens", "takes a list of token ids, not \"a\""),
        ("/detokenize", json!({"tokens": [1, -1]}), "tokens", "not -1"),
        ("/detokenize", json!({"tokens": [1, 4_294_967_296_u64]}), "tokens", "not 4294967296"),
        ("/v1/completions", json!({"prompt": [[1], [2, [3]]]}), "prompt", "not [3]"),
        ("/v1/completions", json!({"prompt": "a", "temperature": -1}), "temperature", "from 0 (greedy), not -1"),
    ] {
        let answer = server.post(path, &body);
        let error = &answer.json()["error"];
        assert_eq!((answer.status, error["param"].as_str()), (400, Some(param)), "{body}: {error}");
        assert!(error["message"].as_str().unwrap().contains(words), "{body}: {error}");
    }
    let half = server.ask("POST /v1/completions", &[], r#"{"prompt": "\ud800"}"#);
    assert_eq!((half.status, half.json()["error"]["param"].as_str()), (400, Some("prompt")), "{}", half.body);
}

#[test]
fn long_lists_are_gone_through_once_or_refused() {
    let server = Server::demo();
    let stops: Vec<String> = (0..10_000).map(|i| format!("{i}!")).collect();
    let body = json!({"prompt": vec!["Once upon a"; 2048], "max_tokens": 1, "temperature": 0, "stop": stops});
    let answer = server.complete(&body);
    assert!(texts(&answer).iter().all(|text| *text == " time"));
    let stops: Vec<String> = (0..50_000).map(|i| format!("{i}!")).collect();
    let refused = server.post("/v1/completions", &json!({"prompt": "a", "stop": stops}));
    assert_eq!((refused.status, refused.json()["error"]["param"].as_str()), (400, Some("stop")));
    assert!(refused.error().contains("262144 bytes"), "{}", refused.body);
    // Long prompts, of texts and of ids.
    for prompt in [json!("king ".repeat(1 << 20)), json!(vec![1; 1 << 21]), json!(vec![json!([]); 1 << 20])] {
        let refused = server.post("/v1/completions", &json!({"prompt": prompt}));
        assert_eq!((refused.status, refused.json()["error"]["param"].as_str()), (400, Some("prompt")));
    }
    is_well(&server);
}

#[test]
fn nobody_waits_for_all_that_another_has_asked_for() {
    let server = Server::start(&["-m", "demo", "--batch-size", "4"]);
    let many = json!({"prompt": vec![vec![262; 300]; 400], "max_tokens": 2, "ignore_eos": true});
    let _others = server.send("POST /v1/completions", &[], &many.to_string());
    server.wait_for("gpt2_prompts_running", |prompts| prompts > 300.0);
    is_well(&server);
    server.wait_for("gpt2_prompts_running", |prompts| prompts > 300.0);
}

#[test]
fn many_idle_connections_are_no_burden() {
    let server = Server::demo();
    let idle: Vec<TcpStream> = (0..300).map(|_| server.connect()).collect();
    let half: Vec<TcpStream> = (0..300).map(|_| sent(&server, b"POST /v1/completions HTTP/1.1\r\nHo")).collect();
    is_well(&server);
    drop((idle, half));
}

#[cfg(unix)]
#[test]
fn the_end_does_not_wait_for_who_sends_nothing() {
    let mut server = Server::demo();
    let head = sent(&server, b"POST /v1/completions HTTP/1.1\r\nHost: local");
    let body = sent(&server, b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{");
    let since = Instant::now();
    server.signal(libc::SIGTERM);
    assert_eq!(server.end(), Some(0));
    assert!(since.elapsed() < Duration::from_secs(20));
    drop((head, body));
}

#[test]
fn a_stream_that_is_read_slowly_ends_in_time() {
    let server = Server::start(&["-m", "demo", "--timeout", "2"]);
    let endless = json!({"prompt": "a", "max_tokens": 1_000_000_000, "on_context_limit": "crop", "stream": true,
        "logprobs": 10, "ignore_eos": true});
    let mut slow = server.send("POST /v1/completions", &[], &endless.to_string());
    let (since, mut some) = (Instant::now(), [0; 4096]);
    // There are always news for it.
    while slow.read(&mut some).unwrap() > 0 {
        assert!(since.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(5));
    }
    server.wait_for("gpt2_prompts_running", |prompts| prompts == 0.0);
}

#[test]
fn without_a_tokenizer_ids_are_all_that_can_be_asked() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(crate::harness::tiny("base").join(name), folder.path().join(name)).unwrap();
    }
    let server = Server::start(&["-m", folder.path().to_str().unwrap()]);
    let ids =
        server.complete(&json!({"prompt": [1, 2], "max_tokens": 2, "temperature": 0, "logprobs": 1, "echo": true}));
    let tokens = ids["choices"][0]["logprobs"]["tokens"].as_array().unwrap().clone();
    assert_eq!((tokens.len(), &tokens[..2]), (4, &[json!("token_id:1"), json!("token_id:2")][..]));
    for (path, body) in [
        ("/v1/completions", json!({"prompt": "a"})),
        ("/tokenize", json!({"prompt": "a"})),
        ("/detokenize", json!({"tokens": [1]})),
        ("/v1/completions", json!({"prompt": [1], "bad_words": ["a"]})),
    ] {
        let answer = server.post(path, &body);
        assert_eq!(answer.status, 400, "{path} {body}: {}", answer.body);
        assert!(answer.error().contains("tokenizer"), "{}", answer.body);
    }
    assert_eq!(server.get("/tokenizer_info").json()["eos_token"], Value::Null);
}
