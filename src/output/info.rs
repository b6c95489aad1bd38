//! The records of `gpt2 info`.

pub mod settings;

use anyhow::Result;
use gpt2::analysis::parameters::{Costs, Parameters};
use gpt2::checkpoint::Format;
use gpt2::config::Config;
use gpt2::memory::{DeviceFootprint, Footprint, readable};
use gpt2::printable;
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use super::tokens::padded;
use super::{Stdout, Style};

/// A model without running it.
#[derive(Debug, Serialize)]
pub struct InfoRecord {
    /// The model's name, or the configuration's path.
    pub model: String,
    /// The form of the checkpoint, such as `safetensors`; null for a configuration alone.
    #[serde(serialize_with = "as_text")]
    pub format: Option<Format>,
    /// The configuration, checked and with its defaults filled in.
    pub config: Config,
    /// Parameters by component.
    pub parameters: Parameters,
    /// Bytes and operations.
    pub memory: MemoryRecord,
    /// The checkpoint's tensors; empty unless asked for with `--tensors`.
    pub tensors: Vec<TensorRecord>,
    /// The entries of PyTorch's state dict, in its order; only with `--state-dict`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_dict: Option<Vec<EntryRecord>>,
    /// The tree of PyTorch's modules as text; only with `--module`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// Where this comes from.
    pub source: Source,
}

/// Where a description comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The checkpoint's files.
    Checkpoint,
    /// A configuration alone.
    Config,
    /// The table of the published sizes, without any file.
    Table,
}

fn as_text<S: serde::Serializer>(format: &Option<Format>, serializer: S) -> Result<S::Ok, S::Error> {
    format.map(|format| format.to_string()).serialize(serializer)
}

/// Bytes and operations of the configuration, and the memory of a run.
#[derive(Debug, Serialize)]
pub struct MemoryRecord {
    /// What follows from the configuration alone.
    #[serde(flatten)]
    pub costs: Costs,
    /// The memory of a run on the CPU with the weights in the type set by `--dtype` and `--quantize`.
    pub running: RunningRecord,
    /// The memory of a run on an NVIDIA GPU; null unless one may be used.
    pub device: Option<DeviceFootprint>,
}

/// The memory of a run on the CPU, including mapped files.
#[derive(Debug, Serialize)]
pub struct RunningRecord {
    /// The memory that the model takes.
    #[serde(flatten)]
    pub footprint: Footprint,
    /// The available memory; null if the system does not report it.
    pub available_bytes: Option<u64>,
}

/// One tensor of a checkpoint.
#[derive(Debug, Serialize)]
pub struct TensorRecord {
    /// The name in the file.
    pub name: String,
    /// The stored type.
    pub dtype: String,
    /// The shape, row-major as in the file.
    pub shape: Vec<usize>,
}

/// An entry of PyTorch's state dict.
#[derive(Debug, Serialize)]
pub struct EntryRecord {
    /// The name in transformers' model, such as `transformer.wte.weight`.
    pub name: String,
    /// The shape.
    pub shape: Vec<usize>,
}

impl From<(String, Vec<usize>)> for EntryRecord {
    fn from((name, shape): (String, Vec<usize>)) -> Self {
        Self { name, shape }
    }
}

impl InfoRecord {
    /// The architecture as a tree, then the arithmetic; or PyTorch's views of the model, if they are asked for.
    pub fn write_text(&self, out: &mut Stdout) -> Result<()> {
        let is_pytorch = self.state_dict.is_some() || self.module.is_some();
        if let Some(module) = &self.module {
            writeln!(out, "{module}")?;
        }
        if let Some(entries) = &self.state_dict {
            writeln!(out, "{} tensors", entries.len())?;
            entries.iter().try_for_each(|entry| writeln!(out, "{} torch.Size({:?})", entry.name, entry.shape))?;
        }
        if !is_pytorch {
            self.write_tree(out)?;
            self.write_costs(out)?;
        }
        if !self.tensors.is_empty() {
            writeln!(out, "\nTensors")?;
        }
        let names: Vec<_> = self.tensors.iter().map(|tensor| printable::line(&tensor.name)).collect();
        let columns = names.iter().map(|name| name.width()).max().unwrap_or(0).clamp(32, 64);
        for (tensor, name) in self.tensors.iter().zip(&names) {
            writeln!(out, "  {} {:<6} {:?}", padded(name, columns), printable::line(&tensor.dtype), tensor.shape)?;
        }
        Ok(())
    }

    fn write_tree(&self, out: &mut Stdout) -> Result<()> {
        let bold = Style::new().bold();
        let (c, p, b) = (&self.config, &self.parameters, &self.parameters.block);
        let (width, inner) = (c.n_embd, c.n_inner);
        let format = match (self.format, self.source) {
            (Some(format), _) => format!(" ({format})"),
            (None, Source::Table) => " (from the table of published sizes)".to_owned(),
            (None, _) => String::new(),
        };
        writeln!(
            out,
            "{bold}{}{bold:#}{format}: GPT-2, {} parameters",
            printable::line(&self.model),
            grouped(p.total)
        )?;
        let mut line = |tree: &str, what: String, count: u64| {
            let name = format!("{tree}{what}");
            let padding = " ".repeat(58usize.saturating_sub(name.chars().count()));
            writeln!(out, "{name}{padding} {:>15}", grouped(count))
        };
        line("├─ ", format!("wte        token embedding ({}, {width})", c.vocab_size), p.token_embedding)?;
        line("├─ ", format!("wpe        position embedding ({}, {width})", c.n_positions), p.position_embedding)?;
        line("├─ ", format!("h.0 … h.{}  {} blocks", c.n_layer - 1, c.n_layer), p.blocks)?;
        line("│  ├─ ", format!("ln_1          layer norm ({width})"), b.ln_1)?;
        let bias = if c.bias && c.qkv_bias { "" } else { ", no bias" };
        line("│  ├─ ", format!("attn          {} heads of {}", c.n_head, c.head_dim()), b.attention)?;
        line("│  │  ├─ ", format!("attn.c_attn   ({width}, {}){bias}", 3 * width), b.attn_c_attn)?;
        line("│  │  └─ ", format!("attn.c_proj   ({width}, {width})"), b.attn_c_proj)?;
        line("│  ├─ ", format!("ln_2          layer norm ({width})"), b.ln_2)?;
        line("│  └─ ", format!("mlp           {}", c.activation_function.name()), b.mlp)?;
        line("│     ├─ ", format!("mlp.c_fc      ({width}, {inner})"), b.mlp_c_fc)?;
        line("│     └─ ", format!("mlp.c_proj    ({inner}, {width})"), b.mlp_c_proj)?;
        line("├─ ", format!("ln_f       layer norm ({width})"), p.final_norm)?;
        let tied = if c.tie_word_embeddings { "tied to wte" } else { "a separate matrix" };
        line("└─ ", format!("lm_head    ({width}, {}), {tied}", c.vocab_size), p.head)?;
        Ok(())
    }

    fn write_costs(&self, out: &mut Stdout) -> Result<()> {
        let (c, p, m) = (&self.config, &self.parameters, &self.memory.costs);
        writeln!(out, "\nParameters")?;
        writeln!(
            out,
            "  {} = {} + {} + {} x {} + {}{}",
            grouped(p.total),
            grouped(p.token_embedding),
            grouped(p.position_embedding),
            c.n_layer,
            grouped(p.per_block),
            grouped(p.final_norm),
            if p.head > 0 { format!(" + {}", grouped(p.head)) } else { String::new() }
        )?;
        let by_kind = [("embeddings", p.token_embedding + p.position_embedding), ("attention", p.attention)];
        let by_kind = by_kind.into_iter().chain([("MLP", p.mlp), ("norms", p.norm), ("head", p.head)]);
        for (name, count) in by_kind.filter(|(name, count)| *count > 0 || *name != "head") {
            let percent = 100.0 * count as f64 / p.total as f64;
            // Few as they are, the norms are more than nothing.
            let decimals = if percent < 0.1 { 3 } else { 1 };
            writeln!(out, "  {name:<11} {:>15}  {percent:>5.decimals$}%", grouped(count))?;
        }
        writeln!(out, "  {} with an untied head", grouped(p.untied_total))?;
        writeln!(out, "\nMemory of the weights")?;
        for (name, bytes) in
            [("f32", m.f32_bytes), ("f16", m.f16_bytes), ("q8_0", m.q8_0_bytes), ("q4_k", m.q4_k_bytes)]
        {
            writeln!(out, "  {name:<5} {}", readable(bytes))?;
        }
        writeln!(out, "\nRunning it")?;
        writeln!(out, "  context          {} positions", grouped(c.n_positions as u64))?;
        writeln!(
            out,
            "  key-value cache  {} a token, {} for a full context, in f32",
            readable(m.kv_cache_bytes_per_token),
            readable(m.kv_cache_bytes_full_context)
        )?;
        self.write_running(out)?;
        writeln!(
            out,
            "  arithmetic       {:.3} GFLOP a token, and {} FLOP for each one before it",
            m.flops_per_token as f64 / 1e9,
            grouped(m.flops_per_cached_position)
        )?;
        let eos: Vec<String> = c.eos_token_id.iter().map(u32::to_string).collect();
        let eos = if eos.is_empty() { "none".to_owned() } else { eos.join(", ") };
        Ok(writeln!(out, "  end of text      {eos}")?)
    }
}

impl InfoRecord {
    /// The memory of a run, for the shortest and the longest prompt.
    fn write_running(&self, out: &mut Stdout) -> Result<()> {
        let RunningRecord { footprint, available_bytes } = &self.memory.running;
        let (least, peak) = (readable(footprint.least_bytes()), readable(footprint.peak_bytes));
        let name = if self.memory.device.is_some() { "on the CPU" } else { "memory" };
        // They may be stored in fewer bits than they are computed in.
        let weights = readable(footprint.mapped_bytes + footprint.loaded_bytes);
        writeln!(out, "  {name:<16} {least} ({weights} for the weights as they are kept),")?;
        writeln!(out, "                   {peak} with a prompt that fills the context")?;
        if let Some(bytes) = available_bytes {
            writeln!(out, "                   of {} available", readable(*bytes))?;
        }
        self.memory.device.as_ref().map_or(Ok(()), |device| write_device(device, out))
    }
}

/// The memory of a run on a GPU, as far as it is known.
fn write_device(device: &DeviceFootprint, out: &mut Stdout) -> Result<()> {
    let DeviceFootprint { dtype, weight_bytes, kv_cache_bytes, context_bytes, .. } = device;
    let [weights, cache, context] = [weight_bytes, kv_cache_bytes, context_bytes].map(|bytes| readable(*bytes));
    let known = format!("{weights} of weights ({dtype}), {cache} of cache");
    match (device.peak_bytes, device.scratch_bytes) {
        (Some(peak), Some(scratch)) => {
            let (peak, scratch) = (readable(peak), readable(scratch));
            writeln!(out, "  on a GPU         {peak} with a prompt that fills the context:")?;
            writeln!(out, "                   {known}, {scratch} of buffers, {context} of CUDA")?;
        }
        _ => writeln!(out, "  on a GPU         {known}, and buffers of unknown size")?,
    }
    Ok(())
}

/// A number with thousands separators.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
