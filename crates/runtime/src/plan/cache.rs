//! What was timed at an earlier opening, on disk.
//!
//! A file per machine, model and options. It only saves time: what is damaged, foreign or old is measured anew, and a
//! folder that cannot be written is left alone.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use margay_core::{Graph, Pattern, SparseModel, input, output};
use margay_kernels::{Isa, cpu_name};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::tune::{Stopwatch, Tried, Tuner};
use crate::SessionOptions;

/// Bytes of a file that is read: a thousand layers take a third.
const MAX_BYTES: u64 = 1 << 20;

/// Where the times of one model are kept.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    id: String,
}

/// Everything that times depend on.
#[derive(Serialize)]
struct Identity<'a> {
    version: &'a str,
    cpu: String,
    isa: &'a str,
    precision: &'a str,
    kernel: String,
    threads: usize,
    graph: &'a Graph,
    /// Name of every weight, how many of its values are stored, and the pattern of those that have one.
    weights: Vec<(&'a str, usize)>,
    patterns: BTreeMap<String, Pattern>,
}

/// The content of a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    id: String,
    tried: Vec<Tried>,
}

impl Cache {
    /// The cache that the options ask for, if they do.
    pub(super) fn new(
        model: &SparseModel,
        isa: Isa,
        options: &SessionOptions,
        threads: usize,
    ) -> Option<Self> {
        let folder = options.tune_cache.clone().filter(|_| options.tune)?;
        let weights = model.weights.iter().map(|(name, weight)| (name.as_str(), weight.stored()));
        let identity = Identity {
            version: env!("CARGO_PKG_VERSION"),
            cpu: cpu_name(),
            isa: isa.name(),
            precision: options.precision.name(),
            kernel: format!("{:?}", options.kernel),
            threads,
            graph: &model.graph,
            weights: weights.collect(),
            patterns: model.patterns(),
        };
        let digest = Sha256::digest(serde_json::to_vec(&identity).ok()?);
        let id = format!("{:032x}", u128::from_be_bytes(*digest.first_chunk()?));
        Some(Self { folder, id })
    }

    fn path(&self) -> PathBuf {
        self.folder.join(format!("tuned-{}.json", self.id))
    }

    /// What is known; nothing where there is no sound file.
    pub(super) fn load(&self) -> Vec<Tried> {
        self.read().unwrap_or_else(|error| {
            tracing::debug!(%error, "no times at {}", self.path().display());
            Vec::new()
        })
    }

    fn read(&self) -> io::Result<Vec<Tried>> {
        parse(&input::read(self.path(), MAX_BYTES)?, &self.id)
    }

    /// Keeps what is known. A file appears complete or not at all.
    pub(super) fn store(&self, tried: &[Tried]) {
        if let Err(error) = self.write(tried) {
            tracing::debug!(%error, "times are not kept at {}", self.path().display());
        }
    }

    fn write(&self, tried: &[Tried]) -> io::Result<()> {
        fs_err::create_dir_all(&self.folder)?;
        let content = serde_json::to_vec(&Content { id: self.id.clone(), tried: tried.to_vec() })?;
        output::write(self.path(), content)
    }
}

/// For fuzzing: reads bytes as a file of times, whoever's they are, and looks up each of its layers.
pub fn fuzz(bytes: &[u8]) {
    let id = serde_json::from_slice::<Content>(bytes).map(|content| content.id).unwrap_or_default();
    if let Ok(tried) = parse(bytes, &id) {
        Tuner::new(&mut Stopwatch::default(), tried).look_up();
    }
}

/// The times in a file, which must be those of `id`.
pub(super) fn parse(bytes: &[u8], id: &str) -> io::Result<Vec<Tried>> {
    let Content { id: of, tried } = serde_json::from_slice(bytes)?;
    let sound =
        |tried: &Tried| !tried.ms.is_empty() && tried.ms.iter().all(|(_, ms)| ms.is_finite() && *ms >= 0.0);
    if of == id && tried.iter().all(sound) {
        Ok(tried)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "the file is of something else"))
    }
}
