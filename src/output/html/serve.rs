//! The page of `gpt2 serve`: a prompt, and its completion token by token.

use std::sync::LazyLock;

use super::View;

const VIEW: View = View {
    style: include_str!("serve.css"),
    connections: "'self'",
    ..View::new("gpt2 serve", include_str!("serve.js"))
};

/// The page, the same for all models: it asks its server for everything.
pub fn page() -> &'static str {
    static PAGE: LazyLock<String> = LazyLock::new(|| VIEW.page("null"));
    &PAGE
}
