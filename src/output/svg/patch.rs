//! The heat map of activation patching: layers by tokens, or by heads.

use std::path::Path;

use anyhow::Result;

use super::save;
use super::signed::Signed;
use crate::cli::Theme;
use crate::output::patch::PatchRecord;
use crate::output::tokens::Notation;

/// Draws it, as PNG if the file's name says so.
pub fn write(path: &Path, record: &PatchRecord, notation: Notation<'_>, theme: Theme) -> Result<()> {
    let columns = match record.is_over_heads() {
        true => (0..record.values.first().map_or(0, Vec::len)).map(|head| format!("head {head}")).collect(),
        false => record.columns(notation),
    };
    let shade = |value: &f32| record.normalised(*value).unwrap_or(0.0) as f32;
    let picture = Signed {
        title: &format!("Patching {}", record.what()),
        subtitle: &format!("{} · {}", record.model, record.question(notation)),
        rows: (0..record.values.len()).map(|layer| format!("layer {layer}")).collect(),
        columns,
        shades: record.values.iter().map(|row| row.iter().map(shade).collect()).collect(),
        texts: record.values.iter().map(|row| row.iter().map(|value| record.shown(*value)).collect()).collect(),
        key: ["-100%".into(), "0%".into(), "100%".into()],
        remark: "0% as the corrupt run, 100% as the clean one",
    };
    save(path, picture.draw(), theme)
}
