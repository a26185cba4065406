use std::io::Read;
use std::path::Path;

use margay_core::input;

use super::format::HEAD_BYTES;
use super::{MAX_FILE_BYTES, PhotoError, readable_format};

/// Reads an image file; what is none, or longer than [`MAX_FILE_BYTES`], is not read beyond its first bytes.
pub fn read(path: &Path) -> Result<Vec<u8>, PhotoError> {
    let failed = |error| PhotoError::read(error, path);
    let mut file = input::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut bytes = Vec::new();
    file.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut bytes).map_err(failed)?;
    readable_format(&bytes)?;
    if length > MAX_FILE_BYTES {
        return Err(PhotoError::TooLong { bytes: length });
    }
    // A file may grow while it is read.
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
