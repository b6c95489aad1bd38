//! What llguidance says is wrong, in one line and in plain words.

/// Its words and ours.
const PLAIN: [(&str, &str); 10] = [
    ("Unimplemented keys:", "keywords that are not supported:"),
    (
        "oneOf constraints are not supported. Enable 'coerce_one_of' option to approximate oneOf with anyOf",
        "oneOf is supported only if its options exclude each other by their types or constants; use anyOf",
    ),
    (
        "Only absolute $ref's (#/...) are supported without 'referencing' feature; ref",
        "only references from the root (#/...) are supported, not",
    ),
    ("Expected f64 for", "Expected a number for"),
    ("Expected positive integer for", "Expected a whole number from 0 for"),
    ("no start rule found", "there is no rule \"start\""),
    ("lexer error", "what comes here is not Lark"),
    ("found \"string...\"", "found a text in quotes"),
    ("found \"regex...\"", "found a regular expression"),
    ("at EOF: ", "at the end: "),
];

/// Said of an expression with look-around.
pub(super) const LOOKS_AROUND: &str = "it looks at what is around a place, which is not supported";

/// All of it on one line.
pub(super) fn plain(fault: &str) -> String {
    // An excerpt with an arrow at the place follows many.
    let is_excerpt = |line: &str| {
        let number = line.split_once('|').map(|(number, _)| number.trim());
        line.starts_with('^') || number.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    let mut lines = fault.lines().map(str::trim).filter(|line| !line.is_empty() && !is_excerpt(line));
    let mut parts = vec![];
    while let Some(line) = lines.next() {
        let Some(before) = line.strip_suffix("regex parse error:") else {
            parts.push(line.to_owned());
            continue;
        };
        // The expression follows, and an arrow.
        let why = lines.find_map(|line| line.strip_prefix("error: ")).unwrap_or("it is malformed");
        let before = if before.is_empty() { "invalid regular expression: " } else { before };
        parts.push(format!("{before}{why}"));
    }
    let fault = parts.join("; ");
    let fault = match fault.split_once("lookarounds not supported yet") {
        Some((before, _)) => format!("{before}{LOOKS_AROUND}"),
        None => fault,
    };
    let fault = with_place(&fault).unwrap_or(fault);
    PLAIN.iter().fold(fault, |fault, (theirs, ours)| fault.replace(theirs, ours))
}

/// The place in full, if the fault begins with one, `at 1(8): `; what is found there is named once.
fn with_place(fault: &str) -> Option<String> {
    let (place, what) = fault.split_once(": ")?;
    let (line, column) = place.strip_prefix("at ").unwrap_or(place).strip_suffix(')')?.split_once('(')?;
    let (line, column) = (line.parse::<u32>().ok()?, column.parse::<u32>().ok()?);
    let what = if what.ends_with("))") { what.rsplit_once(" (at ").map_or(what, |(what, _)| what) } else { what };
    Some(format!("line {line}, column {column}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_one_line_in_plain_words() {
        for (theirs, ours) in [
            (
                "at 1(8): unknown name: \"x\"\n   1 | start: x\n              ^\n",
                "line 1, column 8: unknown name: \"x\"",
            ),
            (
                "1(10): lexer error\n   1 | start: \"a\n      ^\n   2 | \n",
                "line 1, column 10: what comes here is not Lark",
            ),
            (
                "1(7): Expected token ':', found \"string...\" (at \"\\\"a\\\"\" (\"string...\"))\n   1 | start \"a\"\n  ^\n",
                "line 1, column 7: Expected token ':', found a text in quotes",
            ),
            (
                "at 1(8): invalid regex \"(?=x)b\" (in regex): regex parse error:\n    (?=x)b\n    ^^^\nerror: look-around is not supported",
                "line 1, column 8: invalid regex \"(?=x)b\" (in regex): look-around is not supported",
            ),
            ("regex parse error:\n    (\n    ^\nerror: unclosed group", "invalid regular expression: unclosed group"),
            ("Expected f64 for 'minimum', got \"a\"", "Expected a number for 'minimum', got \"a\""),
            ("Invalid type: objekt", "Invalid type: objekt"),
        ] {
            assert_eq!(plain(theirs), ours);
        }
    }
}
