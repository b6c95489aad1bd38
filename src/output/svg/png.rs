//! Pictures as pixels, with a font of our own, so that they look the same on every machine.

use std::sync::Arc;

use anyhow::{Context, Result};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::fontdb::{Database, Source};
use resvg::usvg::{FontResolver, Options, Tree};

/// A part of DejaVu Sans Mono; see the README beside it.
const FONT: &[u8] = include_bytes!("../../../assets/fonts/DejaVuSansMono.ttf");

/// Pixels for each unit of length of the picture: sharp on a slide.
const SCALE: f32 = 2.0;

/// A picture of more pixels is drawn at a smaller scale.
const MOST_PIXELS: f32 = 60e6;

/// The PNG file of an SVG document.
pub fn rendered(svg: &str) -> Result<Vec<u8>> {
    let mut fonts = Database::new();
    let font = fonts.load_font_source(Source::Binary(Arc::new(FONT))).first().copied();
    let resolver = FontResolver {
        select_font: Box::new(move |_, _| font),
        // A character that our font lacks: now the machine's fonts are worth their time.
        select_fallback: Box::new(|character, used, fonts| {
            if fonts.len() == 1 {
                Arc::make_mut(fonts).load_system_fonts();
            }
            FontResolver::default_fallback_selector()(character, used, fonts)
        }),
    };
    let options = Options { font_resolver: resolver, fontdb: Arc::new(fonts), ..Options::default() };
    let tree = Tree::from_str(svg, &options).context("the picture is no valid SVG")?;
    let size = tree.size();
    let scale = SCALE.min((MOST_PIXELS / (size.width() * size.height())).sqrt());
    let pixels = |length: f32| (length * scale).ceil() as u32;
    let mut picture =
        Pixmap::new(pixels(size.width()), pixels(size.height())).context("the picture is too large for PNG")?;
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut picture.as_mut());
    picture.encode_png().context("cannot encode the picture as PNG")
}
