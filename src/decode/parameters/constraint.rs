//! The parameters that say what the text has to be.

use serde_json::Value;

use super::field::{Fault, Field, Takes};
use super::{GenerationConfig, Parameter, Range};
use crate::decode::constraint::{Source, Vocabulary};
use crate::error::{Error, Result};
use crate::json;

/// All of them; a text can have one.
pub(super) const CONSTRAINTS: [&str; 4] = ["regex", "choices", "json_schema", "grammar"];

/// A JSON schema.
impl Field for Option<Value> {
    fn takes(&self) -> Takes {
        Takes::One
    }

    fn read(&mut self, text: &str) -> Result<(), Fault> {
        *self = Some(json::parse(text.as_bytes())?);
        Ok(())
    }

    /// The schema, or its text.
    fn read_json(&mut self, value: &Value) -> Result<(), Fault> {
        match value {
            Value::String(text) => self.read(text)?,
            schema => *self = Some(schema.clone()),
        }
        Ok(())
    }

    fn check(&self, _: &Range) -> Result<(), Fault> {
        match self {
            Some(schema) if !schema.is_object() && !schema.is_boolean() => {
                Err(format!("is {}, and a schema is an object or a boolean", json::shown(schema)))
            }
            _ => Ok(()),
        }
    }

    fn shown(&self) -> Option<String> {
        None
    }

    fn json(&self) -> Value {
        self.clone().unwrap_or_default()
    }
}

impl GenerationConfig {
    /// Whether they say what the text has to be.
    #[must_use]
    pub fn is_constrained(&self) -> bool {
        self.regex.is_some() || !self.choices.is_empty() || self.json_schema.is_some() || self.grammar.is_some()
    }

    /// What the text has to be, if it is said.
    ///
    /// # Errors
    /// [`Error::Parameter`] if it is said twice, or empty.
    pub(in crate::decode) fn constraint_source(&self) -> Result<Option<Source>> {
        let is_set = |name: &&&str| Parameter::named(name).is_some_and(|it| it.json(self) != it.json(&Self::default()));
        let mut given = CONSTRAINTS.iter().filter(is_set);
        if let (Some(one), Some(other)) = (given.next(), given.next()) {
            return Err(Error::parameter(other, format!("cannot be combined with `{one}`: leave one of them out")));
        }
        // White space is an expression, and no grammar.
        let grammar = self.grammar.as_deref().map(str::trim);
        for (name, text) in [("regex", self.regex.as_deref()), ("grammar", grammar)] {
            if text == Some("") {
                return Err(Error::parameter(name, "is empty"));
            }
        }
        let choices = Some(&self.choices).filter(|choices| !choices.is_empty());
        Ok((self.regex.clone().map(Source::Regex))
            .or_else(|| choices.cloned().map(Source::Choices))
            .or_else(|| self.json_schema.clone().map(Source::JsonSchema))
            .or_else(|| self.grammar.clone().map(Source::Grammar)))
    }

    /// Compiles the constraint, if there is one, for the vocabulary that `vocabulary` gives; without one there is no
    /// tokenizer. One that is compiled already is not compiled again.
    ///
    /// # Errors
    /// [`Error::Parameter`] if it is malformed, too complex, or needs a tokenizer when there is none.
    pub fn compile<'v>(&mut self, vocabulary: impl FnOnce() -> Option<Result<&'v Vocabulary>>) -> Result<()> {
        let source = self.constraint_source()?;
        if source.as_ref() == self.constraint.as_ref().map(|constraint| constraint.source()) {
            return Ok(());
        }
        self.constraint = match source {
            None => None,
            Some(source) => {
                let none = || Error::parameter(source.name(), "needs a tokenizer, and the model has none");
                Some(vocabulary().ok_or_else(none)??.compile(&source)?)
            }
        };
        Ok(())
    }

    pub(super) fn reset_constraints(&mut self) {
        CONSTRAINTS.iter().filter_map(|name| Parameter::named(name)).for_each(|parameter| parameter.reset(self));
    }
}
