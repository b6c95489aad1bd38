//! The lines of an input, and inputs that are something else than one JSON object a line.

use std::io::{self, BufRead, Read};

use anyhow::{Result, anyhow, bail};
use gpt2::files::{is_utf16, without_byte_order_mark};
use gpt2::memory::readable;

use crate::cli::longest_text;

/// The longest line in bytes, so that endless input does not fill memory. What has less memory takes shorter ones.
const LONGEST_LINE: u64 = 1 << 28;

/// A line's number, counted from 1, and its text.
pub type Line = (usize, Result<String>);

/// An input in an encoding that nothing here reads.
#[derive(Debug, thiserror::Error)]
#[error("UTF-16; save it as UTF-8")]
pub struct Utf16;

/// An input that fails while it is read: what is left of it is not known, so a run over it cannot be whole.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the input")]
pub struct Unreadable(#[source] pub io::Error);

/// Reads the lines that are not blank. An error of the reader is the last line, and so is an input that is [`Utf16`].
pub struct Lines<R> {
    reader: R,
    longest: u64,
    number: usize,
    ended: bool,
}

impl<R: BufRead> Lines<R> {
    pub fn new(reader: R) -> Self {
        Self { reader, longest: LONGEST_LINE.min(longest_text()), number: 0, ended: false }
    }

    /// The next line without its line break; none after the last.
    fn bytes(&mut self) -> Result<Option<Vec<u8>>> {
        let mut line = vec![];
        let mut reader = (&mut self.reader).take(self.longest);
        reader.read_until(b'\n', &mut line).inspect_err(|_| self.ended = true).map_err(Unreadable)?;
        match line.pop() {
            None => {
                self.ended = true;
                Ok(None)
            }
            Some(b'\n') => Ok(Some(line)),
            Some(_) if line.len() as u64 + 1 == self.longest => {
                drop(line);
                self.reader.skip_until(b'\n').inspect_err(|_| self.ended = true).map_err(Unreadable)?;
                bail!("longer than {}, the longest line that is read", readable(self.longest))
            }
            Some(last) => {
                line.push(last);
                Ok(Some(line))
            }
        }
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        while !self.ended {
            self.number += 1;
            let bytes = match self.bytes().transpose()? {
                Ok(bytes) => bytes,
                Err(error) => return Some((self.number, Err(error))),
            };
            if self.number == 1 && is_utf16(&bytes) {
                self.ended = true;
                return Some((1, Err(Utf16.into())));
            }
            let text = if self.number == 1 { without_byte_order_mark(&bytes).to_vec() } else { bytes };
            let text = String::from_utf8(text)
                .map_err(|e| anyhow!("invalid UTF-8 at offset {}", e.utf8_error().valid_up_to()));
            if !text.as_ref().is_ok_and(|text| text.trim().is_empty()) {
                return Some((self.number, text));
            }
        }
        None
    }
}

/// What the input is, if its `first` line shows that it is not one JSON object a line; with advice.
pub fn other_format(first: &str) -> Option<&'static str> {
    let first = first.trim();
    let complete = serde_json::from_str::<serde::de::IgnoredAny>(first).is_ok();
    if let Some(rest) = first.strip_prefix('[') {
        let of_rows = rest.trim_start().starts_with(['{', ']']) || rest.trim().is_empty();
        return of_rows.then_some("is one JSON array; give one object a line, as `jq -c '.[]'` makes them");
    }
    if first.starts_with('{') {
        let is_broken = !complete && first.ends_with(['{', '[', ',']);
        return is_broken.then_some("has an object on several lines; give each on one line, as `jq -c .` does");
    }
    let names = first.split([',', ';', '\t']).map(|name| name.trim().trim_matches('"').to_ascii_lowercase());
    let is_header = !complete && names.into_iter().any(|name| super::values::PROMPT_KEYS.contains(&name.as_str()));
    is_header.then_some(
        "is a table (CSV); give one JSON object a line, as pandas' to_json(..., orient=\"records\", lines=True) does",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_from_1_and_blank_ones_left_out() {
        let lines = |bytes: &'static [u8]| {
            Lines::new(bytes).map(|(n, line)| (n, line.unwrap_or_else(|e| format!("error: {e}")))).collect::<Vec<_>>()
        };
        let of = |n: usize, text: &str| (n, text.to_owned());
        assert_eq!(lines(b"\xEF\xBB\xBFa\r\n\n \nb"), [of(1, "a\r"), of(4, "b")]);
        assert_eq!(lines(b"a\xff\nb\n"), [of(1, "error: invalid UTF-8 at offset 1"), of(2, "b")]);
        assert_eq!(lines(b"\xEF\xBB\xBF"), []);
        assert_eq!(lines(b"\xFF\xFEa\0\n\0b\0"), [of(1, "error: UTF-16; save it as UTF-8")]);
    }

    #[test]
    fn files_that_are_not_jsonl_are_known_by_their_first_line() {
        for (first, word) in [
            ("[", "array"),
            ("[{\"prompt\": \"a\"}]", "array"),
            ("  [ {\"prompt\":", "array"),
            ("[]", "array"),
            ("{", "several lines"),
            ("{\"id\": 1,", "several lines"),
            ("id,prompt", "CSV"),
            ("\"id\"\t\"Text\"", "CSV"),
            ("prompt", "CSV"),
        ] {
            assert!(other_format(first).is_some_and(|what| what.contains(word)), "{first}");
        }
        for first in ["{}", "{\"id\": 1, \"pro", "[1]", "[[1]]", "\"prompt\"", "no json", "5", "Once, upon a time"] {
            assert_eq!(other_format(first), None, "{first}");
        }
    }
}
