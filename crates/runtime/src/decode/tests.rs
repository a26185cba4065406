use std::io::Write as _;
use std::path::PathBuf;

use image::{ExtendedColorType, ImageEncoder as _};
use proptest::prelude::*;

use super::*;
use crate::Defect;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn png(width: u32, height: u32, color: ExtendedColorType, pixels: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    encoder.write_image(pixels, width, height, color).unwrap();
    bytes
}

fn decode_memory(bytes: &[u8]) -> Result<Photo, PhotoError> {
    decode_bytes(bytes)
}

#[test]
fn decodes_as_pillow() {
    let cases = [
        ("photo.jpg", 0.8),
        ("progressive.jpg", 0.8),
        ("grey.jpg", 0.8),
        ("cmyk.jpg", 0.8),
        ("ycck.jpg", 0.8),
        ("palette.png", 0.0),
        ("alpha.png", 0.0),
        ("alpha.webp", 0.0),
    ];
    for (name, limit) in cases {
        let photo = decode(golden(name)).unwrap();
        let expected = decode(golden(&format!("decoded-{}.png", name.replace('.', "-")))).unwrap();
        assert_eq!((photo.width(), photo.height()), (expected.width(), expected.height()), "{name}");
        let total: f64 =
            photo.pixels().iter().zip(expected.pixels()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
        let mean = total / photo.pixels().len() as f64;
        assert!(mean <= limit, "{name}: {mean} steps of 1/255");
    }
}

#[test]
fn sixteen_bits_keep_their_upper_half() {
    let grey = png(3, 1, ExtendedColorType::L16, native_bytes(&[0x0102, 0x7FFF, 0xFFFF]).as_slice());
    assert_eq!(decode_memory(&grey).unwrap().pixels(), [1, 1, 1, 127, 127, 127, 255, 255, 255]);
    let colour = png(1, 1, ExtendedColorType::Rgba16, native_bytes(&[0x1234, 0x80FF, 0x0001, 5]).as_slice());
    assert_eq!(decode_memory(&colour).unwrap().pixels(), [0x12, 0x80, 0]);
}

fn native_bytes(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

/// A JPEG `24 x 16` with a red, a green and a blue column, and this EXIF orientation.
fn oriented_jpeg(orientation: u8) -> Vec<u8> {
    let colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255]];
    let pixels: Vec<u8> =
        (0..16 * 24).flat_map(|i| if i / 24 < 8 { colours[i % 24 / 8] } else { [255, 255, 255] }).collect();
    let mut jpeg = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 100);
    encoder.write_image(&pixels, 24, 16, ExtendedColorType::Rgb8).unwrap();
    let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    let mut bytes = vec![0xFF, 0xD8, 0xFF, 0xE1];
    bytes.extend((exif.len() as u16 + 2).to_be_bytes());
    bytes.extend(exif);
    bytes.extend(&jpeg[2..]);
    bytes
}

/// Name of the colour in the middle of the 8 x 8 block at `(row, column)`.
fn colour(photo: &Photo, row: usize, column: usize) -> char {
    let at = 3 * ((8 * row + 4) * photo.width() + 8 * column + 4);
    match photo.pixels()[at..at + 3] {
        [r, g, b] if r > 200 && g > 200 && b > 200 => 'w',
        [r, g, b] if r > 150 && g < 90 && b < 90 => 'r',
        [r, g, b] if r < 90 && g > 150 && b < 90 => 'g',
        [r, g, b] if r < 90 && g < 90 && b > 150 => 'b',
        _ => '?',
    }
}

#[test]
fn every_exif_orientation_is_turned_upright() {
    let expected = [
        (1, "rgb/www"),
        (2, "bgr/www"),
        (3, "www/bgr"),
        (4, "www/rgb"),
        (5, "rw/gw/bw"),
        (6, "wr/wg/wb"),
        (7, "wb/wg/wr"),
        (8, "bw/gw/rw"),
        (0, "rgb/www"),
        (9, "rgb/www"),
    ];
    for (orientation, layout) in expected {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("turned.JPG");
        fs_err::write(&path, oriented_jpeg(orientation)).unwrap();
        let photo = decode(&path).unwrap();
        let rows: Vec<String> = (0..photo.height() / 8)
            .map(|row| (0..photo.width() / 8).map(|column| colour(&photo, row, column)).collect())
            .collect();
        assert_eq!(rows.join("/"), layout, "orientation {orientation}");
        assert_eq!(dimensions(&path).unwrap(), [photo.width(), photo.height()]);
    }
}

#[test]
fn every_defect_has_its_error() {
    let jpeg = oriented_jpeg(1);
    let whole = png(4, 4, ExtendedColorType::Rgb8, &[9; 48]);
    assert!(matches!(decode_memory(&[]), Err(PhotoError::Empty)));
    assert!(matches!(decode_memory(&[0; 600]), Err(PhotoError::Zeros)));
    assert!(matches!(decode_memory(b"just text"), Err(PhotoError::OtherFormat { found: "text" })));
    assert!(matches!(decode_memory(b"\x01\x02\x03\x04"), Err(PhotoError::UnknownFormat)));
    for cut in [100, jpeg.len() / 2, jpeg.len() - 4] {
        let result = decode_memory(&jpeg[..jpeg.len() - cut]);
        assert!(matches!(result, Err(PhotoError::Truncated { .. })), "cut {cut}: {result:?}");
    }
    for cut in [40, 48] {
        let result = decode_memory(&whole[..whole.len() - cut]);
        assert!(matches!(result, Err(PhotoError::Truncated { .. })), "png cut {cut}: {result:?}");
    }
    let mut crc = whole.clone();
    crc[20] ^= 1;
    assert!(matches!(decode_memory(&crc), Err(PhotoError::Damaged { .. })), "{:?}", decode_memory(&crc));
    let missing = decode(Path::new("no/such/photo.jpg")).unwrap_err();
    assert!(matches!(missing, PhotoError::Read { .. }));
    assert!(matches!(decode(golden("")), Err(PhotoError::Read { .. })));
    assert_eq!(missing.to_string(), "cannot be read: No such file or directory (os error 2)");
    let folder = decode(golden("")).unwrap_err();
    assert_eq!(folder.to_string(), "cannot be read: is not a regular file: it is a folder");
}

#[test]
fn huge_dimensions_are_refused_from_the_header() {
    let mut jpeg = oriented_jpeg(1);
    let frame = jpeg.windows(4).position(|w| w[..2] == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xFF; 4]);
    let result = decode_memory(&jpeg);
    assert!(matches!(result, Err(PhotoError::Dimensions { width: 65535, height: 65535, .. })), "{result:?}");
    let mut bmp = b"BM".to_vec();
    bmp.extend([0; 12]);
    bmp.extend(40_u32.to_le_bytes());
    bmp.extend(40_000_u32.to_le_bytes());
    bmp.extend(40_000_u32.to_le_bytes());
    bmp.extend([1, 0, 24, 0]);
    bmp.extend([0; 24]);
    assert!(matches!(decode_memory(&bmp), Err(PhotoError::Dimensions { .. })), "{:?}", decode_memory(&bmp));
}

#[test]
fn a_picture_too_large_for_its_file_is_refused_from_the_header() {
    let flat = vec![7; 3 * 5_001 * 5_000];
    let mut webp = Vec::new();
    let encoder = image::codecs::webp::WebPEncoder::new_lossless(&mut webp);
    encoder.write_image(&flat, 5_001, 5_000, ExtendedColorType::Rgb8).unwrap();
    assert!(webp.len() < 12_000, "{}", webp.len());
    let error = decode_memory(&webp).unwrap_err();
    assert!(matches!(error, PhotoError::Sparse { width: 5001, height: 5000, .. }), "{error}");
    let mut jpeg = oriented_jpeg(1);
    let frame = jpeg.windows(4).position(|w| w[..2] == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[14_000_u16.to_be_bytes(); 2].concat());
    let error = decode_memory(&jpeg).unwrap_err();
    assert_eq!(error.to_string(), "announces 14000 x 14000 pixels in 700 bytes: no photo is that short");
}

#[test]
fn what_is_no_image_is_not_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("long.jpg");
    let long = |head: &[u8]| {
        let mut file = fs_err::File::create(&path).unwrap();
        file.write_all(head).unwrap();
        file.set_len(4 << 40).unwrap();
        decode(&path).unwrap_err()
    };
    assert!(matches!(long(b""), PhotoError::Zeros));
    assert!(matches!(long(b"\0\0\0\x18ftypheic"), PhotoError::OtherFormat { found: "a HEIC photo" }));
    assert!(matches!(long(&oriented_jpeg(1)), PhotoError::TooLong { bytes } if bytes == 4 << 40));
}

#[test]
fn files_are_read_by_what_they_hold() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("photo.jpg");
    fs_err::write(&path, png(2, 1, ExtendedColorType::Rgb8, &[1, 2, 3, 4, 5, 6])).unwrap();
    assert_eq!(decode(&path).unwrap().pixels(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_truncated_photo_is_decoded_from_half_its_rows_on() {
    let noise = |i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8;
    let pixels: Vec<u8> = (0..3 * 64 * 64).map(noise).collect();
    let mut jpeg = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 90);
    encoder.write_image(&pixels, 64, 64, ExtendedColorType::Rgb8).unwrap();
    let png = png(64, 64, ExtendedColorType::Rgb8, &pixels);
    for (format, bytes, slack) in [("jpeg", jpeg, 1), ("png", png, 1)] {
        let whole = decode_memory(&bytes).unwrap();
        assert_eq!(whole.note(), None);
        let part = decode_memory(&bytes[..bytes.len() * 4 / 5]).unwrap();
        let note = part.note().unwrap();
        assert_eq!((note.defect, note.coarse), (Defect::Truncated, false), "{format}");
        let rows = usize::from(note.rows.unwrap()) * 64 / 100;
        assert!((40..60).contains(&rows), "{format}: {note}");
        assert_eq!(note.to_string(), format!("truncated, {} % of the rows", note.rows.unwrap()));
        let sound = 3 * 64 * (rows - slack);
        assert_eq!(part.pixels()[..sound], whole.pixels()[..sound], "{format}");
        assert!(part.pixels()[3 * 64 * 60..].iter().all(|byte| *byte == 128), "{format}");
        let less = decode_memory(&bytes[..bytes.len() * 2 / 5]).unwrap_err();
        assert!(matches!(less, PhotoError::Truncated { rows: Some(1..50) }), "{format}: {less}");
    }
}

#[test]
fn a_truncated_photo_that_was_saved_again_is_told() {
    let mut pixels: Vec<u8> = (0..3 * 64 * 64).map(|i: u32| (i % 251) as u8).collect();
    pixels[3 * 64 * 40..].fill(128);
    let mut jpeg = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 90);
    encoder.write_image(&pixels, 64, 64, ExtendedColorType::Rgb8).unwrap();
    assert_eq!(decode_memory(&jpeg).unwrap().note().unwrap().to_string(), "truncated, 62 % of the rows");
}

#[test]
fn big_tiffs_are_read() {
    // 2 x 1 pixels: header, directory of 8 entries of 20 bytes, end, pixels.
    let entry = |tag: u16, kind: u16, count: u64, value: u64| {
        [&tag.to_le_bytes()[..], &kind.to_le_bytes(), &count.to_le_bytes(), &value.to_le_bytes()].concat()
    };
    let bits = 8_u64 | 8 << 16 | 8 << 32;
    let entries = [
        entry(256, 3, 1, 2),
        entry(257, 3, 1, 1),
        entry(258, 3, 3, bits),
        entry(259, 3, 1, 1),
        entry(262, 3, 1, 2),
        entry(273, 16, 1, 16 + 8 + 8 * 20 + 8),
        entry(277, 3, 1, 3),
        entry(279, 16, 1, 6),
    ];
    let head = [&b"II+\0\x08\0\0\0"[..], &16_u64.to_le_bytes(), &8_u64.to_le_bytes()].concat();
    let tiff = [head, entries.concat(), vec![0; 8], vec![1, 2, 3, 4, 5, 6]].concat();
    assert_eq!(decode_memory(&tiff).unwrap().pixels(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn an_animation_is_its_first_frame() {
    let mut gif = Vec::new();
    let mut encoder = image::codecs::gif::GifEncoder::new(&mut gif);
    for shade in [10, 200] {
        let frame = image::RgbaImage::from_pixel(3, 2, image::Rgba([shade, shade, shade, 255]));
        encoder.encode_frame(image::Frame::new(frame)).unwrap();
    }
    drop(encoder);
    assert!(decode_memory(&gif).unwrap().pixels().iter().all(|byte| byte.abs_diff(10) < 8));
}

#[test]
fn trailing_bytes_and_names_beyond_ascii_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Großer Bär – 熊 (1).JPEG");
    let mut file = fs_err::File::create(&path).unwrap();
    file.write_all(&oriented_jpeg(1)).unwrap();
    file.write_all(b"maker notes after the end").unwrap();
    assert_eq!(decode(&path).unwrap().width(), 24);
}

#[test]
fn a_photo_has_as_many_pixels_as_its_sides_say() {
    assert!(Photo::from_rgb(2, 2, vec![0; 12]).is_some());
    assert!(Photo::from_rgb(2, 2, vec![0; 11]).is_none());
    assert!(Photo::from_rgb(0, 2, Vec::new()).is_none());
    assert!(Photo::from_rgb(usize::MAX, 2, Vec::new()).is_none());
}

proptest! {
    #[test]
    fn damaged_files_never_panic(
        which in 0..6_usize, at: prop::sample::Index, byte: u8, cut: prop::sample::Index,
    ) {
        let files = ["cmyk.jpg", "progressive.jpg", "ycck.jpg", "palette.png", "alpha.webp", "grey.jpg"];
        let mut bytes = fs_err::read(golden(files[which])).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let keep = cut.index(2 * bytes.len());
        bytes.truncate(keep.max(1));
        let _ = decode_memory(&bytes);
    }
}
