//! Where the network runs: CPU, CUDA or Metal.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;
use std::time::Instant;

use candle_core::{DType, Device, DeviceLocation, Tensor};

use crate::error::{Error, Result};
use crate::kernels;

/// What runs the network.
#[derive(Debug, Clone, Default)]
pub enum Backend {
    /// This library's CPU kernels.
    #[default]
    Kernels,
    /// candle's operations on one of its devices; on an NVIDIA GPU, kernels of this library if the weights are floats.
    Candle(Device),
    /// The kernels for NVIDIA's GPUs run on the CPU, for tests.
    #[cfg(feature = "emulator")]
    Emulator,
}

impl Backend {
    /// The device as [`DeviceChoice`] takes it: `cpu`, `cuda:0`, `metal`.
    #[must_use]
    pub fn name(&self) -> String {
        let Self::Candle(device) = self else { return "cpu".to_owned() };
        match device.location() {
            DeviceLocation::Cpu => "cpu".to_owned(),
            DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
            DeviceLocation::Metal { .. } => "metal".to_owned(),
        }
    }

    /// The memory bandwidth of the device in bytes a second (of the memory that holds the weights), the best of
    /// `passes`.
    ///
    /// # Errors
    /// If the device fails or has no memory left for the measurement.
    pub fn memory_bandwidth(&self, passes: usize) -> Result<f64> {
        /// How many numbers are copied: far more than caches hold.
        const COPIED: usize = 1 << 26;
        /// Copies per pass.
        const COPIES: usize = 4;
        let Self::Candle(device) = self else { return kernels::memory_bandwidth(passes) };
        let from = Tensor::zeros(COPIED, DType::F32, device)?;
        let mut fastest = f64::INFINITY;
        for _ in 0..passes {
            device.synchronize()?;
            let start = Instant::now();
            // Several, so that waiting for the device does not count.
            for _ in 0..COPIES {
                from.copy()?;
            }
            device.synchronize()?;
            fastest = fastest.min(start.elapsed().as_secs_f64());
        }
        Ok((COPIES * 2 * COPIED * size_of::<f32>()) as f64 / fastest)
    }
}

/// A device as the user names it: `auto`, `cpu`, `cuda`, `cuda:N`, `metal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The best one compiled in and present.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// An NVIDIA GPU, by number.
    Cuda(usize),
    /// An Apple GPU.
    Metal,
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |n: &str| n.parse().ok();
        match text.split_once(':') {
            None if text == "auto" => Ok(Self::Auto),
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            None if text == "metal" => Ok(Self::Metal),
            Some(("cuda", n)) if number(n).is_some() => Ok(Self::Cuda(number(n).unwrap_or_default())),
            _ => Err(Error::Usage(format!("`{text}` is not a device; use auto, cpu, cuda, cuda:N or metal"))),
        }
    }
}

impl Display for DeviceChoice {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
            Self::Metal => f.write_str("metal"),
        }
    }
}

impl DeviceChoice {
    /// Checks that the device is compiled in.
    ///
    /// # Errors
    /// [`Error::Device`], which says how to get a build that has it.
    pub fn require(self) -> Result<()> {
        match self {
            Self::Cuda(_) if cfg!(not(feature = "cuda")) => Err(not_compiled_in("cuda")),
            Self::Metal if cfg!(not(feature = "metal")) => Err(not_compiled_in("metal")),
            _ => Ok(()),
        }
    }

    /// Opens the device.
    ///
    /// # Errors
    /// [`Error::Device`] for a device that this build or this machine does not have.
    pub fn open(self) -> Result<Backend> {
        self.require()?;
        let missing = |device, cause| Error::Device { device, problem: format!("cannot be used: {cause}") };
        match self {
            Self::Cpu => Ok(Backend::Kernels),
            Self::Auto => Ok(best().map_or(Backend::Kernels, Backend::Candle)),
            Self::Cuda(n) => open_cuda(n).map(Backend::Candle).map_err(|cause| missing(format!("cuda:{n}"), cause)),
            Self::Metal => open_metal().map(Backend::Candle).map_err(|cause| missing("metal".into(), cause)),
        }
    }
}

/// The first GPU that is compiled in and present.
fn best() -> Option<Device> {
    let cuda = cfg!(feature = "cuda").then(|| open_cuda(0).ok()).flatten().filter(runs_the_kernels);
    cuda.or_else(|| cfg!(feature = "metal").then(|| open_metal().ok()).flatten())
}

/// Whether an NVIDIA GPU can run this library's kernels: compute capability 8.0 or higher.
#[cfg(feature = "cuda")]
fn runs_the_kernels(device: &Device) -> bool {
    let Device::Cuda(device) = device else { return false };
    device.cuda_stream().context().compute_capability().is_ok_and(|(major, _)| major >= 8)
}

/// Without the feature, none can.
#[cfg(not(feature = "cuda"))]
fn runs_the_kernels(_: &Device) -> bool {
    false
}

/// Held while a GPU is opened, and while launches are recorded: opening one breaks what another thread records.
#[cfg(feature = "cuda")]
pub(crate) static OPENING_OR_RECORDING: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// An NVIDIA GPU, or why there is none.
fn open_cuda(number: usize) -> Result<Device, String> {
    #[cfg(all(feature = "cuda", target_os = "linux"))]
    crate::cuda_libraries::available()?;
    let list = "`nvidia-smi -L` lists this machine's GPUs, numbered from 0";
    // Nothing is behind the lock that a panic could leave half done.
    #[cfg(feature = "cuda")]
    let _alone = OPENING_OR_RECORDING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // On a separate stream: graphs cannot be recorded on the default one.
    let device = Device::new_cuda_with_stream(number).map_err(|cause| format!("{}; {list}", one_line(&cause)))?;
    #[cfg(feature = "cuda")]
    if let Device::Cuda(cuda) = &device {
        // SAFETY: everything runs on this one stream, in issue order.
        unsafe { cuda.disable_event_tracking() };
    }
    Ok(device)
}

/// The Mac's GPU, or why there is none.
fn open_metal() -> Result<Device, String> {
    Device::new_metal(0).map_err(|cause| format!("{}; it needs a Mac with a Metal GPU", one_line(&cause)))
}

fn not_compiled_in(name: &str) -> Error {
    let problem = format!("this program was built without it; rebuild with `cargo install gpt2-cli --features {name}`");
    Error::Device { device: name.to_owned(), problem }
}

/// The first line of a message; more lines may hold a stack trace.
fn one_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda", DeviceChoice::Cuda(0)),
            ("cuda:3", DeviceChoice::Cuda(3)),
            ("metal", DeviceChoice::Metal),
        ] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap(), choice);
            assert_eq!(choice.to_string().parse::<DeviceChoice>().unwrap(), choice);
        }
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "metal:0", "cpu:0", "CUDA"] {
            assert!(matches!(text.parse::<DeviceChoice>(), Err(Error::Usage(_))), "{text}");
        }
    }

    #[test]
    fn the_cpu_is_served_by_the_kernels() {
        assert!(matches!(DeviceChoice::Cpu.open().unwrap(), Backend::Kernels));
    }

    #[test]
    fn a_bandwidth_is_a_positive_number() {
        let bandwidth = Backend::Candle(Device::Cpu).memory_bandwidth(1).unwrap();
        assert!(bandwidth.is_finite() && bandwidth > 1e6, "{bandwidth}");
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_device_that_is_not_compiled_in_is_named_with_the_way_to_get_it() {
        let error = DeviceChoice::Cuda(0).open().unwrap_err().to_string();
        assert!(error.contains("cargo install") && error.contains("--features cuda"), "{error}");
    }
}
