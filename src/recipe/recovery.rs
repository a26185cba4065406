//! How accuracy is won back.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::options::{Options, entry, said};

/// How accuracy is won back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Options)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[options(heading = "Recovery", unused = not_finetuned)]
pub struct RecoverySpec {
    /// Whether norms are recalibrated on the shots; auto: not after --correction, else the held-out fold is asked.
    #[option(choices, used)]
    pub recalibrate: Recalibration,
    /// When the sparse model is finetuned.
    #[option(flag = "recovery", choices, used)]
    pub schedule: Schedule,
    /// Passes over the shots, per halving when gradual.
    #[option(
        default = 30, value = "N", set = epochs, range = 0..=1_000_000, replaces("try-epochs"),
        help = "Passes over the shots, per halving when gradual; of several (10,30) the held-out fold chooses"
    )]
    pub epochs: usize,
    /// Numbers of passes of which the held-out fold chooses one; empty: as said above.
    #[option(hidden, range = 0..=1_000_000)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub try_epochs: Vec<usize>,
    /// Whether a pilot of a quarter of the passes, judged on the held-out fold, says if the network is finetuned at all.
    #[option(
        default = true,
        flag = "no-pilot",
        switch,
        help = "Finetune without asking the held-out fold first, by a pilot of a quarter of the passes, whether it helps"
    )]
    pub pilot: bool,
    /// Images per finetuning step.
    #[option(default = 32, value = "N", range = 1..=65536)]
    pub batch: usize,
    /// Optimiser; auto: sgd for networks with batch norms, adamw for those with layer norms.
    #[option(choices)]
    pub optimizer: OptimizerChoice,
    /// Peak learning rate.
    #[option(value = "X", shown = "0.003 for sgd, 0.001 for adamw", range = 1e-12..=1e3)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Clip the norm of the gradient, over all parameters, to this; 0: never.
    #[option(default = 10.0, value = "X", range = 0.0..=1e9)]
    pub max_grad_norm: f64,
    /// L2 penalty on weights.
    #[option(default = 1e-4, value = "X", range = 0.0..=1e3)]
    pub weight_decay: f64,
    /// Weight of the cross-entropy with the labels.
    #[option(value = "X", shown = "1 where the head is fitted, 0.1 where it is sliced", range = 0.0..=1e6)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cross_entropy: Option<f64>,
    /// Label smoothing of the cross-entropy.
    #[option(value = "X", shown = "0 where the head is fitted, 0.1 where it is sliced", range = 0.0..=0.99)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_smoothing: Option<f64>,
    /// Weight of the Kullback-Leibler divergence from the dense teacher.
    #[option(default = 1.0, value = "X", range = 0.0..=1e6)]
    pub distillation: f64,
    /// Temperature of the distillation.
    #[option(default = 4.0, value = "X", range = 1e-3..=1e3)]
    pub temperature: f64,
    /// Weight of the feature error per block (SquareHead), which asks the teacher at every step.
    #[option(default = 0.0, value = "X", range = 0.0..=1e6)]
    pub square_head: f64,
    /// Smallest share of a photo's area that random crops show; 1 shows whole photos only.
    #[option(default = 0.5, value = "FRACTION", range = 0.01..=1.0)]
    pub crop: f64,
    /// Freeze the first layers, up to this share of the network's multiply-adds: finetuning is faster; adapters ignore it.
    #[option(default = 0.5, value = "FRACTION", range = 0.0..=0.9)]
    pub freeze: f64,
    /// Random crops of each photo, drawn and answered by the teacher once; 0: draw a new one at every step.
    #[option(default = 8, value = "N", range = 0..=65536)]
    pub fixed_views: usize,
    /// Recompute activations in the backward pass (gradient checkpointing): slower, less memory.
    #[option(switch)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub recompute: bool,
}

/// Reads a number of passes, or several to choose from.
fn epochs(text: &str) -> Result<Table, String> {
    let numbers: Result<Vec<i64>, _> =
        text.split(',').map(|number| number.trim().parse::<u32>().map(i64::from)).collect();
    let numbers = numbers.map_err(|_| "must be a whole number, or several such as 10,30".to_owned())?;
    let mut table = entry("epochs", Value::Integer(numbers[0]));
    if numbers.len() > 1 {
        table.insert("try-epochs".to_owned(), Value::from(numbers));
    }
    Ok(table)
}

pub(super) fn not_finetuned(recipe: &Table) -> Option<&'static str> {
    let none = said(recipe, "recovery.schedule")?.as_str() == Some("none");
    none.then_some("nothing is finetuned with --recovery none")
}

impl RecoverySpec {
    /// Weight and smoothing of the cross-entropy with the labels where the recipe leaves them open.
    ///
    /// A teacher with rows of the pretrained classifier has learnt the classes from many more photos than the shots. A
    /// fitted one knows of them what the shots tell.
    const LABELS: [(f64, f64); 2] = [(0.1, 0.1), (1.0, 0.0)];

    /// The same with the labels' part of the loss said, for a head that is fitted to the shots or has rows of the
    /// pretrained classifier.
    #[must_use]
    pub fn with_head(&self, fitted: bool) -> Self {
        let (weight, smoothing) = Self::LABELS[usize::from(fitted)];
        Self {
            cross_entropy: self.cross_entropy.or(Some(weight)),
            label_smoothing: self.label_smoothing.or(Some(smoothing)),
            ..self.clone()
        }
    }

    /// Weight and smoothing of the cross-entropy with the labels; what is not said is that of a pretrained classifier.
    pub fn labels(&self) -> (f64, f64) {
        let (weight, smoothing) = Self::LABELS[0];
        (self.cross_entropy.unwrap_or(weight), self.label_smoothing.unwrap_or(smoothing))
    }

    /// Numbers of passes that are open to choice.
    pub fn lengths(&self) -> Vec<usize> {
        if self.try_epochs.is_empty() { vec![self.epochs] } else { self.try_epochs.clone() }
    }

    /// Whether the held-out fold is asked if the network is finetuned, and for how long.
    pub fn asks_fold(&self) -> bool {
        let open = self.pilot || !self.try_epochs.is_empty();
        open && self.schedule != Schedule::None && self.lengths().iter().any(|epochs| *epochs > 0)
    }
}

/// Whether norms are recalibrated after pruning: statistics of batch norms, means behind layer norms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Recalibration {
    /// Never after layers were corrected, which are solved for the stored norms; else if the held-out fold says that it helps.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// What takes the steps of training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerChoice {
    /// SGD for networks with batch norms, AdamW for those with layer norms.
    #[default]
    Auto,
    /// Stochastic gradient descent with Nesterov momentum 0.9.
    Sgd,
    /// Adam with decoupled weight decay (arXiv 1711.05101).
    Adamw,
}

/// When finetuning happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Not at all.
    None,
    /// Prune at once, then finetune.
    #[default]
    OneShot,
    /// Halve the remaining weights, finetune, repeat (TACO's Algorithm 1).
    Gradual,
}
