//! Where the network runs: CPU, CUDA or Metal.

use std::str::FromStr;

use crate::error::{Error, Result};

/// A device as the user names it: `auto`, `cpu`, `cuda`, `cuda:N`, `metal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The best that is compiled in and present.
    #[default]
    Auto,
    /// The processor.
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
            _ => Err(Error::Usage(format!("`{text}` is no device; use auto, cpu, cuda, cuda:N or metal"))),
        }
    }
}

impl DeviceChoice {
    /// Checks that the device can be used.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a device that this program was built without.
    pub fn require(self) -> Result<()> {
        let missing = match self {
            Self::Auto | Self::Cpu => return Ok(()),
            Self::Cuda(_) => "cuda",
            Self::Metal => "metal",
        };
        Err(Error::Unsupported(format!("--device {missing}: this version computes on the CPU only; use --device cpu")))
    }
}
