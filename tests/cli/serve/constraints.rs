//! Constraints by HTTP, under our names, OpenAI's and vLLM's.

use regex::Regex;
use serde_json::{Value, json};

use super::{Server, generated, texts};
use crate::json_page::check_record;

fn person() -> Value {
    json!({
        "type": "object", "required": ["name", "age"], "additionalProperties": false,
        "properties": {"name": {"enum": ["Tom", "Ann"]}, "age": {"type": "integer", "minimum": 10, "maximum": 99}},
        "x-guidance": {"whitespace_flexible": false},
    })
}

#[test]
fn a_completion_matches_whole_and_streamed() {
    let server = Server::demo();
    let number = Regex::new(r"^ [1-9][0-9]{2,4}\.$").unwrap();
    for how in [json!({"temperature": 0}), json!({"seed": 5, "n": 4}), json!({"num_beams": 3, "n": 2})] {
        let mut body = json!({"prompt": "The number is", "regex": r" [1-9][0-9]{2,4}\."});
        how.as_object().unwrap().iter().for_each(|(key, value)| body[key] = value.clone());
        let whole = server.complete(&body);
        check_record(&whole, "output/openai::CompletionRecord");
        for choice in whole["choices"].as_array().unwrap() {
            assert!(number.is_match(choice["text"].as_str().unwrap()), "{choice}");
            assert_eq!(choice["finish_reason"], "stop");
        }
        body["stream"] = true.into();
        let parts = server.post("/v1/completions", &body).parts();
        for (index, text) in texts(&whole).into_iter().enumerate() {
            let parts = parts.iter().map(|part| &part["choices"][0]).filter(|choice| choice["index"] == index);
            assert_eq!(parts.map(|choice| choice["text"].as_str().unwrap()).collect::<String>(), text, "{body}");
        }
    }
    let flags = ["--regex", "[😀-😎]{2}é", "-n", "16"];
    let emoji = server.complete(&json!({"prompt": "Once", "temperature": 0, "regex": "[😀-😎]{2}é"}));
    assert_eq!(texts(&emoji), [generated("Once", &flags)[0]["text"].as_str().unwrap()], "as the command line has it");
    // One that breaks off.
    let cut = server.complete(&json!({"prompt": "Once", "temperature": 0, "max_tokens": 3, "regex": "[a-z]{90}"}));
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
}

#[test]
fn other_names_of_a_constraint_mean_the_same() {
    let server = Server::demo();
    let ask = |constraint: &Value| {
        let mut body = json!({"prompt": "A", "seed": 3, "max_tokens": 60});
        constraint.as_object().unwrap().iter().for_each(|(key, value)| body[key] = value.clone());
        texts(&server.complete(&body))[0].to_owned()
    };
    let grammar = "start: \" \" (\"cat\" | \"dog\")+ \".\"";
    for (ours, others) in [
        (
            json!({"regex": " [a-f]{4}"}),
            [json!({"guided_regex": " [a-f]{4}"}), json!({"structured_outputs": {"regex": " [a-f]{4}"}})],
        ),
        (
            json!({"choices": [" cat", " dog"]}),
            [
                json!({"guided_choice": [" cat", " dog"]}),
                json!({"structured_outputs": {"choice": [" cat", " dog"], "json": null}}),
            ],
        ),
        (
            json!({"grammar": grammar}),
            [json!({"guided_grammar": grammar}), json!({"structured_outputs": {"grammar": grammar}})],
        ),
        (
            json!({"json_schema": person()}),
            [json!({"guided_json": person().to_string()}), json!({"structured_outputs": {"json": person()}})],
        ),
        (
            json!({"json_schema": person()}),
            [
                json!({"response_format": {"type": "json_schema", "json_schema": {"name": "person", "strict": true, "schema": person()}}}),
                json!({"guided_json": person(), "response_format": {"type": "text"}}),
            ],
        ),
        (
            json!({"json_schema": {"type": "object"}}),
            [json!({"response_format": {"type": "json_object"}}), json!({"structured_outputs": {"json_object": true}})],
        ),
    ] {
        let text = ask(&ours);
        for other in others {
            assert_eq!(ask(&other), text, "{other}");
        }
    }
    assert_eq!(ask(&json!({"response_format": {"type": "text"}})), ask(&json!({})));
}

#[test]
fn a_bad_constraint_is_a_bad_request_that_names_it() {
    let server = Server::demo();
    for (constraint, param, message) in [
        (json!({"regex": "("}), "regex", "`regex` is not a regular expression: unclosed group (at byte 0)"),
        (json!({"regex": ""}), "regex", "`regex` is empty"),
        (json!({"regex": 5}), "regex", "`regex` is 5"),
        (json!({"guided_regex": "("}), "guided_regex", "`guided_regex` is not a regular expression"),
        (
            json!({"structured_outputs": {"regex": "("}}),
            "structured_outputs",
            "`structured_outputs.regex` is not a regular",
        ),
        (
            json!({"structured_outputs": {"structural_tag": "x"}}),
            "structured_outputs",
            "`structured_outputs.structural_tag` is not supported",
        ),
        (json!({"structured_outputs": 1}), "structured_outputs", "an object, not 1"),
        (json!({"choices": []}), "choices", "an empty list"),
        (json!({"choices": ["a", ""]}), "choices", "an empty text"),
        (json!({"json_schema": [1]}), "json_schema", "`json_schema` is [1], and a schema is an object or a boolean"),
        (json!({"json_schema": "/etc/passwd"}), "json_schema", "JSON"),
        (json!({"json_schema": {"type": "objekt"}}), "json_schema", "Invalid type: objekt"),
        (
            json!({"response_format": {"type": "xml"}}),
            "response_format",
            "`response_format` takes {\"type\": \"text\"}",
        ),
        (json!({"response_format": {"type": "json_schema"}}), "response_format", "\"json_schema\": {\"schema\": ...}"),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"schema": 3}}}),
            "response_format",
            "`response_format` is 3",
        ),
        (json!({"grammar": "start: x"}), "grammar", "line 1, column 8: unknown name: \"x\""),
        (json!({"grammar": "start: start \"a\""}), "grammar", "has a rule that never ends: \"start\""),
        (json!({"regex": "a", "grammar": "start: \"a\""}), "grammar", "`grammar` cannot be combined with `regex`"),
        (
            json!({"guided_regex": "a", "guided_choice": ["a"]}),
            "guided_choice",
            "`guided_choice` cannot be combined with `guided_regex`",
        ),
        (
            json!({"regex": "a", "response_format": {"type": "json_object"}}),
            "regex",
            "`regex` cannot be combined with `response_format`",
        ),
        (json!({"regex": "(?s).{9}", "choices": ["b"]}), "choices", "cannot be combined"),
    ] {
        let mut body = json!({"prompt": "A"});
        constraint.as_object().unwrap().iter().for_each(|(key, value)| body[key] = value.clone());
        for stream in [false, true] {
            body["stream"] = stream.into();
            let answer = server.post("/v1/completions", &body);
            assert_eq!(answer.status, 400, "{constraint}: {}", answer.body);
            let failure = answer.json();
            check_record(&failure, "output/openai::FailureRecord");
            assert_eq!(failure["error"]["param"], param, "{failure}");
            assert_eq!(failure["error"]["type"], "invalid_request_error");
            let error = answer.error();
            assert!(error.contains(message) && !error.contains('\n'), "`{message}` is not in {error}");
        }
    }
    assert_eq!(texts(&server.complete(&json!({"prompt": "A", "regex": "b"}))), ["b"], "it goes on");
}

#[test]
fn clients_with_constraints_of_their_own_share_a_batch() {
    let server = Server::start(&["-m", "demo", "--batch-size", "8"]);
    let bodies: Vec<Value> = (0..16)
        .map(|i| {
            let mut body = json!({"prompt": "Once upon a", "seed": i, "max_tokens": 40, "n": 1 + i % 2});
            match i % 4 {
                0 => body["regex"] = " [0-9]{5}(, [0-9]{5}){3}".into(),
                1 => body["response_format"] = json!({"type": "json_schema", "json_schema": {"schema": person()}}),
                2 => body["choices"] = json!([" time", " house"]),
                _ => {}
            }
            body
        })
        .collect();
    let alone: Vec<Value> = bodies.iter().map(|body| server.complete(body)["choices"].clone()).collect();
    let numbers = Regex::new("^ [0-9]{5}(, [0-9]{5}){3}$").unwrap();
    for (i, choices) in alone.iter().enumerate() {
        for text in choices.as_array().unwrap().iter().map(|choice| choice["text"].as_str().unwrap()) {
            match i % 4 {
                0 => assert!(numbers.is_match(text), "{text}"),
                1 => assert!(serde_json::from_str::<Value>(text).unwrap()["age"].as_u64().unwrap() > 9, "{text}"),
                2 => assert!([" time", " house"].contains(&text), "{text}"),
                _ => {}
            }
        }
    }
    let server = &server;
    std::thread::scope(|scope| {
        for (body, alone) in bodies.iter().zip(&alone) {
            scope.spawn(move || assert_eq!(&server.complete(body)["choices"], alone, "{body}"));
        }
    });
}
