//! The machine that a pickle is a program for, reduced to what state dicts need (protocols 2 to 5).
//!
//! It understands the few calls that tensors are made of, refuses every other by its name, and runs nothing.
//! Its values are small handles into flat lists of bounded length: neither cycles nor deep nesting nor
//! endless repetition can hurt it.

use super::Step;
use crate::error::{Problem, failed};
use crate::weights::printable;
use std::collections::{BTreeMap, HashMap};

/// Bound of each of the machine's lists. A tensor takes some twenty entries, a large checkpoint 100 000.
const MAX_OBJECTS: usize = 1 << 20;

/// What the pickle may name.
#[derive(Clone, Copy)]
pub enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Size,
    Storage(Dtype),
}

#[derive(Clone, Copy)]
pub enum Dtype {
    Float,
    Double,
    Half,
    BFloat16,
    Long,
    Int,
    Short,
    Byte,
    Char,
    Bool,
}

impl Global {
    fn named(module: &str, name: &str) -> Step<Self> {
        Ok(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch", "Size") => Self::Size,
            ("torch", "FloatStorage") => Self::Storage(Dtype::Float),
            ("torch", "DoubleStorage") => Self::Storage(Dtype::Double),
            ("torch", "HalfStorage") => Self::Storage(Dtype::Half),
            ("torch", "BFloat16Storage") => Self::Storage(Dtype::BFloat16),
            ("torch", "LongStorage") => Self::Storage(Dtype::Long),
            ("torch", "IntStorage") => Self::Storage(Dtype::Int),
            ("torch", "ShortStorage") => Self::Storage(Dtype::Short),
            ("torch", "ByteStorage") => Self::Storage(Dtype::Byte),
            ("torch", "CharStorage") => Self::Storage(Dtype::Char),
            ("torch", "BoolStorage") => Self::Storage(Dtype::Bool),
            _ => {
                let call = printable(&format!("{module}.{name}"));
                return Err(failed(format!("calls `{call}`, and only tensors are read"))
                    .hint("save the weights alone: `torch.save(model.state_dict(), \"new.pth\")`"));
            }
        })
    }
}

/// A value of the machine: a handle, where it is more than a word.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// Something that tensors do not need: None, a flag, a float, a list, a set, bytes, a very long integer.
    Other,
    Int(i64),
    Text(&'a str),
    /// Start and length in `Machine::items`.
    Tuple(usize, usize),
    Dict(usize),
    Global(Global),
    Storage(usize),
    Tensor(usize),
}

impl Value<'_> {
    pub fn kind(self) -> &'static str {
        match self {
            Self::Other => "a flag, float, list or the like",
            Self::Int(_) => "an integer",
            Self::Text(_) => "a string",
            Self::Tuple(..) => "a tuple",
            Self::Dict(_) => "a dict",
            Self::Global(_) => "a type or function",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
        }
    }
}

#[derive(Clone, Copy)]
struct Storage<'a> {
    dtype: Dtype,
    key: &'a str,
    stored: i64,
}

/// A tensor as described: only those that are asked for are looked at closely.
#[derive(Clone, Copy)]
struct Description<'a> {
    storage: usize,
    offset: Value<'a>,
    size: Value<'a>,
    stride: Value<'a>,
}

/// Where a tensor's values lie. Nothing says yet that they do lie there.
pub struct Tensor<'a> {
    pub dtype: Dtype,
    /// The storage's name, and how many values it is said to have.
    pub key: &'a str,
    pub stored: usize,
    pub offset: usize,
    pub size: Vec<usize>,
    pub stride: Vec<usize>,
}

#[derive(Default)]
pub struct Machine<'a> {
    input: &'a [u8],
    stack: Vec<Value<'a>>,
    marks: Vec<usize>,
    memo: HashMap<usize, Value<'a>>,
    items: Vec<Value<'a>>,
    dicts: usize,
    /// The entries of all dicts that have a string for a key: dict, key, value.
    entries: Vec<(usize, &'a str, Value<'a>)>,
    storages: Vec<Storage<'a>>,
    tensors: Vec<Description<'a>>,
}

/// Appends to one of the machine's lists and returns the place.
fn keep<T>(list: &mut Vec<T>, item: T) -> Step<usize> {
    if list.len() >= MAX_OBJECTS {
        return Err(failed("its pickle holds too many objects for a state dict"));
    }
    list.push(item);
    Ok(list.len() - 1)
}

fn malformed(what: &str) -> Problem {
    failed(format!("its pickle is malformed ({what})"))
}

impl<'a> Machine<'a> {
    pub fn new(pickle: &'a [u8]) -> Self {
        Self { input: pickle, ..Self::default() }
    }

    /// Runs the pickle to its end and returns what it leaves.
    pub fn run(&mut self) -> Step<Value<'a>> {
        loop {
            match self.number(1)? as u8 {
                b'.' => return self.pop(),
                0x80 => match self.number(1)? {
                    2..=5 => {}
                    version => return Err(malformed(&format!("protocol {version}, expected 2 to 5"))),
                },
                // Frames only help those that read from a stream.
                0x95 => drop(self.take(8)?),
                b'(' => drop(keep(&mut self.marks, self.stack.len())?),
                b'N' | 0x88 | 0x89 | b']' | 0x8f => self.push(Value::Other)?,
                b'G' => self.take(8).and_then(|_| self.push(Value::Other))?,
                b'C' => self.counted(1).and_then(|_| self.push(Value::Other))?,
                b'B' => self.counted(4).and_then(|_| self.push(Value::Other))?,
                0x8e | 0x96 => self.counted(8).and_then(|_| self.push(Value::Other))?,
                b'K' => self.integer(1)?,
                b'M' => self.integer(2)?,
                b'J' => {
                    let value = self.number(4)? as u32 as i32;
                    self.push(Value::Int(value.into()))?;
                }
                0x8a => self.long(1)?,
                0x8b => self.long(4)?,
                0x8c => self.text(1)?,
                b'X' => self.text(4)?,
                0x8d => self.text(8)?,
                b'}' => self.new_dict()?,
                b')' => self.tuple(Vec::new())?,
                opcode @ 0x85..=0x87 => {
                    let values = self.last(usize::from(opcode - 0x84))?;
                    self.tuple(values)?;
                }
                b't' => {
                    let values = self.since_mark()?;
                    self.tuple(values)?;
                }
                b'a' => drop(self.pop()?),
                b'e' | 0x90 => drop(self.since_mark()?),
                0x91 => {
                    self.since_mark()?;
                    self.push(Value::Other)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set(&[key, value])?;
                }
                b'u' => {
                    let pairs = self.since_mark()?;
                    self.set(&pairs)?;
                }
                b'q' => self.memoize(1)?,
                b'r' => self.memoize(4)?,
                0x94 => self.remember(self.memo.len())?,
                b'h' => self.recall(1)?,
                b'j' => self.recall(4)?,
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.push(Value::Global(Global::named(module, name)?))?;
                }
                0x93 => {
                    let (Value::Text(name), Value::Text(module)) = (self.pop()?, self.pop()?) else {
                        return Err(malformed("a global without a name"));
                    };
                    self.push(Value::Global(Global::named(module, name)?))?;
                }
                b'Q' => self.storage()?,
                b'R' => self.call()?,
                // The state of an OrderedDict: PyTorch keeps the modules' versions there.
                b'b' => match (self.pop()?, self.top()?) {
                    (_, Value::Dict(_)) => {}
                    (_, other) => return Err(malformed(&format!("a state for {}", other.kind()))),
                },
                other => return Err(malformed(&format!("opcode 0x{other:02x}, which no state dict needs"))),
            }
        }
    }

    /// The next bytes of the pickle.
    fn take(&mut self, count: usize) -> Step<&'a [u8]> {
        let early = || malformed("it ends early");
        let (taken, rest) = self.input.split_at_checked(count).ok_or_else(early)?;
        self.input = rest;
        Ok(taken)
    }

    /// A little-endian number without sign, of at most eight bytes.
    fn number(&mut self, width: usize) -> Step<u64> {
        Ok(self.take(width)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// The bytes that follow their own count.
    fn counted(&mut self, width: usize) -> Step<&'a [u8]> {
        let count = self.number(width)?;
        self.take(usize::try_from(count).unwrap_or(usize::MAX))
    }

    fn line(&mut self) -> Step<&'a str> {
        let end = self.input.iter().position(|byte| *byte == b'\n').unwrap_or(self.input.len());
        let line = self.take(end)?;
        self.take(1)?;
        std::str::from_utf8(line).map_err(|_| malformed("a name that is not UTF-8"))
    }

    fn integer(&mut self, width: usize) -> Step<()> {
        let value = self.number(width)?;
        self.push(i64::try_from(value).map_or(Value::Other, Value::Int))
    }

    /// An integer in two's complement of any length.
    fn long(&mut self, width: usize) -> Step<()> {
        let bytes = self.counted(width)?;
        if bytes.len() > 8 {
            return self.push(Value::Other);
        }
        let sign = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
        let mut wide = [sign; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(wide)))
    }

    fn text(&mut self, width: usize) -> Step<()> {
        let text = std::str::from_utf8(self.counted(width)?);
        self.push(Value::Text(text.map_err(|_| malformed("a string that is not UTF-8"))?))
    }

    fn push(&mut self, value: Value<'a>) -> Step<()> {
        keep(&mut self.stack, value).map(drop)
    }

    /// Takes the topmost values off the stack, but none from below the last mark.
    fn last(&mut self, count: usize) -> Step<Vec<Value<'a>>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let start = self.stack.len().checked_sub(count).filter(|start| *start >= floor);
        let start = start.ok_or_else(|| malformed("too few values"))?;
        Ok(self.stack.drain(start..).collect())
    }

    fn since_mark(&mut self) -> Step<Vec<Value<'a>>> {
        let mark = self.marks.pop().ok_or_else(|| malformed("no mark"))?;
        Ok(self.stack.drain(mark..).collect())
    }

    fn pop(&mut self) -> Step<Value<'a>> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    fn top(&self) -> Step<Value<'a>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack[floor..].last().copied().ok_or_else(|| malformed("too few values"))
    }

    fn remember(&mut self, place: usize) -> Step<()> {
        if self.memo.len() >= MAX_OBJECTS {
            return Err(failed("its pickle holds too many objects for a state dict"));
        }
        self.memo.insert(place, self.top()?);
        Ok(())
    }

    fn memoize(&mut self, width: usize) -> Step<()> {
        let place = self.number(width)?;
        self.remember(place as usize)
    }

    fn recall(&mut self, width: usize) -> Step<()> {
        let place = self.number(width)?;
        let value = self.memo.get(&(place as usize)).copied();
        self.push(value.ok_or_else(|| malformed("it recalls what it never stored"))?)
    }

    fn tuple(&mut self, values: Vec<Value<'a>>) -> Step<()> {
        let (start, count) = (self.items.len(), values.len());
        for value in values {
            keep(&mut self.items, value)?;
        }
        self.push(Value::Tuple(start, count))
    }

    fn new_dict(&mut self) -> Step<()> {
        self.dicts += 1;
        self.push(Value::Dict(self.dicts))
    }

    /// Sets entries of the dict on top of the stack.
    fn set(&mut self, pairs: &[Value<'a>]) -> Step<()> {
        let Value::Dict(dict) = self.top()? else {
            return Err(malformed(&format!("an entry for {}", self.top()?.kind())));
        };
        for pair in pairs.chunks(2) {
            match *pair {
                [Value::Text(key), value] => drop(keep(&mut self.entries, (dict, key, value))?),
                // Optimizers count their states: no names of weights.
                [_, _] => {}
                _ => return Err(malformed("a key without a value")),
            }
        }
        Ok(())
    }

    /// A dict that the pickle made, but for keys that are no strings.
    pub fn dict(&self, id: usize) -> BTreeMap<&'a str, Value<'a>> {
        self.entries.iter().filter(|entry| entry.0 == id).map(|entry| (entry.1, entry.2)).collect()
    }

    /// A storage by its persistent id: ('storage', type, key, device, number of values).
    fn storage(&mut self) -> Step<()> {
        let id = self.pop()?;
        let parts = if let Value::Tuple(start, count) = id { &self.items[start..][..count] } else { &[] };
        let [
            Value::Text("storage"),
            Value::Global(Global::Storage(dtype)),
            Value::Text(key),
            _,
            Value::Int(stored),
        ] = *parts
        else {
            return Err(malformed("a storage that is none"));
        };
        let storage = keep(&mut self.storages, Storage { dtype, key, stored })?;
        self.push(Value::Storage(storage))
    }

    /// The calls that are understood.
    fn call(&mut self) -> Step<()> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let (Value::Global(callee), Value::Tuple(start, count)) = (callee, arguments) else {
            return Err(malformed(&format!("a call of {} with {}", callee.kind(), arguments.kind())));
        };
        match (callee, &self.items[start..][..count]) {
            (Global::OrderedDict, []) => self.new_dict(),
            (Global::Size, [size @ Value::Tuple(..)]) => self.push(*size),
            (Global::RebuildParameter, [tensor @ Value::Tensor(_), _, _]) => self.push(*tensor),
            // A seventh argument marks a view as conjugate or negative.
            (Global::RebuildTensor, &[Value::Storage(storage), offset, size, stride, _, _]) => {
                let tensor = keep(&mut self.tensors, Description { storage, offset, size, stride })?;
                self.push(Value::Tensor(tensor))
            }
            _ => Err(malformed("a call with unexpected arguments")),
        }
    }

    /// A tensor that the pickle made.
    pub fn tensor(&self, id: usize) -> Step<Tensor<'a>> {
        let Description { storage, offset, size, stride } = self.tensors[id];
        let Storage { dtype, key, stored } = self.storages[storage];
        let (stored, offset) = (natural(&Value::Int(stored))?, natural(&offset)?);
        Ok(Tensor { dtype, key, stored, offset, size: self.naturals(size)?, stride: self.naturals(stride)? })
    }

    fn naturals(&self, tuple: Value) -> Step<Vec<usize>> {
        match tuple {
            Value::Tuple(start, count) => self.items[start..][..count].iter().map(natural).collect(),
            other => Err(malformed(&format!("{} for a size", other.kind()))),
        }
    }
}

/// A size, stride or offset.
fn natural(value: &Value) -> Step<usize> {
    match value {
        Value::Int(value) => usize::try_from(*value).map_err(|_| malformed("a negative size or place")),
        other => Err(malformed(&format!("{} for a number", other.kind()))),
    }
}

impl Dtype {
    /// Bytes of one value.
    pub fn width(self) -> usize {
        match self {
            Self::Double | Self::Long => 8,
            Self::Float | Self::Int => 4,
            Self::Half | Self::BFloat16 | Self::Short => 2,
            Self::Byte | Self::Char | Self::Bool => 1,
        }
    }
}
