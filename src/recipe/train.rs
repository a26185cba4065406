//! What determines a dense model.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ClassSpec, InputSpec, Job, OptimizerChoice, per_class, seed};
use crate::options::Options;

/// Everything that determines a dense model trained by `margay train`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Options)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct TrainSpec {
    /// The command that the recipe is for.
    #[option(default = Job::Train, hidden)]
    pub job: Job,
    /// Architecture to train from scratch, see `margay list`.
    #[option(value = "NAME", conflicts("model"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// Channels after the stem.
    #[option(value = "N", range = 1..=65535, conflicts("model"), shown = "the architecture's own")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    /// Number of transformer blocks.
    #[option(value = "N", range = 1..=1000, conflicts("model"), shown = "the architecture's own")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<usize>,
    /// Checkpoint to finetune, or the folder of a repository.
    #[option(short = 'm', value = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<PathBuf>,
    /// Class names of the checkpoint: text, JSON, CSV or YAML.
    #[option(value = "FILE", conflicts("arch"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<PathBuf>,
    /// Folder with one folder per class, optionally under train/ and val/.
    #[option(short = 'd', value = "FOLDER")]
    pub data: PathBuf,
    /// How folders become classes, and classes outputs of the checkpoint and of the teacher.
    #[option(table)]
    #[serde(skip_serializing_if = "ClassSpec::is_default")]
    pub classes: ClassSpec,
    /// Seed of every random choice.
    #[option(value = "N", set = seed)]
    pub seed: u64,
    /// auto, cpu, cuda or cuda:n.
    #[option(default = "auto".to_owned(), value = "DEVICE", env = "MARGAY_DEVICE")]
    pub device: String,
    /// CPU threads; 0 takes all cores.
    #[option(hidden)]
    pub threads: usize,
    /// How photos become inputs.
    #[option(table)]
    pub input: InputSpec,
    /// Photos per class to learn from; 0 takes all.
    #[option(value = "N", set = shots, shown = "all", help = "Photos per class to learn from, or `all`")]
    pub shots: usize,
    /// Passes over the photos.
    #[option(default = 30, value = "N", range = 0..=1_000_000)]
    pub epochs: usize,
    /// Images per step.
    #[option(default = 64, value = "N", range = 1..=65536)]
    pub batch: usize,
    /// What takes the steps.
    #[option(choices)]
    pub optimizer: OptimizerChoice,
    /// Peak learning rate.
    #[option(
        value = "X", range = 1e-12..=1e3, shown = "0.1 for sgd, 0.001 for adamw; from a checkpoint 0.003 and 0.0001"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// L2 penalty on weights.
    #[option(default = 5e-4, value = "X", range = 0.0..=1e3)]
    pub weight_decay: f64,
    /// Label smoothing.
    #[option(default = 0.1, value = "X", range = 0.0..=0.99)]
    pub label_smoothing: f64,
    /// Checkpoint whose answers are imitated beside the labels (knowledge distillation).
    #[option(value = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<PathBuf>,
    /// Class names of the teacher: text, JSON, CSV or YAML.
    #[option(value = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher_labels: Option<PathBuf>,
    /// Weight of the teacher's answers; that of the labels is 1.
    #[option(default = 1.0, value = "X", range = 0.0..=1e6)]
    pub distillation: f64,
    /// Temperature of the teacher's answers.
    #[option(default = 2.0, value = "X", range = 0.01..=1e3)]
    pub temperature: f64,
}

fn shots(text: &str) -> Result<toml::Table, String> {
    let mut table = per_class(text)?;
    Ok(table.remove("per-class").map(|shots| ("shots".to_owned(), shots)).into_iter().collect())
}

/// The weights that training starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Random weights.
    Scratch {
        /// Name of the variant, such as `resnet18`.
        arch: String,
        /// Channels after the stem; absent: the variant's usual width.
        width: Option<usize>,
        /// Number of blocks; absent: the variant's usual depth.
        depth: Option<usize>,
    },
    /// A checkpoint.
    Checkpoint {
        /// Its file.
        model: PathBuf,
        /// Its class names.
        labels: Option<PathBuf>,
    },
}

impl TrainSpec {
    /// The weights to start from; nothing where neither an architecture nor a checkpoint is named, or both are.
    pub fn start(&self) -> Option<Start> {
        match (&self.arch, &self.model) {
            (Some(arch), None) => {
                Some(Start::Scratch { arch: arch.clone(), width: self.width, depth: self.depth })
            }
            (None, Some(model)) => {
                Some(Start::Checkpoint { model: model.clone(), labels: self.labels.clone() })
            }
            _ => None,
        }
    }
}
