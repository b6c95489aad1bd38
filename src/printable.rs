//! Others' text for people: names, paths, tokens, messages and what a model writes. A character that would drive a
//! terminal, reorder or hide the text around it, or break a line or a file of XML is shown escaped, as in `\u{1b}`.

use std::borrow::Cow;
use std::path::Path;

/// Whether a character can be shown as it is: it is no control character (C0, DEL, C1), no line or paragraph separator,
/// does not change the direction of text, has something to see, and may occur in XML.
///
/// The joiners U+200C and U+200D and the variation selectors are printable, since words and emoji are written with them.
#[must_use]
pub fn is_printable(c: char) -> bool {
    let is_hidden = matches!(c,
        // Soft hyphen, Arabic letter mark, Mongolian vowel separator, zero-width space, marks of direction.
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
        // Separators; embeddings, overrides and isolates with their ends; joiners and operators without a glyph.
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        // Byte order mark, annotations, tags.
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    );
    let is_noncharacter = matches!(c, '\u{fdd0}'..='\u{fdef}') || u32::from(c) & 0xfffe == 0xfffe;
    !(c.is_control() || is_hidden || is_noncharacter)
}

/// A name or a message on one line.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_printable)
}

/// A path on one line.
#[must_use]
pub fn path(path: &Path) -> String {
    line(&path.to_string_lossy()).into_owned()
}

/// Text of any number of lines: line breaks and tabs stay. Bytes that are not UTF-8, which a terminal may take for control
/// characters, are shown as in `\xff`.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        shown.push_str(&lines(chunk.valid()));
        shown.extend(chunk.invalid().iter().flat_map(|byte| std::ascii::escape_default(*byte)).map(char::from));
    }
    shown
}

/// Text of any number of lines, as [`text`].
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| matches!(c, '\n' | '\t') || is_printable(c))
}

fn escaped(text: &str, is_shown: impl Fn(char) -> bool) -> Cow<'_, str> {
    let Some(first) = text.find(|c| !is_shown(c)) else { return Cow::Borrowed(text) };
    let mut shown = text[..first].to_owned();
    for c in text[first..].chars() {
        if is_shown(c) { shown.push(c) } else { shown.extend(c.escape_default()) }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drives_a_terminal_or_hides_is_escaped() {
        for (text, shown) in [
            ("\x1b]0;x\x07", r"\u{1b}]0;x\u{7}"),
            ("a\nb\tc\r\n", r"a\nb\tc\r\n"),
            ("\0\x7f\u{80}\u{9b}2J\u{9f}", r"\u{0}\u{7f}\u{80}\u{9b}2J\u{9f}"),
            ("gpj\u{202e}exe.bin", r"gpj\u{202e}exe.bin"),
            ("\u{61c}\u{200e}\u{200f}\u{2066}\u{2069}", r"\u{61c}\u{200e}\u{200f}\u{2066}\u{2069}"),
            ("\u{2028}\u{2029}\u{feff}\u{200b}\u{e0041}", r"\u{2028}\u{2029}\u{feff}\u{200b}\u{e0041}"),
            ("\u{fffe}\u{ffff}\u{1fffe}\u{fdd0}", r"\u{fffe}\u{ffff}\u{1fffe}\u{fdd0}"),
        ] {
            assert_eq!(line(text), shown);
        }
        assert_eq!(lines("a\nb\tc\r\n\x1b"), "a\nb\tc\\r\n\\u{1b}");
    }

    #[test]
    fn text_of_any_language_stays() {
        for text in [
            "Ġtheory · “é” \u{fffd}",
            "日本語 한국어 العربية עברית हिन्दी",
            "می\u{200c}خواهم",
            "👩\u{200d}💻 ❤\u{fe0f} 🇩🇪",
            r"\u{1b}",
        ] {
            assert!(matches!(line(text), Cow::Borrowed(same) if same == text));
        }
    }

    /// A terminal that expects Latin-1 takes the byte 9B for an escape and a bracket.
    #[test]
    fn bytes_that_are_not_utf8_are_escaped() {
        assert_eq!(text(b"a\x9b2J\xf0\x9f\n\xc2\x9b"), "a\\x9b2J\\xf0\\x9f\n\\u{9b}");
    }

    /// `{:?}`, in which messages quote names, escapes all of them.
    #[test]
    fn debug_escapes_no_less() {
        for c in (0..=u32::from(char::MAX)).filter_map(char::from_u32).filter(|c| !is_printable(*c)) {
            assert!(c.escape_debug().len() > 1, "{c:?}");
        }
    }

    /// XML 1.0 allows tab, line breaks, U+0020 to U+D7FF, U+E000 to U+FFFD and U+10000 to U+10FFFF.
    #[test]
    fn what_is_printable_may_occur_in_xml() {
        for c in ('\0'..=char::MAX).filter(|c| is_printable(*c)) {
            assert!(matches!(c, ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..), "{c:?}");
        }
    }
}
