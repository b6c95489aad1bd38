//! The page at `/`, in a browser.

use serde_json::{Value, json};

use super::Server;
use crate::browser::Browser;
use crate::harness::{gpt2, requires};

/// Text that would break out of a page that inserted it as markup.
const HOSTILE: &str = "Once </script><img src=x onerror=document.title='hit'> upon \u{202e} <!-- a";

/// The text with its completion, what is said about it, what is wrong, and the panel with alternatives.
const WORDS: &str = "document.getElementById('words').textContent";
const STATE: &str = "document.getElementById('state').textContent";
const FAULT: &str = "document.getElementById('fault').textContent";
const PANEL: &str = "document.querySelector('.panel').innerText";
const TOKENS: &str = "document.querySelectorAll('#words [data-from]')";

/// Opens the page with this prompt and these settings, such as `&seed=1`; with `&run` it starts.
#[track_caller]
fn open(browser: &mut Browser, server: &Server, prompt: &str, settings: &str) {
    // From another page, since another fragment alone does not load it again.
    browser.visit("about:blank", "light");
    browser.visit(&format!("http://{}/#prompt={}{settings}", server.address, encoded(prompt)), "light");
}

/// A text in a fragment.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// Waits until the completion is finished, or something is wrong.
#[track_caller]
fn finish(browser: &mut Browser) {
    browser.wait_for(&format!("!document.querySelector('.running') && ({STATE} + {FAULT}) !== ''"));
}

#[track_caller]
fn string(browser: &mut Browser, expression: &str) -> String {
    browser.value(expression).as_str().expect("a text").to_owned()
}

/// The alternatives in the panel, as they are shown: names and probabilities.
#[track_caller]
fn alternatives(browser: &mut Browser) -> Vec<(String, String)> {
    let rows = "[...document.querySelectorAll('.panel .row')].map((row) => [row.firstChild, row.lastChild].map((e) => e.textContent))";
    serde_json::from_value(browser.value(rows)).expect("pairs")
}

/// The element of a token.
fn token(i: usize) -> String {
    format!("{TOKENS}[{i}]")
}

/// What the command line generates.
#[track_caller]
fn generated(prompt: &str, flags: &[&str]) -> String {
    let all = [&["generate", "-m", "demo", "--format", "json", prompt], flags].concat();
    gpt2(&all).succeeds().json()["sequences"][0]["text"].as_str().expect("a text").to_owned()
}

/// Whether it is this probability, to the digits that are shown.
fn is_percent(shown: &str, p: f64) -> bool {
    let shown: f64 = shown.trim_end_matches('%').parse().expect("a number");
    (shown - 100.0 * p).abs() <= if p >= 0.0995 { 0.051 } else { 0.0051 }
}

#[test]
fn a_completion_streams_in_with_its_alternatives() {
    let Some(mut browser) = Browser::start() else { return };
    let server = Server::demo();
    open(&mut browser, &server, "Once upon a", "&temperature=0&max_tokens=300");
    browser.wait_for("document.title === 'demo · gpt2'");
    assert_eq!(string(&mut browser, "document.querySelector('h1 + p').textContent"), "demo · sees 512 tokens");
    browser.click("document.querySelector('.main')");
    // While it runs, there is something to see.
    browser.wait_for(&format!("{TOKENS}.length > 3"));
    assert_eq!(string(&mut browser, STATE), "running…");
    finish(&mut browser);
    let expected = format!("Once upon a{}", generated("Once upon a", &["-n", "300"]));
    assert_eq!(string(&mut browser, WORDS), expected);
    assert!(string(&mut browser, STATE).starts_with("300 tokens in "), "{}", string(&mut browser, STATE));
    // Tokens are coloured by how likely they are.
    let colours = "new Set([...document.querySelectorAll('#words [data-from]')].map((s) => getComputedStyle(s).backgroundColor)).size";
    assert!(browser.value(colours).as_u64().unwrap() > 1);

    // The alternatives of a token, by pointer, by key and by tap.
    let prompt = format!("Once upon a{}", generated("Once upon a", &["-n", "2"]));
    let next = gpt2(&["topk", "-m", "demo", &prompt, "-k", "10", "--format", "json"]).succeeds().json();
    let next = next["positions"][0]["next"].as_array().unwrap().clone();
    let expected: Vec<(String, f64)> =
        next.iter().map(|c| (format!("{:?}", c["token"].as_str().unwrap()), c["prob"].as_f64().unwrap())).collect();
    let is_expected = |shown: Vec<(String, String)>| {
        let pairs = shown.iter().zip(&expected);
        shown.len() == 10 && pairs.into_iter().all(|((a, shown), (b, p))| a == b && is_percent(shown, *p))
    };
    for how in ["pointer", "key", "tap"] {
        browser.hover(&token(5));
        match how {
            "pointer" => browser.hover(&token(2)),
            "key" => {
                browser.value(&format!("{}.focus()", token(1)));
                browser.press("ArrowRight");
            }
            _ => browser.click(&token(2)),
        }
        let shown = alternatives(&mut browser);
        assert!(is_expected(shown.clone()), "{how}: {shown:?} and not {expected:?}");
        assert!(string(&mut browser, PANEL).contains("likely · rank 1 · token 3"), "{how}");
    }
    // What was tapped comes back when the pointer leaves.
    browser.hover(&token(6));
    assert!(!is_expected(alternatives(&mut browser)));
    browser.hover("document.querySelector('h1')");
    assert!(is_expected(alternatives(&mut browser)));
    assert_eq!(browser.problems(), Vec::<String>::new());
}

#[test]
fn an_alternative_goes_on_from_there() {
    let Some(mut browser) = Browser::start() else { return };
    let server = Server::demo();
    open(&mut browser, &server, "Once upon a", "&temperature=0&max_tokens=8&run");
    finish(&mut browser);
    browser.click(&token(1));
    let (other, _) = alternatives(&mut browser)[1].clone();
    let other: String = serde_json::from_str(&other).unwrap();
    browser.click("document.querySelectorAll('.panel button.row')[1]");
    finish(&mut browser);
    let kept = format!("Once upon a{}{other}", generated("Once upon a", &["-n", "1"]));
    let text = format!("{kept}{}", generated(&kept, &["-n", "8"]));
    assert_eq!(string(&mut browser, WORDS), text);
    assert!(string(&mut browser, PANEL).contains("rank 2 · token 2 · your choice"));
    assert_eq!(browser.value(&format!("document.activeElement === {}", token(1))), true);
    browser.click("document.getElementById('more')");
    finish(&mut browser);
    assert_eq!(string(&mut browser, WORDS), format!("{text}{}", generated(&text, &["-n", "8"])));
    // The empty prompt is the start of a text, also when it goes on.
    open(&mut browser, &server, "", "&temperature=0&max_tokens=4&run");
    finish(&mut browser);
    browser.click("document.getElementById('more')");
    browser.wait_for(&format!("{TOKENS}.length === 8"));
    let text = generated("<|endoftext|>", &["-n", "8"]);
    assert_eq!(string(&mut browser, WORDS), text);
    assert_eq!(browser.problems(), Vec::<String>::new());
}

/// The numbers are those after the settings, by the softmax of the model's logits.
#[test]
fn the_sliders_decide() {
    let Some(mut browser) = Browser::start() else { return };
    let server = Server::demo();
    let next = gpt2(&["topk", "-m", "demo", "Once upon a", "-k", "10", "--format", "json"]).succeeds().json();
    let next = next["positions"][0]["next"].as_array().unwrap().clone();
    let logit = |i: usize| next[i]["logit"].as_f64().unwrap();
    for (temperature, top_k) in [("0.5", 3), ("1.5", 5)] {
        let t: f64 = temperature.parse().unwrap();
        let weights: Vec<f64> = (0..top_k).map(|i| ((logit(i) - logit(0)) / t).exp()).collect();
        let sum: f64 = weights.iter().sum();
        open(&mut browser, &server, "Once upon a", "&max_tokens=3&seed=7");
        for (id, value) in [("temperature", temperature.to_owned()), ("top_k", top_k.to_string())] {
            browser.value(&format!(
                "(() => {{ const input = document.getElementById('{id}'); input.value = '{value}'; \
                 for (const kind of ['input', 'change']) input.dispatchEvent(new Event(kind, {{bubbles: true}})); }})()"
            ));
        }
        let shown =
            "['temperature', 'top_k'].map((id) => document.querySelector(`output[for=${id}]`).textContent).join(' ')";
        assert_eq!(string(&mut browser, shown), format!("{t:.2} {top_k}"));
        browser.click("document.querySelector('.main')");
        finish(&mut browser);
        browser.hover(&token(0));
        let shown = alternatives(&mut browser);
        assert_eq!(shown.len(), top_k);
        for ((_, shown), weight) in shown.iter().zip(&weights) {
            assert!(is_percent(shown, weight / sum), "{shown} and not {}", weight / sum);
        }
        assert!(string(&mut browser, PANEL).contains("all others together: none"));
        let flags = ["-n", "3", "--seed", "7", "--temperature", temperature, "--top-k", &top_k.to_string()];
        assert_eq!(string(&mut browser, WORDS), format!("Once upon a{}", generated("Once upon a", &flags)));
    }
    assert_eq!(browser.problems(), Vec::<String>::new());
}

#[test]
fn stop_frees_the_row() {
    let Some(mut browser) = Browser::start() else { return };
    let server = Server::demo();
    let presses = [
        ("button", "document.getElementById('stop').click()"),
        (
            "key",
            "document.getElementById('prompt').dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', bubbles: true }))",
        ),
    ];
    for (how, press) in presses {
        open(&mut browser, &server, "Once upon a", "&temperature=0&max_tokens=500");
        browser.wait_for("document.getElementById('words') !== null");
        // In the page, since all 500 tokens may be there before this process has seen the first.
        browser.value(&format!(
            "void new MutationObserver((_, observer) => {{ if ({TOKENS}.length > 3) {{ observer.disconnect(); {press}; }} }})
                .observe(document.getElementById('words'), {{ childList: true, subtree: true }})"
        ));
        browser.click("document.querySelector('button[type=submit].main')");
        finish(&mut browser);
        server.wait_for("gpt2_prompts_running", |prompts| prompts == 0.0);
        let state = string(&mut browser, STATE);
        assert!(state.contains(" tokens/s · stopped"), "{how}: {state}");
        let text = string(&mut browser, WORDS);
        assert!(format!("Once upon a{}", generated("Once upon a", &["-n", "500"])).starts_with(&text));
        assert_eq!(browser.value("document.getElementById('stop').disabled"), true);
    }
    server.wait_for("gpt2_clients_gone_total", |clients| clients == 2.0);
    assert_eq!(browser.problems(), Vec::<String>::new());
}

#[test]
fn what_goes_wrong_is_one_line() {
    let Some(mut browser) = Browser::start() else { return };
    let mut server = Server::demo();
    let long = "a ".repeat(600);
    open(&mut browser, &server, &long, "&run");
    finish(&mut browser);
    let message = server.post("/v1/completions", &json!({"prompt": long})).error();
    assert_eq!(string(&mut browser, FAULT), message);
    // The next one that goes well removes it.
    browser.value("document.getElementById('prompt').value = 'Once'");
    browser.click("document.querySelector('.main')");
    browser.wait_for(&format!("{STATE}.includes('tokens/s') && {FAULT} === ''"));
    server.process.kill().unwrap();
    server.process.wait().unwrap();
    browser.click("document.querySelector('.main')");
    browser.wait_for(&format!("{FAULT} === 'the server does not answer'"));
    assert_eq!(string(&mut browser, STATE), "");
}

#[test]
fn a_key_is_asked_for_and_goes_nowhere_else() {
    let Some(mut browser) = Browser::start() else { return };
    let server = Server::start_with(&["-m", "demo"], &[("GPT2_API_KEY", "geheim-é")]);
    open(&mut browser, &server, "Once upon a", "&temperature=0&max_tokens=5&run");
    let asks = "getComputedStyle(document.getElementById('key').form).display !== 'none'";
    browser.wait_for(asks);
    assert_eq!(string(&mut browser, FAULT), "", "nothing is wrong yet");
    let give = |key: &str| {
        format!("document.getElementById('key').value = '{key}'; document.getElementById('key').form.requestSubmit()")
    };
    browser.value(&give("wrong"));
    browser.wait_for(&format!("{FAULT}.includes('the key is missing or wrong')"));
    browser.wait_for(asks);
    browser.value(&give("geheim-é"));
    browser.wait_for(&format!("{STATE}.includes('tokens/s')"));
    assert_eq!(string(&mut browser, FAULT), "");
    assert_eq!(browser.value(asks), false);
    assert_eq!(string(&mut browser, WORDS), format!("Once upon a{}", generated("Once upon a", &["-n", "5"])));
    let shown = string(&mut browser, "location.href + document.querySelector('pre').textContent");
    assert!(!shown.contains("geheim") && shown.contains("Bearer $GPT2_API_KEY"), "{shown}");
    assert_eq!(browser.value("localStorage.length + sessionStorage.length + document.cookie.length"), 0);
}

#[test]
fn others_text_stays_text() {
    let Some(mut browser) = Browser::start() else { return };
    let server = Server::demo();
    open(&mut browser, &server, HOSTILE, "&temperature=<b>&seed=\"><img src=x>&max_tokens=3&run");
    finish(&mut browser);
    assert!(string(&mut browser, WORDS).starts_with(&HOSTILE.replace('\u{202e}', r"\u{202e}")));
    // What a server says, too.
    answers(&mut browser, &["<img src=x onerror=document.title='hit'>", "__proto__", "\u{202e}", "</script>"]);
    let text = string(&mut browser, WORDS);
    assert!(text.ends_with(r"<img src=x onerror=document.title='hit'>__proto__\u{202e}</script>"), "{text}");
    browser.hover(&token(1));
    assert!(alternatives(&mut browser).iter().any(|(name, _)| name == "\"__proto__\""));
    browser.hover(&token(2));
    assert!(string(&mut browser, PANEL).starts_with(r#"in place of "\u{202e}""#));
    assert_eq!(browser.value("document.images.length"), 0);
    assert_ne!(string(&mut browser, "document.title"), "hit");
    assert_eq!(browser.problems(), Vec::<String>::new());
}

/// Completes with an answer of these tokens.
#[track_caller]
fn answers(browser: &mut Browser, tokens: &[&str]) {
    let part = |token: &&str| {
        let top: Value = [token, "bytes:\\xf0", "7"].iter().map(|token| ((*token).to_owned(), json!(-1.0))).collect();
        let logprobs = json!({
            "tokens": [token], "token_logprobs": [-1.0], "top_logprobs": [top], "text_offset": [0]
        });
        let choice = json!({"index": 0, "text": "", "logprobs": logprobs, "finish_reason": null});
        format!("data: {}\n\n", json!({"choices": [choice]}))
    };
    let body: String = tokens.iter().map(part).chain(["data: [DONE]\n\n".to_owned()]).collect();
    browser.value(&format!("window.fetch = async () => new Response({})", json!(body)));
    browser.value("document.getElementById('state').textContent = ''");
    browser.click("document.querySelector('.main')");
    finish(browser);
}

#[test]
fn a_split_character_is_shown_whole() {
    let Some(mut browser) = Browser::start() else { return };
    let server = Server::demo();
    open(&mut browser, &server, "a", "");
    browser.wait_for("document.title === 'demo · gpt2'");
    // A fox in three tokens; a byte that nothing follows; an end of one character with the beginning of the next; one at
    // the end that is not finished.
    answers(
        &mut browser,
        &[
            r"bytes:\xf0\x9f",
            r"bytes:\xa6",
            r"bytes:\x8a",
            "b",
            r"bytes:\xf0",
            "c",
            r"bytes:\xff",
            r"bytes: \xe2",
            r"bytes:\x82\xac\xe2",
            r"bytes:\x82\xac",
            "\n",
            r"bytes:\xc3",
        ],
    );
    let spans = format!("[...{TOKENS}].map((s) => [s.textContent, Number(s.dataset.from), Number(s.dataset.to)])");
    let expected = json!([
        ["🦊", 0, 3],
        ["b", 3, 4],
        ["\u{fffd}", 4, 5],
        ["c", 5, 6],
        ["\u{fffd}", 6, 7],
        [" €€", 7, 10],
        ["\n", 10, 11],
        ["\u{fffd}", 11, 12]
    ]);
    assert_eq!(browser.value(&spans), expected);
    browser.hover(&token(0));
    let panel = string(&mut browser, PANEL);
    for words in [r#"in place of "🦊" 1/3"#, r#"in place of "🦊" 3/3"#, r#""\xf0\x9f""#, "token 2"] {
        assert!(panel.contains(words), "{words} is not in {panel}");
    }
    // A text cannot go on after half a character, nor after bytes that are none.
    let buttons = "[...document.querySelectorAll('.panel button.row')].map((row) => row.firstChild.textContent)";
    assert_eq!(browser.value(buttons), json!(["\"7\"", "\"\\x8a\""]));
    assert_eq!(browser.value("document.getElementById('more').disabled"), true);
    assert_eq!(browser.problems(), Vec::<String>::new());
}

/// The command and the link give the same completion again.
#[test]
fn the_command_and_the_link_repeat_it() {
    let Some(mut browser) = Browser::start() else { return };
    let server = Server::demo();
    let prompt = "Don't \"say\"\n$HOME `x` 🦊\u{202e}";
    open(&mut browser, &server, prompt, "&temperature=1.3&max_tokens=12&repetition_penalty=1.2&run");
    finish(&mut browser);
    let text = string(&mut browser, WORDS);
    browser.value("navigator.clipboard.writeText = async (text) => { window.copied = text; }");
    browser.click("[...document.querySelectorAll('button')].find((b) => b.textContent === 'Copy link')");
    let link = string(&mut browser, "window.copied");
    let command = string(&mut browser, "document.querySelector('pre').textContent");
    assert!(!command.contains('\u{202e}'));
    browser.visit("about:blank", "dark");
    browser.visit(&link, "dark");
    finish(&mut browser);
    assert_eq!(string(&mut browser, WORDS), text);
    assert_eq!(browser.problems(), Vec::<String>::new());
    let curl = std::process::Command::new("curl").arg("--version").output().ok();
    if requires("curl", curl).is_none() {
        return;
    }
    let output = std::process::Command::new("sh").args(["-c", &command]).output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).expect("an answer");
    let shown = prompt.replace('\u{202e}', r"\u{202e}");
    let whole = format!("{shown}{}", answer["choices"][0]["text"].as_str().unwrap());
    // The page shows the token that ends a text, too.
    assert_eq!(whole, text.trim_end_matches("<|endoftext|>"));
}

#[test]
fn it_fits_on_any_screen() {
    let Some(mut browser) = Browser::start() else { return };
    let server = Server::demo();
    for (width, height) in [(360, 640), (1200, 900), (3840, 2160)] {
        browser.resize(width, height);
        open(&mut browser, &server, &"extraordinarily".repeat(30), "&max_tokens=30&seed=1&run");
        finish(&mut browser);
        browser.click("document.querySelector('summary')");
        let wide = browser.value("document.documentElement.scrollWidth").as_f64().unwrap();
        assert!(wide <= f64::from(width), "{wide} of {width} pixels");
        // By key alone: the prompt, and what runs it.
        let enter = "new KeyboardEvent('keydown', {key: 'Enter', ctrlKey: true, bubbles: true})";
        let press = format!("document.getElementById('prompt').dispatchEvent({enter}), {STATE}");
        assert_eq!(string(&mut browser, &press), "running…");
        finish(&mut browser);
        assert_eq!(browser.problems(), Vec::<String>::new());
    }
}

#[test]
fn it_is_small_and_asks_nobody_else() {
    let server = Server::demo();
    let page = server.get("/").body;
    assert!(page.len() < 30 << 10, "{} bytes", page.len());
    for outside in ["http://", "https://", "src=\"", "@import", "url("] {
        assert!(!page.contains(outside), "it holds {outside}");
    }
    assert!(page.contains("connect-src 'self'"));
}
