//! llm.c's `.bin`: a header of 256 numbers, then one array for each kind of weight, with all blocks in it.
//!
//! Reference: <https://github.com/karpathy/llm.c>, `train_gpt2.py` (`write_model`), `train_gpt2.cu`
//! (`gpt2_build_from_checkpoint`).

use serde_json::json;

use super::file::File;
use super::{Tensor, TensorSpec};
use crate::base::DType;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::inventory::{Kind, Part, TensorId};

const MAGIC: i32 = 20240326;

/// llm.c's other files, and a model that is no GPT-2.
const OTHERS: [(i32, &str); 7] = [
    (20240327, "the state that llm.c's tests compare with"),
    (20240328, "llm.c's tokenizer"),
    (20240520, "tokens to train on"),
    (20240522, "questions to evaluate with"),
    (20240527, "the state of llm.c's optimizer"),
    (20240801, "tokens to train on"),
    (20240803, "a Llama 3"),
];

/// Bytes of the header: 256 numbers, of which the first eight are used.
const HEADER: usize = 256 * 4;

/// The arrays in the order of the file.
const ARRAYS: [(&str, Part, Kind); 16] = [
    ("wte", Part::Wte, Kind::Weight),
    ("wpe", Part::Wpe, Kind::Weight),
    ("ln1w", Part::Ln1, Kind::Weight),
    ("ln1b", Part::Ln1, Kind::Bias),
    ("qkvw", Part::CAttn, Kind::Weight),
    ("qkvb", Part::CAttn, Kind::Bias),
    ("attprojw", Part::AttnCProj, Kind::Weight),
    ("attprojb", Part::AttnCProj, Kind::Bias),
    ("ln2w", Part::Ln2, Kind::Weight),
    ("ln2b", Part::Ln2, Kind::Bias),
    ("fcw", Part::CFc, Kind::Weight),
    ("fcb", Part::CFc, Kind::Bias),
    ("fcprojw", Part::MlpCProj, Kind::Weight),
    ("fcprojb", Part::MlpCProj, Kind::Bias),
    ("lnfw", Part::LnF, Kind::Weight),
    ("lnfb", Part::LnF, Kind::Bias),
];

/// A model that llm.c wrote.
#[derive(Debug)]
pub(super) struct LlmC {
    /// The header's configuration. The vocabulary is the true one, without padding.
    pub config: Config,
    /// The weights, in place in the file: arrays cut into blocks, the token embedding without its padding.
    pub weights: Vec<(TensorId, Tensor)>,
    /// The arrays under llm.c's names, as the file has them: with an axis of blocks, and the padded vocabulary.
    pub arrays: Vec<TensorSpec>,
}

/// Whether a file that starts with `bytes` is one of llm.c's.
pub(super) fn is_llm_c(bytes: &[u8]) -> bool {
    let magic = number(bytes, 0);
    magic == Some(MAGIC) || OTHERS.iter().any(|(other, _)| magic == Some(*other))
}

/// Number `place` of the header.
fn number(bytes: &[u8], place: usize) -> Option<i32> {
    bytes.get(4 * place..)?.first_chunk().copied().map(i32::from_le_bytes)
}

/// Reads the header and finds the weights. The length of the file must be the one that the header calls for.
pub(super) fn read(file: &File) -> Result<LlmC> {
    let Header { dtype, config, padded } = Header::read(file)?;
    let arrays: Vec<TensorSpec> = ARRAYS
        .iter()
        .map(|&(name, part, kind)| {
            let mut shape = stored_shape(TensorId { layer: None, part, kind }, &config);
            match part {
                Part::Wte => shape[0] = padded,
                _ if is_in_block(part) => shape.insert(0, config.n_layer),
                _ => {}
            }
            TensorSpec { name: name.into(), dtype, shape }
        })
        .collect();
    check_length(file, &arrays)?;

    let mut weights = Vec::with_capacity(4 + 12 * config.n_layer);
    let mut start = HEADER;
    for ((_, part, kind), array) in ARRAYS.into_iter().zip(&arrays) {
        let layers = if is_in_block(part) { (0..config.n_layer).map(Some).collect() } else { vec![None] };
        let end = start + array.byte_len(&file.path)?;
        let step = (end - start) / layers.len();
        for (at, layer) in (start..).step_by(step).zip(layers) {
            let id = TensorId { layer, part, kind };
            weights.push((id, tensor(file, id, dtype, &config, at)?));
        }
        start = end;
    }
    Ok(LlmC { config, weights, arrays })
}

fn is_in_block(part: Part) -> bool {
    !matches!(part, Part::Wte | Part::Wpe | Part::LnF | Part::LmHead)
}

/// The shape of a tensor as the file has it: matrices of blocks are (out, in).
fn stored_shape(id: TensorId, config: &Config) -> Vec<usize> {
    let mut shape = id.shape(config);
    if id.is_conv1d() {
        shape.reverse();
    }
    shape
}

fn check_length(file: &File, arrays: &[TensorSpec]) -> Result<()> {
    let needed = arrays.iter().try_fold(HEADER, |sum, array| sum.checked_add(array.byte_len(&file.path).ok()?));
    if needed == Some(file.bytes.len()) {
        return Ok(());
    }
    let needed = needed.map_or("too many".into(), |bytes| bytes.to_string());
    let found = file.bytes.len();
    Err(file.error(format!("its header calls for {needed} bytes, the file has {found}; it is truncated or damaged")))
}

fn tensor(file: &File, id: TensorId, dtype: DType, config: &Config, at: usize) -> Result<Tensor> {
    let shape = id.shape(config);
    let bytes = dtype.byte_len(&shape).and_then(|len| file.bytes.slice(at..at.checked_add(len)?));
    let bytes = bytes.ok_or_else(|| file.error(format!("tensor `{id}` lies outside the file")))?;
    Ok(Tensor { name: id.to_string(), dtype, shape, transposed: id.is_conv1d(), packed: false, bytes })
}

struct Header {
    dtype: DType,
    config: Config,
    /// Rows of the token embedding in the file.
    padded: usize,
}

impl Header {
    fn read(file: &File) -> Result<Self> {
        let bytes = &*file.bytes;
        let at = |place| number(bytes, place).unwrap_or_default();
        match at(0) {
            _ if bytes.len() < HEADER => return Err(file.not_a("a model of llm.c")),
            MAGIC => {}
            magic => {
                return Err(match OTHERS.iter().find(|(other, _)| *other == magic) {
                    Some((_, what)) => file.error(format!(
                        "one of llm.c's files, but it holds {what}; the weights of a GPT-2 start with {MAGIC}"
                    )),
                    None => file.not_a("a model of llm.c"),
                });
            }
        }
        let dtype = match at(1) {
            3 => DType::F32,
            5 => DType::BF16,
            version => return Err(wrong_version(file, version)),
        };
        let (vocab_size, padded) = (at(3), at(7));
        let json = json!({
            "n_positions": at(2),
            "vocab_size": vocab_size,
            "n_layer": at(4),
            "n_head": at(5),
            "n_embd": at(6),
        });
        let config = Config::from_json(json.to_string().as_bytes(), &file.path.display().to_string())?;
        let config = config.with_gpt2s_end_of_text();
        match usize::try_from(padded) {
            Ok(rows) if rows >= config.vocab_size => Ok(Self { dtype, config, padded: rows }),
            _ => Err(file.error(format!("its vocabulary of {vocab_size} tokens is padded to {padded}"))),
        }
    }
}

fn wrong_version(file: &File, version: i32) -> Error {
    let what = match version {
        1 | 2 => ", which has an unpadded vocabulary",
        4 => ", which mixes bf16 and f32",
        _ => "",
    };
    file.error(format!(
        "llm.c's version {version}{what}; supported are 3 (f32) and 5 (bf16): write it again with a current llm.c"
    ))
}

#[cfg(test)]
mod tests {
    use super::super::{Checkpoint, golden};
    use super::*;

    #[test]
    fn both_types_give_what_llm_c_gives() {
        for (case, name) in [("llmc_fp32", "gpt2_tiny.bin"), ("llmc_bf16", "gpt2_tiny_bf16.bin")] {
            let file = File::open(&golden::folder(case).join("model").join(name)).unwrap();
            assert!(is_llm_c(&file.bytes));
            let LlmC { config, weights, arrays } = read(&file).unwrap();
            golden::check(case, config.clone(), &Checkpoint::new(case.into(), weights).unwrap());
            assert_eq!((config.bos_token_id, config.eos_token_id), (None, vec![]), "{case}");
            let c = config.n_embd;
            let shape = |name: &str| arrays.iter().find(|array| array.name == name).unwrap().shape.clone();
            assert_eq!(shape("wte"), [256, c], "{case}");
            assert_eq!(shape("qkvw"), [2, 3 * c, c], "{case}");
            assert_eq!(shape("lnfb"), [c], "{case}");
        }
    }

    #[test]
    fn weights_stay_in_the_file() {
        let file = small(&[]);
        let map = file.bytes.as_ptr_range();
        assert!(read(&file).unwrap().weights.iter().all(|(_, tensor)| map.contains(&tensor.bytes.as_ptr())));
    }

    /// A model of zeros with one block, width 4, 2 heads, 5 tokens padded to 8, 3 positions; with some numbers of its
    /// header replaced.
    fn small(changes: &[(usize, i32)]) -> File {
        let mut header = [0i32; 256];
        header[..8].copy_from_slice(&[MAGIC, 3, 3, 5, 1, 2, 4, 8]);
        for &(place, value) in changes {
            header[place] = value;
        }
        let mut bytes: Vec<u8> = header.iter().flat_map(|n| n.to_le_bytes()).collect();
        // Embeddings, one block, the final norm.
        bytes.resize(bytes.len() + 4 * ((8 + 3) * 4 + (12 * 4 * 4 + 13 * 4) + 2 * 4), 0);
        File::of(bytes)
    }

    #[track_caller]
    fn refused(file: &File, expected: &str) {
        let error = read(file).unwrap_err().to_string();
        assert!(error.starts_with("FILE: ") && error.contains(expected), "{error:?} does not say {expected:?}");
    }

    #[test]
    fn each_fault_is_named() {
        assert!(read(&small(&[])).is_ok());
        refused(&small(&[(1, 1)]), "version 1, which has an unpadded vocabulary; supported are 3");
        refused(&small(&[(1, 4)]), "version 4, which mixes");
        refused(&small(&[(1, -7)]), "version -7; supported");
        refused(&small(&[(2, 0)]), "n_positions is 0");
        refused(&small(&[(2, 4)]), "calls for 2224 bytes, the file has 2208");
        refused(&small(&[(1, 5)]), "truncated or damaged");
        refused(&small(&[(3, 9)]), "vocabulary of 9 tokens is padded to 8");
        refused(&small(&[(3, -1)]), "vocab_size is -1");
        refused(&small(&[(4, 0)]), "n_layer is 0");
        refused(&small(&[(4, i32::MAX)]), "n_layer is 2147483647");
        refused(&small(&[(5, 3)]), "n_embd 4 cannot be split over n_head 3 heads");
        refused(&small(&[(6, 0)]), "n_embd is 0");
        refused(&small(&[(7, -1)]), "padded to -1");
        refused(&small(&[(7, i32::MAX)]), "truncated or damaged");
        refused(&small(&[(0, 20240327)]), "the state that llm.c's tests compare with");
        refused(&small(&[(0, 20240527)]), "the state of llm.c's optimizer");
        refused(&small(&[(0, 0)]), "not a model of llm.c");
        let whole = small(&[]);
        for len in 1..whole.bytes.len() {
            assert!(read(&File::of(&whole.bytes[..len])).is_err(), "cut to {len} bytes");
        }
    }

    #[test]
    fn gpt2s_own_vocabulary_has_its_end_of_text() {
        let mut file = small(&[(3, 50257), (7, 50304)]);
        let mut bytes = file.bytes.to_vec();
        bytes.resize(bytes.len() + 4 * 4 * (50304 - 8), 0);
        file.bytes = bytes.into();
        let LlmC { config, weights, .. } = read(&file).unwrap();
        assert_eq!((config.vocab_size, config.bos_token_id), (50257, Some(50256)));
        assert_eq!(config.eos_token_id, [50256]);
        assert_eq!(weights[0].1.shape, [50257, 4]);
    }
}
