//! What `--version` says after the name.

use gpt2::kernels;

/// Those of the features that change what the program can do.
const FEATURES: [(&str, bool); 10] = [
    ("constraints", cfg!(feature = "constraints")),
    ("hub", cfg!(feature = "hub")),
    ("serve", cfg!(feature = "serve")),
    ("tokenizers", cfg!(feature = "tokenizers")),
    ("cuda", cfg!(feature = "cuda")),
    ("cudnn", cfg!(feature = "cudnn")),
    ("emulator", cfg!(feature = "emulator")),
    ("metal", cfg!(feature = "metal")),
    ("accelerate", cfg!(feature = "accelerate")),
    ("mkl", cfg!(feature = "mkl")),
];

/// `0.1.0 (00963e4a1b2c, constraints hub serve tokenizers, avx2)`: the version, the commit if it was built from a checkout,
/// the features, and the instruction set in use.
pub fn version() -> String {
    let features: Vec<&str> = FEATURES.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    let parts = [option_env!("GPT2_COMMIT").unwrap_or_default(), &features.join(" "), kernels::level().name()];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    format!("{} ({})", env!("CARGO_PKG_VERSION"), parts.join(", "))
}
