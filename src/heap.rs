//! How the allocator uses memory that is short.

use gpt2::memory;

/// Keeps to what is needed if memory is short or address space is limited. By itself, the allocator of glibc reserves
/// 64 MB of address space for each thread, and comes to serve large buffers from a heap in which others leave holes.
pub fn spare_memory() {
    /// With less than this, time matters less than memory.
    const SHORT: u64 = 1 << 30;
    /// Buffers of this size have memory of their own, which is given back when they are freed.
    const LARGE: libc::c_int = 1 << 20;
    let Some(available) = memory::available() else { return };
    if available.address_space.is_some() || available.bytes < SHORT {
        // SAFETY: there are no other threads yet; what is not understood is ignored.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, 1);
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        }
    }
}
