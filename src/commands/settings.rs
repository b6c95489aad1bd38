//! What records say that results were made with.

use gpt2::base::DType;
use gpt2::kernels;
use gpt2::model::Gpt2;
use gpt2::source::OpenedModel;
use serde_json::Map;

use crate::cli::ModelArgs;
use crate::output::settings::SettingsRecord;

/// The settings of a loaded model, on `device`; `hash` identifies its weights.
pub fn of(args: &ModelArgs, opened: &OpenedModel, model: &Gpt2, device: String, hash: &str) -> SettingsRecord {
    let most = model.weight_bytes().into_iter().max_by_key(|(_, bytes)| *bytes);
    let (dtype, is_quantized) = most.map_or((DType::F32, false), |(dtype, _)| (dtype, dtype.block_len() > 1));
    let name = dtype.to_string().to_lowercase();
    let mut parameters = Map::new();
    if !args.adapter.is_empty() {
        parameters.insert("adapter".to_owned(), args.adapter.clone().into());
    }
    if let Some(tokenizer) = &args.tokenizer {
        parameters.insert("tokenizer".to_owned(), tokenizer.display().to_string().into());
    }
    SettingsRecord {
        model: opened.name.clone(),
        revision: opened.revision.clone(),
        hash: hash.to_owned(),
        dtype: if is_quantized { DType::F32.to_string().to_lowercase() } else { name.clone() },
        quantization: is_quantized.then_some(name),
        device,
        version: env!("CARGO_PKG_VERSION"),
        simd: kernels::level().name(),
        parameters,
    }
}
