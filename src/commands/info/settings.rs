//! `gpt2 info --settings`: what runs go by, and where it comes from. It needs no model.

use anyhow::Result;
use clap::ValueEnum;
use gpt2::base::pool;
use gpt2::model::WeightType;
use gpt2::{kernels, source};
use serde_json::Value;

use crate::cli::settings::Setting;
use crate::cli::{Colour, DEFAULT_MODEL, Format, Settings};
use crate::output::Stdout;
use crate::output::info::settings::{ConfigFileRecord, EffectiveSettingsRecord, SettingRecord};

pub fn show(settings: &Settings, format: Format) -> Result<()> {
    let file = &settings.file;
    let record = EffectiveSettingsRecord {
        settings: rows(settings)?,
        config_file: ConfigFileRecord {
            path: file.path.as_ref().map(|path| path.display().to_string()),
            from: file.variable.unwrap_or(DEFAULT),
            exists: file.exists,
        },
    };
    let mut out = Stdout::lock();
    match format {
        Format::Text => record.write_text(&mut out),
        format => out.json(&record, format),
    }?;
    out.finish()
}

/// Where a value comes from if nothing names one.
const DEFAULT: &str = "default";

fn rows(settings: &Settings) -> Result<Vec<SettingRecord>> {
    let Settings { model, device, dtype, threads, colour, offline, .. } = settings;
    let cores = pool::cores();
    let mut rows = vec![
        row("model", model, |model| model.unwrap_or_else(|| DEFAULT_MODEL.to_owned()).into()),
        row("device", device, |device| device.unwrap_or_default().to_string().into()),
        row("dtype", dtype, |weights| weights_name(weights.unwrap_or(WeightType::F32)).into()),
        row("threads", threads, |threads| threads.map_or(cores, usize::from).into()),
        row("color", colour, |colour| colour_name(colour.unwrap_or_default()).into()),
        row("offline", offline, |offline| offline.unwrap_or_default().into()),
    ];
    let (cache, variable) = source::cache_folder_and_variable().unzip();
    rows.push(other("cache", cache.map(|folder| folder.display().to_string()).into(), variable.flatten()));
    #[cfg(feature = "hub")]
    {
        let (address, variable) = source::endpoint()?;
        rows.push(other("endpoint", address.into(), variable));
    }
    let asked = kernels::asked_level()?.map(|_| "GPT2_SIMD");
    rows.push(other("simd", kernels::level().name().into(), asked));
    Ok(rows)
}

fn row<T: Clone>(name: &'static str, setting: &Setting<T>, value: impl Fn(Option<T>) -> Value) -> SettingRecord {
    SettingRecord { name, value: value(setting.value.clone()), from: setting.from.to_string() }
}

/// A setting that only the environment has.
fn other(name: &'static str, value: Value, variable: Option<&'static str>) -> SettingRecord {
    SettingRecord { name, value, from: variable.unwrap_or(DEFAULT).to_owned() }
}

fn weights_name(weights: WeightType) -> String {
    match weights {
        WeightType::Stored => "stored".to_owned(),
        WeightType::Float(float) => float.name().to_owned(),
        WeightType::Quantized(format) => format.dtype().to_string().to_lowercase(),
    }
}

fn colour_name(colour: Colour) -> String {
    colour.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
