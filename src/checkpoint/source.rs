//! Which files make up a checkpoint: one file, the shards of an index, or what a repository's folder holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::container::Stored;
use super::{CheckpointError, foreign};

/// Names of the weights in a repository, best first.
const WEIGHTS: [&str; 5] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// Endings of files that may hold weights.
const ENDINGS: [&str; 5] = ["safetensors", "bin", "pth", "pt", "ckpt"];

/// Endings of weights of other frameworks, to name what a folder holds instead.
const FOREIGN_ENDINGS: [&str; 6] = ["h5", "msgpack", "onnx", "tflite", "gguf", "ot"];

/// Configuration files and indices longer than this are refused.
const MAX_JSON_BYTES: u64 = 64 << 20;

/// More shards than any classifier is cut into.
const MAX_SHARDS: usize = 1024;

/// The files of a checkpoint.
#[derive(Debug)]
pub(super) struct Source {
    /// Files with weights, in the order of their names.
    pub weights: Vec<PathBuf>,
    /// The index that lists them, and which file it says holds a tensor.
    pub index: Option<Index>,
    /// `config.json` beside them, if it describes a model.
    pub config: Option<Json>,
    /// `preprocessor_config.json` beside them.
    pub preprocessor: Option<Json>,
}

/// A JSON file that was read.
#[derive(Debug)]
pub(super) struct Json {
    pub path: PathBuf,
    pub value: Value,
}

/// An index of shards.
#[derive(Debug)]
pub(super) struct Index {
    pub path: PathBuf,
    /// Tensor → shard.
    pub map: BTreeMap<String, String>,
}

impl Source {
    /// Finds the files of a path: a file of weights, an index, or a folder with one of them.
    pub fn find(path: &Path) -> Result<Self, CheckpointError> {
        let file = if path.is_dir() { weights_in(path)? } else { path.to_owned() };
        let folder = file.parent().unwrap_or(Path::new("")).to_owned();
        let is_index = file.file_name().is_some_and(|name| name.to_string_lossy().ends_with(".index.json"));
        let index = if is_index { Some(Index::read(&file)?) } else { None };
        let weights = match &index {
            Some(index) => index.shards(&folder)?,
            None => vec![file],
        };
        // Beside a lone file there may be anything; in a repository a broken configuration is a defect.
        let lone = !path.is_dir() && index.is_none();
        let beside = |name| {
            if lone { Ok(Json::beside(&folder, name).unwrap_or(None)) } else { Json::beside(&folder, name) }
        };
        let config = beside("config.json")?.filter(|config| describes_a_model(&config.value));
        let preprocessor = beside("preprocessor_config.json")?;
        Ok(Self { weights, index, config, preprocessor })
    }

    /// Refuses a shard that lacks a tensor which the index promises.
    pub fn check_shard(
        &self,
        file: &Path,
        tensors: &BTreeMap<String, Stored>,
    ) -> Result<(), CheckpointError> {
        let Some(index) = &self.index else { return Ok(()) };
        let here = |shard: &&String| file.file_name().is_some_and(|name| name == shard.as_str());
        let promised = index.map.iter().filter(|(_, shard)| here(shard)).map(|(key, _)| key);
        match promised.into_iter().find(|key| !tensors.contains_key(*key)) {
            Some(key) => Err(CheckpointError::Shard {
                index: index.path.clone(),
                shard: file.to_owned(),
                key: key.clone(),
            }),
            None => Ok(()),
        }
    }

    /// SHA-256 of the weights in hexadecimal; shards are taken one behind the other, in the order of names.
    pub fn sha256(&self) -> Result<String, CheckpointError> {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        for path in &self.weights {
            let mut file = margay_core::input::open(path)?;
            loop {
                let read = file.read(&mut buffer)?;
                if read == 0 {
                    break;
                }
                hash.update(&buffer[..read]);
            }
        }
        let mut text = String::with_capacity(64);
        for byte in hash.finalize() {
            let _ = write!(text, "{byte:02x}");
        }
        Ok(text)
    }

    /// Bytes of all files with weights.
    pub fn bytes(&self) -> Result<u64, CheckpointError> {
        let sizes = self.weights.iter().map(|path| Ok(fs_err::metadata(path)?.len()));
        sizes.sum()
    }
}

impl Index {
    fn read(path: &Path) -> Result<Self, CheckpointError> {
        let fail = |reason: &str| CheckpointError::Index { path: path.to_owned(), reason: reason.to_owned() };
        let value = Json::read(path)?.value;
        let entries = value.get("weight_map").and_then(Value::as_object);
        let entries = entries.ok_or_else(|| fail("it has no object `weight_map`"))?;
        let map: Option<BTreeMap<String, String>> =
            entries.iter().map(|(key, shard)| Some((key.clone(), shard.as_str()?.to_owned()))).collect();
        let map = map.ok_or_else(|| fail("`weight_map` holds something else than names of files"))?;
        if let Some(shard) = map.values().find(|shard| !is_plain(shard)) {
            return Err(fail(&format!("`{shard}` is not the name of a file beside it")));
        }
        Ok(Self { path: path.to_owned(), map })
    }

    fn shards(&self, folder: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
        let names: BTreeSet<&str> = self.map.values().map(String::as_str).collect();
        let fail = |reason| CheckpointError::Index { path: self.path.clone(), reason };
        if names.is_empty() || names.len() > MAX_SHARDS {
            return Err(fail(format!("it lists {} shards, allowed are 1 to {MAX_SHARDS}", names.len())));
        }
        let shards = names.iter().map(|name| folder.join(name));
        let missing: Vec<PathBuf> = shards.clone().filter(|shard| !shard.is_file()).collect();
        match missing.first() {
            Some(shard) => Err(CheckpointError::MissingShard {
                index: self.path.clone(),
                shard: shard.clone(),
                missing: missing.len(),
                shards: names.len(),
            }),
            None => Ok(shards.collect()),
        }
    }
}

impl Json {
    /// A file in a folder, if there is one.
    fn beside(folder: &Path, name: &str) -> Result<Option<Self>, CheckpointError> {
        let path = folder.join(name);
        if path.is_file() { Self::read(&path).map(Some) } else { Ok(None) }
    }

    fn read(path: &Path) -> Result<Self, CheckpointError> {
        let fail = |reason: String| CheckpointError::Json { path: path.to_owned(), reason };
        let bytes = margay_core::input::read(path, MAX_JSON_BYTES)?;
        if let Some(stranger) = foreign::by_content(path, &bytes).filter(|f| *f != foreign::JSON) {
            return Err(CheckpointError::foreign(path, stranger));
        }
        let value = serde_json::from_slice(&bytes).map_err(|e| fail(e.to_string()))?;
        Ok(Self { path: path.to_owned(), value })
    }
}

/// The file with the weights in a folder: one with a usual name, else the only one that may hold any.
fn weights_in(folder: &Path) -> Result<PathBuf, CheckpointError> {
    if let Some(path) = WEIGHTS.iter().map(|name| folder.join(name)).find(|path| path.is_file()) {
        return Ok(path);
    }
    let mut names = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        names.push(PathBuf::from(entry?.file_name()));
    }
    names.sort();
    let with = |endings: &[&str]| -> Vec<PathBuf> {
        let ends = |name: &&PathBuf| {
            name.extension().is_some_and(|e| endings.iter().any(|ending| e.eq_ignore_ascii_case(ending)))
        };
        names.iter().filter(ends).cloned().collect()
    };
    match with(&ENDINGS).as_slice() {
        [only] => Ok(folder.join(only)),
        [] => Err(CheckpointError::NoWeights { path: folder.to_owned(), found: with(&FOREIGN_ENDINGS) }),
        several => Err(CheckpointError::SeveralWeights { path: folder.to_owned(), found: several.to_vec() }),
    }
}

/// Whether a `config.json` is one of transformers or timm, and not of something else that lies there.
fn describes_a_model(config: &Value) -> bool {
    ["model_type", "architectures", "architecture", "pretrained_cfg"]
        .iter()
        .any(|key| config.get(*key).is_some())
}

/// Whether a shard's name stays in its folder.
fn is_plain(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let plain = matches!(components.next(), Some(Component::Normal(part)) if part == name);
    plain && components.next().is_none() && !name.contains(['/', '\\'])
}
