//! The instructions of a pickle, and the stack, memo and arena that they use.

use std::collections::HashMap;

use super::{Fault, Object, Pickle, Value};

pub type Step<T> = Result<T, Fault>;

pub struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    pub stack: Vec<Value<'a>>,
    /// Heights of the stack at each MARK; nothing below the last one is popped.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    pub objects: Vec<Object<'a>>,
}

impl<'a> Machine<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, stack: vec![], marks: vec![], memo: HashMap::new(), objects: vec![] }
    }

    pub fn finish(self, value: Value<'a>) -> Pickle<'a> {
        Pickle { value, objects: self.objects, len: self.at }
    }

    /// Runs one instruction; STOP returns the result.
    pub fn step(&mut self) -> Step<Option<Value<'a>>> {
        match self.u8()? {
            b'\x80' => drop(self.u8()?),               // PROTO
            b'\x95' => drop(self.take(8)?),            // FRAME
            b'.' => return self.pop().map(Some),       // STOP
            b'(' => self.marks.push(self.stack.len()), // MARK
            b'0' => drop(self.pop()?),                 // POP
            b'1' => drop(self.pop_marked()?),          // POP_MARK
            b'2' => self.stack.push(self.top()?),      // DUP
            code => {
                if !(self.simple(code)? || self.composite(code)? || self.memory(code)? || self.torch(code)?) {
                    return Err(Fault::Instruction(code));
                }
            }
        }
        Ok(None)
    }

    /// The instructions that push a simple value; false if `code` is not one of them. Likewise for the families below.
    fn simple(&mut self, code: u8) -> Step<bool> {
        let value = match code {
            b'N' => Value::None,                                          // NONE
            b'\x88' => Value::Bool(true),                                 // NEWTRUE
            b'\x89' => Value::Bool(false),                                // NEWFALSE
            b'J' => Value::Int(i32::from_le_bytes(self.array()?).into()), // BININT
            b'K' => Value::Int(self.u8()?.into()),                        // BININT1
            b'M' => Value::Int(u16::from_le_bytes(self.array()?).into()), // BININT2
            b'\x8a' => self.len8().and_then(|len| self.long(len))?,       // LONG1
            b'\x8b' => self.len32().and_then(|len| self.long(len))?,      // LONG4
            b'G' => self.opaque(8)?,                                      // BINFLOAT
            b'\x8c' => self.len8().and_then(|len| self.string(len))?,     // SHORT_BINUNICODE
            b'X' => self.len32().and_then(|len| self.string(len))?,       // BINUNICODE
            b'\x8d' => self.len64().and_then(|len| self.string(len))?,    // BINUNICODE8
            b'C' => self.len8().and_then(|len| self.opaque(len))?,        // SHORT_BINBYTES
            b'B' => self.len32().and_then(|len| self.opaque(len))?,       // BINBYTES
            b'\x8e' => self.len64().and_then(|len| self.opaque(len))?,    // BINBYTES8
            _ => return Ok(false),
        };
        self.stack.push(value);
        Ok(true)
    }

    /// Tuples, lists and dicts.
    fn composite(&mut self, code: u8) -> Step<bool> {
        match code {
            b')' => self.tuple(0)?,    // EMPTY_TUPLE
            b'\x85' => self.tuple(1)?, // TUPLE1
            b'\x86' => self.tuple(2)?, // TUPLE2
            b'\x87' => self.tuple(3)?, // TUPLE3
            b't' => {
                // TUPLE
                let items = self.pop_marked()?;
                self.push_object(Object::Tuple(items));
            }
            b']' => self.push_object(Object::List(vec![])), // EMPTY_LIST
            b'a' => {
                // APPEND
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                // APPENDS
                let items = self.pop_marked()?;
                self.append(items)?;
            }
            b'}' => self.push_object(Object::Dict(vec![])), // EMPTY_DICT
            b's' => {
                // SETITEM
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(vec![key, value])?;
            }
            b'u' => {
                // SETITEMS
                let items = self.pop_marked()?;
                self.set_items(items)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Stores objects in the memo and fetches them.
    fn memory(&mut self, code: u8) -> Step<bool> {
        match code {
            b'q' | b'r' | b'\x94' => {
                // BINPUT, LONG_BINPUT, MEMOIZE
                let place = match code {
                    b'q' => self.u8()?.into(),
                    b'r' => u32::from_le_bytes(self.array()?),
                    _ => u32::try_from(self.memo.len()).map_err(|_| Fault::Damaged)?,
                };
                self.memo.insert(place, self.top()?);
            }
            b'h' | b'j' => {
                // BINGET, LONG_BINGET
                let place = if code == b'h' { self.u8()?.into() } else { u32::from_le_bytes(self.array()?) };
                self.stack.push(*self.memo.get(&place).ok_or(Fault::Damaged)?);
            }
            _ => return Ok(false),
        }
        Ok(true)
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

    fn len8(&mut self) -> Step<usize> {
        self.u8().map(usize::from)
    }

    fn len32(&mut self) -> Step<usize> {
        usize::try_from(u32::from_le_bytes(self.array()?)).map_err(|_| Fault::Damaged)
    }

    fn len64(&mut self) -> Step<usize> {
        usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|_| Fault::Damaged)
    }

    /// The rest of the line: the argument of a textual instruction.
    pub fn line(&mut self) -> Step<&'a str> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|&byte| byte == b'\n').ok_or(Fault::Damaged)?;
        self.at += len + 1;
        str::from_utf8(&rest[..len]).map_err(|_| Fault::Damaged)
    }

    fn string(&mut self, len: usize) -> Step<Value<'a>> {
        str::from_utf8(self.take(len)?).map(Value::Str).map_err(|_| Fault::Damaged)
    }

    fn opaque(&mut self, len: usize) -> Step<Value<'a>> {
        self.take(len).map(|_| Value::Opaque)
    }

    /// LONG1 and LONG4: little-endian two's complement.
    fn long(&mut self, len: usize) -> Step<Value<'a>> {
        let bytes = self.take(len)?;
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        let Some(low) = wide.get_mut(..len) else { return Ok(Value::Long(bytes)) };
        low.copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(wide)))
    }

    fn top(&self) -> Step<Value<'a>> {
        self.stack.last().copied().ok_or(Fault::Damaged)
    }

    pub fn pop(&mut self) -> Step<Value<'a>> {
        if self.stack.len() <= self.marks.last().copied().unwrap_or(0) {
            return Err(Fault::Damaged);
        }
        self.stack.pop().ok_or(Fault::Damaged)
    }

    fn pop_marked(&mut self) -> Step<Vec<Value<'a>>> {
        let height = self.marks.pop().ok_or(Fault::Damaged)?;
        Ok(self.stack.split_off(height.min(self.stack.len())))
    }

    pub fn push_object(&mut self, object: Object<'a>) {
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
    pub fn top_object(&mut self) -> Step<&mut Object<'a>> {
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

    /// The items of a tuple.
    pub fn tuple_items(&self, value: Value) -> Option<&[Value<'a>]> {
        match value {
            Value::Object(place) => match &self.objects[place] {
                Object::Tuple(items) => Some(items),
                _ => None,
            },
            _ => None,
        }
    }
}
