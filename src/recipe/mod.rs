//! Recipes: every choice of a run with its value, saved beside the result so that it can be repeated.

mod adapt;
mod data;
mod methods;
mod prune;
mod recovery;
mod train;

use std::path::PathBuf;

use clap::ValueEnum;
use margay_core::Sparsity;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

pub use adapt::{AdaptSpec, AdapterInit, AdapterSchedule, BaseBits, GradAccMode, Policy, has_options};
use data::per_class;
pub use data::{ClassSpec, InputSpec, ResizeChoice, Shots};
pub use methods::{AlpsSpec, ErkSpec, EvoSpec, ObcSpec, SnellSpec, SoraSpec};
pub use prune::{Count, PruneSpec, Target, Tuned, parse_compression};
pub use recovery::{OptimizerChoice, Recalibration, RecoverySpec, Schedule};
pub use train::{Start, TrainSpec};

use crate::options::{self, Options, entry};

/// The largest seed: TOML, in which recipes are saved, has signed integers only.
pub const MAX_SEED: u64 = i64::MAX as u64;

/// A command that takes a recipe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Job {
    /// `margay compress`, and `margay front`, which compresses to several targets.
    #[default]
    Compress,
    /// `margay adapt`.
    Adapt,
    /// `margay train`.
    Train,
}

impl Job {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
    fn is_compress(&self) -> bool {
        *self == Self::Compress
    }
}

/// Everything that determines a compressed model. Field order is the order in `recipe.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Options)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[options(required)]
pub struct Recipe {
    /// The command that the recipe is for.
    #[option(hidden)]
    #[serde(default, skip_serializing_if = "Job::is_compress")]
    pub job: Job,
    /// Checkpoint to specialise: .safetensors, .pth, .pt, .bin or .ckpt, or the folder of a repository.
    #[option(short = 'm', value = "PATH")]
    pub model: PathBuf,
    /// Class names of the checkpoint in the order of its head: text, JSON, CSV or YAML, a Keras class index, a config.json.
    #[option(value = "FILE")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<PathBuf>,
    /// Folder with one folder per class, optionally under train/ and val/.
    #[option(short = 'd', value = "FOLDER")]
    pub data: PathBuf,
    /// How folders become classes, and classes outputs of the checkpoint.
    #[option(table)]
    #[serde(default, skip_serializing_if = "ClassSpec::is_default")]
    pub classes: ClassSpec,
    /// Folder of auxiliary photos of any subject, without labels: calibration uses them where shots are few.
    #[option(value = "FOLDER", heading = "Data")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub general: Option<PathBuf>,
    /// Folder of your own photos without labels: distillation uses them beside the shots.
    #[option(value = "FOLDER", heading = "Data")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlabelled: Option<PathBuf>,
    /// Seed of every random choice.
    #[option(value = "N", set = seed)]
    #[serde(default)]
    pub seed: u64,
    /// auto, cpu, cuda or cuda:n.
    #[option(value = "DEVICE", env = "MARGAY_DEVICE")]
    #[serde(default = "auto")]
    pub device: String,
    /// CPU threads of every stage; 0 takes all cores.
    #[option(hidden)]
    #[serde(default)]
    pub threads: usize,
    /// How the few shots are drawn.
    #[option(table)]
    #[serde(default)]
    pub shots: Shots,
    /// How photos become inputs.
    #[option(table)]
    #[serde(default)]
    pub input: InputSpec,
    /// How weights are removed.
    #[option(table)]
    #[serde(default)]
    pub prune: PruneSpec,
    /// How accuracy is won back.
    #[option(table)]
    #[serde(default)]
    pub recovery: RecoverySpec,
    /// What is trained when accuracy is won back.
    #[option(table)]
    #[serde(default)]
    pub adapt: AdaptSpec,
}

fn auto() -> String {
    "auto".to_owned()
}

fn seed(text: &str) -> Result<Table, String> {
    let seed = text.parse::<u64>().ok().filter(|seed| *seed <= MAX_SEED);
    let seed = seed.ok_or_else(|| format!("must be a whole number from 0 to {MAX_SEED}"))?;
    Ok(entry("seed", Value::Integer(seed as i64)))
}

impl Recipe {
    /// The same with less to prune: `step` steps of a fifth of the time, or of a third of the weights or
    /// multiply-adds.
    #[must_use]
    pub fn relaxed(&self, step: u32) -> Self {
        let mut relaxed = self.clone();
        let [weights, time] = [1.5_f64, 1.25].map(|factor| factor.powi(step as i32));
        relaxed.prune.target = self.prune.target.map(|target| match target {
            Target::Macs(fold) => Target::Macs((fold / weights).max(1.0)),
            Target::Speedup(fold) => Target::Speedup(fold / time),
            Target::Milliseconds(ms) => Target::Milliseconds(ms * time),
        });
        let fold = (self.prune.sparsity.compression() / weights).max(1.0);
        relaxed.prune.sparsity = Sparsity::from_compression(fold).unwrap_or(Sparsity::DENSE);
        relaxed
    }

    /// Whether nothing is pruned.
    pub fn is_dense(&self) -> bool {
        self.prune.target.is_none() && self.prune.sparsity.fraction() == 0.0
    }

    /// What the network may cost, in a word.
    pub fn cost(&self) -> String {
        match self.prune.target {
            Some(target) => target.into(),
            None => format!("{:.1}x", self.prune.sparsity.compression()),
        }
    }

    /// The defaults for a checkpoint and a folder of photos.
    pub fn new(model: PathBuf, data: PathBuf) -> Self {
        Self {
            job: Job::Compress,
            model,
            labels: None,
            data,
            classes: ClassSpec::default(),
            general: None,
            unlabelled: None,
            seed: 0,
            device: auto(),
            threads: 0,
            shots: Shots::default(),
            input: InputSpec::default(),
            prune: PruneSpec::default(),
            recovery: RecoverySpec::default(),
            adapt: AdaptSpec::default(),
        }
    }

    /// Reads a recipe, which names its model and data.
    pub fn from_toml(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// The recipe as TOML, every value written out.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    /// The same with the defaults of options that have no effect in it, so that equal runs look equal.
    #[must_use]
    pub fn effective(&self) -> Self {
        let effective = options::effective::<Self>(&self.to_table(), &self.defaults());
        effective.try_into().expect("defaults are sound values of a recipe")
    }

    /// Flags given that have no effect in the recipe, each with the reason.
    pub fn unused(&self, given: &Table) -> Vec<String> {
        options::unused::<Self>(&self.to_table(), &self.defaults(), given)
    }

    /// A recipe of the same files that says nothing else.
    fn defaults(&self) -> Table {
        Self::new(self.model.clone(), self.data.clone()).to_table()
    }

    /// The recipe as a table, every value in it.
    ///
    /// # Panics
    /// If a path is not UTF-8; recipes of commands are checked.
    pub fn to_table(&self) -> Table {
        Table::try_from(self).expect("a recipe's values have a place in TOML")
    }
}
