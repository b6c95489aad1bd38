//! Whether a value is what the source declares.

use serde_json::{Map, Value};

use super::source::{Field, Shape, Source, Type};

/// Checks an object that is made of these records: every key of it is one of theirs and has their type, and no key that
/// they always have is missing. The error names the place in the value, as jq does.
pub fn check(source: &Source, value: &Value, records: &[&str]) -> Result<(), String> {
    let fields: Vec<&Field> = records.iter().flat_map(|record| own(source, record)).collect();
    object(source, value, &fields, "")
}

fn own<'a>(source: &'a Source, record: &str) -> &'a [Field] {
    match &source.get(record).shape {
        Shape::Record(fields) => fields,
        Shape::Names(_) => panic!("{record} is no record"),
    }
}

/// The fields with those of flat fields in their places, and whether other keys may be there.
fn flattened<'a>(source: &'a Source, fields: &[&'a Field], is_optional: bool) -> (Vec<(&'a Field, bool)>, bool) {
    let (mut all, mut is_open) = (vec![], false);
    for field in fields {
        let (kind, is_nullable) = match &field.kind {
            Type::Nullable(inner) => (&**inner, true),
            kind => (kind, false),
        };
        match kind {
            Type::Map if field.is_flat => is_open = true,
            Type::Declared(record) if field.is_flat => {
                let inner: Vec<&Field> = own(source, record).iter().collect();
                let (inner, is_inner_open) = flattened(source, &inner, is_optional || is_nullable);
                all.extend(inner);
                is_open |= is_inner_open;
            }
            _ => all.push((*field, is_optional || field.may_be_absent)),
        }
    }
    (all, is_open)
}

fn object(source: &Source, value: &Value, fields: &[&Field], path: &str) -> Result<(), String> {
    let object: &Map<String, Value> = value.as_object().ok_or_else(|| format!("{path} is no object"))?;
    let (fields, is_open) = flattened(source, fields, false);
    for (key, value) in object {
        let path = format!("{path}.{key}");
        match fields.iter().find(|(field, _)| field.key == *key) {
            // In rows, what may be absent is there with null.
            Some((_, true)) if value.is_null() => {}
            Some((field, _)) => typed(source, value, &field.kind, &path)?,
            None if is_open => {}
            None => return Err(format!("{path} is not declared")),
        }
    }
    match fields.iter().find(|(field, may_be_absent)| !may_be_absent && !object.contains_key(&field.key)) {
        Some((field, _)) => Err(format!("{path}.{} is missing", field.key)),
        None => Ok(()),
    }
}

fn typed(source: &Source, value: &Value, kind: &Type, path: &str) -> Result<(), String> {
    let is = |is_it: bool, what: &str| if is_it { Ok(()) } else { Err(format!("{path} is no {what}: {value}")) };
    match kind {
        Type::Any => Ok(()),
        Type::Map => is(value.is_object(), "object"),
        Type::String => is(value.is_string(), "string"),
        Type::Integer => is(value.is_u64(), "integer"),
        Type::Number => is(value.is_number(), "number"),
        Type::Boolean => is(value.is_boolean(), "boolean"),
        Type::Nullable(_) if value.is_null() => Ok(()),
        Type::Nullable(inner) => typed(source, value, inner, path),
        Type::Array(inner) => {
            let items = value.as_array().ok_or_else(|| format!("{path} is no array: {value}"))?;
            items.iter().try_for_each(|item| typed(source, item, inner, &format!("{path}[]")))
        }
        Type::Declared(name) => match &source.get(name).shape {
            Shape::Names(names) => is(names.iter().any(|(name, _)| value == name), "name that is declared"),
            Shape::Record(fields) => object(source, value, &fields.iter().collect::<Vec<_>>(), path),
        },
    }
}
