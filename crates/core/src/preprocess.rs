use serde::{Deserialize, Serialize};

/// How a photo becomes the input of a model. The same spec serves training, calibration and field use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// Height and width of the model's input in pixels.
    pub size: [usize; 2],
    /// How a photo of another size is brought to `size`.
    pub resize: Resize,
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
    /// The shorter side is scaled to this many pixels, then the centre is cut out.
    ShortSide(usize),
}

/// Resampling filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// Triangle filter, support 1 (Pillow `BILINEAR`).
    Bilinear,
    /// Catmull–Rom-like cubic with a = −0.5, support 2 (Pillow `BICUBIC`).
    Bicubic,
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
}

impl Preprocess {
    /// torchvision's ResNet evaluation: short side × 256/224, centre crop, bilinear, ImageNet constants.
    pub fn torchvision(size: usize) -> Self {
        Self {
            size: [size, size],
            resize: Resize::ShortSide(size * 256 / 224),
            interpolation: Interpolation::Bilinear,
            normalization: Normalization::IMAGENET,
        }
    }

    /// The whole photo scaled to `size` × `size`: images that already have that size stay as they are.
    pub fn squash(size: usize) -> Self {
        Self { resize: Resize::Squash, ..Self::torchvision(size) }
    }
}
