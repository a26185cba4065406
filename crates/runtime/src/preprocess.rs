use std::borrow::Cow;
#[cfg(feature = "photos")]
use std::path::Path;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use margay_core::{Centre, Interpolation, Preprocess, Resize};

use crate::Photo;
#[cfg(feature = "photos")]
use crate::{Note, PhotoError, decode_with};

/// Turns photos into the input of a model: resize, cut out the centre, normalise.
///
/// Training, calibration and field use all pass through here. Resizing works on 8-bit RGB with
/// antialiasing as Pillow's and torchvision's do; a photo that already has the wanted size is not resampled.
#[derive(Clone, Debug)]
pub struct Preprocessor {
    spec: Preprocess,
    /// Normalised value of every byte, per channel.
    table: [[f32; 256]; 3],
}

/// Photos longer than this many times their short side are cut to it before a short-side resize, which
/// would otherwise blow a line of pixels up to any size. What is cut lies far outside the centre.
const MAX_ASPECT: usize = 64;

/// One axis of a centred cut.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Axis {
    /// First pixel that is kept.
    start: usize,
    /// Number of pixels that are kept.
    kept: usize,
    /// Where the first kept pixel goes in the output.
    target: usize,
    /// Pixels of the output.
    size: usize,
}

impl Preprocessor {
    /// Prepares for `spec`.
    ///
    /// # Panics
    /// If the spec is not sound: [`Preprocess::check`] tells.
    pub fn new(spec: &Preprocess) -> Self {
        if let Err(error) = spec.check() {
            unreachable!("readers check their specs: {error}");
        }
        let normalization = spec.normalization;
        let table = std::array::from_fn(|channel| {
            let (mean, std) = (normalization.mean[channel], normalization.std[channel]);
            std::array::from_fn(|byte| (byte as f32 / 255.0 - mean) / std)
        });
        Self { spec: spec.clone(), table }
    }

    /// The spec this was made for.
    pub fn spec(&self) -> &Preprocess {
        &self.spec
    }

    /// Number of values of one input, `3 · height · width`.
    pub fn image_len(&self) -> usize {
        3 * self.spec.size[0] * self.spec.size[1]
    }

    /// Writes the input `[3, height, width]` that `photo` becomes to `out`.
    ///
    /// # Panics
    /// If `out` is not [`Self::image_len`] long.
    pub fn run(&self, photo: &Photo, out: &mut [f32]) {
        self.normalize(self.resize(photo).pixels(), out);
    }

    /// Reads a photo and writes the input that it becomes to `out`; returns what is wrong with the photo, if
    /// anything is.
    ///
    /// # Panics
    /// If `out` is not [`Self::image_len`] long.
    #[cfg(feature = "photos")]
    pub fn read(&self, path: &Path, out: &mut [f32]) -> Result<Option<Note>, PhotoError> {
        decode_with(path, |photo| {
            self.run(&photo, out);
            photo.note()
        })
    }

    /// Normalises pixels `[height, width, 3]` of the input size to `out`, `[3, height, width]`.
    ///
    /// # Panics
    /// If `pixels` or `out` are not [`Self::image_len`] long.
    pub fn normalize(&self, pixels: &[u8], out: &mut [f32]) {
        assert_eq!([pixels.len(), out.len()], [self.image_len(); 2], "one input of {:?}", self.spec.size);
        let plane = pixels.len() / 3;
        for (channel, table) in self.table.iter().enumerate() {
            let values = pixels.iter().skip(channel).step_by(3).map(|byte| table[usize::from(*byte)]);
            out[channel * plane..][..plane].iter_mut().zip(values).for_each(|(slot, value)| *slot = value);
        }
    }

    /// The photo at the input size, before normalisation; what lies beyond its edges is black, or the
    /// colour of the spec's canvas.
    pub fn resize<'a>(&self, photo: &'a Photo) -> Cow<'a, Photo> {
        let cuts = matches!(self.spec.resize, Resize::ShortSide(_));
        let photo = if cuts { shorten(photo) } else { Cow::Borrowed(photo) };
        let [height, width] = self.scaled(&photo);
        let scaled = if [height, width] == [photo.height(), photo.width()] {
            photo
        } else {
            Cow::Owned(resample(&photo, height, width, self.algorithm()))
        };
        if [height, width] == self.spec.size {
            return scaled;
        }
        let axis = |source, size| Axis::new(source, size, self.spec.centre);
        let [rows, columns] = self.spec.size;
        Cow::Owned(cut(&scaled, axis(height, rows), axis(width, columns), self.fill()))
    }

    /// Height and width of the whole photo after the resize.
    fn scaled(&self, photo: &Photo) -> [usize; 2] {
        let sides = [photo.height(), photo.width()];
        match self.spec.resize {
            Resize::Squash => self.spec.size,
            Resize::SquashTo(sides) => sides,
            Resize::ShortSide(short) => {
                let shortest = sides[0].min(sides[1]);
                sides.map(|side| (short.saturating_mul(side) / shortest).max(1))
            }
            Resize::Fit { sides: [rows, columns], .. } => {
                let ratio = (sides[0] as f64 / rows as f64).max(sides[1] as f64 / columns as f64);
                sides.map(|side| ((side as f64 / ratio).round_ties_even() as usize).max(1))
            }
        }
    }

    fn fill(&self) -> [u8; 3] {
        match self.spec.resize {
            Resize::Fit { fill, .. } => fill,
            Resize::Squash | Resize::SquashTo(_) | Resize::ShortSide(_) => [0; 3],
        }
    }

    fn algorithm(&self) -> ResizeAlg {
        match self.spec.interpolation {
            Interpolation::Nearest => ResizeAlg::Nearest,
            Interpolation::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
            Interpolation::Bicubic => ResizeAlg::Convolution(FilterType::CatmullRom),
            Interpolation::Lanczos => ResizeAlg::Convolution(FilterType::Lanczos3),
        }
    }
}

impl Axis {
    /// Keeps the `size` pixels in the middle of `source`; what is too short is padded, with the odd pixel
    /// behind.
    fn new(source: usize, size: usize, centre: Centre) -> Self {
        if source < size {
            return Self { start: 0, kept: source, target: (size - source) / 2, size };
        }
        let rest = source - size;
        let up = centre == Centre::Even && rest % 4 == 3;
        Self { start: rest / 2 + usize::from(up), kept: size, target: 0, size }
    }
}

/// Resizes the whole photo. Without a crop box, as here, every source pixel has weight in some output
/// pixel: the resizer computes wrong bounds for crop boxes whose first output pixel has zero weights.
fn resample(photo: &Photo, height: usize, width: usize, algorithm: ResizeAlg) -> Photo {
    let mut pixels = vec![0; 3 * height * width];
    let [columns, rows] = [photo.width(), photo.height()].map(side);
    let source = TypedImageRef::<U8x3>::from_buffer(columns, rows, photo.pixels())
        .expect("a photo has all its pixels");
    let mut target =
        TypedImage::<U8x3>::from_buffer(side(width), side(height), &mut pixels).expect("a pixel has 3 bytes");
    let options = ResizeOptions::new().resize_alg(algorithm);
    // Typed: the other call would compile the resizer for every kind of pixel, which took most of this crate's time.
    Resizer::new().resize_typed(&source, &mut target, &options).expect("the source has pixels");
    Photo::from_parts(width, height, pixels)
}

/// Pixels of a side as the resizer takes them.
fn side(pixels: usize) -> u32 {
    u32::try_from(pixels).expect("photos and checked specs have sides far below 2^32")
}

/// Cuts the middle out of a photo that is more than [`MAX_ASPECT`] times as long as short.
fn shorten(photo: &Photo) -> Cow<'_, Photo> {
    let [height, width] = [photo.height(), photo.width()];
    let longest = MAX_ASPECT * height.min(width);
    if height.max(width) <= longest {
        return Cow::Borrowed(photo);
    }
    let size = [height.min(longest), width.min(longest)];
    let axis = |source, size| Axis::new(source, size, Centre::Even);
    Cow::Owned(cut(photo, axis(height, size[0]), axis(width, size[1]), [0; 3]))
}

/// The part of `photo` that `rows` and `columns` keep, on a canvas of the colour `fill`.
fn cut(photo: &Photo, rows: Axis, columns: Axis, fill: [u8; 3]) -> Photo {
    let (height, width) = (rows.size, columns.size);
    let mut canvas = fill.repeat(height * width);
    for row in 0..rows.kept {
        let from = 3 * ((rows.start + row) * photo.width() + columns.start);
        let to = 3 * ((rows.target + row) * width + columns.target);
        canvas[to..to + 3 * columns.kept].copy_from_slice(&photo.pixels()[from..from + 3 * columns.kept]);
    }
    Photo::from_parts(width, height, canvas)
}

#[cfg(all(test, feature = "photos"))]
mod tests;
