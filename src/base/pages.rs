//! Memory in large pages: what is read from end to end, as weights are, is read a quarter faster from them, because fewer
//! addresses have to be looked up.

use std::sync::OnceLock;

use memmap2::MmapMut;

use crate::error::{Error, Result};

/// Whether the system gives large pages to those who ask.
pub(crate) fn has_large_pages() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
        setting.is_ok_and(|setting| !setting.contains("[never]"))
    })
}

/// `len` bytes of memory, zeros, in large pages where the system gives them.
///
/// # Errors
/// [`Error::Unsupported`] if there is not so much.
pub(crate) fn large_pages(len: usize) -> Result<MmapMut> {
    let memory = MmapMut::map_anon(len).map_err(|source| {
        Error::Unsupported(format!("cannot get {} MB of memory: {source}", len.div_ceil(1_000_000)))
    })?;
    // Memory in small pages is as good, only slower.
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    Ok(memory)
}
