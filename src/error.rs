//! The library's errors: each variant names the file, tensor or parameter at fault and says what to do.

use std::path::PathBuf;

use crate::printable::{self, line};

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The longest message about a file, in characters; ours are far shorter than what a file can make us quote.
const LONGEST_MESSAGE: usize = 600;

/// An error of this library. Its text is one printable line, whatever it quotes; causes follow through [`std::error::Error::source`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened, read or written.
    #[error("cannot {action} {}", printable::path(.path))]
    Io {
        /// What was attempted: "read", "write", "create", "map".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },

    /// A file is damaged, hostile, or of the wrong kind.
    #[error("{}: {}", printable::path(.path), line(.message))]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what was expected.
        message: String,
    },

    /// A model configuration that does not describe a GPT-2 that can run.
    #[error("{}: {}", line(.origin), line(.message))]
    Config {
        /// Where the configuration came from, usually a path.
        origin: String,
        /// The key, its value, and what is allowed.
        message: String,
    },

    /// A model of another architecture than GPT-2's.
    #[error("{}: {} is {}; this program runs `gpt2` models", line(.origin), .key, quoted(.found))]
    Architecture {
        /// The configuration, or the GGUF file.
        origin: String,
        /// The key that says it.
        key: &'static str,
        /// What it says.
        found: String,
    },

    /// Weights whose file does not say how the model is built, without a configuration beside them.
    #[error("{} does not say how its model is built, and no {missing} lies beside it", line(.origin))]
    NoConfig {
        /// The checkpoint.
        origin: String,
        /// The file that would say it.
        missing: &'static str,
    },

    /// The checkpoint lacks a tensor that the configuration calls for.
    #[error("{}: tensor `{}` is missing, expected with shape {expected:?}; {}", line(.origin), line(.name), line(.holds))]
    MissingTensor {
        /// The checkpoint.
        origin: String,
        /// The tensor's name without the `transformer.` prefix.
        name: String,
        /// The shape that the configuration calls for.
        expected: Vec<usize>,
        /// What the checkpoint holds instead.
        holds: String,
    },

    /// A tensor does not have the shape that the configuration calls for.
    #[error("{}: tensor `{}` has shape {found:?}, expected {expected:?}", line(.origin), line(.name))]
    TensorShape {
        /// The checkpoint.
        origin: String,
        /// The tensor's name in the file.
        name: String,
        /// The shape that the configuration calls for.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },

    /// The checkpoint has a tensor that the configured model does not.
    #[error(
        "{}: tensor `{}` with shape {found:?} has no place in this model; does the configuration belong to these weights?", line(.origin), line(.name)
    )]
    UnexpectedTensor {
        /// The checkpoint.
        origin: String,
        /// The tensor's name in the file.
        name: String,
        /// The shape in the file.
        found: Vec<usize>,
    },

    /// A model or one of its files could not be found or fetched.
    #[error("{}", line(.0))]
    Source(String),

    /// A name that can be no model's.
    #[error(
        "`{}` is not a model: there is no folder or file of that name, so it must be `demo`, a short name ({}) or an id on the hub, `owner/name`", line(.name), .known.join(", ")
    )]
    NoModel {
        /// The name.
        name: String,
        /// Names that are models.
        known: &'static [&'static str],
    },

    /// A model that is not where its name says: no such path, nothing of that name on the hub, or nothing there that could
    /// be one.
    #[error("{}", line(.0))]
    NotFound(String),

    /// A model that can only come from the hub, which is out of reach or may not be asked.
    #[error("{}", line(.0))]
    Hub(String),

    /// A tokenizer file that cannot be used, or text or ids that the tokenizer cannot handle.
    #[error("{}", line(.0))]
    Tokenizer(String),

    /// A parameter that is out of range or conflicts with another: a mistake of the caller.
    #[error("{}", line(.message))]
    Parameter {
        /// The parameter at fault.
        parameter: &'static str,
        /// What is wrong with it and what is allowed. Parameters are in backticks, so that a front end can show them as
        /// they were given: as flags or as keys.
        message: String,
    },

    /// A text longer than the model's context: a mistake of the caller.
    #[error("the text has {}, the model's context {context}", tokens_text(*.tokens))]
    Context {
        /// The number of tokens in the text.
        tokens: usize,
        /// The most tokens that the model can see.
        context: usize,
    },

    /// A text that does not fit the model's context after another that comes before it: a mistake of the caller.
    #[error(
        "what comes before the text has {}, the text {text}, and the model's context is {context}; {}",
        tokens_text(*.before), shorter(*.text, *.context)
    )]
    AfterContext {
        /// The number of tokens before the text.
        before: usize,
        /// The number of tokens in the text.
        text: usize,
        /// The most tokens that the model can see.
        context: usize,
    },

    /// Any other mistake of the caller. Parameters are in backticks, as in [`Error::Parameter`].
    #[error("{}", line(.0))]
    Usage(String),

    /// Numbers that cannot be used: logits that are not finite, or a distribution with no token left to choose.
    /// Parameters are in backticks, as in [`Error::Parameter`].
    #[error("{}", line(.0))]
    Numerics(String),

    /// Something that this build or machine does not support.
    #[error("{}", line(.0))]
    Unsupported(String),

    /// A device that this build or this machine does not have.
    #[error("device {device}: {}", line(.problem))]
    Device {
        /// The device: `cuda`, `cuda:1`, `metal`.
        device: String,
        /// Why it cannot be used.
        problem: String,
    },

    /// A model that does not fit into memory. Nothing was loaded.
    #[error("{}", line(.message))]
    Memory {
        /// What the model takes and what is available.
        message: String,
        /// Whether GPU memory is meant.
        gpu: bool,
        /// The weight types with which it would fit (`f16`, `q8_0`), and how many bytes it would then take.
        fitting: Vec<(&'static str, u64)>,
    },

    /// Work that takes more memory than there is. Parameters are in backticks, as in [`Error::Parameter`].
    #[error("{0}")]
    OutOfMemory(String),

    /// A GPU ran out of memory for weights, cache or intermediate results.
    #[error("the GPU has too little memory")]
    DeviceMemory(#[source] BackendError),

    /// A tensor operation failed, or the device that it ran on.
    #[error(transparent)]
    Backend(BackendError),
}

/// `1 token`, `2 tokens`: for messages.
#[must_use]
pub fn tokens_text(count: usize) -> String {
    if count == 1 { "1 token".to_owned() } else { format!("{count} tokens") }
}

/// What to do about a text that does not fit after another.
fn shorter(text: usize, context: usize) -> String {
    // The last token of all is only scored.
    match (context + 1).saturating_sub(text) {
        0 => "shorten the text".to_owned(),
        left => format!("keep no more of the former than its last {}", tokens_text(left)),
    }
}

/// A failure of the tensor library or of a device's driver; its text says more.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct BackendError(candle_core::Error);

/// For `?` in this library. Callers can use it for their own candle errors, but need not know candle to handle
/// [`Error`].
impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        let full = is_out_of_memory(&error);
        let error = BackendError(error);
        if full { Self::DeviceMemory(error) } else { Self::Backend(error) }
    }
}

/// Whether a device ran out of memory, for which candle has no separate error.
fn is_out_of_memory(error: &candle_core::Error) -> bool {
    use candle_core::Error as Candle;
    match error {
        Candle::Context { inner, .. } | Candle::WithPath { inner, .. } | Candle::WithBacktrace { inner, .. } => {
            is_out_of_memory(inner)
        }
        #[cfg(feature = "cuda")]
        Candle::Cuda(error) => {
            use candle_core::cuda::CudaError;
            use candle_core::cuda::cudarc::{cublas, driver};
            match error.downcast_ref() {
                Some(CudaError::Cuda(error) | CudaError::Load { cuda: error, .. }) => {
                    error.0 == driver::sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY
                }
                Some(CudaError::Cublas(error)) => error.0 == cublas::sys::cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED,
                _ => false,
            }
        }
        // Recognised by its text: candle-core does not export the type, which is candle-metal-kernels'.
        Candle::Metal(error) => error.to_string().contains("Failed to create metal resource: Buffer"),
        _ => false,
    }
}

impl Error {
    /// Whether the caller asked for something impossible: a parameter, an id or a text out of range.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Parameter { .. } | Self::Context { .. } | Self::AfterContext { .. } | Self::Usage(_))
    }

    /// Whether the work could succeed with more memory, or alone.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::OutOfMemory(_) | Self::DeviceMemory(_))
    }

    /// An [`Error::Parameter`] whose message is the parameter followed by `problem`.
    pub fn parameter(parameter: &'static str, problem: impl std::fmt::Display) -> Self {
        Self::Parameter { parameter, message: format!("`{parameter}` {problem}") }
    }

    /// An [`Error::Io`] for `path`, for use with `map_err`.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// An [`Error::Format`] about `path`. Text quoted from the file cannot break the line or fill the screen.
    pub fn format(path: impl Into<PathBuf>, message: impl AsRef<str>) -> Self {
        Self::Format { path: path.into(), message: on_one_line(message.as_ref()) }
    }

    /// An [`Error::Config`] about the configuration from `origin`, as safe as [`format`](Self::format) in what it
    /// quotes.
    pub(crate) fn config(origin: &str, message: &str) -> Self {
        Self::Config { origin: origin.to_owned(), message: on_one_line(message) }
    }
}

/// A word of a file in quotes, cut off if it is no word.
fn quoted(found: &str) -> String {
    const LONGEST: usize = 60;
    let word: String = found.chars().take(LONGEST).collect();
    line(&format!("{word:?}")).into_owned()
}

/// The message on one line, cut off if it is far too long.
fn on_one_line(message: &str) -> String {
    let message = line(message);
    match message.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{} ...", &message[..end]),
        None => message.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_gpu_is_told_from_other_failures() {
        use candle_core::Error as Candle;
        let metal = |text: &str| Candle::Metal(text.to_owned().into()).context("in a layer");
        let full = Error::from(metal("Failed to create metal resource: Buffer"));
        assert!(matches!(full, Error::DeviceMemory(_)));
        assert!(std::error::Error::source(&full).unwrap().to_string().contains("metal resource"));
        assert!(matches!(Error::from(metal("Failed to create pipeline")), Error::Backend(_)));
        assert!(matches!(Error::from(Candle::msg("a text about CUDA_ERROR_OUT_OF_MEMORY")), Error::Backend(_)));
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn a_full_nvidia_gpu_is_told_by_the_code_of_its_driver() {
        use candle_core::cuda::cudarc::cublas::{result::CublasError, sys::cublasStatus_t};
        use candle_core::cuda::cudarc::driver::{DriverError, sys::CUresult};
        use candle_core::cuda::{CudaError, WrapErr};
        let driver = |code| Err::<(), _>(DriverError(code)).w().unwrap_err().into();
        assert!(matches!(driver(CUresult::CUDA_ERROR_OUT_OF_MEMORY), Error::DeviceMemory(_)));
        assert!(matches!(driver(CUresult::CUDA_ERROR_INVALID_VALUE), Error::Backend(_)));
        let cublas = |code| candle_core::Error::from(CudaError::Cublas(CublasError(code))).into();
        assert!(matches!(cublas(cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED), Error::DeviceMemory(_)));
        assert!(matches!(cublas(cublasStatus_t::CUBLAS_STATUS_INTERNAL_ERROR), Error::Backend(_)));
    }

    #[test]
    fn a_file_cannot_break_the_line_that_quotes_it() {
        let error = Error::format("f", "named `\n\x1b[31m`").to_string();
        assert_eq!(error, "f: named `\\n\\u{1b}[31m`");
        let error = Error::format("f", "é".repeat(10_000)).to_string();
        assert!(error.ends_with("é ...") && error.chars().count() < 700, "{error}");
    }
}
