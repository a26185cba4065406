//! Locks that end with their process, so that what a killed one has left can be told from what a living one writes.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

/// What became of a try.
#[derive(Debug)]
pub enum Lock {
    /// This process has it, for as long as the file is open.
    Held,
    /// Another one has it.
    Busy,
    /// There are no locks here.
    None(io::Error),
}

/// Tries to lock an open file for this process alone.
pub fn lock(file: &File) -> Lock {
    match file.try_lock() {
        Ok(()) => Lock::Held,
        Err(TryLockError::WouldBlock) => Lock::Busy,
        Err(TryLockError::Error(error)) => Lock::None(error),
    }
}

/// Opens what stands at `path` to lock it: a file, or a folder where such can be opened.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let kind = std::fs::symlink_metadata(path)?;
    if kind.is_dir() {
        return File::open(path);
    }
    if kind.is_file() {
        // Network file systems lock only what can be written.
        return std::fs::OpenOptions::new().read(true).write(true).open(path);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "is neither file nor folder"))
}

/// Whether the path still leads to the open file.
#[cfg(unix)]
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let id = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(file), Ok(path)) => id(file) == id(path),
        _ => false,
    }
}

#[cfg(not(unix))]
pub(super) fn is_at(_file: &File, path: &Path) -> bool {
    path.exists()
}
