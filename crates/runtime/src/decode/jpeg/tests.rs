use std::path::Path;

use image::{ExtendedColorType, ImageEncoder as _};

use super::*;

const WIDTH: usize = 320;
const HEIGHT: usize = 240;

/// A picture with edges, slopes and noise, as a photo has.
fn pixels(width: usize, height: usize) -> Vec<u8> {
    let value = |i: usize| {
        let (x, y, channel) = (i / 3 % width, i / 3 / width, i % 3);
        let noise = (i.wrapping_mul(2_654_435_761) >> 7) % 61;
        ((x * (channel + 1) / 2 + y) % 150 + noise + if x / 37 % 2 == y / 23 % 2 { 40 } else { 0 }) as u8
    };
    (0..3 * width * height).map(value).collect()
}

fn encoded(pixels: &[u8], width: usize, height: usize) -> Vec<u8> {
    let mut jpeg = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 85);
    encoder.write_image(pixels, width as u32, height as u32, ExtendedColorType::Rgb8).unwrap();
    jpeg
}

fn photo() -> Vec<u8> {
    encoded(&pixels(WIDTH, HEIGHT), WIDTH, HEIGHT)
}

fn golden(name: &str) -> Vec<u8> {
    fs_err::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)).unwrap()
}

/// Where the data of the first scan begin.
fn data_start(jpeg: &[u8]) -> usize {
    let scan = jpeg.windows(2).position(|pair| pair == [0xFF, 0xDA]).unwrap();
    scan + 2 + usize::from(u16::from_be_bytes([jpeg[scan + 2], jpeg[scan + 3]]))
}

fn fault(jpeg: &[u8]) -> Option<Fault> {
    survey(jpeg).unwrap().fault
}

/// The picture in strips of 8 rows, with a restart marker between each two.
fn with_restarts() -> Vec<u8> {
    let all = pixels(WIDTH, HEIGHT);
    let strips: Vec<Vec<u8>> = all.chunks(3 * WIDTH * 8).map(|strip| encoded(strip, WIDTH, 8)).collect();
    let (first, start) = (&strips[0], data_start(&strips[0]));
    let mut jpeg = first[..start].to_vec();
    let frame = jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 5..frame + 7].copy_from_slice(&(HEIGHT as u16).to_be_bytes());
    let interval = (WIDTH / 8) as u16;
    jpeg.splice(2..2, [[0xFF, 0xDD], [0, 4], interval.to_be_bytes()].concat());
    for (number, strip) in strips.iter().enumerate() {
        jpeg.extend(&strip[data_start(strip)..strip.len() - 2]);
        jpeg.extend([0xFF, if number + 1 == strips.len() { 0xD9 } else { 0xD0 + (number % 8) as u8 }]);
    }
    jpeg
}

#[test]
fn whole_pictures_have_no_fault_and_stay_as_they_are() {
    let golden = ["photo.jpg", "progressive.jpg", "grey.jpg", "cmyk.jpg", "ycck.jpg"].map(golden);
    let drawn = [(1, 1), (8, 8), (17, 31), (WIDTH, HEIGHT)].map(|(w, h)| encoded(&pixels(w, h), w, h));
    let flat = encoded(&vec![0; 3 * 512 * 512], 512, 512);
    for (i, jpeg) in golden.into_iter().chain(drawn).chain([flat, with_restarts()]).enumerate() {
        let survey = survey(&jpeg).unwrap();
        assert_eq!(survey.fault, None, "picture {i}");
        assert!(matches!(survey.bytes, Cow::Borrowed(_)), "picture {i}");
    }
}

#[test]
fn a_whole_picture_without_its_end_is_whole() {
    let whole = photo();
    let open = &whole[..whole.len() - 2];
    for trailer in [&b""[..], b"dhav\x12\x34\0\0", &[0; 700], &[0xFF; 700], b"\xFF"] {
        let jpeg = [open, trailer].concat();
        let survey = survey(&jpeg).unwrap();
        assert_eq!(survey.fault, None, "{}", trailer.escape_ascii());
        assert!(survey.bytes.ends_with(&[0xFF, 0xD9]));
    }
}

#[test]
fn a_cut_is_told_with_the_rows_that_are_there() {
    for whole in [photo(), with_restarts()] {
        let start = data_start(&whole);
        let mut last = 0;
        for sixteenth in 1..16 {
            let cut = &whole[..start + (whole.len() - start) * sixteenth / 16];
            for tail in [&b""[..], b"\xFF\xD9", b"\xFF"] {
                let fault = fault(&[cut, tail].concat()).unwrap();
                let rows = fault.rows.unwrap();
                assert_eq!(fault.defect, Defect::Truncated, "{sixteenth}/16: {fault:?}");
                assert!(
                    rows >= last && rows.abs_diff(HEIGHT * sixteenth / 16) <= 24,
                    "{sixteenth}/16: {rows}"
                );
                last = rows;
            }
        }
        assert_eq!(fault(&whole[..whole.len() - 6]).unwrap().defect, Defect::Truncated);
    }
    let whole = photo();
    assert!(matches!(survey(&whole[..data_start(&whole) - 30]), Err(PhotoError::Truncated { rows: None })));
}

#[test]
fn what_a_failing_card_does_is_told() {
    let whole = photo();
    assert!(whole.len() > 24_000, "{}", whole.len());
    let noise: Vec<u8> = (0..4096_usize).map(|i| (i.wrapping_mul(2_246_822_519) >> 11) as u8).collect();
    for size in [512, 4096] {
        for at in (4096..whole.len() - size - 512).step_by(4096) {
            let replaced = |by: &[u8]| [&whole[..at], &by[..size], &whole[at + size..]].concat();
            let zeros = fault(&replaced(&[0; 4096])).unwrap();
            assert_eq!(zeros.defect, Defect::Damaged, "zeros at {at}");
            assert!(zeros.rows.unwrap() <= HEIGHT * at / whole.len() + 24, "zeros at {at}: {zeros:?}");
            for (what, jpeg) in [
                ("ones", replaced(&[0xFF; 4096])),
                ("noise", replaced(&noise)),
                ("another part of the picture", replaced(&whole[1024..6000])),
                ("a missing block", [&whole[..at], &whole[at + size..]].concat()),
            ] {
                assert!(fault(&jpeg).is_some(), "{what} of {size} at {at}");
            }
        }
    }
    for at in (2048..whole.len()).step_by(1777) {
        for fill in [0, 0xFF] {
            let tail = [&whole[..at], &vec![fill; whole.len() - at]].concat();
            let fault = fault(&tail).unwrap_or_else(|| panic!("{fill} from {at} of {} on", whole.len()));
            assert_eq!(fault.defect, Defect::Truncated, "{fill} from {at} on: {fault:?}");
            assert!(
                fault.rows.unwrap().abs_diff(HEIGHT * at / whole.len()) <= 24,
                "{fill} from {at} on: {fault:?}"
            );
        }
    }
}

#[test]
fn flipped_bits_are_told_where_they_break_the_code() {
    let whole = photo();
    let start = data_start(&whole);
    let places: Vec<usize> = (start..whole.len() - 2).step_by(97).collect();
    let told = places.iter().filter(|at| {
        let mut jpeg = whole.clone();
        jpeg[**at] ^= 1 << (*at % 8);
        fault(&jpeg).is_some()
    });
    // Most others change a coefficient's value and nothing else: this picture's many large ones take most of the bits.
    let (told, all) = (told.count(), places.len());
    assert!(4 * told > all, "{told} of {all}");
}

#[test]
fn a_lost_interval_is_told_where_it_is_missing() {
    let whole = with_restarts();
    let markers: Vec<usize> =
        (0..whole.len() - 1).filter(|i| whole[*i] == 0xFF && (0xD0..0xD8).contains(&whole[i + 1])).collect();
    let lost = [&whole[..markers[9]], &whole[markers[10]..]].concat();
    let found = fault(&lost).unwrap();
    assert_eq!((found.defect, found.rows), (Defect::Damaged, Some(80)));
}

#[test]
fn a_progressive_picture_without_its_last_scans_lacks_detail() {
    let whole = golden("progressive.jpg");
    let scans: Vec<usize> = (0..whole.len() - 1).filter(|i| whole[*i..].starts_with(&[0xFF, 0xDA])).collect();
    for tail in [&b""[..], b"\xFF\xD9"] {
        let between = fault(&[&whole[..scans[4]], tail].concat()).unwrap();
        assert_eq!((between.defect, between.rows, between.coarse), (Defect::Truncated, Some(117), true));
        let within = fault(&[&whole[..scans[4] + 40], tail].concat()).unwrap();
        assert_eq!((within.defect, within.rows, within.coarse), (Defect::Truncated, Some(117), true));
        let first = fault(&[&whole[..usize::midpoint(scans[0], scans[1])], tail].concat()).unwrap();
        assert!(first.rows.unwrap() < 117);
    }
    let mut flipped = whole.clone();
    flipped[scans[2] + 60..scans[2] + 64].fill(0x55);
    let found = fault(&flipped).unwrap();
    assert_eq!((found.defect, found.coarse), (Defect::Damaged, true));
}

#[test]
fn a_frame_of_a_video_gets_the_standard_tables() {
    let whole = photo();
    let mut bare = whole.clone();
    while let Some(at) = bare.windows(2).position(|pair| pair == [0xFF, 0xC4]) {
        let length = usize::from(u16::from_be_bytes([bare[at + 2], bare[at + 3]]));
        bare.drain(at..at + 2 + length);
    }
    assert!(bare.len() < whole.len() - 400);
    let [bare, whole] = [bare, whole].map(|jpeg| super::super::decode_bytes(&jpeg).unwrap());
    assert_eq!(bare.note(), None);
    assert!(bare == whole);
}

#[test]
fn thousands_of_scans_are_refused_by_their_number() {
    let whole = golden("progressive.jpg");
    let scans: Vec<usize> = (0..whole.len() - 1).filter(|i| whole[*i..].starts_with(&[0xFF, 0xDA])).collect();
    // The seventh scan has one bit for each block: it may come as often as it likes.
    let length = whole[scans[6] + 2..].windows(2).position(|pair| pair == [0xFF, 0xC4]).unwrap() + 2;
    let scan = &whole[scans[6]..scans[6] + length];
    let many = [&whole[..scans[6]], &scan.repeat(MAX_SCANS), &[0xFF, 0xD9]].concat();
    let error = survey(&many).unwrap_err();
    assert!(matches!(error, PhotoError::Scans { scans: 501, .. }), "{error}");
    assert!(error.to_string().contains("501 scans"), "{error}");
}

#[test]
fn other_codings_are_named() {
    for (code, name) in [(0xC9, "arithmetic"), (0xC3, "lossless"), (0xC5, "hierarchical")] {
        let mut jpeg = photo();
        let frame = jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
        jpeg[frame + 1] = code;
        let error = survey(&jpeg).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        jpeg[frame + 1..frame + 5].copy_from_slice(&[0xC0, 0, 17, 12]);
        assert!(survey(&jpeg).unwrap_err().to_string().contains("12 bits"));
    }
}
