//! What a row says: its id, its prompt, its parameters, and keys that are only passed through.

use std::borrow::Cow;

use anyhow::{Error, Result, anyhow, bail};
use gpt2::decode::{Group, Meaning, Parameter, parameter_meaning};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::entries::{compact, entries, quoted, shortened};
use super::meant::meant;
use super::values::{IDS_KEYS, PROMPT_KEYS, TEXT_KEYS, parameter, prompt};
use super::{Hash, equal, hash};
use crate::cli::Prompt;
use crate::output::{Carried, ErrorKind, RowRecord};

/// Which keys mean something to a subcommand, and what becomes of the others.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Which decoding parameters a row may set.
    pub parameters: Allowed,
    /// Keys of the subcommand's own, some of which may take the place of a text.
    pub own: &'static [&'static str],
    /// The other keys that are carried into the result; all if none.
    pub keep: Option<Vec<String>>,
    /// Whether other keys are refused.
    pub strict: bool,
}

/// Which decoding parameters rows may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    None,
    /// Those that shape the distribution.
    Processors,
    All,
}

impl Allowed {
    /// Whether the parameter is one of them.
    pub fn has(self, parameter: &Parameter) -> bool {
        match self {
            Self::None => false,
            Self::Processors => parameter.group != Group::Decoding,
            Self::All => true,
        }
    }
}

/// Keys of a subcommand's own, with their values.
pub type OwnKeys = Vec<(String, Box<RawValue>)>;

/// What a row says, and a hash of all of it.
type Said = (Option<Prompt>, Map<String, Value>, OwnKeys, Hash);

/// A row that can be run.
#[derive(Debug)]
pub struct Row {
    /// What its result says about it.
    pub place: RowRecord,
    pub prompt: Prompt,
    /// Whether it gives the prompt, or leaves that to keys of the subcommand's own.
    pub has_prompt: bool,
    /// Decoding parameters by name.
    pub parameters: Map<String, Value>,
    /// Keys of the subcommand's own that are not null.
    pub own: OwnKeys,
    /// Identifies it in its input: its id, or its line if it has none.
    pub(super) key: Hash,
    /// Of all that it says.
    pub(super) content: Hash,
}

/// A row that cannot be run.
#[derive(Debug)]
pub struct Refused {
    /// What is known about it.
    pub place: RowRecord,
    pub error: Error,
}

/// What the lines of an input are.
#[derive(Debug, Clone)]
pub enum Form {
    /// JSON objects.
    Objects(Keys),
    /// Texts.
    Texts,
}

impl Form {
    /// Reads the row on a line, of which the place is known.
    pub fn read(&self, place: RowRecord, text: Result<String>) -> Result<Row, Box<Refused>> {
        match self {
            Self::Objects(keys) => keys.read(place, text),
            Self::Texts => Row::of_text(place, text),
        }
    }
}

impl Row {
    /// The row of a line that is a text.
    fn of_text(place: RowRecord, text: Result<String>) -> Result<Self, Box<Refused>> {
        match text {
            Ok(text) => {
                let text = text.strip_suffix('\r').unwrap_or(&text);
                let (key, content) = (key(None, place.file.as_deref(), place.line), hash([text]));
                let (prompt, parameters) = (Prompt::Text(text.to_owned()), Map::new());
                Ok(Self { place, prompt, has_prompt: true, parameters, own: vec![], key, content })
            }
            Err(error) => Err(unreadable(place, error)),
        }
    }

    /// A seed of its own: made from that of the run and its id, or its text if it has none.
    pub fn own_seed(&self, seed: u64) -> u64 {
        let seed = seed.to_string();
        let own = match (&self.place.id, &self.prompt) {
            (Some(id), _) => hash([&*seed, "id", &equal::canonical(id)]),
            (None, Prompt::Text(text)) => hash([&*seed, "text", text]),
            (None, Prompt::Ids(ids)) => {
                let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
                hash([&*seed, "ids"].into_iter().chain(ids.iter().map(String::as_str)))
            }
        };
        // 53 bits, which are exact in every JSON reader.
        u64::from_be_bytes(std::array::from_fn(|i| own[i])) >> 11
    }
}

/// A line whose bytes are no text.
fn unreadable(mut place: RowRecord, error: Error) -> Box<Refused> {
    place.error_kind = Some(ErrorKind::Json);
    let line = place.line;
    Box::new(Refused { place, error: error.context(format!("line {line}")) })
}

impl Keys {
    /// Reads the row on a line, of which the place is known.
    pub fn read(&self, mut place: RowRecord, text: Result<String>) -> Result<Row, Box<Refused>> {
        let text = match text {
            Ok(text) => text,
            Err(error) => return Err(unreadable(place, error)),
        };
        let entries = match entries(&text) {
            Ok(entries) => entries,
            Err(fault) => {
                place.error_kind = Some(ErrorKind::Json);
                let error = anyhow!("line {} is {fault}: {}", place.line, quoted(&text));
                place.row = Some(shortened(text.trim()));
                return Err(Box::new(Refused { place, error }));
            }
        };
        match self.fill(&entries, &mut place) {
            Ok((prompt, parameters, own, content)) => {
                let key = key(place.id.as_deref(), place.file.as_deref(), place.line);
                let (has_prompt, prompt) = (prompt.is_some(), prompt.unwrap_or(Prompt::Ids(vec![])));
                Ok(Row { key, place, prompt, has_prompt, parameters, own, content })
            }
            Err(error) => Err(Box::new(Refused { place, error })),
        }
    }

    /// Reads what the entries say, the id and the keys that are passed through first, so that errors come with them.
    fn fill(&self, entries: &[(Cow<'_, str>, &RawValue)], place: &mut RowRecord) -> Result<Said> {
        let (mut known, mut own, mut others, mut carried) = (vec![], OwnKeys::new(), vec![], vec![]);
        for (key, value) in entries {
            let key = &**key;
            let is_kept = self.keep.as_ref().is_some_and(|keep| keep.iter().any(|kept| kept == key));
            if key == "id" {
                place.id = (value.get() != "null").then(|| (*value).to_owned());
            } else if PROMPT_KEYS.contains(&key) || self.is_parameter(key, is_kept) {
                known.push((key, *value));
            } else if self.own.contains(&key) {
                own.push((key.to_owned(), (*value).to_owned()));
            } else {
                if is_kept || self.keep.is_none() {
                    carried.push((key.to_owned(), (*value).to_owned()));
                }
                if !is_kept {
                    others.push(key);
                }
            }
        }
        place.input = (!carried.is_empty()).then_some(Carried(carried));
        let mut names: Vec<&str> = entries.iter().map(|(key, _)| &**key).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            bail!("the row has {:?} twice", twice[0]);
        }
        for other in others {
            if let Some((is, meant)) = meant(other, self.parameters, self.own) {
                bail!("{other:?} is {is} `{meant}`; write `{meant}`, or carry it along with --keep {other:?}");
            }
            if self.strict {
                bail!("{other:?} means nothing here, and --strict refuses such keys");
            }
        }
        let (texts, rest): (Vec<_>, Vec<_>) = known.into_iter().partition(|(key, _)| TEXT_KEYS.contains(key));
        let (ids, parameters): (Vec<_>, Vec<_>) = rest.into_iter().partition(|(key, _)| IDS_KEYS.contains(key));
        own.retain(|(_, value)| value.get() != "null");
        let prompt = prompt(&texts, &ids, !own.is_empty())?;
        let parameters = parameters.into_iter().map(parameter).collect::<Result<_>>()?;
        let said = entries.iter().filter(|(key, _)| key != "id");
        let said: Vec<(&str, String)> = said.map(|(key, value)| (&**key, compact(value.get()))).collect();
        let content = hash(said.iter().flat_map(|(key, value)| [*key, value.as_str()]));
        Ok((prompt, parameters, own, content))
    }

    /// Whether the key is a parameter. One that we do not have is an error, unless it is to be carried along.
    fn is_parameter(&self, key: &str, is_kept: bool) -> bool {
        match parameter_meaning(key) {
            Some(Meaning::Parameter(parameter)) => self.parameters.has(parameter),
            Some(Meaning::EndOfText) => self.parameters != Allowed::None,
            Some(Meaning::DoSample) => self.parameters == Allowed::All,
            Some(Meaning::Missing) => self.parameters == Allowed::All && !is_kept,
            None => false,
        }
    }
}

/// The identity of a row in its input. Ids are the same if their JSON values are, however they are written.
pub(super) fn key(id: Option<&RawValue>, file: Option<&str>, line: usize) -> Hash {
    match id {
        Some(id) => hash(["id", &equal::canonical(id)]),
        None => hash(["line", file.unwrap_or_default(), &line.to_string()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys { parameters: Allowed::All, own: &[], keep: None, strict: false }
    }

    fn row(text: &str) -> Row {
        keys()
            .read(RowRecord::new(3), Ok(text.to_owned()))
            .unwrap_or_else(|refused| panic!("{text}: {}", refused.error))
    }

    #[track_caller]
    fn refused(keys: &Keys, text: &str, error: &str) {
        let refused = keys.read(RowRecord::new(3), Ok(text.to_owned())).unwrap_err();
        assert_eq!(refused.error.to_string(), error, "{text}");
    }

    #[test]
    fn what_is_passed_through_comes_back_as_written() {
        let row = row(
            r#" {"b": 1.50, "id": 12345678901234567890123, "prompt": "x", "a": {"z": [1e400, "\u00e9"]}, "n": null}"#,
        );
        let json = serde_json::to_string(&row.place).unwrap();
        let input = r#"{"b":1.50,"a":{"z": [1e400, "\u00e9"]},"n":null}"#;
        let place = r#""file":null,"ok":true,"error":null,"error_kind":null,"row":null"#;
        assert_eq!(json, format!(r#"{{"id":12345678901234567890123,"line":3,{place},"input":{input}}}"#));
        let without = keys().read(RowRecord::new(7), Ok(r#"{"id": null, "text": "x"}"#.into())).unwrap();
        let json = serde_json::to_string(&without.place).unwrap();
        assert_eq!(json, format!(r#"{{"id":null,"line":7,{place},"input":null}}"#));
    }

    #[test]
    fn a_prompt_has_two_names_and_so_have_ids() {
        for text in [r#"{"prompt": "a"}"#, r#"{"text": "a"}"#, r#"{"text": "a", "prompt": null, "ids": null}"#] {
            assert_eq!(row(text).prompt, Prompt::Text("a".into()), "{text}");
        }
        for text in [r#"{"prompt_ids": [1, 2]}"#, r#"{"ids": [1,2]}"#] {
            assert_eq!(row(text).prompt, Prompt::Ids(vec![1, 2]), "{text}");
        }
    }

    #[test]
    fn errors_name_the_key() {
        for (text, error) in [
            (r#"{"prompt": 5}"#, "`prompt` is 5; it takes a text"),
            (
                r#"{"prompt": "\ud83d"}"#,
                "`prompt` has half of a surrogate pair (\\ud800 to \\udfff), which is no character",
            ),
            (r#"{"ids": [1, -1]}"#, "`ids` has -1; token ids are whole numbers from 0 to 4294967295"),
            (r#"{"prompt_ids": "1 2"}"#, "`prompt_ids` is \"1 2\"; it takes a list of token ids"),
            (r#"{"prompt": "a", "text": "a"}"#, "the row has both `prompt` and `text`"),
            (r#"{"prompt": "a", "prompt": "b"}"#, "the row has \"prompt\" twice"),
            (r#"{"prompt": "a", "temperature": 1e999}"#, "`temperature` is 1e999, which cannot be used"),
            (r#"{"prompt": "a", "num_beams": 1.5e0}"#, "`num_beams` is 1.5e0, not a whole number of 0 or more"),
            (
                r#"{"prompt": "a", "seed": 18446744073709551616}"#,
                "`seed` is 18446744073709551616, too large: the most is 18446744073709551615",
            ),
            (
                r#"{"prompt": "a", "max_tokens": 5}"#,
                "\"max_tokens\" is another name of `max_new_tokens`; write `max_new_tokens`, or carry it along with --keep \"max_tokens\"",
            ),
            (r#"[1]"#, "line 3 is an array, not an object such as {\"id\": 1, \"prompt\": \"...\"}: [1]"),
            (r#"5"#, "line 3 is a number, not an object such as {\"id\": 1, \"prompt\": \"...\"}: 5"),
            (r#"{"id": 1,, }"#, "line 3 is not JSON at column 10: {\"id\": 1,, }"),
            (
                "{\"id\": \"\u{1b}[2J\"}",
                "line 3 is not JSON at column 8: a control character, which a text must escape, such as \\n or \\u0000: {\"id\": \"\\u{1b}[2J\"}",
            ),
        ] {
            refused(&keys(), text, error);
        }
        let id = |text: &str| {
            keys().read(RowRecord::new(3), Ok(text.into())).unwrap_err().place.id.map(|id| id.get().to_owned())
        };
        assert_eq!(id("[1]"), None);
        assert_eq!(id(r#"{"prompt": 5, "id": "a"}"#).as_deref(), Some("\"a\""));
    }

    #[test]
    fn a_misspelt_name_is_an_error_that_names_both() {
        for (other, name) in [
            ("temprature", "temperature"),
            ("Temperature", "temperature"),
            ("maxNewTokens", "max_new_tokens"),
            ("max-new-tokens", "max_new_tokens"),
            ("max_new_token", "max_new_tokens"),
            ("top-p", "top_p"),
            ("Text", "text"),
            ("ID", "id"),
            ("promt", "prompt"),
            ("do_smaple", "do_sample"),
            ("stop_string", "stop_strings"),
        ] {
            let error =
                format!("{other:?} is nearly `{name}`; write `{name}`, or carry it along with --keep {other:?}");
            refused(&keys(), &format!(r#"{{"prompt": "a", "{other}": 1}}"#), &error);
            let kept = Keys { keep: Some(vec![other.into()]), ..keys() };
            let row = kept.read(RowRecord::new(1), Ok(format!(r#"{{"prompt": "a", "{other}": 1}}"#))).unwrap();
            assert_eq!(row.place.input.unwrap().0[0].0, other);
        }
        for other in ["title", "test", "_id", "labels", "context", "score", "url", "top_n", "date"] {
            assert!(row(&format!(r#"{{"prompt": "a", "{other}": 1}}"#)).place.input.is_some(), "{other}");
        }
    }

    #[test]
    fn other_keys_are_picked_or_refused_on_request() {
        let text = r#"{"prompt": "a", "title": 1, "note": 2}"#;
        let kept = Keys { keep: Some(vec!["note".into()]), ..keys() }.read(RowRecord::new(1), Ok(text.into())).unwrap();
        assert!(serde_json::to_string(&kept.place).unwrap().ends_with(r#","input":{"note":2}}"#));
        let error = "\"title\" means nothing here, and --strict refuses such keys";
        refused(&Keys { strict: true, ..keys() }, text, error);
        let error = "`dola_layers` is a parameter of transformers that this program does not have; to carry it along: --keep dola_layers";
        refused(&keys(), r#"{"prompt": "a", "dola_layers": "low"}"#, error);
        let scored = Keys { parameters: Allowed::None, ..keys() }
            .read(RowRecord::new(1), Ok(r#"{"text": "a", "top_p": 3}"#.into()))
            .unwrap();
        assert!(scored.place.input.is_some(), "not a parameter of score");
    }

    #[test]
    fn rows_are_the_same_if_they_say_the_same() {
        let one = row(r#"{"id": "é", "prompt": "a b", "top_p": 0.5}"#);
        let same = row(r#"{ "id" : "\u00e9","prompt":"a b","top_p":0.5 }"#);
        assert_eq!((one.key, one.content), (same.key, same.content));
        for other in [r#"{"prompt": "ab", "top_p": 0.5}"#, r#"{"prompt": "a b", "top_p": 0.4}"#] {
            assert_ne!(row(other).content, one.content, "{other}");
        }
        let key = |id: &str| row(&format!(r#"{{"id": {id}, "prompt": "a"}}"#)).key;
        assert_eq!(key("1"), key("1.0"));
        assert_eq!(key(r#"{"a": 1, "b": [2]}"#), key(r#"{"b":[2e0],"a":1}"#));
        assert_ne!(row(r#"{"id": 3, "prompt": "a"}"#).key, row(r#"{"prompt": "a"}"#).key, "a line is no id");
        assert_ne!(row(r#"{"id": 3, "prompt": "a"}"#).key, row(r#"{"id": "3", "prompt": "a"}"#).key);
    }
}
