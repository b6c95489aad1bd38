//! The page of `trace`: heads, the lens, what made a token.

use serde_json::Value;

use super::{TIP, data, page, percent, written};
use crate::browser::Browser;
use crate::harness::gpt2;

#[test]
fn it_shows_any_head_and_follows_the_lens() {
    let Some(mut browser) = Browser::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let flags = ["trace", "Once upon a time there was a king", "--attention", "--lens", "--hidden"];
    let (path, json) = page(&folder, "trace.html", &flags);
    let n = json["ids"].as_array().unwrap().len();
    browser.open(&path, "dark");
    let heads = json["attention"].as_array().unwrap();
    let weight = |head: &Value, query: usize, key: usize| head["weights"][query][key].as_f64().unwrap();
    // Where the page opens: at the head whose tokens look most at one token that is not the first, the one before, or
    // themselves.
    let telling = |head: &Value| -> f64 {
        (3..n).map(|query| (1..query - 1).map(|key| weight(head, query, key)).fold(0.0, f64::max)).sum()
    };
    let first = heads.iter().max_by(|a, b| telling(a).total_cmp(&telling(b))).unwrap();
    let opened = |browser: &mut Browser| browser.text("document.querySelector('.view h3')");
    assert_eq!(opened(&mut browser), format!("layer {}, head {}", first["layer"], first["head"]));
    let labels = browser.drawn("document.querySelector('#map canvas')");
    assert_eq!(labels.iter().filter(|label| *label == "\" king\"").count(), 2, "{labels:?}");
    // A head by its thumbnail, one by its number, and one with the arrow keys.
    for (layer, head, choice) in [(3, 1, "thumbnail"), (5, 1, "number"), (4, 0, "keys")] {
        match choice {
            "thumbnail" => browser.click("document.querySelector('button[data-layer=\"3\"][data-head=\"1\"]')"),
            "number" => {
                browser.value("(() => { const s = document.getElementById('layer'); s.value = 5; s.dispatchEvent(new Event('change')); })()");
            }
            _ => {
                browser.value("document.querySelector('.heads button[aria-pressed=\"true\"]').focus()");
                browser.press("ArrowUp");
                browser.press("ArrowLeft");
            }
        }
        assert_eq!(opened(&mut browser), format!("layer {layer}, head {head}"));
        let record = heads.iter().find(|record| record["layer"] == layer && record["head"] == head).unwrap();
        let canvas = "document.querySelector('#map canvas')";
        let number =
            |browser: &mut Browser, what: &str| browser.value(&format!("Number({canvas}.{what})")).as_f64().unwrap();
        let [side, cell, margin] =
            ["getBoundingClientRect().width", "dataset.cell", "dataset.margin"].map(|what| number(&mut browser, what));
        for (query, key) in [(n - 1, n - 1), (5, 4), (3, 0)] {
            let at = |i: usize| (margin + (i as f64 + 0.5) * cell) / side;
            browser.hover_at(canvas, at(key), at(query));
            let (tip, weight) = (browser.text(TIP), weight(record, query, key));
            assert!(tip.contains(&format!("token {query} goes to token {key}")), "{tip}");
            let shown: f64 = tip.lines().last().unwrap().split('%').next().unwrap().parse().unwrap();
            assert!((shown - 100.0 * weight).abs() < 0.06, "layer {layer} head {head}: {tip}, {weight}");
        }
    }
    // The arrow keys go on from where the pointer was.
    browser.value("document.querySelector('#map canvas').focus()");
    browser.press("ArrowUp");
    assert!(browser.text(TIP).contains("token 2 goes to token 0"), "{}", browser.text(TIP));
    browser.click("document.getElementById('as-lines')");
    let labels = browser.drawn("document.querySelector('#map canvas')");
    assert_eq!(labels.iter().filter(|label| *label == "\" king\"").count(), 2, "{labels:?}");
    for (layer, position) in [(0, 2), (3, 5), (6, n - 1)] {
        browser.hover(&format!("document.querySelector('td[data-layer=\"{layer}\"][data-position=\"{position}\"]')"));
        let best = &json["lens"][layer]["positions"][position]["top"][0];
        let (tip, token) = (browser.text(TIP), format!("{:?}", best["token"].as_str().unwrap()));
        assert!(tip.contains(&token) && tip.contains(&percent(best["prob"].as_f64().unwrap())), "{token}: {tip}");
        let path = browser.text("document.getElementById('path')");
        assert!(path.contains(&format!("(token {position})")), "{path}");
        for reading in json["lens"].as_array().unwrap() {
            let outcome = reading["positions"][position]["outcome_prob"].as_f64().unwrap();
            assert!(outcome < 0.001 || path.contains(&percent(outcome)), "{outcome} is not in {path}");
        }
    }
    browser.hover("document.querySelectorAll('.flow span')[4]");
    assert!(browser.text(TIP).contains("\" there\" looks at"));
    assert_eq!(browser.problems(), Vec::<String>::new());
}

/// With the 144 heads of GPT-2 and 200 tokens, a page is small enough to send to somebody.
#[test]
fn a_page_of_gpt2s_size_stays_small() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.html");
    let text = " one two three four five six seven eight nine ten".repeat(20);
    written(&["trace", &text], "--html", &path);
    let data = data(&path);
    let tokens = data["text"]["ids"].as_array().unwrap().len();
    assert_eq!(tokens, 200);
    let packed: usize = data["attention"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|layer| layer["heads"].as_array().unwrap())
        .map(|head| head["weights"].as_str().unwrap().len())
        .max()
        .unwrap();
    // 144 of the longest, and a megabyte for everything else.
    assert!(144 * packed < 4_000_000, "{packed} characters for a head");
}

#[test]
fn clicking_a_token_shows_what_made_it() {
    let Some(mut browser) = Browser::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.html");
    written(&["trace", "Once upon a time"], "--html", &path);
    let asked = ["trace", "-m", "demo", "--format", "json", "Once upon a", "--attribute", " time"];
    let expected = gpt2(&asked).succeeds().json();
    browser.open(&path, "light");
    let shown = "document.getElementById('made')";
    assert!(browser.text(shown).contains("after \" time\" at position 3"), "the model's next token");
    browser.value("document.querySelectorAll('.reading')[1].querySelectorAll('[data-from]')[3].click()");
    let text = browser.text(shown);
    assert!(text.contains("the logit of \" time\", after \" a\" at position 2"), "{text}");
    for component in expected["attribution"]["components"].as_array().unwrap() {
        if component["name"] == "blocks.0.mlp" {
            let value = format!("{:+.2}", component["value"].as_f64().unwrap());
            assert!(text.contains(&value), "{value} is not in {text}");
        }
    }
    browser.value("document.querySelectorAll('.reading')[1].querySelectorAll('[data-from]')[0].click()");
    assert!(browser.text(shown).contains("Nothing comes before the first token."));
    assert_eq!(browser.problems(), Vec::<String>::new());
}

/// So many weights are kept in few shades, and unpacked a layer at a time.
#[test]
fn a_long_text_has_its_weights_in_shades() {
    let Some(mut browser) = Browser::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.html");
    let text = " one two three four five six seven eight nine ten".repeat(51);
    written(&["trace", &text], "--html", &path);
    assert!(std::fs::metadata(&path).unwrap().len() < 3_000_000);
    assert_eq!(data(&path)["shades"], 31);
    browser.open(&path, "light");
    let drawn = "[...document.querySelectorAll('.heads button canvas')].filter((c) => c.repaint).length";
    for _ in 0..600 {
        if browser.value(drawn) == 12 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(browser.value(drawn), 12);
    // The first token looks at itself alone.
    browser.hover("document.querySelectorAll('.reading .flow span')[0]");
    let tip = browser.text(TIP);
    assert!(tip.contains("100.0%"), "{tip}");
    assert_eq!(browser.problems(), Vec::<String>::new());
}
