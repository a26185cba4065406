//! Reading geometry from the shapes and facts of a checkpoint.

use margay_core::{Activation, nearest_name};

use super::{Config, ModelError, Shapes};

/// Extents of a tensor that must have `N` axes.
pub(super) fn extents<const N: usize>(shapes: &Shapes, key: &str) -> Result<[usize; N], ModelError> {
    let shape = found(shapes, key)?;
    let fitting = <[usize; N]>::try_from(shape.as_slice()).ok().filter(|axes| !axes.contains(&0));
    fitting.ok_or_else(|| ModelError::Axes { key: key.to_owned(), expected: N, got: shape.clone() })
}

/// Outputs and inputs of a linear layer, which may be stored as a 1 × 1 convolution.
pub(super) fn matrix(shapes: &Shapes, key: &str) -> Result<[usize; 2], ModelError> {
    match found(shapes, key)?.as_slice() {
        [out, inner, 1, 1] if *out > 0 && *inner > 0 => Ok([*out, *inner]),
        _ => extents(shapes, key),
    }
}

/// How many keys there are of a numbered row, such as the blocks of a stage, before the first gap.
pub(super) fn count(shapes: &Shapes, key: impl Fn(usize) -> String) -> usize {
    let mut count = 0;
    while shapes.contains_key(&key(count)) {
        count += 1;
    }
    count
}

/// Refuses networks for anything but colour images.
pub(super) fn check_colours(colours: usize, variant: &str) -> Result<(), ModelError> {
    if colours == 3 {
        return Ok(());
    }
    Err(unsupported(variant, format!("{colours} input channels (RGB needs 3)")))
}

/// The activation that a `config.json` names, or the family's own.
pub(super) fn activation(config: &Config, own: Activation, variant: &str) -> Result<Activation, ModelError> {
    match config.text("hidden_act").or_else(|| config.text("act_layer")) {
        None => Ok(own),
        Some("relu") => Ok(Activation::Relu),
        Some("relu6") => Ok(Activation::Relu6),
        Some("gelu") => Ok(Activation::Gelu),
        Some("silu" | "swish") => Ok(Activation::Silu),
        Some(other) => Err(unsupported(variant, format!("the activation `{other}`"))),
    }
}

pub(super) fn unsupported(variant: &str, what: impl Into<String>) -> ModelError {
    ModelError::Unsupported { variant: variant.to_owned(), what: what.into() }
}

fn found<'a>(shapes: &'a Shapes, key: &str) -> Result<&'a Vec<usize>, ModelError> {
    shapes.get(key).ok_or_else(|| {
        let nearest = nearest_name(key, shapes.keys().map(String::as_str));
        ModelError::MissingKey { key: key.to_owned(), nearest }
    })
}
