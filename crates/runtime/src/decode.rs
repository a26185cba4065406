//! From an image file to a photo: formats, limits, orientation, and what is wrong with some files.

use std::borrow::Cow;
use std::io::Cursor;
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

use self::fault::Fault;
use self::format::Kind;
use self::memory::Claim;
use crate::photo::{MAX_PIXELS, Photo};

mod error;
mod exif;
mod fault;
mod file;
mod format;
mod jpeg;
mod memory;
mod partial;

pub use self::error::PhotoError;
pub use self::jpeg::{MAX_SCANNED_PIXELS, MAX_SCANS};
pub use self::memory::MAX_DECODER_BYTES;

/// Image files longer than this are refused, unread but for their first bytes.
pub const MAX_FILE_BYTES: u64 = 256 << 20;

/// Photos of at most this many pixels may come in a file as short as they like.
pub const MAX_FREE_PIXELS: u64 = 25_000_000;

/// Larger ones are refused if their file has more pixels per byte than this: no photo is that plain.
pub const MAX_PIXELS_PER_BYTE: u64 = 2_000;

/// Bytes per pixel that decoding takes beside the decoder's own picture: our picture and, for a progressive JPEG,
/// its coefficients.
const WORK_BYTES: u64 = 9;

/// Reads and decodes a photo, and turns it upright as its EXIF orientation says.
///
/// Grey, palette, CMYK and 16-bit photos become 8-bit RGB; of 16 bits the upper 8 are kept, and an alpha
/// channel is dropped, not blended. A photo that is truncated or damaged is decoded if at least half of its rows are
/// sound: the others are grey, and [`Photo::note`] tells.
pub fn decode(path: impl AsRef<Path>) -> Result<Photo, PhotoError> {
    decode_bytes(&file::read(path.as_ref())?)
}

/// Decodes a photo that is already in memory.
pub fn decode_bytes(bytes: &[u8]) -> Result<Photo, PhotoError> {
    decode_for(bytes, |photo| photo)
}

/// Reads and decodes a photo, and does `work` with it.
///
/// Until `work` is done the photo counts among those that may take [`MAX_DECODER_BYTES`] together; where that is too
/// much, a thread waits for others. So `work` must not decode another one.
pub fn decode_with<T>(path: impl AsRef<Path>, work: impl FnOnce(Photo) -> T) -> Result<T, PhotoError> {
    decode_for(&file::read(path.as_ref())?, work)
}

/// Width and height in pixels of the upright photo, from the file's header only.
pub fn dimensions(path: impl AsRef<Path>) -> Result<[usize; 2], PhotoError> {
    let bytes = file::read(path.as_ref())?;
    let format = readable_format(&bytes)?;
    let mut decoder = open_decoder(&bytes, format, bytes.len())?;
    let (width, height) = decoder.dimensions();
    let turned = matches!(
        upright(&mut decoder, &bytes, format),
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    );
    let (width, height) = if turned { (height, width) } else { (width, height) };
    Ok([width as usize, height as usize])
}

fn decode_for<T>(bytes: &[u8], work: impl FnOnce(Photo) -> T) -> Result<T, PhotoError> {
    let format = readable_format(bytes)?;
    let (input, fault) = match format {
        ImageFormat::Jpeg => jpeg::survey(bytes).map(|survey| (survey.bytes, survey.fault))?,
        _ => (Cow::Borrowed(bytes), None),
    };
    let mut decoder = open_decoder(&input, format, bytes.len())?;
    let (width, height) = decoder.dimensions();
    let mut fault = fault.map(Fault::at_least_half).transpose()?;
    let orientation = upright(&mut decoder, bytes, format);
    let _claim = Claim::take(decoder.total_bytes() + WORK_BYTES * u64::from(width) * u64::from(height));
    let mut pixels = match DynamicImage::from_decoder(decoder).map_err(PhotoError::from_image) {
        Ok(image) => into_rgb8(image),
        Err(error) => {
            let (pixels, part) = partial::decode(bytes, format, error)?;
            fault = Some(part.at_least_half()?);
            pixels
        }
    };
    if format == ImageFormat::Jpeg && fault.is_none() {
        fault = partial::grey_rows(&pixels, height as usize).map(Fault::at_least_half).transpose()?;
    }
    if let Some(fault) = fault {
        fault.paint(&mut pixels);
    }
    let image = RgbImage::from_raw(width, height, pixels).expect("the decoder filled every pixel");
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(orientation);
    let (width, height) = (image.width() as usize, image.height() as usize);
    let note = fault.map(|fault| fault.note());
    Ok(work(Photo::from_parts(width, height, image.into_rgb8().into_raw()).with_note(note)))
}

fn readable_format(bytes: &[u8]) -> Result<ImageFormat, PhotoError> {
    match format::kind(bytes) {
        _ if bytes.is_empty() => Err(PhotoError::Empty),
        Kind::Image(format) => Ok(format),
        Kind::Other(found) => Err(PhotoError::OtherFormat { found }),
        Kind::Zeros => Err(PhotoError::Zeros),
        Kind::Unknown => Err(PhotoError::UnknownFormat),
    }
}

/// Opens a decoder for `bytes`, which stand for a file of `length`, and judges the header.
fn open_decoder(
    bytes: &[u8],
    format: ImageFormat,
    length: usize,
) -> Result<impl ImageDecoder + '_, PhotoError> {
    let reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut decoder = reader.into_decoder().map_err(PhotoError::from_image)?;
    let (width, height) = decoder.dimensions();
    let (pixels, bytes) = (u64::from(width) * u64::from(height), length as u64);
    if !(1..=MAX_PIXELS).contains(&pixels) {
        return Err(PhotoError::Dimensions { width, height });
    }
    if pixels > MAX_FREE_PIXELS && pixels / bytes.max(1) > MAX_PIXELS_PER_BYTE {
        return Err(PhotoError::Sparse { width, height, bytes });
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    decoder.set_limits(limits).map_err(PhotoError::from_image)?;
    Ok(decoder)
}

/// How to turn the photo upright.
fn upright(decoder: &mut impl ImageDecoder, bytes: &[u8], format: ImageFormat) -> Orientation {
    match decoder.exif_metadata() {
        Ok(Some(chunk)) => exif::orientation(&chunk),
        // A TIFF file is built as EXIF data are.
        _ if format == ImageFormat::Tiff => exif::orientation(bytes),
        _ => Orientation::NoTransforms,
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
