//! What a result was made with.

use serde::Serialize;
use serde_json::{Map, Value};

/// Enough to make a result again.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SettingsRecord {
    /// The model's name.
    pub model: String,
    /// The commit of its repository; left out unless it came from the hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Identifies the weights, with adapters merged, by samples of every tensor, whatever file they are in.
    pub hash: String,
    /// The number type of most weights in memory; `f32`, in which it computes, if they are quantised.
    pub dtype: String,
    /// The format of quantised weights, else null.
    pub quantization: Option<String>,
    /// What computed: `cpu`, `cuda:0`, `metal`.
    pub device: String,
    /// The program's version.
    pub version: &'static str,
    /// The instruction set in use, as in `bench`.
    pub simd: &'static str,
    /// The parameters that are not at their defaults, under the names that rows give them; the seed, if something was
    /// drawn; and what else the model is run with: an adapter, another tokenizer, an assistant model, and interventions
    /// (`ablate`: parts with what replaces them; `steer`: files with a hash of their numbers, or texts, with layer and scale).
    #[serde(flatten)]
    pub parameters: Map<String, Value>,
}

impl SettingsRecord {
    /// The model as pictures and pages name it: with what was changed in it.
    pub fn shown_model(&self) -> String {
        let list = |name: &str| self.parameters.get(name).and_then(Value::as_array).into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let ablated = list("ablate").map(|spec| format!("ablated {}", text(spec)));
        let steered = list("steer").map(|by| {
            let layer = by["layer"].as_u64().map(|layer| format!("@{layer}")).unwrap_or_default();
            let source = match &by["file"] {
                Value::String(file) => file.clone(),
                _ => format!("({:?} - {:?})", text(&by["from"]), text(&by["against"])),
            };
            format!("steered by {source}{layer}*{}", by["scale"])
        });
        std::iter::once(self.model.clone()).chain(ablated).chain(steered).collect::<Vec<_>>().join(", ")
    }
}
