//! What a constraint says.

use serde_json::Value;

/// What the text of a completion has to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// A text that matches this regular expression as a whole.
    Regex(String),
    /// One of these texts.
    Choices(Vec<String>),
    /// JSON of this schema.
    JsonSchema(Value),
    /// A text that this grammar, written as in Lark, derives from `start`.
    Grammar(String),
}

impl Source {
    /// The parameter that gives it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Regex(_) => "regex",
            Self::Choices(_) => "choices",
            Self::JsonSchema(_) => "json_schema",
            Self::Grammar(_) => "grammar",
        }
    }
}
