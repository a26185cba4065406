//! The zip archives of `torch.save`.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use zip::read::{ArchiveOffset, Config};
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::tree::Storages;
use super::{Container, Extent, MAX_EXPANSION, SMALL, Store, damaged, pickle_error, tree};
use crate::checkpoint::foreign::{self, Foreign};
use crate::checkpoint::{CheckpointError, pickle};

/// The table of values is longer in no checkpoint.
const MAX_PICKLE: u64 = 1 << 30;

type Archive<'f> = ZipArchive<&'f fs_err::File>;

pub(super) fn open(path: &Path) -> Result<Container, CheckpointError> {
    let file = margay_core::input::open(path)?;
    // Nothing lies in front of the archive. Left to guess, a reader may take the padding of the first entry for that.
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let mut archive = ZipArchive::with_config(config, &file).map_err(|e| failed(path, e))?;
    let root = root(path, &archive)?;
    check_byte_order(path, &mut archive, &root)?;
    let allowed = file.metadata()?.len().saturating_mul(MAX_EXPANSION).clamp(SMALL, MAX_PICKLE);
    let table = whole(path, &mut archive, &format!("{root}data.pkl"), allowed)?;
    let (values, _) = pickle::read(&table).map_err(|e| pickle_error(path, e))?;
    drop(table);
    let (storages, mut extents) = storages(path, &mut archive, &root)?;
    drop(archive);
    let grown = tree::grown(path, &values, &storages, &mut extents)?;
    Ok(grown.into_container(Store { file, extents }))
}

/// The folder of the archive that holds `data.pkl`, with its slash.
fn root(path: &Path, archive: &Archive<'_>) -> Result<String, CheckpointError> {
    let names = || archive.file_names().filter_map(Result::ok);
    let has = |end: &str| names().any(|name| name == end || name.ends_with(&format!("/{end}")));
    if has("constants.pkl") || names().any(|name| name.contains("/code/__torch__")) {
        return Err(CheckpointError::TorchScript { path: path.to_owned() });
    }
    if has("serialized_exported_program.json") || has("archive_format") && has("models/model.json") {
        return Err(CheckpointError::foreign(path, EXPORTED));
    }
    let tables = names().filter(|name| name == "data.pkl" || name.ends_with("/data.pkl"));
    match tables.min_by_key(|name| name.len()) {
        Some(table) => Ok(table[..table.len() - "data.pkl".len()].to_owned()),
        None => Err(CheckpointError::foreign(path, foreign::ARCHIVE)),
    }
}

const EXPORTED: Foreign = Foreign {
    what: "a program of torch.export, not weights",
    advice: "save the state dict of the PyTorch model that it was exported from",
};

fn check_byte_order(path: &Path, archive: &mut Archive<'_>, root: &str) -> Result<(), CheckpointError> {
    let name = format!("{root}byteorder");
    if archive.index_for_name(&name).is_none() {
        return Ok(());
    }
    match whole(path, archive, &name, SMALL)?.trim_ascii() {
        b"little" => Ok(()),
        b"big" => Err(super::legacy::big_endian(path)),
        _ => Err(damaged(path, &"it names no byte order")),
    }
}

/// An entry as a whole, if it is no longer than `allowed`.
fn whole(
    path: &Path,
    archive: &mut Archive<'_>,
    name: &str,
    allowed: u64,
) -> Result<Vec<u8>, CheckpointError> {
    let entry = archive.by_name(name).map_err(|e| failed(path, e))?;
    let length = entry.size();
    if length > allowed {
        return Err(CheckpointError::Format {
            path: path.to_owned(),
            reason: format!("`{name}` in it has {length} bytes, allowed are {allowed}"),
        });
    }
    let mut bytes = Vec::new();
    // The length is only claimed; the checksum is checked at the end.
    entry
        .take(allowed + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| damaged(path, &format!("`{name}` in it: {e}")))?;
    if bytes.len() as u64 == length {
        Ok(bytes)
    } else {
        Err(damaged(path, &format!("`{name}` in it is cut off")))
    }
}

/// Every entry under `data/`; those that are packed are unpacked, up to a limit over all.
fn storages(
    path: &Path,
    archive: &mut Archive<'_>,
    root: &str,
) -> Result<(Storages, Vec<Extent>), CheckpointError> {
    let folder = format!("{root}data/");
    let (mut table, mut extents) = (BTreeMap::new(), Vec::new());
    let mut packed = Vec::new();
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(|e| failed(path, e))?;
        let name = entry.name().map_err(|e| failed(path, e))?.into_owned();
        let Some(key) = name.strip_prefix(&folder).filter(|key| !key.is_empty()) else { continue };
        table.insert(key.to_owned(), extents.len());
        if entry.compression() == CompressionMethod::Stored && !entry.encrypted() {
            let start =
                entry.data_start().ok_or_else(|| damaged(path, &format!("`{name}` in it has no start")))?;
            extents.push(Extent::File { start, length: entry.size() });
        } else {
            packed.push((name, extents.len()));
            extents.push(Extent::Memory(Vec::new()));
        }
    }
    let file = fs_err::metadata(path)?.len();
    let mut allowed = file.saturating_mul(MAX_EXPANSION).max(SMALL);
    for (name, extent) in packed {
        let bytes = whole(path, archive, &name, allowed)?;
        allowed -= bytes.len() as u64;
        extents[extent] = Extent::Memory(bytes);
    }
    let whole = extents.iter().all(|extent| match extent {
        Extent::File { start, length } => start.checked_add(*length).is_some_and(|end| end <= file),
        Extent::Memory(_) => true,
    });
    if whole { Ok((table, extents)) } else { Err(damaged(path, &"a storage in it ends behind the file")) }
}

fn failed(path: &Path, error: ZipError) -> CheckpointError {
    match error {
        ZipError::Io(e) if e.raw_os_error().is_some() => {
            CheckpointError::Io(std::io::Error::new(e.kind(), format!("{}: {e}", path.display())))
        }
        ZipError::UnsupportedArchive(reason) => CheckpointError::Format {
            path: path.to_owned(),
            reason: format!("its archive is of another kind: {reason}"),
        },
        other => damaged(path, &other),
    }
}
