//! Whether standard input or output was closed before the program began (`<&-`, `>&-`). Rust's library then opens `/dev/null`
//! in its place, so that nothing is read, or what is written is lost, without an error.

use std::io;

#[cfg(any(target_os = "linux", target_os = "macos"))]
mod at_start {
    use std::sync::atomic::{AtomicBool, Ordering};

    static WAS_CLOSED: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];

    /// Runs before Rust's library has opened anything.
    #[used]
    #[cfg_attr(target_os = "linux", unsafe(link_section = ".init_array"))]
    #[cfg_attr(target_os = "macos", unsafe(link_section = "__DATA,__mod_init_func"))]
    static LOOK: extern "C" fn() = look;

    extern "C" fn look() {
        for stream in [libc::STDIN_FILENO, libc::STDOUT_FILENO] {
            // SAFETY: any number may be asked about, and nothing is changed.
            let flags = unsafe { libc::fcntl(stream, libc::F_GETFD) };
            WAS_CLOSED[stream as usize].store(flags == -1, Ordering::Relaxed);
        }
    }

    pub fn check(stream: i32) -> std::io::Result<()> {
        match WAS_CLOSED[stream as usize].load(Ordering::Relaxed) {
            true => Err(std::io::Error::other("it is closed")),
            false => Ok(()),
        }
    }
}

/// Fails if there is nowhere to write to.
pub fn check() -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    at_start::check(libc::STDOUT_FILENO)?;
    Ok(())
}

/// Fails if there is nowhere to read from.
pub fn check_stdin() -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    at_start::check(libc::STDIN_FILENO)?;
    Ok(())
}
