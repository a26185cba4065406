//! safetensors.

use std::path::Path;

use safetensors::tensor::{Dtype as SafeDtype, SafeTensorError, SafeTensors};
use serde_json::Value;

use super::{Container, Extent, Store, Stored, View, contiguous, damaged};
use crate::checkpoint::{CheckpointError, Dtype};

pub(super) fn open(path: &Path) -> Result<Container, CheckpointError> {
    let file = margay_core::input::open(path)?;
    let bytes = margay_core::input::read(path, u64::MAX)?;
    let (length, header) = SafeTensors::read_metadata(&bytes).map_err(|e| cut_off(path, &bytes, &e))?;
    let start = 8 + length;
    // Each tensor is a storage of its own.
    let (mut tensors, mut extents) = (std::collections::BTreeMap::new(), Vec::new());
    let listed: std::collections::BTreeMap<_, _> = header.tensors().into_iter().collect();
    for (key, info) in listed {
        let (from, to) = info.data_offsets;
        let (extent, strides) = (extents.len(), contiguous(&info.shape));
        extents.push(Extent::File { start: (start + from) as u64, length: (to - from) as u64 });
        let view = View { extent, offset: 0, strides };
        let stored = Stored::new(info.shape.clone(), dtype(info.dtype), view, (to - from) as u64);
        tensors.insert(key.clone(), stored.map_err(|reason| damaged(path, &format!("`{key}`: {reason}")))?);
    }
    let parse = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
    let facts = header.metadata().iter().flatten();
    let facts = facts.map(|(key, text)| (key.clone(), parse(text.clone()))).collect();
    let store = Store { file, extents };
    Ok(Container { tensors, scopes: [String::new()].into(), facts, module: None, store })
}

/// Says how much of a file is there where its end is missing.
fn cut_off(path: &Path, bytes: &[u8], error: &SafeTensorError) -> CheckpointError {
    let length = bytes.len();
    match error {
        SafeTensorError::HeaderTooSmall | SafeTensorError::InvalidHeaderLength => {
            damaged(path, &format!("it ends after {length} bytes, in the middle of its header"))
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            let reason = "its tensors and its length do not agree";
            damaged(path, &format!("{reason}: it ends after {length} bytes"))
        }
        other => damaged(path, other),
    }
}

fn dtype(dtype: SafeDtype) -> Dtype {
    match dtype {
        SafeDtype::F32 => Dtype::F32,
        SafeDtype::F16 => Dtype::F16,
        SafeDtype::BF16 => Dtype::Bf16,
        SafeDtype::F64 => Dtype::F64,
        SafeDtype::F8_E4M3 => Dtype::F8E4m3,
        SafeDtype::F8_E5M2 => Dtype::F8E5m2,
        SafeDtype::BOOL => Dtype::Other("bool"),
        SafeDtype::I64 => Dtype::Other("i64"),
        SafeDtype::I32 => Dtype::Other("i32"),
        SafeDtype::I16 => Dtype::Other("i16"),
        SafeDtype::I8 => Dtype::Other("i8"),
        SafeDtype::U8 => Dtype::Other("u8"),
        _ => Dtype::Other("an unusual type"),
    }
}
