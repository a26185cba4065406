//! The record of one run: every figure that the table, `run.json` and the report show.

use std::collections::BTreeMap;
use std::fmt;

use margay_runtime::highest;
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Everything that a run of `compress` measured. Saved as `run.json`; the report is a function of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Version of margay that made the record.
    pub version: String,
    /// What was compressed.
    pub model: ModelInfo,
    /// Where the run took place.
    pub machine: Machine,
    /// The resolved recipe as TOML.
    pub recipe: String,
    /// Images per class and split.
    pub data: DataInfo,
    /// The task before pruning, on val.
    pub dense: Evaluation,
    /// Pruned, before finetuning, on val.
    pub oneshot: Evaluation,
    /// The exported model on the exported runtime, on val.
    pub specialist: Evaluation,
    /// Weights that are not zero.
    pub nonzeros: Nonzeros,
    /// File sizes.
    pub bytes: Pair<u64>,
    /// Multiply–accumulates per image.
    pub macs: Pair<u64>,
    /// Time per image.
    pub latency_ms: Latency,
    /// How close the runtime is to torch.
    pub parity: Parity,
    /// Wall-clock seconds per stage, in the order of the run.
    pub seconds: Stages,
    /// Largest resident set of the process in bytes; absent where the system does not tell.
    pub peak_rss_bytes: Option<u64>,
    /// What the adapter trained, if recovery trained one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<Trained>,
    /// The pruned layers in the order of the graph.
    pub layers: Vec<LayerRecord>,
    /// How far the network that was pruned without the held-out fold is from the dense one after each block; empty where nothing
    /// asked the fold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<BlockRecord>,
    /// Decisions made on the held-out fold.
    pub choices: Vec<Choice>,
    /// Photos that were skipped.
    pub bad_photos: Vec<BadPhoto>,
    /// Photos that are truncated or damaged and were used nevertheless.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub noted_photos: Vec<NotedPhoto>,
    /// Everything the user was warned about.
    pub warnings: Vec<String>,
    /// Val images that dense and specialist answer differently, in the order of val.
    pub changed: Vec<ChangedAnswer>,
}

/// What was measured when a model was adapted. Saved as `run.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdaptRecord {
    /// Version of margay that made the record.
    pub version: String,
    /// What was adapted.
    pub model: ModelInfo,
    /// Where the run took place.
    pub machine: Machine,
    /// The resolved recipe as TOML.
    pub recipe: String,
    /// Images per class and split.
    pub data: DataInfo,
    /// The base with the task's head, on val.
    pub base: Evaluation,
    /// The adapted model on the exported runtime, on val.
    pub adapted: Evaluation,
    /// What was trained.
    pub trained: Trained,
    /// Whether every weight has the support that it had in the base.
    pub support_unchanged: bool,
    /// Weights that are not zero, over all parameters, before and after.
    pub nonzeros: [u64; 2],
    /// Bytes of the base's file, of the adapted model's, and of the adapter's.
    pub bytes: [u64; 3],
    /// Time per image; `dense` is the base, `sparse` the adapted model.
    pub latency_ms: Latency,
    /// How close the runtime is to torch.
    pub parity: Parity,
    /// Wall-clock seconds per stage, in the order of the run.
    pub seconds: Stages,
    /// Largest resident set of the process in bytes; absent where the system does not tell.
    pub peak_rss_bytes: Option<u64>,
    /// Photos that were skipped.
    pub bad_photos: Vec<BadPhoto>,
    /// Photos that are truncated or damaged and were used nevertheless.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub noted_photos: Vec<NotedPhoto>,
    /// Everything the user was warned about.
    pub warnings: Vec<String>,
}

/// Parameters that an adapter trains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trained {
    /// In the layers' adapters.
    pub adapter: u64,
    /// Of the base, beside them: head, norms, biases.
    pub beside: u64,
    /// `adapter` as a fraction of all parameters of the network.
    pub share: f64,
}

impl AdaptRecord {
    /// The record as indented JSON with a final line break.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|json| json + "\n")
    }
}

/// What was compressed, and where it came from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Name of the architecture, such as `resnet18`.
    pub architecture: String,
    /// The checkpoint as the user named it.
    pub checkpoint: String,
    /// SHA-256 of the checkpoint file in hexadecimal.
    pub sha256: String,
    /// How the head came to the task's classes: `sliced`, `probe`, `as is`.
    pub head: String,
    /// Height and width of the input in pixels.
    pub input: [usize; 2],
    /// Further facts such as licence, source and citation, in alphabetic order.
    #[serde(default)]
    pub provenance: BTreeMap<String, String>,
}

/// Where the run took place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Name of the processor.
    pub cpu: String,
    /// Instruction set that the kernels chose.
    pub isa: String,
    /// CPU threads in use.
    pub threads: usize,
    /// Device of the torch stages: `cpu` or `cuda:0`.
    pub device: String,
}

/// Images behind the figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DataInfo {
    /// The data as the user named it.
    pub path: String,
    /// Few-shot images that calibrate and finetune.
    pub calibration: usize,
    /// Shots held out for choices.
    pub holdout: usize,
    /// Images of the final evaluation.
    pub val: usize,
    /// Where the split into train and val comes from; absent in older records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// What was left out of the folder, by kind; absent where nothing was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOutKind>,
    /// Photos of anything whose statistics were taken, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub general: Vec<String>,
}

/// Where the split into train and val comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// `folders`: train and val were given; `photo`: val was drawn photo by photo.
    pub by: String,
    /// Whether figures on val flatter: photos of one place and day may be on both sides.
    pub optimistic: bool,
}

/// Files and folders of one kind that were left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOutKind {
    /// The kind: `heic`, `raw`, `avif`, `image`, `video`, `other`, `system`, `hidden`, `link`, `locked`, `special`, `loose`,
    /// `split`, `no-class`.
    pub kind: String,
    /// How many.
    pub count: usize,
    /// How many of each extension, or of each name.
    pub names: BTreeMap<String, usize>,
}

/// Top-1 accuracy on a set of images, with what is needed to see how sure it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Fraction of right answers; absent without images.
    pub top1: Option<f64>,
    /// Wilson 95 % interval of `top1`.
    pub top1_interval: [f64; 2],
    /// Mean of −ln p(true class) over the images; absent where only answers are known. Tells networks apart that top-1 cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cross_entropy: Option<f64>,
    /// Beside the dense network's answers to the same images; absent of that network itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against_dense: Option<Paired>,
    /// Right answers.
    pub correct: usize,
    /// Images.
    pub total: usize,
    /// Recall per class, in the order of the head.
    pub classes: Vec<ClassRecall>,
    /// Non-zero cells of the confusion matrix, by truth, then by answer.
    pub confusion: Vec<ConfusionCell>,
}

/// One network beside another on the same images. That some images are harder than others cancels out, so these intervals are
/// narrower than those of either network alone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// Images that the other answers right and this one wrong.
    pub lost: usize,
    /// Images that the other answers wrong and this one right.
    pub won: usize,
    /// Top-1 of this one minus that of the other, with Agresti and Min's 95 % interval.
    pub top1: Difference,
    /// Cross-entropy of this one minus that of the other, with the 95 % interval of a mean.
    pub cross_entropy: Difference,
}

/// A difference and its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The difference.
    pub mean: f64,
    /// Both ends of its interval.
    pub interval: [f64; 2],
}

/// Recall of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassRecall {
    /// Name of the class.
    pub label: String,
    /// Fraction of the class's images answered right; absent without images.
    pub recall: Option<f64>,
    /// Right answers.
    pub correct: usize,
    /// Images of the class.
    pub total: usize,
    /// Wilson 95 % interval of `recall`.
    pub interval: [f64; 2],
}

/// One cell of a confusion matrix; classes are positions in [`Evaluation::classes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfusionCell {
    /// Class of the images.
    pub truth: usize,
    /// Class answered.
    pub predicted: usize,
    /// Images.
    pub count: usize,
}

/// A figure of the dense model and of the sparse one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair<T> {
    /// Before.
    pub dense: T,
    /// After.
    pub sparse: T,
}

/// Weights that are not zero: over those that the compression counts, over the prunable ones and over all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nonzeros {
    /// `all.dense`, or `prunable.dense` where a compression counts these.
    pub dense: u64,
    /// `all.sparse`, or `prunable.sparse` where a compression counts these.
    pub sparse: u64,
    /// Over the weights of the layers that can be pruned.
    pub prunable: Pair<u64>,
    /// Over every parameter of the model; statistics of norms are none.
    pub all: Pair<u64>,
}

/// Milliseconds per image of dense and sparse model, measured in one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Median of the dense model.
    pub dense: f64,
    /// Median of the sparse model.
    pub sparse: f64,
    /// Fastest and slowest run of the dense model.
    pub dense_range: [f64; 2],
    /// Fastest and slowest run of the sparse model.
    pub sparse_range: [f64; 2],
    /// Timed runs of each.
    pub runs: usize,
    /// Images per run.
    pub batch: usize,
    /// CPU threads.
    pub threads: usize,
}

/// How close the runtime is to torch on the same images, with values between layers in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Parity {
    /// Largest `|Δlogit|`.
    pub max_abs_logit_difference: f64,
    /// Largest `|logit|`.
    pub max_abs_logit: f64,
    /// Largest difference of torch's logits in f32 and in f64; measured only where `|Δlogit|` is large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_abs_rounding: Option<f64>,
    /// Fraction of images with the same answer.
    pub argmax_agreement: f64,
    /// Fraction of images that the runtime answers in bf16, its default, as in f32; absent in older records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bf16_agreement: Option<f64>,
    /// Images compared.
    pub images: usize,
}

/// Seconds per stage in the order of the run; a JSON object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stages(Vec<(String, f64)>);

/// One pruned layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Name of the weight without its suffix.
    pub name: String,
    /// Shape of the weight.
    pub shape: Vec<usize>,
    /// Fraction of zeros.
    pub sparsity: f64,
    /// Weights that stay.
    pub nonzeros: usize,
    /// `‖X(W − Ŵ)‖² / ‖XW‖²` on the calibration images, right after solving.
    pub error: f64,
    /// Seconds to solve it.
    pub seconds: f64,
}

/// One block of a pruned network beside the dense one, before finetuning: on shots that it was pruned on, and on those held out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockRecord {
    /// Name of the block.
    pub name: String,
    /// `‖x̃ − x‖² / ‖x‖²` of what the block hands on.
    pub error: [f64; 2],
    /// Mean divergence KL(dense ‖ pruned) of the answers in nats, where the network is pruned up to this block only.
    pub divergence: [f64; 2],
}

/// A decision made on the held-out fold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// What was decided, such as `batch norm re-estimation`.
    pub what: String,
    /// What could be taken, with the held-out score.
    pub candidates: Vec<Candidate>,
    /// Name of the candidate taken.
    pub taken: String,
}

/// A candidate of a [`Choice`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Name of the candidate.
    pub name: String,
    /// Held-out accuracy; absent where nothing was held out.
    pub top1: Option<f64>,
    /// Held-out loss, if it decided.
    pub loss: Option<f64>,
    /// Most that the recall of a class fell on the held-out fold, if that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_drop: Option<f64>,
}

/// A photo that was skipped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadPhoto {
    /// Path inside the data folder.
    pub path: String,
    /// Why it could not be used.
    pub reason: String,
}

/// A photo that is truncated or damaged and was used nevertheless.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotedPhoto {
    /// Path inside the data folder.
    pub path: String,
    /// What is wrong with it.
    pub note: String,
}

/// A val image whose answer changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangedAnswer {
    /// Path inside the data folder.
    pub path: String,
    /// Its class.
    pub label: String,
    /// What the dense model says.
    pub dense: Answer,
    /// What the specialist says.
    pub specialist: Answer,
}

/// An answer and how sure the model is of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Name of the class.
    pub label: String,
    /// Probability, 0 to 1.
    pub confidence: f64,
}

impl RunRecord {
    /// The record as indented JSON with a final line break.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|json| json + "\n")
    }

    /// Reads what [`RunRecord::to_json`] wrote.
    pub fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }
}

impl Evaluation {
    /// Counts answers: `truth[i]` and `predicted[i]` are positions in `labels`.
    ///
    /// # Panics
    /// If the lists differ in length or a position is not in `labels`.
    pub fn from_predictions(labels: &[String], truth: &[usize], predicted: &[usize]) -> Self {
        assert_eq!(truth.len(), predicted.len());
        let mut cells = BTreeMap::new();
        for (&truth, &predicted) in truth.iter().zip(predicted) {
            assert!(truth < labels.len() && predicted < labels.len());
            *cells.entry((truth, predicted)).or_insert(0) += 1;
        }
        let mut totals = vec![0; labels.len()];
        for &t in truth {
            totals[t] += 1;
        }
        let hits = |class| cells.get(&(class, class)).copied().unwrap_or(0);
        let classes: Vec<ClassRecall> = labels
            .iter()
            .zip(&totals)
            .enumerate()
            .map(|(class, (label, &total))| ClassRecall::new(label, hits(class), total))
            .collect();
        let correct = classes.iter().map(|class| class.correct).sum();
        Self {
            top1: fraction(correct, truth.len()),
            top1_interval: wilson(correct, truth.len()),
            cross_entropy: None,
            against_dense: None,
            correct,
            total: truth.len(),
            classes,
            confusion: cells
                .into_iter()
                .map(|((truth, predicted), count)| ConfusionCell { truth, predicted, count })
                .collect(),
        }
    }

    /// Images of class `truth` that were answered with class `predicted`.
    pub fn confused(&self, truth: usize, predicted: usize) -> usize {
        let at = self.confusion.binary_search_by_key(&(truth, predicted), |c| (c.truth, c.predicted));
        at.map_or(0, |i| self.confusion[i].count)
    }
}

impl Paired {
    /// Compares which images are right, and their losses −ln p(true class), of the other network and then of this one; nothing
    /// of no images.
    ///
    /// The interval of top-1 is Wald's with half an image more in each cell of the 2 × 2 table: Agresti and Min, "Simple improved
    /// confidence intervals for comparing matched proportions", Statistics in Medicine 2005.
    ///
    /// # Panics
    /// If the lists differ in length.
    pub fn of(right: [&[bool]; 2], losses: [&[f64]; 2]) -> Option<Self> {
        let images = right[0].len();
        assert!([right[1].len(), losses[0].len(), losses[1].len()] == [images; 3]);
        if images == 0 {
            return None;
        }
        let count = |before: bool| {
            let pairs = right[0].iter().zip(right[1]);
            pairs.filter(|(a, b)| (**a, **b) == (before, !before)).count()
        };
        let (lost, won) = (count(true), count(false));
        let (b, c, n) = (lost as f64 + 0.5, won as f64 + 0.5, images as f64 + 2.0);
        let centre = (c - b) / n;
        let half = Z * (b + c - (c - b).powi(2) / n).sqrt() / n;
        let top1 = Difference {
            mean: (won as f64 - lost as f64) / images as f64,
            interval: [(centre - half).max(-1.0), (centre + half).min(1.0)],
        };
        Some(Self { lost, won, top1, cross_entropy: Difference::of_mean(losses) })
    }
}

impl Difference {
    /// The mean difference of pairs, at least one, with the interval of the central limit theorem.
    fn of_mean([before, after]: [&[f64]; 2]) -> Self {
        let differences = || before.iter().zip(after).map(|(before, after)| after - before);
        let n = before.len() as f64;
        let mean = differences().sum::<f64>() / n;
        let square = differences().map(|difference| (difference - mean).powi(2)).sum::<f64>();
        let half = Z * (square / (n - 1.0).max(1.0) / n).sqrt();
        Self { mean, interval: [mean - half, mean + half] }
    }

    /// Standard error, as the interval has it.
    pub fn error(&self) -> f64 {
        (self.interval[1] - self.interval[0]) / (2.0 * Z)
    }
}

impl ClassRecall {
    /// Recall of a class with `correct` right answers out of `total`.
    pub fn new(label: &str, correct: usize, total: usize) -> Self {
        Self {
            label: label.to_owned(),
            recall: fraction(correct, total),
            correct,
            total,
            interval: wilson(correct, total),
        }
    }
}

impl Nonzeros {
    /// Counts over the prunable weights and over all, of which a compression counts some.
    pub fn new(counted: Pair<u64>, prunable: Pair<u64>, all: Pair<u64>) -> Self {
        Self { dense: counted.dense, sparse: counted.sparse, prunable, all }
    }
}

impl Parity {
    /// Compares logits `[images, classes]` of torch and of the runtime.
    ///
    /// # Panics
    /// If the lists differ in length or are not a whole number of images.
    pub fn compare(torch: &[f32], runtime: &[f32], classes: usize) -> Self {
        assert_eq!(torch.len(), runtime.len());
        assert!(classes > 0 && torch.len().is_multiple_of(classes));
        let images = torch.len() / classes;
        let pairs = || torch.iter().zip(runtime).map(|(a, b)| (f64::from(*a), f64::from(*b)));
        let rows = torch.chunks_exact(classes).zip(runtime.chunks_exact(classes));
        let agreed = rows.filter(|(a, b)| highest(a, 1) == highest(b, 1)).count();
        Self {
            max_abs_logit_difference: pairs().map(|(a, b)| (a - b).abs()).fold(0.0, larger),
            max_abs_logit: pairs().map(|(a, _)| a.abs()).fold(0.0, larger),
            max_abs_rounding: None,
            argmax_agreement: fraction(agreed, images).unwrap_or(1.0),
            bf16_agreement: None,
            images,
        }
    }
}

impl Stages {
    /// Adds `seconds` to `stage`, which goes to the end if it is new.
    pub fn add(&mut self, stage: &str, seconds: f64) {
        match self.0.iter_mut().find(|(name, _)| name == stage) {
            Some((_, sum)) => *sum += seconds,
            None => self.0.push((stage.to_owned(), seconds)),
        }
    }

    /// Stages and their seconds in the order of the run.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> + '_ {
        self.0.iter().map(|(name, seconds)| (name.as_str(), *seconds))
    }

    /// Seconds of all stages.
    pub fn total(&self) -> f64 {
        self.0.iter().map(|(_, seconds)| seconds).sum()
    }
}

impl Serialize for Stages {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, seconds) in &self.0 {
            map.serialize_entry(name, seconds)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Stages {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(StagesVisitor)
    }
}

struct StagesVisitor;

impl<'de> Visitor<'de> for StagesVisitor {
    type Value = Stages;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of seconds per stage")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Stages, A::Error> {
        let mut stages = Stages::default();
        while let Some((name, seconds)) = map.next_entry::<String, f64>()? {
            stages.add(&name, seconds);
        }
        Ok(stages)
    }
}

/// The 97.5 % quantile of the normal distribution.
pub(crate) const Z: f64 = 1.959_963_984_540_054;

/// Wilson's 95 % interval of a fraction of which `correct` out of `total` were seen; `[0, 1]` of nothing.
///
/// Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927:
/// `(p + z²/2n ± z·√(p(1 − p)/n + z²/4n²)) / (1 + z²/n)` with `z = 1.96`.
pub fn wilson(correct: usize, total: usize) -> [f64; 2] {
    if total == 0 {
        return [0.0, 1.0];
    }
    let z = Z;
    let (n, p) = (total as f64, correct as f64 / total as f64);
    let centre = p + z * z / (2.0 * n);
    let spread = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    [((centre - spread) / scale).max(0.0), ((centre + spread) / scale).min(1.0)]
}

fn fraction(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// The larger of two values, NaN if one is: `f64::max` would hide it.
fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn wilson_matches_published_values() {
        // Newcombe 1998, table I: 81/263, 15/148, 0/20, 1/29.
        for (correct, total, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
            (0, 0, 0.0, 1.0),
        ] {
            let [a, b] = wilson(correct, total);
            assert!((a - low).abs() < 5e-5 && (b - high).abs() < 5e-5, "{correct}/{total}: {a} {b}");
        }
    }

    #[test]
    fn pairs_tell_what_either_network_alone_does_not() {
        // Agresti, Categorical Data Analysis (2002), table 10.1: 794 approve twice, 150 only first, 86 only second, 570 never.
        // Wald's interval there is (−0.059, −0.021), and so many images adjust little.
        let cells = [(true, true, 794), (true, false, 150), (false, true, 86), (false, false, 570)];
        let spread = |pick: fn(&(bool, bool, usize)) -> bool| {
            cells.iter().flat_map(|cell| std::iter::repeat_n(pick(cell), cell.2)).collect::<Vec<_>>()
        };
        let (first, second) = (spread(|cell| cell.0), spread(|cell| cell.1));
        let losses = vec![1.0; 1600];
        let paired = Paired::of([&first, &second], [&losses, &losses]).unwrap();
        assert_eq!((paired.lost, paired.won), (150, 86));
        assert!((paired.top1.mean + 0.04).abs() < 1e-12);
        let [low, high] = paired.top1.interval;
        assert!((low + 0.0587).abs() < 2e-4 && (high + 0.0212).abs() < 2e-4, "{low} {high}");
        // Nothing differs: no doubt about losses, still some about answers.
        assert_eq!(paired.cross_entropy, Difference { mean: 0.0, interval: [0.0, 0.0] });
        let same = Paired::of([&[true], &[true]], [&[0.5], &[0.25]]).unwrap();
        assert!(same.top1.interval[0] < -0.2 && same.top1.interval[1] > 0.2 && same.top1.mean == 0.0);
        // Differences 1, 2, 3: mean 2, deviation 1.
        let three = Paired::of([&[true; 3], &[true; 3]], [&[0.0; 3], &[1.0, 2.0, 3.0]]).unwrap();
        assert!((three.cross_entropy.mean - 2.0).abs() < 1e-12);
        assert!((three.cross_entropy.error() - 1.0 / 3.0_f64.sqrt()).abs() < 1e-12);
        assert_eq!(Paired::of([&[], &[]], [&[], &[]]), None);
    }

    #[test]
    fn a_class_without_images_has_no_recall() {
        let eval = Evaluation::from_predictions(&labels(&["a", "b", "c"]), &[0, 0, 1, 1], &[0, 1, 1, 2]);
        assert_eq!((eval.top1, eval.correct, eval.total), (Some(0.5), 2, 4));
        assert_eq!(eval.classes[0].recall, Some(0.5));
        assert_eq!((eval.classes[2].recall, eval.classes[2].total), (None, 0));
        assert_eq!((eval.confused(0, 1), eval.confused(1, 2), eval.confused(2, 2)), (1, 1, 0));
        let json = serde_json::to_value(&eval).unwrap();
        assert_eq!(json["classes"][2]["recall"], serde_json::Value::Null);
    }

    #[test]
    fn parity_sees_the_largest_gap_and_the_flip() {
        let parity = Parity::compare(&[1.0, -4.0, 0.0, 0.5], &[1.0, -4.5, 0.6, 0.5], 2);
        assert!((parity.max_abs_logit_difference - 0.6).abs() < 1e-6);
        assert_eq!((parity.max_abs_logit, parity.argmax_agreement, parity.images), (4.0, 0.5, 2));
        assert!(Parity::compare(&[1.0], &[f32::NAN], 1).max_abs_logit_difference.is_nan());
    }

    #[test]
    fn stages_keep_their_order_in_json() {
        let mut stages = Stages::default();
        for (name, seconds) in [("read", 1.0), ("prune", 2.5), ("adapt", 3.0), ("prune", 0.5)] {
            stages.add(name, seconds);
        }
        let json = serde_json::to_string(&stages).unwrap();
        assert_eq!(json, r#"{"read":1.0,"prune":3.0,"adapt":3.0}"#);
        assert_eq!(serde_json::from_str::<Stages>(&json).unwrap(), stages);
        assert!((stages.total() - 7.0).abs() < 1e-12);
    }
}
