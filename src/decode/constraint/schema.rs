//! JSON schemas.

use serde_json::Value;

/// Refuses what is no schema.
pub(super) fn check(schema: &Value) -> Result<(), String> {
    if schema.is_object() || schema.is_boolean() { Ok(()) } else { Err("neither an object nor a boolean".to_owned()) }
}
