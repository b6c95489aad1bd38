//! Intel AMX: products of tiles, registers of up to 16 rows of 64 bytes.
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
use std::marker::PhantomData;

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

/// Rows of a tile, and its columns of 32 bits.
pub const SIDE: usize = 16;

/// The configuration of the tiles of the calling thread, until dropped.
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

impl Amx {
    /// For products over `depth` bytes, a multiple of 4 up to 64.
    ///
    /// # Safety
    /// [`allowed`] said so, and the thread has no other such value.
    pub unsafe fn configure(depth: usize) -> Self {
        let mut shapes = Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        let side = SIDE as u8;
        for (tile, (rows, row_bytes)) in
            [(side, depth as u16), ((depth / 4) as u8, 64), (side, 64)].into_iter().enumerate()
        {
            (shapes.rows[tile], shapes.row_bytes[tile]) = (rows, row_bytes);
        }
        // SAFETY: the caller promises the instruction; 64 bytes are read, which are a valid configuration.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const shapes, options(nostack, readonly, preserves_flags)) };
        Self { _thread: PhantomData }
    }

    /// `sums[m][n] = Σ a[m][k] * b[k / 4][n][k % 4]` over `depth` signed bytes `k`, with 16 `m` and `n`. The rows of `a`
    /// are `a_stride` bytes apart, those of `b` `b_stride`.
    ///
    /// # Safety
    /// `a` has 16 rows of `depth` bytes, `b` `depth / 4` rows of 64, and `sums` room for 16 rows of 16 numbers.
    #[inline(always)]
    pub unsafe fn multiply(&self, a: *const i8, a_stride: usize, b: *const i32, b_stride: usize, sums: *mut i32) {
        // SAFETY: the tiles are configured, so the instructions are there and touch just what the caller promises.
        unsafe {
            asm!(
                "tileloadd tmm0, [{a} + {a_stride}]",
                "tileloadd tmm1, [{b} + {b_stride}]",
                "tilezero tmm2",
                "tdpbssd tmm2, tmm0, tmm1",
                "tilestored [{sums} + {sums_stride}], tmm2",
                a = in(reg) a,
                a_stride = in(reg) a_stride,
                b = in(reg) b,
                b_stride = in(reg) b_stride,
                sums = in(reg) sums,
                sums_stride = in(reg) 4 * SIDE,
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
        // SAFETY: `configure` was promised the instructions. The thread has no state of tiles from here on.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}
