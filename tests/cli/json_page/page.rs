//! The page, made from the source.

use std::fmt::Write;

use super::source::{Field, Shape, Source, Type};
use super::{SECTIONS, SERVED, SHARED, Section};

const HEAD: &str = "\
# JSON

What every subcommand prints with `--format json`, and as one line a record with `--format jsonl`, `--input` or `--output`.

This page is made from the program's records, and a test checks outputs against them. Later versions may add
keys, but rename or remove none. They are written here as [jq](https://jqlang.org) takes them: `.sequences[].text` is the
text of every sequence. The type `integer[]` is an array of integers; \"or null\" means that the key may be there with null,
\"or absent\" that it may be left out. Read again, a number has the same bits, but no zero has a sign. Logarithms are
natural; positions count from 0. Letters in shapes: `B` texts, `T` tokens, `C` the model's width, `H` heads, `V` the
vocabulary.

";

/// The whole page.
pub fn render(source: &Source) -> String {
    let mut page = HEAD.to_owned();
    let links: Vec<String> = SECTIONS
        .iter()
        .map(|section| format!("[{}](#{})", section.title, anchor(section.title)))
        .chain(SERVED.iter().chain(SHARED).map(|(title, _)| format!("[{title}](#{})", anchor(title))))
        .collect();
    writeln!(page, "{}", links.join(" ·\n")).unwrap();
    for Section { title, commands, record, .. } in SECTIONS {
        write_section(&mut page, source, title, record);
        let commands: Vec<String> = commands.iter().map(|command| format!("    gpt2 {command}\n")).collect();
        writeln!(page, "\nFor example:\n\n{}", commands.concat().trim_end_matches('\n')).unwrap();
    }
    for (title, record) in SERVED.iter().chain(SHARED) {
        write_section(&mut page, source, title, record);
    }
    page
}

fn write_section(page: &mut String, source: &Source, title: &str, record: &str) {
    let declared = source.get(record);
    let Shape::Record(fields) = &declared.shape else { panic!("{record} is no record") };
    write!(page, "\n## {title}\n\n{}\n\n| key | type | meaning |\n|---|---|---|\n", declared.meaning).unwrap();
    write_fields(page, source, fields, "", &mut vec![record.to_owned()]);
}

/// A line for each field, and for the fields of the records in it, unless they have a section or a line already.
fn write_fields(page: &mut String, source: &Source, fields: &[Field], path: &str, above: &mut Vec<String>) {
    for field in fields {
        let inner = declared_in(&field.kind);
        let shared = inner.and_then(|inner| SHARED.iter().find(|(_, record)| *record == inner));
        let key = if field.is_flat { path.to_owned() } else { format!("{path}.{}", field.key) };
        let mut meaning = field.meaning.clone();
        if let Some((title, _)) = shared {
            write!(meaning, " See [{title}](#{}).", anchor(title)).unwrap();
        }
        let is_repeated = inner.is_some_and(|inner| above.iter().any(|record| record == inner));
        if is_repeated {
            meaning += " They have the same keys.";
        }
        let names = inner.map(|inner| &source.get(inner).shape);
        if let Some(Shape::Names(names)) = names {
            let names: Vec<String> = names.iter().map(|(name, meaning)| format!("`{name}`: {meaning}")).collect();
            write!(meaning, " {}", names.join(" ")).unwrap();
        }
        let absent = if field.may_be_absent { ", or absent" } else { "" };
        let kind = format!("{}{absent}", type_name(source, &field.kind)).replace(" or null, or absent", ", or absent");
        let meaning = meaning.replace('|', "\\|");
        match (field.is_flat, &field.kind) {
            (true, Type::Map) => writeln!(page, "| any other | any | {meaning} |").unwrap(),
            (true, _) if shared.is_some() => writeln!(page, "| `{path}.*` | | {meaning} |").unwrap(),
            (true, _) => {}
            (false, _) => writeln!(page, "| `{key}` | {kind} | {meaning} |").unwrap(),
        }
        if let (Some(Shape::Record(fields)), Some(inner), None, false) = (names, inner, shared, is_repeated) {
            above.push(inner.to_owned());
            write_fields(page, source, fields, &(key + &brackets(&field.kind)), above);
            above.pop();
        }
    }
}

/// The declared type that a type is made of.
pub fn declared_in(kind: &Type) -> Option<&str> {
    match kind {
        Type::Array(inner) | Type::Nullable(inner) => declared_in(inner),
        Type::Declared(name) => Some(name),
        _ => None,
    }
}

fn brackets(kind: &Type) -> String {
    match kind {
        Type::Array(inner) => format!("[]{}", brackets(inner)),
        Type::Nullable(inner) => brackets(inner),
        _ => String::new(),
    }
}

/// The type in the page's notation, such as `(number or null)[]`.
fn type_name(source: &Source, kind: &Type) -> String {
    match kind {
        Type::String => "string".to_owned(),
        Type::Integer => "integer".to_owned(),
        Type::Number => "number".to_owned(),
        Type::Boolean => "boolean".to_owned(),
        Type::Any => "any".to_owned(),
        Type::Map => "object".to_owned(),
        Type::Array(inner) if matches!(**inner, Type::Nullable(_)) => format!("({})[]", type_name(source, inner)),
        Type::Array(inner) => format!("{}[]", type_name(source, inner)),
        Type::Nullable(inner) => format!("{} or null", type_name(source, inner)),
        Type::Declared(name) => match source.get(name).shape {
            Shape::Names(_) => "string".to_owned(),
            Shape::Record(_) => "object".to_owned(),
        },
    }
}

/// GitHub's anchor of a heading.
fn anchor(title: &str) -> String {
    let kept = title.to_lowercase().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
    kept.replace(' ', "-")
}
