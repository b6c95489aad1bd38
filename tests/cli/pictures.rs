//! Pictures: the content of the files and, if there is a Chromium, whether everything in them can be seen.

use crate::browser::Browser;
use crate::harness::gpt2;
use crate::html::written;

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
        assert!(tags > 20 && !picture.contains("prefers-color-scheme"), "{name}: it is for light slides");
        for words in ["class=\"title ink\"", "url(#ramp)"] {
            assert!(picture.contains(words), "{words} is not in {name}");
        }
        // Of narrow columns, only some have a label.
        assert!(picture.contains("\" upon") || name == "heads.svg", "{name}");
        // A column's label stands upright.
        let has_upright = ["head.svg", "layer.svg", "heads.svg"].contains(&name);
        assert!(!has_upright || picture.contains("rotate(-90)"), "{name}");
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
        written(&[&command[..], &["--theme", "auto"]].concat(), "--svg", &path);
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

#[test]
fn a_theme_sets_the_colours_of_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("picture.svg");
    for (theme, ground, follows) in [("light", "#ffffff", false), ("dark", "#14171b", false), ("auto", "#ffffff", true)]
    {
        written(&["trace", "Once upon", "--lens", "--theme", theme], "--svg", &path);
        let picture = std::fs::read_to_string(&path).unwrap();
        assert!(picture.contains(&format!(".ground {{ fill: {ground}; }}")), "{theme}");
        assert_eq!(picture.contains("prefers-color-scheme: dark"), follows, "{theme}");
    }
    gpt2(&["trace", "-m", "demo", "Once", "--theme", "dark"]).fails(2, &["--svg"]);
}

#[test]
fn a_picture_can_be_png() {
    let folder = tempfile::tempdir().unwrap();
    for (name, command) in pictures() {
        let (svg, png) = (folder.path().join(name), folder.path().join(name).with_extension("PNG"));
        written(&command, "--svg", &svg);
        written(&command, "--svg", &png);
        let svg = std::fs::read_to_string(&svg).unwrap();
        let svg = roxmltree::Document::parse(&svg).unwrap();
        let bytes = std::fs::read(&png).unwrap();
        assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"), "{name}");
        // The header's width and height: two pixels for each unit.
        for (attribute, at) in [("width", 16), ("height", 20)] {
            let pixels = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
            let units: f64 = svg.root_element().attribute(attribute).unwrap().parse().unwrap();
            assert_eq!(pixels, (2.0 * units).ceil() as u32, "{name} {attribute}");
        }
        let light = bytes;
        written(&[&command[..], &["--theme", "dark"]].concat(), "--svg", &png);
        assert_ne!(light, std::fs::read(&png).unwrap(), "{name}");
    }
    let png = folder.path().join("auto.png").display().to_string();
    gpt2(&["trace", "-m", "demo", "Once", "--svg", &png, "--theme", "auto"]).fails(2, &["--theme auto", "PNG"]);
}
