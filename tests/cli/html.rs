//! Pages and pictures: the content of the files and, if there is a Chromium, what a reader sees and gets under the pointer.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::browser::Browser;
use crate::harness::gpt2;

/// Text that would break out of a page that inserted it as markup.
const HOSTILE: &str = "Once </script><img src=x onerror=document.title='hit'> upon <!-- a 🦊 time & \"so\"";

/// Runs the binary, writing a page or a picture, and returns its JSON.
fn written(subcommand: &[&str], flag: &str, file: &Path) -> Value {
    let file = file.display().to_string();
    gpt2(&[subcommand, &["-m", "demo", flag, &file, "--format", "json"]].concat()).succeeds().json()
}

/// The data in a page.
fn data(page: &Path) -> Value {
    let page = std::fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once(r#"id="data">"#).expect("data in the page");
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

fn commands() -> [(&'static str, Vec<&'static str>); 3] {
    [
        ("topk.html", vec!["topk", HOSTILE, "--all", "-k", "4"]),
        ("score.html", vec!["score", HOSTILE, "--bos"]),
        ("trace.html", vec!["trace", HOSTILE]),
    ]
}

#[test]
fn pages_stand_alone_and_hold_the_text_as_data() {
    let folder = tempfile::tempdir().unwrap();
    for (name, command) in commands() {
        let path = folder.path().join(name);
        let json = written(&command, "--html", &path);
        let page = std::fs::read_to_string(&path).unwrap();
        for outside in ["http://", "https://", "src=\"", "@import", "url("] {
            assert!(!page.contains(outside), "{name} holds {outside}");
        }
        assert!(!page.contains("<img") && page.matches("</script>").count() == 3, "{name}");
        let data = data(&path);
        let ids = json.get("ids").or(json.get("prompt_ids")).unwrap();
        assert_eq!(&data["text"]["ids"], ids);
        let text: String = data["text"]["spans"].as_array().unwrap().iter().map(|s| s[0].as_str().unwrap()).collect();
        assert_eq!(text, HOSTILE, "{name}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "only the pages are left");
}

#[test]
fn a_page_that_cannot_be_written_is_an_error() {
    for (_, command) in commands() {
        gpt2(&[&command[..], &["-m", "demo", "--html", "/nonexistent/page.html"]].concat())
            .fails(1, &["/nonexistent/page.html"]);
    }
    gpt2(&["topk", "-m", "demo", "Once", "--html", "page.html"]).fails(2, &["--all"]);
}

/// A probability as shown on the pages.
fn percent(p: f64) -> String {
    match p {
        p if p >= 0.0995 => format!("{:.1}%", 100.0 * p),
        p => format!("{:.2}%", 100.0 * p),
    }
}

fn page(folder: &tempfile::TempDir, name: &str, command: &[&str]) -> (PathBuf, Value) {
    let path = folder.path().join(name);
    let json = written(command, "--html", &path);
    (path, json)
}

const TIP: &str = "document.getElementById('tip')";

#[test]
fn hovering_a_word_shows_its_score_and_what_was_expected() {
    let Some(mut browser) = Browser::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (path, json) = page(&folder, "score.html", &["score", "Once upon a time there was a banana", "--bos"]);
    let last = json["ids"].as_array().unwrap().len() - 1;
    for scheme in ["light", "dark"] {
        browser.open(&path, scheme);
        assert_eq!(browser.value(&format!("{TIP}.hidden")), true);
        for i in [1, last] {
            browser.hover(&format!("document.querySelectorAll('.flow span')[{i}]"));
            let tip = browser.text(TIP);
            let bits = -json["logprobs"][i].as_f64().unwrap() / std::f64::consts::LN_2;
            for words in [format!("{bits:.2} bits"), format!("rank {}", json["ranks"][i])] {
                assert!(tip.contains(&words), "{words} is not in {tip}");
            }
            assert_eq!(browser.value(&format!("{TIP}.querySelectorAll('.bar').length")), 8);
        }
        assert_eq!(
            browser.value(
                "getComputedStyle(document.querySelectorAll('.flow span')[1]).backgroundColor !== \
            getComputedStyle([...document.querySelectorAll('.flow span')].pop()).backgroundColor"
            ),
            true
        );
        assert_eq!(browser.problems(), Vec::<String>::new());
    }
}

#[test]
fn hovering_a_word_shows_what_comes_next() {
    let Some(mut browser) = Browser::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (path, json) = page(&folder, "topk.html", &["topk", "Once upon a time", "--all", "-k", "3"]);
    browser.open(&path, "light");
    browser.hover("document.querySelectorAll('.flow span')[2]");
    let tip = browser.text(TIP);
    assert!(tip.contains("after \" a\""), "{tip}");
    for candidate in json["positions"][2]["next"].as_array().unwrap() {
        let token = format!("{:?}", candidate["token"].as_str().unwrap());
        assert!(tip.contains(&token) && tip.contains(&percent(candidate["prob"].as_f64().unwrap())), "{tip}");
    }
    assert!(tip.contains("The text continues with \" time\""), "{tip}");
    browser.hover("document.querySelector('h1')");
    assert_eq!(browser.value(&format!("{TIP}.hidden")), true);
    assert_eq!(browser.problems(), Vec::<String>::new());
}

#[test]
fn the_trace_page_shows_any_head_and_follows_the_lens() {
    let Some(mut browser) = Browser::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let flags = ["trace", "Once upon a time there was a king", "--attention", "--lens", "--hidden"];
    let (path, json) = page(&folder, "trace.html", &flags);
    let n = json["ids"].as_array().unwrap().len();
    browser.open(&path, "dark");
    // The first head, then another by its thumbnail, then one by its number.
    let choices = ["", "document.querySelector('button[data-layer=\"3\"][data-head=\"1\"]')", "select"];
    for ((layer, head), choice) in [(0, 0), (3, 1), (5, 1)].into_iter().zip(choices) {
        match choice {
            "" => {}
            "select" => {
                browser.value("(() => { const s = document.getElementById('layer'); s.value = 5; s.dispatchEvent(new Event('change')); })()");
            }
            button => browser.click(button),
        }
        let record = json["attention"].as_array().unwrap().iter().find(|r| r["layer"] == layer && r["head"] == head);
        let weights = &record.unwrap()["weights"];
        // The map has a margin for the labels, then n cells per side.
        let side =
            browser.value("document.querySelector('#map canvas').getBoundingClientRect().width").as_f64().unwrap();
        let cell = 44.0;
        let margin = side - 4.0 - n as f64 * cell;
        for (query, key) in [(n - 1, n - 1), (5, 4), (3, 0)] {
            let at = |i: usize| (margin + (i as f64 + 0.5) * cell) / side;
            browser.hover_at("document.querySelector('#map canvas')", at(key), at(query));
            let (tip, weight) = (browser.text(TIP), weights[query][key].as_f64().unwrap());
            assert!(tip.contains(&format!("token {query} goes to token {key}")), "{tip}");
            let shown: f64 = tip.lines().last().unwrap().split('%').next().unwrap().parse().unwrap();
            assert!((shown - 100.0 * weight).abs() < 0.06, "layer {layer} head {head}: {tip}, {weight}");
        }
    }
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

#[test]
fn hostile_text_stays_text() {
    let Some(mut browser) = Browser::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    for (name, command) in commands() {
        let (path, _) = page(&folder, name, &command);
        browser.open(&path, "light");
        assert_eq!(browser.value("document.images.length"), 0, "{name}");
        assert_ne!(browser.value("document.title"), "hit", "{name}");
        assert_eq!(browser.text("document.querySelector('.flow')"), HOSTILE, "{name}");
        assert_eq!(browser.problems(), Vec::<String>::new(), "{name}");
    }
}

/// The pictures that `trace` can draw.
fn pictures() -> [(&'static str, Vec<&'static str>); 5] {
    let text = "Once upon a time there was a king who had an extraordinarily </svg> <beautiful> daughter & 🦊";
    [
        ("hidden.svg", vec!["trace", text, "--hidden"]),
        ("lens.svg", vec!["trace", text, "--lens"]),
        ("head.svg", vec!["trace", text, "--layer", "1", "--head", "0"]),
        ("layer.svg", vec!["trace", text, "--attention", "--layer", "1"]),
        ("heads.svg", vec!["trace", text, "--attention"]),
    ]
}

#[test]
fn pictures_have_title_key_and_tokens() {
    let folder = tempfile::tempdir().unwrap();
    for (name, command) in pictures() {
        let path = folder.path().join(name);
        written(&command, "--svg", &path);
        let picture = std::fs::read_to_string(&path).unwrap();
        let tags = svg::read(&picture).unwrap().filter(|event| matches!(event, svg::parser::Event::Tag(..))).count();
        assert!(tags > 20 && picture.contains("prefers-color-scheme: dark"), "{name}");
        for words in ["class=\"title ink\"", "url(#ramp)"] {
            assert!(picture.contains(words), "{words} is not in {name}");
        }
        if name != "heads.svg" {
            assert!(picture.contains("\" upon") && picture.contains("\" king"), "{name}");
        }
    }
}

/// Every text lies inside its picture and has enough contrast, on light and dark backgrounds.
#[test]
fn nothing_in_a_picture_is_cut_or_lost() {
    let Some(mut browser) = Browser::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let outside = "(() => { const v = document.documentElement.viewBox.baseVal, out = []; \
        for (const t of document.querySelectorAll('text')) { const b = t.getBBox(), o = document.documentElement.getScreenCTM(); \
        for (const [x, y] of [[b.x, b.y], [b.x + b.width, b.y + b.height]]) { \
        const p = new DOMPoint(x, y).matrixTransform(o.inverse().multiply(t.getScreenCTM())); \
        if (b.width && (p.x < 0 || p.y < 0 || p.x > v.width || p.y > v.height)) out.push(t.textContent); } } return out; })()";
    let contrast = "(() => { const rgb = (s) => s.match(/[\\d.]+/g).slice(0, 3).map(Number); \
        const light = (c) => { const [r, g, b] = c.map((x) => (x /= 255) <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; }; \
        const of = (s) => light(rgb(getComputedStyle(document.querySelector(s)).fill)); const ground = of('.ground'); \
        return Math.min(...['.ink', '.muted'].map((s) => { const l = of(s); return (Math.max(l, ground) + 0.05) / (Math.min(l, ground) + 0.05); })); })()";
    for (name, command) in pictures() {
        let path = folder.path().join(name);
        written(&command, "--svg", &path);
        for scheme in ["light", "dark"] {
            browser.open(&path, scheme);
            assert_eq!(browser.value(outside), serde_json::json!([]), "{name}");
            let begins = browser.value("document.querySelector('.title').getBBox().x").as_f64().unwrap();
            assert!((begins - 24.0).abs() < 3.0, "{name}: the title begins at {begins}, not at the margin");
            let contrast = browser.value(contrast).as_f64().unwrap();
            assert!(contrast >= 4.5, "{name} {scheme}: {contrast}");
            assert_eq!(browser.problems(), Vec::<String>::new(), "{name}");
        }
    }
}
