//! Reading and writing checkpoints: safetensors and PyTorch files, without executing anything.
//!
//! A checkpoint is a file, the shards of an index, or the folder of a repository with its configuration.
//! [`load_model`] takes it to a checked [`Pretrained`] network; [`write_safetensors`] writes weights
//! back under the checkpoint's own keys.

mod container;
mod error;
mod facts;
mod foreign;
mod labels;
mod source;
mod tensor;
#[cfg(test)]
mod tests;
mod unwrap;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use margay_core::{Graph, Params, ParamsError};
use ndarray::ArrayD;
use serde_json::Value;

pub use error::CheckpointError;
pub use tensor::Dtype;
pub use write::{to_safetensors, write_safetensors};

use crate::models::{self, Config, Detected, ModelError, NameMap, Part, Shapes};
use crate::preprocess::{self, Known};
use container::{Container, Stored};
use labels::Labels;
use source::Source;

/// An opened checkpoint: names, shapes and types are known, values are read when asked for.
pub struct Checkpoint {
    path: PathBuf,
    source: Source,
    files: Vec<Container>,
    /// Every tensor, and the file that holds it.
    tensors: BTreeMap<String, (usize, Stored)>,
    facts: BTreeMap<String, Value>,
    prefix: String,
    shapes: Shapes,
    labels: Option<Labels>,
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
    /// SHA-256 of the file, hexadecimal; of several files: of their bytes in the order of their names.
    pub sha256: String,
    /// How its weights are stored; the widest type where they differ.
    pub dtype: Dtype,
}

impl Checkpoint {
    /// Opens a `.safetensors` file, any container of `torch.save`, an index of shards, or a folder with one of
    /// them; the content decides, not the name. Configuration files beside the weights are read, too.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        let path = path.as_ref().to_owned();
        let source = Source::find(&path)?;
        let mut files = Vec::with_capacity(source.weights.len());
        let (mut all, mut facts) = (BTreeMap::new(), BTreeMap::new());
        for (number, file) in source.weights.iter().enumerate() {
            let mut container = Container::open(file)?;
            let tensors = std::mem::take(&mut container.tensors);
            source.check_shard(file, &tensors)?;
            all.extend(tensors.into_iter().map(|(key, stored)| (key, (number, stored))));
            facts.append(&mut container.facts);
            files.push(container);
        }
        if let Some(stranger) = foreign::by_keys(&all.keys().map(String::as_str)) {
            return Err(CheckpointError::foreign(&path, stranger));
        }
        let (mut tensors, prefix) =
            unwrap::unwrap(all, &facts, |tensors| models::is_recognised(&shapes(tensors)));
        // Counters such as the number of steps are no weights.
        tensors.retain(|_, (_, t)| !(t.shape.is_empty() && matches!(t.dtype, Dtype::Other(_))));
        if tensors.is_empty() {
            return Err(CheckpointError::Empty { path });
        }
        let shapes = shapes(&tensors);
        let labels = labels::find(&facts, &source);
        Ok(Self { path, source, files, tensors, facts, prefix, shapes, labels })
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
        &self.facts
    }

    /// The `config.json` that was read with the weights.
    pub fn config_file(&self) -> Option<&Path> {
        self.source.config.as_ref().map(|config| config.path.as_path())
    }

    /// Bytes of all files with weights.
    pub fn bytes(&self) -> Result<u64, CheckpointError> {
        self.source.bytes()
    }

    /// Class names that are stored do not count: the user gives others. Returns the stored ones.
    pub fn forget_labels(&mut self) -> Option<Vec<String>> {
        self.labels.take().map(|labels| labels.names)
    }

    /// How photos are prepared, as margay's metadata, `preprocessor_config.json` or timm's `pretrained_cfg` say.
    pub fn preprocess(&self) -> Option<Known> {
        let known = |path: &Path| {
            let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
            move |spec| Known { spec, file }
        };
        let stored = self.facts.get("margay").and_then(|facts| facts.get("preprocess"));
        let stored = stored.and_then(preprocess::from_margay).map(known(&self.source.weights[0]));
        let processor = || {
            let file = self.source.preprocessor.as_ref()?;
            preprocess::from_hugging_face(&file.value).map(known(&file.path))
        };
        let timm = || {
            let file = self.source.config.as_ref()?;
            let config = file.value.get("pretrained_cfg").unwrap_or(&file.value);
            preprocess::from_timm(config).map(known(&file.path))
        };
        stored.or_else(processor).or_else(timm)
    }

    /// Values of one tensor as f32.
    pub fn read(&self, key: &str) -> Result<ArrayD<f32>, CheckpointError> {
        let Some((file, stored)) = self.tensors.get(key) else {
            let nearest = margay_core::nearest_name(key, self.tensors.keys().map(String::as_str));
            return Err(self.params_error(ParamsError::Missing { name: key.to_owned(), nearest }));
        };
        let path = &self.source.weights[*file];
        let values = self.files[*file].read(path, &self.key(key), stored)?;
        let count = values.len();
        ArrayD::from_shape_vec(stored.shape.clone(), values).map_err(|_| CheckpointError::Damaged {
            path: path.clone(),
            reason: format!("`{}` has shape {:?} and {count} values", self.key(key), stored.shape),
        })
    }

    /// The architecture, as far as names, shapes and stored facts tell it.
    pub fn detect(&self, image: [usize; 2]) -> Result<Detected, CheckpointError> {
        let config = self.source.config.as_ref().map(|config| &config.value);
        let config = Config::from(facts::merged(&self.facts, config));
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
        if let Some(labels) = &self.labels {
            labels.check(graph.classes())?;
        }
        let mut params = Params::new();
        for spec in graph.params() {
            params.insert(spec.name.clone(), self.joined(&names.parts(&spec.name, &spec.shape), spec.shape)?);
        }
        params.check(&graph).map_err(|e| self.params_error(renamed(e, |name| names.key(name).to_owned())))?;
        self.check_variances(&params, &names)?;
        let (dtype, sha256) = (self.dtype(), self.source.sha256()?);
        let graph = models::resize(&graph, &mut params, image).map_err(|source| self.model_error(source))?;
        let labels = self.labels.map(|labels| labels.names);
        Ok(Pretrained { graph, params, names, library, labels, sha256, dtype })
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
        self.tensors.values().map(|(_, t)| t.dtype).max_by_key(rank).unwrap_or(Dtype::F32)
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

fn shapes(tensors: &BTreeMap<String, (usize, Stored)>) -> Shapes {
    tensors.iter().map(|(key, (_, tensor))| (key.clone(), tensor.shape.clone())).collect()
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
