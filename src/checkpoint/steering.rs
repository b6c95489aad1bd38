//! Vectors to add to the residual stream: one in a safetensors file, or llama.cpp's control vectors, one for each block, in
//! a GGUF.
//!
//! Reference: llama.cpp, `common_control_vector_load_one` in `common/common.cpp` and `llama_adapter_cvec` in
//! `src/llama-adapter.cpp`.

use std::collections::BTreeMap;
use std::path::Path;

use super::Tensor;
use super::file::File;
use super::gguf::{Gguf, is_gguf};
use super::safetensors;
use crate::error::Result;

/// What llama.cpp calls the architecture of a file of control vectors.
const CONTROL_VECTOR: &str = "controlvector";

/// The widest vector that is read; GPT-2's largest model has a width of 1600.
const WIDEST: usize = 1 << 20;

/// The vectors in a file. All numbers are finite.
#[derive(Debug, Clone, PartialEq)]
pub enum SteeringVectors {
    /// One, (C), of which the file does not say where it belongs.
    One(Vec<f32>),
    /// llama.cpp's, (C) each, by the block after which they are added, counted from 0.
    ByBlock(BTreeMap<usize, Vec<f32>>),
}

impl SteeringVectors {
    /// Reads a safetensors file of one tensor, of shape (C) or (1, C) and any name and floating-point type, or a GGUF of
    /// control vectors, `direction.N`.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the file cannot be read, [`Error::Format`](crate::Error::Format) if it holds
    /// something else.
    pub fn read(path: &Path) -> Result<Self> {
        Self::of(&File::open(path)?)
    }

    fn of(file: &File) -> Result<Self> {
        if is_gguf(&file.bytes) {
            return control_vectors(file);
        }
        if !safetensors::is_safetensors(&file.bytes) {
            return Err(file.not_a("a vector, in a safetensors or GGUF file"));
        }
        let tensors = safetensors::read(file)?;
        match tensors.as_slice() {
            [tensor] => Ok(Self::One(numbers(file, tensor)?)),
            [] => Err(file.error("it has no tensor; a vector is a file's only tensor")),
            all => {
                let (first, count) = (&all[0].name, all.len());
                Err(file.error(format!("it has {count} tensors, such as `{first}`; a vector is a file's only tensor")))
            }
        }
    }
}

fn control_vectors(file: &File) -> Result<SteeringVectors> {
    let gguf = Gguf::parse_as(file, CONTROL_VECTOR)?;
    let mut vectors = BTreeMap::new();
    for tensor in &gguf.tensors {
        let block = tensor.name.strip_prefix("direction.").and_then(|number| number.parse().ok());
        // llama.cpp refuses block 0, too.
        let Some(block) = block.filter(|block| *block > 0) else {
            let message = format!("its tensor `{}` is no control vector, `direction.N` with N from 1", tensor.name);
            return Err(file.error(message));
        };
        if vectors.insert(block, numbers(file, tensor)?).is_some() {
            return Err(file.error(format!("it has two control vectors for block {block}")));
        }
    }
    if vectors.is_empty() {
        return Err(file.error("it has no control vector, `direction.N`"));
    }
    Ok(SteeringVectors::ByBlock(vectors))
}

/// The numbers of a vector.
fn numbers(file: &File, tensor: &Tensor) -> Result<Vec<f32>> {
    let Tensor { name, shape, .. } = tensor;
    let width = match shape.as_slice() {
        [width] | [1, width] if (1..=WIDEST).contains(width) => *width,
        _ => {
            return Err(
                file.error(format!("tensor `{name}` has shape {shape:?}; a vector has one of 1 to {WIDEST} numbers"))
            );
        }
    };
    let mut numbers = vec![0.0; width];
    tensor.read(&file.path.display().to_string(), 0, &mut numbers)?;
    match numbers.iter().position(|x| !x.is_finite()) {
        Some(at) => {
            Err(file.error(format!("tensor `{name}` holds {} at {at}; a vector's numbers are finite", numbers[at])))
        }
        None => Ok(numbers),
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::path::PathBuf;

    use super::super::TensorSpec;
    use super::super::gguf::{self, Metadata, Value};
    use super::*;
    use crate::base::DType;

    fn bytes(numbers: &[f32]) -> Vec<u8> {
        numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    fn spec(name: &str, dtype: DType, shape: &[usize]) -> TensorSpec {
        TensorSpec { name: name.into(), dtype, shape: shape.into() }
    }

    /// Reads what a safetensors file with these tensors says.
    fn safetensors(tensors: &[(&str, DType, &[usize], Vec<u8>)]) -> Result<SteeringVectors> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v.safetensors");
        let specs: Vec<TensorSpec> = tensors.iter().map(|(name, dtype, shape, _)| spec(name, *dtype, shape)).collect();
        super::safetensors::write(&path, &[], &specs, |i| Ok(Cow::Borrowed(&tensors[i].3[..]))).unwrap();
        SteeringVectors::read(&path)
    }

    /// A GGUF of this architecture with tensors of f32.
    fn gguf_file(architecture: &str, tensors: &[(&str, &[f32])]) -> Result<SteeringVectors> {
        let folder = tempfile::tempdir().unwrap();
        let path: PathBuf = folder.path().join("v.gguf");
        let mut metadata = Metadata::default();
        metadata.push("general.architecture", Value::String(architecture.into()));
        metadata.push("controlvector.layer_count", Value::I32(tensors.len() as i32));
        let specs: Vec<TensorSpec> =
            tensors.iter().map(|(name, numbers)| spec(name, DType::F32, &[numbers.len()])).collect();
        gguf::write(&path, &metadata, &specs, |i| Ok(Cow::Owned(bytes(tensors[i].1)))).unwrap();
        SteeringVectors::read(&path)
    }

    #[test]
    fn vectors_of_every_type_are_read() {
        let numbers = [0.5f32, -2.0, 0.0, 1.25];
        let expected = SteeringVectors::One(numbers.to_vec());
        assert_eq!(safetensors(&[("any", DType::F32, &[4], bytes(&numbers))]).unwrap(), expected);
        assert_eq!(safetensors(&[("other", DType::F32, &[1, 4], bytes(&numbers))]).unwrap(), expected);
        let halves = numbers.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect();
        assert_eq!(safetensors(&[("v", DType::F16, &[4], halves)]).unwrap(), expected);
        let halves = numbers.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect();
        assert_eq!(safetensors(&[("v", DType::BF16, &[4], halves)]).unwrap(), expected);
        let doubles = numbers.iter().flat_map(|x| f64::from(*x).to_le_bytes()).collect();
        assert_eq!(safetensors(&[("v", DType::F64, &[4], doubles)]).unwrap(), expected);
    }

    #[test]
    fn control_vectors_belong_to_their_blocks() {
        let found = gguf_file("controlvector", &[("direction.2", &[1.0, 2.0]), ("direction.11", &[3.0, 4.0])]).unwrap();
        let expected = BTreeMap::from([(2, vec![1.0, 2.0]), (11, vec![3.0, 4.0])]);
        assert_eq!(found, SteeringVectors::ByBlock(expected));
    }

    #[track_caller]
    fn refused(found: Result<SteeringVectors>, expected: &str) {
        let error = found.unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        assert!(!error.contains('\n'), "{error:?}");
    }

    #[test]
    fn other_files_are_refused() {
        let one = || bytes(&[1.0]);
        refused(safetensors(&[]), "it has no tensor");
        refused(safetensors(&[("a", DType::F32, &[1], one()), ("b", DType::F32, &[1], one())]), "it has 2 tensors");
        refused(safetensors(&[("v", DType::F32, &[2, 1], bytes(&[1.0, 2.0]))]), "`v` has shape [2, 1]");
        refused(safetensors(&[("v", DType::F32, &[0], vec![])]), "`v` has shape [0]");
        refused(safetensors(&[("v", DType::F32, &[], one())]), "`v` has shape []");
        refused(safetensors(&[("v", DType::I8, &[4], vec![0; 4])]), "stored as I8");
        refused(safetensors(&[("v", DType::F32, &[2], bytes(&[1.0, f32::NAN]))]), "holds NaN at 1");
        refused(safetensors(&[("v", DType::F64, &[1], 1e300f64.to_le_bytes().into())]), "holds inf at 0");
        refused(gguf_file("gpt2", &[("direction.1", &[1.0])]), "its architecture is \"gpt2\", not `controlvector`");
        refused(gguf_file("controlvector", &[]), "no control vector");
        for name in ["direction.0", "direction.x", "direction", "token_embd.weight"] {
            refused(gguf_file("controlvector", &[(name, &[1.0])]), "N from 1");
        }
        refused(
            gguf_file("controlvector", &[("direction.1", &[1.0]), ("direction.01", &[1.0])]),
            "two control vectors",
        );
        refused(gguf_file("controlvector", &[("direction.1", &[f32::INFINITY])]), "holds inf at 0");
        refused(SteeringVectors::of(&File::of(*b"PK\x03\x04 and more")), "but a zip archive");
        refused(SteeringVectors::read(Path::new("missing")), "cannot read missing");
    }
}
