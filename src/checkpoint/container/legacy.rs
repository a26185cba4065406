//! Files that are one pickle after another: those of `torch.save` before 1.6, and plain pickles of NumPy arrays.

use std::collections::BTreeMap;
use std::path::Path;

use super::tree::{self, Storages};
use super::{Container, Extent, Store, damaged, pickle_error};
use crate::checkpoint::pickle::{self, Id, Pickle, Value};
use crate::checkpoint::{CheckpointError, Dtype};

/// The first value of a file of `torch.save`, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The only version there is.
const PROTOCOL: i64 = 1001;

pub(super) fn open(path: &Path) -> Result<Container, CheckpointError> {
    let file = margay_core::input::open(path)?;
    let bytes = margay_core::input::read(path, u64::MAX)?;
    let mut reader = Reader { path, bytes: &bytes, at: 0 };
    let first = match reader.next() {
        // Text that happens to end a value is no pickle that was damaged.
        Err(CheckpointError::Damaged { path, reason }) if bytes.first() != Some(&0x80) => {
            return Err(CheckpointError::Format { path, reason });
        }
        other => other?,
    };
    let (values, storages, mut extents) = match &first[first.root] {
        Value::Long(magic) if *magic == MAGIC => reader.saved()?,
        _ if bytes.first() != Some(&0x80) && reader.at < bytes.len() => {
            let reason = "it begins with neither an archive nor a pickle".to_owned();
            return Err(CheckpointError::Format { path: path.to_owned(), reason });
        }
        _ => (first, Storages::new(), Vec::new()),
    };
    drop(bytes);
    let grown = tree::grown(path, &values, &storages, &mut extents)?;
    Ok(grown.into_container(Store { file, extents }))
}

struct Reader<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Result<Pickle, CheckpointError> {
        let (pickle, length) =
            pickle::read(&self.bytes[self.at..]).map_err(|error| pickle_error(self.path, error))?;
        self.at += length;
        Ok(pickle)
    }

    /// Version, machine, values, and the storages in the order of their keys.
    fn saved(&mut self) -> Result<(Pickle, Storages, Vec<Extent>), CheckpointError> {
        let version = self.next()?;
        if version[version.root] != Value::Int(PROTOCOL) {
            return Err(CheckpointError::Format {
                path: self.path.to_owned(),
                reason: "it is of an unknown version of torch.save".to_owned(),
            });
        }
        let machine = self.next()?;
        let little = machine.get(machine.root, "little_endian").map(|id| &machine[id]);
        if little == Some(&Value::Bool(false)) {
            return Err(big_endian(self.path));
        }
        let values = self.next()?;
        let keys = self.next()?;
        let kinds = kinds(&values);
        let (mut table, mut extents) = (Storages::new(), Vec::new());
        for key in texts(&keys, keys.root) {
            let kind = kinds.get(&key).copied().unwrap_or_default();
            table.insert(key, extents.len());
            extents.push(self.storage(kind)?);
        }
        Ok((values, table, extents))
    }

    /// How many elements there are, and they themselves.
    fn storage(&mut self, kind: &str) -> Result<Extent, CheckpointError> {
        let cut = || damaged(self.path, &"it ends in the middle of its storages");
        let start = self.at.checked_add(8).ok_or_else(cut)?;
        let count = self.bytes.get(self.at..start).ok_or_else(cut)?;
        let count = count.iter().rev().fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
        let length = count.checked_mul(Dtype::of_torch(kind).size().unwrap_or(1) as u64);
        let end = length.and_then(|length| (start as u64).checked_add(length));
        let (length, end) = length.zip(end.filter(|end| *end <= self.bytes.len() as u64)).ok_or_else(cut)?;
        self.at = end as usize;
        Ok(Extent::File { start: start as u64, length })
    }
}

/// The type of each storage.
fn kinds(values: &Pickle) -> BTreeMap<String, &str> {
    let all = values.all().filter_map(|value| match value {
        Value::Storage(storage) => Some((storage.key.clone(), storage.kind.as_str())),
        _ => None,
    });
    all.collect()
}

fn texts(values: &Pickle, id: Id) -> Vec<String> {
    match &values[id] {
        Value::Sequence(items) => items.iter().filter_map(|item| values.name(*item)).collect(),
        _ => Vec::new(),
    }
}

pub(super) fn big_endian(path: &Path) -> CheckpointError {
    CheckpointError::Format {
        path: path.to_owned(),
        reason: "its numbers are big-endian; load and save it again on a usual machine".to_owned(),
    }
}
