//! What is trained when accuracy is won back.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::methods::{SnellSpec, SoraSpec, is_default};
use super::recovery::not_finetuned;
use crate::options::{Options, entry, said};

/// What is trained when accuracy is won back; options as RoSA's users know them (arXiv 2401.04679).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Options)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[options(heading = "Adapters", unused = no_options)]
pub struct AdaptSpec {
    /// What recovery trains, see `margay list`: full (all surviving weights), lora, rosa and others.
    #[option(default = "full".to_owned(), flag = "adapt", value = "NAME", unused = not_finetuned)]
    pub method: String,
    /// Where adapters may change pruned layers: on the mask, anywhere at equal budget, in a branch.
    #[option(choices)]
    pub policy: Policy,
    /// Trainable adapter parameters as a fraction of all weights, such as 0.005; sets --r and --d.
    #[option(value = "FRACTION", range = 1e-6..=1.0, conflicts("r", "d"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<f64>,
    /// Rank of the low-rank part.
    #[option(default = 8, value = "RANK", range = 1..=65536, replaces("budget"))]
    pub r: usize,
    /// Density of the sparse part: fraction of a layer's weights.
    #[option(default = 0.003, value = "FRACTION", range = 0.0..=1.0, replaces("budget"))]
    pub d: f64,
    /// Scale of the low-rank part, divided by r.
    #[option(default = 8.0, value = "X", range = 1e-6..=1e6)]
    pub lora_alpha: f64,
    /// How the low-rank part starts: at random, from the inputs, from what pruning took.
    #[option(choices)]
    pub init: AdapterInit,
    /// Parts trained when: `default`, `wl64` (warm-up of 64 steps), `spa_only`, `lora_only`.
    #[option(default = AdapterSchedule::WarmUp(16), value = "SCHEDULE", set = schedule)]
    pub schedule: AdapterSchedule,
    /// Batches whose gradients choose the sparse part.
    #[option(default = 1, value = "N", range = 1..=65536)]
    pub spa_num_grads: usize,
    /// How these gradients are accumulated.
    #[option(choices)]
    pub grad_acc_mode: GradAccMode,
    /// Peak learning rate of the low-rank part.
    #[option(default = 3e-3, value = "X", range = 1e-12..=1e3)]
    pub lora_lr: f64,
    /// Peak learning rate of the sparse part.
    #[option(default = 1e-3, value = "X", range = 1e-12..=1e3)]
    pub spa_lr: f64,
    /// Bits of the base's weights while adapters train: 8 or 4, to hold less in memory (QRoSA).
    #[option(choices, shown = "32")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_bits: Option<BaseBits>,
    /// Options of the adapter `sora`.
    #[option(table)]
    #[serde(skip_serializing_if = "is_default")]
    pub sora: SoraSpec,
    /// Options of the adapter `snell`.
    #[option(table)]
    #[serde(skip_serializing_if = "is_default")]
    pub snell: SnellSpec,
}

fn schedule(text: &str) -> Result<Table, String> {
    let schedule = AdapterSchedule::try_from(text.to_owned())?;
    Ok(entry("schedule", Value::String(schedule.into())))
}

/// Methods that read none of the options beside them.
const WITHOUT_OPTIONS: [&str; 2] = ["full", "head"];

/// Whether an adapter has options: the others of [`AdaptSpec`] change nothing where it has none.
pub fn has_options(adapter: &str) -> bool {
    !WITHOUT_OPTIONS.contains(&adapter)
}

fn no_options(recipe: &Table) -> Option<&'static str> {
    let method = said(recipe, "adapt.method")?.as_str()?;
    not_finetuned(recipe).or((!has_options(method)).then_some("no adapter is trained (--adapt)"))
}

/// Bits of weights that are not trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(try_from = "u8", into = "u8")]
pub enum BaseBits {
    /// Whole numbers with a scale for each 64 weights.
    #[value(name = "8")]
    Eight,
    /// NormalFloat4 with a scale for each 64 weights (QLoRA, arXiv 2305.14314).
    #[value(name = "4")]
    Four,
}

impl From<BaseBits> for u8 {
    fn from(bits: BaseBits) -> Self {
        match bits {
            BaseBits::Eight => 8,
            BaseBits::Four => 4,
        }
    }
}

impl TryFrom<u8> for BaseBits {
    type Error = String;

    fn try_from(bits: u8) -> Result<Self, String> {
        match bits {
            8 => Ok(Self::Eight),
            4 => Ok(Self::Four),
            other => Err(format!("weights are held in 8 or 4 bits, not in {other}")),
        }
    }
}

/// Where an adapter may change a pruned layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// On the mask only: same support, no cost at run time.
    #[default]
    Keep,
    /// The sparse part may lie anywhere; as many of the smallest weights go.
    Grow,
    /// The low-rank part stays a branch of its own.
    Branch,
}

/// How the low-rank part of an adapter starts. It never changes the network before the first step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum AdapterInit {
    /// `A` uniform as in He et al., `B` zero.
    #[default]
    Default,
    /// `A` from the principal components of the layer's inputs (EVA, arXiv 2410.07170), `B` zero.
    Eva,
    /// From what pruning took away (SLiM, arXiv 2410.09615).
    Residual,
}

/// How gradients are accumulated to choose a support.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum GradAccMode {
    /// Mean of squares: the diagonal of the empirical Fisher matrix.
    #[default]
    MeanSquared,
    /// Mean.
    Mean,
}

/// Which parts of an adapter are trained when: `default` (both, with no warm-up), `wl64` (support chosen after
/// 64 steps of the low-rank part, then restart), `spa_only`, `lora_only`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum AdapterSchedule {
    /// Warm-up of the low-rank part for this many steps, then both from the start.
    WarmUp(usize),
    /// The sparse part alone.
    SparseOnly,
    /// The low-rank part alone.
    LowRankOnly,
}

impl From<AdapterSchedule> for String {
    fn from(schedule: AdapterSchedule) -> Self {
        match schedule {
            AdapterSchedule::WarmUp(steps) => format!("wl{steps}"),
            AdapterSchedule::SparseOnly => "spa_only".to_owned(),
            AdapterSchedule::LowRankOnly => "lora_only".to_owned(),
        }
    }
}

impl TryFrom<String> for AdapterSchedule {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "default" | "df" => Ok(Self::WarmUp(0)),
            "spa_only" => Ok(Self::SparseOnly),
            "lora_only" => Ok(Self::LowRankOnly),
            other => {
                other.strip_prefix("wl").and_then(|steps| steps.parse().ok()).map(Self::WarmUp).ok_or_else(
                    || format!("`{text}` is no schedule: use default, wl64, spa_only or lora_only"),
                )
            }
        }
    }
}
