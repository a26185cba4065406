//! Less pruning where a class would pay too much for it.

use super::PipelineError;
use super::choose::{can_decide, choose};
use super::evaluate::on_torch;
use super::networks::{Chosen, Specialist};
use super::pruning::Pruner;
use super::recover::recovered_on_fold;
use super::sides::views;
use super::sparsify::trial;
use super::task::Task;
use crate::experiment::ClassChange;
use crate::progress::Progress;
use crate::recipe::Recipe;
use crate::record::{Candidate, Choice, Evaluation};
use crate::torch::TorchModel;

/// Times that the target is relaxed at most.
const STEPS: u32 = 8;
/// Parts that the shots are split into to judge a target.
const FOLDS: usize = 3;
/// Recalls are quotients of counts: what their differences may be off by rounding, less than one photo of a billion.
const ROUNDING: f64 = 1e-9;

/// Makes every choice of pruning on the held-out fold. Where the recipe limits what a class may lose, the recipe that is
/// returned prunes as much as it can within the limit.
pub fn decided(
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

/// Relaxes the target until no class loses more recall than is allowed, by cross-validation: the final run's own fold has
/// too few photos of a rare class to tell.
fn guarded(
    task: &Task,
    recipe: &Recipe,
    allowed: f64,
    progress: &mut dyn Progress,
) -> Result<(Recipe, Chosen), PipelineError> {
    let jury = Jury::new(task)?;
    let mut candidates = Vec::new();
    let mut step = 0;
    loop {
        let trial = recipe.relaxed(step);
        let Verdict { drop, class, top1 } = jury.judge(&trial, allowed, progress)?;
        let (name, within) = (trial.cost(), within(drop, allowed));
        let least = if within { "" } else { "at least " };
        progress.note(&format!(
            "{name}: held-out recall of `{class}` falls by {least}{:.1} points",
            100.0 * drop
        ));
        candidates.push(Candidate { name: name.clone(), top1, loss: None, class_drop: Some(drop) });
        if within || trial.is_dense() || step == STEPS {
            if !within {
                progress.warn(&format!("even at {name} `{class}` loses more than it may"));
            }
            let mut chosen = choose(&Pruner::new(task, &trial)?, progress)?;
            let what = format!("compression at which no class loses more than {:.1} points", 100.0 * allowed);
            chosen.choices.insert(0, Choice { what, candidates, taken: name });
            return Ok((trial, chosen));
        }
        step += 1;
    }
}

/// What a recipe costs the class that it costs most.
struct Verdict {
    /// Recall that is lost, 0–1; at least this if it is more than was allowed.
    drop: f64,
    class: String,
    /// Accuracy over every fold, if all were needed.
    top1: Option<f64>,
}

/// Folds that judge recipes, and how the dense network answers what they hold out.
struct Jury {
    folds: Vec<Task>,
    classes: Vec<String>,
    truth: Vec<usize>,
    dense: Vec<usize>,
}

impl Jury {
    fn new(task: &Task) -> Result<Self, PipelineError> {
        let (mut truth, mut dense) = (Vec::new(), Vec::new());
        let folds = task.folds(FOLDS)?;
        for fold in &folds {
            let (of, answers) = held_out_answers(fold, &fold.dense(&fold.calibration)?)?;
            truth.extend(of);
            dense.extend(answers);
        }
        Ok(Self { folds, classes: task.dataset.classes.clone(), truth, dense })
    }

    /// Prunes and recovers on each fold as the final run does on all the shots. Photos of folds to come count as answered
    /// by the dense network, so that the rest is spared once a class has lost more than it may.
    fn judge(
        &self,
        recipe: &Recipe,
        allowed: f64,
        progress: &mut dyn Progress,
    ) -> Result<Verdict, PipelineError> {
        let evaluate = |answers: &[usize]| Evaluation::from_predictions(&self.classes, &self.truth, answers);
        let before = evaluate(&self.dense);
        let (mut answers, mut at) = (self.dense.clone(), 0);
        let mut verdict = Verdict { drop: 0.0, class: String::new(), top1: None };
        for fold in &self.folds {
            let specialist = tried(fold, recipe, progress)?;
            let (_, of_fold) = held_out_answers(fold, &specialist.model)?;
            answers[at..at + of_fold.len()].copy_from_slice(&of_fold);
            at += of_fold.len();
            let after = evaluate(&answers);
            (verdict.drop, verdict.class) = largest_drop(&before, &after);
            verdict.top1 = after.top1.filter(|_| at == answers.len());
            if !within(verdict.drop, allowed) {
                break;
            }
        }
        Ok(verdict)
    }
}

/// A network made from the calibration part of the shots as the final one is made from all, finetuned or not as the held-out
/// fold likes better.
pub fn tried(task: &Task, recipe: &Recipe, progress: &mut dyn Progress) -> Result<Specialist, PipelineError> {
    let pruner = Pruner::new(task, recipe)?;
    let trial = trial(&pruner, choose(&pruner, progress)?, progress)?;
    recovered_on_fold(task, &trial, recipe, progress)
}

/// Recall of each class over several views of the held-out photos.
pub fn held_out_recall(task: &Task, model: &TorchModel) -> Result<Evaluation, PipelineError> {
    let (truth, answers) = held_out_answers(task, model)?;
    Ok(Evaluation::from_predictions(&task.dataset.classes, &truth, &answers))
}

/// True classes and answers over several views of the held-out photos.
fn held_out_answers(task: &Task, model: &TorchModel) -> Result<(Vec<usize>, Vec<usize>), PipelineError> {
    let views = views(&task.heldout)?;
    let truth = crate::torch::to_array(&views.classes)?;
    let truth = truth.iter().map(|class| *class as usize).collect();
    Ok((truth, on_torch(model, &views)?.predicted()))
}

/// The most that the recall of a class falls, and which it is.
pub fn largest_drop(dense: &Evaluation, after: &Evaluation) -> (f64, String) {
    let [_, lost] = ClassChange::of(dense, after);
    lost.map_or_else(Default::default, |change| (change.loss(), change.label))
}

/// Whether a class loses no more than it may; exactly that much is within.
fn within(drop: f64, allowed: f64) -> bool {
    drop <= allowed + ROUNDING
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_class_may_lose_is_within_whatever_the_counts() {
        for tenth in 1..20_u32 {
            let recall = |right: u32| f64::from(right) / f64::from(10 * tenth);
            for right in tenth..=10 * tenth {
                assert!(within(recall(right) - recall(right - tenth), 0.1), "{right} of {}", 10 * tenth);
                assert!(!within(recall(right) - recall(right - tenth) + recall(1), 0.1));
            }
        }
    }
}
