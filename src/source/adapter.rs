//! LoRA adapters by name: a folder, or an id on the hub.

use std::path::Path;

use super::local::Place;
use super::{SourceOptions, hub, is_hub_id};
use crate::checkpoint::lora::Adapter;
use crate::error::{Error, Result};
use crate::files::SmallFile;

/// Finds and opens the adapter called `name`: a folder, a file in one, or `owner/name` on the hub.
pub(super) fn open(name: &str, options: &SourceOptions<'_>) -> Result<Adapter> {
    let path = Path::new(name);
    if path.is_dir() {
        Adapter::in_folder(path)
    } else if path.is_file() {
        Adapter::in_folder(path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")))
    } else if is_hub_id(name) {
        hub::open_adapter(name, options)
    } else {
        Err(Error::Source(format!("adapter `{name}`: no such folder, and no id on the hub, `owner/name`")))
    }
}

/// Opens the adapter in `place`.
pub(super) fn in_place(place: &dyn Place) -> Result<Adapter> {
    let lacks = |what: &str| Error::Source(format!("{} is not a LoRA adapter: it has no {what}", place.describe()));
    let config = place.file(Adapter::CONFIG)?.ok_or_else(|| lacks(Adapter::CONFIG))?;
    let [safetensors, pytorch] = Adapter::WEIGHTS;
    let weights = match place.file(safetensors)? {
        Some(path) => Some(path),
        None => place.file(pytorch)?,
    };
    let weights = weights.ok_or_else(|| lacks(&Adapter::WEIGHTS.join(" or ")))?;
    Adapter::open(&SmallFile::new(config, Adapter::LARGEST_CONFIG), &weights)
}
