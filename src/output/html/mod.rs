//! Pages for the browser: each is one file that contains style, script and data. A page loads nothing, from the network
//! or elsewhere, and its content security policy forbids it; that of `gpt2 serve` asks its own server for completions.
//!
//! A page is `page.html` with `page.css`, `page.js` and the script of its view. Its data comes from the same records as
//! the JSON and is embedded in the page; the scripts insert text only as text, never as markup.

pub mod generate;
mod packed;
pub mod patch;
pub mod score;
#[cfg(feature = "serve")]
pub mod serve;
mod shades;
pub mod tokenize;
pub mod topk;
pub mod trace;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use gpt2::tokenizer::Tokenizer;
use gpt2::{json, printable};
use serde::Serialize;

use super::tokens::Notation;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// A text and the names of the tokens on its page.
#[derive(Serialize)]
struct Text {
    ids: Vec<u32>,
    /// Whole characters, and how many tokens they span.
    spans: Vec<(String, usize)>,
    /// Each of its tokens, and each of all tokens on the page.
    labels: Vec<String>,
    names: BTreeMap<u32, String>,
}

impl Text {
    /// The text of `ids` on a page where `others` occur too.
    fn new(tokenizer: Option<&Tokenizer>, ids: &[u32], others: impl Iterator<Item = u32>) -> Self {
        let notation = Notation::new(tokenizer);
        let names = ids.iter().copied().chain(others).map(|id| (id, notation.token(id))).collect();
        let spans = notation
            .spans(ids)
            .into_iter()
            .map(|span| (printable::lines(&span.text).into_owned(), span.tokens.len()))
            .collect();
        Self { ids: ids.to_vec(), spans, labels: notation.tokens(ids), names }
    }
}

/// What makes a page of its own.
struct View {
    title: &'static str,
    /// Its style beside that of all pages.
    style: &'static str,
    /// Its script after that of all pages; `start(data)` draws it.
    script: &'static str,
    /// What it may connect to: a source of its content security policy.
    connections: &'static str,
}

impl View {
    /// A page that connects to nothing.
    const fn new(title: &'static str, script: &'static str) -> Self {
        Self { title, style: "", script, connections: "'none'" }
    }

    /// Writes the page with the given data.
    fn write(&self, path: &Path, data: &impl Serialize) -> Result<()> {
        super::write_file(path, self.page(&embedded(data)?).as_bytes())
    }

    /// The page with data as [`embedded`] gives it.
    fn page(&self, data: &str) -> String {
        let parts = [
            ("{{connections}}", self.connections),
            ("{{title}}", self.title),
            ("{{style}}", STYLE),
            ("{{more style}}", self.style),
            ("{{script}}", SCRIPT),
            ("{{view}}", self.script),
            ("{{data}}", data),
        ];
        let mut page = String::new();
        let mut rest = PAGE;
        // One pass over the template, so that nothing in the data is taken for a placeholder.
        for (place, part) in parts {
            let (before, after) = rest.split_once(place).unwrap_or((rest, ""));
            page.push_str(before);
            page.push_str(part);
            rest = after;
        }
        page + rest
    }
}

/// JSON that is safe inside a script element: nothing in it can end the element or begin a comment.
fn embedded(data: &impl Serialize) -> Result<String> {
    let data = json::escaped(&serde_json::to_string(data)?).into_owned();
    Ok(data.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"))
}

/// A number rounded to more digits than a page shows; however small, it does not become 0.
fn rounded(x: f32) -> f64 {
    let decimals = (f64::from(x) * 1e6).round() / 1e6;
    if x.abs() >= 1e-2 { decimals } else { format!("{x:.4e}").parse().unwrap_or(decimals) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_token_can_escape_from_the_data() {
        let json = embedded(&["</script><script>alert(1)//", "<!--", "{{view}}", "a\u{2028}b&amp;"]).unwrap();
        assert!(!json.contains(['<', '>', '&', '\u{2028}']));
        let back: Vec<String> = serde_json::from_str(&json).unwrap();
        assert_eq!(back, ["</script><script>alert(1)//", "<!--", "{{view}}", "a\u{2028}b&amp;"]);
    }

    #[test]
    fn every_placeholder_is_filled() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page.html");
        View { style: "b {}", ..View::new("A title", "view()") }.write(&path, &["{{view}}"]).unwrap();
        let page = std::fs::read_to_string(&path).unwrap();
        assert_eq!(page.matches("{{").count(), 1, "the data's own");
        for part in ["connect-src 'none'", "A title", "b {}", "view()", "[\"{{view}}\"]", STYLE, SCRIPT] {
            assert!(page.contains(part), "{part}");
        }
    }
}
