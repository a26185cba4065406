//! Less pruning where a class would pay too much for it.

use tch::Tensor;

use super::PipelineError;
use super::choose::{Chosen, can_decide, choose};
use super::evaluate::on_torch;
use super::pruning::Pruner;
use super::sparsify::{Base, Specialist, base, recover, timed};
use super::task::Task;
use crate::distill::{Examples, corners};
use crate::experiment::ClassChange;
use crate::progress::Progress;
use crate::recipe::Recipe;
use crate::record::{Candidate, Choice, Evaluation, Stages};
use crate::torch::{TorchError, TorchModel};

/// Times that the target is relaxed at most.
const STEPS: u32 = 8;

/// Makes every choice on the held-out fold, then prunes the network of all the shots. Where the recipe limits what a
/// class may lose, the recipe that is returned prunes as much as it can within the limit.
pub fn pruned(
    task: &Task,
    recipe: &Recipe,
    seconds: &mut Stages,
    progress: &mut dyn Progress,
) -> Result<(Recipe, Base), PipelineError> {
    let (recipe, chosen) = timed(seconds, "choose", || decided(task, recipe, progress))?;
    let base = base(&Pruner::new(task, &recipe)?, chosen, task.all_shots()?, seconds, progress)?;
    Ok((recipe, base))
}

fn decided(
    task: &Task,
    recipe: &Recipe,
    progress: &mut dyn Progress,
) -> Result<(Recipe, Chosen), PipelineError> {
    match recipe.prune.max_class_drop {
        Some(allowed) if can_decide(task, "a compression at which no class loses too much", progress) => {
            guarded(task, recipe, allowed, progress)
        }
        _ => Ok((recipe.clone(), choose(&Pruner::new(task, recipe)?, progress)?)),
    }
}

/// Relaxes the target until no class loses more recall than is allowed.
///
/// Each trial prunes and recovers on the calibration part of the shots, as the final run does on all of them, and is
/// held against the dense network on the held-out fold.
fn guarded(
    task: &Task,
    recipe: &Recipe,
    allowed: f64,
    progress: &mut dyn Progress,
) -> Result<(Recipe, Chosen), PipelineError> {
    let dense = held_out_recall(task, &task.dense(&task.calibration)?)?;
    let mut candidates = Vec::new();
    let mut step = 0;
    loop {
        let trial = recipe.relaxed(step);
        let (specialist, mut chosen) = tried(task, &trial, progress)?;
        let after = held_out_recall(task, &specialist.model)?;
        let (name, (drop, class)) = (trial.cost(), largest_drop(&dense, &after));
        progress.note(&format!("{name}: held-out recall of `{class}` falls by {:.1} points", 100.0 * drop));
        candidates.push(Candidate {
            name: name.clone(),
            top1: after.top1,
            loss: None,
            class_drop: Some(drop),
        });
        let whole = trial.prune.target.is_none() && trial.prune.sparsity.fraction() == 0.0;
        if drop <= allowed || whole || step == STEPS {
            if drop > allowed {
                progress.warn(&format!("even at {name} `{class}` loses more than it may"));
            }
            let what = format!("compression at which no class loses more than {:.1} points", 100.0 * allowed);
            chosen.choices.insert(0, Choice { what, candidates, taken: name });
            return Ok((trial, chosen));
        }
        step += 1;
    }
}

/// A network made from the calibration part of the shots as the final one is made from all, and what was chosen for it.
pub fn tried(
    task: &Task,
    recipe: &Recipe,
    progress: &mut dyn Progress,
) -> Result<(Specialist, Chosen), PipelineError> {
    let pruner = Pruner::new(task, recipe)?;
    let chosen = choose(&pruner, progress)?;
    let shots = task.calibration.shallow_clone();
    let base = base(&pruner, chosen.clone(), shots, &mut Stages::default(), progress)?;
    Ok((recover(task, &base, recipe, &mut Stages::default(), progress)?, chosen))
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
    let [_, lost] = ClassChange::of(dense, after);
    lost.map_or_else(Default::default, |change| (change.loss(), change.label))
}

/// The held-out photos from several sides: one or two photos of a rare class would tell its recall in steps of a half.
fn views(examples: &Examples) -> Result<Examples, TorchError> {
    let images = corners(&examples.images)?;
    let classes = examples.classes.f_repeat([images.len() as i64])?;
    Ok(Examples::new(Tensor::f_cat(&images, 0)?, classes))
}
