//! The ends of this program that no error value can reach: memory that the system refuses to an allocation, and a mapped
//! file that is cut short while it is in use. Each leaves one line on stderr and exit code 1.
//!
//! Nothing here may allocate or take a lock: the thread may hold any.

#[cfg(unix)]
mod mapped_file;

#[cfg(not(target_env = "musl"))]
use std::alloc::System as Memory;
use std::alloc::{GlobalAlloc, Layout};
use std::io::{Cursor, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[cfg(target_env = "musl")]
use mimalloc::MiMalloc as Memory;

// Windows lets nobody cut a file that is mapped.
#[cfg(unix)]
pub use mapped_file::report as report_cut_files;

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
    let _ = writeln!(line, "error: out of memory: the system refuses {size} bytes more");
    end(line)
}

/// A line of output on the stack. What goes beyond its longest, a path and a few words, is cut off.
type Line = Cursor<[u8; LONGEST]>;

const LONGEST: usize = 6000;

/// Writes the line and ends the program, once.
fn end(line: Line) -> ! {
    const STDERR: libc::c_int = 2;
    static ENDING: AtomicBool = AtomicBool::new(false);
    if ENDING.swap(true, Ordering::Relaxed) {
        loop {
            // Another thread is about to end the program.
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    let text = &line.get_ref()[..line.position() as usize];
    // SAFETY: the bytes are valid for their length, and the program may end at any time.
    unsafe {
        libc::write(STDERR, text.as_ptr().cast(), text.len() as _);
        libc::_exit(1)
    }
}
