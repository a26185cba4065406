//! Reading and writing checkpoints: safetensors and PyTorch files, without executing anything.
//!
//! A checkpoint is a file, the shards of an index, or the folder of a repository with its configuration. Its way to a
//! network: `source` finds the files, `container` (with `pickle`) makes of each a table of tensors and the facts beside
//! them, `resolve` finds the network among the tensors, and `models` recognises it. [`load_model`] takes a path to a
//! checked [`Pretrained`] network; [`write_safetensors`] writes weights back under the checkpoint's own keys.

mod container;
mod error;
mod facts;
mod foreign;
mod labels;
mod pickle;
mod resolve;
mod source;
mod tensor;
#[cfg(test)]
mod tests;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use margay_core::{Graph, Params, ParamsError};
use ndarray::ArrayD;
use serde_json::Value;

pub use error::CheckpointError;
pub use resolve::Note;
pub use tensor::Dtype;
pub use write::{to_safetensors, write_safetensors};

use crate::models::{self, Config, Detected, ModelError, NameMap, Part, Shapes};
use crate::preprocess::{self, Known};
use container::{Container, Stored};
use labels::Labels;
use resolve::{Choice, Resolution};
use source::Source;

/// An opened checkpoint: names, shapes and types are known, values are read when asked for.
pub struct Checkpoint {
    path: PathBuf,
    source: Source,
    files: Vec<Container>,
    /// Every tensor by its path, and the file that holds it.
    stored: BTreeMap<String, (usize, Stored)>,
    facts: BTreeMap<String, Value>,
    /// The network among them.
    network: Resolution,
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
        Self::open_with(path, None)
    }

    /// The same where the user says which layer is the classifier: `net.classifier`, or `none` for a new one.
    pub fn open_with(path: impl AsRef<Path>, head: Option<&str>) -> Result<Self, CheckpointError> {
        let path = path.as_ref().to_owned();
        let source = Source::find(&path)?;
        let mut files = Vec::with_capacity(source.weights.len());
        let (mut stored, mut facts, mut scopes) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        for (number, file) in source.weights.iter().enumerate() {
            let mut container = Container::open(file)?;
            let tensors = std::mem::take(&mut container.tensors);
            source.check_shard(file, &tensors)?;
            stored.extend(tensors.into_iter().map(|(key, stored)| (key, (number, stored))));
            facts.append(&mut container.facts);
            scopes.append(&mut container.scopes);
            files.push(container);
        }
        if let Some(stranger) = foreign::by_keys(&stored.keys().map(String::as_str)) {
            return Err(CheckpointError::foreign(&path, stranger));
        }
        let labels = labels::find(&facts, &source);
        let config = config(&facts, &source);
        let choice = match head {
            None => Choice::Open,
            Some("none") => Choice::None,
            Some(name) => Choice::Layer(name),
        };
        let table = stored.iter().map(|(key, (_, t))| (key.clone(), t.shape.clone(), t.dtype));
        let names = labels.as_ref().map(|labels| labels.names.len());
        let network = Resolution::new(table, &scopes, &config, names, choice);
        let network = network.map_err(|heads| CheckpointError::heads(&path, head, heads.0))?;
        if network.tensors.is_empty() {
            return Err(CheckpointError::Empty { path });
        }
        let shapes = resolve::shapes(&network.tensors);
        let checkpoint = Self { path, source, files, stored, facts, network, shapes, labels };
        checkpoint.check_size()?;
        Ok(checkpoint)
    }

    /// Shape of every tensor by its key in the language of its library, without what is put around the network.
    pub fn shapes(&self) -> &Shapes {
        &self.shapes
    }

    /// What training scripts put around the keys, such as `state_dict.net.`.
    pub fn prefix(&self) -> &str {
        &self.network.prefix
    }

    /// Names that wrappers put into keys, such as `module` and `_orig_mod`.
    pub fn wrappers(&self) -> impl Iterator<Item = &str> {
        self.network.wrappers.iter().map(String::as_str)
    }

    /// The layer that is the classifier, by its name in the file; absent: there is none.
    pub fn head(&self) -> Option<&str> {
        self.network.head.as_deref()
    }

    /// The class of a whole module that was saved with its code, which was not run.
    pub fn module(&self) -> Option<&str> {
        self.files.iter().find_map(|file| file.module.as_deref())
    }

    /// What is in the file and no part of the network, in words.
    pub fn left_out(&self) -> Option<String> {
        self.network.leftovers()
    }

    /// What the user should know of how the file was read.
    pub fn notes(&self) -> Vec<Note> {
        let note = |text: String| Note { text, warning: false };
        let module = self.module();
        let module = module
            .map(|class| format!("a whole `{class}` was saved: its weights are read, its code is not run"));
        let left = self.left_out().map(|left| format!("left out, as no part of the network: {left}"));
        module.map(note).into_iter().chain(self.network.notes.iter().cloned()).chain(left.map(note)).collect()
    }

    /// Views may share a storage, but an `expand` of one number to gigabytes is no weight.
    fn check_size(&self) -> Result<(), CheckpointError> {
        let file = self.bytes()?;
        let paths = self.network.tensors.values().map(|tensor| &tensor.entry.path);
        let claimed = paths.filter_map(|path| Some(self.stored.get(path)?.1.claimed()));
        let claimed = claimed.fold(0_u64, u64::saturating_add);
        if claimed > file.saturating_mul(container::MAX_EXPANSION).max(container::SMALL) {
            return Err(CheckpointError::Oversized { path: self.path.clone(), claimed, file });
        }
        Ok(())
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

    /// Values of one tensor as f32, by its key in [`Checkpoint::shapes`].
    pub fn read(&self, key: &str) -> Result<ArrayD<f32>, CheckpointError> {
        let Some(tensor) = self.network.tensors.get(key) else {
            let nearest = margay_core::nearest_name(key, self.shapes.keys().map(String::as_str));
            return Err(self.params_error(ParamsError::Missing { name: key.to_owned(), nearest }));
        };
        let shape = &tensor.entry.shape;
        let fail = |reason| CheckpointError::Fold { path: self.path.clone(), reason };
        let values = resolve::values(&tensor.entry.made, shape, |path| self.values(path), fail)?;
        let count = values.len();
        ArrayD::from_shape_vec(shape.clone(), values)
            .map_err(|_| fail(format!("`{}` has shape {shape:?} and {count} values", tensor.shown)))
    }

    /// Values of one tensor of the file.
    fn values(&self, path: &str) -> Result<Vec<f32>, CheckpointError> {
        let Some((file, stored)) = self.stored.get(path) else {
            unreachable!("the network is made of tensors of the file")
        };
        let weights = &self.source.weights[*file];
        let values = self.files[*file].read(weights, stored)?;
        values.ok_or_else(|| CheckpointError::Dtype {
            path: weights.clone(),
            key: path.to_owned(),
            dtype: stored.dtype.name().to_owned(),
        })
    }

    /// The architecture, as far as names, shapes and stored facts tell it; its names lead to [`Checkpoint::shapes`].
    pub fn detect(&self, image: [usize; 2]) -> Result<Detected, CheckpointError> {
        let config = config(&self.facts, &self.source);
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
        // The names of a network whose classifier is elsewhere say nothing.
        let labels = self.labels.as_ref().filter(|_| graph.classes() > 0);
        if let Some(labels) = labels {
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
        let labels = labels.map(|labels| labels.names.clone());
        let names = names.rekeyed(|own| self.written(own));
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
                Some(_) if !self.network.tensors[key].entry.dtype.is_float() => {
                    let dtype = self.network.tensors[key].entry.dtype.name().to_owned();
                    return Err(CheckpointError::Dtype {
                        path: self.path.clone(),
                        key: self.key(key),
                        dtype,
                    });
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
        let source = match source {
            ModelError::MissingKey { key, nearest } => {
                let nearest = nearest.map(|name| self.key(&name));
                ModelError::MissingKey { key: self.key(&key), nearest }
            }
            ModelError::Axes { key, expected, got } => {
                ModelError::Axes { key: self.key(&key), expected, got }
            }
            ModelError::Unrecognised { nearest, unmatched } => {
                let unmatched = unmatched.iter().map(|key| self.key(key)).collect();
                ModelError::Unrecognised { nearest, unmatched }
            }
            other => other,
        };
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
            Dtype::F64 => 4,
            Dtype::F32 => 3,
            Dtype::Bf16 => 2,
            Dtype::F16 => 1,
            Dtype::F8E4m3 | Dtype::F8E5m2 | Dtype::Other(_) => 0,
        };
        self.network.tensors.values().map(|t| t.entry.dtype).max_by_key(rank).unwrap_or(Dtype::F32)
    }

    /// The key as it stands in the file; one that is missing as it would stand there.
    fn key(&self, own: &str) -> String {
        if let Some(tensor) = self.network.tensors.get(own) {
            return tensor.shown.clone();
        }
        let around =
            self.network.tensors.iter().find_map(|(own, tensor)| tensor.shown.strip_suffix(own.as_str()));
        format!("{}{own}", around.unwrap_or(""))
    }

    /// The key in files that are written.
    fn written(&self, own: &str) -> String {
        self.network.tensors.get(own).map_or_else(|| own.to_owned(), |tensor| tensor.written.clone())
    }

    fn params_error(&self, error: ParamsError) -> CheckpointError {
        CheckpointError::Params { path: self.path.clone(), source: renamed(error, |name| self.key(name)) }
    }
}

/// Opens a checkpoint and reads it as a network for images of this height and width.
pub fn load_model(path: impl AsRef<Path>, image: [usize; 2]) -> Result<Pretrained, CheckpointError> {
    Checkpoint::open(path)?.into_model(image)
}

/// What stands beside the weights for the architectures.
fn config(facts: &BTreeMap<String, Value>, source: &Source) -> Config {
    Config::from(facts::merged(facts, source.config.as_ref().map(|config| &config.value)))
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
