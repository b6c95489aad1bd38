//! The rest of transformers' parameters, and OpenAI's: presence and frequency penalty, logit bias.

use serde_json::{Value, json};

use crate::harness::{gpt2, id_text, tiny};

/// The cases of `fixtures/decode/NAME.json`.
fn cases(name: &str, kind: &str) -> Vec<Value> {
    let file = tiny(name).join("../../decode").join(format!("{name}.json"));
    let golden: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    golden[kind].as_array().unwrap().clone()
}

/// The flags of parameters, given as transformers and OpenAI have them.
fn flags(params: &Value) -> Vec<String> {
    let flag = |(name, value): (&String, &Value)| {
        let flag = format!("--{}", name.replace('_', "-"));
        match value {
            Value::Object(biases) => biases.iter().flat_map(|(id, b)| [flag.clone(), format!("{id}={b}")]).collect(),
            Value::Array(biases) if name == "sequence_bias" => {
                biases.iter().flat_map(|pair| [flag.clone(), format!("{}={}", id_text(&pair[0]), pair[1])]).collect()
            }
            Value::Array(list) if name == "exponential_decay_length_penalty" => {
                vec![flag, format!("{},{}", list[0], list[1])]
            }
            Value::Array(ids) => vec![flag, id_text(&ids.clone().into())],
            Value::Bool(true) if name == "do_sample" => vec!["--sample".into()],
            Value::Bool(true) => vec![flag],
            value => vec![flag, value.to_string()],
        }
    };
    params.as_object().unwrap().iter().flat_map(flag).collect()
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn flags_and_keys_of_rows_give_the_same_ids() {
    let model = tiny("untied_f16").to_string_lossy().into_owned();
    let cases = cases("untied_f16", "generate");
    let mut rows = String::new();
    for case in &cases {
        let mut row = case["params"].clone();
        row["prompt_ids"] = case["ids"].clone();
        if case["max_new_tokens"].is_number() {
            row["max_new_tokens"] = case["max_new_tokens"].clone();
        }
        rows += &format!("{row}\n");
    }
    let done = gpt2(&["generate", "-m", &model, "--input", "-", "--ordered"]).stdin(rows).succeeds().json_lines();
    for (record, case) in done.iter().zip(&cases) {
        assert_eq!(record["sequences"][0]["ids"], case["sequences"][0], "{}", case["params"]);
    }
    assert_eq!(done.len(), cases.len());
    for case in cases.iter().step_by(4) {
        let base = strings(&["generate", "-m", &model, "--ids", &id_text(&case["ids"]), "--format", "json"]);
        let n = case["max_new_tokens"].as_u64().map(|n| vec!["-n".to_owned(), n.to_string()]);
        let json = gpt2(&[base, n.unwrap_or_default(), flags(&case["params"])].concat()).succeeds().json();
        assert_eq!(json["sequences"][0]["ids"], case["sequences"][0], "{}", case["params"]);
        for (name, value) in case["params"].as_object().unwrap() {
            // Where it is not the default.
            let may_differ = ["do_sample", "max_length", "min_length", "forced_eos_token_id"].contains(&name.as_str());
            assert!(may_differ || json["settings"][name] == *value, "{name} {value}: {}", json["settings"]);
        }
    }
}

#[test]
fn topk_shows_biases_and_only_what_it_appends_is_penalised() {
    let model = tiny("base").to_string_lossy().into_owned();
    let topk = |ids: &Value, more: Vec<String>| {
        let base = strings(&["topk", "-m", &model, "--ids", &id_text(ids), "-k", "300", "--format", "json"]);
        gpt2(&[base, more].concat()).succeeds().json()
    };
    for case in cases("base", "distribution").iter().filter(|case| case.get("generated").is_none()).step_by(3) {
        let found = topk(&case["ids"], flags(&case["params"]));
        let next = found["positions"][0]["next"].as_array().unwrap();
        for (id, theirs) in case["probs"].as_object().unwrap() {
            let ours = next
                .iter()
                .find(|next| next["id"].as_u64() == id.parse().ok())
                .map(|next| next["prob"].as_f64().unwrap());
            assert!((ours.unwrap_or_default() - theirs.as_f64().unwrap()).abs() < 1e-5, "{}: {id}", case["params"]);
        }
    }
    let penalties = strings(&["--presence-penalty", "1.5", "--frequency-penalty=-0.5"]);
    let prompt = json!([33, 33, 180, 39]);
    assert_eq!(topk(&prompt, penalties)["positions"], topk(&prompt, vec![])["positions"]);
    // What ends a text does not end this, and it has no length of its own.
    let appended = |case: &&Value| {
        let n = case["sequences"][0].as_array().unwrap().len() as u64;
        let has = |name: &str| !case["params"][name].is_null();
        let is_whole = case["scores"].is_null() && case["max_new_tokens"].as_u64() == Some(n);
        is_whole && !has("do_sample") && !has("max_length")
    };
    for case in cases("base", "generate").iter().filter(appended).step_by(2) {
        let steps = strings(&["--append", &case["sequences"][0].as_array().unwrap().len().to_string()]);
        let json = topk(&case["ids"], [steps, flags(&case["params"])].concat());
        let ids: Vec<&Value> = json["steps"].as_array().unwrap().iter().map(|step| &step["id"]).collect();
        assert_eq!(ids, case["sequences"][0].as_array().unwrap().iter().collect::<Vec<_>>(), "{}", case["params"]);
    }
}

#[test]
fn a_row_with_no_such_token_or_bias_says_so() {
    let rows = [
        (json!({"logit_bias": {"50257": 1}}), "`logit_bias` has token id 50257, but the vocabulary ends at 50256"),
        (json!({"logit_bias": {"-1": 1}}), "`logit_bias` is {\"-1\":1}, `-1` is not a token id"),
        (
            json!({"logit_bias": {" time after": 1}}),
            "`logit_bias` takes the id or the text of one token, and \" time after\" is 2 tokens",
        ),
        (json!({"logit_bias": {"5": "1"}}), "`logit_bias` is {\"5\":\"1\"}, the bias \"1\" is not a number"),
        (
            json!({"logit_bias": [5]}),
            "`logit_bias` is [5], not an object of biases by token id, such as {\"50256\": -100}",
        ),
        (json!({"logit_bias": {"5": -101}}), "`logit_bias` takes a number from -100 to 100, not -101 (token 5)"),
        (json!({"presence_penalty": 3}), "`presence_penalty` takes a number from -2 to 2 (0 is off), not 3"),
        (json!({"frequency_penalty": "1"}), "`frequency_penalty` is \"1\", not a number"),
    ];
    let mut input = String::new();
    for (row, _) in &rows {
        let mut row = row.clone();
        row["prompt"] = "Once".into();
        input += &format!("{row}\n");
    }
    let run = gpt2(&["generate", "-m", "demo", "-n", "1", "--input", "-", "--ordered"]).stdin(input).fails(3, &[]);
    for (record, (_, error)) in run.json_lines().iter().zip(rows) {
        assert_eq!((&record["error"], &record["error_kind"]), (&error.into(), &"usage".into()));
    }
}
