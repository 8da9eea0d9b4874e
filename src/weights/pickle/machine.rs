//! The machine that a pickle is a program for, reduced to what state dicts need (protocols 2 to 5).
//!
//! It understands the few calls that tensors are made of and runs nothing: what any other call would make is an opaque
//! value, of which only the class is known.
//! Its values are small handles into flat lists of bounded length: neither cycles nor deep nesting nor
//! endless repetition can hurt it.

use super::Step;
use super::globals::Global;
use crate::error::{Problem, failed};
use crate::weights::dtype::Dtype;
use std::collections::{BTreeMap, HashMap};

/// Bound of each of the machine's lists. A tensor takes some twenty entries, a large checkpoint 100 000.
const MAX_OBJECTS: usize = 1 << 20;

/// Bound of the elements that are looked through for lists; a dict of a thousand tensors as Python 2 saved it takes a tenth.
const MAX_LOOKED_THROUGH: usize = 1 << 26;

/// A value of the machine: a handle, where it is more than a word.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// Something that tensors do not need: None, a float, a set, bytes, a very long integer.
    Other,
    Flag(bool),
    Int(i64),
    Text(&'a str),
    /// Start and length in `Machine::items`.
    Tuple(usize, usize),
    List(usize),
    Dict(usize),
    /// What a class that tensors do not need would make: its class, and its place among the dicts, in case it is one.
    Object(usize, usize),
    Global(Global),
    Storage(usize),
    Tensor(usize),
}

impl Value<'_> {
    pub fn kind(self) -> &'static str {
        match self {
            Self::Other => "a float, bytes or the like",
            Self::Flag(_) => "a flag",
            Self::Int(_) => "an integer",
            Self::Text(_) => "a string",
            Self::Tuple(..) => "a tuple",
            Self::List(_) => "a list",
            Self::Dict(_) => "a dict",
            Self::Object(..) => "an object",
            Self::Global(_) => "a type or function",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
        }
    }
}

#[derive(Clone, Copy)]
struct Storage<'a> {
    /// None where it is mere bytes.
    dtype: Option<Dtype>,
    key: &'a str,
    /// Number of values, or of bytes.
    stored: i64,
}

/// A tensor as described: only those that are asked for are looked at closely.
#[derive(Clone, Copy)]
struct Description<'a> {
    storage: usize,
    /// Where the storage does not say it.
    dtype: Option<Dtype>,
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
    lists: usize,
    /// The entries of all dicts that have a string for a key: dict, key, value. In the order of dicts once it has run.
    entries: Vec<(usize, &'a str, Value<'a>)>,
    /// The elements of all lists, and to which they belong.
    elements: Vec<(usize, Value<'a>)>,
    looked_through: usize,
    /// Module and name of the classes and functions that tensors do not need.
    classes: Vec<(&'a str, &'a str)>,
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
                b'.' => {
                    // Stable: of two entries of one key the later counts.
                    self.entries.sort_by_key(|entry| entry.0);
                    return self.pop();
                }
                0x80 => match self.number(1)? {
                    2..=5 => {}
                    version => return Err(malformed(&format!("protocol {version}, expected 2 to 5"))),
                },
                // Frames only help those that read from a stream.
                0x95 => drop(self.take(8)?),
                b'(' => drop(keep(&mut self.marks, self.stack.len())?),
                b'N' | 0x8f => self.push(Value::Other)?,
                0x88 => self.push(Value::Flag(true))?,
                0x89 => self.push(Value::Flag(false))?,
                b']' => {
                    self.lists += 1;
                    self.push(Value::List(self.lists))?;
                }
                b'0' => drop(self.pop()?),
                b'1' => drop(self.since_mark()?),
                b'2' => {
                    let top = self.top()?;
                    self.push(top)?;
                }
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
                0x8c | b'U' => self.text(1)?,
                b'X' | b'T' => self.text(4)?,
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
                b'a' => {
                    let element = self.pop()?;
                    self.append(&[element])?;
                }
                b'e' => {
                    let elements = self.since_mark()?;
                    self.append(&elements)?;
                }
                0x90 => drop(self.since_mark()?),
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
                    self.global(module, name)?;
                }
                0x93 => {
                    let (Value::Text(name), Value::Text(module)) = (self.pop()?, self.pop()?) else {
                        return Err(malformed("a global without a name"));
                    };
                    self.global(module, name)?;
                }
                b'Q' => self.persistent()?,
                // A class called with a tuple; with a tuple and a dict.
                b'R' | 0x81 => {
                    let (arguments, callee) = (self.pop()?, self.pop()?);
                    self.call(callee, arguments)?;
                }
                0x92 => {
                    let (_, arguments, callee) = (self.pop()?, self.pop()?, self.pop()?);
                    self.call(callee, arguments)?;
                }
                // The state of an object. An OrderedDict has the modules' versions there.
                b'b' => match (self.pop()?, self.top()?) {
                    (_, Value::Dict(_) | Value::Object(..) | Value::Tensor(_)) => {}
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

    /// Appends to the list on top of the stack.
    fn append(&mut self, elements: &[Value<'a>]) -> Step<()> {
        match self.top()? {
            // Long histories are no error: what is needed of lists is short and comes first.
            Value::List(list) => {
                let room = MAX_OBJECTS.saturating_sub(self.elements.len());
                self.elements.extend(elements.iter().take(room).map(|element| (list, *element)));
                Ok(())
            }
            Value::Object(..) => Ok(()),
            other => Err(malformed(&format!("an element for {}", other.kind()))),
        }
    }

    /// Sets entries of the dict on top of the stack.
    fn set(&mut self, pairs: &[Value<'a>]) -> Step<()> {
        let (Value::Dict(dict) | Value::Object(_, dict)) = self.top()? else {
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
        let start = self.entries.partition_point(|entry| entry.0 < id);
        let entries = self.entries[start..].iter().take_while(|entry| entry.0 == id);
        entries.map(|entry| (entry.1, entry.2)).collect()
    }

    /// A list that the pickle made. Each time all elements are looked through, so how often is bounded.
    pub fn list(&mut self, id: usize) -> Step<Vec<Value<'a>>> {
        self.looked_through += self.elements.len();
        if self.looked_through > MAX_LOOKED_THROUGH {
            return Err(failed("its pickle is made of too many lists for a state dict"));
        }
        Ok(self.elements.iter().filter(|element| element.0 == id).map(|element| element.1).collect())
    }

    /// Module and name of the class of an [object](Value::Object).
    pub fn class(&self, class: usize) -> (&'a str, &'a str) {
        self.classes[class]
    }

    /// What is left of the input behind the pickle.
    pub fn rest(&self) -> &'a [u8] {
        self.input
    }

    /// Bytes of a value of each storage that the pickle names.
    pub fn storage_widths(&self) -> HashMap<&'a str, usize> {
        let width = |storage: &Storage<'a>| (storage.key, storage.dtype.map_or(1, Dtype::width));
        self.storages.iter().map(width).collect()
    }

    fn global(&mut self, module: &'a str, name: &'a str) -> Step<()> {
        let global = match Global::known(module, name) {
            Some(known) => known,
            None => Global::Opaque(keep(&mut self.classes, (module, name))?),
        };
        self.push(Value::Global(global))
    }

    fn object(&mut self, class: usize) -> Step<()> {
        self.dicts += 1;
        self.push(Value::Object(class, self.dicts))
    }

    /// What lies outside of the pickle: a storage, ('storage', type, key, device, number of values), or in the old format
    /// the class of a module, ('module', class, file, source).
    fn persistent(&mut self) -> Step<()> {
        let id = self.pop()?;
        let parts = if let Value::Tuple(start, count) = id { &self.items[start..][..count] } else { &[] };
        let (dtype, key, stored) = match *parts {
            [Value::Text("module"), class @ Value::Global(_), ..] => return self.push(class),
            [Value::Text("storage"), Value::Global(class), Value::Text(key), _, Value::Int(stored)]
            // The old format has None for the view that it is.
            | [Value::Text("storage"), Value::Global(class), Value::Text(key), _, Value::Int(stored), Value::Other] => {
                match class {
                    Global::Storage(dtype) => (Some(dtype), key, stored),
                    Global::UntypedStorage => (None, key, stored),
                    _ => return Err(malformed("a storage of no known type")),
                }
            }
            _ => return Err(malformed("a storage that is none")),
        };
        let storage = keep(&mut self.storages, Storage { dtype, key, stored })?;
        self.push(Value::Storage(storage))
    }

    /// The calls that are understood; any other makes an opaque value.
    fn call(&mut self, mut callee: Value<'a>, mut arguments: Value<'a>) -> Step<()> {
        loop {
            let global = match callee {
                Value::Global(Global::Opaque(class)) | Value::Object(class, _) => return self.object(class),
                Value::Global(global) => global,
                other => return Err(malformed(&format!("a call of {}", other.kind()))),
            };
            let Value::Tuple(start, count) = arguments else {
                return Err(malformed(&format!("a call with {}", arguments.kind())));
            };
            let (storage, dtype, offset, size, stride) = match (global, &self.items[start..][..count]) {
                (Global::Dict, []) => return self.new_dict(),
                // A defaultdict's function for what is missing.
                (Global::Dict, [Value::Global(_) | Value::Other]) => return self.new_dict(),
                (Global::Dict, &[Value::List(pairs)]) => return self.dict_of(pairs),
                (Global::Size, &[size @ Value::Tuple(..)]) => return self.push(size),
                (
                    Global::RebuildParameter,
                    &[tensor @ Value::Tensor(_), _, _] | &[tensor @ Value::Tensor(_), _, _, _],
                ) => {
                    return self.push(tensor);
                }
                (Global::RebuildFromType, &[function, _, inner, _]) => {
                    (callee, arguments) = (function, inner);
                    continue;
                }
                // A seventh argument marks a view as conjugate or negative.
                (
                    Global::RebuildTensor,
                    &[Value::Storage(storage), offset, size, stride]
                    | &[Value::Storage(storage), offset, size, stride, _, _],
                ) => (storage, None, offset, size, stride),
                (
                    Global::RebuildTyped,
                    &[
                        Value::Storage(storage),
                        offset,
                        size,
                        stride,
                        _,
                        _,
                        Value::Global(Global::Dtype(dtype)),
                    ],
                ) => (storage, Some(dtype), offset, size, stride),
                (Global::RebuildTyped, [_, _, _, _, _, _, Value::Global(_), ..]) => {
                    return Err(failed("one of its tensors has a type of numbers that is not read")
                        .hint("save it as float32: `{name: tensor.float() …}`"));
                }
                _ => return Err(malformed("a call with unexpected arguments")),
            };
            let tensor = keep(&mut self.tensors, Description { storage, dtype, offset, size, stride })?;
            return self.push(Value::Tensor(tensor));
        }
    }

    /// A dict of a list of pairs, as Python 2 saved it.
    fn dict_of(&mut self, pairs: usize) -> Step<()> {
        let pairs = self.list(pairs)?;
        self.new_dict()?;
        for pair in pairs {
            let pair = match pair {
                Value::List(pair) => self.list(pair)?,
                Value::Tuple(start, count) => self.items[start..][..count].to_vec(),
                _ => return Err(malformed("a pair that is none")),
            };
            self.set(&pair)?;
        }
        Ok(())
    }

    /// A tensor that the pickle made.
    pub fn tensor(&self, id: usize) -> Step<Tensor<'a>> {
        let Description { storage, dtype, offset, size, stride } = self.tensors[id];
        let Storage { dtype: stored_as, key, stored } = self.storages[storage];
        let (mut stored, offset) = (natural(&Value::Int(stored))?, natural(&offset)?);
        let dtype = match (stored_as, dtype) {
            (Some(dtype), None) => dtype,
            (None, Some(dtype)) => {
                stored /= dtype.width();
                dtype
            }
            _ => return Err(malformed("a tensor of no type, or of two")),
        };
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
