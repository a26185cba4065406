//! timm's `pretrained_cfg`: `input_size`, `crop_pct`, `crop_mode`, `interpolation`, `mean`, `std`.

use margay_core::{Centre, Interpolation, Normalization, Preprocess, Resize};
use serde_json::Value;

use super::{channels, side};

/// The share that is kept where a config names none.
const CROP_PCT: f64 = 0.875;

/// timm's evaluation transform for a config; absent where there is none in it or it is not supported.
pub fn read(config: &Value) -> Option<Preprocess> {
    let [_, height, width] = config.get("input_size")?.as_array()?.as_slice() else { return None };
    let size = [side(height)?, side(width)?];
    let constants = |key: &str, usual: [f32; 3]| match config.get(key) {
        Some(value) => channels(value).map(|values| values.map(|v| v as f32)),
        None => Some(usual),
    };
    let usual = Normalization::IMAGENET;
    let normalization =
        Normalization { mean: constants("mean", usual.mean)?, std: constants("std", usual.std)? };
    let share = config.get("crop_pct").and_then(Value::as_f64).filter(|pct| *pct > 0.0).unwrap_or(CROP_PCT);
    let sides = size.map(|side| (side as f64 / share).floor() as usize);
    let text = |key: &str| config.get(key).and_then(Value::as_str);
    let resize = match text("crop_mode") {
        Some("squash") if sides == size => Resize::Squash,
        Some("squash") => Resize::SquashTo(sides),
        Some("border") => {
            let fill = normalization.mean.map(|mean| (255.0 * f64::from(mean)).round_ties_even() as u8);
            Resize::Fit { sides, fill }
        }
        // Other shapes are scaled by the side that fits best, which nothing here does.
        Some("center") | None if size[0] == size[1] => Resize::ShortSide(sides[0]),
        _ => return None,
    };
    let interpolation = match text("interpolation") {
        Some("nearest") => Interpolation::Nearest,
        Some("bilinear") => Interpolation::Bilinear,
        Some("bicubic" | "random") | None => Interpolation::Bicubic,
        Some("lanczos") => Interpolation::Lanczos,
        Some(_) => return None,
    };
    Some(Preprocess { size, resize, centre: Centre::Even, interpolation, normalization })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn configs_of_the_hub() {
        let table = [
            (
                json!({"input_size": [3, 224, 224], "crop_pct": 0.9, "interpolation": "bicubic",
                       "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "crop_mode": "center"}),
                Resize::ShortSide(248),
                Interpolation::Bicubic,
                Normalization::INCEPTION,
            ),
            (
                json!({"input_size": [3, 224, 224], "crop_pct": 0.95, "interpolation": "bilinear"}),
                Resize::ShortSide(235),
                Interpolation::Bilinear,
                Normalization::IMAGENET,
            ),
            (
                json!({"input_size": [3, 384, 384], "crop_pct": 1.0, "crop_mode": "squash"}),
                Resize::Squash,
                Interpolation::Bicubic,
                Normalization::IMAGENET,
            ),
            (
                json!({"input_size": [3, 224, 224], "crop_pct": 0.875, "crop_mode": "squash"}),
                Resize::SquashTo([256, 256]),
                Interpolation::Bicubic,
                Normalization::IMAGENET,
            ),
            (
                json!({"input_size": [3, 224, 224], "crop_pct": 1.0, "crop_mode": "border"}),
                Resize::Fit { sides: [224, 224], fill: [124, 116, 104] },
                Interpolation::Bicubic,
                Normalization::IMAGENET,
            ),
        ];
        for (config, resize, interpolation, normalization) in table {
            let spec = read(&config).unwrap();
            assert_eq!((spec.resize, spec.interpolation), (resize, interpolation), "{config}");
            assert_eq!((spec.normalization, spec.centre), (normalization, Centre::Even), "{config}");
        }
    }

    #[test]
    fn configs_that_say_nothing_usable() {
        for config in [
            json!({}),
            json!({"input_size": [3, 224]}),
            json!({"input_size": [3, 224, 224], "mean": "grey"}),
            json!({"input_size": [3, 224, 224], "interpolation": "hamming"}),
            json!({"input_size": [3, 192, 256], "crop_mode": "center"}),
            json!({"input_size": [3, 0, 224], "crop_mode": "squash"}),
        ] {
            assert_eq!(read(&config), None, "{config}");
        }
        assert_eq!(super::super::from_timm(&json!({"input_size": [3, 8, 8], "crop_pct": 0.001})), None);
    }
}
