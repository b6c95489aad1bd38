//! Recognising weights without reading all of them.

use sha2::{Digest, Sha256};

use super::{Checkpoint, Tensor};

/// Bytes that are read in each place.
const PART: usize = 256;
/// Places that are read in each tensor.
const PLACES: usize = 4;

impl Checkpoint {
    /// Identifies weights by samples of each tensor: training changes them all, so the weights of two models that anybody
    /// has trained differ. It is no proof against weights that are made to look alike.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        let mut tensors: Vec<&Tensor> = self.tensors().map(|(_, tensor)| tensor).collect();
        tensors.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        for tensor in tensors {
            hash.update(format!("{} {} {:?}\0", tensor.name, tensor.dtype, tensor.shape));
            let bytes: &[u8] = &tensor.bytes;
            let last = bytes.len().saturating_sub(PART);
            for place in 0..PLACES {
                let start = last / (PLACES - 1) * place;
                hash.update(&bytes[start..(start + PART).min(bytes.len())]);
            }
        }
        hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
