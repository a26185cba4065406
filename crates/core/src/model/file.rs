//! The model file. Layout, byte by byte: docs/format.md.

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::ArrayD;
use sha2::{Digest, Sha256};

use super::header::{Dtype, Entry, Form, Header, Section};
use super::index::{self, Claim};
use super::{FormatError, SparseModel, Weight, check};
use crate::{Csr, Footprint, Limits, input, output};

/// First bytes of every file; not text, so that a transfer as text is noticed.
pub const MAGIC: [u8; 8] = *b"\x89MARGAY\n";
/// Version of the format that this program writes and reads.
pub const VERSION: u32 = 1;

/// Magic, version, reserved, header length, file length, checksum.
const PREAMBLE: usize = 64;
const ALIGN: usize = 64;
const MAX_HEADER: u64 = 64 << 20;

impl SparseModel {
    /// Reads a file within the default limits.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, FormatError> {
        Self::read_within(path, &Limits::DEFAULT)
    }

    /// Reads a regular file that is no longer than the memory allowed, and whose model takes no more than the limits.
    pub fn read_within(path: impl AsRef<Path>, limits: &Limits) -> Result<Self, FormatError> {
        let path = path.as_ref();
        let bytes = input::read(path, limits.memory)?;
        Self::from_bytes_within(&bytes, limits)
            .map_err(|source| FormatError::File { path: path.to_owned(), source: Box::new(source) })
    }

    /// Writes a file, which appears at `path` complete or not at all; returns its size in bytes.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<u64, FormatError> {
        let bytes = self.to_bytes()?;
        output::write(path, &bytes)?;
        Ok(bytes.len() as u64)
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FormatError> {
        check::model(self)?;
        let mut data = Data::default();
        let tensors: Vec<Entry> = self.weights.iter().map(|(name, weight)| data.push(name, weight)).collect();
        // Offsets grow with the header and the header with its offsets: two or three rounds settle it.
        let mut start = PREAMBLE;
        let header = loop {
            let header = self.header(&tensors, start as u64)?;
            let next = (PREAMBLE + header.len()).next_multiple_of(ALIGN);
            if next <= start {
                break header;
            }
            start = next;
        };
        let mut bytes = Vec::with_capacity(start + data.bytes.len());
        bytes.resize(PREAMBLE, 0);
        bytes.extend_from_slice(&header);
        if !data.bytes.is_empty() {
            bytes.resize(start, 0);
            bytes.extend_from_slice(&data.bytes);
        }
        let preamble = preamble(header.len(), &bytes[PREAMBLE..]);
        bytes[..PREAMBLE].copy_from_slice(&preamble);
        Ok(bytes)
    }

    /// SHA-256 of the file's content, hexadecimal: equal for equal models.
    pub fn fingerprint(&self) -> Result<String, FormatError> {
        let bytes = self.to_bytes()?;
        let digits = bytes[32..PREAMBLE].iter().flat_map(|byte| [byte >> 4, byte & 15]);
        Ok(digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)).collect())
    }

    fn header(&self, tensors: &[Entry], start: u64) -> Result<Vec<u8>, FormatError> {
        let header = Header {
            graph: self.graph.clone(),
            labels: self.labels.clone(),
            preprocess: self.preprocess.clone(),
            provenance: self.provenance.clone(),
            tensors: tensors.iter().map(|entry| entry.shifted(start)).collect(),
        };
        serde_json::to_vec(&header).map_err(FormatError::Header)
    }

    /// Reads the bytes of a file within the default limits.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        Self::from_bytes_within(bytes, &Limits::DEFAULT)
    }

    /// Reads the bytes of a file. Never panics; the header is judged whole, and what the model takes compared with the
    /// limits, before a tensor is allocated.
    pub fn from_bytes_within(bytes: &[u8], limits: &Limits) -> Result<Self, FormatError> {
        let (header, end) = read_header(bytes)?;
        let shapes = check::graph(&header.graph)?;
        check::surroundings(&header.graph, &shapes, &header.labels, &header.preprocess)?;
        let wanted = check::wanted(&header.graph);
        check::names(&wanted, header.tensors.iter().map(|entry| entry.name.as_str()))?;
        let mut stored = 0_u64;
        for entry in &header.tensors {
            match &entry.form {
                Form::Dense { shape } => check::shape(&wanted, &entry.name, false, shape)?,
                Form::Csr { rows, cols, .. } => check::shape(&wanted, &entry.name, true, &[*rows, *cols])?,
            }
            stored = stored.saturating_add(entry.bytes(bytes.len() as u64));
        }
        Footprint::new(&header.graph, &shapes, &header.preprocess, stored).check(limits)?;
        let mut sections = Sections { bytes, end: end as u64 };
        let mut weights = BTreeMap::new();
        for entry in header.tensors {
            let weight = sections.weight(&entry)?;
            check::finite(&entry.name, &weight)?;
            weights.insert(entry.name, weight);
        }
        let count = (bytes.len() as u64).saturating_sub(sections.end);
        if count > 0 {
            return Err(FormatError::TrailingBytes { count });
        }
        check::norms(&header.graph, &weights)?;
        let Header { graph, labels, preprocess, provenance, .. } = header;
        Ok(Self { graph, weights, labels, preprocess, provenance })
    }
}

fn preamble(header: usize, rest: &[u8]) -> [u8; PREAMBLE] {
    let mut preamble = [0; PREAMBLE];
    preamble[..8].copy_from_slice(&MAGIC);
    preamble[8..12].copy_from_slice(&VERSION.to_le_bytes());
    preamble[16..24].copy_from_slice(&(header as u64).to_le_bytes());
    preamble[24..32].copy_from_slice(&((PREAMBLE + rest.len()) as u64).to_le_bytes());
    preamble[32..].copy_from_slice(&Sha256::digest(rest));
    preamble
}

/// Makes length and checksum of the bytes of a file right again after a change, for tests of readers.
///
/// Bytes that are shorter than the part before the header stay as they are.
pub fn seal(bytes: &mut [u8]) {
    let total = bytes.len() as u64;
    if bytes.len() >= PREAMBLE {
        bytes[24..32].copy_from_slice(&total.to_le_bytes());
        let digest = Sha256::digest(&bytes[PREAMBLE..]);
        bytes[32..PREAMBLE].copy_from_slice(&digest);
    }
}

/// The header and where it ends.
fn read_header(bytes: &[u8]) -> Result<(Header, usize), FormatError> {
    let total = bytes.len() as u64;
    let needs = |expected: u64| FormatError::Truncated { expected, got: total };
    let start = bytes.len().min(MAGIC.len());
    if start == 0 || bytes[..start] != MAGIC[..start] {
        return Err(FormatError::Magic);
    }
    let preamble = bytes.get(..PREAMBLE).ok_or_else(|| needs(PREAMBLE as u64))?;
    let number = |from: usize, to: usize| {
        preamble[from..to].iter().rev().fold(0_u64, |n, byte| n << 8 | u64::from(*byte))
    };
    let (version, length, file) = (number(8, 12) as u32, number(16, 24), number(24, 32));
    if version != VERSION {
        return Err(FormatError::Version { expected: VERSION, got: version });
    }
    if number(12, 16) != 0 {
        return Err(FormatError::Reserved);
    }
    if length > MAX_HEADER {
        return Err(FormatError::HeaderTooLarge { limit: MAX_HEADER, got: length });
    }
    let end = PREAMBLE + length as usize;
    if file.max(end as u64) > total {
        return Err(needs(file.max(end as u64)));
    }
    if file < total {
        return Err(FormatError::TrailingBytes { count: total - file });
    }
    if Sha256::digest(&bytes[PREAMBLE..])[..] != preamble[32..] {
        return Err(FormatError::Checksum);
    }
    let header = serde_json::from_slice(&bytes[PREAMBLE..end]).map_err(FormatError::Header)?;
    Ok((header, end))
}

/// Collects sections, starts counted from the first.
#[derive(Default)]
struct Data {
    bytes: Vec<u8>,
}

impl Data {
    fn push(&mut self, name: &str, weight: &Weight) -> Entry {
        let (values, form) = match weight {
            Weight::Dense(array) => {
                let values = self.section(array.iter().flat_map(|v| v.to_le_bytes()));
                (values, Form::Dense { shape: array.shape().to_vec() })
            }
            Weight::Csr(csr) => {
                let coded = index::encode(csr);
                let values = self.section(csr.values().iter().flat_map(|v| v.to_le_bytes()));
                let index = self.section(coded.bytes.into_iter());
                let (count, gap) = (coded.count_parameter, coded.gap_parameter);
                let (rows, cols, pattern) = (csr.rows(), csr.cols(), csr.pattern());
                (values, Form::Csr { rows, cols, index, count, gap, pattern })
            }
        };
        Entry { name: name.to_owned(), dtype: Dtype::F32, values, form }
    }

    fn section(&mut self, content: impl Iterator<Item = u8>) -> Section {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
        let start = self.bytes.len();
        self.bytes.extend(content);
        Section(start as u64, (self.bytes.len() - start) as u64)
    }
}

impl Entry {
    /// Bytes that the tensor takes in memory: a section claims no more than the file has.
    fn bytes(&self, file: u64) -> u64 {
        let values = self.values.1.min(file);
        match self.form {
            Form::Dense { .. } => values,
            Form::Csr { rows, .. } => 2 * values + 4 * (rows as u64 + 1),
        }
    }

    fn shifted(&self, by: u64) -> Self {
        let move_by = |section: Section| Section(section.0 + by, section.1);
        let form = match &self.form {
            Form::Dense { shape } => Form::Dense { shape: shape.clone() },
            Form::Csr { rows, cols, index, count, gap, pattern } => Form::Csr {
                rows: *rows,
                cols: *cols,
                index: move_by(*index),
                count: *count,
                gap: *gap,
                pattern: *pattern,
            },
        };
        Self { name: self.name.clone(), dtype: self.dtype, values: move_by(self.values), form }
    }
}

/// Cuts a file into sections, each after the one before.
struct Sections<'a> {
    bytes: &'a [u8],
    end: u64,
}

impl<'a> Sections<'a> {
    fn weight(&mut self, entry: &Entry) -> Result<Weight, FormatError> {
        let name = &entry.name;
        let Dtype::F32 = entry.dtype;
        let values = self.take(name, entry.values)?;
        let length = |expected: u64| FormatError::ValueBytes {
            name: name.clone(),
            expected,
            got: values.len() as u64,
        };
        let numbers = || values.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<f32>>();
        match &entry.form {
            Form::Dense { shape } => {
                let expected = check::values(shape).map_or(u64::MAX, |n| 4 * n as u64);
                if expected != values.len() as u64 {
                    return Err(length(expected));
                }
                let array = ArrayD::from_shape_vec(shape.clone(), numbers());
                Ok(Weight::Dense(array.map_err(|_| length(expected))?))
            }
            Form::Csr { rows, cols, index, count, gap, pattern } => {
                let index = self.take(name, *index)?;
                if values.len() % 4 != 0 {
                    return Err(length(values.len().next_multiple_of(4) as u64));
                }
                let (rows, cols, nnz) = (*rows, *cols, values.len() / 4);
                let (count_parameter, gap_parameter, pattern) = (*count, *gap, *pattern);
                let claim = Claim { name, rows, cols, nnz, count_parameter, gap_parameter, pattern };
                let (row_ptr, columns) = claim.decode(index)?;
                let csr = Csr::new(rows, cols, row_ptr, columns, numbers());
                let csr = csr.map_err(|source| FormatError::Csr { name: name.clone(), source })?;
                let csr = csr.with_pattern(pattern);
                csr.map(Weight::Csr).map_err(|source| FormatError::Pattern { name: name.clone(), source })
            }
        }
    }

    fn take(&mut self, name: &str, Section(offset, length): Section) -> Result<&'a [u8], FormatError> {
        let name = || name.to_owned();
        if offset % ALIGN as u64 != 0 {
            return Err(FormatError::Misaligned { name: name(), offset });
        }
        if offset < self.end {
            return Err(FormatError::Overlap { name: name(), offset });
        }
        let end = offset.checked_add(length).filter(|end| *end <= self.bytes.len() as u64);
        let end = end.ok_or_else(|| FormatError::OutOfFile { name: name(), offset, length })?;
        self.end = end;
        Ok(&self.bytes[offset as usize..end as usize])
    }
}
