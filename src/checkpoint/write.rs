use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use margay_core::{Graph, Params, Preprocess};
use ndarray::ArrayD;
use safetensors::tensor::{Dtype, SafeTensorError, View};

use super::CheckpointError;
use crate::models::{NameMap, Part};

/// Writes every parameter of `graph` densely as f32 under the checkpoint's own keys.
///
/// Zeros are written like any number. Class names and preprocessing go into the metadata as a JSON
/// object under `margay`. Strict loading into torchvision and timm works: they fill `num_batches_tracked`, which
/// files without version metadata lack. The file appears at `path` complete or not at all.
pub fn write_safetensors(
    path: impl AsRef<Path>,
    graph: &Graph,
    params: &Params,
    names: &NameMap,
    labels: &[String],
    preprocess: Option<&Preprocess>,
) -> Result<(), CheckpointError> {
    let path = path.as_ref();
    let bytes = to_safetensors(path, graph, params, names, labels, preprocess)?;
    Ok(margay_core::output::write(path, bytes)?)
}

/// The bytes that [`write_safetensors`] writes; errors name `path`.
pub fn to_safetensors(
    path: &Path,
    graph: &Graph,
    params: &Params,
    names: &NameMap,
    labels: &[String],
    preprocess: Option<&Preprocess>,
) -> Result<Vec<u8>, CheckpointError> {
    let fail = |source| CheckpointError::Params { path: path.to_owned(), source };
    params.check(graph).map_err(fail)?;
    let tensors = params.iter().flat_map(|(name, value)| tensors(names, name, value));
    // One entry only: the library writes metadata in hash order.
    let mut facts = serde_json::Map::new();
    if !labels.is_empty() {
        facts.insert("labels".to_owned(), labels.into());
    }
    if let Some(spec) = preprocess.and_then(|spec| serde_json::to_value(spec).ok()) {
        facts.insert("preprocess".to_owned(), spec);
    }
    let facts = HashMap::from([("margay".to_owned(), serde_json::Value::from(facts).to_string())]);
    let facts = Some(facts);
    safetensors::serialize(tensors, facts).map_err(|e| unwritten(path, e))
}

fn unwritten(path: &Path, error: SafeTensorError) -> CheckpointError {
    match error {
        SafeTensorError::IoError(e) => e.into(),
        other => CheckpointError::Format { path: path.to_owned(), reason: other.to_string() },
    }
}

/// The tensors under which a checkpoint keeps one parameter, by key.
fn tensors<'a>(names: &NameMap, name: &str, value: &'a ArrayD<f32>) -> Vec<(String, Tensor<'a>)> {
    let values = value.as_slice().map_or_else(|| value.iter().copied().collect(), Cow::Borrowed);
    let mut start = 0;
    let cut = |Part { key, shape }: Part| {
        let end = start + shape.iter().product::<usize>();
        let values = match &values {
            Cow::Borrowed(all) => Cow::Borrowed(&all[start..end]),
            Cow::Owned(all) => Cow::Owned(all[start..end].to_vec()),
        };
        start = end;
        (key, Tensor { shape, values })
    };
    names.parts(name, value.shape()).into_iter().map(cut).collect()
}

struct Tensor<'a> {
    shape: Vec<usize>,
    values: Cow<'a, [f32]>,
}

impl View for Tensor<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into()
    }

    fn data_len(&self) -> usize {
        self.values.len() * size_of::<f32>()
    }
}
