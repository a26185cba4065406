//! The stack machine of a pickle, protocols 0 to 5.

use std::collections::BTreeMap;

use super::calls::{self, Verdict};
use super::{Home, Id, MAX_VALUES, Object, Pickle, PickleError, Storage, Tensor, Value};

type Result<T> = std::result::Result<T, PickleError>;

/// Reads the pickle at the start of `bytes`; returns it and how many bytes it takes.
pub(in crate::checkpoint) fn read(bytes: &[u8]) -> Result<(Pickle, usize)> {
    let mut machine = Machine::new(bytes);
    let root = machine.run()?;
    Ok((Pickle { values: machine.values, root }, machine.at))
}

pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: BTreeMap<u64, Id>,
    /// Bytes that were copied from one value to another.
    copied: usize,
}

/// Parts of a reference to a storage.
const PERSISTENT: usize = 6;

/// Values that are always there.
const NONE: Id = Id(0);
const TRUE: Id = Id(1);
const FALSE: Id = Id(2);

impl<'a> Machine<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let values = vec![Value::None, Value::Bool(true), Value::Bool(false)];
        let (stack, marks, memo) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { bytes, at: 0, values, stack, marks, memo, copied: 0 }
    }

    fn run(&mut self) -> Result<Id> {
        loop {
            let at = self.at;
            let opcode = self.byte()?;
            match opcode {
                b'.' => return self.pop(),
                b'(' => self.marks.push(self.stack.len()),
                b'0' => self.discard()?,
                b'1' => drop(self.above_mark()?),
                b'2' => self.duplicate()?,
                // The protocol and the length of what follows.
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'N' => self.stack.push(NONE),
                0x88 => self.stack.push(TRUE),
                0x89 => self.stack.push(FALSE),
                b'F' | b'I' | b'L' | b'S' | b'V' => self.line_of_text(opcode)?,
                b'J' | b'K' | b'M' | b'G' | 0x8a | 0x8b => self.number(opcode)?,
                b'T' | b'U' | b'X' | 0x8c | 0x8d | b'B' | b'C' | 0x8e | 0x96 => self.string(opcode)?,
                b']' | b')' | 0x8f => self.push(Value::Sequence(Vec::new()))?,
                b'l' | b't' | 0x91 => self.gathered()?,
                0x85..=0x87 => self.tuple(usize::from(opcode - 0x84))?,
                b'}' => self.push(Value::Dict(Vec::new()))?,
                b'd' => self.dictionary()?,
                b'a' => self.append()?,
                b'e' | 0x90 => self.extend()?,
                b's' => self.set_item()?,
                b'u' => self.set_items()?,
                b'p' | b'q' | b'r' | 0x94 => self.remember(opcode)?,
                b'g' | b'h' | b'j' => self.recall(opcode)?,
                b'c' | 0x93 => self.global(opcode)?,
                b'R' | 0x81 | 0x92 | b'i' | b'o' => self.call(opcode)?,
                b'b' => self.build()?,
                b'P' | b'Q' => self.persistent(opcode)?,
                _ => return Err(damaged(format!("byte {at} of its pickle is no opcode (0x{opcode:02x})"))),
            }
            if self.values.len() > MAX_VALUES
                || self.stack.len() > MAX_VALUES
                || self.marks.len() > MAX_VALUES
            {
                return Err(PickleError::TooLarge);
            }
        }
    }

    // Bytes.

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| damaged("its pickle ends in the middle of a value".to_owned()))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn line(&mut self) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|byte| *byte == b'\n');
        let length = length.ok_or_else(|| damaged("its pickle ends in the middle of a line".to_owned()))?;
        self.at += length + 1;
        Ok(&rest[..length])
    }

    /// A little-endian number of so many bytes.
    fn length(&mut self, bytes: usize) -> Result<u64> {
        let taken = self.take(bytes)?;
        Ok(taken.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte)))
    }

    // The stack.

    fn push(&mut self, value: Value) -> Result<()> {
        let id = self.add(value)?;
        self.stack.push(id);
        Ok(())
    }

    fn add(&mut self, value: Value) -> Result<Id> {
        let id = u32::try_from(self.values.len()).map_err(|_| PickleError::TooLarge)?;
        self.values.push(value);
        Ok(Id(id))
    }

    fn pop(&mut self) -> Result<Id> {
        let low = self.marks.last().copied().unwrap_or(0);
        let id = if self.stack.len() > low { self.stack.pop() } else { None };
        id.ok_or_else(|| damaged("its pickle takes a value that is not there".to_owned()))
    }

    fn top(&self) -> Result<Id> {
        let id = self.stack.last().copied();
        id.ok_or_else(|| damaged("its pickle changes a value that is not there".to_owned()))
    }

    /// Drops the last value, or the last mark if it is on top.
    fn discard(&mut self) -> Result<()> {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
            return Ok(());
        }
        self.pop().map(drop)
    }

    fn duplicate(&mut self) -> Result<()> {
        let top = self.top()?;
        self.stack.push(top);
        Ok(())
    }

    fn above_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().filter(|mark| *mark <= self.stack.len());
        let mark = mark.ok_or_else(|| damaged("its pickle lacks a mark".to_owned()))?;
        Ok(self.stack.split_off(mark))
    }

    // Values.

    fn line_of_text(&mut self, opcode: u8) -> Result<()> {
        let line = self.line()?;
        let text = String::from_utf8_lossy(line).into_owned();
        let unreadable = || damaged(format!("its pickle holds a number that is none: {text:?}"));
        let value = match opcode {
            b'F' => Value::Float(text.trim().parse().map_err(|_| unreadable())?),
            b'I' if text == "01" => Value::Bool(true),
            b'I' if text == "00" => Value::Bool(false),
            b'I' | b'L' => match text.trim().trim_end_matches('L').parse::<i64>() {
                Ok(n) => Value::Int(n),
                Err(_) => Value::Float(text.trim().trim_end_matches('L').parse().map_err(|_| unreadable())?),
            },
            _ => Value::Text(text.trim_matches(['\'', '"']).to_owned()),
        };
        self.push(value)
    }

    fn number(&mut self, opcode: u8) -> Result<()> {
        let value = match opcode {
            b'J' => Value::Int(i64::from(self.length(4)? as u32 as i32)),
            b'K' => Value::Int(self.length(1)? as i64),
            b'M' => Value::Int(self.length(2)? as i64),
            b'G' => {
                let bytes = self.take(8)?;
                Value::Float(f64::from_be_bytes(std::array::from_fn(|i| bytes[i])))
            }
            _ => {
                let bytes = self.counted(if opcode == 0x8a { 1 } else { 4 })?;
                integer(bytes)
            }
        };
        self.push(value)
    }

    /// As many bytes as the number in front of them says.
    fn counted(&mut self, width: usize) -> Result<&'a [u8]> {
        let count = self.length(width)?;
        let count = usize::try_from(count).map_err(|_| PickleError::TooLarge)?;
        self.take(count)
    }

    fn string(&mut self, opcode: u8) -> Result<()> {
        let width = match opcode {
            b'U' | 0x8c | b'C' => 1,
            b'T' | b'X' | b'B' => 4,
            _ => 8,
        };
        let bytes = self.counted(width)?;
        let value = match opcode {
            b'X' | 0x8c | 0x8d => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
            // Strings of Python 2 are texts or bytes.
            b'T' | b'U' => match std::str::from_utf8(bytes) {
                Ok(text) => Value::Text(text.to_owned()),
                Err(_) => Value::Bytes(bytes.to_vec()),
            },
            _ => Value::Bytes(bytes.to_vec()),
        };
        self.push(value)
    }

    fn gathered(&mut self) -> Result<()> {
        let items = self.above_mark()?;
        self.push(Value::Sequence(items))
    }

    fn tuple(&mut self, count: usize) -> Result<()> {
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Value::Sequence(items))
    }

    fn dictionary(&mut self) -> Result<()> {
        let entries = pairs(&self.above_mark()?)?;
        self.push(Value::Dict(entries))
    }

    fn append(&mut self) -> Result<()> {
        let item = self.pop()?;
        self.lengthen(vec![item])
    }

    fn extend(&mut self) -> Result<()> {
        let items = self.above_mark()?;
        self.lengthen(items)
    }

    fn lengthen(&mut self, mut more: Vec<Id>) -> Result<()> {
        let target = self.top()?;
        self.refuse_code_in(target)?;
        match &mut self.values[target.0 as usize] {
            Value::Sequence(items) => items.append(&mut more),
            Value::Object(object) => object.elements.append(&mut more),
            _ => {}
        }
        Ok(())
    }

    fn set_item(&mut self) -> Result<()> {
        let value = self.pop()?;
        let key = self.pop()?;
        self.insert(vec![(key, value)])
    }

    fn set_items(&mut self) -> Result<()> {
        let entries = pairs(&self.above_mark()?)?;
        self.insert(entries)
    }

    fn insert(&mut self, mut more: Vec<(Id, Id)>) -> Result<()> {
        let target = self.top()?;
        self.refuse_code_in(target)?;
        match &mut self.values[target.0 as usize] {
            Value::Dict(entries) => entries.append(&mut more),
            Value::Object(object) => object.items.append(&mut more),
            _ => {}
        }
        Ok(())
    }

    // The memo.

    fn remember(&mut self, opcode: u8) -> Result<()> {
        let number = match opcode {
            b'p' => self.line_number()?,
            b'q' => self.length(1)?,
            b'r' => self.length(4)?,
            _ => self.memo.len() as u64,
        };
        let top = self.top()?;
        self.memo.insert(number, top);
        if self.memo.len() > MAX_VALUES { Err(PickleError::TooLarge) } else { Ok(()) }
    }

    fn recall(&mut self, opcode: u8) -> Result<()> {
        let number = match opcode {
            b'g' => self.line_number()?,
            b'h' => self.length(1)?,
            _ => self.length(4)?,
        };
        let id = self.memo.get(&number).copied();
        self.stack.push(id.ok_or_else(|| damaged(format!("its pickle lacks value {number}")))?);
        Ok(())
    }

    fn line_number(&mut self) -> Result<u64> {
        let line = self.line()?;
        let number = std::str::from_utf8(line).ok().and_then(|text| text.trim().parse().ok());
        number.ok_or_else(|| damaged("its pickle names a value by something else than a number".to_owned()))
    }

    // Names and calls.

    fn global(&mut self, opcode: u8) -> Result<()> {
        let name = if opcode == b'c' {
            let [module, name] = [self.line()?, self.line()?].map(String::from_utf8_lossy);
            format!("{module}.{name}")
        } else {
            let (name, module) = (self.pop()?, self.pop()?);
            match (self.value(module), self.value(name)) {
                (Value::Text(module), Value::Text(name)) => format!("{module}.{name}"),
                _ => return Err(damaged("its pickle names a class by something else than text".to_owned())),
            }
        };
        self.push(Value::Global(name))
    }

    fn call(&mut self, opcode: u8) -> Result<()> {
        let (callee, arguments) = match opcode {
            b'i' => {
                let [module, name] = [self.line()?, self.line()?].map(String::from_utf8_lossy);
                let callee = self.add(Value::Global(format!("{module}.{name}")))?;
                (callee, self.above_mark()?)
            }
            b'o' => {
                let mut all = self.above_mark()?;
                if all.is_empty() {
                    return Err(damaged("its pickle makes an object without a class".to_owned()));
                }
                let callee = all.remove(0);
                (callee, all)
            }
            _ => {
                let named = if opcode == 0x92 { Some(self.pop()?) } else { None };
                let (arguments, callee) = (self.pop()?, self.pop()?);
                let mut arguments = self.sequence(arguments);
                arguments.extend(named);
                self.spend(arguments.len() * size_of::<Id>())?;
                (callee, arguments)
            }
        };
        let result = self.called(callee, arguments)?;
        self.stack.push(result);
        Ok(())
    }

    /// What a call would make of its arguments.
    pub(super) fn called(&mut self, callee: Id, arguments: Vec<Id>) -> Result<Id> {
        let Value::Global(name) = self.value(callee) else {
            return Err(PickleError::Calls("the result of another call".to_owned()));
        };
        let name = name.clone();
        match calls::verdict(&name) {
            Verdict::Code => Err(PickleError::Calls(name)),
            Verdict::Data(make) => match make(self, &name, &arguments)? {
                Some(id) => Ok(id),
                None => self.object(name, arguments),
            },
            Verdict::Unknown => self.object(name, arguments),
        }
    }

    pub(super) fn object(&mut self, class: String, arguments: Vec<Id>) -> Result<Id> {
        self.add(Value::Object(Box::new(Object { class, arguments, ..Object::default() })))
    }

    fn build(&mut self) -> Result<()> {
        let state = self.pop()?;
        let target = self.top()?;
        self.refuse_code_in(target)?;
        if let Some(array) = calls::built(self, target, state) {
            self.values[target.0 as usize] = array;
        } else if let Value::Object(object) = &mut self.values[target.0 as usize] {
            object.state = Some(state);
        }
        Ok(())
    }

    /// A pickle may change what it names, such as the environment of the process.
    fn refuse_code_in(&self, target: Id) -> Result<()> {
        match self.value(target) {
            Value::Global(name) if matches!(calls::verdict(name), Verdict::Code) => {
                Err(PickleError::Calls(name.clone()))
            }
            _ => Ok(()),
        }
    }

    /// `("storage", type, key, location, count, view)`, or a class with its source.
    fn persistent(&mut self, opcode: u8) -> Result<()> {
        if opcode == b'P' {
            let key = String::from_utf8_lossy(self.line()?).into_owned();
            return self.push_persistent_key(&key);
        }
        let id = self.pop()?;
        let parts = match self.value(id) {
            Value::Sequence(parts) => parts.iter().take(PERSISTENT).copied().collect::<Vec<_>>(),
            Value::Text(key) => {
                let key = key.clone();
                return self.push_persistent_key(&key);
            }
            Value::Int(key) => {
                let key = key.to_string();
                return self.push_persistent_key(&key);
            }
            _ => {
                return Err(damaged(
                    "its pickle refers to a storage by something else than a tuple".to_owned(),
                ));
            }
        };
        let part = |i: usize| parts.get(i).map(|id| self.value(*id));
        match (part(0), part(1), part(2)) {
            (Some(Value::Text(tag)), Some(Value::Global(kind)), Some(Value::Text(key)))
                if tag == "storage" =>
            {
                // `(key, start, count)` of a view.
                let start = match part(5) {
                    Some(Value::Sequence(view)) => {
                        view.get(1).and_then(|start| self.integer(*start)).unwrap_or(0)
                    }
                    _ => 0,
                };
                let storage = Storage { key: key.clone(), kind: kind.clone(), start };
                self.push(Value::Storage(Box::new(storage)))
            }
            (Some(Value::Text(tag)), Some(Value::Global(_)), _) if tag == "module" => {
                self.stack.push(parts[1]);
                Ok(())
            }
            _ => Err(damaged("its pickle refers to something else than a storage".to_owned())),
        }
    }

    /// In the archives of the first versions of PyTorch tensors are named by a number.
    fn push_persistent_key(&mut self, key: &str) -> Result<()> {
        let storage = Storage { key: key.to_owned(), kind: "tensor".to_owned(), start: 0 };
        self.push(Value::Storage(Box::new(storage)))
    }

    // For the table of calls.

    pub(super) fn value(&self, id: Id) -> &Value {
        &self.values[id.0 as usize]
    }

    pub(super) fn sequence(&self, id: Id) -> Vec<Id> {
        match self.value(id) {
            Value::Sequence(items) => items.clone(),
            _ => Vec::new(),
        }
    }

    /// A number that is an extent, an offset or a length.
    pub(super) fn integer(&self, id: Id) -> Option<usize> {
        match self.value(id) {
            Value::Int(n) => usize::try_from(*n).ok(),
            _ => None,
        }
    }

    /// Numbers of a tuple; none if there is anything else in it.
    pub(super) fn integers(&self, id: Id) -> Option<Vec<usize>> {
        match self.value(id) {
            Value::Sequence(items) => items.iter().map(|item| self.integer(*item)).collect(),
            _ => None,
        }
    }

    pub(super) fn make(&mut self, value: Value) -> Result<Id> {
        self.add(value)
    }

    pub(super) fn make_tensor(&mut self, tensor: Tensor) -> Result<Id> {
        self.spend(2 * size_of::<usize>() * tensor.shape.len() + size_of::<Tensor>())?;
        self.add(Value::Tensor(Box::new(tensor)))
    }

    /// A few bytes of a pickle could copy a long value again and again.
    pub(super) fn spend(&mut self, bytes: usize) -> Result<()> {
        const FACTOR: usize = 8;
        const SMALL: usize = 16 << 20;
        self.copied = self.copied.saturating_add(bytes);
        let allowed = self.bytes.len().saturating_mul(FACTOR).saturating_add(SMALL);
        if self.copied > allowed { Err(PickleError::TooLarge) } else { Ok(()) }
    }
}

impl Tensor {
    /// A tensor whose numbers are not of any use here.
    pub(super) fn opaque(dtype: &str, shape: Vec<usize>) -> Self {
        let strides = vec![0; shape.len()];
        Self { home: Home::Nowhere, dtype: dtype.to_owned(), offset: 0, shape, strides }
    }
}

fn pairs(flat: &[Id]) -> Result<Vec<(Id, Id)>> {
    match flat.as_chunks::<2>() {
        (pairs, []) => Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect()),
        _ => Err(damaged("its pickle holds a key without a value".to_owned())),
    }
}

/// Little-endian in two's complement.
fn integer(bytes: &[u8]) -> Value {
    let negative = bytes.last().is_some_and(|byte| *byte >= 0x80);
    if bytes.len() > 8 {
        return Value::Long(bytes.to_vec());
    }
    let mut whole = [if negative { 0xff } else { 0 }; 8];
    whole[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(whole))
}

fn damaged(reason: String) -> PickleError {
    PickleError::Damaged(reason)
}
