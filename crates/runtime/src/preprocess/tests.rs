use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::decode;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn spec(resize: Resize, interpolation: Interpolation, size: [usize; 2]) -> Preprocess {
    Preprocess { size, resize, interpolation, ..Preprocess::squash(1) }
}

/// A line of `cases.txt`: input, resize, filter, height, width, expected output.
fn parse(line: &str) -> (Photo, Preprocess, Photo) {
    let [source, resize, filter, height, width, target] =
        line.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let resize = match resize {
        "squash" => Resize::Squash,
        short => Resize::ShortSide(short.parse().unwrap()),
    };
    let filter = if filter == "bicubic" { Interpolation::Bicubic } else { Interpolation::Bilinear };
    let spec = spec(resize, filter, [height.parse().unwrap(), width.parse().unwrap()]);
    (decode(golden(source)).unwrap(), spec, decode(golden(target)).unwrap())
}

/// Mean and largest absolute difference in steps of 1/255.
fn difference(a: &Photo, b: &Photo) -> (f64, u8) {
    assert_eq!((a.width(), a.height()), (b.width(), b.height()));
    let steps: Vec<u8> = a.pixels().iter().zip(b.pixels()).map(|(a, b)| a.abs_diff(*b)).collect();
    let mean = steps.iter().map(|step| f64::from(*step)).sum::<f64>() / steps.len() as f64;
    (mean, steps.into_iter().max().unwrap())
}

#[test]
fn resizes_as_pillow_and_torchvision() {
    let cases = fs_err::read_to_string(golden("cases.txt")).unwrap();
    let mut failures = Vec::new();
    for line in cases.lines() {
        let (photo, spec, expected) = parse(line);
        let (mean, max) = difference(&Preprocessor::new(&spec).resize(&photo), &expected);
        // Pillow rounds between its passes in another order; JPEG adds the decoders' difference.
        let limit = if line.starts_with("photo.jpg") { (0.6, 3) } else { (0.3, 2) };
        if mean > limit.0 || max > limit.1 {
            failures.push(format!("{line}: mean {mean:.4}, max {max}"));
        }
    }
    assert!(failures.is_empty() && cases.lines().count() == 16, "{failures:#?}");
}

#[test]
fn a_photo_that_fits_is_not_resampled() {
    let photo = decode(golden("scene.png")).unwrap();
    let size = [photo.height(), photo.width()];
    for resize in [Resize::Squash, Resize::ShortSide(61)] {
        let processor = Preprocessor::new(&spec(resize, Interpolation::Bicubic, size));
        assert!(matches!(processor.resize(&photo), Cow::Borrowed(_)), "{resize:?}");
    }
}

#[test]
fn normalises_to_planes_of_red_green_and_blue() {
    let photo = Photo::from_rgb(2, 1, vec![255, 0, 51, 0, 102, 255]).unwrap();
    let processor = Preprocessor::new(&spec(Resize::Squash, Interpolation::Bilinear, [1, 2]));
    let mut out = [0.0; 6];
    processor.run(&photo, &mut out);
    let expected = [
        (1.0 - 0.485) / 0.229,
        (0.0 - 0.485) / 0.229,
        (0.0 - 0.456) / 0.224,
        (0.4 - 0.456) / 0.224,
        (0.2 - 0.406) / 0.225,
        (1.0 - 0.406) / 0.225,
    ];
    for (got, want) in out.iter().zip(expected) {
        assert!((f64::from(*got) - want).abs() < 1e-6, "{out:?} instead of {expected:?}");
    }
}

#[test]
fn centre_offsets_are_rounded_as_each_library_does() {
    let starts = |centre| [0, 1, 2, 3, 4, 5, 6, 7].map(|rest: usize| Axis::new(10 + rest, 10, centre).start);
    assert_eq!(starts(Centre::Even), [0, 0, 1, 2, 2, 2, 3, 4]);
    assert_eq!(starts(Centre::Floor), [0, 0, 1, 1, 2, 2, 3, 3]);
    let padded = Axis::new(7, 10, Centre::Even);
    assert_eq!((padded.kept, padded.target), (7, 1));
}

/// First row and column of the photo on the canvas of a 10 × 10 input, and the colour beside it.
fn placed(width: usize, height: usize, resize: Resize) -> ([usize; 2], [u8; 3]) {
    let photo = Photo::from_rgb(width, height, vec![200; 3 * width * height]).unwrap();
    let fitted =
        Preprocessor::new(&spec(resize, Interpolation::Bilinear, [10, 10])).resize(&photo).into_owned();
    let is_photo = |i: &usize| fitted.pixels()[3 * i] == 200;
    let first = (0..100).find(is_photo).unwrap();
    let corner = [fitted.pixels()[0], fitted.pixels()[1], fitted.pixels()[2]];
    ([first / 10, first % 10], corner)
}

#[test]
fn a_letterbox_keeps_the_whole_photo_and_its_shape() {
    let fit = |side| Resize::Fit { sides: [side, side], fill: [7, 8, 9] };
    assert_eq!(placed(20, 14, fit(10)), ([1, 0], [7, 8, 9]));
    assert_eq!(placed(6, 10, fit(10)), ([0, 2], [7, 8, 9]));
    assert_eq!(placed(20, 20, fit(10)), ([0, 0], [200; 3]));
    // Fitted into more than the input: the centre is cut out.
    assert_eq!(placed(20, 10, fit(16)), ([1, 0], [7, 8, 9]));
    // A crop of more than there is pads with black.
    assert_eq!(placed(7, 7, Resize::ShortSide(7)), ([1, 1], [0; 3]));
}

#[test]
fn every_filter_keeps_an_even_photo_even() {
    use Interpolation::{Bicubic, Bilinear, Lanczos, Nearest};
    let photo = Photo::from_rgb(31, 17, vec![99; 3 * 31 * 17]).unwrap();
    for filter in [Nearest, Bilinear, Bicubic, Lanczos] {
        let processor = Preprocessor::new(&spec(Resize::SquashTo([12, 13]), filter, [8, 8]));
        assert_eq!(processor.resize(&photo).pixels(), [99; 3 * 64], "{filter}");
    }
}

#[test]
fn a_very_long_photo_costs_only_what_is_kept() {
    let photo = Photo::from_rgb(1_000_000, 1, vec![7; 3_000_000]).unwrap();
    let processor = Preprocessor::new(&spec(Resize::ShortSide(256), Interpolation::Bilinear, [224, 224]));
    assert!(processor.resize(&photo).pixels().iter().all(|byte| *byte == 7));
}

proptest! {
    #[test]
    fn any_photo_fits_any_input(
        width in 1_usize..70, height in 1_usize..70, short in 1_usize..60, squash: bool,
        rows in 1_usize..50, columns in 1_usize..50, byte: u8,
    ) {
        // Specs that enlarge more are refused.
        let short = short.min(8 * rows.max(columns));
        let photo = Photo::from_rgb(width, height, vec![byte; 3 * width * height]).unwrap();
        let resize = if squash { Resize::Squash } else { Resize::ShortSide(short) };
        let processor = Preprocessor::new(&spec(resize, Interpolation::Bicubic, [rows, columns]));
        let fitted = processor.resize(&photo);
        prop_assert_eq!((fitted.height(), fitted.width()), (rows, columns));
        // An even photo stays even; beyond its edges there is black.
        prop_assert!(fitted.pixels().iter().all(|got| *got == byte || (*got == 0 && !squash)));
        processor.run(&photo, &mut vec![0.0; processor.image_len()]);
    }
}
