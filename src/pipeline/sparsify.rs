use std::collections::BTreeMap;

use margay_core::{Mask, Sparsity};
use tch::Tensor;

use super::evaluate::score;
use super::recalibrate::recalibrate;
use super::task::Task;
use super::{PipelineError, plan};
use crate::allocate::{Allocator, allocate, profiles};
use crate::distill::{Examples, Training, train};
use crate::progress::Progress;
use crate::prune::{LayerOutcome, Pruned, Solver, sequential};
use crate::recipe::{Recalibration, Recipe, Schedule};
use crate::record::{Candidate, Choice, Stages};
use crate::torch::{Norms, TorchModel};

/// A finished sparse network, the one before finetuning, and the dense one it imitates.
pub struct Sparsified {
    /// The task's dense network.
    pub dense: TorchModel,
    /// Pruned, statistics settled, not finetuned since.
    pub oneshot: TorchModel,
    /// The final network.
    pub specialist: TorchModel,
    /// Kept weights by weight name.
    pub masks: BTreeMap<String, Mask>,
    /// What became of each layer at the final sparsity.
    pub layers: Vec<LayerOutcome>,
    /// What was decided on the held-out fold.
    pub choices: Vec<Choice>,
}

/// How layers are pruned, resolved from a recipe.
pub struct Method {
    /// Chooses masks and values.
    pub solver: &'static dyn Solver,
    /// Spreads the sparsity.
    pub allocator: &'static dyn Allocator,
}

/// Makes every choice on the held-out fold, then the final network from all shots.
pub fn sparsify(
    task: &Task,
    recipe: &Recipe,
    seconds: &mut Stages,
    progress: &mut dyn Progress,
) -> Result<Sparsified, PipelineError> {
    let method = plan::method(recipe)?;
    let (recalibrated, choices) =
        timed(seconds, "choose", || choose_recalibration(task, recipe, &method, progress))?;
    let shots = task.all_shots()?;
    let dense = task.dense(&shots)?;
    let mut model = dense.deep_clone()?;
    let levels = levels(recipe);
    let mut last = None;
    for (index, level) in levels.iter().enumerate() {
        let pruned =
            timed(seconds, "prune", || prune(&mut model, &shots, recipe, &method, *level, progress))?;
        if recalibrated {
            timed(seconds, "recalibrate", || {
                Ok(recalibrate(&mut model, &dense, &shots.batches(recipe.prune.batch)?)?)
            })?;
        }
        let oneshot = model.deep_clone()?;
        if recipe.recovery.schedule != Schedule::None {
            let stage = format!("finetune {}/{}", index + 1, levels.len());
            let training = Training {
                spec: &recipe.recovery,
                masks: &pruned.masks,
                teacher: Some(&dense),
                norms: Norms::Stored,
                seed: recipe.seed.wrapping_add(index as u64),
                stage: &stage,
            };
            timed(seconds, "finetune", || Ok(train(&mut model, &shots, &training, progress)?))?;
        }
        check_support(&model, &pruned.masks)?;
        last = Some((oneshot, pruned));
    }
    let (oneshot, Pruned { masks, layers }) = last.ok_or(PipelineError::NoImages("train"))?;
    Ok(Sparsified { dense, oneshot, specialist: model, masks, layers, choices })
}

/// Sparsities to pass through: halvings of what remains when gradual, else the target at once.
fn levels(recipe: &Recipe) -> Vec<Sparsity> {
    let target = recipe.prune.sparsity;
    let halvings = (1..).map_while(|n| Sparsity::new(1.0 - 0.5_f64.powi(n)).ok());
    let before = halvings.take_while(|level| level.density() > target.density() * 1.05);
    let gradual = recipe.recovery.schedule == Schedule::Gradual;
    before.filter(|_| gradual).chain([target]).collect()
}

fn prune(
    model: &mut TorchModel,
    shots: &Examples,
    recipe: &Recipe,
    method: &Method,
    level: Sparsity,
    progress: &mut dyn Progress,
) -> Result<Pruned, PipelineError> {
    let profiles = profiles(&model.graph);
    let kept = allocate(method.allocator, &profiles, level);
    let keep = profiles.iter().map(|p| p.name.clone()).zip(kept).collect();
    let batches = shots.batches(recipe.prune.batch)?;
    Ok(sequential(model, &batches, method.solver, &keep, recipe.prune.damping, progress)?)
}

/// Whether norms are recalibrated after pruning: as told, or as the held-out fold says.
fn choose_recalibration(
    task: &Task,
    recipe: &Recipe,
    method: &Method,
    progress: &mut dyn Progress,
) -> Result<(bool, Vec<Choice>), PipelineError> {
    match recipe.recovery.recalibrate {
        Recalibration::On => return Ok((true, Vec::new())),
        Recalibration::Off => return Ok((false, Vec::new())),
        Recalibration::Auto if task.heldout.is_empty() => {
            progress.warn("nothing is held out: norms are not recalibrated");
            return Ok((false, Vec::new()));
        }
        Recalibration::Auto => {}
    }
    let dense = task.dense(&task.calibration)?;
    let mut model = dense.deep_clone()?;
    prune(&mut model, &task.calibration, recipe, method, recipe.prune.sparsity, progress)?;
    let stored = score(&model, &task.heldout)?;
    recalibrate(&mut model, &dense, &task.calibration.batches(recipe.prune.batch)?)?;
    let fresh = score(&model, &task.heldout)?;
    let helps = fresh.loss < stored.loss;
    let [what, fresh_name] = if model.graph.has_layer_norms() {
        ["means behind layer norms after pruning", "corrected"]
    } else {
        ["batch-norm statistics after pruning", "re-estimated"]
    };
    let candidate = |name: &str, s: &super::evaluate::Score| Candidate {
        name: name.to_owned(),
        top1: Some(s.top1),
        loss: Some(s.loss),
    };
    let choice = Choice {
        what: what.to_owned(),
        candidates: vec![candidate("stored", &stored), candidate(fresh_name, &fresh)],
        taken: if helps { fresh_name } else { "stored" }.to_owned(),
    };
    Ok((helps, vec![choice]))
}

/// Finetuning may not bring a pruned weight back.
fn check_support(model: &TorchModel, masks: &BTreeMap<String, Mask>) -> Result<(), PipelineError> {
    for (name, mask) in masks {
        let weight = crate::torch::to_array(model.get(name).map_err(crate::torch::TorchError::from)?)?;
        if weight.iter().zip(mask.iter()).any(|(value, kept)| !kept && *value != 0.0) {
            return Err(PipelineError::Support(name.clone()));
        }
    }
    Ok(())
}

/// Adds the time of `work` to a stage.
pub fn timed<T>(
    seconds: &mut Stages,
    stage: &str,
    work: impl FnOnce() -> Result<T, PipelineError>,
) -> Result<T, PipelineError> {
    let started = std::time::Instant::now();
    let result = work();
    seconds.add(stage, started.elapsed().as_secs_f64());
    result
}

/// Logits of a batch list, joined.
pub fn logits(model: &TorchModel, batches: &[Tensor]) -> Result<Tensor, PipelineError> {
    let _no_grad = tch::no_grad_guard();
    let run = |batch: &Tensor| -> Result<Tensor, crate::torch::TorchError> {
        Ok(crate::torch::forward(&model.graph, model, Norms::Stored, batch, &[])?.logits)
    };
    let parts = batches.iter().map(run).collect::<Result<Vec<_>, _>>()?;
    Ok(Tensor::f_cat(&parts, 0).map_err(crate::torch::TorchError::from)?)
}
