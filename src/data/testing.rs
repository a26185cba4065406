//! Small photos for the tests of this module.

use std::path::Path;

/// Writes a photo of one colour; the format is the extension's.
pub(super) fn photo(path: &Path, width: u32, height: u32, colour: [u8; 3]) {
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    let image = image::RgbImage::from_pixel(width, height, image::Rgb(colour));
    let mut bytes = std::io::Cursor::new(Vec::new());
    let format = image::ImageFormat::from_path(path).unwrap();
    image.write_to(&mut bytes, format).unwrap();
    fs_err::write(path, bytes.into_inner()).unwrap();
}

/// Writes `count` photos `000.png`, `001.png` … of 8 x 8 pixels to a class folder.
pub(super) fn class(folder: &Path, count: usize) {
    for i in 0..count {
        photo(&folder.join(format!("{i:03}.png")), 8, 8, [i as u8, 0, 0]);
    }
}
