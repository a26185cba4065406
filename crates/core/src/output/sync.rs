//! Waiting until what was written is on the disk.

use std::io::{self, ErrorKind};
use std::path::Path;

/// Every file and folder in `folder`, and itself.
pub(super) fn tree(folder: &Path) -> io::Result<()> {
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            tree(&entry.path())?;
        } else if kind.is_file() {
            // Elsewhere only what can be written can be synced.
            fs_err::OpenOptions::new().read(true).write(cfg!(windows)).open(entry.path())?.sync_all()?;
        }
    }
    self::folder(folder)
}

/// The names in a folder. Where folders cannot be synced, or not by this user, nothing happens.
pub fn folder(folder: &Path) -> io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    match fs_err::File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::Unsupported | ErrorKind::InvalidInput | ErrorKind::PermissionDenied
            ) =>
        {
            Ok(())
        }
        done => done,
    }
}
