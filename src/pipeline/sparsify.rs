use std::collections::BTreeMap;

use margay_core::{Graph, Mask, Sparsity};
use tch::Tensor;

use super::PipelineError;
use super::choose::{Chosen, can_decide, least_loss};
use super::evaluate::score;
use super::pruning::Pruner;
use super::recalibrate::recalibrate;
use super::task::Task;
use crate::adapt::{self, Adapter, Merged, Saved};
use crate::distill::{Examples, Training, train};
use crate::progress::Progress;
use crate::prune::LayerOutcome;
use crate::recipe::{BaseBits, Recipe, Schedule};
use crate::record::{Choice, Stages, Trained};
use crate::torch::{Bits, Norms, TorchModel};

/// A sparse network before its last finetuning, and the dense one it imitates.
pub struct Base {
    /// The task's dense network.
    pub dense: TorchModel,
    /// Pruned, norms settled, not finetuned since.
    pub oneshot: TorchModel,
    /// Kept weights by weight name.
    pub masks: BTreeMap<String, Mask>,
    /// What became of each layer at the final sparsity.
    pub layers: Vec<LayerOutcome>,
    /// What was decided on the held-out fold.
    pub chosen: Chosen,
    /// What it was pruned on.
    pub shots: Examples,
    /// What it is finetuned on: the shots, and unlabelled photos if there are any.
    pub examples: Examples,
}

/// A finished sparse network.
pub struct Specialist {
    /// The network.
    pub model: TorchModel,
    /// Kept weights by weight name.
    pub masks: BTreeMap<String, Mask>,
    /// The adapter that was merged, if one was trained.
    pub adapter: Option<Saved>,
    /// What was decided on the held-out fold.
    pub choices: Vec<Choice>,
}

impl Specialist {
    fn of(model: TorchModel, masks: &BTreeMap<String, Mask>) -> Self {
        Self { model, masks: masks.clone(), adapter: None, choices: Vec::new() }
    }
}

/// What an adapter trained, as a share of a network's parameters.
pub fn trained(saved: &Saved, graph: &Graph) -> Trained {
    let all: usize = graph.params().map(|spec| spec.shape.iter().product::<usize>()).sum();
    let (adapter, beside) = (saved.trained as u64, saved.beside as u64);
    Trained { adapter, beside, share: saved.trained as f64 / all.max(1) as f64 }
}

/// Prunes some shots' network down to the target, with nothing left to choose. A gradual schedule finetunes on the
/// way.
pub fn base(
    pruner: &Pruner,
    chosen: Chosen,
    shots: Examples,
    seconds: &mut Stages,
    progress: &mut dyn Progress,
) -> Result<Base, PipelineError> {
    let Pruner { task, recipe, .. } = *pruner;
    let settled = chosen.settled;
    let dense = task.dense(&shots)?;
    let examples = match &task.unlabelled {
        Some(images) => shots.with_unlabelled(images)?,
        None => shots.shallow_clone(),
    };
    let mut base = Base {
        oneshot: dense.deep_clone()?,
        dense,
        masks: BTreeMap::new(),
        layers: Vec::new(),
        shots,
        examples,
        chosen,
    };
    for (index, level) in before(recipe).into_iter().map(Some).chain([None]).enumerate() {
        if index > 0 {
            base.oneshot = finetuned(&base, recipe, index - 1, seconds, progress)?;
        }
        let keep = match level {
            Some(level) => pruner.keep_before(&base.dense, &base.chosen.keep, level)?,
            None => base.chosen.keep.clone(),
        };
        let (model, shots) = (&mut base.oneshot, &base.shots);
        let pruned = timed(seconds, "prune", || pruner.prune(model, shots, &keep, &settled, progress))?;
        (base.masks, base.layers) = (pruned.masks, pruned.layers);
        if settled.recalibrated > 0.0 {
            let batches = base.shots.batches(recipe.prune.batch)?;
            let share = settled.recalibrated;
            timed(seconds, "recalibrate", || {
                Ok(recalibrate(&mut base.oneshot, &base.dense, &batches, share)?)
            })?;
        }
    }
    Ok(base)
}

/// The last finetuning: of every surviving weight, or of an adapter that is then merged. If there are several numbers
/// of epochs to try, a base made without the held-out fold is recovered with each first.
pub fn recover(
    task: &Task,
    base: &Base,
    recipe: &Recipe,
    seconds: &mut Stages,
    progress: &mut dyn Progress,
) -> Result<Specialist, PipelineError> {
    let mut recipe = recipe.clone();
    let tried = std::mem::take(&mut recipe.recovery.try_epochs);
    let mut choices = Vec::new();
    let open = !tried.is_empty() && recipe.recovery.schedule != Schedule::None;
    if open && can_decide(task, "the number of epochs", progress) {
        let choice = timed(seconds, "choose epochs", || best_epochs(task, base, &recipe, &tried, progress))?;
        recipe.recovery.epochs = choice.0;
        choices.push(choice.1);
    }
    Ok(Specialist { choices, ..recovered(base, &recipe, seconds, progress)? })
}

/// The number of epochs after which the held-out loss is least.
fn best_epochs(
    task: &Task,
    base: &Base,
    recipe: &Recipe,
    tried: &[usize],
    progress: &mut dyn Progress,
) -> Result<(usize, Choice), PipelineError> {
    let (pruner, mut seconds) = (Pruner::new(task, recipe)?, Stages::default());
    let shots = task.calibration.shallow_clone();
    let trial = self::base(&pruner, base.chosen.clone(), shots, &mut seconds, progress)?;
    let mut scores = Vec::with_capacity(tried.len());
    for &epochs in tried {
        let mut recipe = recipe.clone();
        recipe.recovery.epochs = epochs;
        scores.push(score(&recovered(&trial, &recipe, &mut seconds, progress)?.model, &task.heldout)?);
    }
    let names: Vec<String> = tried.iter().map(usize::to_string).collect();
    let (taken, choice) = least_loss("epochs of the last finetuning", &names, &scores);
    Ok((tried[taken], choice))
}

fn recovered(
    base: &Base,
    recipe: &Recipe,
    seconds: &mut Stages,
    progress: &mut dyn Progress,
) -> Result<Specialist, PipelineError> {
    let adapter = adapter(&recipe.adapt.method)?;
    let specialist = match recipe.recovery.schedule {
        Schedule::None => Specialist::of(base.oneshot.deep_clone()?, &base.masks),
        _ if adapter.trains_weights() => {
            let model = finetuned(base, recipe, before(recipe).len(), seconds, progress)?;
            Specialist::of(model, &base.masks)
        }
        _ => adapted(base, adapter, recipe, seconds, progress)?,
    };
    check_support(&specialist.model, &specialist.masks)?;
    Ok(specialist)
}

impl Base {
    /// The pruned network with weights in few bits, if asked for.
    fn packed(&self, bits: Option<BaseBits>) -> Result<Option<TorchModel>, PipelineError> {
        let Some(bits) = bits else { return Ok(None) };
        let mut packed = self.oneshot.share()?;
        packed.pack(&self.masks, bits.into())?;
        Ok(Some(packed))
    }
}

impl From<BaseBits> for Bits {
    fn from(bits: BaseBits) -> Self {
        match bits {
            BaseBits::Eight => Self::Eight,
            BaseBits::Four => Self::Four,
        }
    }
}

/// The base with a trained adapter merged.
fn adapted(
    base: &Base,
    adapter: &dyn Adapter,
    recipe: &Recipe,
    seconds: &mut Stages,
    progress: &mut dyn Progress,
) -> Result<Specialist, PipelineError> {
    let packed = base.packed(recipe.adapt.base_bits)?;
    let problem = adapt::Problem {
        base: packed.as_ref().unwrap_or(&base.oneshot),
        masks: &base.masks,
        teacher: Some(&base.dense),
        examples: &base.examples,
        recovery: &recipe.recovery,
        spec: &recipe.adapt,
        seed: recipe.seed,
    };
    let mut merged = timed(seconds, "adapt", || Ok(adapt::adapt(&problem, adapter, progress)?))?;
    if let Some(packed) = &packed {
        merged.rebase(packed, &base.oneshot)?;
    }
    let Merged { model, masks, adapter } = merged;
    Ok(Specialist { model, masks, adapter: Some(adapter), choices: Vec::new() })
}

/// Looks up the adapter.
pub fn adapter(name: &str) -> Result<&'static dyn Adapter, PipelineError> {
    adapt::find(name).ok_or_else(|| PipelineError::Unknown {
        kind: "adapter",
        name: name.to_owned(),
        nearest: adapt::nearest(name),
    })
}

/// The base finetuned on its shots; `round` counts the finetunings of a gradual schedule.
fn finetuned(
    base: &Base,
    recipe: &Recipe,
    round: usize,
    seconds: &mut Stages,
    progress: &mut dyn Progress,
) -> Result<TorchModel, PipelineError> {
    let mut model = base.oneshot.deep_clone()?;
    let stage = format!("finetune {}/{}", round + 1, before(recipe).len() + 1);
    let training = Training {
        spec: &recipe.recovery,
        teacher: Some(&base.dense),
        norms: Norms::Stored,
        seed: recipe.seed.wrapping_add(round as u64),
        stage: &stage,
    };
    timed(seconds, "finetune", || Ok(train(&mut model, &base.masks, &base.examples, &training, progress)?))?;
    Ok(model)
}

/// Sparsities to pass through before the target: halvings of what remains when gradual.
fn before(recipe: &Recipe) -> Vec<Sparsity> {
    if recipe.recovery.schedule != Schedule::Gradual {
        return Vec::new();
    }
    let target = recipe.prune.sparsity;
    let halvings = (1..).map_while(|n| Sparsity::new(1.0 - 0.5_f64.powi(n)).ok());
    halvings.take_while(|level| level.density() > target.density() * 1.05).collect()
}

/// Finetuning may not bring a pruned weight back.
fn check_support(model: &TorchModel, masks: &BTreeMap<String, Mask>) -> Result<(), PipelineError> {
    for (name, mask) in masks {
        let weight = crate::torch::to_array(&model.get(name)?)?;
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
