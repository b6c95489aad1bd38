//! Constraints under the names of OpenAI (`response_format`) and vLLM (`structured_outputs`, `guided_json` and so on).

use serde_json::{Map, Value, json};

use super::fault::Fault;
use super::request::wrong;

/// Names of the same constraint: ours, in vLLM's `structured_outputs`, and in its older versions.
const NAMES: [(&str, &str, &str); 4] = [
    ("regex", "regex", "guided_regex"),
    ("choices", "choice", "guided_choice"),
    ("json_schema", "json", "guided_json"),
    ("grammar", "grammar", "guided_grammar"),
];

/// Puts our names in place of others'. Returns our name of a constraint, and what the client calls it, if it was another.
pub fn translate(fields: &mut Map<String, Value>) -> Result<Option<(&'static str, String)>, Fault> {
    let mut found: Vec<(&str, String, Value)> = vec![];
    if let Some(value) = fields.remove("response_format") {
        found.extend(of_format(value)?.map(|schema| ("json_schema", "response_format".to_owned(), schema)));
    }
    if let Some(value) = fields.remove("structured_outputs") {
        let Value::Object(kinds) = value else { return Err(wrong("structured_outputs", "an object", &value)) };
        for (key, value) in kinds.into_iter().filter(|(_, value)| !value.is_null()) {
            let name = format!("structured_outputs.{key}");
            match NAMES.iter().find(|(_, kind, _)| *kind == key) {
                Some((ours, ..)) => found.push((ours, name, value)),
                None if key == "json_object" && value == true => found.push(("json_schema", name, any_object())),
                None if value == false => {}
                None => {
                    let message =
                        format!("`{name}` is not supported: json, json_object, regex, choice and grammar are");
                    return Err(Fault::parameter("structured_outputs", message));
                }
            }
        }
    }
    for (ours, _, guided) in NAMES {
        found.extend(fields.remove(guided).map(|value| (ours, guided.to_owned(), value)));
    }
    let mut given = NAMES.iter().filter(|(ours, ..)| fields.contains_key(*ours)).map(|(ours, ..)| (*ours).to_owned());
    let mut all = found.iter().map(|(_, name, _)| name.clone()).chain(given.by_ref());
    if let (Some(one), Some(other), false) = (all.next(), all.next(), found.is_empty()) {
        let message = format!("`{other}` cannot be combined with `{one}`: leave one of them out");
        return Err(Fault::parameter(other.split('.').next().unwrap_or_default(), message));
    }
    Ok(found.pop().map(|(ours, name, value)| {
        fields.insert(ours.to_owned(), value);
        (ours, name)
    }))
}

/// The schema of OpenAI's `response_format`; none for any text.
fn of_format(mut format: Value) -> Result<Option<Value>, Fault> {
    let takes = "{\"type\": \"text\"}, {\"type\": \"json_object\"} or {\"type\": \"json_schema\", \"json_schema\": {\"schema\": ...}}";
    match format["type"].as_str() {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(any_object())),
        Some("json_schema") => match format.pointer_mut("/json_schema/schema") {
            Some(schema) => Ok(Some(schema.take())),
            None => Err(wrong("response_format", takes, &format)),
        },
        _ => Err(wrong("response_format", takes, &format)),
    }
}

fn any_object() -> Value {
    json!({"type": "object"})
}
