//! Scores as a table with tabs between columns, for R and pandas.

use std::fmt::Write;

use super::ScoreRecord;

/// The first line of the table: of words, or of tokens.
pub fn header(of_words: bool) -> &'static str {
    match of_words {
        true => "row\tindex\tword\tstart\tend\ttokens\tlogprob\tsurprisal_bits\n",
        false => "row\tposition\tid\ttoken\tlogprob\tsurprisal_bits\trank\tentropy_bits\n",
    }
}

/// The lines of a text; `row` tells it from others. What is missing is an empty field.
pub fn write_table(record: &ScoreRecord, row: &str, table: &mut String) {
    let row = field(row);
    if let Some(words) = &record.words {
        for (index, word) in words.iter().enumerate() {
            let (text, tokens) = (field(&word.word), word.last - word.first + 1);
            let (logprob, bits) = (number(word.logprob), number(word.surprisal));
            let (start, end) = (word.start, word.end);
            // Writing to a string cannot fail.
            let _ = writeln!(table, "{row}\t{index}\t{text}\t{start}\t{end}\t{tokens}\t{logprob}\t{bits}");
        }
        return;
    }
    for (position, id) in record.ids.iter().enumerate() {
        let token = record.tokens[position].as_deref().map(field).unwrap_or_default();
        let (logprob, rank) = (number(record.logprobs[position]), number(record.ranks[position]));
        // No -0.
        let bits = number(record.logprobs[position].map(|logprob| 0.0 - logprob / std::f32::consts::LN_2));
        let entropy = record.entropies.as_ref().and_then(|entropies| entropies[position]);
        let entropy = number(entropy.map(|entropy| entropy / std::f64::consts::LN_2));
        let _ = writeln!(table, "{row}\t{position}\t{id}\t{token}\t{logprob}\t{bits}\t{rank}\t{entropy}");
    }
}

fn number(x: Option<impl ToString>) -> String {
    x.map(|x| x.to_string()).unwrap_or_default()
}

/// Text on one line and without tabs: as in `\\n`. Quotes are doubled within quotes, which R and pandas undo.
fn field(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r");
    match escaped.contains('"') {
        true => format!("\"{}\"", escaped.replace('"', "\"\"")),
        false => escaped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_stays_one_field() {
        for (text, written) in [
            (" time", " time"),
            ("\n\t\r", "\\n\\t\\r"),
            ("\\n", "\\\\n"),
            ("\"Well,\"", "\"\"\"Well,\"\"\""),
            ("", ""),
        ] {
            assert_eq!(field(text), written);
        }
    }
}
