//! Small pictures for the report.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};
use margay_core::Preprocess;
use margay_runtime::{Photo, Preprocessor, decode};
use rayon::prelude::*;

use crate::names;
use crate::record::RunRecord;
use crate::report::Thumbnail;

/// Longest side in pixels.
const SIDE: usize = 112;

/// JPEG quality, 1 to 100.
const QUALITY: u8 = 80;

/// Thumbnails of a record's changed answers, whose paths are relative to `root`; photos that cannot be
/// read are left out.
pub fn thumbnails(record: &RunRecord, root: &Path) -> Vec<Thumbnail> {
    let paths: BTreeSet<&str> = record.changed.iter().map(|change| change.path.as_str()).collect();
    let paths: Vec<&str> = paths.into_iter().collect();
    let made: Vec<Option<Thumbnail>> = paths
        .par_iter()
        .map(|path| {
            let photo = decode(root.join(names::to_path(path))).ok()?;
            Some(Thumbnail { path: (*path).to_owned(), jpeg: jpeg(&photo)? })
        })
        .collect();
    made.into_iter().flatten().collect()
}

/// The whole photo, scaled down to fit a square of [`SIDE`] pixels.
fn jpeg(photo: &Photo) -> Option<Vec<u8>> {
    let longest = photo.width().max(photo.height()).max(SIDE);
    let scaled = |side: usize| (side * SIDE / longest).max(1);
    let spec =
        Preprocess { size: [scaled(photo.height()), scaled(photo.width())], ..Preprocess::squash(SIDE) };
    let small = Preprocessor::new(&spec).resize(photo).into_owned();
    let mut bytes = Cursor::new(Vec::new());
    let (width, height) = (u32::try_from(small.width()).ok()?, u32::try_from(small.height()).ok()?);
    JpegEncoder::new_with_quality(&mut bytes, QUALITY)
        .write_image(small.pixels(), width, height, ExtendedColorType::Rgb8)
        .ok()?;
    Some(bytes.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thumbnail_keeps_the_aspect_ratio() {
        let photo = Photo::from_rgb(400, 100, vec![90; 3 * 400 * 100]).unwrap();
        let small = margay_runtime::decode_bytes(&jpeg(&photo).unwrap()).unwrap();
        assert_eq!((small.width(), small.height()), (SIDE, SIDE / 4));
    }

    #[test]
    fn small_photos_stay_as_they_are() {
        let photo = Photo::from_rgb(5, 3, vec![90; 45]).unwrap();
        let small = margay_runtime::decode_bytes(&jpeg(&photo).unwrap()).unwrap();
        assert_eq!((small.width(), small.height()), (5, 3));
    }
}
