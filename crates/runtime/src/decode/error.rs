use std::io;
use std::path::Path;

use image::ImageError;

use super::{MAX_DECODER_BYTES, MAX_FILE_BYTES, MAX_PIXELS, MAX_SCANNED_PIXELS, MAX_SCANS};

/// Why a file is no usable photo; its name is the caller's to say, as in `{path} is empty (0 bytes)`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PhotoError {
    /// The file cannot be opened or read.
    #[error("cannot be read: {reason}")]
    Read {
        /// What the system said, without the path.
        reason: String,
        /// The system's error.
        source: io::Error,
    },
    /// The file has no bytes.
    #[error("is empty (0 bytes)")]
    Empty,
    /// The file begins with nothing but zeros.
    #[error("begins with nothing but zero bytes, as a failing card leaves a file that it lost")]
    Zeros,
    /// The file is longer than [`MAX_FILE_BYTES`].
    #[error("has {bytes} bytes, more than the {MAX_FILE_BYTES} that are read of a photo")]
    TooLong {
        /// Its length.
        bytes: u64,
    },
    /// The first bytes belong to something else.
    #[error("is {found}, not a JPEG, PNG, WebP, BMP, GIF or TIFF image")]
    OtherFormat {
        /// What it is.
        found: &'static str,
    },
    /// The first bytes belong to nothing that is known here.
    #[error("is not a JPEG, PNG, WebP, BMP, GIF or TIFF image")]
    UnknownFormat,
    /// The format is known, but this kind of it is not.
    #[error("uses a feature of its format that is not supported: {feature}")]
    Unsupported {
        /// What is not supported.
        feature: String,
    },
    /// The header announces more than [`MAX_PIXELS`] pixels, or none.
    #[error("has {width} x {height} pixels, allowed are 1 to {MAX_PIXELS}")]
    Dimensions {
        /// Pixels per row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// The header announces more pixels than a file of this length holds.
    #[error("announces {width} x {height} pixels in {bytes} bytes: no photo is that short")]
    Sparse {
        /// Pixels per row.
        width: u32,
        /// Rows.
        height: u32,
        /// Length of the file.
        bytes: u64,
    },
    /// A JPEG has more than [`MAX_SCANS`] scans, or more than [`MAX_SCANNED_PIXELS`] in them.
    #[error(
        "has at least {scans} scans of {pixels} pixels together; allowed are {MAX_SCANS} of {MAX_SCANNED_PIXELS}"
    )]
    Scans {
        /// Scans that were counted.
        scans: usize,
        /// Pixels of them all.
        pixels: u64,
    },
    /// Decoding would take more memory than allowed.
    #[error("needs more memory to decode than the allowed {MAX_DECODER_BYTES} bytes")]
    Memory,
    /// The data end before half of the picture is there.
    #[error("is truncated: {}", rest(*rows, "there"))]
    Truncated {
        /// Share of the rows that are there, in per cent; `None` where nobody knows.
        rows: Option<u8>,
    },
    /// Less than half of the picture is sound.
    #[error("is damaged: {}", rest(Some(*rows), "sound"))]
    Broken {
        /// Share of the rows before the damage, in per cent.
        rows: u8,
    },
    /// The data contradict their format.
    #[error("is damaged: {reason}")]
    Damaged {
        /// What the decoder said.
        reason: String,
    },
}

impl PhotoError {
    /// An error of the file system, told without the path.
    pub(super) fn read(source: io::Error, path: &Path) -> Self {
        let reason = without_path(&source, path);
        Self::Read { reason, source }
    }

    pub(super) fn from_image(error: ImageError) -> Self {
        match error {
            ImageError::IoError(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                Self::Truncated { rows: None }
            }
            ImageError::Unsupported(e) => Self::Unsupported { feature: e.to_string() },
            ImageError::Limits(_) => Self::Memory,
            other => Self::Damaged { reason: other.to_string() },
        }
    }
}

fn rest(rows: Option<u8>, what: &str) -> String {
    match rows {
        Some(rows) => format!("only {rows} % of its rows are {what}"),
        None => "its data end before the picture does".to_owned(),
    }
}

/// What a file error says behind the path: `fs_err` writes it as "failed to … `path`: reason", [`margay_core::input`] as
/// "`path` reason".
fn without_path(error: &io::Error, path: &Path) -> String {
    let (text, path) = (error.to_string(), path.display());
    let behind = text.split_once(&format!("`{path}`: ")).map(|(_, reason)| reason);
    behind.or_else(|| text.strip_prefix(&format!("`{path}` "))).unwrap_or(&text).to_owned()
}
