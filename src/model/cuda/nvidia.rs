//! An NVIDIA GPU: memory, copies, launches and graphs on candle's stream, so that candle's tensors and these kernels
//! see each other's results in order.

use std::ffi::c_void;
use std::sync::{Arc, PoisonError};

use candle_core::cuda::cudarc::driver::{CudaFunction, CudaSlice, CudaStream, DevicePtr, result, sys};
use candle_core::cuda::{CudaDevice, CudaStorage, WrapErr, cudarc};
use candle_core::{DType, Device, Shape, Storage, Tensor};

use super::arguments::Arguments;
use super::kernel::Kernel;
use crate::base::FloatType;
use crate::device::OPENING_OR_RECORDING;
use crate::error::{Error, Result};

/// Machine code for compute capability 8.0 and 9.0, and PTX for later ones.
static KERNELS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kernels.fatbin"));

/// A GPU with the kernels.
#[derive(Debug, Clone)]
pub struct Gpu(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    device: CudaDevice,
    stream: Arc<CudaStream>,
    /// By kernel and type.
    functions: Vec<Option<CudaFunction>>,
    /// The most dynamic shared memory that each may be launched with.
    shared: Vec<usize>,
    /// Whether a kernel can start before the previous one has ended: compute capability 9.0 or higher.
    overlaps: bool,
    processors: usize,
}

/// Memory of the GPU.
#[derive(Debug)]
pub struct Memory {
    slice: CudaSlice<u8>,
    address: u64,
}

impl Memory {
    /// Its address.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.slice.len()
    }
}

/// Host memory that the GPU can access.
#[derive(Debug)]
pub struct Staging {
    at: *mut u8,
    len: usize,
    gpu: Gpu,
}

// SAFETY: the memory is owned by this value alone.
unsafe impl Send for Staging {}
// SAFETY: it is only written through `&mut`.
unsafe impl Sync for Staging {}

impl Staging {
    /// The bytes. What the GPU was asked to write is only there after [`Gpu::synchronize`].
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: allocated with this length and zeroed.
        unsafe { std::slice::from_raw_parts(self.at, self.len) }
    }

    /// The bytes for writing, while the GPU is not reading them.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.len) }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // A copy may be in progress. A failure here could not be reported to anyone.
        let _ = self.gpu.synchronize();
        // SAFETY: allocated by `malloc_host`, and nothing uses it any more.
        let _ = unsafe { result::free_host(self.at.cast()) };
    }
}

/// Launches and copies that are replayed as one.
pub struct Graph(cudarc::driver::CudaGraph);

// SAFETY: a graph belongs to the cache that made it, and is only used through `&mut`.
unsafe impl Send for Graph {}
// SAFETY: the same.
unsafe impl Sync for Graph {}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Graph")
    }
}

impl Gpu {
    /// The GPU behind candle's device; `None` for another kind of device.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a GPU that the kernels cannot run on.
    pub fn of(device: &Device) -> Result<Option<Self>> {
        let Device::Cuda(device) = device else { return Ok(None) };
        let stream = device.cuda_stream();
        let context = stream.context();
        let (major, minor) = context.compute_capability().w()?;
        if major < 8 {
            return Err(Error::Unsupported(format!(
                "this GPU has compute capability {major}.{minor}; the kernels need 8.0 or more; run on the CPU"
            )));
        }
        let module = context.load_module(cudarc::nvrtc::Ptx::from_binary(KERNELS.to_vec())).w()?;
        // 227 KiB on compute capability 9.0, 99 KiB on 8.6, minus a kernel's static arrays.
        let per_block =
            context.attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN).w()?;
        let load = |kernel: Kernel, name: String| -> Result<(CudaFunction, usize)> {
            let function = module.load_function(&name).w()?;
            if kernel.most_shared() == 0 {
                return Ok((function, 0));
            }
            let left = per_block.saturating_sub(function.shared_size_bytes().w()?).max(0);
            let shared = left.min(kernel.most_shared() as i32);
            let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(most, shared).w()?;
            Ok((function, shared as usize))
        };
        let loaded = Kernel::all()
            .map(|(kernel, numbers)| kernel.name(numbers).map(|name| load(kernel, name)).transpose())
            .collect::<Result<Vec<_>>>()?;
        let shared = loaded.iter().map(|loaded| loaded.as_ref().map_or(0, |(_, shared)| *shared)).collect();
        let functions = loaded.into_iter().map(|loaded| loaded.map(|(function, _)| function)).collect();
        let overlaps = major >= 9;
        let processors = context.attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT).w()?;
        let processors = usize::try_from(processors).unwrap_or(1);
        Ok(Some(Self(Arc::new(Inner { device: device.clone(), stream, functions, shared, overlaps, processors }))))
    }

    /// How many multiprocessors it has.
    pub fn processors(&self) -> usize {
        self.0.processors
    }

    /// The most dynamic shared memory that a kernel may be launched with.
    pub fn most_shared(&self, kernel: Kernel, numbers: FloatType) -> usize {
        self.0.shared[kernel.index(numbers)]
    }

    /// The same GPU as a candle device.
    pub fn device(&self) -> Device {
        Device::Cuda(self.0.device.clone())
    }

    /// The stream, after making its context current for this thread.
    fn stream(&self) -> Result<sys::CUstream> {
        self.0.stream.context().bind_to_thread().w()?;
        Ok(self.0.stream.cu_stream())
    }

    /// Zeroed memory.
    ///
    /// # Errors
    /// If there is not enough.
    pub fn zeros(&self, bytes: usize) -> Result<Memory> {
        let slice = self.0.stream.alloc_zeros::<u8>(bytes.max(1)).w()?;
        let address = slice.device_ptr(&self.0.stream).0;
        Ok(Memory { slice, address })
    }

    /// Zeroed, page-locked host memory.
    ///
    /// # Errors
    /// If there is not enough.
    pub fn staging(&self, bytes: usize) -> Result<Staging> {
        self.stream()?;
        let len = bytes.max(1);
        // SAFETY: freed when `Staging` is dropped.
        let at = unsafe { result::malloc_host(len, 0) }.w()?.cast::<u8>();
        // SAFETY: just allocated with this length.
        unsafe { at.write_bytes(0, len) };
        Ok(Staging { at, len, gpu: self.clone() })
    }

    /// Launches a kernel; it runs after those launched before. `overlaps` says that the kernel itself waits for what
    /// the previous one writes, and so may start early.
    ///
    /// # Errors
    /// If the device fails.
    pub fn launch<A: Arguments>(
        &self,
        kernel: Kernel,
        numbers: FloatType,
        grid: [u32; 3],
        shared: usize,
        arguments: &A,
        overlaps: bool,
    ) -> Result<()> {
        let stream = self.stream()?;
        let function = self.0.functions[kernel.index(numbers)].as_ref().expect("the kernel exists for this type");
        let mut attribute = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
        };
        let config = sys::CUlaunchConfig {
            gridDimX: grid[0],
            gridDimY: grid[1],
            gridDimZ: grid[2],
            blockDimX: kernel.threads(),
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: shared as u32,
            hStream: stream,
            attrs: &raw mut attribute,
            numAttrs: u32::from(overlaps && self.0.overlaps),
        };
        let mut parameters = [std::ptr::from_ref(arguments).cast_mut().cast::<c_void>()];
        // SAFETY: `Arguments` guarantees that the kernel takes one argument of this type, which is copied before the
        // call returns.
        let launched = unsafe {
            sys::cuLaunchKernelEx(
                &raw const config,
                function.cu_function(),
                parameters.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        Ok(launched.result().w()?)
    }

    /// Copies bytes to the GPU; they may be changed once this returns.
    ///
    /// # Errors
    /// If the device fails.
    pub fn upload(&self, from: &[u8], to: &Memory, at: usize) -> Result<()> {
        assert!(at + from.len() <= to.len(), "within the memory");
        let stream = self.stream()?;
        // SAFETY: within `to`; `from` is pageable, so the driver has read it when the call returns.
        Ok(unsafe { result::memcpy_htod_async(to.address + at as u64, from, stream) }.w()?)
    }

    /// Copies bytes from the GPU, once all earlier work is done.
    ///
    /// # Errors
    /// If the device fails.
    pub fn download(&self, from: &Memory, at: usize, to: &mut [u8]) -> Result<()> {
        assert!(at + to.len() <= from.len(), "within the memory");
        let stream = self.stream()?;
        // SAFETY: within `from`, and `to` is borrowed until the copy is done.
        unsafe { result::memcpy_dtoh_async(to, from.address + at as u64, stream) }.w()?;
        self.synchronize()
    }

    /// Copies within the GPU's memory.
    ///
    /// # Errors
    /// If the device fails.
    pub fn copy(&self, from: (&Memory, usize), to: (&Memory, usize), bytes: usize) -> Result<()> {
        assert!(from.1 + bytes <= from.0.len() && to.1 + bytes <= to.0.len(), "within the memory");
        let stream = self.stream()?;
        let (from, to) = (from.0.address + from.1 as u64, to.0.address + to.1 as u64);
        // SAFETY: within both.
        Ok(unsafe { result::memcpy_dtod_async(to, from, bytes, stream) }.w()?)
    }

    /// Fills memory with zeros.
    ///
    /// # Errors
    /// If the device fails.
    pub fn clear(&self, memory: &Memory, at: usize, bytes: usize) -> Result<()> {
        assert!(at + bytes <= memory.len(), "within the memory");
        let stream = self.stream()?;
        // SAFETY: within the memory.
        Ok(unsafe { result::memset_d8_async(memory.address + at as u64, 0, bytes, stream) }.w()?)
    }

    /// Copies the first bytes of `from` to the GPU, after what was launched before.
    ///
    /// # Errors
    /// If the device fails.
    pub fn send(&self, from: &Staging, bytes: usize, to: &Memory) -> Result<()> {
        assert!(bytes <= to.len(), "within the memory");
        let stream = self.stream()?;
        // SAFETY: within `to`; whoever changes `from` synchronizes first.
        Ok(unsafe { result::memcpy_htod_async(to.address, &from.bytes()[..bytes], stream) }.w()?)
    }

    /// Copies the first bytes of `from` to the host, to position `at`, after what was launched before.
    ///
    /// # Errors
    /// If the device fails.
    pub fn receive(&self, from: &Memory, bytes: usize, to: &mut Staging, at: usize) -> Result<()> {
        assert!(bytes <= from.len(), "within the memory");
        let stream = self.stream()?;
        // SAFETY: within `from`; whoever reads or drops `to` synchronizes first.
        Ok(unsafe { result::memcpy_dtoh_async(&mut to.bytes_mut()[at..at + bytes], from.address, stream) }.w()?)
    }

    /// Waits until all work is done.
    ///
    /// # Errors
    /// If something failed.
    pub fn synchronize(&self) -> Result<()> {
        Ok(self.0.stream.synchronize().w()?)
    }

    /// Records what `work` launches and copies, without running it.
    ///
    /// # Errors
    /// If the device fails.
    pub fn capture(&self, work: impl FnOnce() -> Result<()>) -> Result<Option<Graph>> {
        let _alone = OPENING_OR_RECORDING.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = &self.0.stream;
        stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).w()?;
        let worked = work();
        // Ended even after an error, as the stream would be unusable otherwise.
        let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0)).w();
        worked?;
        Ok(graph?.map(Graph))
    }

    /// Runs a recorded graph.
    ///
    /// # Errors
    /// If the device fails.
    pub fn replay(&self, graph: &Graph) -> Result<()> {
        Ok(graph.0.launch().w()?)
    }

    /// A tensor of f32 that takes ownership of `memory`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn tensor(&self, memory: Memory, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        let address = memory.slice.leak();
        // SAFETY: the allocation has at least these many bytes, aligned as allocations are, and nobody else owns it.
        let slice = unsafe { self.0.stream.upgrade_device_ptr::<f32>(address, shape.elem_count()) };
        let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(slice, self.0.device.clone()));
        Ok(Tensor::from_storage(storage, shape, candle_core::op::BackpropOp::none(), false))
    }

    /// A copy of a tensor's numbers as f32, in row-major order.
    ///
    /// # Errors
    /// If the device fails.
    pub fn memory(&self, tensor: &Tensor) -> Result<Memory> {
        let tensor = tensor.to_device(&self.device())?.to_dtype(DType::F32)?.contiguous()?;
        let (storage, layout) = tensor.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else { unreachable!("it was moved to the GPU") };
        let view = storage.as_cuda_slice::<f32>()?.slice(layout.start_offset()..);
        let bytes = tensor.elem_count() * size_of::<f32>();
        let copy = self.zeros(bytes)?;
        let (from, _guard) = view.device_ptr(&self.0.stream);
        let stream = self.stream()?;
        // SAFETY: both have these many bytes.
        unsafe { result::memcpy_dtod_async(copy.address, from, bytes, stream) }.w()?;
        Ok(copy)
    }
}
