//! The kernels on the CPU, compiled as C++ (`emulator.hpp`): the same arithmetic and indices, for tests without a GPU.
//! It is slow, and has the same interface as the GPU.

use std::cell::UnsafeCell;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};

use candle_core::{Device, Shape, Tensor};

use super::arguments::Arguments;
use super::kernel::Kernel;
use crate::base::FloatType;
use crate::error::{Error, Result};
use crate::model::to_host;

unsafe extern "C" {
    fn gpt2_emulate(
        kernel: *const c_char,
        grid: *const c_uint,
        threads: c_uint,
        shared_bytes: usize,
        arguments: *const c_void,
        arguments_bytes: usize,
    ) -> c_int;
}

/// The emulator.
#[derive(Debug, Clone)]
pub struct Gpu;

/// Host memory that stands in for a GPU's.
#[derive(Debug)]
pub struct Memory {
    // In units of 16 bytes, the alignment of vector reads.
    cells: Box<[UnsafeCell<u128>]>,
    len: usize,
}

// SAFETY: kernels and copies run on the thread that asks for them, and only one thread uses a cache at a time.
unsafe impl Send for Memory {}
// SAFETY: the same; weights are never written after they are loaded.
unsafe impl Sync for Memory {}

impl Memory {
    /// Its address.
    pub fn address(&self) -> u64 {
        self.cells.as_ptr() as u64
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    fn at(&self, at: usize, bytes: usize) -> *mut u8 {
        assert!(at + bytes <= self.len, "within the memory");
        // SAFETY: within the allocation.
        unsafe { self.cells.as_ptr().cast::<u8>().cast_mut().add(at) }
    }
}

/// Host memory that the GPU can access.
#[derive(Debug)]
pub struct Staging(Vec<u8>);

impl Staging {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, for writing.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// Never made here: launches run at once.
#[derive(Debug)]
pub struct Graph;

impl Gpu {
    /// The pretended number of multiprocessors: low, so that tests reach the code paths for many rows.
    pub fn processors(&self) -> usize {
        4
    }

    /// The most dynamic shared memory that a kernel may be launched with.
    pub fn most_shared(&self, kernel: Kernel, _numbers: FloatType) -> usize {
        kernel.most_shared()
    }

    /// Zeroed memory.
    pub fn zeros(&self, bytes: usize) -> Result<Memory> {
        let len = bytes.max(1);
        Ok(Memory { cells: (0..len.div_ceil(16)).map(|_| UnsafeCell::new(0)).collect(), len })
    }

    /// Zeroed host memory.
    pub fn staging(&self, bytes: usize) -> Result<Staging> {
        Ok(Staging(vec![0; bytes.max(1)]))
    }

    /// Runs a kernel.
    pub fn launch<A: Arguments>(
        &self,
        kernel: Kernel,
        numbers: FloatType,
        grid: [u32; 3],
        shared: usize,
        arguments: &A,
        _overlaps: bool,
    ) -> Result<()> {
        let name = kernel.name(numbers).expect("the kernel exists for this type");
        let c_name = CString::new(name.as_str()).expect("a name without NUL");
        let arguments = std::ptr::from_ref(arguments).cast();
        // SAFETY: `Arguments` guarantees that the kernel takes one argument of this type.
        let status = unsafe {
            gpt2_emulate(c_name.as_ptr(), grid.as_ptr(), kernel.threads(), shared, arguments, size_of::<A>())
        };
        if status == 0 { Ok(()) } else { Err(Error::Unsupported(format!("the emulator cannot run {name}: {status}"))) }
    }

    /// Copies bytes to the memory.
    pub fn upload(&self, from: &[u8], to: &Memory, at: usize) -> Result<()> {
        // SAFETY: `at` checks that they fit; nothing else uses the memory meanwhile.
        unsafe { to.at(at, from.len()).copy_from(from.as_ptr(), from.len()) };
        Ok(())
    }

    /// Copies bytes from the memory.
    pub fn download(&self, from: &Memory, at: usize, to: &mut [u8]) -> Result<()> {
        // SAFETY: `at` checks that they are in range; nothing else uses the memory meanwhile.
        unsafe { from.at(at, to.len()).copy_to(to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    /// Copies within the memory.
    pub fn copy(&self, from: (&Memory, usize), to: (&Memory, usize), bytes: usize) -> Result<()> {
        // SAFETY: `at` checks that both ranges are within their memory.
        unsafe { to.0.at(to.1, bytes).copy_from(from.0.at(from.1, bytes), bytes) };
        Ok(())
    }

    /// Fills memory with zeros.
    pub fn clear(&self, memory: &Memory, at: usize, bytes: usize) -> Result<()> {
        // SAFETY: within the memory.
        unsafe { memory.at(at, bytes).write_bytes(0, bytes) };
        Ok(())
    }

    /// Copies the first bytes of `from` to the memory.
    pub fn send(&self, from: &Staging, bytes: usize, to: &Memory) -> Result<()> {
        self.upload(&from.0[..bytes], to, 0)
    }

    /// Copies the first bytes of `from` to the host, to position `at`.
    pub fn receive(&self, from: &Memory, bytes: usize, to: &mut Staging, at: usize) -> Result<()> {
        self.download(from, 0, &mut to.0[at..at + bytes])
    }

    /// Nothing to wait for: everything runs at once.
    pub fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    /// Records nothing.
    pub fn capture(&self, _work: impl FnOnce() -> Result<()>) -> Result<Option<Graph>> {
        Ok(None)
    }

    /// Nothing to run.
    pub fn replay(&self, _graph: &Graph) -> Result<()> {
        Ok(())
    }

    /// A tensor of f32 with the numbers of `memory`.
    pub fn tensor(&self, memory: Memory, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        let mut bytes = vec![0; shape.elem_count() * size_of::<f32>()];
        self.download(&memory, 0, &mut bytes)?;
        let numbers: Vec<f32> = bytes.as_chunks().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)).collect();
        Ok(Tensor::from_vec(numbers, shape, &Device::Cpu)?)
    }

    /// A copy of a tensor's numbers as f32, in row-major order.
    pub fn memory(&self, tensor: &Tensor) -> Result<Memory> {
        let bytes: Vec<u8> = to_host(tensor)?.iter().flat_map(|x| x.to_ne_bytes()).collect();
        let memory = self.zeros(bytes.len())?;
        self.upload(&bytes, &memory, 0)?;
        Ok(memory)
    }
}
