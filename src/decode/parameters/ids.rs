//! Token ids as people write them.

use serde_json::Value;

use super::field::whole;
use crate::error::{Error, Result};

/// The sequences in a text such as `[[1, 2], [3]]`.
pub(super) fn nested(text: &str) -> Option<impl Iterator<Item = &str>> {
    let inner = text.trim().strip_prefix('[')?.strip_suffix(']')?.trim();
    let inner = inner.strip_prefix('[')?.strip_suffix(']')?;
    Some(inner.split(']').map(|ids| ids.trim_start_matches(|c: char| c.is_whitespace() || c == ',' || c == '[')))
}

/// Token ids in JSON: a list of them, or a text as [`parse_ids`] takes it.
pub(super) fn ids_of_json(value: &Value) -> Option<Vec<u32>> {
    match value {
        Value::Array(ids) => ids.iter().map(|id| u32::try_from(whole(id)?).ok()).collect(),
        value => parse_ids(value.as_str()?).ok(),
    }
}

/// Token ids in a text, separated by white space or commas: `464 4583`, or a list of JSON, `[464, 4583]`.
///
/// # Errors
/// [`Error::Usage`] with the part that is not a token id, or for a list that is open or nested.
pub fn parse_ids(text: &str) -> Result<Vec<u32>> {
    let text = text.trim();
    if text.starts_with('[') && text.matches('[').count() != text.matches(']').count() {
        return Err(Error::Usage("the list is open: it has not as many ] as [".into()));
    }
    let list = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if list.starts_with('[') {
        return Err(Error::Usage("a list of lists; give one list of token ids, such as [1, 2]".into()));
    }
    list.split(|c: char| c.is_whitespace() || c == ',')
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().map_err(|_| Error::Usage(format!("`{}` is not a token id", part.escape_debug()))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::field::Field;
    use super::*;

    #[test]
    fn ids_are_separated_by_white_space_or_commas_or_are_a_list_of_json() {
        for text in ["1 2 30", "1,2,30", " 1,\t2\n30\r\n", "[1, 2, 30]", "[1,2,30]\n", "[ 1 2 30 ]"] {
            assert_eq!(parse_ids(text).unwrap(), [1, 2, 30], "{text:?}");
        }
        for text in ["", " ", "[]"] {
            assert_eq!(parse_ids(text).unwrap(), [0; 0], "{text:?}");
        }
        for (text, part) in [
            ("1 x 2", "`x`"),
            ("-1", "`-1`"),
            ("1.5", "`1.5`"),
            ("[1", "the list is open"),
            ("[[1, 2], [3]", "the list is open"),
            ("[[1, 2], [3]]", "a list of lists"),
            ("4294967296", "`4294967296`"),
            ("a\x1b", "`a\\u{1b}`"),
        ] {
            let error = parse_ids(text).unwrap_err().to_string();
            assert!(error.starts_with(part), "{error}");
        }
    }

    #[test]
    fn a_flag_takes_one_sequence_or_a_list_of_them() {
        for (text, sequences) in [
            ("1 2", &[&[1, 2][..]][..]),
            ("[1, 2]", &[&[1, 2]]),
            ("[[1, 2], [3]]", &[&[1, 2], &[3]]),
            ("[ [1,2],[3] ]", &[&[1, 2], &[3]]),
        ] {
            let mut field: Vec<Vec<u32>> = vec![];
            field.read(text).unwrap();
            assert_eq!(field, sequences, "{text}");
        }
        assert!(Vec::<Vec<u32>>::new().read("[[1], x]").is_err());
    }
}
