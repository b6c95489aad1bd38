//! Pages: the content of the files and, if there is a Chromium, what a reader sees and gets under the pointer.

mod trace;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::browser::Browser;
use crate::harness::gpt2;

/// Text that would break out of a page that inserted it as markup.
const HOSTILE: &str = "Once </script><img src=x onerror=document.title='hit'> upon <!-- a 🦊 time & \"so\"";

/// Runs the binary, writing a page or a picture, and returns its JSON.
pub fn written(subcommand: &[&str], flag: &str, file: &Path) -> Value {
    let file = file.display().to_string();
    gpt2(&[subcommand, &["-m", "demo", flag, &file, "--format", "json"]].concat()).succeeds().json()
}

/// The data in a page.
fn data(page: &Path) -> Value {
    let page = std::fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once(r#"id="data">"#).expect("data in the page");
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

fn ids_of(tokens: &Value) -> Vec<Value> {
    tokens.as_array().unwrap().iter().map(|token| token["id"].clone()).collect()
}

fn commands() -> [(&'static str, Vec<&'static str>); 5] {
    [
        ("tokenize.html", vec!["tokenize", HOSTILE]),
        ("generate.html", vec!["generate", HOSTILE, "-n", "4", "--top-k", "20", "--seed", "1"]),
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
        let (text, ids) = match name {
            "tokenize.html" => (&data["text"], ids_of(&json["tokens"])),
            "generate.html" => {
                let ids =
                    [&json["prompt_ids"], &json["sequences"][0]["ids"]].map(|ids| ids.as_array().unwrap().clone());
                (&data["sequences"][0]["text"], ids.concat())
            }
            _ => (&data["text"], json.get("ids").or(json.get("prompt_ids")).unwrap().as_array().unwrap().clone()),
        };
        assert_eq!(text["ids"], Value::from(ids), "{name}");
        let text: String = text["spans"].as_array().unwrap().iter().map(|s| s[0].as_str().unwrap()).collect();
        let generated = json["sequences"][0]["text"].as_str().unwrap_or_default();
        assert_eq!(text, format!("{HOSTILE}{generated}"), "{name}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), commands().len(), "only the pages are left");
}

#[test]
fn a_page_that_cannot_be_written_is_an_error() {
    for (_, command) in commands() {
        gpt2(&[&command[..], &["-m", "demo", "--html", "/nonexistent/page.html"]].concat())
            .fails(1, &["/nonexistent/page.html"]);
    }
    gpt2(&["topk", "-m", "demo", "Once", "--html", "page.html"]).fails(2, &["--all"]);
    gpt2(&["generate", "-m", "demo", "Once", "--html", "page.html", "--on-context-limit", "crop"])
        .fails(2, &["--html", "--on-context-limit"]);
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

/// What `topk` says of every token of the vocabulary, as logits.
fn logits(prompt: &str) -> Vec<(u64, f64)> {
    let json = gpt2(&["topk", "-m", "demo", prompt, "-k", "50257", "--format", "json"]).succeeds().json();
    let next = json["positions"][0]["next"].as_array().unwrap().clone();
    next.iter().map(|c| (c["id"].as_u64().unwrap(), c["logit"].as_f64().unwrap())).collect()
}

#[test]
fn the_sliders_show_the_softmax_at_any_temperature_and_top_k() {
    let Some(mut browser) = Browser::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let command = ["generate", "Once upon a", "-n", "5", "--temperature", "0.8", "--top-k", "30", "--seed", "3"];
    let (path, json) = page(&folder, "generate.html", &command);
    browser.open(&path, "light");
    let at =
        "['temperature', 'top-k'].map((id) => document.querySelector(`output[for=\"${id}\"]`).textContent).join(' ')";
    assert_eq!(browser.value(at), "0.8 30", "the page opens with the settings of the run");
    let logits = logits("Once upon a");
    for (temperature, k) in [(0.5, 0), (1.0, 0), (1.7, 0), (1.0, 5), (0.8, 100)] {
        browser.value(&format!(
            "for (const [id, value] of [['temperature', {}], ['top-k', {k}]]) {{ const input = document.getElementById(id); \
             input.value = value; input.dispatchEvent(new Event('input')); }}",
            (temperature * 10.0_f64).round() - 1.0
        ));
        let weight = |logit: f64| ((logit - logits[0].1) / temperature).exp();
        let kept = if k == 0 { logits.len() } else { k };
        let sum: f64 = logits[..kept].iter().map(|(_, logit)| weight(*logit)).sum();
        let shown = browser
            .value("[...document.querySelectorAll('.panel .number')].map((node) => parseFloat(node.textContent))");
        let shown: Vec<f64> = serde_json::from_value(shown).unwrap();
        assert!(shown.len() >= 25.min(kept), "{shown:?}");
        for ((_, logit), shown) in logits.iter().zip(&shown).take(25.min(kept)) {
            let exact = 100.0 * weight(*logit) / sum;
            assert!(
                (shown - exact).abs() < 0.051_f64.min(0.06 * exact),
                "{temperature} {k}: {shown}% and not {exact}%"
            );
        }
    }
    // The next word, with the keyboard.
    browser.value("document.querySelector('.flow span.on').focus()");
    browser.press("ArrowRight");
    let second = &json["sequences"][0]["ids"][1];
    let name = browser.value(&format!("text.names[{second}]"));
    assert!(browser.text("document.querySelector('.panel h2')").ends_with(name.as_str().unwrap()));
    assert_eq!(browser.problems(), Vec::<String>::new());
}

#[test]
fn the_tokens_of_a_text_differ_from_their_neighbours() {
    let Some(mut browser) = Browser::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (path, json) = page(&folder, "tokenize.html", &["tokenize", "a 🦊 naïve\nfox, twice twice twice"]);
    for scheme in ["light", "dark"] {
        browser.open(&path, scheme);
        let colours = browser
            .value("[...document.querySelectorAll('.flow span')].map((s) => getComputedStyle(s).backgroundColor)");
        let colours: Vec<String> = serde_json::from_value(colours).unwrap();
        assert!(colours.len() > 8 && colours.windows(2).all(|pair| pair[0] != pair[1]), "{colours:?}");
    }
    assert_eq!(browser.text("document.querySelector('.card b')"), json["count"].to_string());
    browser.hover("document.querySelector('.flow span')");
    let tip = browser.text(TIP);
    assert!(tip.contains(&format!("id {}", json["tokens"][0]["id"])) && tip.contains("bytes 0 to 0"), "{tip}");
    browser.click("document.getElementById('as-ids')");
    let ids: Vec<String> = ids_of(&json["tokens"]).iter().map(Value::to_string).collect();
    assert_eq!(browser.text("document.querySelector('.ids')"), ids.join(" "));
    assert_eq!(browser.problems(), Vec::<String>::new());
}

#[test]
fn the_chart_of_a_score_names_its_tokens() {
    let Some(mut browser) = Browser::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = page(&folder, "score.html", &["score", "Once upon a time there was a banana", "--bos"]);
    browser.open(&path, "light");
    let drawn = browser.drawn("document.querySelector('canvas')");
    for token in ["\"Once\"", "\" upon\"", "\" time\"", "\" banana\""] {
        assert!(drawn.iter().any(|label| label == token), "{token} is not in {drawn:?}");
    }
}

#[test]
fn no_page_scrolls_sideways_on_a_phone() {
    let Some(mut browser) = Browser::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let model = crate::harness::tiny("base").display().to_string();
    let long = "Once upon a time there was a king who had an extraordinarily beautiful daughter. ".repeat(6);
    browser.resize(360, 740);
    for (name, command) in commands() {
        let command: Vec<&str> = command.into_iter().map(|part| if part == HOSTILE { &*long } else { part }).collect();
        let (path, _) = page(&folder, name, &command);
        browser.open(&path, "dark");
        let width = browser.value("document.documentElement.scrollWidth").as_f64().unwrap();
        assert!(width <= 360.0, "{name} is {width} pixels wide");
        assert_eq!(browser.problems(), Vec::<String>::new(), "{name}");
    }
    // Ids have no text without a tokenizer.
    let path = folder.path().join("ids.html");
    gpt2(&["trace", "-m", &model, "--ids", "1 2 3 4 5", "--html", &path.display().to_string()]).succeeds();
    browser.open(&path, "light");
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
        assert!(browser.text("document.querySelector('.flow')").starts_with(HOSTILE), "{name}");
        assert_eq!(browser.problems(), Vec::<String>::new(), "{name}");
    }
}
