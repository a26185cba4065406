//! Hugging Face's `preprocessor_config.json`, of image processors and of the feature extractors before them.

use margay_core::{Centre, Interpolation, Normalization, Preprocess, Resize};
use serde_json::Value;

use super::{channels, side};

/// What an image processor does where its file is silent.
struct Family {
    /// Start of the class name, without `ImageProcessor` or `FeatureExtractor`.
    name: &'static str,
    /// What `size` is.
    size: Size,
    /// Side of the centre that is cut out.
    crop: Option<usize>,
    /// Number of Pillow's filter.
    resample: u64,
    /// Mean and deviation.
    normalization: Normalization,
}

/// How a photo is resized.
#[derive(Clone, Copy)]
enum Size {
    /// Both sides to these.
    Both([usize; 2]),
    /// The shorter side to this.
    Short(usize),
}

/// The classes that read differently; the last serves for all others.
const FAMILIES: [Family; 5] = [
    family("ConvNext", Size::Short(384), None, 3, Normalization::INCEPTION),
    family("DeiT", Size::Both([256, 256]), Some(224), 3, Normalization::INCEPTION),
    family("CLIP", Size::Short(224), Some(224), 3, Normalization::CLIP),
    family("Bit", Size::Short(224), Some(224), 3, Normalization::CLIP),
    family("", Size::Both([224, 224]), None, 2, Normalization::INCEPTION),
];

/// ConvNeXt's processor cuts below this side only.
const CONVNEXT_SQUASHES_FROM: usize = 384;

const fn family(
    name: &'static str,
    size: Size,
    crop: Option<usize>,
    resample: u64,
    normalization: Normalization,
) -> Family {
    Family { name, size, crop, resample, normalization }
}

/// The processor's transform; absent where it is not supported.
pub fn read(config: &Value) -> Option<Preprocess> {
    let class = ["image_processor_type", "feature_extractor_type"];
    let class = class.iter().find_map(|key| config.get(*key)?.as_str()).unwrap_or_default();
    let marks = ["image_mean", "size", "crop_size"];
    if class.starts_with("TimmWrapper")
        || class.is_empty() && !marks.iter().any(|key| config.get(*key).is_some())
    {
        return None;
    }
    let family = FAMILIES.iter().find(|family| class.starts_with(family.name))?;
    let flag = |key: &str, usual: bool| config.get(key).and_then(Value::as_bool).unwrap_or(usual);
    if !flag("do_resize", true) {
        return None;
    }
    let size = match config.get("size") {
        Some(value) => resized(value, family.size)?,
        None => family.size,
    };
    let crop = match config.get("crop_size") {
        _ if !flag("do_center_crop", family.crop.is_some()) => None,
        Some(value) => Some(extent(value)?),
        None => family.crop.map(|side| [side; 2]),
    };
    let (size, resize) = match (family.name, size) {
        ("ConvNext", Size::Short(side)) => convnext(side, config),
        (_, size) => geometry(size, crop),
    };
    let interpolation = match config.get("resample").and_then(Value::as_u64).unwrap_or(family.resample) {
        0 => Interpolation::Nearest,
        1 => Interpolation::Lanczos,
        2 => Interpolation::Bilinear,
        3 => Interpolation::Bicubic,
        _ => return None,
    };
    let normalization = normalization(config, family.normalization)?;
    Some(Preprocess { size, resize, centre: Centre::Floor, interpolation, normalization })
}

/// A number, `{height, width}` or `{shortest_edge}`.
fn resized(value: &Value, usual: Size) -> Option<Size> {
    if let Some(both) = extent(value).filter(|_| !value.is_number() || matches!(usual, Size::Both(_))) {
        return Some(Size::Both(both));
    }
    let short = if value.is_number() { value } else { value.get("shortest_edge")? };
    (value.get("longest_edge").is_none()).then_some(Size::Short(side(short)?))
}

/// A number or `{height, width}`.
fn extent(value: &Value) -> Option<[usize; 2]> {
    if value.is_number() {
        return side(value).map(|side| [side; 2]);
    }
    Some([side(value.get("height")?)?, side(value.get("width")?)?])
}

fn geometry(size: Size, crop: Option<[usize; 2]>) -> ([usize; 2], Resize) {
    match (size, crop) {
        (Size::Both(sides), Some(crop)) if crop != sides => (crop, Resize::SquashTo(sides)),
        (Size::Both(sides), _) => (sides, Resize::Squash),
        (Size::Short(short), crop) => (crop.unwrap_or([short; 2]), Resize::ShortSide(short)),
    }
}

/// Below 384 pixels the short side is `side / crop_pct` and the centre is cut out, else both sides are
/// scaled.
fn convnext(side: usize, config: &Value) -> ([usize; 2], Resize) {
    let share = config.get("crop_pct").and_then(Value::as_f64).filter(|pct| *pct > 0.0);
    let short = (side as f64 / share.unwrap_or(224.0 / 256.0)) as usize;
    let resize = if side < CONVNEXT_SQUASHES_FROM { Resize::ShortSide(short) } else { Resize::Squash };
    ([side; 2], resize)
}

/// `(byte · factor − mean) / std`, said in terms of `byte / 255`.
fn normalization(config: &Value, usual: Normalization) -> Option<Normalization> {
    let flag = |key: &str| config.get(key).and_then(Value::as_bool);
    let constants = |key: &str, usual: [f32; 3]| match config.get(key) {
        Some(value) => channels(value),
        None => Some(usual.map(f64::from)),
    };
    let (mean, std) = match flag("do_normalize") {
        Some(false) => ([0.0; 3], [1.0; 3]),
        _ => (constants("image_mean", usual.mean)?, constants("image_std", usual.std)?),
    };
    let factor = match flag("do_rescale") {
        Some(false) => 255.0,
        _ => config.get("rescale_factor").and_then(Value::as_f64).map_or(1.0, |factor| 255.0 * factor),
    };
    let offset = if flag("rescale_offset") == Some(true) { 1.0 } else { 0.0 };
    Some(Normalization {
        mean: mean.map(|m| ((m + offset) / factor) as f32),
        std: std.map(|s| (s / factor) as f32),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(size: usize, resize: Resize, interpolation: Interpolation) -> Preprocess {
        let normalization = Normalization::IMAGENET;
        Preprocess { size: [size; 2], resize, centre: Centre::Floor, interpolation, normalization }
    }

    #[test]
    fn files_of_the_hub() {
        let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
        let table = [
            (
                json!({"do_normalize": true, "do_resize": true, "feature_extractor_type": "ViTFeatureExtractor",
                       "image_mean": mean, "image_std": std, "resample": 2, "size": 224}),
                spec(224, Resize::Squash, Interpolation::Bilinear),
            ),
            (
                json!({"image_processor_type": "ViTImageProcessorFast", "image_mean": mean, "image_std": std,
                       "resample": 2, "rescale_factor": 0.003_921_568_627_450_98,
                       "size": {"height": 384, "width": 384}}),
                spec(384, Resize::Squash, Interpolation::Bilinear),
            ),
            (
                json!({"crop_size": 224, "do_center_crop": true, "feature_extractor_type": "DeiTFeatureExtractor",
                       "image_mean": mean, "image_std": std, "resample": 3, "size": 256}),
                spec(224, Resize::SquashTo([256, 256]), Interpolation::Bicubic),
            ),
            (
                json!({"crop_size": 224, "do_center_crop": false, "feature_extractor_type": "DeiTFeatureExtractor",
                       "image_mean": mean, "image_std": std, "size": 224}),
                spec(224, Resize::Squash, Interpolation::Bicubic),
            ),
            (
                json!({"crop_pct": 0.875, "feature_extractor_type": "ConvNextFeatureExtractor",
                       "image_mean": mean, "image_std": std, "resample": 3, "size": 224}),
                spec(224, Resize::ShortSide(256), Interpolation::Bicubic),
            ),
            (
                json!({"crop_pct": null, "image_processor_type": "ConvNextImageProcessor",
                       "image_mean": mean, "image_std": std, "resample": 3, "size": {"shortest_edge": 384}}),
                spec(384, Resize::Squash, Interpolation::Bicubic),
            ),
            (
                json!({"crop_size": {"height": 224, "width": 224}, "image_processor_type": "BitImageProcessor",
                       "image_mean": mean, "image_std": std, "resample": 3, "size": {"shortest_edge": 256}}),
                spec(224, Resize::ShortSide(256), Interpolation::Bicubic),
            ),
        ];
        for (config, expected) in table {
            assert_eq!(read(&config).unwrap(), expected, "{config}");
        }
        let clip = read(&json!({"feature_extractor_type": "CLIPFeatureExtractor", "size": 224})).unwrap();
        assert_eq!((clip.resize, clip.normalization), (Resize::ShortSide(224), Normalization::CLIP));
    }

    #[test]
    fn constants_are_those_of_values_between_0_and_1() {
        let read = |config: Value| read(&config).unwrap().normalization;
        let half = Normalization::INCEPTION;
        assert_eq!(read(json!({"size": 8, "do_normalize": false})), Normalization::UNIT);
        assert_eq!(
            read(json!({"size": 8, "do_rescale": false, "image_mean": 127.5, "image_std": 127.5})),
            half
        );
        let offset =
            json!({"size": 8, "do_normalize": false, "rescale_factor": 2.0 / 255.0, "rescale_offset": true});
        assert_eq!(read(offset), half);
    }

    #[test]
    fn files_that_say_nothing_usable() {
        for config in [
            json!({}),
            json!({"image_processor_type": "TimmWrapperImageProcessor", "size": 224}),
            json!({"image_processor_type": "ViTImageProcessor", "do_resize": false}),
            json!({"image_processor_type": "ViTImageProcessor", "resample": 4}),
            json!({"image_processor_type": "ViTImageProcessor", "image_mean": [0.5, 0.5]}),
            json!({"image_processor_type": "ViTImageProcessor", "size": {"shortest_edge": 8, "longest_edge": 9}}),
            json!({"image_processor_type": "ViTImageProcessor", "size": {"height": 100_000, "width": 1}}),
        ] {
            assert_eq!(read(&config), None, "{config}");
        }
    }
}
