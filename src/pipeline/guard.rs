//! Less pruning where a class would pay too much for it.

use tch::Tensor;

use super::PipelineError;
use super::choose::choose;
use super::evaluate::on_torch;
use super::pruning::Pruner;
use super::sparsify::{Specialist, build, recover};
use super::task::Task;
use crate::distill::Examples;
use crate::progress::Progress;
use crate::recipe::Recipe;
use crate::record::{Candidate, Choice, Evaluation, Stages};
use crate::torch::{TorchError, TorchModel};

/// Times that the target is relaxed at most.
const STEPS: u32 = 8;

/// The recipe with the most pruning at which no class loses more recall than the recipe allows.
///
/// Each trial prunes and recovers on the calibration part of the shots, as the final run does on all of them, and is
/// held against the dense network on the held-out fold.
pub fn guarded(
    task: &Task,
    recipe: &Recipe,
    progress: &mut dyn Progress,
) -> Result<(Recipe, Option<Choice>), PipelineError> {
    let Some(allowed) = recipe.prune.max_class_drop else { return Ok((recipe.clone(), None)) };
    if task.heldout.is_empty() {
        progress.warn("nothing is held out: what a class loses cannot be limited");
        return Ok((recipe.clone(), None));
    }
    let dense = held_out_recall(task, &task.dense(&task.calibration)?)?;
    let mut candidates = Vec::new();
    for step in 0..=STEPS {
        let trial = recipe.relaxed(step);
        let after = held_out_recall(task, &tried(task, &trial, progress)?.model)?;
        let (drop, class) = largest_drop(&dense, &after);
        progress.note(&format!(
            "{}: held-out recall of `{class}` falls by {:.1} points",
            trial.cost(),
            100.0 * drop
        ));
        candidates.push(Candidate {
            name: trial.cost(),
            top1: after.top1,
            loss: None,
            class_drop: Some(drop),
        });
        let dense_again = trial.prune.target.is_none() && trial.prune.sparsity.fraction() == 0.0;
        if drop <= allowed || dense_again || step == STEPS {
            if drop > allowed {
                progress.warn(&format!("even at {} `{class}` loses more than it may", trial.cost()));
            }
            let what = format!("compression at which no class loses more than {:.1} points", 100.0 * allowed);
            let choice = Choice { what, candidates, taken: trial.cost() };
            return Ok((trial, Some(choice)));
        }
    }
    Ok((recipe.clone(), None))
}

/// A network made from the calibration part of the shots as the final one is made from all.
pub fn tried(task: &Task, recipe: &Recipe, progress: &mut dyn Progress) -> Result<Specialist, PipelineError> {
    let pruner = Pruner::new(task, recipe)?;
    let (settled, keep, _) = choose(&pruner, progress)?;
    let shots = task.calibration.shallow_clone();
    let base = build(&pruner, settled, keep, shots, &mut Stages::default(), progress)?;
    recover(task, &base, recipe, &mut Stages::default(), progress)
}

/// Recall of each class over several views of the held-out photos.
pub fn held_out_recall(task: &Task, model: &TorchModel) -> Result<Evaluation, PipelineError> {
    let views = views(&task.heldout)?;
    let truth = crate::torch::to_array(&views.classes)?;
    let truth: Vec<usize> = truth.iter().map(|class| *class as usize).collect();
    Ok(on_torch(model, &views)?.evaluate(&task.dataset.classes, &truth))
}

/// The most that the recall of a class falls, and which it is.
pub fn largest_drop(dense: &Evaluation, after: &Evaluation) -> (f64, String) {
    let drops = dense
        .classes
        .iter()
        .zip(&after.classes)
        .filter_map(|(dense, after)| Some((dense.recall? - after.recall?, dense.label.clone())));
    drops.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or_default()
}

/// Each image as it is and shifted into the corners by a sixteenth of its side, each of these mirrored, too: one or two
/// photos of a rare class would tell its recall in steps of a half.
fn views(examples: &Examples) -> Result<Examples, PipelineError> {
    let made = || -> Result<Examples, tch::TchError> {
        let (_, _, height, width) = examples.images.size4()?;
        let pad = (height.min(width) / 16).max(1);
        let padded = examples.images.f_reflection_pad2d([pad; 4])?;
        let mut images = Vec::new();
        for [top, left] in [[1, 1], [0, 0], [0, 2], [2, 0], [2, 2]] {
            let view = padded.f_narrow(2, top * pad, height)?.f_narrow(3, left * pad, width)?;
            images.extend([view.f_flip([3])?, view]);
        }
        let classes = examples.classes.f_repeat([images.len() as i64])?;
        Ok(Examples::new(Tensor::f_cat(&images, 0)?, classes))
    };
    Ok(made().map_err(TorchError::from)?)
}
