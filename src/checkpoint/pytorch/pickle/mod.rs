//! A pickle machine that can build state dicts and nothing else.
//!
//! Python's pickles are programs; running one can call any function. This machine has no functions. It knows the few
//! names from which `torch.save` builds a state dict and rejects any other by name. What it builds is kept in an arena,
//! so shared, self-containing or deeply nested objects cost no more than the pickle is long.
//!
//! Reference: CPython's `Lib/pickletools.py`; `torch/_utils.py` and `torch/serialization.py`.

mod machine;
mod torch;

use crate::base::DType;
use machine::Machine;

/// The most instructions that are run, which bounds what they build: gpt2-xl's state dict has about 30,000.
pub const MOST_INSTRUCTIONS: usize = 1 << 20;

/// A value on the machine's stack. Strings and long integers are borrowed from the pickle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits: little-endian two's complement.
    Long(&'a [u8]),
    Str(&'a str),
    /// A value that no state dict needs: a float or bytes.
    Opaque,
    Global(Global),
    /// An index into the arena.
    Object(usize),
}

/// The names that a state dict may use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(DType),
    /// Plain data that no weight depends on.
    Inert,
}

/// A composite value in the arena.
#[derive(Debug)]
pub enum Object<'a> {
    Tuple(Vec<Value<'a>>),
    List(Vec<Value<'a>>),
    Dict(Vec<(Value<'a>, Value<'a>)>),
    Storage(Storage<'a>),
    Tensor(TensorView<'a>),
}

/// A flat buffer of numbers, stored beside the pickle under a key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Storage<'a> {
    pub key: &'a str,
    pub dtype: DType,
    /// The number of numbers it holds.
    pub len: usize,
}

/// A tensor: a strided view of a storage. Offset and strides are in numbers, not bytes.
#[derive(Debug)]
pub struct TensorView<'a> {
    pub storage: Storage<'a>,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// What a pickle built.
pub struct Pickle<'a> {
    pub value: Value<'a>,
    pub objects: Vec<Object<'a>>,
    /// The length of the pickle in bytes.
    pub len: usize,
}

impl<'a> Pickle<'a> {
    /// The composite value that `value` refers to; `None` if it is a simple one.
    pub fn object(&self, value: Value) -> Option<&Object<'a>> {
        match value {
            Value::Object(place) => self.objects.get(place),
            _ => None,
        }
    }
}

/// Why a pickle did not run to its end.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// Truncated, or an instruction without its operands.
    Damaged,
    /// More than [`MOST_INSTRUCTIONS`].
    TooLong,
    /// An instruction that no state dict needs.
    Instruction(u8),
    /// A tensor of numbers that PyTorch has no older name for: float8 and narrower.
    NumberType,
    /// It asks for this function or class, which no state dict needs.
    Code(String),
}

/// Runs the pickle at the start of `bytes`, up to its STOP.
pub fn load(bytes: &[u8]) -> Result<Pickle<'_>, Fault> {
    let mut machine = Machine::new(bytes);
    for _ in 0..MOST_INSTRUCTIONS {
        if let Some(value) = machine.step()? {
            return Ok(machine.finish(value));
        }
    }
    Err(Fault::TooLong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_what_python_builds() {
        // pickletools.optimize(pickle.dumps({"a": [1, -2, 70000], "b": (True, None)}, 2))
        let bytes = b"\x80\x02}(X\x01\0\0\0a](K\x01J\xfe\xff\xff\xffJp\x11\x01\0eX\x01\0\0\0b\x88N\x86u.rest";
        let pickle = load(bytes).ok().unwrap();
        assert_eq!(pickle.len, bytes.len() - 4);
        let Some(Object::Dict(entries)) = pickle.object(pickle.value) else { panic!() };
        assert_eq!([entries[0].0, entries[1].0], [Value::Str("a"), Value::Str("b")]);
        let Some(Object::List(list)) = pickle.object(entries[0].1) else { panic!() };
        assert_eq!(*list, [1, -2, 70000].map(Value::Int));
        let Some(Object::Tuple(tuple)) = pickle.object(entries[1].1) else { panic!() };
        assert_eq!(*tuple, [Value::Bool(true), Value::None]);
    }

    #[test]
    fn reads_long_integers() {
        for (bytes, expected) in [
            (&b"\x8a\x00."[..], Value::Int(0)),
            (b"\x8a\x02\x00\x80.", Value::Int(-32768)),
            (b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f.", Value::Int(i64::MAX)),
            (b"\x8b\x01\0\0\0\xff.", Value::Int(-1)),
            (b"\x8a\x09\0\0\0\0\0\0\0\0\x01.", Value::Long(b"\0\0\0\0\0\0\0\0\x01")),
        ] {
            assert_eq!(load(bytes).ok().map(|pickle| pickle.value), Some(expected), "{bytes:?}");
        }
    }

    #[test]
    fn refuses_every_way_to_call_something() {
        for bytes in [
            &b"cos\nsystem\n."[..],
            b"\x8c\x02os\x8c\x06system\x93.",
            b"(ios\nsystem\n.",
            b"ctorch\nload\n.",
            b"cbuiltins\neval\n.",
        ] {
            assert!(matches!(load(bytes), Err(Fault::Code(_))), "{bytes:?}");
        }
        // OBJ, NEWOBJ of a value, NEWOBJ_EX, EXT1 and the textual PERSID.
        for opcode in *b"o\x81\x92\x82P" {
            assert_eq!(load(&[b'N', b'N', opcode, b'.']).err(), Some(Fault::Instruction(opcode)));
        }
    }

    /// pickle.dumps(x, 2) of what training scripts put beside the weights.
    #[test]
    fn plain_data_is_skipped() {
        for bytes in [
            // argparse.Namespace(lr=0.1)
            &b"\x80\x02cargparse\nNamespace\nq\x00)\x81q\x01}q\x02X\x02\0\0\0lrq\x03G?\xb9\x99\x99\x99\x99\x99\x9asb."
                [..],
            // collections.defaultdict(int, a=1), without the name of int, which is a function here
            b"\x80\x02ccollections\ndefaultdict\nq\x00)R(X\x01\0\0\0aK\x01u.",
            // torch.device("cpu"), torch.float32
            b"\x80\x02ctorch\ndevice\nX\x03\0\0\0cpu\x85Rctorch\nfloat32\n\x86.",
            // {1}
            b"\x80\x02c__builtin__\nset\n]K\x01a\x85R.",
        ] {
            assert!(load(bytes).is_ok(), "{bytes:?}");
        }
    }

    #[test]
    fn damaged_pickles_are_faults() {
        for bytes in [
            &b""[..],
            b"N",
            b".",
            b"(.",
            b"0.",
            b"N(0.",
            b"t.",
            b"N\x86.",
            b"N(\x85.",
            b"h\0.",
            b"q\0.",
            b"}Ns.",
            b"}(Nu.",
            b"NNa.",
            b"NNR.",
            b"NQ.",
            b"X\xff\xff\xff\xffa.",
            b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffa.",
            b"X\x01\0\0\0\xff.",
            b"ccollections\nOrderedDict\nNR.",
        ] {
            assert_eq!(load(bytes).err(), Some(Fault::Damaged), "{bytes:?}");
        }
    }

    #[test]
    fn objects_may_be_shared_deep_and_inside_themselves() {
        assert!(load(b"}q\0X\x01\0\0\0ah\0s.").is_ok());
        let doubled = [b"N".as_slice(), &b"2\x86".repeat(100_000), b"."].concat();
        assert!(load(&doubled).is_ok());
        assert_eq!(load(&b")".repeat(MOST_INSTRUCTIONS + 1)).err(), Some(Fault::TooLong));
    }
}
