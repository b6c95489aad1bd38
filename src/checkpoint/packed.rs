//! The packed form: safetensors whose matrices lie in the file as the CPU's kernels read them, so that nothing is read, copied
//! or converted when a model is loaded, and processes share one copy.
//!
//! A matrix in panels is called `panels/TYPE/SHAPE/NAME`, for example `panels/q4_k/768x2304/h.0.attn.c_attn.weight`: the type of
//! its numbers, the shape that Hugging Face gives it, and Hugging Face's name. It is stored as
//!
//! | type | array | |
//! |---|---|---|
//! | f32, f16, bf16 | (outputs / 48, inputs, 48) of that type | `base/panels/floats.rs` |
//! | q8_0, q6_k, q5_k, q4_k | (outputs / 16, inputs / block, 16 blocks) of bytes, outputs rounded up to 32 | `base/panels/blocks.rs` |
//!
//! with zeros beyond the last output. All other tensors are stored as they are, and called `rows/NAME`: vectors and position
//! embeddings in f32, a floating-point token embedding or head in its type. The data begin with a page of memory. The layout is
//! the same at every level of SIMD and on every processor.

use super::Tensor;
use super::file::File;
use crate::base::{DType, panels};
use crate::error::Result;
use crate::inventory::TensorId;

/// How the name of a matrix in panels begins.
const PANELS: &str = "panels/";
/// How the name of another tensor begins.
const ROWS: &str = "rows/";

/// The name in a packed file of a tensor that is stored as it is.
pub(super) fn name_of_rows(id: TensorId) -> String {
    format!("{ROWS}{id}")
}

/// The name in a packed file of a matrix in panels, whose shape Hugging Face gives as `shape`.
pub(super) fn name_of_panels(id: TensorId, dtype: DType, shape: [usize; 2]) -> String {
    format!("{PANELS}{}/{}x{}/{id}", dtype.name().to_lowercase(), shape[0], shape[1])
}

/// Whether a safetensors file with these tensors is packed.
pub(super) fn is_packed(tensors: &[Tensor]) -> bool {
    tensors.iter().any(|tensor| tensor.name.starts_with(PANELS))
}

/// The tensors of a packed file under Hugging Face's names.
///
/// # Errors
/// [`crate::Error::Format`] for a matrix that is not stored as its name says.
pub(super) fn read(file: &File, tensors: Vec<Tensor>) -> Result<Vec<Tensor>> {
    tensors.into_iter().map(|tensor| named(file, tensor)).collect()
}

fn named(file: &File, tensor: Tensor) -> Result<Tensor> {
    if let Some(name) = tensor.name.strip_prefix(ROWS) {
        return Ok(Tensor { name: name.to_owned(), ..tensor });
    }
    let Some(rest) = tensor.name.strip_prefix(PANELS) else { return Ok(tensor) };
    let Some((id, dtype, shape)) = parse(rest) else {
        let problem =
            "is not called `panels/TYPE/SHAPE/NAME` after a matrix of GPT-2; was it written by a newer version?";
        return Err(file.error(format!("tensor `{}` {problem}", tensor.name)));
    };
    let (inputs, outputs) = if id.is_conv1d() { (shape[0], shape[1]) } else { (shape[1], shape[0]) };
    match panels::array(dtype, inputs, outputs) {
        Some((stored, array)) if stored == tensor.dtype && array == *tensor.shape => Ok(Tensor {
            name: id.to_string(),
            dtype,
            shape: shape.to_vec(),
            transposed: dtype.is_quantized() && id.is_conv1d(),
            packed: true,
            bytes: tensor.bytes,
        }),
        expected => {
            let expected = match expected {
                Some((stored, array)) => format!("{stored} of shape {array:?}"),
                None => format!("a shape that {dtype} can have"),
            };
            let (name, stored, found) = (&tensor.name, tensor.dtype, &tensor.shape);
            Err(file.error(format!("tensor `{name}` is {stored} of shape {found:?}; its name asks for {expected}")))
        }
    }
}

/// Type, shape and name after the prefix.
fn parse(name: &str) -> Option<(TensorId, DType, [usize; 2])> {
    let (dtype, rest) = name.split_once('/')?;
    let (shape, name) = rest.split_once('/')?;
    let (rows, columns) = shape.split_once('x')?;
    let id = TensorId::named(name).filter(|id| id.is_matrix())?;
    Some((id, DType::named(dtype)?, [rows.parse().ok()?, columns.parse().ok()?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, dtype: DType, shape: &[usize]) -> Tensor {
        let bytes = vec![0; dtype.byte_len(shape).unwrap()];
        Tensor { name: name.into(), dtype, shape: shape.into(), transposed: false, packed: false, bytes: bytes.into() }
    }

    #[test]
    fn names_lead_back() {
        let id = TensorId::FIRST_MATRIX;
        let file = File::of([]);
        for (dtype, stored) in [(DType::F32, DType::F32), (DType::BF16, DType::BF16), (DType::Q6K, DType::U8)] {
            let (of, array) = panels::array(dtype, 256, 768).unwrap();
            assert_eq!(of, stored);
            let found = named(&file, tensor(&name_of_panels(id, dtype, [256, 768]), of, &array)).unwrap();
            assert_eq!((found.dtype, &*found.shape, found.packed), (dtype, &[256, 768][..], true));
            assert_eq!((found.name, found.transposed), (id.to_string(), dtype.is_quantized()));
        }
        let vector = named(&file, tensor(&name_of_rows(id), DType::F32, &[4])).unwrap();
        assert_eq!((vector.name, vector.packed), (id.to_string(), false));
    }

    #[test]
    fn a_matrix_that_is_not_what_its_name_says_is_refused() {
        let refused = |name: &str, dtype, shape: &[usize], message: &str| {
            let error = named(&File::of([]), tensor(name, dtype, shape)).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        };
        let name = "panels/f32/9x4/h.0.attn.c_attn.weight";
        refused(name, DType::F32, &[1, 9, 47], "its name asks for F32 of shape [1, 9, 48]");
        refused(name, DType::F16, &[1, 9, 48], "is F16 of shape [1, 9, 48]; its name asks for F32");
        refused("panels/q4_k/4x9/wte.weight", DType::U8, &[2, 1, 9], "its name asks for a shape that Q4_K can have");
        refused("panels/f64/9x4/wte.weight", DType::F32, &[1], "its name asks for a shape that F64 can have");
        refused("panels/f32/9x99999999999999999999/wte.weight", DType::F32, &[1], "is not called");
        for name in
            ["panels/", "panels/f32", "panels/f32/9x4", "panels/f32/9x4/ln_f.weight", "panels/q9/9x4/wte.weight"]
        {
            refused(name, DType::F32, &[1], "is not called `panels/TYPE/SHAPE/NAME`");
        }
    }
}
