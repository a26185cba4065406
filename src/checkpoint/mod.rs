//! Reading and writing checkpoints: safetensors and PyTorch files, without executing anything.
//!
//! [`load_model`] takes a file to a checked [`Pretrained`] network; [`write_safetensors`] writes weights
//! back under the checkpoint's own keys.

mod container;
mod error;
mod labels;
mod tensor;
#[cfg(test)]
mod tests;
mod unwrap;
mod write;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use margay_core::{Graph, Params, ParamsError, Preprocess};
use ndarray::ArrayD;
use serde_json::Value;
use sha2::{Digest, Sha256};

pub use error::CheckpointError;
pub use tensor::Dtype;
pub use write::write_safetensors;

use crate::models::{self, Config, Detected, ModelError, NameMap, Part, Shapes};
use container::{Container, Stored};

/// Sides beyond this are no sensible input of a classifier.
const MAX_SIDE: usize = 4096;

/// An opened checkpoint: names, shapes and types are known, values are read when asked for.
pub struct Checkpoint {
    path: PathBuf,
    container: Container,
    tensors: BTreeMap<String, Stored>,
    prefix: String,
    shapes: Shapes,
}

/// A pretrained network that is complete, well-shaped and finite.
#[derive(Clone, Debug)]
pub struct Pretrained {
    /// What it computes.
    pub graph: Graph,
    /// Its weights and statistics by canonical name.
    pub params: Params,
    /// The checkpoint's own keys.
    pub names: NameMap,
    /// The library that names parameters so.
    pub library: &'static str,
    /// Class names stored in the file, one per output of the classifier.
    pub labels: Option<Vec<String>>,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// How its weights are stored; the widest type where they differ.
    pub dtype: Dtype,
}

impl Checkpoint {
    /// Opens a `.safetensors` file or any container of `torch.save`; the content decides, not the name.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        let path = path.as_ref().to_owned();
        let mut container = Container::open(&path)?;
        let all = std::mem::take(&mut container.tensors);
        let (mut tensors, prefix) =
            unwrap::unwrap(all, &container.facts, |tensors| models::is_recognised(&shapes(tensors)));
        // Counters such as the number of steps are no weights.
        tensors.retain(|_, t| !(t.shape.is_empty() && matches!(t.dtype, Dtype::Other(_))));
        if tensors.is_empty() {
            return Err(CheckpointError::Empty { path });
        }
        let shapes = shapes(&tensors);
        Ok(Self { path, container, tensors, prefix, shapes })
    }

    /// Shape of every tensor by its key without wrapping prefixes.
    pub fn shapes(&self) -> &Shapes {
        &self.shapes
    }

    /// What training scripts put around the keys, such as `state_dict.module.`.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Facts stored beside the tensors: safetensors metadata or entries of the top-level dictionary.
    pub fn facts(&self) -> &BTreeMap<String, Value> {
        &self.container.facts
    }

    /// The preprocessing that margay stored beside the weights.
    pub fn preprocess(&self) -> Option<Preprocess> {
        let stored = self.facts().get("margay")?.get("preprocess")?;
        let spec: Preprocess = serde_json::from_value(stored.clone()).ok()?;
        spec.size.iter().all(|side| (1..=MAX_SIDE).contains(side)).then_some(spec)
    }

    /// Values of one tensor as f32.
    pub fn read(&self, key: &str) -> Result<ArrayD<f32>, CheckpointError> {
        let Some(stored) = self.tensors.get(key) else {
            let nearest = margay_core::nearest_name(key, self.tensors.keys().map(String::as_str));
            return Err(self.params_error(ParamsError::Missing { name: key.to_owned(), nearest }));
        };
        let values = self.container.read(&self.path, &self.key(key), stored)?;
        let count = values.len();
        ArrayD::from_shape_vec(stored.shape.clone(), values).map_err(|_| CheckpointError::Damaged {
            path: self.path.clone(),
            reason: format!("`{}` has shape {:?} and {count} values", self.key(key), stored.shape),
        })
    }

    /// The architecture, as far as names, shapes and stored facts tell it.
    pub fn detect(&self, image: [usize; 2]) -> Result<Detected, CheckpointError> {
        let config = Config::from(self.facts().clone());
        models::detect(&self.shapes, &config, image).map_err(|source| self.model_error(source))
    }

    /// Height and width of the images whose positions the network has learned, if it has learned any.
    pub fn native_size(&self) -> Option<[usize; 2]> {
        self.detect([224, 224]).ok().and_then(|detected| models::native_size(&detected.graph))
    }

    /// Recognises the architecture and reads every weight; positions are resampled to the image.
    pub fn into_model(self, image: [usize; 2]) -> Result<Pretrained, CheckpointError> {
        let Detected { graph, names, library } = self.detect(image)?;
        self.check_shapes(&graph, &names)?;
        let mut params = Params::new();
        for spec in graph.params() {
            params.insert(spec.name.clone(), self.joined(&names.parts(&spec.name, &spec.shape), spec.shape)?);
        }
        params.check(&graph).map_err(|e| self.params_error(renamed(e, |name| names.key(name).to_owned())))?;
        self.check_variances(&params, &names)?;
        let labels = labels::stored(self.facts());
        if let Some(got) = labels.as_ref().map(Vec::len).filter(|n| *n != graph.classes()) {
            return Err(CheckpointError::Labels { path: self.path, classes: graph.classes(), got });
        }
        let dtype = self.dtype();
        let graph = models::resize(graph, &mut params, image).map_err(|source| self.model_error(source))?;
        Ok(Pretrained { graph, params, names, library, labels, sha256: file_sha256(&self.path)?, dtype })
    }

    /// The tensors of one parameter, one behind the other along the first axis.
    fn joined(&self, parts: &[Part], shape: Vec<usize>) -> Result<ArrayD<f32>, CheckpointError> {
        let mut values = Vec::with_capacity(shape.iter().product());
        for part in parts {
            values.extend(self.read(&part.key)?);
        }
        let got = vec![values.len()];
        ArrayD::from_shape_vec(shape.clone(), values).map_err(|_| {
            let name = parts.first().map_or_else(String::new, |part| part.key.clone());
            self.params_error(ParamsError::Shape { name, expected: shape, got })
        })
    }

    /// Names and shapes are checked before any value is read.
    fn check_shapes(&self, graph: &Graph, names: &NameMap) -> Result<(), CheckpointError> {
        let parts = graph.params().flat_map(|spec| names.parts(&spec.name, &spec.shape));
        let wanted: Shapes = parts.map(|part| (part.key, part.shape)).collect();
        let fail = |error| Err(self.params_error(error));
        for (key, expected) in &wanted {
            match self.shapes.get(key) {
                None => {
                    let unused = self.shapes.keys().filter(|k| !wanted.contains_key(*k));
                    let nearest = margay_core::nearest_name(key, unused.map(String::as_str));
                    return fail(ParamsError::Missing { name: key.clone(), nearest });
                }
                Some(got) if got != expected => {
                    let (expected, got) = (expected.clone(), got.clone());
                    return fail(ParamsError::Shape { name: key.clone(), expected, got });
                }
                Some(_) => {}
            }
        }
        match self.shapes.keys().find(|key| !wanted.contains_key(*key) && !names.leaves_out(key)) {
            Some(key) => {
                let nearest = margay_core::nearest_name(key, wanted.keys().map(String::as_str));
                fail(ParamsError::Extra { name: key.clone(), nearest })
            }
            None => Ok(()),
        }
    }

    fn model_error(&self, source: ModelError) -> CheckpointError {
        CheckpointError::Model { path: self.path.clone(), source }
    }

    fn check_variances(&self, params: &Params, names: &NameMap) -> Result<(), CheckpointError> {
        let negative = |(name, value): &(&str, &ArrayD<f32>)| {
            name.ends_with(".running_var") && value.iter().any(|v| *v < 0.0)
        };
        match params.iter().find(negative) {
            Some((name, _)) => {
                Err(CheckpointError::Variance { path: self.path.clone(), key: self.key(names.key(name)) })
            }
            None => Ok(()),
        }
    }

    fn dtype(&self) -> Dtype {
        let rank = |dtype: &Dtype| match dtype {
            Dtype::F64 => 3,
            Dtype::F32 => 2,
            Dtype::Bf16 => 1,
            Dtype::F16 | Dtype::Other(_) => 0,
        };
        self.tensors.values().map(|t| t.dtype).max_by_key(rank).unwrap_or(Dtype::F32)
    }

    /// The key as it stands in the file.
    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn params_error(&self, error: ParamsError) -> CheckpointError {
        CheckpointError::Params { path: self.path.clone(), source: renamed(error, |name| self.key(name)) }
    }
}

/// Opens a checkpoint and reads it as a network for images of this height and width.
pub fn load_model(path: impl AsRef<Path>, image: [usize; 2]) -> Result<Pretrained, CheckpointError> {
    Checkpoint::open(path)?.into_model(image)
}

fn shapes(tensors: &BTreeMap<String, Stored>) -> Shapes {
    tensors.iter().map(|(key, tensor)| (key.clone(), tensor.shape.clone())).collect()
}

fn renamed(error: ParamsError, rename: impl Fn(&str) -> String) -> ParamsError {
    match error {
        ParamsError::Missing { name, nearest } => {
            ParamsError::Missing { name: rename(&name), nearest: nearest.map(|n| rename(&n)) }
        }
        ParamsError::Extra { name, nearest } => {
            ParamsError::Extra { name: rename(&name), nearest: nearest.map(|n| rename(&n)) }
        }
        ParamsError::Shape { name, expected, got } => {
            ParamsError::Shape { name: rename(&name), expected, got }
        }
        ParamsError::NotFinite { name, count } => ParamsError::NotFinite { name: rename(&name), count },
        other => other,
    }
}

fn file_sha256(path: &Path) -> Result<String, CheckpointError> {
    let mut hash = Sha256::new();
    let mut file = fs_err::File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = std::io::Read::read(&mut file, &mut buffer)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
    }
    let mut text = String::with_capacity(64);
    for byte in hash.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}
