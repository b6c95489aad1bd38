//! How much memory is available, as Linux tells it (`/proc`, control groups v1 and v2), and the check before more of it is
//! taken. Unknown on other systems.
//!
//! Linux grants memory that it does not have and kills a process once it uses it. So nothing large is taken before it is
//! certain to be there.
//!
//! Reference: `proc(5)`, the kernel's `admin-guide/cgroup-v2.rst` and `cgroup-v1/memory.rst`.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Memory that this process can still get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Available {
    /// Bytes, including mapped files.
    pub bytes: u64,
    /// What sets the limit, in words.
    pub limit: &'static str,
    /// Bytes of address space left, if limited. Mapped files are already counted.
    pub address_space: Option<u64>,
}

impl Available {
    /// The tightest limit: bytes that can still be allocated, and what sets the limit.
    #[must_use]
    pub fn left(&self) -> (u64, &'static str) {
        match self.address_space {
            Some(left) if left < self.bytes => (left, "address space (ulimit -v)"),
            _ => (self.bytes, self.limit),
        }
    }
}

/// What is left to whoever plans ahead, and what sets the limit: a part is kept for what is too small to plan.
#[must_use]
pub(crate) fn room() -> Option<(u64, &'static str)> {
    let (left, limit) = available()?.left();
    Some((without_reserve(left), limit))
}

fn without_reserve(left: u64) -> u64 {
    const RESERVE: u64 = 32 << 20;
    left - RESERVE.min(left / 8)
}

/// Rejects work, called `what`, that takes more memory than is available.
///
/// # Errors
/// [`Error::OutOfMemory`], with what is needed and what is available.
pub fn require_bytes(what: &str, bytes: u64) -> Result<()> {
    let lacking = || room().filter(|(left, _)| *left < bytes);
    if lacking().is_none() {
        return Ok(());
    }
    give_back_unused();
    let Some((left, limit)) = lacking() else { return Ok(()) };
    Err(Error::OutOfMemory(format!(
        "{what} takes {} of memory and {} are available ({limit})",
        readable(bytes),
        readable(left)
    )))
}

/// Gives memory back to the system that the allocator keeps after it was freed. It keeps up to 64 MB, which count as used.
fn give_back_unused() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: a call without conditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The same for memory that is taken in small steps: the system is only asked once they add up.
pub(crate) fn take(what: &str, bytes: u64) -> Result<()> {
    /// What may be taken before the system is asked again.
    static CREDIT: AtomicU64 = AtomicU64::new(0);
    if CREDIT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |credit| credit.checked_sub(bytes)).is_ok() {
        return Ok(());
    }
    require_bytes(what, bytes)?;
    // Others take memory too, and what was granted is not all in use yet.
    CREDIT.store(room().map_or(u64::MAX, |(left, _)| left.saturating_sub(bytes) / 8), Ordering::Relaxed);
    Ok(())
}

/// Makes a buffer hold `len` numbers; new ones are 0. It grows to what is asked for and not further.
///
/// # Errors
/// [`Error::OutOfMemory`] if there is not enough memory.
pub(crate) fn resize(what: &str, buffer: &mut Vec<f32>, len: usize) -> Result<()> {
    if len > buffer.capacity() {
        take(what, ((len - buffer.capacity()) * size_of::<f32>()) as u64)?;
        if buffer.capacity() == 0 {
            // The system has zeros for nothing.
            *buffer = vec![0.0; len];
            return Ok(());
        }
        buffer.reserve_exact(len - buffer.len());
    }
    buffer.resize(len, 0.0);
    Ok(())
}

/// A human-readable number of bytes: `36.86 kB`, `497.76 MB`, `6.23 GB`, in powers of 1000.
#[must_use]
pub fn readable(bytes: u64) -> String {
    let bytes = bytes as f64;
    match [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")].into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.2} {name}", bytes / unit),
        None => format!("{bytes} B"),
    }
}

/// The memory available to this process; `None` if the system does not tell.
#[must_use]
pub fn available() -> Option<Available> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = field(&read("/proc/meminfo")?, "MemAvailable:")?;
    let group = read("/proc/self/cgroup").and_then(|groups| control_group(Path::new("/sys/fs/cgroup"), &groups));
    let (bytes, limit) = match group {
        Some(group) if group < machine => (group, "control group"),
        _ => (machine, "machine"),
    };
    let status = read("/proc/self/status")?;
    let address_space = read("/proc/self/limits").and_then(|limits| address_space(&limits, &status));
    Some(Available { bytes, limit, address_space })
}

/// The peak memory use of this process, including mapped files; only known on Linux.
#[must_use]
pub fn peak() -> Option<u64> {
    field(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// A field in kB of `/proc/meminfo` or `/proc/self/status`, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// Address space left under the soft limit in `/proc/self/limits`.
fn address_space(limits: &str, status: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    let limit: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(limit.saturating_sub(field(status, "VmSize:")?))
}

/// What a process's control groups leave it: the minimum over its own group and those around it. `groups` is the
/// content of `/proc/self/cgroup`, `root` the folder where the file systems are mounted.
fn control_group(root: &Path, groups: &str) -> Option<u64> {
    let versions = groups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        match controllers {
            "" => Some((root.to_owned(), path, ["memory.max", "memory.current"])),
            _ if controllers.split(',').any(|name| name == "memory") => {
                Some((root.join("memory"), path, ["memory.limit_in_bytes", "memory.usage_in_bytes"]))
            }
            _ => None,
        }
    });
    let left = versions.flat_map(|(mount, path, files)| {
        let own = mount.join(path.trim_start_matches('/'));
        // In a container, the group's own folder is often what is mounted.
        let folders: Vec<_> =
            own.ancestors().take_while(|folder| folder.starts_with(&mount)).map(Path::to_owned).collect();
        folders.into_iter().filter_map(move |folder| group_left(&folder, files))
    });
    left.min()
}

/// What one group leaves: its limit minus its use; cached files do not count as used, since they can be dropped.
fn group_left(folder: &Path, [limit, usage]: [&str; 2]) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let (limit, usage) = (number(limit)?, number(usage)?);
    let statistics = read("memory.stat").unwrap_or_default();
    let statistic = |name: &str| {
        let value = statistics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.trim().parse::<u64>().ok())
    };
    // Version 1 includes nested groups only in the totals.
    let files = ["inactive_file", "active_file"]
        .map(|name| statistic(&format!("total_{name}")).or_else(|| statistic(name)).unwrap_or(0));
    Some(limit.saturating_sub(usage.saturating_sub(files.iter().sum())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_numbers_are_read() {
        assert_eq!(field("MemTotal:  9 kB\nMemAvailable:   24016 kB\n", "MemAvailable:"), Some(24016 * 1024));
        assert_eq!(field("MemAvailable: many\n", "MemAvailable:"), None);
        let status = "VmPeak: 9 kB\nVmSize:\t    1000 kB\n";
        let limits = |soft: &str| {
            format!("Limit  Soft Limit  Hard Limit  Units\nMax address space         {soft}   unlimited   bytes\n")
        };
        assert_eq!(address_space(&limits("1524000"), status), Some(500_000));
        assert_eq!(address_space(&limits("5"), status), Some(0));
        assert_eq!(address_space(&limits("unlimited"), status), None);
    }

    #[test]
    fn bytes_are_readable() {
        for (bytes, text) in
            [(0, "0 B"), (999, "999 B"), (36_864, "36.86 kB"), (497_760_000, "497.76 MB"), (6_230_000_000, "6.23 GB")]
        {
            assert_eq!(readable(bytes), text);
        }
    }

    #[test]
    fn the_tightest_control_group_counts_and_cached_files_do_not() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(control_group(root.path(), "0::/a/b\n"), None);
        write("a/memory.max", "1000\n");
        write("a/memory.current", "700\n");
        write("a/memory.stat", "anon 5\ninactive_file 100\nactive_file 20\n");
        write("a/b/memory.max", "max\n");
        write("a/b/memory.current", "1\n");
        assert_eq!(control_group(root.path(), "0::/a/b\n"), Some(420));
        write("memory/c/memory.limit_in_bytes", "500\n");
        write("memory/c/memory.usage_in_bytes", "400\n");
        write("memory/c/memory.stat", "inactive_file 1\ntotal_inactive_file 50\ntotal_active_file 0\n");
        assert_eq!(control_group(root.path(), "5:cpu:/x\n4:memory:/c\n0::/\n"), Some(150));
        assert_eq!(control_group(root.path(), "4:memory:/c\n0::/a/b\n"), Some(150));
        assert_eq!(control_group(root.path(), "no groups"), None);
    }
}
