//! The layers of a network, which may be packed after some passes.

use std::sync::{Mutex, OnceLock};

use super::layers::Layers;
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::loader::Loader;
use crate::model::weights::{Packing, Target, WeightType};

/// Passes with unpacked matrices: a few of them take as much more time as packing takes.
const PASSES: usize = 4;

/// The layers as they were loaded and, once they are packed, as they are then.
#[derive(Debug)]
pub struct Packable {
    loaded: Layers,
    packed: OnceLock<Layers>,
    /// Nothing once they are packed, or if there was nothing to pack.
    later: Mutex<Option<Later>>,
}

/// What packing takes.
#[derive(Debug)]
struct Later {
    checkpoint: Checkpoint,
    weights: WeightType,
    /// Passes so far.
    passes: usize,
}

impl Packable {
    /// Loads the layers.
    pub fn load(checkpoint: &Checkpoint, config: &Config, weights: WeightType, packing: Packing) -> Result<Self> {
        let loader = Loader::new(checkpoint, config, weights, Target::Kernels(packing))?;
        let later = loader.in_place().then(|| Later { checkpoint: checkpoint.clone(), weights, passes: 0 });
        Ok(Self { loaded: Layers::load(&loader)?, packed: OnceLock::new(), later: Mutex::new(later) })
    }

    /// The layers as they are now.
    pub fn get(&self) -> &Layers {
        self.packed.get().unwrap_or(&self.loaded)
    }

    /// The layers for a pass, before which they may be packed. Where there is no memory for that, they stay as they are.
    ///
    /// # Errors
    /// Those of loading, if the file has changed.
    pub fn for_pass(&self, config: &Config) -> Result<&Layers> {
        // Passes at the same time as one that packs go on without.
        if let Ok(mut later) = self.later.try_lock()
            && let Some(waiting) = &mut *later
        {
            waiting.passes += 1;
            if waiting.passes > PASSES
                && let Some(Later { checkpoint, weights, .. }) = later.take()
            {
                let target = Target::Kernels(Packing::AtOnce);
                match Loader::new(&checkpoint, config, weights, target).and_then(|loader| Layers::load(&loader)) {
                    Ok(layers) => {
                        check_unchanged(&checkpoint)?;
                        let _ = self.packed.set(layers);
                    }
                    Err(Error::OutOfMemory(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(self.get())
    }

    /// Checks, after a pass, that it did not read a file that was being changed.
    ///
    /// # Errors
    /// [`Error::Format`] if it did.
    pub fn check_unchanged(&self) -> Result<()> {
        match self.later.try_lock().as_deref() {
            Ok(Some(later)) => check_unchanged(&later.checkpoint),
            _ => Ok(()),
        }
    }
}

fn check_unchanged(checkpoint: &Checkpoint) -> Result<()> {
    checkpoint.tensors().try_for_each(|(_, tensor)| tensor.bytes.check_unchanged())
}
