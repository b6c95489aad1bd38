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
