//! Pickles as data: opcodes build a tree of values, and nothing that they name is ever imported or called.
//!
//! What a pickle would call is judged by its name ([`calls`]): constructors of plain data are understood, objects of
//! unknown classes stay closed boxes with their arguments inside, and functions that could run code refuse the
//! whole file.

mod calls;
mod machine;

use std::ops::Index;

pub(super) use machine::read;

/// More values than any checkpoint holds.
const MAX_VALUES: usize = 1 << 23;

/// Why a pickle cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum PickleError {
    /// It was cut off or changed.
    #[error("{0}")]
    Damaged(String),
    /// Loading it would call this.
    #[error("it would call `{0}`")]
    Calls(String),
    /// It needs more memory than a checkpoint should.
    #[error("it holds more than {MAX_VALUES} Python values")]
    TooLarge,
}

/// A value by its place in a [`Pickle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id(u32);

/// Every value of a pickle; values that Python shares are shared here.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Vec<Value>,
    pub root: Id,
}

/// What Python would have built, without its behaviour.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits, little-endian.
    Long(Vec<u8>),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// A list, tuple or set.
    Sequence(Vec<Id>),
    /// A dictionary of any class.
    Dict(Vec<(Id, Id)>),
    /// A class or function that is named and not called.
    Global(String),
    Object(Box<Object>),
    Storage(Box<Storage>),
    Tensor(Box<Tensor>),
}

/// An instance of a class that is not known.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Object {
    pub class: String,
    pub arguments: Vec<Id>,
    pub state: Option<Id>,
    /// Entries of a subclass of `dict`.
    pub items: Vec<(Id, Id)>,
    /// Entries of a subclass of `list` or `set`.
    pub elements: Vec<Id>,
}

/// The numbers behind tensors, which lie elsewhere in the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Storage {
    /// Its name in the file.
    pub key: String,
    /// Python name of the type, such as `FloatStorage`.
    pub kind: String,
    /// First element of a view in the storage (files before PyTorch 0.4).
    pub start: usize,
}

/// Where a tensor's numbers are.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Home {
    Storage(Storage),
    /// Bytes in the pickle itself, as NumPy writes them.
    Inline(Id),
    /// None that can be read; the type says why.
    Nowhere,
}

/// A tensor, not read yet.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tensor {
    pub home: Home,
    /// Name of the type of its numbers, of PyTorch (`float32`, `FloatStorage`) or of NumPy (`<f4`).
    pub dtype: String,
    /// First element in its home.
    pub offset: usize,
    pub shape: Vec<usize>,
    /// Elements from one entry of an axis to the next.
    pub strides: Vec<usize>,
}

impl Index<Id> for Pickle {
    type Output = Value;

    fn index(&self, id: Id) -> &Value {
        &self.values[id.0 as usize]
    }
}

impl Pickle {
    /// Entries of a value that is like a dictionary: of a dictionary, else of an object that is one, else its attributes.
    pub fn entries(&self, id: Id) -> &[(Id, Id)] {
        match &self[id] {
            Value::Dict(entries) => entries,
            Value::Object(object) if !object.items.is_empty() => &object.items,
            Value::Object(object) => match object.state.map(|state| &self[state]) {
                Some(Value::Dict(entries)) => entries,
                // `(attributes, slots)`
                Some(Value::Sequence(parts)) => match parts.iter().map(|part| &self[*part]).find_map(entries)
                {
                    Some(entries) => entries,
                    None => &[],
                },
                _ => &[],
            },
            _ => &[],
        }
    }

    /// Every value in the order in which it was made.
    pub fn all(&self) -> impl Iterator<Item = &Value> {
        self.values.iter()
    }

    /// The entry of this name.
    pub fn get(&self, id: Id, name: &str) -> Option<Id> {
        let named = |(key, _): &&(Id, Id)| matches!(&self[*key], Value::Text(text) if text == name);
        self.entries(id).iter().find(named).map(|(_, value)| *value)
    }

    /// A dictionary's key as text: numbers are written out, other keys have no name.
    pub fn name(&self, key: Id) -> Option<String> {
        match &self[key] {
            Value::Text(text) => Some(text.clone()),
            Value::Int(n) => Some(n.to_string()),
            _ => None,
        }
    }
}

fn entries(value: &Value) -> Option<&Vec<(Id, Id)>> {
    match value {
        Value::Dict(entries) if !entries.is_empty() => Some(entries),
        _ => None,
    }
}
