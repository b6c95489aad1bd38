//! How PyTorch shows a GPT-2: the entries of `model.state_dict()` and the tree of `print(model)`, for transformers'
//! `GPT2LMHeadModel` with this configuration.
//!
//! Reference: transformers 5.23.0 (`modeling_gpt2.py`, `activations.py`) on PyTorch 2.15. Both follow from the
//! configuration: transformers gives every model all biases, and its state dict names a tied head, too.

use crate::config::Config;
use crate::inventory::{Part, TensorId};

/// The parts in the order in which the modules have them.
const ORDER: [Part; 9] =
    [Part::Wte, Part::Wpe, Part::Ln1, Part::CAttn, Part::AttnCProj, Part::Ln2, Part::CFc, Part::MlpCProj, Part::LnF];

/// Names and shapes in the order of `model.state_dict().items()`.
#[must_use]
pub fn state_dict(config: &Config) -> Vec<(String, Vec<usize>)> {
    let config = Config { bias: true, qkv_bias: true, tie_word_embeddings: true, ..config.clone() };
    let mut body: Vec<TensorId> = config.tensors().collect();
    body.sort_by_key(|id| {
        let after_blocks = id.part == Part::LnF;
        (after_blocks, id.layer, ORDER.iter().position(|part| *part == id.part))
    });
    let head = (TensorId::LM_HEAD.to_string(), TensorId::LM_HEAD.shape(&config));
    body.into_iter().map(|id| (format!("transformer.{id}"), id.shape(&config))).chain([head]).collect()
}

/// The text of `print(model)`, without a line break at its end.
#[must_use]
pub fn module(config: &Config) -> String {
    let (c, inner, last) = (config.n_embd, config.n_inner, config.n_layer - 1);
    let norm = |name: &str| {
        let eps = repr(config.layer_norm_epsilon);
        leaf(name, format!("LayerNorm(({c},), eps={eps}, elementwise_affine=True, bias=True)"))
    };
    let conv = |name: &str, outputs: usize, inputs: usize| leaf(name, format!("Conv1D(nf={outputs}, nx={inputs})"));
    let dropout = |name: &str, p: &serde_json::Number| {
        let p = if p.is_f64() { repr(p.as_f64().unwrap_or_default()) } else { p.to_string() };
        leaf(name, format!("Dropout(p={p}, inplace=False)"))
    };
    let pytorch = &config.pytorch;
    let attention = [
        conv("c_attn", 3 * c, c),
        conv("c_proj", c, c),
        dropout("attn_dropout", &pytorch.attn_pdrop),
        dropout("resid_dropout", &pytorch.resid_pdrop),
    ];
    let mlp = [
        conv("c_fc", inner, c),
        conv("c_proj", c, inner),
        leaf("act", activation(pytorch.activation).to_owned()),
        dropout("dropout", &pytorch.resid_pdrop),
    ];
    let block = [norm("ln_1"), tree("(attn): GPT2Attention", &attention), norm("ln_2"), tree("(mlp): GPT2MLP", &mlp)];
    // Equal modules of a list are shown once.
    let blocks = match last {
        0 => "(0): GPT2Block".to_owned(),
        last => format!("(0-{last}): {} x GPT2Block", config.n_layer),
    };
    let body = [
        leaf("wte", format!("Embedding({}, {c})", config.vocab_size)),
        leaf("wpe", format!("Embedding({}, {c})", config.n_positions)),
        dropout("drop", &pytorch.embd_pdrop),
        tree("(h): ModuleList", &[tree(&blocks, &block)]),
        norm("ln_f"),
    ];
    let head = format!("Linear(in_features={c}, out_features={}, bias=False)", config.vocab_size);
    tree("GPT2LMHeadModel", &[tree("(transformer): GPT2Model", &body), leaf("lm_head", head)])
}

fn leaf(name: &str, module: String) -> String {
    format!("({name}): {module}")
}

/// A module with its children, each on lines of its own.
fn tree(module: &str, children: &[String]) -> String {
    let children: Vec<String> = children.iter().map(|child| format!("  {}\n", child.replace('\n', "\n  "))).collect();
    format!("{module}(\n{})", children.concat())
}

/// The module of an activation that transformers knows under this name.
fn activation(name: &str) -> &'static str {
    match name {
        "gelu_pytorch_tanh" | "gelu_python_tanh" => "GELUTanh()",
        "gelu_accurate" => "AccurateGELUActivation()",
        "gelu" | "gelu_python" => "GELUActivation()",
        "gelu_10" => "ClippedGELUActivation()",
        "gelu_fast" => "FastGELUActivation()",
        "quick_gelu" => "QuickGELUActivation()",
        "relu" => "ReLU()",
        "silu" => "SiLUActivation()",
        "swish" => "SiLU()",
        "tanh" => "Tanh()",
        _ => "NewGELUActivation()",
    }
}

/// A number as Python's `repr` writes it.
fn repr(x: f64) -> String {
    if x != 0.0 && !(1e-4..1e16).contains(&x.abs()) {
        // Rust writes 1e-5, and Python 1e-05.
        let text = format!("{x:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(("+", exponent), |exponent| ("-", exponent));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{x:?}")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Made by `tests/fixtures/make_pytorch.py`.
    #[test]
    fn modules_and_state_dicts_are_those_of_transformers() {
        let golden: Value = serde_json::from_slice(include_bytes!("../../tests/fixtures/pytorch.json")).unwrap();
        for case in golden.as_array().unwrap() {
            let config = Config::from_json(case["config"].to_string().as_bytes(), "config.json").unwrap();
            assert_eq!(module(&config), case["module"].as_str().unwrap(), "{}", case["config"]);
            let Some(entries) = case["state_dict"].as_array() else { continue };
            let ours: Vec<Value> = state_dict(&config).into_iter().map(|entry| serde_json::json!(entry)).collect();
            assert_eq!(&ours, entries, "{}", case["config"]);
        }
    }

    #[test]
    fn numbers_are_written_as_python_writes_them() {
        let cases =
            [(0.1, "0.1"), (0.0, "0.0"), (1e-5, "1e-05"), (1.5e-12, "1.5e-12"), (0.0001, "0.0001"), (2.0, "2.0")];
        for (x, text) in cases.into_iter().chain([(1e16, "1e+16"), (1e-100, "1e-100"), (123_456.0, "123456.0")]) {
            assert_eq!(repr(x), text);
        }
    }
}
