//! How photos are prepared in a run, and whether the shots agree where that is an assumption.

use margay_core::{FormatError, Normalization, Preprocess};
use tch::{Kind, Reduction, Tensor};

use super::PipelineError;
use super::evaluate::logits;
use crate::checkpoint::{Checkpoint, Pretrained};
use crate::data::{Sample, image_size_hint};
use crate::distill::Examples;
use crate::head;
use crate::labels::HeadPlan;
use crate::preprocess::{Origin, PRESETS, Preset, Resolved, resolve};
use crate::progress::Progress;
use crate::recipe::InputSpec;
use crate::record::{Candidate, Choice};
use crate::torch::{TorchError, TorchModel};

/// Images that constants are tried on.
const IMAGES: usize = 128;
/// Fewer images say nothing.
const FEWEST: usize = 8;
/// Images per batch.
const BATCH: usize = 64;
/// Other constants are better if they lower the mean cross-entropy by this much ...
const GAIN: f64 = 0.05;
/// ... and by this many standard errors of the difference, image by image.
const DEVIATIONS: f64 = 3.0;

/// How photos become inputs: as the recipe says, else as the checkpoint's files say, else by habit.
pub fn prepared(
    input: &InputSpec,
    checkpoint: Option<&Checkpoint>,
    samples: &[Sample],
    progress: &mut dyn Progress,
) -> Result<Resolved, PipelineError> {
    let known = checkpoint.and_then(Checkpoint::preprocess);
    let native = checkpoint.and_then(Checkpoint::native_size);
    let mut hinted = None;
    let hint = || {
        hinted = image_size_hint(samples);
        hinted
    };
    let resolved = resolve(input, known, native, hint).map_err(|unknown| PipelineError::Unknown {
        kind: "preprocessing",
        name: unknown.name,
        nearest: unknown.nearest,
    })?;
    resolved.spec.check().map_err(FormatError::from)?;
    if let Some(side) = hinted.filter(|side| *side != 224) {
        progress.note(&format!("all images are {side}x{side}: used as they are (--image-size changes it)"));
    }
    match (&resolved.origin, resolved.warning()) {
        (Origin::File(file), _) => progress.note(&format!("photos as {file} says: {}", resolved.spec)),
        (_, Some(warning)) if checkpoint.is_some() => progress.warn(&warning),
        _ => {}
    }
    Ok(resolved)
}

/// Tries the constants of every preset on the shots, prepared with `spec`, through the pretrained network.
///
/// A sliced head answers itself; where a head is fitted, it answers for each image as if fitted on the
/// others. Nothing is switched: if other constants are clearly better, the user is told.
pub fn check_constants(
    pretrained: &Pretrained,
    plan: &HeadPlan,
    shots: &Examples,
    classes: usize,
    spec: &Preprocess,
    progress: &mut dyn Progress,
) -> Result<Option<Choice>, PipelineError> {
    let shots = spread(shots)?;
    if shots.len() < FEWEST || classes < 2 {
        return Ok(None);
    }
    let mut all = vec![spec.normalization];
    for preset in PRESETS {
        if !all.contains(&preset.spec.normalization) {
            all.push(preset.spec.normalization);
        }
    }
    progress.start("check preprocessing", all.len() as u64);
    let mut trials = Vec::with_capacity(all.len());
    for constants in all {
        let images = renormalised(&shots.images, spec.normalization, constants)?;
        let examples = Examples { images, ..shots.shallow_clone() };
        let logits = answers(pretrained, plan, &examples, classes)?;
        trials.push(Trial::new(constants, &logits, &shots.classes)?);
        progress.advance(1);
    }
    progress.finish();
    if let Some(better) = clearly_better(&trials) {
        progress.warn(&advice(&trials[0], better, spec));
    }
    Ok(Some(choice(&trials)))
}

/// Constants and what the network makes of images prepared with them.
struct Trial {
    constants: Normalization,
    /// Cross-entropy of each image.
    losses: Vec<f64>,
    /// Fraction of right answers.
    top1: f64,
}

impl Trial {
    fn new(constants: Normalization, logits: &Tensor, truth: &Tensor) -> Result<Self, PipelineError> {
        let measure = || -> Result<Self, tch::TchError> {
            let none = None::<Tensor>;
            let losses = logits.f_cross_entropy_loss(truth, none, Reduction::None, -100, 0.0)?;
            let hits = logits.f_argmax(1, false)?.f_eq_tensor(truth)?.f_to_kind(Kind::Double)?;
            let losses = Vec::<f64>::try_from(losses.f_to_kind(Kind::Double)?)?;
            Ok(Self { constants, losses, top1: hits.f_mean(Kind::Double)?.double_value(&[]) })
        };
        Ok(measure().map_err(TorchError::from)?)
    }

    fn loss(&self) -> f64 {
        mean(&self.losses)
    }
}

/// The trial with the least loss, if it beats the first one beyond doubt.
fn clearly_better(trials: &[Trial]) -> Option<&Trial> {
    let (assumed, others) = trials.split_first()?;
    let best = others.iter().min_by(|a, b| a.loss().total_cmp(&b.loss()))?;
    let gains: Vec<f64> = assumed.losses.iter().zip(&best.losses).map(|(a, b)| a - b).collect();
    let gain = mean(&gains);
    let squares: Vec<f64> = gains.iter().map(|g| (g - gain).powi(2)).collect();
    let error = (mean(&squares) / (gains.len() as f64 - 1.0)).sqrt();
    (gain > GAIN && gain > DEVIATIONS * error && best.top1 >= assumed.top1).then_some(best)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn advice(assumed: &Trial, better: &Trial, spec: &Preprocess) -> String {
    let same = PRESETS.iter().filter(|preset| preset.spec.normalization == better.constants);
    let flags: Vec<String> = same.map(|preset| flags(preset, spec)).collect();
    format!(
        "the shots speak against the assumed constants ({}): with {} the network gets {:.0} % of them right \
         instead of {:.0} %, at a cross-entropy of {:.2} instead of {:.2}; try {}",
        assumed.constants,
        better.constants,
        100.0 * better.top1,
        100.0 * assumed.top1,
        better.loss(),
        assumed.loss(),
        flags.join(", or ")
    )
}

/// What takes a preset's constants; the size stays the one that was tried.
fn flags(preset: &Preset, spec: &Preprocess) -> String {
    let [height, width] = spec.size;
    let name = format!("--preprocess {}", preset.name);
    if preset.spec.size == spec.size || height != width {
        name
    } else {
        format!("{name} --image-size {height}")
    }
}

fn choice(trials: &[Trial]) -> Choice {
    let candidate = |trial: &Trial| Candidate {
        name: trial.constants.to_string(),
        top1: Some(trial.top1),
        loss: Some(trial.loss()),
        class_drop: None,
    };
    Choice {
        what: "constants of preprocessing, assumed and tried on the shots".to_owned(),
        candidates: trials.iter().map(candidate).collect(),
        taken: trials.first().map_or_else(String::new, |trial| trial.constants.to_string()),
    }
}

/// Logits of the task's classes.
fn answers(
    pretrained: &Pretrained,
    plan: &HeadPlan,
    examples: &Examples,
    classes: usize,
) -> Result<Tensor, PipelineError> {
    let (mut graph, mut params) = (pretrained.graph.clone(), pretrained.params.clone());
    match plan {
        HeadPlan::Slice(_) => {
            head::slice(&mut graph, &mut params, &plan.rows())?;
            let model = TorchModel::new(graph, &params, examples.images.device())?;
            logits(&model, &examples.batches(BATCH)?)
        }
        HeadPlan::Probe(_) => Ok(head::left_out(&graph, &params, examples, classes)?),
    }
}

/// At most [`IMAGES`] of the images, evenly spread: shots come class by class.
fn spread(shots: &Examples) -> Result<Examples, PipelineError> {
    let (count, wanted) = (shots.len(), shots.len().min(IMAGES));
    let picked: Vec<i64> = (0..wanted).map(|i| (i * count / wanted) as i64).collect();
    Ok(shots.select(&picked)?)
}

/// Images `[n, 3, h, w]` as if they had been normalised with other constants.
fn renormalised(images: &Tensor, from: Normalization, to: Normalization) -> Result<Tensor, PipelineError> {
    let factor: [f32; 3] = std::array::from_fn(|c| from.std[c] / to.std[c]);
    let shift: [f32; 3] = std::array::from_fn(|c| (from.mean[c] - to.mean[c]) / to.std[c]);
    let channels = |values: [f32; 3]| -> Result<Tensor, tch::TchError> {
        Tensor::f_from_slice(&values)?.f_reshape([1, 3, 1, 1])?.f_to_device(images.device())
    };
    let changed = || images.f_mul(&channels(factor)?)?.f_add(&channels(shift)?);
    Ok(changed().map_err(TorchError::from)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(losses: &[f64], top1: f64) -> Trial {
        Trial { constants: Normalization::IMAGENET, losses: losses.to_vec(), top1 }
    }

    #[test]
    fn only_a_gain_beyond_doubt_counts() {
        let assumed = || trial(&[2.0, 1.9, 2.1, 2.0, 2.2, 1.8, 2.0, 2.0], 0.3);
        let table = [
            (trial(&[1.0, 0.9, 1.2, 1.0, 1.1, 1.0, 0.8, 1.0], 0.8), true),
            // Better on the mean, by one image.
            (trial(&[2.0, 1.9, 2.1, 2.0, 2.2, 1.8, 2.0, 0.0], 0.4), false),
            // Sure, but too little to matter.
            (trial(&[1.98, 1.88, 2.08, 1.98, 2.18, 1.78, 1.98, 1.981], 0.3), false),
            // A lower loss with fewer right answers.
            (trial(&[1.0, 0.9, 1.2, 1.0, 1.1, 1.0, 0.8, 1.0], 0.2), false),
            (assumed(), false),
        ];
        for (row, (other, better)) in table.into_iter().enumerate() {
            assert_eq!(clearly_better(&[assumed(), other]).is_some(), better, "row {row}");
        }
    }

    #[test]
    fn constants_are_exchanged_exactly() {
        let (from, to) = (Normalization::IMAGENET, Normalization::even(0.45, 0.225));
        let pixel = |n: Normalization| {
            [0.2_f32, 0.5, 0.9]
                .map(|v| v)
                .iter()
                .enumerate()
                .map(|(c, v)| (v - n.mean[c]) / n.std[c])
                .collect::<Vec<_>>()
        };
        let images = Tensor::from_slice(&pixel(from)).reshape([1, 3, 1, 1]);
        let changed = Vec::<f32>::try_from(renormalised(&images, from, to).unwrap().flatten(0, -1)).unwrap();
        for (got, want) in changed.iter().zip(pixel(to)) {
            assert!((got - want).abs() < 1e-5, "{changed:?}");
        }
    }
}
