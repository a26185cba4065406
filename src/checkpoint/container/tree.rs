//! The values of a pickle as tensors by name, facts beside them, and the dictionaries that they lie in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value as Json;

use super::{Container, Extent, Store, Stored, View, damaged};
use crate::checkpoint::pickle::{Home, Id, Pickle, Tensor, Value};
use crate::checkpoint::{CheckpointError, Dtype, foreign};

/// Storages by their key in the file.
pub(super) type Storages = BTreeMap<String, usize>;

/// Dictionaries in dictionaries, deeper than any network.
const MAX_DEPTH: usize = 48;
/// Facts deeper than this and more than so many say nothing about a network.
const MAX_FACT_DEPTH: usize = 8;
const MAX_FACTS: usize = 1 << 20;
/// Bytes of all names together.
const MAX_NAMES: usize = 1 << 28;

/// What the values of a file amount to.
#[derive(Default)]
pub(super) struct Grown {
    tensors: BTreeMap<String, Stored>,
    scopes: BTreeSet<String>,
    facts: BTreeMap<String, Json>,
    module: Option<String>,
}

impl Grown {
    pub fn into_container(self, store: Store) -> Container {
        let Self { tensors, scopes, facts, module } = self;
        Container { tensors, scopes, facts, module, store }
    }
}

/// Collects tensors and facts; arrays in the pickle become storages behind the others.
pub(super) fn grown(
    path: &Path,
    values: &Pickle,
    storages: &Storages,
    extents: &mut Vec<Extent>,
) -> Result<Grown, CheckpointError> {
    if let Value::Object(root) = &values[values.root]
        && let Some(stranger) = foreign::by_class(&root.class)
    {
        return Err(CheckpointError::foreign(path, stranger));
    }
    let mut walk = Walk {
        path,
        values,
        storages,
        extents,
        inline: BTreeMap::new(),
        seen: BTreeSet::new(),
        names: 0,
        grown: Grown::default(),
    };
    walk.visit(values.root, &mut String::new(), 0)?;
    let mut grown = walk.grown;
    let mut left = MAX_FACTS;
    let entries = values.entries(values.root).iter();
    grown.facts = entries
        .filter_map(|(key, value)| {
            Some((values.name(*key)?, json(values, *value, MAX_FACT_DEPTH, &mut left)?))
        })
        .collect();
    Ok(grown)
}

struct Walk<'a> {
    path: &'a Path,
    values: &'a Pickle,
    storages: &'a Storages,
    extents: &'a mut Vec<Extent>,
    /// Arrays that have become storages.
    inline: BTreeMap<Id, usize>,
    /// Dictionaries and objects that were visited: one that stands in two places counts once.
    seen: BTreeSet<Id>,
    names: usize,
    grown: Grown,
}

impl Walk<'_> {
    /// Everything under a value whose name is `name`, empty or with a point behind.
    fn visit(&mut self, id: Id, name: &mut String, depth: usize) -> Result<(), CheckpointError> {
        match &self.values[id] {
            Value::Tensor(tensor) => {
                let key = name.trim_end_matches('.').to_owned();
                self.names += key.len();
                if self.names > MAX_NAMES {
                    let reason = "its tensors have too long names".to_owned();
                    return Err(CheckpointError::Format { path: self.path.to_owned(), reason });
                }
                let stored = self.stored(&key, tensor)?;
                // As in Python, the last value of a key counts.
                self.grown.tensors.insert(key, stored);
            }
            _ if depth > MAX_DEPTH || !self.seen.insert(id) => {}
            Value::Object(object) if self.is_module(id) => {
                self.grown.module.get_or_insert_with(|| object.class.clone());
                self.grown.scopes.insert(name.clone());
                self.module(id, name, depth)?;
            }
            Value::Dict(_) | Value::Object(_) => {
                self.grown.scopes.insert(name.clone());
                self.entries(id, name, depth)?;
            }
            Value::Sequence(items) => {
                // Checkpoints of several networks; lists of numbers have nothing below.
                for (i, item) in items.iter().enumerate() {
                    if matches!(self.values[*item], Value::Dict(_) | Value::Object(_) | Value::Tensor(_)) {
                        self.below(*item, &i.to_string(), name, depth)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn entries(&mut self, id: Id, name: &mut String, depth: usize) -> Result<(), CheckpointError> {
        for (key, value) in self.values.entries(id) {
            if let Some(key) = self.values.name(*key) {
                self.below(*value, &key, name, depth)?;
            }
        }
        Ok(())
    }

    fn below(&mut self, id: Id, key: &str, name: &mut String, depth: usize) -> Result<(), CheckpointError> {
        let length = name.len();
        name.push_str(key);
        name.push('.');
        self.visit(id, name, depth + 1)?;
        name.truncate(length);
        Ok(())
    }

    /// Whether an object has what every `torch.nn.Module` has.
    fn is_module(&self, id: Id) -> bool {
        ["_parameters", "_buffers", "_modules"].iter().all(|name| self.values.get(id, name).is_some())
    }

    /// What `state_dict()` of a module would give.
    fn module(&mut self, id: Id, name: &mut String, depth: usize) -> Result<(), CheckpointError> {
        let passing = self.values.get(id, "_non_persistent_buffers_set").map(|id| &self.values[id]);
        let passing: Vec<String> = match passing {
            Some(Value::Sequence(names)) => names.iter().filter_map(|name| self.values.name(*name)).collect(),
            _ => Vec::new(),
        };
        for part in ["_parameters", "_buffers", "_modules"] {
            let Some(part_id) = self.values.get(id, part) else { continue };
            for (key, value) in self.values.entries(part_id) {
                let Some(key) = self.values.name(*key) else { continue };
                if part == "_buffers" && passing.contains(&key) {
                    continue;
                }
                if part == "_modules" && self.is_module(*value) {
                    let length = name.len();
                    name.push_str(&key);
                    name.push('.');
                    if depth < MAX_DEPTH && self.seen.insert(*value) {
                        self.module(*value, name, depth + 1)?;
                    }
                    name.truncate(length);
                } else if let Value::Tensor(_) = self.values[*value] {
                    self.below(*value, &key, name, depth)?;
                }
            }
        }
        Ok(())
    }

    fn stored(&mut self, key: &str, tensor: &Tensor) -> Result<Stored, CheckpointError> {
        let dtype = Dtype::of_torch(&tensor.dtype);
        let shape = tensor.shape.clone();
        let extent = match &tensor.home {
            Home::Nowhere => return Ok(Stored::opaque(shape, dtype)),
            Home::Inline(bytes) => self.inline(*bytes),
            Home::Storage(storage) => {
                let found = self.storages.get(&storage.key).copied();
                let lacks = || format!("`{key}` lies in storage {:?}, which it lacks", storage.key);
                found.ok_or_else(|| damaged(self.path, &lacks()))?
            }
        };
        let length = self.extents[extent].length();
        let view = View { extent, offset: tensor.offset, strides: tensor.strides.clone() };
        let stored = Stored::new(shape, dtype, view, length);
        stored.map_err(|reason| damaged(self.path, &format!("`{key}`: {reason}")))
    }

    fn inline(&mut self, id: Id) -> usize {
        if let Some(extent) = self.inline.get(&id) {
            return *extent;
        }
        let bytes = match &self.values[id] {
            Value::Bytes(bytes) => bytes.clone(),
            Value::Text(text) => text.clone().into_bytes(),
            _ => Vec::new(),
        };
        self.extents.push(Extent::Memory(bytes));
        self.inline.insert(id, self.extents.len() - 1);
        self.extents.len() - 1
    }
}

/// A value as JSON; tensors, functions and what lies too deep say nothing.
fn json(values: &Pickle, id: Id, depth: usize, left: &mut usize) -> Option<Json> {
    *left = left.checked_sub(1)?;
    let depth = depth.checked_sub(1)?;
    match &values[id] {
        Value::None | Value::Long(_) => Some(Json::Null),
        Value::Bool(b) => Some((*b).into()),
        Value::Int(n) => Some((*n).into()),
        Value::Float(x) => Some((*x).into()),
        Value::Text(text) => Some(text.clone().into()),
        Value::Sequence(items) => {
            let items = items.iter().map(|item| json(values, *item, depth, left).unwrap_or(Json::Null));
            Some(Json::Array(items.collect()))
        }
        Value::Dict(_) | Value::Object(_) => {
            let entries = values.entries(id).iter();
            let entries = entries
                .filter_map(|(key, value)| Some((values.name(*key)?, json(values, *value, depth, left)?)));
            Some(Json::Object(entries.collect()))
        }
        Value::Bytes(_) | Value::Global(_) | Value::Storage(_) | Value::Tensor(_) => None,
    }
}
