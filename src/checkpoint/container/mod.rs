//! The containers of weights, seen as one table of tensors that are decoded when asked for.

mod archive;
mod legacy;
mod safe;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use serde_json::Value;

use super::pickle::PickleError;
use super::{CheckpointError, Dtype, foreign};

/// Tensors may claim this many times the bytes of their file: views may share a storage, and an
/// archive may be compressed, but an `expand` of one number to gigabytes is no weight.
pub(super) const MAX_EXPANSION: u64 = 64;
/// Small files are exempt from the limit up to this many bytes.
pub(super) const SMALL: u64 = 1 << 20;

/// What a file holds.
pub(super) struct Container {
    /// Tensors by the names of the dictionaries and modules around them and their own, joined by points.
    pub tensors: BTreeMap<String, Stored>,
    /// Where a dictionary begins: `""`, `"state_dict."`. What follows is a key of the file.
    pub scopes: BTreeSet<String>,
    /// Facts beside the tensors: the safetensors metadata or the top-level dictionary.
    pub facts: BTreeMap<String, Value>,
    /// Class of a whole module that was read without its code.
    pub module: Option<String>,
    store: Store,
}

/// The bytes behind the tensors.
struct Store {
    file: fs_err::File,
    extents: Vec<Extent>,
}

/// The bytes of one storage.
enum Extent {
    /// In the file as they are.
    File { start: u64, length: u64 },
    /// Unpacked, or out of a pickle.
    Memory(Vec<u8>),
}

/// One tensor, not decoded yet.
pub(super) struct Stored {
    pub shape: Vec<usize>,
    pub dtype: Dtype,
    /// Nothing where the numbers are of a kind that is not read.
    view: Option<View>,
}

/// Where a tensor lies in a storage; offset and strides count elements.
struct View {
    extent: usize,
    offset: usize,
    strides: Vec<usize>,
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
        let packed = start.starts_with(b"PK");
        let named = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("safetensors"));
        match () {
            () if packed => archive::open(path),
            () if safetensors || named && start.first() != Some(&0x80) => safe::open(path),
            () => legacy::open(path),
        }
    }

    /// Values of a tensor in row-major order; integers only where they are asked for.
    pub fn read(&self, path: &Path, stored: &Stored) -> Result<Option<Vec<f32>>, CheckpointError> {
        let (Some(view), Some(size)) = (&stored.view, stored.dtype.size()) else { return Ok(None) };
        let range = span(&stored.shape, view, size).ok_or_else(|| damaged(path, &OVERFLOW))?;
        let bytes = self.store.bytes(view.extent, range)?;
        let contiguous = view.strides == contiguous(&stored.shape);
        let bytes = if contiguous { bytes } else { gathered(&bytes, &stored.shape, &view.strides, size) };
        Ok(stored.dtype.decode(&bytes))
    }
}

const OVERFLOW: &str = "a tensor claims more elements than memory can hold";

impl Stored {
    /// A tensor somewhere in an extent; an error in words if it is not within.
    fn new(shape: Vec<usize>, dtype: Dtype, view: View, length: u64) -> Result<Self, String> {
        let stored = Self { shape, dtype, view: None };
        let Some(size) = dtype.size() else { return Ok(stored) };
        let range = span(&stored.shape, &view, size).ok_or(OVERFLOW)?;
        if range.end > length {
            return Err(format!("it needs {} bytes of a storage of {length}", range.end));
        }
        Ok(Self { view: Some(view), ..stored })
    }

    /// A tensor whose numbers are not read.
    fn opaque(shape: Vec<usize>, dtype: Dtype) -> Self {
        Self { shape, dtype, view: None }
    }

    /// Bytes of its values as f32.
    pub fn claimed(&self) -> u64 {
        self.shape.iter().fold(4_u64, |bytes, extent| bytes.saturating_mul(*extent as u64))
    }
}

impl Store {
    fn bytes(&self, extent: usize, range: Range<u64>) -> std::io::Result<Vec<u8>> {
        let length = usize::try_from(range.end - range.start);
        let length = length.map_err(|_| std::io::Error::from(std::io::ErrorKind::OutOfMemory))?;
        match &self.extents[extent] {
            Extent::Memory(bytes) => Ok(bytes[range.start as usize..range.end as usize].to_vec()),
            Extent::File { start, .. } => {
                let mut bytes = Vec::new();
                bytes.try_reserve_exact(length)?;
                let mut file = &self.file;
                file.seek(SeekFrom::Start(start + range.start))?;
                file.take(length as u64).read_to_end(&mut bytes)?;
                // The file may have been cut since it was opened.
                if bytes.len() < length { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
            }
        }
    }
}

impl Extent {
    fn length(&self) -> u64 {
        match self {
            Self::File { length, .. } => *length,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }
}

/// The bytes of a storage from a tensor's first to its last; nothing if no machine has so many.
fn span(shape: &[usize], view: &View, size: usize) -> Option<Range<u64>> {
    let size = size as u64;
    let start = (view.offset as u64).checked_mul(size)?;
    shape.iter().try_fold(size, |bytes, extent| bytes.checked_mul(*extent as u64))?;
    if shape.contains(&0) {
        return Some(0..0);
    }
    let last = shape.iter().zip(&view.strides).try_fold(0_u64, |last, (extent, stride)| {
        last.checked_add((*extent as u64 - 1).checked_mul(*stride as u64)?)
    })?;
    Some(start..last.checked_add(1)?.checked_mul(size)?.checked_add(start)?)
}

/// Strides of a tensor that lies row by row.
fn contiguous(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = usize::saturating_mul(strides[axis], shape[axis]);
    }
    strides
}

/// The elements of a view, row by row.
fn gathered(bytes: &[u8], shape: &[usize], strides: &[usize], size: usize) -> Vec<u8> {
    let count: usize = shape.iter().product();
    let mut out = Vec::with_capacity(count * size);
    let mut index = vec![0; shape.len()];
    let mut at = 0;
    for _ in 0..count {
        out.extend_from_slice(&bytes[at * size..(at + 1) * size]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    out
}

fn head(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    let mut start = Vec::new();
    margay_core::input::open(path)?.take(foreign::HEAD).read_to_end(&mut start)?;
    Ok(start)
}

fn damaged(path: &Path, reason: &dyn std::fmt::Display) -> CheckpointError {
    CheckpointError::Damaged { path: path.to_owned(), reason: reason.to_string() }
}

fn pickle_error(path: &Path, error: PickleError) -> CheckpointError {
    let path = path.to_owned();
    match error {
        PickleError::Damaged(reason) => CheckpointError::Damaged { path, reason },
        PickleError::Calls(class) => CheckpointError::Executable { path, class },
        PickleError::TooLarge => CheckpointError::Format { path, reason: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_read_row_by_row() {
        let bytes: Vec<u8> = (0..6).collect();
        assert_eq!(contiguous(&[2, 3, 4]), [12, 4, 1]);
        assert_eq!(gathered(&bytes, &[3, 2], &[1, 3], 1), [0, 3, 1, 4, 2, 5]);
        assert_eq!(gathered(&bytes, &[2, 2], &[0, 1], 2), [0, 1, 2, 3, 0, 1, 2, 3]);
        assert_eq!(gathered(&bytes, &[], &[], 1), [0]);
        assert_eq!(gathered(&bytes, &[0, 2], &[2, 1], 1), [0_u8; 0]);
    }

    #[test]
    fn spans_never_overflow() {
        let view = |offset, strides: &[usize]| View { extent: 0, offset, strides: strides.to_vec() };
        assert_eq!(span(&[3, 2], &view(1, &[1, 3]), 4), Some(4..28));
        assert_eq!(span(&[0, 2], &view(9, &[2, 1]), 4), Some(0..0));
        assert_eq!(span(&[2], &view(usize::MAX, &[1]), 4), None);
        assert_eq!(span(&[2], &view(0, &[usize::MAX]), 4), None);
        assert_eq!(span(&[1 << 40, 1 << 40], &view(0, &[0, 0]), 1), None);
    }
}
