//! Photos as tensors, and what is wrong with some of them.

use std::path::Path;

use margay_runtime::{Note, PhotoError};
use tch::{Device, Tensor};

use super::PipelineError;
use crate::data::{Dataset, Loaded};
use crate::distill::Examples;
use crate::names;
use crate::record::{BadPhoto, NotedPhoto};
use crate::torch::TorchError;

/// Decoded images on the training device.
pub fn examples(loaded: &Loaded, device: Device) -> Result<Examples, PipelineError> {
    let shape: Vec<i64> = loaded.images.shape().iter().map(|n| *n as i64).collect();
    let flat = loaded.images.as_slice().expect("images are loaded row by row");
    let classes: Vec<i64> = loaded.classes.iter().map(|c| *c as i64).collect();
    let tensors = || -> Result<Examples, tch::TchError> {
        let images = Tensor::f_from_slice(flat)?.f_reshape(shape.as_slice())?.f_to_device(device)?;
        Ok(Examples::new(images, Tensor::f_from_slice(&classes)?.f_to_device(device)?))
    };
    Ok(tensors().map_err(TorchError::from)?)
}

/// A photo that cannot be used.
pub fn bad_photo(dataset: &Dataset, path: &Path, error: &PhotoError) -> BadPhoto {
    BadPhoto { path: relative(dataset, path), reason: error.to_string() }
}

/// A photo that is used although something is wrong with it.
pub fn noted_photo(dataset: &Dataset, path: &Path, note: Note) -> NotedPhoto {
    NotedPhoto { path: relative(dataset, path), note: note.to_string() }
}

/// Path inside the dataset, with forward slashes.
pub fn relative(dataset: &Dataset, path: &Path) -> String {
    names::path(path.strip_prefix(&dataset.root).unwrap_or(path))
}
