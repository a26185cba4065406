//! Files that a user names: judged by type and length before a byte is read.
//!
//! A FIFO blocks whoever opens it, `/dev/zero` never ends and a mistyped path may lead to a terabyte. Every reader of
//! a whole file (models, adapters, checkpoints, recipes, configurations, journals, photos) opens it here.

use std::io::{self, Read};
use std::path::Path;

use fs_err::File;

/// Opens a regular file, or a link to one; nothing else is opened at all.
///
/// # Errors
/// `InvalidInput` names what the path is instead; other errors are those of the file system. All name the path.
pub fn open(path: impl AsRef<Path>) -> io::Result<File> {
    let path = path.as_ref();
    // Where there is no metadata, opening says why.
    if let Ok(found) = std::fs::metadata(path) {
        regular(path, &found)?;
    }
    let file = File::open(path)?;
    // The path may lead elsewhere by now.
    regular(path, &file.metadata()?)?;
    Ok(file)
}

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// Those of [`open`]; `FileTooLarge` names length and limit, and nothing has been read then.
pub fn read(path: impl AsRef<Path>, limit: u64) -> io::Result<Vec<u8>> {
    let path = path.as_ref();
    read_opened(&mut open(path)?, path, limit)
}

/// Reads what is left of a file that is open already, whose path only serves to name it.
///
/// # Errors
/// As [`read`].
pub fn read_opened(file: &mut File, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    within(path, length, limit)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(length).map_err(|_| too_large(path, length, limit))?)?;
    // A file may grow while it is read.
    let read = file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    within(path, read as u64, limit)?;
    Ok(bytes)
}

/// Reads a regular text file of at most `limit` bytes, UTF-8; a byte order mark is taken off.
///
/// # Errors
/// Those of [`read`]; `InvalidData` where it is not UTF-8.
pub fn read_to_string(path: impl AsRef<Path>, limit: u64) -> io::Result<String> {
    let path = path.as_ref();
    let text = String::from_utf8(read(path, limit)?).map_err(|e| {
        named(io::ErrorKind::InvalidData, path, &format!("is not UTF-8 text: {}", e.utf8_error()))
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

fn within(path: &Path, length: u64, limit: u64) -> io::Result<()> {
    if length > limit { Err(too_large(path, length, limit)) } else { Ok(()) }
}

fn too_large(path: &Path, length: u64, limit: u64) -> io::Error {
    named(
        io::ErrorKind::FileTooLarge,
        path,
        &format!("has {length} bytes, more than the {limit} that are read here"),
    )
}

fn regular(path: &Path, metadata: &std::fs::Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let what = format!("is not a regular file: it is {}", kind(metadata.file_type()));
    Err(named(io::ErrorKind::InvalidInput, path, &what))
}

fn named(kind: io::ErrorKind, path: &Path, what: &str) -> io::Error {
    io::Error::new(kind, format!("`{}` {what}", path.display()))
}

#[cfg(unix)]
fn kind(kind: std::fs::FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match () {
        () if kind.is_dir() => "a folder",
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () if kind.is_char_device() || kind.is_block_device() => "a device",
        () => "something else",
    }
}

#[cfg(not(unix))]
fn kind(kind: std::fs::FileType) -> &'static str {
    if kind.is_dir() { "a folder" } else { "something else" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        let error = read(&path, 4).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert!(error.to_string().contains("has 5 bytes, more than the 4"), "{error}");
    }

    #[test]
    fn a_byte_order_mark_is_no_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "\u{feff}fox").unwrap();
        assert_eq!(read_to_string(&path, 100).unwrap(), "fox");
        std::fs::write(&path, b"f\xfcchse").unwrap();
        assert_eq!(read_to_string(&path, 100).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_refused_by_its_type() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for (path, kind) in [
            (folder.path(), "a folder"),
            (&socket, "a socket"),
            (&pipe, "a named pipe"),
            (Path::new("/dev/zero"), "a device"),
        ] {
            let error = read(path, 10).unwrap_err();
            assert!(error.to_string().ends_with(&format!("is not a regular file: it is {kind}")), "{error}");
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        }
    }
}
