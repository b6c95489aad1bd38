//! The record of `gpt2 info --settings`.

use anyhow::Result;
use gpt2::printable;
use serde::Serialize;
use serde_json::Value;
use unicode_width::UnicodeWidthStr;

use crate::output::tokens::padded;
use crate::output::{Stdout, Style};

/// What runs go by.
#[derive(Debug, Serialize)]
pub struct EffectiveSettingsRecord {
    /// The settings, in the order in which the text has them.
    pub settings: Vec<SettingRecord>,
    /// The config file that is read if it exists.
    pub config_file: ConfigFileRecord,
}

/// A setting.
#[derive(Debug, Serialize)]
pub struct SettingRecord {
    /// `model`, `device`, `dtype`, `threads` or `color`, which are the keys of the config file; `offline`, `cache` (the
    /// folder of downloaded models), `endpoint` (the hub's address), or `simd` (the instruction set).
    pub name: &'static str,
    /// A string, the number of threads, or whether it is offline. A `dtype` by default is as stored if the file is
    /// quantised. The cache is null if there is no folder for it.
    pub value: Value,
    /// The flag, the environment variable, the path of the config file, or `default`.
    pub from: String,
}

/// The config file.
#[derive(Debug, Serialize)]
pub struct ConfigFileRecord {
    /// Its path; null if `GPT2_CONFIG` is empty or there is no home folder.
    pub path: Option<String>,
    /// `GPT2_CONFIG` or `default`.
    pub from: &'static str,
    /// Whether there is such a file.
    pub exists: bool,
}

impl SettingRecord {
    fn shown_value(&self) -> String {
        match &self.value {
            Value::String(text) => printable::line(text).into_owned(),
            Value::Bool(true) => "yes".to_owned(),
            Value::Bool(false) => "no".to_owned(),
            Value::Null => "none".to_owned(),
            value => value.to_string(),
        }
    }

    fn shown_from(&self) -> String {
        let what = match (self.name, &*self.from) {
            ("dtype", "default") => " (as stored if the file is quantised)",
            ("threads", "default") => " (all cores)",
            ("simd", "default") => " (the best that this processor has)",
            _ => "",
        };
        format!("{}{what}", printable::line(&self.from))
    }
}

impl EffectiveSettingsRecord {
    /// A table, and the config file below it.
    pub fn write_text(&self, out: &mut Stdout) -> Result<()> {
        let rows: Vec<_> = self.settings.iter().map(|row| (row.name, row.shown_value(), row.shown_from())).collect();
        let columns = rows.iter().map(|(_, value, _)| value.width()).max().unwrap_or(0);
        let bold = Style::new().bold();
        writeln!(out, "{bold}setting   {}  from{bold:#}", padded("value", columns))?;
        for (name, value, from) in rows {
            writeln!(out, "{name:<8}  {}  {from}", padded(&value, columns))?;
        }
        let ConfigFileRecord { path, from, exists } = &self.config_file;
        let from = if *from == "default" { String::new() } else { format!(", from {from}") };
        match path {
            Some(path) if *exists => writeln!(out, "\nconfig file: {path}{from}"),
            Some(path) => writeln!(out, "\nconfig file: {path}, which does not exist"),
            None => writeln!(out, "\nconfig file: none{from}"),
        }
    }
}
