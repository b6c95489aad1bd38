//! Intel AMX: a unit that multiplies matrices of bytes, which it keeps in registers of up to 16 rows of 64 bytes. Intel
//! calls these tiles; the word means that in this file alone.
//!
//! One instruction multiplies 16 rows of bytes with 16 columns. Rust has no stable intrinsics for these instructions,
//! so they are written out here. Linux keeps the 8 KiB of tiles for the threads that use them alone, and only of
//! processes that asked; so a thread configures its tiles for one task and releases them after it, and pays for them at
//! no other time.
//!
//! Reference: Intel's Software Developer's Manual, volume 1, "Programming with Intel Advanced Matrix Extensions";
//! Linux, `Documentation/arch/x86/xstate.rst`.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::cell::Cell;
use std::marker::PhantomData;

use super::{LANES, Level, MatrixUnit, level};

/// Whether the processor multiplies tiles of bytes and the system lets this process do so, for which it is asked.
pub fn allowed() -> bool {
    const TILES_OF_BYTES: u32 = 1 << 24 | 1 << 25;
    // Not before the processor is known to have them: other systems have other answers to the question.
    __cpuid_count(7, 0).edx & TILES_OF_BYTES == TILES_OF_BYTES && ask()
}

/// Asks for the tiles' state, for all threads of the process. Linux refuses where it has switched tiles off, and before
/// 5.16, which does not know them.
#[cfg(target_os = "linux")]
fn ask() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    // SAFETY: takes two numbers and touches no memory of the process.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn ask() -> bool {
    false
}

thread_local! {
    /// Whether the thread's tiles are configured.
    static CONFIGURED: Cell<bool> = const { Cell::new(false) };
}

/// The configuration of the tiles of the calling thread, until dropped. A thread has one at a time.
pub struct Amx {
    /// It belongs to its thread.
    _thread: PhantomData<*const ()>,
}

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl MatrixUnit for Amx {
    fn configure(depth: usize) -> Option<Self> {
        assert!(depth <= 64 && depth.is_multiple_of(4), "bytes of a tile's row");
        if level() != Level::Amx || CONFIGURED.replace(true) {
            return None;
        }
        let mut shapes = Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        let side = LANES as u8;
        for (tile, (rows, row_bytes)) in
            [(side, depth as u16), ((depth / 4) as u8, 64), (side, 64)].into_iter().enumerate()
        {
            (shapes.rows[tile], shapes.row_bytes[tile]) = (rows, row_bytes);
        }
        // SAFETY: the level says that the instruction is there; 64 bytes are read, which are a valid configuration. No other
        // value of the thread relies on the tiles.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const shapes, options(nostack, readonly, preserves_flags)) };
        Some(Self { _thread: PhantomData })
    }

    #[inline(always)]
    unsafe fn multiply(
        &self,
        x: *const i8,
        x_stride: usize,
        weights: *const i32,
        weights_stride: usize,
        sums: &mut [[i32; LANES]; LANES],
    ) {
        // SAFETY: the tiles are configured, so the instructions are there and touch just what the caller promises, and the
        // 16 rows of `sums`.
        unsafe {
            asm!(
                "tileloadd tmm0, [{x} + {x_stride}]",
                "tileloadd tmm1, [{weights} + {weights_stride}]",
                "tilezero tmm2",
                "tdpbssd tmm2, tmm0, tmm1",
                "tilestored [{sums} + {sums_stride}], tmm2",
                x = in(reg) x,
                x_stride = in(reg) x_stride,
                weights = in(reg) weights,
                weights_stride = in(reg) weights_stride,
                sums = in(reg) sums.as_mut_ptr(),
                sums_stride = in(reg) 4 * LANES,
                out("tmm0") _,
                out("tmm1") _,
                out("tmm2") _,
                options(nostack, preserves_flags),
            );
        }
    }
}

impl Drop for Amx {
    fn drop(&mut self) {
        // SAFETY: the value shows that the instruction is there. The thread has no state of tiles from here on.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
        CONFIGURED.set(false);
    }
}
