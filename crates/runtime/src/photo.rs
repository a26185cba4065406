use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

/// Photos with more pixels than this are refused from their header, before any memory is taken.
pub const MAX_PIXELS: u64 = 200_000_000;

/// Image files longer than this are refused.
pub const MAX_FILE_BYTES: u64 = 1 << 30;

/// Memory a decoder may take for one photo.
const MAX_DECODER_BYTES: u64 = 2 << 30;

/// A decoded photo: upright, 8 bits per channel, red, green and blue interleaved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Photo {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

/// Why a file is no usable photo.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PhotoError {
    /// The file cannot be opened or read.
    #[error("`{}` cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file has no bytes.
    #[error("`{}` is empty (0 bytes)", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file is longer than [`MAX_FILE_BYTES`].
    #[error("`{}` is longer than {MAX_FILE_BYTES} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// The first bytes belong to no image format that is known here.
    #[error("`{}` is not a JPEG, PNG, WebP, BMP, GIF or TIFF image", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// The format is known, but this kind of it is not.
    #[error("`{}` uses a feature of its format that is not supported: {feature}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is not supported.
        feature: String,
    },
    /// The header announces more than [`MAX_PIXELS`] pixels, or none.
    #[error("`{}` has {width} x {height} pixels, allowed are 1 to {MAX_PIXELS}", path.display())]
    Dimensions {
        /// The file.
        path: PathBuf,
        /// Pixels per row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// Decoding would take more memory than allowed.
    #[error("`{}` needs more memory to decode than the allowed {MAX_DECODER_BYTES} bytes", path.display())]
    Memory {
        /// The file.
        path: PathBuf,
    },
    /// The data end before the picture does.
    #[error("`{}` is truncated: its data end before the picture does", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
    },
    /// The data contradict their format.
    #[error("`{}` is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        reason: String,
    },
}

/// Reads and decodes a photo, and turns it upright as its EXIF orientation says.
///
/// Grey, palette, CMYK and 16-bit photos become 8-bit RGB; of 16 bits the upper 8 are kept, and an alpha
/// channel is dropped, not blended. A photo whose data end early is an error, not half a picture.
pub fn decode(path: &Path) -> Result<Photo, PhotoError> {
    decode_bytes(&read_limited(path)?, path)
}

/// Decodes a photo that is already in memory; `path` only serves to name it in errors.
pub fn decode_bytes(bytes: &[u8], path: &Path) -> Result<Photo, PhotoError> {
    let mut decoder = open_decoder(bytes, path)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    decoder.set_limits(limits).map_err(|error| PhotoError::from_image(error, path))?;
    let mut image =
        DynamicImage::from_decoder(decoder).map_err(|error| PhotoError::from_image(error, path))?;
    image.apply_orientation(orientation);
    let (width, height) = (image.width() as usize, image.height() as usize);
    Ok(Photo { width, height, pixels: into_rgb8(image) })
}

/// Width and height in pixels of the upright photo, from the file's header only.
pub fn dimensions(path: &Path) -> Result<[usize; 2], PhotoError> {
    let bytes = read_limited(path)?;
    let mut decoder = open_decoder(&bytes, path)?;
    let (width, height) = decoder.dimensions();
    let turned = matches!(
        decoder.orientation().unwrap_or(Orientation::NoTransforms),
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    );
    let (width, height) = if turned { (height, width) } else { (width, height) };
    Ok([width as usize, height as usize])
}

impl Photo {
    /// Wraps pixels `[height, width, 3]`, or `None` if there are not as many as the sides say, none or
    /// more than [`MAX_PIXELS`].
    pub fn from_rgb(width: usize, height: usize, pixels: Vec<u8>) -> Option<Self> {
        let count = width.checked_mul(height).filter(|count| (1..=MAX_PIXELS).contains(&(*count as u64)))?;
        (3 * count == pixels.len()).then_some(Self { width, height, pixels })
    }

    /// Wraps pixels that are known to fit.
    pub(crate) fn from_parts(width: usize, height: usize, pixels: Vec<u8>) -> Self {
        debug_assert_eq!(pixels.len(), 3 * width * height);
        Self { width, height, pixels }
    }

    /// Pixels per row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Pixels `[height, width, 3]`, red, green and blue.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }
}

impl PhotoError {
    /// The file that is no usable photo.
    pub fn path(&self) -> &Path {
        match self {
            Self::Read { path, .. }
            | Self::Empty { path }
            | Self::TooLong { path }
            | Self::UnknownFormat { path }
            | Self::Unsupported { path, .. }
            | Self::Dimensions { path, .. }
            | Self::Memory { path }
            | Self::Truncated { path }
            | Self::Damaged { path, .. } => path,
        }
    }

    fn read(source: io::Error, path: &Path) -> Self {
        Self::Read { path: path.to_owned(), source }
    }

    fn from_image(error: ImageError, path: &Path) -> Self {
        let path = path.to_owned();
        match error {
            ImageError::IoError(e) if e.kind() == io::ErrorKind::UnexpectedEof => Self::Truncated { path },
            ImageError::Unsupported(e) => Self::Unsupported { path, feature: e.to_string() },
            ImageError::Limits(_) => Self::Memory { path },
            other => Self::Damaged { path, reason: other.to_string() },
        }
    }
}

fn read_limited(path: &Path) -> Result<Vec<u8>, PhotoError> {
    let mut bytes = Vec::new();
    // A pipe or a device would block.
    if !std::fs::metadata(path).map_err(|e| PhotoError::read(e, path))?.is_file() {
        return Err(PhotoError::read(io::Error::other("it is not a regular file"), path));
    }
    let file = std::fs::File::open(path).map_err(|e| PhotoError::read(e, path))?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|e| PhotoError::read(e, path))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(PhotoError::TooLong { path: path.to_owned() });
    }
    Ok(bytes)
}

fn open_decoder<'a>(bytes: &'a [u8], path: &Path) -> Result<impl ImageDecoder + 'a, PhotoError> {
    if bytes.is_empty() {
        return Err(PhotoError::Empty { path: path.to_owned() });
    }
    let reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|source| PhotoError::read(source, path))?;
    let Some(format) = reader.format().filter(ImageFormat::reading_enabled) else {
        return Err(PhotoError::UnknownFormat { path: path.to_owned() });
    };
    let truncated = format == ImageFormat::Jpeg && !jpeg_has_end(bytes);
    let decoder = reader.into_decoder().map_err(|error| match error {
        _ if truncated => PhotoError::Truncated { path: path.to_owned() },
        error => PhotoError::from_image(error, path),
    })?;
    let (width, height) = decoder.dimensions();
    if !(1..=MAX_PIXELS).contains(&(u64::from(width) * u64::from(height))) {
        return Err(PhotoError::Dimensions { path: path.to_owned(), width, height });
    }
    if truncated { Err(PhotoError::Truncated { path: path.to_owned() }) } else { Ok(decoder) }
}

/// Whether the segments and scans of a JPEG are followed by its end marker.
///
/// The decoder paints what is missing grey, so that a cut file has to be found here.
fn jpeg_has_end(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    loop {
        let Some(marker) = rest.iter().position(|byte| *byte == 0xFF) else { return false };
        let Some(code) = rest[marker..].iter().position(|byte| *byte != 0xFF) else { return false };
        let kind = rest[marker + code];
        rest = &rest[marker + code + 1..];
        match kind {
            0x00 | 0x01 | 0xD0..=0xD8 => {}
            0xD9 => return true,
            _ => {
                let &[high, low, ..] = rest else { return false };
                rest = rest.get(usize::from(u16::from_be_bytes([high, low])).max(2)..).unwrap_or(&[]);
            }
        }
    }
}

fn into_rgb8(image: DynamicImage) -> Vec<u8> {
    let upper = |value: u16| value.to_be_bytes()[0];
    match image {
        DynamicImage::ImageRgb8(buffer) => buffer.into_raw(),
        DynamicImage::ImageLuma16(_)
        | DynamicImage::ImageLumaA16(_)
        | DynamicImage::ImageRgb16(_)
        | DynamicImage::ImageRgba16(_) => image.into_rgb16().into_raw().into_iter().map(upper).collect(),
        other => other.into_rgb8().into_raw(),
    }
}

#[cfg(test)]
mod tests;
