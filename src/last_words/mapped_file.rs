//! What is said of a mapped file that is cut short while it is in use.

use std::fs::File;
use std::io::{Read, Write};

use gpt2::printable::is_printable;

use super::{LONGEST, Line, end};

/// From now on, a mapped file that ends before its map does is an error that names the file.
///
/// This replaces the handler of Rust's library, which would restore the default action while this one runs: a second
/// thread that reads the same file would then kill the program. On Linux, that handler knows stack overflows by `SIGSEGV`.
pub fn report() {
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
