//! Flags for the decoding parameters, generated from the library's table.

use std::borrow::Cow;
use std::path::Path;

use clap::builder::{BoolValueParser, PossibleValue, PossibleValuesParser, ValueHint};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use gpt2::Error;
use gpt2::decode::{GenerationConfig, Group, PARAMETERS, Parameter, Takes};

use super::advice::with_names;
use super::flag_name;

/// The parameters that shape the distribution, shared by `topk` and `generate`.
#[derive(Debug, Clone, Default)]
pub struct ProcessorArgs {
    /// As the flags say, with our defaults.
    pub config: GenerationConfig,
    given: Given,
    typed: Vec<String>,
}

/// All decoding parameters, for `generate`.
#[derive(Debug, Clone, Default)]
pub struct DecodingArgs {
    /// As the flags say, with our defaults.
    pub config: GenerationConfig,
    given: Given,
    typed: Vec<String>,
}

/// The values of the flags that were given.
type Given = Vec<(&'static Parameter, Vec<String>)>;

/// A flag that names a file with the value of the parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConstraintFile {
    JsonSchema,
    Grammar,
}

/// The largest such file, in bytes.
const LARGEST_FILE: u64 = 1 << 20;

impl ConstraintFile {
    /// That of the parameter, if its value is a file.
    pub fn named(parameter: &str) -> Option<Self> {
        match parameter {
            "json_schema" => Some(Self::JsonSchema),
            "grammar" => Some(Self::Grammar),
            _ => None,
        }
    }

    /// Whether a text, which a row gives, is the value itself rather than the name of a file.
    pub fn is_content(self, text: &str) -> bool {
        match self {
            Self::JsonSchema => {
                text.trim_start().starts_with(['{', '[', '"']) || ["true", "false"].contains(&text.trim())
            }
            Self::Grammar => {
                // `C:\a.lark` has a colon, too.
                let has_drive = cfg!(windows) && Path::new(text).is_absolute();
                text.contains('\n') || text.contains(':') && !has_drive || text.trim().is_empty()
            }
        }
    }

    /// The content of the file, or what is wrong, to follow the parameter's name.
    pub fn read(self, path: &Path) -> Result<String, String> {
        let shown = gpt2::printable::path(path);
        let bytes = gpt2::files::read_at_most(path, LARGEST_FILE).map_err(|error| match error {
            Error::Io { source, .. } => format!("{shown}: cannot be read: {source}"),
            error => error.to_string(),
        })?;
        let text = std::str::from_utf8(gpt2::files::without_byte_order_mark(&bytes));
        let text = text.map_err(|error| format!("{shown}: not UTF-8 at byte {}", error.valid_up_to()))?;
        match self {
            Self::JsonSchema => {
                gpt2::json::parse(text.as_bytes()).map_err(|fault| format!("{shown}: {fault}"))?;
            }
            Self::Grammar => {}
        }
        Ok(text.to_owned())
    }
}

impl ProcessorArgs {
    fn parameters() -> impl Iterator<Item = &'static Parameter> {
        PARAMETERS.iter().filter(|parameter| parameter.group != Group::Decoding)
    }

    /// The flags that were given, as typed; none if there are none.
    pub fn shown(&self) -> Option<String> {
        (!self.typed.is_empty()).then(|| self.typed.join(" "))
    }
}

impl DecodingArgs {
    fn parameters() -> impl Iterator<Item = &'static Parameter> {
        PARAMETERS.iter()
    }
}

/// Implements clap's traits for a struct whose `config` is read from the flags of its `parameters`.
///
/// `over` is the configuration with other defaults.
macro_rules! arguments {
    ($($type:ty),+) => {$(
        impl $type {
            /// The configuration with these defaults in place of ours.
            pub fn over(&self, defaults: GenerationConfig) -> Result<GenerationConfig, Error> {
                with(defaults, &self.given)
            }

            /// The parameters whose flags were given.
            pub fn given(&self) -> Vec<&'static str> {
                self.given.iter().map(|(parameter, _)| parameter.name).collect()
            }
        }

        impl Args for $type {
            fn augment_args(command: Command) -> Command {
                command.args(<$type>::parameters().map(argument))
            }

            fn augment_args_for_update(command: Command) -> Command {
                Self::augment_args(command)
            }
        }

        impl FromArgMatches for $type {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
                let mut arguments = Self::default();
                arguments.update_from_arg_matches(matches)?;
                Ok(arguments)
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
                let refuse = |fault: String| clap::Error::raw(ErrorKind::ValueValidation, format!("{fault}\n"));
                self.given = <$type>::parameters().filter_map(|parameter| given(parameter, matches)).collect();
                self.typed = self.given.iter().flat_map(shown).collect();
                for (parameter, values) in &mut self.given {
                    let Some(file) = ConstraintFile::named(parameter.name) else { continue };
                    for value in values {
                        let content = file.read(Path::new(value));
                        *value = content.map_err(|fault| refuse(format!("--{} {fault}", flag_name(parameter.name))))?;
                    }
                }
                // The flags' parsers have already checked the values.
                let config = with(GenerationConfig::default(), &self.given);
                self.config = config.map_err(|error| refuse(error.to_string()))?;
                Ok(())
            }
        }
    )+};
}

arguments!(ProcessorArgs, DecodingArgs);

/// A parameter with its values, if its flag was given.
fn given(parameter: &'static Parameter, matches: &ArgMatches) -> Option<(&'static Parameter, Vec<String>)> {
    let values = matches.get_raw(parameter.name)?;
    Some((parameter, values.map(|value| value.to_string_lossy().into_owned()).collect()))
}

/// The flags of a parameter with its values.
fn shown((parameter, values): &(&'static Parameter, Vec<String>)) -> Vec<String> {
    let flag = format!("--{}", flag_name(parameter.name));
    match parameter.takes() {
        Takes::Switch => values.iter().map(|value| format!("{flag}={value}")).collect(),
        _ => values.iter().map(|value| format!("{flag} {}", quoted(value))).collect(),
    }
}

/// A value as a shell might have had it, on one line.
fn quoted(value: &str) -> Cow<'_, str> {
    match value.is_empty() || value.contains(|c: char| c.is_whitespace() || c.is_control()) {
        true => format!("'{}'", gpt2::printable::line(value)).into(),
        false => value.into(),
    }
}

/// The configuration with the given values.
fn with(mut config: GenerationConfig, given: &Given) -> Result<GenerationConfig, Error> {
    for (parameter, values) in given {
        // Values of a repeatable flag replace those of the defaults.
        parameter.reset(&mut config);
        for value in values {
            parameter.read(value, &mut config).map_err(|fault| Error::parameter(parameter.name, fault))?;
        }
    }
    Ok(config)
}

/// The flag of a parameter.
fn argument(parameter: &'static Parameter) -> Arg {
    let heading = match parameter.group {
        Group::Distribution => "Distribution",
        Group::Decoding => "Decoding",
        Group::Constraint => "Constraint",
    };
    let argument = Arg::new(parameter.name)
        .long(flag_name(parameter.name))
        .value_name(parameter.symbol)
        .help(help(parameter))
        .help_heading(heading);
    let argument = match parameter.name {
        "max_new_tokens" => argument.short('n'),
        _ => argument,
    };
    if ConstraintFile::named(parameter.name).is_some() {
        // Read once all flags are known: it may be a pipe.
        return argument.value_hint(ValueHint::FilePath);
    }
    // Checks the value on its own; its company is checked once all flags are known.
    let typed = move |text: &str| {
        let mut config = GenerationConfig::default();
        parameter.read(text, &mut config)?;
        parameter.check(&config)?;
        Ok::<String, String>(text.to_owned())
    };
    match parameter.takes() {
        Takes::Switch => argument
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(BoolValueParser::new()),
        Takes::OneOf(words) => {
            let words = words.iter().map(|word| PossibleValue::new(word.name).help(word.doc));
            argument.value_parser(PossibleValuesParser::new(words))
        }
        Takes::One => argument.value_parser(typed),
        Takes::Many => argument.action(ArgAction::Append).value_parser(typed),
    }
}

/// The parameter's description with its default, naming other parameters by their flags.
fn help(parameter: &Parameter) -> String {
    // A flag of `generate`, not a parameter.
    let is_flag = |name: &str| name == "assistant_model" || Parameter::named(name).is_some();
    let doc = with_names(parameter.doc(), |name| is_flag(name).then(|| format!("--{}", flag_name(name))));
    match parameter.default_text() {
        // Done by this program, not by the library.
        None if parameter.name == "seed" => format!("{doc} [default: drawn and reported]"),
        Some(default) => format!("{doc} [default: {default}]"),
        None => doc,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<DecodingArgs, clap::Error> {
        let command = DecodingArgs::augment_args(Command::new("generate"));
        let matches = command.try_get_matches_from(["generate"].iter().chain(arguments))?;
        DecodingArgs::from_arg_matches(&matches)
    }

    #[test]
    fn every_parameter_has_a_flag_and_none_is_set_by_default() {
        assert_eq!(parse(&[]).unwrap().config, GenerationConfig::default());
        let command = DecodingArgs::augment_args(Command::new("generate"));
        command.clone().debug_assert();
        assert_eq!(command.get_arguments().count(), PARAMETERS.len());
    }

    #[test]
    fn flags_and_keys_set_the_same_fields() {
        let flags = ["-n", "3", "--top-p=0.5", "--sample", "--stop", "a", "--stop", "b", "--bad-words-ids", "1, 2"];
        let rest = ["--early-stopping", "never", "--on-context-limit", "crop", "--seed", "9", "--ignore-eos=false"];
        let from_flags = parse(&[&flags[..], &rest].concat()).unwrap().config;
        let keys = serde_json::json!({
            "max_new_tokens": 3, "top_p": 0.5, "sample": true, "stop": ["a", "b"], "bad_words_ids": [[1, 2]],
            "early_stopping": "never", "on_context_limit": "crop", "seed": 9, "ignore_eos": false,
        });
        let from_keys = GenerationConfig::default().with_json(keys.as_object().unwrap()).unwrap();
        assert_eq!(from_flags, from_keys);
        assert_eq!((from_keys.max_new_tokens, &from_keys.bad_words_ids[..]), (3, &[vec![1, 2]][..]));
        let unset = serde_json::json!({"max_new_tokens": null, "stop": null, "do_sample": null, "eos_token_id": null});
        assert_eq!(from_keys.with_json(unset.as_object().unwrap()).unwrap(), from_keys);
    }

    #[test]
    fn help_names_flags() {
        let sample = help(Parameter::named("sample").unwrap());
        assert_eq!(sample, "Sample from the distribution; implied by --temperature, --top-k, --top-p and the like");
        assert!(help(Parameter::named("max_new_tokens").unwrap()).ends_with("[default: 50]"));
        assert!(help(Parameter::named("on_context_limit").unwrap()).ends_with("[default: stop]"));
    }
}
