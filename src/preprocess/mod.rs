//! How photos were prepared when a checkpoint was trained: what config files say, named presets, and
//! what a run makes of both.
//!
//! [`resolve`] decides: what the user names, else what the checkpoint's files say, else an assumption that is
//! warned about.

mod huggingface;
mod presets;
mod resolve;
mod timm;

use margay_core::{MAX_INPUT_SIDE, Preprocess};
use serde_json::Value;

pub use presets::{PRESETS, Preset, find};
pub use resolve::{Known, Origin, Resolved, UnknownPreset, resolve};

/// What margay wrote into the metadata of a checkpoint.
pub fn from_margay(value: &Value) -> Option<Preprocess> {
    serde_json::from_value(value.clone()).ok().filter(is_sensible)
}

/// What a `preprocessor_config.json` of Hugging Face says.
pub fn from_hugging_face(config: &Value) -> Option<Preprocess> {
    huggingface::read(config).filter(is_sensible)
}

/// What the `pretrained_cfg` of timm says.
pub fn from_timm(config: &Value) -> Option<Preprocess> {
    timm::read(config).filter(is_sensible)
}

fn is_sensible(spec: &Preprocess) -> bool {
    spec.check().is_ok()
}

/// Three numbers, or one for all channels.
fn channels(value: &Value) -> Option<[f64; 3]> {
    match value {
        Value::Array(items) => {
            let numbers: Vec<f64> = items.iter().map(Value::as_f64).collect::<Option<_>>()?;
            match numbers[..] {
                [all] => Some([all; 3]),
                _ => numbers.try_into().ok(),
            }
        }
        other => other.as_f64().map(|all| [all; 3]),
    }
}

/// A side in pixels.
fn side(value: &Value) -> Option<usize> {
    value
        .as_u64()
        .and_then(|side| usize::try_from(side).ok())
        .filter(|side| (1..=MAX_INPUT_SIDE).contains(side))
}
