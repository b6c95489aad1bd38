//! Memory in large pages. Reading weights from end to end is a quarter faster from them, because the CPU looks up fewer
//! addresses.

use std::sync::OnceLock;

use memmap2::MmapMut;

use super::memory::readable;
use crate::error::{Error, Result};

/// Whether the system grants large pages on request.
pub(crate) fn has_large_pages() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
        setting.is_ok_and(|setting| !setting.contains("[never]"))
    })
}

/// `len` zeroed bytes, in large pages if the system has them.
///
/// # Errors
/// [`Error::OutOfMemory`] if there is not enough memory.
pub(crate) fn large_pages(len: usize) -> Result<MmapMut> {
    let memory = MmapMut::map_anon(len)
        .map_err(|source| Error::OutOfMemory(format!("cannot get {} of memory: {source}", readable(len as u64))))?;
    // Small pages work too, only slower.
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    Ok(memory)
}
