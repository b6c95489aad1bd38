//! The ends of this program that no error value can reach: memory that the system refuses to an allocation, and a mapped
//! file that is cut short while it is in use. Each leaves one line on stderr and exit code 1.
//!
//! Nothing here may allocate or take a lock: the thread may hold any.

#[cfg(not(target_env = "musl"))]
use std::alloc::System as Memory;
use std::alloc::{GlobalAlloc, Layout};
use std::fs::File;
use std::io::{Cursor, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use gpt2::printable::is_printable;
#[cfg(target_env = "musl")]
use mimalloc::MiMalloc as Memory;

/// The system's allocator, or with musl a faster one, which ends the program if there is no memory. By itself, Rust would
/// abort it.
pub struct Allocator;

// SAFETY: everything is left to that allocator.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        granted(unsafe { Memory.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        granted(unsafe { Memory.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        granted(unsafe { Memory.realloc(memory, layout, size) }, size)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { Memory.dealloc(memory, layout) }
    }
}

#[inline]
fn granted(memory: *mut u8, size: usize) -> *mut u8 {
    if memory.is_null() {
        refused(size);
    }
    memory
}

#[cold]
fn refused(size: usize) -> ! {
    let mut line = Line::new([0; LONGEST]);
    let _ = writeln!(line, "error: out of memory: the system refuses {:.2} MB more", size as f64 / 1e6);
    end(line)
}

/// From now on, a mapped file that ends before its map does is an error that names the file.
///
/// This replaces the handler of Rust's library, which would restore the default action while this one runs: a second
/// thread that reads the same file would then kill the program. On Linux, that handler knows stack overflows by `SIGSEGV`.
pub fn of_mapped_files() {
    let handler: extern "C" fn(libc::c_int, *const libc::siginfo_t, *mut libc::c_void) = mapped_file_was_cut;
    // SAFETY: all zeros are a valid action, with an empty mask. The handler uses nothing but its own stack, system calls
    // and an atomic. If it cannot be registered, the system ends the program instead.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
    }
}

extern "C" fn mapped_file_was_cut(_: libc::c_int, info: *const libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the system hands over a valid `info`, with the address for this signal.
    let address = unsafe { (*info).si_addr() } as usize;
    let mut line = Line::new([0; LONGEST]);
    let _ = line.write_all(b"error: ");
    let _ = match write_path_at(address, &mut line) {
        Some(()) => line.write_all(b": the file was cut short, or its disk failed, while it was in use\n"),
        None => line.write_all(b"memory could not be read (SIGBUS)\n"),
    };
    end(line)
}

/// A line of output on the stack. What goes beyond its longest, a path and a few words, is cut off.
type Line = Cursor<[u8; LONGEST]>;

const LONGEST: usize = 6000;

/// Writes the path of the file that is mapped at `address`, as far as the system tells.
fn write_path_at(address: usize, line: &mut Line) -> Option<()> {
    let mut maps = File::open("/proc/self/maps").ok()?;
    let (mut chunk, mut entry) = ([0; 2048], [0; 5000]);
    let mut len = 0;
    loop {
        let read = maps.read(&mut chunk).ok().filter(|read| *read > 0)?;
        for byte in &chunk[..read] {
            if *byte != b'\n' {
                if len < entry.len() {
                    entry[len] = *byte;
                    len += 1;
                }
                continue;
            }
            if let Some(path) = path_if_at(address, &entry[..len]) {
                write_visible(path, line);
                return Some(());
            }
            len = 0;
        }
    }
}

/// The path in an entry of the table of maps, if the address is in its range: `7f01-7f02 r--p 00000000 08:01 42   /a b`.
fn path_if_at(address: usize, entry: &[u8]) -> Option<&[u8]> {
    let range = std::str::from_utf8(entry.split(|byte| *byte == b' ').next()?).ok()?;
    let (start, end) = range.split_once('-')?;
    let [start, end] = [start, end].map(|bound| usize::from_str_radix(bound, 16).ok());
    let path = entry.iter().position(|byte| *byte == b'/')?;
    (start? <= address && address < end?).then(|| &entry[path..])
}

/// Writes a path without what would drive a terminal.
fn write_visible(path: &[u8], line: &mut Line) {
    for chunk in path.utf8_chunks() {
        for letter in chunk.valid().chars() {
            let _ = match is_printable(letter) {
                true => write!(line, "{letter}"),
                false => write!(line, "{}", letter.escape_unicode()),
            };
        }
        for byte in chunk.invalid() {
            let _ = write!(line, "\\x{byte:02x}");
        }
    }
}

/// Writes the line and ends the program, once.
fn end(line: Line) -> ! {
    static ENDING: AtomicBool = AtomicBool::new(false);
    if ENDING.swap(true, Ordering::Relaxed) {
        loop {
            // SAFETY: a system call that waits for a signal. Another thread is about to end the program.
            unsafe { libc::pause() };
        }
    }
    let text = &line.get_ref()[..line.position() as usize];
    // SAFETY: the bytes are valid for their length, and the program may end at any time.
    unsafe {
        libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len());
        libc::_exit(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_map_is_found_by_address() {
        let entry = b"7f00-7f80 r--p 00000000 08:01 42                    /models/a b/m.safetensors";
        assert_eq!(path_if_at(0x7f00, entry), Some(&b"/models/a b/m.safetensors"[..]));
        assert_eq!(path_if_at(0x7f80, entry), None);
        assert_eq!(path_if_at(0x10, b"00-ff rw-p 00000000 00:00 0     [heap]"), None);
        let mut line = Line::new([0; LONGEST]);
        write_visible(b"/a\x1b]0;b\xff\xc2\x9b", &mut line);
        assert_eq!(&line.get_ref()[..line.position() as usize], b"/a\\u{1b}]0;b\\xff\\u{9b}");
    }
}
