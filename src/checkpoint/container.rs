//! The two containers, seen as one table of tensors that are decoded when asked for.

use std::collections::BTreeMap;
use std::path::Path;

use pytorch_reader::{DType, PickleError, PickleValue, PytorchError, PytorchReader};
use safetensors::tensor::{Dtype as SafeDtype, SafeTensorError, SafeTensors};
use serde_json::Value;

use super::{CheckpointError, Dtype, foreign};

/// Tensors may claim this many times the bytes of their file: views may share a storage, and an
/// archive may be compressed, but an `expand` of one number to gigabytes is no weight.
const MAX_EXPANSION: u64 = 64;
/// Small files are exempt from the limit up to this many bytes.
const SMALL: u64 = 1 << 20;

/// What a file holds.
pub(super) struct Container {
    pub tensors: BTreeMap<String, Stored>,
    /// Facts beside the tensors: the safetensors metadata or the top-level dictionary.
    pub facts: BTreeMap<String, Value>,
    bytes: Vec<u8>,
}

/// One tensor, not decoded yet.
pub(super) struct Stored {
    pub shape: Vec<usize>,
    pub dtype: Dtype,
    place: Place,
}

enum Place {
    /// Range of the file.
    Bytes(std::ops::Range<usize>),
    Pickled(Box<pytorch_reader::Tensor>),
}

impl Container {
    /// Reads the table of a file.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let start = head(path)?;
        let length = <[u8; 8]>::try_from(&start[..start.len().min(8)]).map(u64::from_le_bytes);
        let safetensors = start.get(8) == Some(&b'{') && length.is_ok_and(|n| n <= 100_000_000);
        if let Some(stranger) = foreign::by_content(path, &start).filter(|_| !safetensors) {
            return Err(CheckpointError::foreign(path, stranger));
        }
        let named = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("safetensors"));
        let named = named && !start.starts_with(b"PK");
        let container = if safetensors || named { open_safetensors(path)? } else { open_torch(path)? };
        container.check_size(path)?;
        Ok(container)
    }

    /// Values of a tensor in row-major order.
    pub fn read(&self, path: &Path, key: &str, stored: &Stored) -> Result<Vec<f32>, CheckpointError> {
        let values = match &stored.place {
            Place::Bytes(range) => stored.dtype.decode(&self.bytes[range.clone()]),
            Place::Pickled(tensor) => {
                let bytes = tensor.read().map_err(|e| damaged(path, &e))?;
                stored.dtype.decode(&bytes)
            }
        };
        values.ok_or_else(|| CheckpointError::Dtype {
            path: path.to_owned(),
            key: key.to_owned(),
            dtype: stored.dtype.name().to_owned(),
        })
    }

    fn check_size(&self, path: &Path) -> Result<(), CheckpointError> {
        let file = fs_err::metadata(path)?.len();
        let elements = |s: &Stored| s.shape.iter().fold(1_u64, |n, d| n.saturating_mul(*d as u64));
        let claimed = self.tensors.values().map(|s| elements(s).saturating_mul(4));
        let claimed = claimed.fold(0_u64, u64::saturating_add);
        if claimed > file.saturating_mul(MAX_EXPANSION).max(SMALL) {
            return Err(CheckpointError::Oversized { path: path.to_owned(), claimed, file });
        }
        Ok(())
    }
}

fn head(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    use std::io::Read;
    let mut start = Vec::new();
    fs_err::File::open(path)?.take(foreign::HEAD).read_to_end(&mut start)?;
    Ok(start)
}

fn open_safetensors(path: &Path) -> Result<Container, CheckpointError> {
    let bytes = fs_err::read(path)?;
    let (length, header) = SafeTensors::read_metadata(&bytes).map_err(|e| cut_off(path, &bytes, &e))?;
    let start = 8 + length;
    let tensors = header.tensors().into_iter().map(|(key, info)| {
        let (from, to) = info.data_offsets;
        let place = Place::Bytes(start + from..start + to);
        (key, Stored { shape: info.shape.clone(), dtype: safe_dtype(info.dtype), place })
    });
    let tensors = tensors.collect();
    let parse = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
    let facts = header.metadata().iter().flatten();
    let facts = facts.map(|(key, text)| (key.clone(), parse(text.clone()))).collect();
    Ok(Container { tensors, facts, bytes })
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

fn safe_dtype(dtype: SafeDtype) -> Dtype {
    match dtype {
        SafeDtype::F32 => Dtype::F32,
        SafeDtype::F16 => Dtype::F16,
        SafeDtype::BF16 => Dtype::Bf16,
        SafeDtype::F64 => Dtype::F64,
        SafeDtype::BOOL => Dtype::Other("bool"),
        SafeDtype::I64 => Dtype::Other("i64"),
        SafeDtype::I32 => Dtype::Other("i32"),
        SafeDtype::I8 => Dtype::Other("i8"),
        SafeDtype::U8 => Dtype::Other("u8"),
        SafeDtype::F8_E4M3 | SafeDtype::F8_E5M2 => Dtype::Other("f8"),
        _ => Dtype::Other("an unusual type"),
    }
}

fn open_torch(path: &Path) -> Result<Container, CheckpointError> {
    let refuse = |e| torch_error(path, e);
    let root = PytorchReader::read_pickle_data(path, None).map_err(refuse)?;
    let facts = match root {
        PickleValue::Dict(entries) => facts(path, entries)?,
        PickleValue::Unsupported(class) => {
            return Err(executable(path, class));
        }
        _ => {
            let reason = "its root is not a dictionary of tensors".to_owned();
            return Err(CheckpointError::Format { path: path.to_owned(), reason });
        }
    };
    let tensors = PytorchReader::new(path).map_err(refuse)?.into_tensors();
    let tensors = tensors.into_iter().map(|(key, tensor)| {
        let (shape, dtype) = (tensor.shape().to_vec(), torch_dtype(tensor.dtype()));
        (key, Stored { shape, dtype, place: Place::Pickled(Box::new(tensor)) })
    });
    Ok(Container { tensors: tensors.collect(), facts, bytes: Vec::new() })
}

fn torch_dtype(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::Bf16,
        DType::F64 => Dtype::F64,
        DType::I64 => Dtype::Other("i64"),
        DType::I32 => Dtype::Other("i32"),
        DType::I16 => Dtype::Other("i16"),
        DType::I8 => Dtype::Other("i8"),
        DType::U64 => Dtype::Other("u64"),
        DType::U32 => Dtype::Other("u32"),
        DType::U16 => Dtype::Other("u16"),
        DType::U8 => Dtype::Other("u8"),
        DType::Bool => Dtype::Other("bool"),
    }
}

/// The top level as JSON; refuses objects that only code could rebuild.
fn facts(
    path: &Path,
    entries: impl IntoIterator<Item = (String, PickleValue)>,
) -> Result<BTreeMap<String, Value>, CheckpointError> {
    let entries: BTreeMap<String, PickleValue> = entries.into_iter().collect();
    entries.into_iter().map(|(key, value)| Ok((key, json(path, value)?))).collect()
}

fn json(path: &Path, value: PickleValue) -> Result<Value, CheckpointError> {
    Ok(match value {
        PickleValue::Bool(b) => b.into(),
        PickleValue::Int(i) => i.into(),
        PickleValue::Float(f) => f.into(),
        PickleValue::String(s) => s.into(),
        PickleValue::None | PickleValue::Bytes(_) => Value::Null,
        PickleValue::List(items) => {
            items.into_iter().map(|item| json(path, item)).collect::<Result<Vec<_>, _>>()?.into()
        }
        PickleValue::Dict(entries) => Value::Object(facts(path, entries)?.into_iter().collect()),
        PickleValue::Unsupported(class) if is_inert(&class) => Value::Null,
        PickleValue::Unsupported(class) => return Err(executable(path, class)),
    })
}

/// Whether a Python name stands for plain data that training scripts put beside the weights.
fn is_inert(class: &str) -> bool {
    const MODULES: [&str; 6] = ["torch.", "numpy.", "pathlib.", "datetime.", "omegaconf.", "yacs."];
    const NAMES: [&str; 10] = [
        "int",
        "builtins.set",
        "builtins.frozenset",
        "builtins.complex",
        "argparse.Namespace",
        "collections.defaultdict",
        "collections.Counter",
        "collections.deque",
        "lightning_fabric.utilities.data.AttributeDict",
        "pytorch_lightning.utilities.parsing.AttributeDict",
    ];
    let callable = ["torch.hub", "torch.jit", "torch.nn", "torch.load", "torch.classes", "torch.package"];
    let data = MODULES.iter().any(|module| class.starts_with(module));
    NAMES.contains(&class) || data && !callable.iter().any(|prefix| class.starts_with(prefix))
}

fn executable(path: &Path, class: String) -> CheckpointError {
    if let Some(stranger) = foreign::by_class(&class) {
        return CheckpointError::foreign(path, stranger);
    }
    let path = path.to_owned();
    if class.starts_with("__torch__") {
        return CheckpointError::TorchScript { path };
    }
    CheckpointError::Executable { path, class }
}

fn torch_error(path: &Path, error: PytorchError) -> CheckpointError {
    let path = path.to_owned();
    match error {
        PytorchError::Io(e) if e.raw_os_error().is_some() => {
            CheckpointError::Io(std::io::Error::new(e.kind(), format!("{}: {e}", path.display())))
        }
        PytorchError::Pickle(PickleError::UnsupportedType(class)) => executable(&path, class),
        PytorchError::InvalidFormat(reason) => CheckpointError::Format { path, reason },
        other => damaged(&path, &other),
    }
}

fn damaged(path: &Path, reason: &dyn std::fmt::Display) -> CheckpointError {
    CheckpointError::Damaged { path: path.to_owned(), reason: reason.to_string() }
}
