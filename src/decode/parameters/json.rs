//! Configurations from JSON, and the parameters that a configuration changes.

use serde_json::{Map, Value};

use super::constraint::CONSTRAINTS;
use super::{GenerationConfig, Meaning, PARAMETERS, Parameter, parameter_meaning, transformers};
use crate::error::{Error, Result};
use crate::json;

impl GenerationConfig {
    /// This configuration, overridden by the values of a JSON object. Keys are our names or transformers'. A value that is
    /// null is not set.
    ///
    /// # Errors
    /// [`Error::Usage`] for a key that is not a parameter, [`Error::Parameter`] for a value of the wrong type.
    pub fn with_json(&self, values: &Map<String, Value>) -> Result<Self> {
        let mut config = self.clone();
        let mut given = vec![];
        let mut do_sample = None;
        if CONSTRAINTS.iter().any(|name| values.get(*name).is_some_and(|value| !value.is_null())) {
            config.reset_constraints();
        }
        let wrong = |name, fault| Error::parameter(name, format!("is {fault}"));
        for (key, value) in values {
            match parameter_meaning(key) {
                Some(Meaning::Parameter(parameter)) => given.push((parameter, value)),
                Some(Meaning::DoSample) => do_sample = Some(transformers::boolean("do_sample", value)?),
                Some(Meaning::EndOfText) => {
                    let ends = transformers::ends(value).map_err(|fault| wrong("eos_token_id", fault))?;
                    config.eos_token_id = ends.unwrap_or(config.eos_token_id);
                }
                Some(Meaning::Missing) if value.is_null() => {}
                _ => return Err(Error::Usage(format!("`{key}` is not a decoding parameter"))),
            }
        }
        config.make_way(|name| given.iter().any(|(parameter, value)| parameter.name == name && !value.is_null()));
        // In the order of the table, whatever the order of the keys: some parameters prevail over earlier ones.
        given.sort_by_key(|(parameter, _)| PARAMETERS.iter().position(|other| other.name == parameter.name));
        for (parameter, value) in &given {
            let read = parameter.read_json(value, &mut config);
            read.map_err(|fault| wrong(parameter.name, format!("{}, {fault}", json::shown(value))))?;
        }
        let samples = |(parameter, value): &&(&Parameter, &Value)| parameter.samples() && !value.is_null();
        if given.iter().any(|(parameter, value)| parameter.name == "sample" && **value == Value::Bool(false)) {
            if let Some((parameter, _)) = given.iter().find(samples) {
                return Err(Error::parameter("sample", format!("is false, and `{}` samples", parameter.name)));
            }
            config.set_greedy();
        }
        match do_sample.flatten() {
            Some(true) => config.sample = true,
            Some(false) => {
                if let Some((parameter, _)) = given.iter().find(samples) {
                    return Err(Error::parameter("do_sample", format!("is false, and `{}` samples", parameter.name)));
                }
                config.set_greedy();
            }
            None => {}
        }
        Ok(config)
    }

    /// Resets what the parameters that are `given` replace: the other way to say the same, unless that is given too.
    fn make_way(&mut self, given: impl Fn(&str) -> bool) {
        if given("min_length") {
            self.min_new_tokens = 0;
        }
        if given("negative_prompt") != given("negative_prompt_ids") {
            (self.negative_prompt, self.negative_prompt_ids) = (None, None);
        }
    }

    /// The parameters that are not at their defaults, by name.
    #[must_use]
    pub fn changed(&self) -> Map<String, Value> {
        let defaults = Self::default();
        let values =
            PARAMETERS.iter().map(|parameter| (parameter.name, parameter.json(self), parameter.json(&defaults)));
        // The one that prevails where both are read would not be the one that is in force.
        let is_idle = |name: &str| name == "max_new_tokens" && self.max_length.is_some();
        let changed = values.filter(|(name, value, default)| value != default && !is_idle(name));
        changed.map(|(name, value, _)| (name.to_owned(), value)).collect()
    }

    /// The tokens that end a sequence, if any may.
    pub(in crate::decode) fn ends(&self) -> &[u32] {
        if self.ignore_eos { &[] } else { &self.eos_token_id }
    }

    /// Checks each value on its own, which is all that is possible while others may still change.
    ///
    /// # Errors
    /// [`Error::Parameter`] with the parameter, its value and what is allowed.
    pub fn check_values(&self) -> Result<()> {
        PARAMETERS
            .iter()
            .try_for_each(|parameter| parameter.check(self).map_err(|fault| Error::parameter(parameter.name, fault)))
    }
}
