use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write;
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
    let bytes = safetensors::serialize(tensors, facts).map_err(|e| unwritten(path, e))?;
    Ok(write_atomically(path, &bytes)?)
}

fn unwritten(path: &Path, error: SafeTensorError) -> CheckpointError {
    match error {
        SafeTensorError::IoError(e) => e.into(),
        other => CheckpointError::Format { path: path.to_owned(), reason: other.to_string() },
    }
}

/// Writes a temporary sibling, then renames it.
fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let named = |e: std::io::Error| std::io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".margay-").tempfile_in(folder).map_err(named)?;
    file.write_all(bytes).map_err(named)?;
    file.as_file().sync_all().map_err(named)?;
    readable(file.as_file()).map_err(named)?;
    file.persist(path).map_err(|e| named(e.error))?;
    Ok(())
}

/// Temporary files are private; results are not.
#[cfg(unix)]
fn readable(file: &std::fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn readable(_file: &std::fs::File) -> std::io::Result<()> {
    Ok(())
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
