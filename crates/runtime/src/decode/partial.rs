//! The upper part of pictures that have no lower one.

use std::io::Cursor;

use image::{ColorType, DynamicImage, GrayAlphaImage, GrayImage, ImageDecoder, ImageFormat, ImageReader};
use image::{RgbImage, RgbaImage};

use super::fault::{Fault, GREY};
use super::{PhotoError, into_rgb8};
use crate::photo::Defect;

/// Decodes what is there of a file whose decoder fails with `error`: pixels `[height, width, 3]`.
///
/// Fails with that error where nothing can be told to be there: only truncated files are read, and of those the ones
/// whose decoder goes from row to row.
pub fn decode(bytes: &[u8], format: ImageFormat, error: PhotoError) -> Result<(Vec<u8>, Fault), PhotoError> {
    let interlaced = format == ImageFormat::Png && bytes.get(28) != Some(&0);
    if interlaced || format == ImageFormat::Jpeg || !matches!(error, PhotoError::Truncated { .. }) {
        return Err(error);
    }
    upper_part(bytes, format).ok_or(error)
}

fn upper_part(bytes: &[u8], format: ImageFormat) -> Option<(Vec<u8>, Fault)> {
    let decoder = ImageReader::with_format(Cursor::new(bytes), format).into_decoder().ok()?;
    let (width, height) = decoder.dimensions();
    let color = decoder.color_type();
    // No picture looks like this: a row that still does was not decoded.
    let blank = |at: usize| (at.wrapping_mul(0x9E37_79B1) >> 13) as u8;
    let mut buffer: Vec<u8> = (0..usize::try_from(decoder.total_bytes()).ok()?).map(blank).collect();
    decoder.read_image(&mut buffer).err()?;
    let row = usize::from(color.bytes_per_pixel()) * width as usize;
    let is_blank = |(at, pixels): (usize, &[u8])| {
        pixels.iter().enumerate().all(|(i, byte)| *byte == blank(at * row + i))
    };
    let rows = buffer.chunks_exact(row).enumerate().take_while(|row| !is_blank(*row)).count();
    // The last of them may be there in part.
    let rows = rows.saturating_sub(1);
    let image = match color {
        ColorType::L8 => GrayImage::from_raw(width, height, buffer).map(DynamicImage::from),
        ColorType::La8 => GrayAlphaImage::from_raw(width, height, buffer).map(DynamicImage::from),
        ColorType::Rgb8 => RgbImage::from_raw(width, height, buffer).map(DynamicImage::from),
        ColorType::Rgba8 => RgbaImage::from_raw(width, height, buffer).map(DynamicImage::from),
        _ => None,
    };
    let fault = Fault { defect: Defect::Truncated, rows: Some(rows), coarse: false, height: height as usize };
    Some((into_rgb8(image?), fault))
}

/// Finds what another program made of a truncated photo: rows of a decoder's grey from somewhere to the bottom.
pub fn grey_rows(pixels: &[u8], height: usize) -> Option<Fault> {
    /// Fewer rows may be part of a photo.
    const LEAST: usize = 16;
    let row = pixels.len() / height;
    let grey = |row: &[u8]| row.iter().all(|byte| byte.abs_diff(GREY) <= 1);
    let filled = pixels.rchunks_exact(row).take_while(|row| grey(row)).count();
    let fault = Fault { defect: Defect::Truncated, rows: Some(height - filled), coarse: false, height };
    (LEAST..height).contains(&filled).then_some(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoders_grey_at_the_bottom_is_no_photo() {
        let picture = |sound: usize| [vec![90; 12 * sound], vec![GREY; 12 * (40 - sound)]].concat();
        assert_eq!(grey_rows(&picture(20), 40).unwrap().rows, Some(20));
        assert_eq!(grey_rows(&picture(30), 40), None, "too few to tell");
        assert_eq!(grey_rows(&picture(0), 40), None, "a grey card");
        assert_eq!(grey_rows(&picture(40), 40), None);
    }
}
