//! A pickle machine that can build state dicts and nothing else.
//!
//! Python's pickles are programs; running one can call any function. This machine has no functions: it knows the
//! handful of names from which `torch.save` builds a state dict, refuses any other by name, and keeps what it builds in
//! an arena, so that neither shared nor self-containing nor deeply nested objects cost more than the pickle is long.
//!
//! Reference: CPython's `Lib/pickletools.py`; `torch/_utils.py` and `torch/serialization.py`.

use std::collections::HashMap;

use super::super::file::MOST_DIMENSIONS;
use super::super::storage::StorageType;

/// The most instructions that are run, which bounds what they build: gpt2-xl's state dict has some 30,000.
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
    /// A value that no state dict is read from: a float or bytes.
    Opaque,
    Global(Global),
    /// A place in the arena.
    Object(usize),
}

/// The names that a state dict may use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(StorageType),
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

/// A flat buffer of numbers, kept beside the pickle under a key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Storage<'a> {
    pub key: &'a str,
    pub dtype: StorageType,
    /// How many numbers it holds.
    pub len: usize,
}

/// A tensor: a strided view of a storage. Offset and strides count numbers.
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
    /// How many bytes the pickle has.
    pub len: usize,
}

impl<'a> Pickle<'a> {
    /// The composite value behind `value`; none if it is a simple one.
    pub fn object(&self, value: Value) -> Option<&Object<'a>> {
        match value {
            Value::Object(place) => self.objects.get(place),
            _ => None,
        }
    }
}

/// Why a pickle was not run to its end.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// Truncated, or an instruction whose operands are not there.
    Damaged,
    /// More than [`MOST_INSTRUCTIONS`].
    TooLong,
    /// An instruction that no state dict needs.
    Instruction(u8),
    /// It asks for a function or class, of this name, that no state dict needs.
    Code(String),
}

/// Runs the pickle at the start of `bytes`, up to its STOP.
pub fn load(bytes: &[u8]) -> Result<Pickle<'_>, Fault> {
    let mut machine = Machine { bytes, at: 0, stack: vec![], marks: vec![], memo: HashMap::new(), objects: vec![] };
    for _ in 0..MOST_INSTRUCTIONS {
        if let Some(value) = machine.step()? {
            return Ok(Pickle { value, objects: machine.objects, len: machine.at });
        }
    }
    Err(Fault::TooLong)
}

type Step<T> = Result<T, Fault>;

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    /// Heights of the stack at each MARK; nothing below the last is popped.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    objects: Vec<Object<'a>>,
}

impl<'a> Machine<'a> {
    /// Runs one instruction; STOP gives the result.
    fn step(&mut self) -> Step<Option<Value<'a>>> {
        match self.u8()? {
            b'\x80' => drop(self.u8()?),         // PROTO
            b'\x95' => drop(self.take(8)?),      // FRAME
            b'.' => return self.pop().map(Some), // STOP
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),            // POP
            b'1' => drop(self.pop_marked()?),     // POP_MARK
            b'2' => self.stack.push(self.top()?), // DUP

            b'N' => self.stack.push(Value::None),
            b'\x88' => self.stack.push(Value::Bool(true)),
            b'\x89' => self.stack.push(Value::Bool(false)),
            b'J' => {
                let n = i32::from_le_bytes(self.array()?);
                self.stack.push(Value::Int(n.into()));
            }
            b'K' => {
                let n = self.u8()?;
                self.stack.push(Value::Int(n.into()));
            }
            b'M' => {
                let n = u16::from_le_bytes(self.array()?);
                self.stack.push(Value::Int(n.into()));
            }
            b'\x8a' => {
                let len = self.u8()?;
                self.long(len.into())?;
            }
            b'\x8b' => {
                let len = self.len32()?;
                self.long(len)?;
            }
            b'G' => {
                self.take(8)?;
                self.stack.push(Value::Opaque);
            }
            b'\x8c' => {
                let len = self.u8()?;
                self.string(len.into())?;
            }
            b'X' => {
                let len = self.len32()?;
                self.string(len)?;
            }
            b'\x8d' => {
                let len = self.len64()?;
                self.string(len)?;
            }
            b'C' => {
                let len = self.u8()?;
                self.opaque(len.into())?;
            }
            b'B' => {
                let len = self.len32()?;
                self.opaque(len)?;
            }
            b'\x8e' => {
                let len = self.len64()?;
                self.opaque(len)?;
            }

            b')' => self.push_object(Object::Tuple(vec![])),
            b'\x85' => self.tuple(1)?,
            b'\x86' => self.tuple(2)?,
            b'\x87' => self.tuple(3)?,
            b't' => {
                let items = self.pop_marked()?;
                self.push_object(Object::Tuple(items));
            }
            b']' => self.push_object(Object::List(vec![])),
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_marked()?;
                self.append(items)?;
            }
            b'}' => self.push_object(Object::Dict(vec![])),
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(vec![key, value])?;
            }
            b'u' => {
                let items = self.pop_marked()?;
                self.set_items(items)?;
            }

            b'q' => {
                let place = self.u8()?;
                self.memo.insert(place.into(), self.top()?);
            }
            b'r' => {
                let place = u32::from_le_bytes(self.array()?);
                self.memo.insert(place, self.top()?);
            }
            b'\x94' => {
                let place = u32::try_from(self.memo.len()).map_err(|_| Fault::Damaged)?;
                self.memo.insert(place, self.top()?);
            }
            b'h' => {
                let place = self.u8()?;
                self.recall(place.into())?;
            }
            b'j' => {
                let place = u32::from_le_bytes(self.array()?);
                self.recall(place)?;
            }

            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.stack.push(global(module, name)?);
            }
            b'\x93' => {
                let (Value::Str(name), Value::Str(module)) = (self.pop()?, self.pop()?) else {
                    return Err(Fault::Damaged);
                };
                self.stack.push(global(module, name)?);
            }
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                return Err(would_run(module, name));
            }
            b'R' => {
                let (arguments, callee) = (self.pop()?, self.pop()?);
                let result = self.reduce(callee, arguments)?;
                self.stack.push(result);
            }
            b'b' => {
                self.pop()?;
                self.build()?;
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id).ok_or(Fault::Damaged)?;
                self.push_object(Object::Storage(storage));
            }
            other => return Err(Fault::Instruction(other)),
        }
        Ok(None)
    }

    fn take(&mut self, len: usize) -> Step<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..len).ok_or(Fault::Damaged)?;
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| Fault::Damaged)
    }

    fn u8(&mut self) -> Step<u8> {
        self.array().map(|[byte]| byte)
    }

    fn len32(&mut self) -> Step<usize> {
        usize::try_from(u32::from_le_bytes(self.array()?)).map_err(|_| Fault::Damaged)
    }

    fn len64(&mut self) -> Step<usize> {
        usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|_| Fault::Damaged)
    }

    /// The rest of the line, as the textual instructions have their arguments.
    fn line(&mut self) -> Step<&'a str> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|&byte| byte == b'\n').ok_or(Fault::Damaged)?;
        self.at += len + 1;
        str::from_utf8(&rest[..len]).map_err(|_| Fault::Damaged)
    }

    fn string(&mut self, len: usize) -> Step<()> {
        let text = str::from_utf8(self.take(len)?).map_err(|_| Fault::Damaged)?;
        self.stack.push(Value::Str(text));
        Ok(())
    }

    fn opaque(&mut self, len: usize) -> Step<()> {
        self.take(len)?;
        self.stack.push(Value::Opaque);
        Ok(())
    }

    /// LONG1 and LONG4: little-endian two's complement.
    fn long(&mut self, len: usize) -> Step<()> {
        let bytes = self.take(len)?;
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        self.stack.push(match wide.get_mut(..len) {
            Some(low) => {
                low.copy_from_slice(bytes);
                Value::Int(i64::from_le_bytes(wide))
            }
            None => Value::Long(bytes),
        });
        Ok(())
    }

    fn top(&self) -> Step<Value<'a>> {
        self.stack.last().copied().ok_or(Fault::Damaged)
    }

    fn pop(&mut self) -> Step<Value<'a>> {
        if self.stack.len() <= self.marks.last().copied().unwrap_or(0) {
            return Err(Fault::Damaged);
        }
        self.stack.pop().ok_or(Fault::Damaged)
    }

    fn pop_marked(&mut self) -> Step<Vec<Value<'a>>> {
        let height = self.marks.pop().ok_or(Fault::Damaged)?;
        Ok(self.stack.split_off(height.min(self.stack.len())))
    }

    fn recall(&mut self, place: u32) -> Step<()> {
        let value = *self.memo.get(&place).ok_or(Fault::Damaged)?;
        self.stack.push(value);
        Ok(())
    }

    fn push_object(&mut self, object: Object<'a>) {
        self.stack.push(Value::Object(self.objects.len()));
        self.objects.push(object);
    }

    fn tuple(&mut self, len: usize) -> Step<()> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let start = self.stack.len().checked_sub(len).filter(|&start| start >= floor).ok_or(Fault::Damaged)?;
        let items = self.stack.split_off(start);
        self.push_object(Object::Tuple(items));
        Ok(())
    }

    /// The object on top of the stack, to be filled.
    fn top_object(&mut self) -> Step<&mut Object<'a>> {
        match self.top()? {
            Value::Object(place) => Ok(&mut self.objects[place]),
            _ => Err(Fault::Damaged),
        }
    }

    fn append(&mut self, items: Vec<Value<'a>>) -> Step<()> {
        match self.top_object()? {
            Object::List(list) => list.extend(items),
            _ => return Err(Fault::Damaged),
        }
        Ok(())
    }

    fn set_items(&mut self, items: Vec<Value<'a>>) -> Step<()> {
        let (pairs, []) = items.as_chunks() else { return Err(Fault::Damaged) };
        match self.top_object()? {
            Object::Dict(dict) => dict.extend(pairs.iter().map(|&[key, value]| (key, value))),
            _ => return Err(Fault::Damaged),
        }
        Ok(())
    }

    /// BUILD sets attributes. A state dict has one, `_metadata`, and parameters may have some; no number depends on them.
    fn build(&mut self) -> Step<()> {
        match self.top_object()? {
            Object::Dict(_) | Object::Tensor(_) => Ok(()),
            _ => Err(Fault::Damaged),
        }
    }

    fn reduce(&mut self, callee: Value<'a>, arguments: Value<'a>) -> Step<Value<'a>> {
        let Value::Global(callee) = callee else { return Err(Fault::Damaged) };
        let object = match (callee, self.tuple_items(arguments).ok_or(Fault::Damaged)?) {
            (Global::OrderedDict, []) => Object::Dict(vec![]),
            (Global::RebuildTensor, [storage, offset, shape, strides, ..]) => {
                Object::Tensor(self.tensor(*storage, *offset, *shape, *strides).ok_or(Fault::Damaged)?)
            }
            (Global::RebuildParameter, [tensor, ..]) => return Ok(*tensor),
            _ => return Err(Fault::Damaged),
        };
        self.objects.push(object);
        Ok(Value::Object(self.objects.len() - 1))
    }

    fn tuple_items(&self, value: Value) -> Option<&[Value<'a>]> {
        match value {
            Value::Object(place) => match &self.objects[place] {
                Object::Tuple(items) => Some(items),
                _ => None,
            },
            _ => None,
        }
    }

    /// The arguments of `torch._utils._rebuild_tensor_v2`.
    fn tensor(&self, storage: Value, offset: Value, shape: Value, strides: Value) -> Option<TensorView<'a>> {
        let Value::Object(place) = storage else { return None };
        let Object::Storage(storage) = self.objects[place] else { return None };
        let sizes = |value| {
            let items = self.tuple_items(value).filter(|items| items.len() <= MOST_DIMENSIONS)?;
            items.iter().map(|&size| index(size)).collect::<Option<Vec<_>>>()
        };
        let view = TensorView { storage, offset: index(offset)?, shape: sizes(shape)?, strides: sizes(strides)? };
        (view.shape.len() == view.strides.len()).then_some(view)
    }

    /// A persistent id: ("storage", type, key, device, length), and in files before PyTorch 1.6 the view of another
    /// storage, which has been None since 0.4.
    fn storage(&self, id: Value) -> Option<Storage<'a>> {
        let (&[Value::Str("storage"), Value::Global(Global::Storage(dtype)), Value::Str(key), _, len]
        | &[Value::Str("storage"), Value::Global(Global::Storage(dtype)), Value::Str(key), _, len, Value::None]) =
            self.tuple_items(id)?
        else {
            return None;
        };
        Some(Storage { key, dtype, len: index(len)? })
    }
}

fn index(value: Value) -> Option<usize> {
    match value {
        Value::Int(n) => usize::try_from(n).ok(),
        _ => None,
    }
}

fn global<'a>(module: &str, name: &str) -> Step<Value<'a>> {
    let storage = |dtype| Ok(Value::Global(Global::Storage(dtype)));
    match (module, name) {
        ("collections", "OrderedDict") => Ok(Value::Global(Global::OrderedDict)),
        ("torch._utils", "_rebuild_tensor_v2") => Ok(Value::Global(Global::RebuildTensor)),
        ("torch._utils", "_rebuild_parameter") => Ok(Value::Global(Global::RebuildParameter)),
        ("torch", "FloatStorage") => storage(StorageType::F32),
        ("torch", "HalfStorage") => storage(StorageType::F16),
        ("torch", "BFloat16Storage") => storage(StorageType::BF16),
        ("torch", "DoubleStorage") => storage(StorageType::F64),
        ("torch", "BoolStorage") => storage(StorageType::Bool),
        ("torch", "ByteStorage") => storage(StorageType::U8),
        ("torch", "CharStorage") => storage(StorageType::I8),
        ("torch", "ShortStorage") => storage(StorageType::I16),
        ("torch", "IntStorage") => storage(StorageType::I32),
        ("torch", "LongStorage") => storage(StorageType::I64),
        _ => Err(would_run(module, name)),
    }
}

fn would_run(module: &str, name: &str) -> Fault {
    Fault::Code(format!("{module}.{name}"))
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
        // OBJ, NEWOBJ, NEWOBJ_EX, EXT1 and the textual PERSID.
        for opcode in *b"o\x81\x92\x82P" {
            assert_eq!(load(&[b'N', b'N', opcode, b'.']).err(), Some(Fault::Instruction(opcode)));
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
