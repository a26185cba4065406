//! Recipes: every choice of a run with its value, saved beside the result so that it can be repeated.

use std::collections::BTreeMap;
use std::path::PathBuf;

use margay_core::{Granularity, Sparsity};
use serde::{Deserialize, Serialize};

/// Everything that determines a compressed model. Field order is the order in `recipe.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Recipe {
    /// Checkpoint to specialise.
    pub model: PathBuf,
    /// JSON or text file with the checkpoint's class names in the order of its head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<PathBuf>,
    /// Folder with one folder per class, optionally under `train/` and `val/`.
    pub data: PathBuf,
    /// How folders become classes, and classes outputs of the checkpoint.
    #[serde(default, skip_serializing_if = "ClassSpec::is_default")]
    pub classes: ClassSpec,
    /// Folder of photos of anything, without labels, whose statistics steady those of the few shots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub general: Option<PathBuf>,
    /// Folder of the user's own photos without labels, on which the dense network is imitated too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlabelled: Option<PathBuf>,
    /// The one seed of the run.
    #[serde(default)]
    pub seed: u64,
    /// `auto`, `cpu`, `cuda` or `cuda:n`.
    #[serde(default = "auto")]
    pub device: String,
    /// CPU threads of every stage; 0 takes all cores.
    #[serde(default)]
    pub threads: usize,
    /// How the few shots are drawn.
    #[serde(default)]
    pub shots: Shots,
    /// How photos become inputs.
    #[serde(default)]
    pub input: InputSpec,
    /// How weights are removed.
    #[serde(default)]
    pub prune: PruneSpec,
    /// How accuracy is won back.
    #[serde(default)]
    pub recovery: RecoverySpec,
    /// What is trained when accuracy is won back.
    #[serde(default)]
    pub adapt: AdaptSpec,
}

/// How folders become classes, and classes outputs of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ClassSpec {
    /// How far below the folder of photos (or below `train/` and `val/`) the class folders are; absent: 1, and they are
    /// refused where they look like cameras.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<usize>,
    /// Whether links that lead out of the folders given are followed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub follow_links: bool,
    /// Whether a new head is fitted whatever labels the checkpoint has.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub fit_head: bool,
    /// Labels of the checkpoint that a class stands for; several count as one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub map: BTreeMap<String, Vec<String>>,
}

impl ClassSpec {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How the few shots are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Shots {
    /// Images per class; 0 takes all.
    pub per_class: usize,
    /// Fraction of the shots held out for every choice (at least one image per class where two exist).
    pub holdout: f64,
    /// Whether every class counts the same, however many shots it has.
    pub balance: bool,
    /// Most photos taken from the folder of general ones.
    pub general: usize,
    /// Most photos of that folder looked at; where these are more, those that resemble the task are taken.
    pub general_pool: usize,
    /// Most photos taken from the folder of unlabelled ones.
    pub unlabelled: usize,
}

/// How photos become inputs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct InputSpec {
    /// Name of a preset; absent: what the checkpoint's files say, else the constants of ImageNet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preprocess: Option<String>,
    /// Side of the square input in pixels; absent: that of the preset or of the checkpoint's files, else the
    /// images' own where all share a square one of at most 224, else 224.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_size: Option<usize>,
    /// The layer of the checkpoint that is its classifier, by its name there, or `none` to fit a new one; absent: the only one
    /// that can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    /// `squash`, `short-side` or `pad`; absent: as in the preset or the checkpoint's files, else
    /// `short-side` at 224 and `squash` at other sizes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize: Option<ResizeChoice>,
}

/// How a photo is brought to the input size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResizeChoice {
    /// Scale both sides.
    Squash,
    /// Scale the short side to 256/224 of the size (or as the preset says), cut out the centre.
    ShortSide,
    /// Scale the photo until it fits, fill the rest with the mean colour.
    Pad,
}

/// How weights are removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct PruneSpec {
    /// Name in the table of solvers.
    pub solver: String,
    /// Name in the table of allocators.
    pub allocation: String,
    /// Fraction of zeros over the weights that count.
    pub sparsity: Sparsity,
    /// Which weights count.
    pub count: Count,
    /// What the pruned network may cost; absent: the weights that the sparsity leaves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// The most held-out accuracy that may be lost, 0–1; beyond it, and beyond chance, less is pruned. Absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_drop: Option<f64>,
    /// The most that the recall of a class may fall, 0–1, by cross-validation on the shots; beyond it less is pruned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_class_drop: Option<f64>,
    /// What stays or goes as one: `unstructured`, `2:4`, `4x1` and the like, `channels`.
    #[serde(with = "as_text")]
    pub pattern: Granularity,
    /// Added to the Hessian's diagonal, relative to its mean.
    pub damping: Tuned,
    /// Weight of the general photos' statistics beside those of the shots, 0–1.
    pub general_share: Tuned,
    /// How far a layer also makes good what its pruned predecessors changed, 0–1.
    pub correction: f64,
    /// Whether the last layer of a residual branch makes good what the residual stream lacks, not its own output only.
    pub stream: bool,
    /// How far an output feature counts by what the loss makes of it (exponent of its Fisher information), 0–1.
    pub fisher: f64,
    /// How far a position counts by what the loss makes of the outputs there (exponent of its Fisher information), 0–1.
    pub positions: f64,
    /// How often statistics see each shot: once as it is, then varied as in training.
    pub views: usize,
    /// Images per calibration batch.
    pub batch: usize,
}

/// Which weights a sparsity is a fraction of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Count {
    /// Those of layers that can be pruned.
    Prunable,
    /// Every parameter of the network but statistics of norms: stem, head, norms, biases and positions, too.
    #[default]
    All,
}

/// What a pruned network may cost, if not in weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// So many times fewer multiply-adds, such as `10x-macs`.
    Macs(f64),
    /// So many times faster than dense on this machine's runtime at batch 1, such as `3x-speedup`.
    Speedup(f64),
    /// So many milliseconds an image there, such as `8ms`.
    Milliseconds(f64),
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        match target {
            Target::Macs(fold) => format!("{fold}x-macs"),
            Target::Speedup(fold) => format!("{fold}x-speedup"),
            Target::Milliseconds(ms) => format!("{ms}ms"),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = |suffix| text.strip_suffix(suffix).and_then(|number| number.trim().parse::<f64>().ok());
        let target = if let Some(fold) = number("x-macs") {
            Self::Macs(fold)
        } else if let Some(fold) = number("x-speedup") {
            Self::Speedup(fold)
        } else if let Some(ms) = number("ms") {
            Self::Milliseconds(ms)
        } else {
            return Err(format!("`{text}` is no target: use 10x-macs, 3x-speedup or 8ms"));
        };
        let (Self::Macs(x) | Self::Speedup(x) | Self::Milliseconds(x)) = target;
        if x.is_finite() && x > 0.0 { Ok(target) } else { Err(format!("`{text}` must be above 0")) }
    }
}

/// A number, or `auto`: the best of a few on the held-out fold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Tuned {
    /// This number.
    Value(f64),
    /// Chosen on the held-out fold.
    #[serde(with = "auto_word")]
    Auto,
}

/// Values that recipes write as people do.
mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The word `auto` in a recipe.
mod auto_word {
    use serde::de::{Deserializer, Error};
    use serde::{Deserialize, Serializer};

    const WORD: &str = "auto";

    pub fn serialize<S: Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(WORD)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            WORD => Ok(()),
            other => Err(D::Error::custom(format!("`{other}` is neither a number nor `{WORD}`"))),
        }
    }
}

impl std::str::FromStr for Tuned {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            number => number.parse().map(Self::Value).map_err(|_| "must be a number or `auto`".to_owned()),
        }
    }
}

/// How accuracy is won back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RecoverySpec {
    /// Recalibration of norms on the shots after pruning.
    pub recalibrate: Recalibration,
    /// When finetuning happens.
    pub schedule: Schedule,
    /// Passes over the shots (per halving when gradual).
    pub epochs: usize,
    /// Numbers of passes of which the held-out fold chooses one; empty: as said above.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub try_epochs: Vec<usize>,
    /// Whether a pilot of a quarter of the passes, judged on the held-out fold, says if the network is finetuned at all.
    pub pilot: bool,
    /// Images per step.
    pub batch: usize,
    /// What takes the steps.
    pub optimizer: OptimizerChoice,
    /// Peak learning rate; absent: 0.003 for SGD, 0.001 for AdamW.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Gradients of a larger norm, over all parameters together, are scaled down to this one; 0: never.
    pub max_grad_norm: f64,
    /// L2 penalty on weights.
    pub weight_decay: f64,
    /// Weight of the cross-entropy with the labels; absent: 1 where the head is fitted to the shots, 0.1 where its rows are
    /// the pretrained classifier's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cross_entropy: Option<f64>,
    /// Label smoothing of the cross-entropy; absent: 0 where the head is fitted to the shots, otherwise 0.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_smoothing: Option<f64>,
    /// Weight of the Kullback–Leibler divergence to the dense teacher.
    pub distillation: f64,
    /// Temperature of the distillation.
    pub temperature: f64,
    /// Weight of the mean normalised squared feature error per block (SquareHead).
    pub square_head: f64,
    /// Smallest share of a photo's area that a random crop shows; 1: whole photos only.
    pub crop: f64,
    /// Share of the network's multiply-adds at its start that finetuning leaves as they are, 0–0.9. Adapters are trained
    /// everywhere.
    pub freeze: f64,
    /// Number of views that training has of each photo; 0: a new one whenever the photo is shown. The teacher answers each
    /// once, unless outputs of its blocks are imitated.
    pub fixed_views: usize,
    /// Whether activations are computed twice, to hold fewer of them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub recompute: bool,
}

/// What is trained when accuracy is won back; options as RoSA's users know them (arXiv 2401.04679).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct AdaptSpec {
    /// Name in the table of adapters; `full` trains every surviving weight.
    pub method: String,
    /// Where an adapter may change a pruned layer.
    pub policy: Policy,
    /// Trainable adapter parameters as a fraction of all weights; sets `r` and `d`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<f64>,
    /// Rank of the low-rank part.
    pub r: usize,
    /// Density of the sparse part: fraction of a layer's weights.
    pub d: f64,
    /// The low-rank part is scaled by `lora_alpha / r`.
    pub lora_alpha: f64,
    /// How the low-rank part starts.
    pub init: AdapterInit,
    /// Which parts are trained when.
    pub schedule: AdapterSchedule,
    /// Batches whose gradients choose the support of the sparse part.
    pub spa_num_grads: usize,
    /// How these gradients are accumulated.
    pub grad_acc_mode: GradAccMode,
    /// Peak learning rate of the low-rank part.
    pub lora_lr: f64,
    /// Peak learning rate of the sparse part.
    pub spa_lr: f64,
    /// Bits of the base's weights while adapters train (QRoSA); absent: 32.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_bits: Option<BaseBits>,
}

/// Bits of weights that are not trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum BaseBits {
    /// Whole numbers with a scale for each 64 weights.
    Eight,
    /// NormalFloat4 with a scale for each 64 weights (QLoRA, arXiv 2305.14314).
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

/// Whether norms are recalibrated after pruning: statistics of batch norms, means behind layer norms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// Reads a compression such as `20x` as the sparsity that it stands for.
pub fn parse_compression(text: &str) -> Result<Sparsity, String> {
    let digits = text.strip_suffix(['x', 'X', '×']).unwrap_or(text);
    let factor: f64 = digits.parse().map_err(|_| "must be a factor such as 20x".to_owned())?;
    Sparsity::from_compression(factor).map_err(|_| format!("{text} is no factor of at least 1"))
}

/// Everything that determines a dense model trained by `margay train`.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainSpec {
    /// The weights to start from.
    pub start: Start,
    /// Folder with one folder per class, optionally under `train/` and `val/`.
    pub data: PathBuf,
    /// How folders become classes, and classes outputs of the checkpoint and of the teacher.
    pub classes: ClassSpec,
    /// The one seed of the run.
    pub seed: u64,
    /// `auto`, `cpu`, `cuda` or `cuda:n`.
    pub device: String,
    /// CPU threads; 0 takes all cores.
    pub threads: usize,
    /// How photos become inputs.
    pub input: InputSpec,
    /// Images per class; 0 takes all.
    pub shots: usize,
    /// Passes over the photos.
    pub epochs: usize,
    /// Images per step.
    pub batch: usize,
    /// What takes the steps.
    pub optimizer: OptimizerChoice,
    /// Peak learning rate; absent: 0.1 for SGD and 0.001 for AdamW from scratch, 0.003 and 0.0001 from a checkpoint.
    pub learning_rate: Option<f64>,
    /// L2 penalty on weights.
    pub weight_decay: f64,
    /// Label smoothing of the cross-entropy.
    pub label_smoothing: f64,
    /// A model to imitate beside the labels.
    pub teacher: Option<Teacher>,
}

/// A model whose answers are imitated.
#[derive(Clone, Debug, PartialEq)]
pub struct Teacher {
    /// Its checkpoint.
    pub model: PathBuf,
    /// Its class names; absent: those stored in the checkpoint.
    pub labels: Option<PathBuf>,
    /// Weight of the Kullback–Leibler divergence to its answers; the cross-entropy has weight 1.
    pub weight: f64,
    /// Temperature of both answers.
    pub temperature: f64,
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
}

fn auto() -> String {
    "auto".to_owned()
}

impl Default for Shots {
    fn default() -> Self {
        Self {
            per_class: 16,
            holdout: 0.2,
            balance: true,
            general: 256,
            general_pool: 2048,
            unlabelled: 1024,
        }
    }
}

impl Default for PruneSpec {
    fn default() -> Self {
        let sparsity = Sparsity::from_compression(20.0).unwrap_or(Sparsity::DENSE);
        Self {
            solver: "alps".into(),
            allocation: "erk".into(),
            sparsity,
            count: Count::All,
            target: None,
            max_drop: None,
            max_class_drop: None,
            pattern: Granularity::UNSTRUCTURED,
            damping: Tuned::Value(0.1),
            general_share: Tuned::Auto,
            correction: 1.0,
            stream: true,
            fisher: 0.5,
            positions: 0.5,
            views: 1,
            batch: 64,
        }
    }
}

impl Default for AdaptSpec {
    fn default() -> Self {
        Self {
            method: "full".to_owned(),
            policy: Policy::Keep,
            budget: None,
            r: 8,
            d: 0.003,
            lora_alpha: 8.0,
            init: AdapterInit::Default,
            schedule: AdapterSchedule::WarmUp(16),
            spa_num_grads: 1,
            grad_acc_mode: GradAccMode::MeanSquared,
            lora_lr: 3e-3,
            spa_lr: 1e-3,
            base_bits: None,
        }
    }
}

impl Default for RecoverySpec {
    fn default() -> Self {
        Self {
            recalibrate: Recalibration::Auto,
            schedule: Schedule::OneShot,
            epochs: 30,
            try_epochs: Vec::new(),
            pilot: true,
            batch: 32,
            optimizer: OptimizerChoice::Auto,
            learning_rate: None,
            max_grad_norm: 10.0,
            weight_decay: 1e-4,
            cross_entropy: None,
            label_smoothing: None,
            distillation: 1.0,
            temperature: 4.0,
            square_head: 0.0,
            crop: 0.5,
            freeze: 0.5,
            fixed_views: 8,
            recompute: false,
        }
    }
}
