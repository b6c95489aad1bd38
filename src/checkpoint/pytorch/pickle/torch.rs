//! What a state dict calls: a few known names, each of which builds a value and runs nothing. Training scripts save more
//! beside it; names of plain data build an empty dict, into which whatever is in them may go.

use super::super::super::file::MOST_DIMENSIONS;
use super::machine::{Machine, Step};
use super::{Fault, Global, Object, Storage, TensorView, Value};
use crate::base::DType;

impl<'a> Machine<'a> {
    /// The instructions that name something, call it, or refer to a storage beside the pickle.
    pub fn torch(&mut self, code: u8) -> Step<bool> {
        match code {
            b'c' => {
                // GLOBAL
                let (module, name) = (self.line()?, self.line()?);
                self.stack.push(global(module, name)?);
            }
            b'\x93' => {
                // STACK_GLOBAL
                let (Value::Str(name), Value::Str(module)) = (self.pop()?, self.pop()?) else {
                    return Err(Fault::Damaged);
                };
                self.stack.push(global(module, name)?);
            }
            b'i' => {
                // INST
                let (module, name) = (self.line()?, self.line()?);
                return Err(would_run(module, name));
            }
            b'R' => {
                // REDUCE
                let (arguments, callee) = (self.pop()?, self.pop()?);
                let result = self.reduce(callee, arguments)?;
                self.stack.push(result);
            }
            b'\x81' => {
                // NEWOBJ
                let (_, class) = (self.pop()?, self.pop()?);
                match class {
                    Value::Global(Global::Inert) => self.push_object(Object::Dict(vec![])),
                    _ => return Err(Fault::Instruction(code)),
                }
            }
            b'b' => {
                // BUILD
                self.pop()?;
                self.build()?;
            }
            b'Q' => {
                // BINPERSID
                let id = self.pop()?;
                let storage = self.storage(id).ok_or(Fault::Damaged)?;
                self.push_object(Object::Storage(storage));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// BUILD sets attributes: a state dict's `_metadata`, perhaps some of a parameter. No number depends on them.
    fn build(&mut self) -> Step<()> {
        match self.top_object()? {
            Object::Dict(_) | Object::Tensor(_) => Ok(()),
            _ => Err(Fault::Damaged),
        }
    }

    fn reduce(&mut self, callee: Value<'a>, arguments: Value<'a>) -> Step<Value<'a>> {
        let Value::Global(callee) = callee else { return Err(Fault::Damaged) };
        let object = match (callee, self.tuple_items(arguments).ok_or(Fault::Damaged)?) {
            (Global::OrderedDict, []) | (Global::Inert, _) => Object::Dict(vec![]),
            (Global::RebuildTensor, [storage, offset, shape, strides, ..]) => {
                Object::Tensor(self.tensor(*storage, *offset, *shape, *strides).ok_or(Fault::Damaged)?)
            }
            (Global::RebuildParameter, [tensor, ..]) => return Ok(*tensor),
            _ => return Err(Fault::Damaged),
        };
        self.objects.push(object);
        Ok(Value::Object(self.objects.len() - 1))
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

    /// A persistent id: ("storage", type, key, device, length); before PyTorch 1.6 also a view of another storage,
    /// which has been None since 0.4.
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
    match (module, name) {
        ("collections", "OrderedDict") => Ok(Value::Global(Global::OrderedDict)),
        ("torch._utils", "_rebuild_tensor_v2") => Ok(Value::Global(Global::RebuildTensor)),
        ("torch._utils", "_rebuild_parameter") => Ok(Value::Global(Global::RebuildParameter)),
        _ if INERT.contains(&(module, name)) => Ok(Value::Global(Global::Inert)),
        ("torch._utils", "_rebuild_tensor_v3") => Err(Fault::NumberType),
        ("torch", class) => match DType::of_torch_storage(class) {
            Some(dtype) => Ok(Value::Global(Global::Storage(dtype))),
            None => Err(would_run(module, name)),
        },
        _ => Err(would_run(module, name)),
    }
}

/// Classes and functions of plain data: settings, sizes, paths, numbers.
const INERT: [(&str, &str); 33] = [
    ("__builtin__", "set"),
    ("builtins", "set"),
    ("builtins", "bytearray"),
    ("builtins", "complex"),
    ("builtins", "slice"),
    ("_codecs", "encode"),
    ("argparse", "Namespace"),
    ("types", "SimpleNamespace"),
    ("collections", "Counter"),
    ("collections", "defaultdict"),
    ("datetime", "datetime"),
    ("datetime", "timedelta"),
    ("pathlib", "PosixPath"),
    ("pathlib", "PurePosixPath"),
    ("pathlib", "WindowsPath"),
    ("pathlib._local", "PosixPath"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("torch", "Size"),
    ("torch", "device"),
    ("torch", "bfloat16"),
    ("torch", "float16"),
    ("torch", "float32"),
    ("torch", "float64"),
    ("torch", "int64"),
    ("torch", "uint8"),
    ("torch", "bool"),
    ("torch.torch_version", "TorchVersion"),
    ("pytorch_lightning.utilities.parsing", "AttributeDict"),
];

fn would_run(module: &str, name: &str) -> Fault {
    Fault::Code(format!("{module}.{name}"))
}
