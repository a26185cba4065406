use std::borrow::Cow;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use margay_core::{Interpolation, Preprocess, Resize};

use crate::Photo;

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

/// One axis of a resize followed by a cut.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Axis {
    /// Pixels of the photo.
    source: usize,
    /// Pixels of the whole photo after the resize.
    scaled: usize,
    /// First scaled pixel that is kept.
    start: usize,
    /// Number of scaled pixels that are kept.
    kept: usize,
    /// Where the first kept pixel goes in the output.
    target: usize,
    /// Pixels of the output.
    size: usize,
}

impl Preprocessor {
    /// Prepares for `spec`.
    pub fn new(spec: &Preprocess) -> Self {
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

    /// The photo at the input size, before normalisation; what lies beyond its edges is black.
    pub fn resize<'a>(&self, photo: &'a Photo) -> Cow<'a, Photo> {
        let [height, width] = self.spec.size;
        let [rows, columns] = self.axes(photo);
        if [rows, columns].iter().all(|axis| axis.source == axis.scaled && axis.scaled == axis.size) {
            return Cow::Borrowed(photo);
        }
        let mut pixels = resample(photo, rows, columns, self.filter());
        if [rows.kept, columns.kept] != self.spec.size {
            pixels = paste(&pixels, rows, columns, self.spec.size);
        }
        Cow::Owned(Photo::from_parts(width, height, pixels))
    }

    fn axes(&self, photo: &Photo) -> [Axis; 2] {
        let sides = [photo.height(), photo.width()];
        let scaled = match self.spec.resize {
            Resize::Squash => self.spec.size,
            Resize::ShortSide(short) => {
                let shortest = sides[0].min(sides[1]);
                sides.map(|side| (short.saturating_mul(side) / shortest).max(1))
            }
        };
        [0, 1].map(|i| Axis::new(sides[i], scaled[i], self.spec.size[i]))
    }

    fn filter(&self) -> FilterType {
        match self.spec.interpolation {
            Interpolation::Bilinear => FilterType::Bilinear,
            Interpolation::Bicubic => FilterType::CatmullRom,
        }
    }
}

impl Axis {
    /// Scales `source` pixels to `scaled` and keeps the `size` in the middle, as torchvision's
    /// `center_crop`: an odd rest is rounded to the even offset, and what is too short is padded.
    fn new(source: usize, scaled: usize, size: usize) -> Self {
        if scaled < size {
            return Self { source, scaled, start: 0, kept: scaled, target: (size - scaled) / 2, size };
        }
        let rest = scaled - size;
        let start = rest / 2 + usize::from(rest % 4 == 3);
        Self { source, scaled, start, kept: size, target: 0, size }
    }

    /// Start and length of the kept part in pixels of the photo.
    fn window(self) -> (f64, f64) {
        let at = |pixel: usize| pixel as f64 * self.source as f64 / self.scaled as f64;
        let start = at(self.start);
        (start, at(self.kept).min(self.source as f64 - start))
    }
}

/// Only the kept part is computed, so that a very long photo cannot take the memory of its scaled form.
fn resample(photo: &Photo, rows: Axis, columns: Axis, filter: FilterType) -> Vec<u8> {
    let (pixels, [width, height]) = (PixelType::U8x3, [photo.width() as u32, photo.height() as u32]);
    let source = ImageRef::new(width, height, photo.pixels(), pixels).expect("a photo has all its pixels");
    let mut target = Image::new(columns.kept as u32, rows.kept as u32, pixels);
    let ((top, height), (left, width)) = (rows.window(), columns.window());
    let options =
        ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).crop(left, top, width, height);
    Resizer::new().resize(&source, &mut target, &options).expect("the window lies inside the photo");
    target.into_vec()
}

fn paste(pixels: &[u8], rows: Axis, columns: Axis, [height, width]: [usize; 2]) -> Vec<u8> {
    let mut canvas = vec![0; 3 * height * width];
    for (row, line) in pixels.chunks_exact((3 * columns.kept).max(1)).enumerate() {
        let target = 3 * ((rows.target + row) * width + columns.target);
        canvas[target..target + line.len()].copy_from_slice(line);
    }
    canvas
}

#[cfg(test)]
mod tests;
