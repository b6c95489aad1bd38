//! What is printed beside what a page shows.

/// The text with each number that has a fraction replaced, and those numbers: digits without the point, and decimals.
fn without_fractions(line: &str) -> (String, Vec<(i64, usize)>) {
    let fraction = regex::Regex::new(r"-?\d+\.\d+").unwrap();
    let numbers = fraction.find_iter(line).map(|found| {
        let (whole, decimals) = found.as_str().split_once('.').unwrap();
        (format!("{whole}{decimals}").parse().unwrap_or(i64::MAX), decimals.len())
    });
    (fraction.replace_all(line, "#").into_owned(), numbers.collect())
}

fn is_alike(shown: &str, line: &str) -> bool {
    let ((shown, numbers), (line, others)) = (without_fractions(shown), without_fractions(line));
    // Columns are filled with spaces.
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let close = |(a, b): (&(i64, usize), &(i64, usize))| a.1 == b.1 && a.0.abs_diff(b.0) <= 1;
    words(&shown) == words(&line) && numbers.len() == others.len() && numbers.iter().zip(&others).all(close)
}

pub fn matches(shown: &[&str], printed: &[&str]) -> bool {
    match shown.iter().position(|line| *line == "...") {
        None => shown.len() == printed.len() && shown.iter().zip(printed).all(|(shown, line)| is_alike(shown, line)),
        Some(place) => {
            let (head, tail) = (&shown[..place], &shown[place + 1..]);
            printed.len() >= head.len() + tail.len()
                && matches(head, &printed[..head.len()])
                && matches(tail, &printed[printed.len() - tail.len()..])
        }
    }
}

/// As many lines of the output as the page shows.
pub fn shortened<'a>(shown: &[&str], printed: &[&'a str]) -> Vec<&'a str> {
    match shown.iter().position(|line| *line == "...") {
        Some(place) if printed.len() + 1 >= shown.len() => {
            let (head, tail) = (&printed[..place], &printed[printed.len() - (shown.len() - place - 1)..]);
            [head, &["..."], tail].concat()
        }
        _ => printed.to_vec(),
    }
}

#[test]
fn numbers_may_round_differently() {
    assert!(is_alike("a  64.92%  b", "a 64.93% b") && is_alike("-1.20", "-1.21"));
    assert!(!is_alike("64.92%", "64.94%") && !is_alike("64.92", "64.9") && !is_alike("a 5", "a 6"));
    assert!(matches(&["a", "...", "c"], &["a", "b", "b", "c"]) && !matches(&["a", "...", "c"], &["a", "b"]));
}
