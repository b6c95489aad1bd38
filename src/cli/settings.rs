//! What a run goes by: flags, else environment variables, else the config file, else defaults. Each value knows which.

use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use gpt2::device::DeviceChoice;
use gpt2::files::user_paths;
use gpt2::model::WeightType;
use gpt2::printable;

use super::config_file::ConfigFile;
use super::{Cli, Colour, Command, ModelArgs, model};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origin {
    Flag(&'static str),
    Variable(&'static str),
    /// The config file.
    File(PathBuf),
    #[default]
    Default,
}

impl Display for Origin {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Variable(name) => f.write_str(name),
            Self::File(path) => f.write_str(&printable::path(path)),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value, unless the default counts, and where it comes from.
#[derive(Debug, Clone)]
pub struct Setting<T> {
    pub value: Option<T>,
    pub from: Origin,
}

impl<T> Default for Setting<T> {
    fn default() -> Self {
        Self { value: None, from: Origin::Default }
    }
}

impl<T: Clone> Setting<T> {
    fn new(value: T, from: Origin) -> Self {
        Self { value: Some(value), from }
    }

    /// What the environment says, else a key of the config file, which is checked in any case.
    fn below_flags(
        environment: Option<(T, &'static str)>,
        file: &ConfigFile,
        key: &str,
        parse: Parse<T>,
    ) -> Result<Self, String> {
        Ok(match (environment, file.get(key, parse)?) {
            (Some((value, variable)), _) => Self::new(value, Origin::Variable(variable)),
            (None, Some(value)) => Self::new(value, Origin::File(file.path.clone().unwrap_or_default())),
            (None, None) => Self::default(),
        })
    }

    /// Gives a flag the value, unless it has one, which then counts.
    fn settle(&mut self, flag: &mut Option<T>, name: &'static str) {
        match flag {
            Some(value) => *self = Self::new(value.clone(), Origin::Flag(name)),
            None => flag.clone_from(&self.value),
        }
    }
}

/// A value from a text; else what is wrong with it, to follow the name of the variable or the key.
type Parse<T> = fn(&str) -> Result<T, String>;

/// What a run goes by.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub model: Setting<String>,
    pub device: Setting<DeviceChoice>,
    pub dtype: Setting<WeightType>,
    pub threads: Setting<u16>,
    pub colour: Setting<Colour>,
    /// Whether no connection may be opened.
    pub offline: Setting<bool>,
    pub file: ConfigFile,
}

impl Settings {
    /// What the environment and the config file say.
    ///
    /// # Errors
    /// In one line that names the variable, or the file, the line and the key, and what is allowed.
    pub fn read() -> Result<Self, String> {
        fn setting<T: Clone>(
            variable: &'static str,
            file: &ConfigFile,
            key: &str,
            parse: Parse<T>,
        ) -> Result<Setting<T>, String> {
            Setting::below_flags(by_environment(variable, parse)?, file, key, parse)
        }
        let file = ConfigFile::read()?;
        Ok(Self {
            model: Setting::below_flags(by_environment("GPT2_MODEL", expanded)?, &file, "model", |text| {
                Ok(text.to_owned())
            })?,
            device: setting("GPT2_DEVICE", &file, "device", device)?,
            dtype: setting("GPT2_DTYPE", &file, "dtype", model::weights)?,
            threads: setting("GPT2_THREADS", &file, "threads", model::threads)?,
            colour: Setting::below_flags(colour_by_environment(), &file, "color", colour)?,
            offline: offline_by_environment(),
            file,
        })
    }

    /// Brings together what these say and the flags of a command line: each gives the other what it lacks.
    pub fn settle(&mut self, cli: &mut Cli) {
        // The flag keeps what it was given: `gpt2 tokenize --color` is more than a choice of colours.
        self.colour.settle(&mut cli.colour.colour.clone(), "--color");
        match &mut cli.command {
            Command::Generate(args) => self.settle_model(&mut args.model),
            Command::Topk(args) => self.settle_model(&mut args.model),
            Command::Score(args) => self.settle_model(&mut args.model),
            Command::Trace(args) => self.settle_model(&mut args.model),
            Command::Patch(args) => self.settle_model(&mut args.model),
            Command::Embed(args) => self.settle_model(&mut args.model),
            #[cfg(feature = "serve")]
            Command::Serve(args) => self.settle_model(&mut args.model),
            Command::Bench(args) => self.settle_model(&mut args.model),
            Command::Info(args) => {
                // `--config` alone describes a model of its own.
                let is_alone = args.model.config.is_some() && args.model.model.is_none();
                self.settle_model(&mut args.model);
                if is_alone {
                    args.model.model = None;
                }
            }
            // Its weights are of the type that --to names.
            Command::Convert(args) => self.settle_without_weights(&mut args.model),
            Command::Compress(args) => {
                self.settle_without_weights(&mut args.model);
                self.settle_weights(&mut args.model);
            }
            // The file names the type of the weights that it was made with, and mostly the model: what the user likes best in
            // general says nothing about it.
            Command::Decompress(args) => {
                if matches!(self.model.from, Origin::File(_)) {
                    self.model = Setting::default();
                }
                self.settle_without_weights(&mut args.model);
            }
            Command::Tokenize(args) => {
                self.model.settle(&mut args.tokenizer.model, "--model");
                self.settle_offline(&mut args.tokenizer.offline);
            }
            Command::Completions { .. } | Command::Man { .. } => {}
        }
    }

    fn settle_model(&mut self, args: &mut ModelArgs) {
        self.device.settle(&mut args.device, "--device");
        self.settle_weights(args);
        self.settle_without_weights(args);
    }

    /// For a subcommand that computes on the CPU alone, with weights of a type of its own.
    fn settle_without_weights(&mut self, args: &mut ModelArgs) {
        self.model.settle(&mut args.model, "--model");
        self.threads.settle(&mut args.threads, "--threads");
        self.settle_offline(&mut args.offline);
    }

    /// Two flags say what is one setting.
    fn settle_weights(&mut self, args: &mut ModelArgs) {
        let flag = match (args.dtype, args.quantize) {
            (None, None) => {
                *args = args.clone().with_weights(self.dtype.value.unwrap_or_default());
                return;
            }
            (Some(_), _) => "--dtype",
            (None, Some(_)) => "--quantize",
        };
        self.dtype = Setting::new(args.weights(), Origin::Flag(flag));
    }

    fn settle_offline(&mut self, flag: &mut bool) {
        match flag {
            true => self.offline = Setting::new(true, Origin::Flag("--offline")),
            false => *flag = self.offline.value.unwrap_or_default(),
        }
    }
}

fn by_environment<T>(variable: &'static str, parse: Parse<T>) -> Result<Option<(T, &'static str)>, String> {
    let Some(given) = std::env::var_os(variable).filter(|value| !value.is_empty()) else { return Ok(None) };
    let Some(text) = given.to_str() else { return Err(format!("{variable} is not UTF-8")) };
    let parsed = parse(text).map_err(|fault| format!("{variable} {}", printable::line(&fault)))?;
    Ok(Some((parsed, variable)))
}

/// A model, whose path may begin with `~` and contain variables.
fn expanded(model: &str) -> Result<String, String> {
    let path = user_paths::expanded(model.into()).into_os_string();
    path.into_string().map_err(|path| format!("is a path that is not UTF-8: {}", printable::path(Path::new(&path))))
}

fn device(text: &str) -> Result<DeviceChoice, String> {
    text.parse().map_err(|_| format!("takes auto, cpu, cuda, cuda:N or metal, not {text}"))
}

fn colour(text: &str) -> Result<Colour, String> {
    Colour::from_str(text, false).map_err(|_| format!("takes auto, always or never, not {text}"))
}

/// As terminals' programs decide it, in the order in which the library that writes colours does.
fn colour_by_environment() -> Option<(Colour, &'static str)> {
    if anstyle_query::no_color() {
        Some((Colour::Never, "NO_COLOR"))
    } else if anstyle_query::clicolor_force() {
        Some((Colour::Always, "CLICOLOR_FORCE"))
    } else {
        (anstyle_query::clicolor() == Some(false)).then_some((Colour::Never, "CLICOLOR"))
    }
}

/// As huggingface_hub decides it: `HF_HUB_OFFLINE`, else `TRANSFORMERS_OFFLINE`.
fn offline_by_environment() -> Setting<bool> {
    let set = |name| Some((std::env::var(name).ok().filter(|value| !value.is_empty())?, name));
    let Some((value, name)) = set("HF_HUB_OFFLINE").or_else(|| set("TRANSFORMERS_OFFLINE")) else {
        return Setting::default();
    };
    let is_on = matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE");
    Setting::new(is_on, Origin::Variable(name))
}
