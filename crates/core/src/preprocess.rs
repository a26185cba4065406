use std::fmt;

use serde::{Deserialize, Serialize};

/// How a photo becomes the input of a model. The same spec serves training, calibration and field use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// Height and width of the model's input in pixels.
    pub size: [usize; 2],
    /// How a photo of another size is brought to `size`.
    pub resize: Resize,
    /// Where the middle of an odd rest is.
    #[serde(default, skip_serializing_if = "Centre::is_default")]
    pub centre: Centre,
    /// Resampling filter, antialiased as Pillow does.
    pub interpolation: Interpolation,
    /// Per-channel shift and scale after division by 255.
    pub normalization: Normalization,
}

/// How a photo is brought to the model's input size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Resize {
    /// Both sides are scaled to the input size; the aspect ratio is lost, nothing is cut.
    Squash,
    /// Both sides are scaled to this height and width, then the centre is cut out.
    SquashTo([usize; 2]),
    /// The shorter side is scaled to this many pixels, then the centre is cut out.
    ShortSide(usize),
    /// The photo is scaled until it just fits into `sides`, the aspect ratio is kept; it is centred on a
    /// canvas of the input size (letterbox).
    Fit {
        /// Height and width that the photo fills in one direction.
        sides: [usize; 2],
        /// Red, green and blue of the canvas.
        fill: [u8; 3],
    },
}

/// How libraries halve what is cut off around the centre when it is odd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Centre {
    /// To the even neighbour, as Python's `round`: torchvision and timm.
    #[default]
    Even,
    /// Downwards: Hugging Face.
    Floor,
}

impl Centre {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Resampling filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// The pixel whose area holds the centre of the new one (Pillow `NEAREST`).
    Nearest,
    /// Triangle filter, support 1 (Pillow `BILINEAR`).
    Bilinear,
    /// Catmull–Rom-like cubic with a = −0.5, support 2 (Pillow `BICUBIC`).
    Bicubic,
    /// Windowed sinc, support 3 (Pillow `LANCZOS`).
    Lanczos,
}

/// `(value / 255 − mean) / std`, channels in the order red, green, blue.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// Subtracted from each channel.
    pub mean: [f32; 3],
    /// Divides each channel.
    pub std: [f32; 3],
}

impl Normalization {
    /// The constants of torchvision and of timm's ResNets.
    pub const IMAGENET: Self = Self { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
    /// To −1 … 1: Inception, and what Google trained after it.
    pub const INCEPTION: Self = Self::even(0.5, 0.5);
    /// To 0 … 1, nothing else.
    pub const UNIT: Self = Self::even(0.0, 1.0);
    /// The constants of CLIP.
    pub const CLIP: Self = Self {
        mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
        std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
    };

    /// The same constants for every channel.
    pub const fn even(mean: f32, std: f32) -> Self {
        Self { mean: [mean; 3], std: [std; 3] }
    }

    /// Whether deviations are positive and every byte comes out as a number that is no larger than a million.
    pub fn is_usable(&self) -> bool {
        let bounded = |(mean, std): (&f32, &f32)| {
            let ends = [0.0, 1.0].map(|value: f32| (value - mean) / std);
            // Not `>`: a NaN is not bounded.
            std.is_normal() && *std > 0.0 && ends.iter().all(|end| end.abs() <= MAX_INPUT)
        };
        self.mean.iter().zip(&self.std).all(bounded)
    }
}

/// The photo may be enlarged to this many times the input's longest side, so that no file can ask for any
/// memory.
const MAX_ENLARGEMENT: usize = 8;
/// Sides of an input beyond this are no classifier's.
pub const MAX_INPUT_SIDE: usize = 4096;
/// Longest side that a photo is resized to.
pub const MAX_RESIZED_SIDE: usize = 2 * MAX_INPUT_SIDE;
/// Largest value of an input.
const MAX_INPUT: f32 = 1e6;

/// Why photos cannot be prepared.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PreprocessError {
    /// The input is empty or larger than any classifier's.
    #[error("preprocessing makes an input of {} x {} pixels; sides of 1 to {MAX_INPUT_SIDE} are allowed", size[0], size[1])]
    Size {
        /// Height and width of the input.
        size: [usize; 2],
    },
    /// Photos are resized to nothing, or enlarged beyond sense.
    #[error(
        "preprocessing resizes to {} x {} pixels for an input of {} x {} pixels; at most {MAX_ENLARGEMENT} times the \
         longest side of the input and {MAX_RESIZED_SIDE} are allowed", resized[0], resized[1], size[0], size[1]
    )]
    Resize {
        /// Height and width asked for.
        resized: [usize; 2],
        /// Height and width of the input.
        size: [usize; 2],
    },
    /// The input would hold numbers that no network was trained on, or none.
    #[error(
        "preprocessing subtracts {:?} and divides by {:?}; deviations must be above zero and the input within \
         {MAX_INPUT:e}", .0.mean, .0.std
    )]
    Normalization(Normalization),
}

impl Preprocess {
    /// torchvision's ResNet evaluation: short side × 256/224, centre crop, bilinear, ImageNet constants.
    pub fn torchvision(size: usize) -> Self {
        Self {
            size: [size, size],
            resize: Resize::ShortSide(size * 256 / 224),
            centre: Centre::Even,
            interpolation: Interpolation::Bilinear,
            normalization: Normalization::IMAGENET,
        }
    }

    /// The whole photo scaled to `size` × `size`: images that already have that size stay as they are.
    pub fn squash(size: usize) -> Self {
        Self { resize: Resize::Squash, ..Self::torchvision(size) }
    }

    /// Height and width to which a square photo is resized.
    pub fn resized(&self) -> [usize; 2] {
        match self.resize {
            Resize::Squash => self.size,
            Resize::SquashTo(sides) | Resize::Fit { sides, .. } => sides,
            Resize::ShortSide(short) => [short; 2],
        }
    }

    /// Refuses what would take any memory or make no numbers. Whoever prepares photos relies on it.
    pub fn check(&self) -> Result<(), PreprocessError> {
        let size = self.size;
        if !size.iter().all(|side| (1..=MAX_INPUT_SIDE).contains(side)) {
            return Err(PreprocessError::Size { size });
        }
        let most = MAX_RESIZED_SIDE.min(MAX_ENLARGEMENT * size[0].max(size[1]));
        let resized = self.resized();
        if !resized.iter().all(|side| (1..=most).contains(side)) {
            return Err(PreprocessError::Resize { resized, size });
        }
        let normalization = self.normalization;
        if normalization.is_usable() { Ok(()) } else { Err(PreprocessError::Normalization(normalization)) }
    }

    /// The same for an input of another height and width: what is cut off stays the same share.
    #[must_use]
    pub fn at(&self, size: [usize; 2]) -> Self {
        let scaled = |pixels: usize, axis: usize| scaled(pixels, size[axis], self.size[axis]);
        let both = |sides: [usize; 2]| [scaled(sides[0], 0), scaled(sides[1], 1)];
        let resize = match self.resize {
            Resize::Squash => Resize::Squash,
            Resize::SquashTo(sides) => Resize::SquashTo(both(sides)),
            Resize::ShortSide(short) => {
                let axis = usize::from(size[1] < size[0]);
                Resize::ShortSide(scaled(short, axis))
            }
            Resize::Fit { sides, fill } => Resize::Fit { sides: both(sides), fill },
        };
        Self { size, resize, ..self.clone() }
    }
}

/// `pixels · to / from`, rounded down.
fn scaled(pixels: usize, to: usize, from: usize) -> usize {
    (pixels.saturating_mul(to) / from.max(1)).max(1)
}

impl fmt::Display for Preprocess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [height, width] = self.size;
        match self.resize {
            Resize::Squash => write!(f, "squash to {height} x {width}")?,
            Resize::SquashTo([h, w]) => write!(f, "squash to {h} x {w}, centre {height} x {width}")?,
            Resize::ShortSide(short) => write!(f, "short side {short}, centre {height} x {width}")?,
            Resize::Fit { sides: [h, w], .. } if [h, w] == self.size => write!(f, "fit into {h} x {w}")?,
            Resize::Fit { sides: [h, w], .. } => {
                write!(f, "fit into {h} x {w}, centre {height} x {width}")?;
            }
        }
        write!(f, ", {}, {}", self.interpolation, self.normalization)
    }
}

impl fmt::Display for Interpolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nearest => "nearest",
            Self::Bilinear => "bilinear",
            Self::Bicubic => "bicubic",
            Self::Lanczos => "lanczos",
        })
    }
}

impl fmt::Display for Normalization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |values: [f32; 3]| match values {
            [a, b, c] if a == b && b == c => format!("{a:.3}"),
            all => all.map(|v| format!("{v:.3}")).join(" "),
        };
        write!(f, "mean {}, std {}", list(self.mean), list(self.std))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_take_any_memory_or_make_no_number_is_refused() {
        let spec = |resize| Preprocess { resize, ..Preprocess::squash(8) };
        for side in [0, 65, 100_000, usize::MAX] {
            let fit = Resize::Fit { sides: [side, 8], fill: [0; 3] };
            for resize in [Resize::ShortSide(side), Resize::SquashTo([8, side]), fit] {
                let error = spec(resize).check().unwrap_err();
                assert!(error.to_string().contains("for an input of 8 x 8 pixels"), "{error}");
            }
        }
        assert_eq!(spec(Resize::SquashTo([64, 64])).check(), Ok(()));
        for side in [0, 4097, usize::MAX] {
            let size = Preprocess { size: [8, side], ..Preprocess::squash(8) };
            assert!(matches!(size.check(), Err(PreprocessError::Size { .. })));
        }
        let large = Preprocess { resize: Resize::ShortSide(8193), ..Preprocess::squash(4096) };
        assert!(matches!(large.check(), Err(PreprocessError::Resize { .. })));
        for (mean, std) in [
            (0.5, 0.0),
            (0.5, -0.5),
            (0.5, 1e-45),
            (0.5, 1e-30),
            (0.5, f32::INFINITY),
            (0.5, f32::NAN),
            (3e38, 0.5),
            (f32::NAN, 0.5),
            (f32::NEG_INFINITY, 0.5),
        ] {
            let spec = Preprocess { normalization: Normalization::even(mean, std), ..Preprocess::squash(8) };
            assert!(matches!(spec.check(), Err(PreprocessError::Normalization(_))), "{mean} {std}");
        }
        // Bytes as they are, as networks of Caffe take them.
        assert!(Normalization::even(123.0 / 255.0, 1.0 / 255.0).is_usable());
    }

    #[test]
    fn another_size_cuts_off_the_same_share() {
        let table = [
            (Resize::Squash, Resize::Squash),
            (Resize::SquashTo([256, 256]), Resize::SquashTo([438, 438])),
            (Resize::ShortSide(248), Resize::ShortSide(425)),
            (
                Resize::Fit { sides: [224, 224], fill: [1, 2, 3] },
                Resize::Fit { sides: [384, 384], fill: [1, 2, 3] },
            ),
        ];
        for (resize, expected) in table {
            let spec = Preprocess { resize, ..Preprocess::torchvision(224) };
            assert_eq!(spec.at([224, 224]), spec);
            assert_eq!(spec.at([384, 384]).resize, expected);
        }
    }

    #[test]
    fn specs_read_back_and_old_files_still_read() {
        let fit = Resize::Fit { sides: [256, 256], fill: [124, 116, 104] };
        for resize in [Resize::Squash, Resize::SquashTo([256, 256]), Resize::ShortSide(256), fit] {
            for centre in [Centre::Even, Centre::Floor] {
                let spec = Preprocess { resize, centre, ..Preprocess::squash(224) };
                let text = serde_json::to_string(&spec).unwrap();
                assert_eq!(serde_json::from_str::<Preprocess>(&text).unwrap(), spec);
                assert_eq!(text.contains("centre"), centre == Centre::Floor);
            }
        }
    }

    #[test]
    fn a_spec_says_what_it_does() {
        let text = Preprocess::torchvision(224).to_string();
        let expected =
            "short side 256, centre 224 x 224, bilinear, mean 0.485 0.456 0.406, std 0.229 0.224 0.225";
        assert_eq!(text, expected);
        let unit = Preprocess { normalization: Normalization::UNIT, ..Preprocess::squash(64) };
        assert_eq!(unit.to_string(), "squash to 64 x 64, bilinear, mean 0.000, std 1.000");
    }
}
