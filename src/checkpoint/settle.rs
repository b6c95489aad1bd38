//! A configuration that follows the tensors: biases, the tied head, a padded vocabulary.

use std::fmt;

use super::{Checkpoint, STEP, Tensor};
use crate::base::Bytes;
use crate::config::Config;
use crate::inventory::{Kind, TensorId};

/// GPT-2's vocabulary, 50257, rounded up to a multiple of 64 as nanoGPT does for speed: the rows beyond 50257 stand for no
/// token.
pub const PADDED_VOCABULARY: usize = 50304;

/// Something that the user should know about a checkpoint that can be used. Its text is one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The files contradict the configuration.
    Warning(String),
    /// Part of the files has no effect.
    Note(String),
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Warning(text) => write!(f, "warning: {text}"),
            Self::Note(text) => write!(f, "note: {text}"),
        }
    }
}

/// The most names that a note lists.
const MOST_NAMES: usize = 4;

impl Checkpoint {
    /// Makes `config` follow the tensors, and drops a head that equals the token embedding. Returns what the user should
    /// know.
    ///
    /// Whether the head is tied is told by the file, as in transformers 5.23 (`modeling_utils.py`, `tie_weights`): if
    /// `wte.weight` and `lm_head.weight` are both there, they are tied if they are equal, whatever the configuration says;
    /// if only one is there and the configuration ties them, it serves as both.
    pub fn settle(&mut self, config: &mut Config) -> Vec<Notice> {
        let mut notices = vec![];
        config.bias = self.tensors().any(|(id, _)| id.kind == Kind::Bias);
        config.qkv_bias = self.tensor(TensorId::FIRST_QKV_BIAS).is_some();
        match (self.tensor(TensorId::WTE), self.tensor(TensorId::LM_HEAD)) {
            (Some(wte), Some(head)) if is_same(wte, head) => {
                self.remove(TensorId::LM_HEAD);
                config.tie_word_embeddings = true;
            }
            (Some(wte), Some(head)) => {
                if config.tie_word_embeddings {
                    notices.push(Notice::Warning(format!(
                        "{}: `{}` differs from `{}`, so they are not tied, although the configuration ties them",
                        self.origin, head.name, wte.name
                    )));
                }
                config.tie_word_embeddings = false;
            }
            (None, Some(_)) if config.tie_word_embeddings => {
                if let Some(head) = self.remove(TensorId::LM_HEAD) {
                    self.replace(TensorId::WTE, head);
                }
            }
            _ => {}
        }
        notices
    }

    /// Drops the rows of embedding and head from `vocab_size` on.
    pub(crate) fn cut_vocabulary(&mut self, config: &mut Config, vocab_size: usize) {
        for id in [TensorId::WTE, TensorId::LM_HEAD] {
            let Some(tensor) = self.tensor(id) else { continue };
            let [rows, width] = tensor.shape[..] else { continue };
            if rows <= vocab_size {
                continue;
            }
            let tensor = tensor.unpacked();
            let bytes = tensor.dtype.byte_len(&[vocab_size, width]).and_then(|bytes| tensor.bytes.slice(0..bytes));
            if let Some(bytes) = bytes {
                self.replace(id, Tensor { shape: vec![vocab_size, width], bytes, ..tensor });
            }
        }
        config.vocab_size = vocab_size;
    }

    /// The note about tensors that GPT-2 does not have, if there are any.
    #[must_use]
    pub fn unused_tensors(&self) -> Option<Notice> {
        let count = self.unused.len();
        let names: Vec<String> = self.unused.iter().take(MOST_NAMES).map(|name| format!("`{name}`")).collect();
        let more = if count > MOST_NAMES { ", ..." } else { "" };
        let tensors = if count == 1 { "a tensor that GPT-2 does not have" } else { "tensors that GPT-2 does not have" };
        let note = || Notice::Note(format!("{}: ignoring {tensors}: {}{more}", self.origin, names.join(", ")));
        (count > 0).then(note)
    }
}

/// Whether two tensors hold the same numbers, in whatever types.
fn is_same(a: &Tensor, b: &Tensor) -> bool {
    let is_same_place = |a: &Bytes, b: &Bytes| a.as_ptr_range() == b.as_ptr_range();
    if a.shape != b.shape {
        return false;
    }
    if a.dtype == b.dtype && (is_same_place(&a.bytes, &b.bytes) || *a.bytes == *b.bytes) {
        return true;
    }
    let numbers: usize = a.shape.iter().product();
    let read = |tensor: &Tensor, first: usize, out: &mut Vec<f32>| {
        out.resize(STEP.min(numbers - first), 0.0);
        tensor.read("", first, out).is_ok()
    };
    let (mut of_a, mut of_b) = (vec![], vec![]);
    !a.dtype.is_quantized()
        && !b.dtype.is_quantized()
        && (0..numbers)
            .step_by(STEP)
            .all(|first| read(a, first, &mut of_a) && read(b, first, &mut of_b) && of_a == of_b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::DType;
    use crate::error::Error;
    use crate::model::WeightType;

    fn config(tied: bool) -> Config {
        let config = Config::named("gpt2").unwrap();
        let config = Config { vocab_size: 9, n_positions: 4, n_embd: 4, n_layer: 1, n_inner: 8, n_head: 2, ..config };
        Config { tie_word_embeddings: tied, ..config }
    }

    /// The tensors of a model; the head is `head` times the embedding's numbers, if there is one.
    fn checkpoint(head: Option<f32>) -> Checkpoint {
        let mut checkpoint = Checkpoint::random(&config(true), WeightType::F32, 1).unwrap();
        let wte = checkpoint.tensor(TensorId::WTE).unwrap().clone();
        if let Some(factor) = head {
            let mut numbers = vec![0f32; 36];
            wte.read("", 0, &mut numbers).unwrap();
            let bytes: Vec<u8> = numbers.iter().flat_map(|x| (x * factor).to_le_bytes()).collect();
            checkpoint.replace(TensorId::LM_HEAD, Tensor { name: "lm_head.weight".into(), bytes: bytes.into(), ..wte });
        }
        checkpoint
    }

    /// The rule, from transformers' `tie_weights`: for each file and configuration, whether the head is tied (or what is
    /// missing), and whether there is a warning.
    #[test]
    fn the_file_decides_whether_the_head_is_tied() {
        for (head, keeps_wte, says_tied, tied, warns) in [
            (Some(1.0), true, true, Ok(true), false),
            (Some(1.0), true, false, Ok(true), false),
            (Some(2.0), true, true, Ok(false), true),
            (Some(2.0), true, false, Ok(false), false),
            (None, true, true, Ok(true), false),
            (None, true, false, Err("lm_head.weight"), false),
            (Some(2.0), false, true, Ok(true), false),
            (Some(2.0), false, false, Err("wte.weight"), false),
        ] {
            let (mut checkpoint, mut config) = (checkpoint(head), config(says_tied));
            if !keeps_wte {
                checkpoint.remove(TensorId::WTE);
            }
            let notices = checkpoint.settle(&mut config);
            let what = format!("head {head:?}, wte {keeps_wte}, says tied: {says_tied}");
            assert_eq!(matches!(notices[..], [Notice::Warning(_)]), warns, "{what}: {notices:?}");
            match (checkpoint.check(&config), tied) {
                (Ok(()), Ok(tied)) => assert_eq!(config.tie_word_embeddings, tied, "{what}"),
                (Err(Error::MissingTensor { name, .. }), Err(missing)) => assert_eq!(name, missing, "{what}"),
                (found, _) => panic!("{what}: {found:?}"),
            }
        }
    }

    #[test]
    fn equal_numbers_of_other_types_and_signs_of_zero_are_tied() {
        let (mut checkpoint, mut config) = (checkpoint(Some(1.0)), config(true));
        let set = |checkpoint: &mut Checkpoint, id, zero: f32| {
            let mut tensor = checkpoint.tensor(id).unwrap().clone();
            let mut bytes = tensor.bytes.to_vec();
            bytes[..4].copy_from_slice(&zero.to_le_bytes());
            tensor.bytes = bytes.into();
            checkpoint.replace(id, tensor);
        };
        set(&mut checkpoint, TensorId::WTE, 0.0);
        set(&mut checkpoint, TensorId::LM_HEAD, -0.0);
        assert!(checkpoint.clone().settle(&mut config).is_empty() && config.tie_word_embeddings);
        let head = checkpoint.tensor(TensorId::LM_HEAD).unwrap().clone();
        let mut numbers = vec![0f32; 36];
        head.read("", 0, &mut numbers).unwrap();
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| f64::from(*x).to_le_bytes()).collect();
        checkpoint.replace(TensorId::LM_HEAD, Tensor { dtype: DType::F64, bytes: bytes.into(), ..head });
        assert!(checkpoint.settle(&mut config).is_empty() && config.tie_word_embeddings);
    }

    #[test]
    fn padding_is_cut_off() {
        let (mut checkpoint, mut config) = (checkpoint(Some(2.0)), config(false));
        checkpoint.cut_vocabulary(&mut config, 7);
        checkpoint.check(&config).unwrap();
        let head = checkpoint.tensor(TensorId::LM_HEAD).unwrap();
        assert_eq!((&head.shape[..], head.bytes.len(), head.dtype), (&[7, 4][..], 112, DType::F32));
    }
}
